"""Groups of exceptions taken apart, the same on every Python."""

from __future__ import annotations

import pytest

from wgpy.runtime.groups import caught, unwrapped


def test_what_is_wanted_is_caught_alone_and_in_groups() -> None:
    with caught(KeyError) as alone:
        raise KeyError(1)
    with caught(KeyError, OSError) as several:
        raise ExceptionGroup("", [KeyError(1), ExceptionGroup("", [OSError(2)])])
    with caught(KeyError) as nothing:
        pass
    assert ([type(one) for one in alone], [type(one) for one in several], nothing) == (
        [KeyError],
        [KeyError, OSError],
        [],
    )


def test_the_others_go_on() -> None:
    with pytest.raises(ExceptionGroup) as raised, caught(KeyError) as found:
        raise ExceptionGroup("", [KeyError(1), ExceptionGroup("", [OSError(2)])])
    assert len(found) == 1
    assert raised.value.split(OSError)[1] is None
    with pytest.raises(OSError, match="3"), caught(KeyError):
        raise OSError(3)


def test_what_is_raised_for_them_comes_as_it_is() -> None:
    def work() -> None:
        with caught(KeyError) as found:
            raise ExceptionGroup("", [KeyError(1)])
        if found:
            raise ValueError("then")

    with pytest.raises(ValueError, match="then"):
        work()


def test_one_exception_leaves_all_its_groups() -> None:
    with pytest.raises(OSError, match="4"), unwrapped():
        raise ExceptionGroup("", [ExceptionGroup("", [OSError(4)])])
    with pytest.raises(ExceptionGroup), unwrapped():
        raise ExceptionGroup("", [OSError(4), OSError(5)])
