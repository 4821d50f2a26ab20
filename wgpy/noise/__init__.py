"""The handshake and the session it makes: Noise IKpsk2, cookies, keypairs, replay window.

Knows no peer table and no timer.
"""
