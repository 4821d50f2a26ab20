"""`wgpy keylog`: secrets into a capture, and a command with key logging switched on; protocol notes 1.11, R19."""

from __future__ import annotations

import io
import json
import stat
import struct
import sys
import warnings
from pathlib import Path

import pytest

from tests.property.strategies import PacketShape
from wgpy.cli import main
from wgpy.cli.capture import enhanced_packet, interface_description, section_header
from wgpy.cli.keylog import with_secrets
from wgpy.errors import ConfigError
from wgpy.keys import PresharedKey
from wgpy.testing.pair import Pair

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scapy.utils import PcapNgReader

PACKET = PacketShape().build()
CAPTURE = section_header() + interface_description("wg0") + enhanced_packet(PACKET, 5, is_outgoing=True)


@pytest.mark.parametrize("keys", [b"", b"A = b\n", b"LOCAL_STATIC_PRIVATE_KEY = x\n"])
def test_the_secrets_stand_behind_the_section_header_and_the_packets_are_untouched(keys: bytes) -> None:
    merged = with_secrets(CAPTURE, keys)
    at = len(section_header())
    kind, length, secrets, size = struct.unpack_from("<IIII", merged, at)
    assert (kind, secrets, size) == (0x0000000A, 0x57474B4C, len(keys))
    assert merged[at + 16 : at + 16 + size] == keys
    assert merged[at + length - 4 : at + length] == struct.pack("<I", length)
    assert merged[:at] + merged[at + length :] == CAPTURE
    assert [bytes(one.original) for one in PcapNgReader(io.BytesIO(merged))] == [PACKET]


def test_a_capture_of_a_machine_with_the_other_byte_order() -> None:
    header = struct.pack(">IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    merged = with_secrets(header, b"AB")
    assert struct.unpack_from(">III", merged, 28) == (0xA, 24, 0x57474B4C)


@pytest.mark.parametrize("capture", [b"", b"\xd4\xc3\xb2\xa1" + bytes(40), section_header()[:20]])
def test_what_is_no_pcapng_file_says_how_to_make_one(capture: bytes) -> None:
    with pytest.raises(ConfigError, match="editcap"):
        with_secrets(capture, b"")


def test_files_are_for_their_owner_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, capture, output = tmp_path / "keys", tmp_path / "in.pcapng", tmp_path / "out.pcapng"
    keys.write_bytes(b"A = b\n")
    capture.write_bytes(CAPTURE)
    assert main(["keylog", str(keys), "--into", str(capture), "--output", str(output)]) == 0
    assert output.read_bytes() == with_secrets(CAPTURE, b"A = b\n")
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert "can read the traffic" in capsys.readouterr().out


def test_a_command_is_run_with_the_variable_set(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"import json, os; json.dump(os.environ['WG_KEYLOG_FILE'], open({str(told)!r}, 'w')); raise SystemExit(7)"
    assert main(["keylog", str(tmp_path / "keys"), "--", sys.executable, "-c", code]) == 7
    assert json.loads(told.read_text()) == str(tmp_path / "keys")


@pytest.mark.parametrize("words", [[], ["--into", "x"], ["--output", "x"]])
def test_either_a_command_or_two_files(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keylog", "keys", *words]) == 1
    assert "either a command" in capsys.readouterr().err


def test_a_command_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keylog", "keys", "--", "no-such-command-anywhere"]) == 127
    assert "wgpy keylog: no-such-command-anywhere: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("psk", [None, PresharedKey(b"\x42" * 32)])
def test_the_lines_of_a_handshake_in_the_order_that_wireshark_needs(psk: PresharedKey | None) -> None:
    """Protocol notes 1.11: a preshared key belongs to the ephemeral key before it."""
    lines: list[str] = []
    pair = Pair(psk=psk, keylog=lines.append)
    pair.shake_hands()
    names = ["LOCAL_STATIC_PRIVATE_KEY", "REMOTE_STATIC_PUBLIC_KEY", "LOCAL_EPHEMERAL_PRIVATE_KEY"]
    names += ["PRESHARED_KEY"] if psk else []
    assert [line.partition(" = ")[0] for line in lines] == names * 2
    values = [line.partition(" = ")[2] for line in lines]
    assert values[0] == pair.a_key.to_base64()
    assert values[1] == str(pair.b_key.public_key)
    assert values[len(names)] == pair.b_key.to_base64()
    assert not psk or values[3] == psk.to_base64()
