"""The stacks of all realms but that of the interface itself: one reader and one timer for all of them, one buffer.

A hub of a thousand private networks has a thousand stacks, nearly all of them idle. An idle one is a few small objects:
it has no task, no buffer and no place in a loop. One that has packets to send stands in a line, and the reader asks
each in turn; one that waits for a moment stands in a heap.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import trio

from wgpy.crypto.kdf import kdf1
from wgpy.netstack.emission import Emission
from wgpy.netstack.icmp import Icmp
from wgpy.netstack.stack import Stack
from wgpy.protocol.deadlines import DeadlineHeap
from wgpy.protocol.events import SilenceEnded, UnknownPeer
from wgpy.protocol.realm import Realm
from wgpy.runtime import world
from wgpy.runtime.net import Net
from wgpy.runtime.netdevice import NetDevice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wgpy.dataplane.slab import Slab
    from wgpy.keys import PrivateKey
    from wgpy.protocol.engine import Engine
    from wgpy.protocol.events import Event
    from wgpy.runtime.device import Device

__all__ = ["RealmDevice", "Realms", "follow", "lasting_secret"]

# A suspended machine stops trio's clock, not that of the stacks.
_LONGEST_SLEEP: Final = 20.0


def follow(event: Event, packets: NetDevice, engine: Engine, realm: Realm | None = None) -> None:
    """Let the stack of a realm follow what happened to a peer of it: a session that came or went, a way that opened."""
    packets.changed()
    if isinstance(event, SilenceEnded):
        packets.resume(lambda address: engine.owner_of(address, realm) == event.peer)


def lasting_secret(private_key: PrivateKey | None) -> bytes | None:
    """What the stacks of one identity count on with when its process is started again: see `netstack.ports.Secret`.

    Realms may share it: what it hides is hidden from whoever is not in one's network, and nobody is in two.
    """
    return None if private_key is None else kdf1(bytes(private_key), b"wgpy netstack")


class RealmDevice(NetDevice):
    """A NetDevice that shares reader and timer with others."""

    def __init__(self, stack: Stack, realms: Realms) -> None:
        """Use `Realms.add`."""
        super().__init__("realm", stack)
        self._realms = realms

    def read_batch(self) -> list[Slab]:
        """See `PacketDevice.read_batch`."""
        slabs = super().read_batch()
        if self._has_output:
            self._realms.has_output(self)
        return slabs

    def _fetch(self) -> None:
        self._realms.has_output(self)

    def _set_timer(self, now: float) -> None:
        deadline = self.stack.next_deadline()
        if deadline is not None:
            self._realms.wake_by(self, deadline, now)


class Realms:
    """All realms of one device that have a stack each."""

    def __init__(self, device: Device) -> None:
        """Start with none."""
        self._device = device
        self._emission = Emission(device.packets.mtu)
        self._realm_of: dict[RealmDevice, Realm] = {}
        self._device_of: dict[Realm, RealmDevice] = {}
        # Those with packets to send, in the order of their turns.
        self._line: dict[RealmDevice, None] = {}
        self._reader: trio.lowlevel.Task | None = None
        self._deadlines: DeadlineHeap[RealmDevice] = DeadlineHeap()
        self._timer = trio.CancelScope()

    def add(self, addresses: Sequence[str], *, mtu: int, servers: Sequence[str]) -> tuple[Realm, Net]:
        """Make a realm without peers, and the network behind it."""
        engine, realm = self._device.engine, Realm()
        stack = Stack(
            addresses=addresses,
            mtu=mtu,
            random=world.random,
            emission=self._emission,
            secret=lasting_secret(engine.private_key),
            epoch=world.epoch(),
        )
        stack.may_send = functools.partial(engine.may_send, realm=realm)
        icmp = Icmp(stack, random=world.random)
        packets = RealmDevice(stack, self)
        refusal = functools.partial(engine.refusal, realm=realm)
        ours = [address.partition("/")[0] for address in addresses]
        net = Net(packets, icmp, addresses=ours, servers=servers, refusal=refusal)
        self._realm_of[packets] = realm
        self._device_of[realm] = packets
        self._device.add_realm(realm, packets)
        return realm, net

    def remove(self, realm: Realm) -> None:
        """Forget a realm with its peers; its streams end."""
        packets = self._device_of.pop(realm)
        del self._realm_of[packets]
        self._line.pop(packets, None)
        self._deadlines.discard(packets)
        self._device.remove_realm(realm)

    # --- what a member asks for --------------------------------------------------------------------------------------

    def has_output(self, packets: RealmDevice) -> None:
        """It has packets to send, or something to be looked at."""
        self._line[packets] = None
        if self._reader is not None:
            task, self._reader = self._reader, None
            trio.lowlevel.reschedule(task)

    def wake_by(self, packets: RealmDevice, deadline: float, now: float) -> None:
        """It wants its timer no later than this."""
        self._deadlines.wake_by(packets, deadline)
        wake = trio.current_time() + deadline - now
        if wake < self._timer.deadline:
            self._timer.deadline = wake

    def changed(self, event: Event) -> None:
        """A session that came or went changes what the tunnel will carry in its realm."""
        if self._device_of and not isinstance(event, UnknownPeer):
            realm = self._device.engine.realm_of(event.peer)
            if realm is not None:
                follow(event, self._device_of[realm], self._device.engine, realm)

    # --- the two tasks -----------------------------------------------------------------------------------------------

    async def read_packets(self) -> None:
        """Send what the stacks have to send, each in its turn, for ever."""
        while True:
            if not self._line:
                self._reader = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._stop_reading)
            # Let those who were woken answer first: an acknowledgement then travels with the answer.
            await trio.lowlevel.checkpoint()
            line, self._line = self._line, {}
            for packets in line:
                if packets.is_open:
                    await self._device.send_from(self._realm_of[packets])

    def _stop_reading(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def run_timer(self) -> None:
        """Do what is due in any stack, for ever."""
        while True:
            now = world.now()
            while (packets := self._deadlines.pop_due(now)) is not None:
                packets.handle_timer()
            left = min(self._deadlines.next_deadline() - now, _LONGEST_SLEEP)
            with trio.CancelScope(deadline=trio.current_time() + left) as self._timer:
                await trio.sleep_forever()

    async def until_drained(self) -> None:
        """Wait until everything sent on streams that were closed is delivered, or given up."""
        for packets in list(self._realm_of):
            await packets.until_drained()
