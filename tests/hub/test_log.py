"""Log lines: one JSON object each, with the id of the request that they are about."""

from __future__ import annotations

import json
import logging

import pytest
import structlog
import trio

from hub_server import log


@pytest.fixture(autouse=True)
def restored() -> object:
    """The configuration of other tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def test_what_is_said_about_a_request_carries_its_id_wherever_it_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("info")
    with log.about_request("0123456789abcdef"):
        structlog.get_logger("hub.a").info("here")
        logging.getLogger("hub.b").info("there")
        await trio.to_thread.run_sync(logging.getLogger("hub.c").info, "in a thread")
    logging.getLogger("hub.d").info("outside")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["here", "there", "in a thread", "outside"]
    assert [line.get("request") for line in lines] == ["0123456789abcdef"] * 3 + [None]
