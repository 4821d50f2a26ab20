"""Ctrl-C at any moment of a command: no traceback."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator

import pytest

from wgpy import cli


class Interrupting(argparse.Namespace):
    """Options of a command that is interrupted in the way of a test."""

    def __init__(self, problem: BaseException) -> None:
        self.problem = problem

    def run(self, _: argparse.Namespace) -> int:
        raise self.problem


def run(monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> int:
    class Parser:
        prog = "wgpy"

        def parse_args(self, _: object) -> Interrupting:
            # Nothing is held yet: the system ends the process, and no import is torn in two.
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
            return Interrupting(problem)

    monkeypatch.setattr(cli, "build_parser", Parser)
    code = cli.main([])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return code


@pytest.fixture(autouse=True)
def usual_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "problem",
    [
        KeyboardInterrupt(),
        BaseExceptionGroup("tasks", [KeyboardInterrupt()]),
        BaseExceptionGroup("tasks", [OSError(5, "x"), BaseExceptionGroup("inner", [KeyboardInterrupt()])]),
    ],
)
def test_an_interrupt_is_an_exit_code(monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> None:
    assert run(monkeypatch, problem) == 130


def test_other_groups_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExceptionGroup):
        run(monkeypatch, ExceptionGroup("tasks", [RuntimeError("a defect")]))
