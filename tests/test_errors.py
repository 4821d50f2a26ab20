"""The tree of errors, as it is drawn at the top of the module; what they carry and how they read."""

from __future__ import annotations

import pytest

from wgpy import errors
from wgpy.errors import BadPacket, ConfigError, DeviceError, DropReason, WgpyError


def test_the_tree_is_as_it_is_drawn() -> None:
    parents = {
        "ConfigError": (WgpyError, ValueError),
        "LocalProtocolError": (WgpyError,),
        "DeviceError": (WgpyError, OSError),
        "TunnelClosed": (WgpyError,),
    }
    assert {name: getattr(errors, name).__bases__ for name in parents} == parents
    assert not issubclass(BadPacket, WgpyError), "it never leaves the library"
    assert set(errors.__all__) == {*parents, "WgpyError", "BadPacket", "DropReason", "masked"}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("wrong"), "wrong"),
        (ConfigError("wrong", field="MTU"), "MTU: wrong"),
        (ConfigError("wrong", line=3), "line 3, column 1: wrong"),
        (ConfigError("wrong", field="MTU", line=3, column=7), "line 3, column 7: MTU: wrong"),
    ],
)
def test_a_config_error_reads_where_which_field_what(error: ConfigError, text: str) -> None:
    assert str(error) == text


def test_a_device_error_carries_the_number_of_the_system() -> None:
    error = DeviceError(98, "taken")
    assert (error.errno, error.strerror) == (98, "taken")


def test_a_bad_packet_carries_its_reason() -> None:
    bad = BadPacket(DropReason.INVALID_MAC1)
    assert (bad.reason, str(bad)) == (DropReason.INVALID_MAC1, "mac1 is wrong")


def test_every_reason_reads_differently() -> None:
    """R18: they are names of counters."""
    assert len({reason.value for reason in DropReason}) == len(DropReason)
    assert all(reason.name.isupper() for reason in DropReason)
