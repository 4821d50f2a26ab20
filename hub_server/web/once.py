"""A form that is sent twice, by a double click or because its answer was lost, is carried out once.

Each form that makes something holds a random field `once`. The first to come does the work, and every other one with
the same content is answered with what was made then: the only place where its command or secret is shown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Final, TypeVar

import trio

from hub_server.domain.errors import Conflict, HubError
from hub_server.domain.foreign import decode_json
from hub_server.services.core import noting_rights
from hub_server.web.site import Visit

T = TypeVar("T")

_WAIT: Final = 0.1  # seconds between two looks whether the first one is done
_LONGEST: Final = 60.0
_SECRET: Final = frozenset({"csrf", "password"})  # of a session and a person, not of the wish


async def once(visit: Visit, do: Callable[[], Awaitable[T]], read: Callable[[dict[str, Any]], T]) -> T:
    """Do it, or return what was made of the same form before.

    Args:
        visit: with the form.
        do: what makes a value, a dataclass.
        read: makes the value again of its fields.

    Raises:
        HubError: what `do` raises; nothing was done then, and the form may be sent again.
    """
    if not visit.field("once"):
        return await do()
    fields = sorted((name, str(value)) for name, value in visit.form.multi_items() if name not in _SECRET)
    digest = hashlib.sha256(json.dumps([visit.request.url.path, fields]).encode()).digest()
    key, actor, idempotence = f"form {digest.hex()}", visit.actor, visit.services.idempotence
    if (kept := await _first(visit, key, digest)) is not None:
        return read(decode_json(kept, 2**20))
    try:
        # Whoever clicked again has given up the first request: what was begun is ended all the same.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _LONGEST):
            with noting_rights() as passed:
                made = await do()
            await idempotence.finish(actor, key, 200, json.dumps(asdict(made)).encode(), passed)  # type: ignore[call-overload] # a dataclass
            return made
    except HubError:
        await idempotence.forget(actor, key)
        raise
    finally:
        idempotence.broke_off(actor, key)
    raise Conflict("it took too long: look in the list whether it was made")


async def _first(visit: Visit, key: str, digest: bytes) -> bytes | None:
    """None for the first with this key; the others wait for its answer."""
    end = trio.current_time() + _LONGEST
    while True:
        try:
            kept = await visit.services.idempotence.begin(visit.actor, key, digest)
            return None if kept is None else kept.body
        except Conflict as refusal:
            if refusal.code != "idempotency_in_progress" or trio.current_time() > end:
                raise
            await trio.sleep(_WAIT)
