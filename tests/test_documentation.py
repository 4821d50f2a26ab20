"""What the documentation shows is run: the examples of every public name, and the blocks of the README."""

from __future__ import annotations

import doctest
import inspect
import pathlib
import secrets
import time

import pytest
import trio

import wgpy

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
GLOBALS = {"wgpy": wgpy, "trio": trio, "secrets": secrets, "time": time, "pathlib": pathlib}


@pytest.mark.parametrize("name", wgpy.__all__)
def test_every_public_name_is_documented_with_an_example_that_runs(name: str) -> None:
    text = inspect.getdoc(getattr(wgpy, name))
    assert text
    example = doctest.DocTestParser().get_doctest(text, dict(GLOBALS), name, None, None)
    assert example.examples, f"{name} has no example"
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(example)
    assert result.failed == 0
