"""Every number of the stack beside its source; those we chose ourselves have their reason or a precedent.

Times are seconds, sizes octets, unless a name says otherwise. L is Linux.
"""

from __future__ import annotations

from typing import Final

NEVER: Final = float("inf")

# --- Segments (RFC 9293 3.7.1, RFC 6691) -----------------------------------------------------------------------------
DEFAULT_MSS_IPV4: Final = 536
DEFAULT_MSS_IPV6: Final = 1220
MINIMUM_MSS: Final = 48  # L: tcp_min_snd_mss; a smaller offer is a trap, not a path
MINIMUM_MTU_IPV4: Final = 552  # L: min_pmtu; RFC 5927 7.2 asks for a floor under ICMP's word
MINIMUM_MTU_IPV6: Final = 1280
# The path swallows full segments and no ICMP says so: what to try then (RFC 2923 2.1; L: tcp_base_mss 1024).
BLACK_HOLE_MSS: Final = (1220, 1200)
BLACK_HOLE_TIMEOUTS: Final = 2

# --- Retransmission (RFC 6298, RFC 9293 3.8.3) -----------------------------------------------------------------------
RTO_INITIAL: Final = 1.0
RTO_MIN: Final = 0.2  # L; RFC 6298 2.4 says 1 s, of a time of coarse clocks and of ACKs delayed by 500 ms
RTO_MAX: Final = 120.0  # L
# The way to a peer opened again: its connections try in turn, so that they do not close it (a thousand a second).
RESUME_SPACING: Final = 0.001
RTO_AFTER_SYN_LOSS: Final = 3.0  # RFC 6298 5.7
CLOCK_GRANULARITY: Final = 0.001
SYN_RETRIES: Final = 6  # L: tcp_syn_retries
SYN_ACK_RETRIES: Final = 5  # L: tcp_synack_retries
DATA_RETRIES: Final = 15  # L: tcp_retries2
ORPHAN_RETRIES: Final = 8  # L: tcp_orphan_retries

# --- Loss detection (RFC 8985, RFC 5681) -----------------------------------------------------------------------------
DUP_THRESHOLD: Final = 3
REORDER_WINDOW_SHARE: Final = 4  # of min_rtt
REORDER_STEPS_MAX: Final = 16  # persist after 16 recoveries (RFC 8985 6.2 step 4)
TLP_MIN: Final = 0.01
TLP_MAX_ACK_DELAY: Final = 0.2

# --- Congestion (RFC 6928, RFC 9438, RFC 9937, RFC 9406) -------------------------------------------------------------
INITIAL_WINDOW: Final = 10  # segments
CUBIC_C: Final = 0.4
CUBIC_BETA: Final = 0.7
MINIMUM_WINDOW: Final = 2  # segments, after a reduction (RFC 5681 equation 4)
HYSTART_MIN_RTT_THRESHOLD: Final = 0.004
HYSTART_MAX_RTT_THRESHOLD: Final = 0.016
HYSTART_RTT_DIVISOR: Final = 8
HYSTART_SAMPLES: Final = 8
HYSTART_CSS_GROWTH_DIVISOR: Final = 4
HYSTART_CSS_ROUNDS: Final = 5
# Pacing: how much faster than a window per RTT (L: tcp_pacing_ss_ratio, tcp_pacing_ca_ratio).
PACING_SLOW_START: Final = 2.0
PACING_AVOIDANCE: Final = 1.2
PACING_MIN_RTT: Final = 0.002  # below, timers are coarser than what they would spread

# --- Acknowledging (RFC 1122 4.2.3.2, RFC 5961) ----------------------------------------------------------------------
DELAYED_ACK: Final = 0.04  # L: TCP_DELACK_MIN
QUICK_ACKS: Final = 16  # L: TCP_MAX_QUICKACKS
CHALLENGE_ACKS_PER_SECOND: Final = 2  # for each connection: no counter that strangers could share (CVE-2016-5696)
SACK_BLOCKS: Final = 4  # 3 beside timestamps (RFC 2018 section 3)

# --- Windows (RFC 9293 3.8.6, RFC 7323) ------------------------------------------------------------------------------
RECEIVE_BUFFER: Final = 64 * 1024
RECEIVE_BUFFER_MAX: Final = 4 * 2**20
SEND_BUFFER: Final = 128 * 1024
SEND_BUFFER_MAX: Final = 4 * 2**20
STACK_BUFFERS: Final = 64 * 2**20
WINDOW_SCALE_MAX: Final = 14
# Out-of-order pieces and runs of one connection: more are an attack, or a path that nobody could use.
MAX_PIECES: Final = 1024
PAWS_IDLE: Final = 24 * 86400.0  # RFC 7323 5.5: a timestamp older than this says nothing

# --- Lifetime (RFC 9293 3.6, RFC 1122 4.2.2) -------------------------------------------------------------------------
TIME_WAIT: Final = 30.0  # 2 MSL with the MSL of today's paths; L has 60
TIME_WAIT_RECORDS: Final = 16384
FIN_WAIT_2: Final = 60.0  # L: tcp_fin_timeout
LINGER: Final = 5.0
KEEPALIVE_IDLE: Final = 60.0
KEEPALIVE_INTERVAL: Final = 15.0
KEEPALIVE_PROBES: Final = 4
BACKLOG: Final = 128
SYN_QUEUE: Final = 256

# --- Ports (RFC 6056) ------------------------------------------------------------------------------------------------
EPHEMERAL_FIRST: Final = 32768  # L: ip_local_port_range
EPHEMERAL_LAST: Final = 60999

# --- The stack's own queues ------------------------------------------------------------------------------------------
CONTROL_QUEUE: Final = 1024  # packets
FLOW_QUEUE: Final = 256 * 1024  # octets of one flow of packets that are not TCP
RESETS_PER_SECOND: Final = 200  # for segments that belong to nothing; L: icmp_ratelimit has the same purpose
RESETS_BURST: Final = 100

# --- Fragments, ICMP, datagrams, names -------------------------------------------------------------------------------
REASSEMBLY_TIMEOUT_V4: Final = 30.0  # Linux ipfrag_time
REASSEMBLY_TIMEOUT_V6: Final = 60.0  # RFC 8200 4.5
REASSEMBLY_OCTETS: Final = 4 * 2**20  # Linux ipfrag_high_thresh
REASSEMBLY_PACKETS_PER_SOURCE: Final = 64  # Linux ipfrag_max_dist
# What an unfinished packet is charged besides its octets, so that tiny fragments are not free.
REASSEMBLY_OVERHEAD: Final = 512
ICMP_ANSWERS_PER_SECOND: Final = 1000.0  # Linux icmp_msgs_per_sec
ICMP_ANSWERS_BURST: Final = 50.0  # Linux icmp_msgs_burst
# Echo is cheap and people measure with it: `ping -f` must not see a limit, a flood must.
ECHO_REPLIES_PER_SECOND: Final = 10_000.0
ECHO_REPLIES_BURST: Final = 1000.0
UDP_RECEIVE_QUEUE: Final = 256 * 1024  # Linux rmem_default is 208 KiB
UDP_DATAGRAM_OVERHEAD: Final = 64  # what an empty datagram is charged in a queue
PATH_MTU_AGE: Final = 600.0  # RFC 1191 6.3, RFC 8201 5.3: raise the estimate again after ten minutes
PATH_MTUS_KEPT: Final = 1024
DNS_PORT: Final = 53
DNS_TIMEOUT: Final = 2.0
DNS_ROUNDS: Final = 3  # over all servers
DNS_PAYLOAD: Final = 1232  # DNS flag day 2020: never fragmented on any path
DNS_TCP_TIMEOUT: Final = 5.0
DNS_CACHE: Final = 256  # answers
DNS_CACHE_TIME: Final = 300.0  # at most, whatever the answer says
