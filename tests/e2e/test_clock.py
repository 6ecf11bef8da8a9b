"""What begins at a moment: runs that are deferred, on a real clock."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster

SOON_S = 2.0


def _begins(titan: Titan, alias: str) -> list[float]:
    """When its jobs started, in seconds since the epoch."""
    listed = json.loads(titan("ps", alias, "-o", "json").stdout)["items"]
    return [datetime.datetime.fromisoformat(job["startedAt"]).timestamp() for job in listed]


def test_a_run_begins_when_it_was_told_to_and_so_it_does_after_a_kill(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """`--in`, `--at`, and a moment that comes while no master is there."""
    cluster.start_worker(8080)
    script = tmp_path / "hello.sh"
    script.write_text("echo hello\n", encoding="utf-8")
    asked = time.time()
    relative = titan("run", str(script), "--in", f"{SOON_S}s").stdout.strip()
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=SOON_S)
    absolute = titan("run", str(script), "--at", at.isoformat()).stdout.strip()
    said = titan("ps", relative).stdout
    assert "SCHEDULED" in said, said
    assert cluster.master is not None
    cluster.master.kill()
    cluster.start_master()
    with cluster.client() as client:
        assert client.wait(relative, timeout=60).state == "SUCCEEDED"
        assert client.wait(absolute, timeout=60).state == "SUCCEEDED"
    assert _begins(titan, relative)[0] >= asked + SOON_S
    assert _begins(titan, absolute)[0] >= at.timestamp() - 0.001


def test_a_moment_that_cannot_be_meant_is_refused(titan: Titan) -> None:
    """Past, no time at all, or said twice."""
    assert "has passed" in titan("run", "a.py", "--at", "2020-01-01", code=2).stderr
    assert "no point in time" in titan("run", "a.py", "--at", "soon", code=2).stderr
    said = titan("run", "a.py", "--at", "2999-01-01", "--in", "5m", code=2).stderr
    assert "give one of them" in said
