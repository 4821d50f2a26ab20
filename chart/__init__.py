"""Helm charts, and the script that writes their tables."""
