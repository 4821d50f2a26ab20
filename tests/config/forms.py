"""Configuration files of every form, made from a seed, and the real tools that judge them.

A file is put together from forms of headings, keys, values, white space, comments, encodings and line ends: the usual
ones, those that hardly anybody writes but `wg` and `wg-quick` take, and those that they refuse. `Judge` asks the real
`wg-quick strip` and `wg setconf` about it, the latter by way of a control socket that writes down what it is told.
"""

from __future__ import annotations

import ipaddress
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from wgpy.config import Endpoint, InterfaceConfig, Prefix
from wgpy.keys import PrivateKey

SOCKETS = Path("/run/wireguard")
PRIVATE = (
    "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
    "/0HHLjm1wB4W6uZUe4ySWZGZn7yHT7KeqTDuzMkLhHg=",
    "A" * 43 + "=",
)
PUBLIC = (
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
    "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=",
)


def service(name: str) -> bool:
    """Whether this machine knows it; /etc/services may be missing or short."""
    try:
        socket.getservbyname(name, "udp")
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Forms:
    """Values of a key: taken by the tools, refused by them, and taken by them but not by us, for a reason."""

    taken: tuple[str, ...]
    refused: tuple[str, ...] = ()
    stricter: tuple[str, ...] = ()


OF_INTERFACE = {
    "PrivateKey": Forms(
        (*PRIVATE, PRIVATE[0][:20] + " " + PRIVATE[0][20:]),
        ("", PRIVATE[0][:-1], PRIVATE[0] + "=", PRIVATE[0][:-2] + "l=", PRIVATE[0].replace("+", "-"), "x"),
    ),
    "ListenPort": Forms(
        ("51820", "0", "65535", "00051", "5 1 8 2 0", *filter(service, ("domain", "https"))),
        ("", "-1", "1.5", "0x10", "HTTPS", "nan", "1_0", "\u0661", "51820,"),
        ("65536", "99999", "+5"),  # taken modulo 65536 and with a sign, which nobody means
    ),
    "FwMark": Forms(
        ("0", "off", "OFF", "0xca6c", "0xFFFFFFFF", "4294967295", "0010", "0x 0 1"),
        ("", "0X10", "0x", "0x100000000", "4294967296", "-1", "+1", "off1", "0xg", "1e3"),
    ),
    "Address": Forms(
        (
            "10.0.0.1/24", "10.0.0.1/24, fd00::1/64", "10.0.0.1/24 fd00::1/64", "10.0.0.1", ",10.0.0.1/24,,", "",
            "10.0.0.1/24\t,\tfd00::1/64", "10.0.0.1/024", "::ffff:10.0.0.1/128", ",",
        ),
        (),
        ("10.0.0.1/33", "here", "10.0.0.1 /24", "10.0.0.1/24\u00a0", "fe80::1%lo/64"),  # refused by ip(8)
    ),
    "DNS": Forms(
        ("1.1.1.1", "1.1.1.1 8.8.8.8", "1.1.1.1, a.example", "", "2606:4700::1111", "a.example b.example ,", ","),
        (),
        ("1.1.1", "1::2::3", "1.1.1.1\u00a0", "\u200b9.9.9.9"),  # looks like an address, and is none
    ),
    "MTU": Forms(("1420", "", "576", "500", "68", "65535", "01420"), (), ("high", "67", "1420.0", "65536")),
    "Table": Forms(("auto", "off", "", "1234", "main")),
    "PreUp": Forms(("", "echo a", "echo 'a b'  c # d", "x=1 y=2 z", "[ -e x ] || exit 1", "\u00a0echo")),
    "PostUp": Forms(("", "iptables -A FORWARD -i %i -j ACCEPT; ip rule add x", "a=b", "echo #", "caf\u00e9 \u2028 x")),
    "PreDown": Forms(("", "true", "wg showconf %i > /tmp/x")),
    "PostDown": Forms(("", "x", ",", "AllowedIPs = 1")),
    "SaveConfig": Forms(("true", "True", "FALSE", "false"), ("", "yes", "1", "true false")),
}  # fmt: skip
OF_PEER = {
    "PublicKey": Forms((*PUBLIC, *PUBLIC, PUBLIC[0][:3] + "\t" + PUBLIC[0][3:]), ("", PUBLIC[0][1:], PUBLIC[0][:-1])),
    "PresharedKey": Forms(PRIVATE, ("", "x", PRIVATE[0] + PRIVATE[0])),
    "AllowedIPs": Forms(
        (
            "10.0.0.2/32", "10.0.0.2", "10.0.0.0/8, ::/0", "0.0.0.0/0,::/0", "192.0.2.77/24", "fd00::1 / 64",
            "10.0.0.0/008", "::ffff:1.2.3.4/128", "1::2.3.4.5/64", "10.1.0.0/16 , 10.2.0.0/16", "10. 0.0.3/3 2",
        ),
        (
            "", ",", "10.0.0.0/8,", ",10.0.0.0/8", "10.0.0.0/8,,10.1.0.0/16", "10.0.0.0/33", "::/129", "10.0.0.0/",
            "10.0.0.0/8/8", "10.0.0.0/255.0.0.0", "010.0.0.0/8", "10.0.0/8", "fe80::1%lo/64", "x", "10.0.0.0/-1",
            "10.0.0.0/+8", "10.0.0.0/8\u00a0", "10.0.0.0/8;10.1.0.0/16", "10.0.0.0/\u0668", "1:2:3:4:5:6:7:8:9",
            "12345::",
        ),
    ),
    "Endpoint": Forms(
        (
            "192.0.2.1:51820", "[2001:db8::1]:51820", "2001:db8::1:51820", "[192.0.2.1]:51820", "localhost:51820",
            "[localhost]:5", "192.0.2.1:0051", "[fe80::1%lo]:5", "fe80::1%lo:5", "::ffff:192.0.2.1:5", "::1:5",
            "[ 2001:db8::1 ] : 5", *(f"192.0.2.1:{name}" for name in filter(service, ("domain", "https"))),
        ),
        (
            "", "192.0.2.1", "192.0.2.1:", ":51820", "[]:51820", "[192.0.2.1:5", "[::1]5", "[::1]", "192.0.2.1:-1",
            "192.0.2.1:x", "192.0.2.1:5\u00a0", "192.0.2.1%lo:5", "[::1%lo]:5", "192.0.2.1:5.0",
        ),
        ("192.0.2.1:0", "192.0.2.1:65541", "192.0.2:5"),  # port 0, port modulo 65536, 192.0.0.2
    ),
    "PersistentKeepalive": Forms(
        ("25", "0", "off", "OFF", "65535", "0" * 40 + "5", "2 5"), ("", "65536", "-1", "on", "25s", "0x5", "+5", "1e1")
    ),
}  # fmt: skip
QUICK = ("Address", "DNS", "MTU", "Table", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig")


@dataclass
class Sample:
    """One file, and what we refuse in it although the tools take it."""

    octets: bytes = b""
    stricter: list[str] = field(default_factory=list)


class Maker:
    """Files from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sample = Sample()
        # Most files have one fault at most, or nearly all would be refused.
        self.faults = self.random.choice((0, 0, 0, 1, 1, 2))

    def fault(self, chance: float = 0.06) -> bool:
        """Whether something is to be wrong here."""
        if self.faults and self.random.random() < chance:
            self.faults -= 1
            return True
        return False

    def blanks(self, most: int = 2) -> str:
        return "".join(self.random.choice(" \t \v\f") for _ in range(self.random.choice((0, 0, 1, 1, most))))

    def case(self, word: str) -> str:
        way = self.random.choice((str, str, str, str.lower, str.upper, str.swapcase))
        return way(word)

    def comment(self) -> str:
        return self.random.choice(
            (
                "",
                "",
                "",
                "# note",
                "#",
                "## a = b [Peer]",
                "# caf\u00e9",
                "# \u2028 [Interface]",
                "# \udce9t\udce9",
                "# \u00a0",
            )
        )

    def value(self, key: str, forms: Forms) -> str:
        if forms.refused and self.fault():
            return self.random.choice(forms.refused)
        if forms.stricter and self.fault(0.03):
            value = self.random.choice(forms.stricter)
            self.sample.stricter.append(f"{key} = {value}")
            return value
        return self.random.choice(forms.taken)

    def line(self, key: str, forms: Forms) -> str:
        name = self.case(key)
        if self.fault(0.02):
            # Within a name, `wg` takes white space and wg-quick does not.
            name = name[:3] + self.random.choice((" ", "\t", "\u00a0")) + name[3:]
        if self.fault(0.01):
            odd = (f"{name} {forms.taken[0]}", f"{name}: {forms.taken[0]}", f"x{name} = 1", "Jc = 4")
            line = self.random.choice(odd)
            if "=" not in line.split("#")[0]:
                # wg-quick takes a key of its own without = for its own value.
                self.sample.stricter.append(line)
            return line
        value = self.value(key, forms)
        tail = self.comment()
        return f"{self.blanks()}{name}{self.blanks()}={self.blanks()}{value}{self.blanks()}{tail}"

    def heading(self, name: str) -> str:
        if self.fault(0.03):
            return self.random.choice(
                (f"[{name}", f"[{name}]x", f"[{name}s]", f"[{name}]=", f"[{name}\u00a0]", name, "[]")
            )
        text = f"[{self.case(name)}]"
        if self.random.random() < 0.04:
            text = f"[ {name}\t]"
        return f"{self.blanks()}{text}{self.blanks()}{self.comment()}"

    def section(self, name: str, keys: dict[str, Forms]) -> list[str]:
        lines = [self.heading(name)]
        chosen = [key for key in keys if self.random.random() < 0.4]
        chosen += [self.random.choice(list(keys)) for _ in range(self.random.choice((0, 0, 1)))]
        if name == "Peer" and "PublicKey" not in chosen and not self.fault(0.1):
            chosen.append("PublicKey")
        self.random.shuffle(chosen)
        for key in chosen:
            lines.append(self.line(key, keys[key]))
            if self.random.random() < 0.2:
                lines.append(self.random.choice(("", " \t", self.comment())))
        return lines

    def make(self) -> Sample:
        lines = [self.comment()] if self.random.random() < 0.5 else []
        if self.fault(0.03):
            lines.append("ListenPort = 1")
        names = ["Interface", *(["Peer"] * self.random.choice((0, 1, 1, 2, 3)))]
        if self.random.random() < 0.15:
            names.insert(self.random.randrange(len(names) + 1), "Interface")
        if self.random.random() < 0.1:
            self.random.shuffle(names)
        for name in names:
            if self.fault(0.02):
                lines += self.section(name, {**OF_INTERFACE, **OF_PEER})
            else:
                lines += self.section(name, OF_INTERFACE if name == "Interface" else OF_PEER)
        end = self.random.choice(("\n", "\n", "\n", "\r\n"))
        text = end.join(lines) + self.random.choice((end, end, "", end + end))
        if self.fault(0.05):
            text = text.replace(end, "\r")
        if self.fault(0.05):
            text = "\ufeff" + text
        self.sample.octets = text.encode("utf-8", "surrogateescape")
        return self.sample


# --- the judges ------------------------------------------------------------------------------------------------------

# Everything that wg-quick makes of a file, said by its own function.
_ASK = """
eval "$(sed -n '/^parse_options() {/,/^}/p;/^read_bool() {/,/^}/p;/^die() {/,/^}/p' "$1")"
shopt -s extglob; export LC_ALL=C; set -f
PROGRAM=wg-quick SAVE_CONFIG=0 TABLE= MTU=
ADDRESSES=() DNS=() DNS_SEARCH=() PRE_UP=() POST_UP=() PRE_DOWN=() POST_DOWN=()
parse_options "$2" || exit 1
for name in ADDRESSES DNS DNS_SEARCH PRE_UP POST_UP PRE_DOWN POST_DOWN; do
    declare -n list=$name
    for value in "${list[@]}"; do printf '%s\\0' "$name" "$value"; done
done
printf '%s\\0' MTU "$MTU" TABLE "$TABLE" SAVE_CONFIG "$SAVE_CONFIG"
"""


@dataclass
class Peer:
    """What a device knows of a peer."""

    preshared_key: str = "0" * 64
    endpoint: str = ""
    keepalive: str = "0"
    allowed_ips: list[str] = field(default_factory=list)


@dataclass
class Meaning:
    """What a file says, in the words of the control socket and of wg-quick."""

    device: dict[str, str] = field(default_factory=dict)
    peers: dict[str, Peer] = field(default_factory=dict)
    quick: dict[str, list[str]] = field(default_factory=dict)


class Judge:
    """`wg-quick strip` and `wg setconf`, for one file after the other."""

    def __init__(self, folder: Path, listener: socket.socket, name: str) -> None:
        self._file = folder / f"{name}.conf"
        self._listener = listener
        self._name = name

    def ask(self, octets: bytes) -> Meaning | None:
        """What the file means, or None if one of the tools refuses it."""
        self._file.write_bytes(octets)
        self._file.chmod(0o600)
        strip = subprocess.run(["wg-quick", "strip", self._file], capture_output=True, timeout=60, check=False)
        quick = subprocess.run(
            ["bash", "-c", _ASK, "-", "/usr/bin/wg-quick", self._file], capture_output=True, timeout=60, check=False
        )
        assert (strip.returncode == 0) == (quick.returncode == 0), quick.stderr
        if strip.returncode:
            return None
        told = self._setconf(strip.stdout)
        return None if told is None else self._meaning(told, quick.stdout)

    def _setconf(self, text: bytes) -> str | None:
        told = b""
        environment = {**os.environ, "WG_ENDPOINT_RESOLUTION_RETRIES": "0"}
        stripped = self._file.with_suffix(".wg")
        stripped.write_bytes(text)
        with subprocess.Popen(
            ["wg", "setconf", self._name, stripped], stderr=subprocess.DEVNULL, env=environment
        ) as wg:
            while not told:
                try:
                    client, _ = self._listener.accept()
                except TimeoutError:
                    if wg.poll() is not None:
                        break
                    continue
                with client:
                    client.settimeout(60)
                    # It connects and hangs up to see whether anybody is there.
                    while not told.endswith(b"\n\n") and (more := client.recv(65536)):
                        told += more
                    if told:
                        client.sendall(b"errno=0\n\n")
        return told.decode() if wg.returncode == 0 else None

    def _meaning(self, told: str, quick: bytes) -> Meaning:
        meaning = Meaning(device={"private_key": "0" * 64, "listen_port": "0", "fwmark": "0"})
        peer = Peer()
        for line in told.strip().splitlines()[1:]:
            key, _, value = line.partition("=")
            if key == "public_key":
                peer = meaning.peers.setdefault(value, Peer())
            elif key == "replace_allowed_ips":
                peer.allowed_ips = []
            elif key == "allowed_ip":
                peer.allowed_ips.append(value)
            elif key in ("preshared_key", "endpoint"):
                setattr(peer, key, value)
            elif key == "persistent_keepalive_interval":
                peer.keepalive = value
            elif key in meaning.device:
                meaning.device[key] = value
        words = quick.decode("utf-8", "surrogateescape").split("\0")[:-1]
        for name, value in zip(words[::2], words[1::2], strict=True):
            meaning.quick.setdefault(name, []).append(value)
        return meaning


@contextmanager
def open_judge(folder: Path) -> Iterator[Judge]:
    """A control socket that takes everything; needs root."""
    name = f"judge{os.getpid()}"
    SOCKETS.mkdir(mode=0o755, exist_ok=True)
    path = SOCKETS / f"{name}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        listener.settimeout(0.02)
        try:
            yield Judge(folder, listener, name)
        finally:
            path.unlink(missing_ok=True)


def normal(meaning: Meaning) -> Meaning:
    """What the tools hand on as it was written, in the one form that we have for it; what says nothing is left out."""
    private_key = bytes.fromhex(meaning.device["private_key"])
    if any(private_key):
        meaning.device["private_key"] = bytes(PrivateKey(private_key)).hex()  # clamped, as a device does
    quick = meaning.quick
    for name, read in (("ADDRESSES", ipaddress.ip_interface), ("DNS", ipaddress.ip_address)):
        quick[name] = [str(read(value)) for value in quick.get(name, [])]
    quick["MTU"] = [value.lstrip("0") for value in quick["MTU"]]
    quick["TABLE"] = [value or "auto" for value in quick["TABLE"]]
    meaning.quick = {name: kept for name, values in quick.items() if (kept := [value for value in values if value])}
    for peer in meaning.peers.values():
        peer.allowed_ips = [str(Prefix.parse(prefix)) for prefix in peer.allowed_ips]
        peer.endpoint = peer.endpoint and str(Endpoint.parse(peer.endpoint))
    return meaning


def meaning_of(config: InterfaceConfig) -> Meaning:
    """The same words for what we read."""
    meaning = Meaning(
        device={
            "private_key": bytes(config.private_key).hex() if config.private_key else "0" * 64,
            "listen_port": str(config.listen_port),
            "fwmark": str(config.fwmark),
        },
        quick={
            "ADDRESSES": [str(address) for address in config.addresses],
            "DNS": list(config.dns),
            "DNS_SEARCH": list(config.dns_search),
            "MTU": ["" if config.mtu is None else str(config.mtu)],
            "TABLE": [config.table],
            "PRE_UP": list(config.pre_up),
            "POST_UP": list(config.post_up),
            "PRE_DOWN": list(config.pre_down),
            "POST_DOWN": list(config.post_down),
            "SAVE_CONFIG": [str(int(config.save_config))],
        },
    )
    meaning.quick = {
        name: kept for name, values in meaning.quick.items() if (kept := [value for value in values if value])
    }
    for peer in config.peers:
        meaning.peers[bytes(peer.public_key).hex()] = Peer(
            bytes(peer.preshared_key).hex() if peer.preshared_key else "0" * 64,
            # The one name among the forms, which `wg` looks up.
            str(peer.endpoint or "").replace("localhost", socket.gethostbyname("localhost")),
            str(peer.persistent_keepalive),
            [str(prefix) for prefix in peer.allowed_ips],
        )
    return meaning
