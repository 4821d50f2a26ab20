"""The rules of the hub without I/O: every file here is functions over values, and imports nothing but the standard library."""
