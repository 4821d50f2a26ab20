"""What every test shares: hypothesis profiles, and the groups of a machine that a test may need.

`@pytest.mark.needs("root", "go")` skips a test where the machine lacks one of the groups of `tests/machine.py`. At the
end of the run each missing group is listed with the reason and the way to get it. `WGPY_REQUIRE=root,tun,go` (or
`all`) turns a missing group into an error, so that continuous integration leaves nothing out silently.
`@pytest.mark.long` and `@pytest.mark.kube` tests run only when the `-m` expression names them.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

from tests.machine import GROUPS, why_missing

settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# Markers of tests that run only when asked for, and what to say about those left out.
ON_DEMAND = {
    "long": "tests that take minutes; run them with `make test-long`",
    "kube": "tests on a real Kubernetes node; run them with `make e2e`",
}
LEFT_OUT: pytest.StashKey[Counter[str]] = pytest.StashKey()


def required_groups() -> set[str]:
    """The groups named by WGPY_REQUIRE."""
    named = {word.strip() for word in os.environ.get("WGPY_REQUIRE", "").split(",") if word.strip()}
    return set(GROUPS) if named == {"all"} else named


def pytest_configure(config: pytest.Config) -> None:
    if unknown := required_groups() - set(GROUPS):
        raise pytest.UsageError(f"WGPY_REQUIRE names unknown groups: {', '.join(sorted(unknown))}")


def needed_groups(item: pytest.Item) -> list[str]:
    """The groups that a test needs, the most basic first."""
    named = {group for mark in item.iter_markers("needs") for group in mark.args}
    if unknown := named - set(GROUPS):
        raise pytest.UsageError(f"{item.nodeid}: unknown groups {', '.join(sorted(unknown))}")
    return [group for group in GROUPS if group in named]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        needed_groups(item)
    left_out = config.stash[LEFT_OUT] = Counter()
    for marker in ON_DEMAND:
        if marker in config.option.markexpr:
            continue
        those = [item for item in items if item.get_closest_marker(marker)]
        if those:
            items[:] = [item for item in items if not item.get_closest_marker(marker)]
            config.hook.pytest_deselected(items=those)
            left_out[marker] = len(those)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for group in needed_groups(item):
        reason = why_missing(group)
        if reason is None:
            continue
        text = f"needs {group}: {reason}. To get it: {GROUPS[group].how}"
        if group in required_groups():
            pytest.fail(f"WGPY_REQUIRE names {group}, but this test {text}", pytrace=False)
        pytest.skip(text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List each group that was skipped: how many tests, why, and how to get it."""
    skipped: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped.update(group for group in GROUPS if f"needs {group}: " in reason)
    left_out = config.stash.get(LEFT_OUT, Counter())
    if not skipped and not left_out:
        return
    terminalreporter.section("left out")
    for group, count in skipped.items():
        terminalreporter.write_line(f"{group}: {count} tests skipped, {why_missing(group)}")
        terminalreporter.write_line(f"    to get it: {GROUPS[group].how}")
    for marker, count in left_out.items():
        terminalreporter.write_line(f"{marker}: {count} {ON_DEMAND[marker]}")
