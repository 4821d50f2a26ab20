"""Congestion marks at the end of a tunnel: the table of RFC 6040 section 4.2, packet by packet."""

from __future__ import annotations

import pytest

from tests.dataplane import kernel
from tests.property.strategies import PacketShape, received
from wgpy.dataplane.ecn import decapsulate

NOT_ECT, ECT_1, ECT_0, CE = range(4)
# RFC 6040, figure 4: inner mark (row), outer mark (column); Not-ECT under CE is delivered, as the Linux driver does.
TABLE = {
    NOT_ECT: {ECT_1: NOT_ECT, CE: NOT_ECT},
    ECT_0: {ECT_1: ECT_1, CE: CE},
    ECT_1: {ECT_1: ECT_1, CE: CE},
    CE: {ECT_1: CE, CE: CE},
}


@pytest.mark.parametrize("outer", [ECT_1, CE])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("dscp", [0, 0xB8])
def test_rfc_6040_row_by_row(outer: int, family: int, dscp: int) -> None:
    marks = [ECT_0, ECT_0, NOT_ECT, CE, ECT_1, NOT_ECT, NOT_ECT, ECT_0]
    shapes = [PacketShape(tos=dscp | mark, payload=bytes([n]) * 40) for n, mark in enumerate(marks)]
    if family == 6:
        shapes = [shape.six() for shape in shapes]
    slab = received([shape.build() for shape in shapes])
    decapsulate(slab, outer)
    found = [bytes(row) for row in slab]
    expected = [shape.but(tos=dscp | TABLE[mark][outer]) for shape, mark in zip(shapes, marks, strict=True)]
    assert [kernel.parse(packet).tos for packet in found] == [shape.tos for shape in expected]
    assert found == [shape.build() for shape in expected], "the IPv4 checksum follows"
