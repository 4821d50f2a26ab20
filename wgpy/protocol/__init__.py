"""The sans-IO engine.

Many peers behind one port; datagrams, packets and the time in, datagrams, packets and events out.
"""
