"""What a job may use at most, from the pipeline file to the kernel, and what is said of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until

BOMB = """
import os
held = [os.urandom(1 << 20) for _ in range(512)]
print(len(held))
"""


def has_memory_groups() -> bool:
    """Whether this machine lets a worker have groups with a memory limit."""
    from titan_worker.host import cgroups

    mounts = cgroups.mounted(Path("/proc/self/mountinfo").read_text())
    return os.geteuid() == 0 and any("memory" in mount.names for mount in mounts)


def test_a_job_that_takes_more_memory_than_it_may_says_so_and_its_worker_goes_on(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """And its neighbour in the same run has no part in it."""
    if not has_memory_groups():
        pytest.skip("NO MEMORY CONTROLLER FOR US HERE: nothing is shown")
    (tmp_path / "bomb.py").write_text(BOMB)
    file = tmp_path / "pipe.yaml"
    file.write_text(
        "name: greedy\njobs:\n"
        "  - {id: BOMB, script: bomb.py, resources: {memory: 64MiB, pids: 20}}\n"
        "  - {id: CALM, run: echo calm, resources: {memory: 64MiB}}\n"
    )
    cluster.start_worker()

    titan("run", str(file), "--wait", code=1)

    bomb = json.loads(titan("show", "greedy-1/BOMB", "-o", "json").stdout)
    assert (bomb["reason"], bomb["signal"]) == ("OOM_KILLED", 9)
    assert "64 MiB" in bomb["message"]
    assert "more memory than it may" in titan("show", "greedy-1/BOMB").stdout
    assert "memory 64 MiB, pids 20" in titan("show", "greedy-1/BOMB").stdout, "what was asked for"
    wait_until(
        lambda: "the kernel holds all that it starts to them" in titan("show", "BOMB").stdout,
        within_s=45.0,
        what="the worker has said how it holds its attempts",
    )
    calm = json.loads(titan("show", "greedy-1/CALM", "-o", "json").stdout)
    assert calm["state"] == "SUCCEEDED"
