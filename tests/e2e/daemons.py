"""Starting the daemons under test, ours and others', and the tunnel end that a test configures with `wg`.

    End.namespace (where the daemon was started; its UDP sockets live there)
       └── End.process ── UAPI socket /run/wireguard/IFACE.sock ── `wg`
    End.inside (where the TUN is and applications run; usually the same namespace)

An end of the kernel in the guest offers the same verbs (see guest.py).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.lab import AT_ONCE, Lab, Namespace, Process, eventually, unique
from tests.machine import find_program

SOCKETS = Path("/run/wireguard")

# The interpreter that runs the tests also runs the daemon: the code under test is the code beside the tests.
WIREGUARD_PY = (
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'wireguard-py'; from wgpy.cli import daemon_main; sys.exit(daemon_main())",
)

IMPLEMENTATIONS = ("wgpy", "wireguard-go", "boringtun", "gotatun", "kernel")
# The group of tests/machine.py that each implementation needs.
NEEDS = {"wireguard-go": "go", "boringtun": "boringtun", "gotatun": "gotatun", "kernel": "qemu"}


def command_of(implementation: str, log: Path) -> tuple[list[str], dict[str, str]]:
    """The command line without the interface name, and the environment, of a daemon in the foreground."""
    if implementation == "wgpy":
        return [*WIREGUARD_PY, "-f"], {"LOG_LEVEL": "debug"}
    program = find_program(implementation)
    assert program, f"no {implementation} on this machine: mark the test with needs({NEEDS[implementation]!r})"
    if implementation == "wireguard-go":
        return [program, "-f"], {"LOG_LEVEL": "verbose"}
    if implementation == "boringtun":
        return [program, "-f", "--disable-drop-privileges", "--verbosity", "debug"], {}
    return [program, "-f", "--disable-drop-privileges", "--verbosity", "debug", "--log", str(log)], {"HOME": "/root"}


@dataclass
class Keys:
    """A key pair made by `wg`, in base64."""

    private: str
    public: str

    @classmethod
    def make(cls, lab: Lab) -> Keys:
        private = lab.host("wg", "genkey").strip()
        return cls(private, lab.host("wg", "pubkey", text_in=private).strip())


class End:
    """One end of a tunnel, configured by the unmodified `wg`."""

    def __init__(self, lab: Lab, namespace: Namespace, implementation: str, interface: str) -> None:
        self.lab = lab
        self.namespace = namespace
        self.inside = namespace
        self.implementation = implementation
        self.interface = interface
        self.keys = Keys.make(lab)

    # What differs between a daemon here and the kernel in the guest.

    def run(self, *argv: str, text_in: str | None = None, check: bool = True) -> str:
        """Run a command where the tunnel's applications are."""
        return self.inside.run(*argv, text_in=text_in, check=check)

    def secret_file(self, text: str) -> str:
        """Put a secret into a file that `wg` can read here; its path."""
        path = self.lab.folder / unique("secret-")
        path.touch(0o600)
        path.write_text(text + "\n")
        return str(path)

    # The same for both.

    def wg(self, *argv: str, text_in: str | None = None, check: bool = True) -> str:
        return self.run("wg", *argv, text_in=text_in, check=check)

    def set(self, *argv: str, check: bool = True) -> str:
        """`wg set IFACE ...`."""
        return self.wg("set", self.interface, *argv, check=check)

    def show(self, what: str) -> str:
        return self.wg("show", self.interface, what)

    def configure(self, keys: Keys | None = None, *, port: int = 51820) -> None:
        """Give the interface its private key and port."""
        self.keys = keys or self.keys
        self.set("listen-port", str(port), "private-key", self.secret_file(self.keys.private))

    def add_peer(
        self,
        public_key: str,
        *allowed_ips: str,
        endpoint: str | None = None,
        psk: str | None = None,
        keepalive: int | None = None,
    ) -> None:
        """`wg set IFACE peer ...`."""
        more: list[str] = []
        if psk:
            more += ["preshared-key", self.secret_file(psk)]
        if endpoint:
            more += ["endpoint", endpoint]
        if keepalive is not None:
            more += ["persistent-keepalive", str(keepalive)]
        self.set("peer", public_key, *more, "allowed-ips", ",".join(allowed_ips))

    def up(self, *addresses: str, mtu: int | None = None) -> None:
        for address in addresses:
            self.run("ip", "address", "add", address, "dev", self.interface, *(["nodad"] if ":" in address else []))
        more = ["mtu", str(mtu)] if mtu else []
        self.run("ip", "link", "set", self.interface, *more, "up")

    def down(self) -> None:
        self.run("ip", "link", "set", self.interface, "down")

    def ping(
        self, target: str, *, count: int = 1, limit: int = AT_ONCE, size: int = 56, more: Sequence[str] = ()
    ) -> bool:
        """Whether every echo request was answered within the limit."""
        out = self.ping_output(target, count=count, limit=limit, size=size, more=more)
        return f" {count} received" in out

    def ping_output(
        self, target: str, *, count: int = 1, limit: int = AT_ONCE, size: int = 56, more: Sequence[str] = ()
    ) -> str:
        return self.run(
            *("ping", "-n", "-c", str(count), "-i", "0.05", "-W", str(limit), "-s", str(size), *more, target),
            check=False,
        )

    def by_peer(self, what: str) -> dict[str, list[str]]:
        """A `wg show IFACE WHAT` table: public key to the rest of its line."""
        rows = [line.split("\t") for line in self.show(what).splitlines()]
        return {row[0]: [word for column in row[1:] for word in column.split()] for row in rows}

    def endpoint_of(self, peer: End) -> str:
        return self.by_peer("endpoints")[peer.keys.public][0]

    def latest_handshake(self, peer: End) -> int:
        return int(self.by_peer("latest-handshakes")[peer.keys.public][0])

    def transfer(self, peer: End) -> tuple[int, int]:
        """Received and sent octets."""
        received, sent = self.by_peer("transfer")[peer.keys.public]
        return int(received), int(sent)


class DaemonEnd(End):
    """An end whose daemon runs in a namespace of the lab."""

    def __init__(
        self,
        lab: Lab,
        namespace: Namespace,
        implementation: str = "wgpy",
        *,
        interface: str | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        super().__init__(lab, namespace, implementation, interface or unique("wg"))
        self.keylog = lab.folder / f"{self.interface}.keys"
        command, own = command_of(implementation, lab.folder / f"{self.interface}.log")
        if implementation == "wgpy":
            own["WG_KEYLOG_FILE"] = str(self.keylog)
        lab.cleanup(self.forget)
        self.process: Process = namespace.spawn(*command, self.interface, env={**own, **(env or {})})
        self.wait_ready()

    @property
    def socket(self) -> Path:
        return SOCKETS / f"{self.interface}.sock"

    def wait_ready(self) -> None:
        """Until the control socket answers `wg show`."""

        def ready() -> bool:
            if not self.process.is_running:
                raise RuntimeError(f"{self.implementation} ended: {self.process.output[-2000:]}")
            return self.socket.exists() and self.namespace.succeeds("wg", "show", self.interface)

        try:
            eventually(f"{self.implementation} answers on {self.socket}", ready)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.process.output[-2000:]}") from None

    def forget(self) -> None:
        """Remove what a killed daemon leaves behind."""
        self.socket.unlink(missing_ok=True)

    def move_to(self, namespace: Namespace) -> None:
        """Move the TUN to another namespace; the UDP sockets stay."""
        self.namespace.ip("link", "set", self.interface, "netns", namespace.name)
        self.inside = namespace

    def handshakes_logged(self) -> int:
        """Handshakes of a wgpy daemon, counted in its key log."""
        if not self.keylog.exists():
            return 0
        return len(re.findall(r"^LOCAL_EPHEMERAL_PRIVATE_KEY", self.keylog.read_text(), re.MULTILINE))


@dataclass
class Addresses:
    """Outer and inner addresses of one end."""

    outer4: str
    outer6: str
    inner4: str
    inner6: str
    inner: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.inner = (f"{self.inner4}/32", f"{self.inner6}/128")

    def outer(self, version: int) -> str:
        return self.outer4 if version == 4 else self.outer6

    def endpoint(self, version: int, port: int = 51820) -> str:
        return f"{self.outer4}:{port}" if version == 4 else f"[{self.outer6}]:{port}"


LEFT = Addresses("192.0.2.1", "2001:db8:1::1", "10.77.0.1", "fd00:77::1")
RIGHT = Addresses("192.0.2.2", "2001:db8:1::2", "10.77.0.2", "fd00:77::2")


def connect(
    initiator: End,
    responder: End,
    *,
    version: int = 4,
    psk: str | None = None,
    at: tuple[Addresses, Addresses] = (LEFT, RIGHT),
    mtu: int | None = None,
) -> None:
    """Configure two ends for each other; only the initiator knows an endpoint, so the first handshake is its own."""
    here, there = at
    initiator.configure()
    responder.configure()
    initiator.add_peer(responder.keys.public, *there.inner, endpoint=there.endpoint(version), psk=psk)
    responder.add_peer(initiator.keys.public, *here.inner, psk=psk)
    # Both interfaces take the whole inner net, so that no routes are needed.
    for end, own in ((responder, there), (initiator, here)):
        end.up(f"{own.inner4}/24", f"{own.inner6}/64", mtu=mtu)
