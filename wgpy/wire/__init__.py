"""Headers and messages: bytes to values and back. Nothing here knows a key or a peer."""
