"""The stage is set once for all tests of a run: the story first, then what is measured."""

from collections.abc import Iterator

import pytest

from tests.kube.stage import Stage, open_stage


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("stage")) as made:
        yield made
