"""What the chaos tests share: a place for marks, and clusters that end without a survivor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.processes import jobs_of


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """The file into which jobs write that they begin and end."""
    path = tmp_path / "marks"
    path.touch()
    return path


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Make a cluster whose master runs, with a lease of the test's choice.

    At its end no process of a job may be left: that is asserted for every test here.
    """
    made: list[Cluster] = []
    with ExitStack() as stack:

        def make(lost_after: str = "30s") -> Cluster:
            cluster = Cluster(tmp_path / f"cluster-{len(made)}", lost_after=lost_after)
            stack.enter_context(cluster)
            cluster.start_master()
            made.append(cluster)
            return cluster

        yield make
    for cluster in made:
        assert jobs_of(cluster.home) == {}, cluster.logs()
