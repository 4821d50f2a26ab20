"""Bytes to bytes: the primitives, each from a library, none of our own.

The only package that imports `cryptography` and PyNaCl.
"""
