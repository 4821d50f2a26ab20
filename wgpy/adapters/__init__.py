"""Faces of a tunnel for everybody who does not write trio: other libraries, threads, sockets, proxies, whole programs.

Each optional library is imported in the module of its name and nowhere else.
"""
