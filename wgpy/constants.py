"""Every number of the protocol, beside its source; numbers we chose ourselves stand apart, each with its reason.

Times are seconds, sizes octets. WP is the WireGuard whitepaper, K the Linux driver, G wireguard-go.
"""

from __future__ import annotations

from typing import Final

# --- Noise (whitepaper 5.4) ------------------------------------------------------------------------------------------
CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1: Final = b"mac1----"
LABEL_COOKIE: Final = b"cookie--"

# --- Message types and sizes (whitepaper 5.4) ------------------------------------------------------------------------
MESSAGE_INITIATION: Final = 1
MESSAGE_RESPONSE: Final = 2
MESSAGE_COOKIE_REPLY: Final = 3
MESSAGE_TRANSPORT: Final = 4
INITIATION_SIZE: Final = 148
RESPONSE_SIZE: Final = 92
COOKIE_REPLY_SIZE: Final = 64
TRANSPORT_HEADER_SIZE: Final = 16
TAG_SIZE: Final = 16
TRANSPORT_OVERHEAD: Final = TRANSPORT_HEADER_SIZE + TAG_SIZE
KEEPALIVE_SIZE: Final = TRANSPORT_OVERHEAD

# --- Limits of a session (whitepaper 6.1) ----------------------------------------------------------------------------
REKEY_AFTER_MESSAGES: Final = 2**60
REJECT_AFTER_MESSAGES: Final = 2**64 - 2**13 - 1  # WP 6.1, G; the kernel's is 63 more, which never shows on the wire
REKEY_AFTER_TIME: Final = 120.0
REJECT_AFTER_TIME: Final = 180.0

# --- Timers (whitepaper 6.1 to 6.5; jitter and retries as in K and G) ------------------------------------------------
REKEY_TIMEOUT: Final = 5.0
REKEY_TIMEOUT_JITTER: Final = 1 / 3  # K: below HZ/3; G: up to 334 ms
REKEY_ATTEMPT_TIME: Final = 90.0
MAX_TIMER_HANDSHAKES: Final = (
    18  # REKEY_ATTEMPT_TIME / REKEY_TIMEOUT; given up when more retries than this were counted
)
KEEPALIVE_TIMEOUT: Final = 10.0
NEW_HANDSHAKE_TIMEOUT: Final = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT
REFRESH_ON_RECEIVE_AFTER: Final = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
ZERO_KEY_TIMEOUT: Final = 3 * REJECT_AFTER_TIME

# --- Defence against floods (whitepaper 5.3, 5.4.7; K, G) ------------------------------------------------------------
INITIATION_INTERVAL: Final = 1 / 50  # K, G: INITIATIONS_PER_SECOND = 50, per peer
COOKIE_SECRET_MAX_AGE: Final = 120.0
COOKIE_MAX_AGE: Final = COOKIE_SECRET_MAX_AGE - REKEY_TIMEOUT  # K; G keeps a received cookie for the full 120 s
RATELIMIT_PACKET_COST: Final = 1 / 20  # K: 20 packets a second
RATELIMIT_BUCKET: Final = 5 * RATELIMIT_PACKET_COST  # K: burst of five
RATELIMIT_MAX_SOURCES: Final = 65536  # K; when full, new sources are refused
RATELIMIT_IDLE: Final = 1.0
HANDSHAKE_QUEUE_SIZE: Final = 1024  # G; K has 4096
UNDER_LOAD_QUEUE: Final = HANDSHAKE_QUEUE_SIZE // 8  # G
UNDER_LOAD_HOLD: Final = 1.0  # G

# --- Timestamps (TAI64N; granularity as in K and G) ------------------------------------------------------------------
TAI64_BASE: Final = 2**62 + 10
TIMESTAMP_GRANULARITY_NS: Final = 2**24

# --- Replay window (RFC 6479; K, G) ----------------------------------------------------------------------------------
COUNTER_BITS_TOTAL: Final = 8192
COUNTER_WINDOW: Final = 8128

# --- Packets ---------------------------------------------------------------------------------------------------------
PADDING_MULTIPLE: Final = 16  # WP 5.4.6
DEFAULT_MTU: Final = 1420  # K, G: 1500 - 40 (IPv6) - 8 (UDP) - 32
MAX_MTU: Final = 65535 - TRANSPORT_OVERHEAD
MAX_UDP_PAYLOAD_IPV4: Final = 65507
MAX_UDP_PAYLOAD_IPV6: Final = 65527
MAX_STAGED_PACKETS: Final = 128  # K, per peer; the oldest is dropped
MAX_PEERS: Final = 2**16  # G; the kernel allows 2**20
HANDSHAKE_TOS: Final = 0x88  # K: AF41, so that congestion does not starve the handshake
MAX_SEGMENTS: Final = 64  # kernel UDP_MAX_SEGMENTS before 6.x; newer ones take 128

# --- Our own choices -------------------------------------------------------------------------------------------------
# A device that stages for thousands of silent peers must not fill a 128 MB host.
MAX_STAGED_PER_DEVICE: Final = 4096
MAX_STAGED_OCTETS_PER_DEVICE: Final = 8 * 2**20
# What a datagram within a datagram loses of its hop limit: seven tunnels inside each other, and no loop beyond (B60).
NESTED_HOPS: Final = 8
# Handshakes worked off per engine call: about 3 ms of X25519, so that a flood cannot stall transport (trap T23).
HANDSHAKES_PER_CALL: Final = 8
# Per second, for errors sent into the TUN (behaviour B62).
ICMP_ERRORS_PER_SECOND: Final = 10
