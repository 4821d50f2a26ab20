"""Both row modules by name. Where numpy is missing the plain one stands for both, so that the tests run without it."""

from __future__ import annotations

from wgpy.dataplane import rows

try:
    from wgpy.dataplane import rows_numpy
except ImportError:
    rows_numpy = rows  # type: ignore[misc]

HAS_NUMPY = rows_numpy is not rows

__all__ = ["HAS_NUMPY", "rows", "rows_numpy"]
