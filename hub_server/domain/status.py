"""The status machine of a row: a fold over what was seen, and over silence.

Judged by the last authenticated packet only (D2); the age of a handshake is never a health rule. Pure: time is handed in.

    invited --redeemed--> redeemed --packet--> connected --silent > 2 beats--> reconnecting --silent > 3 beats--> disconnected
                                                  ^  ^------------packet-----------'                                  |
                                                  '------------------------------packet-------------------------------'
    connected, reconnecting --goodbye--> disconnected; any --block--> blocked; any --delete--> deleted

Source: product.md section 8, D2, D4, D17.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where a row stands."""

    INVITED = "invited"
    REDEEMED = "redeemed"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    DISCONNECTED = "disconnected"
    BLOCKED = "blocked"
    DELETED = "deleted"
