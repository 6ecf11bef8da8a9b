"""Where jobs run, with real processes: skills, counted resources, cordons, affinity, and what is said of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until
from titan_sdk import TitanJob

AT_ONCE_MS = 3_000
"""From the moment at which a worker is seen to a start on it: its first folder is made meanwhile."""


@pytest.fixture
def cluster(tmp_path: Path):
    with Cluster(tmp_path / "cluster") as one:
        one.start_master()
        yield one


def lasted_s(client, name: str) -> float:
    started = time.monotonic()
    jobs = [TitanJob(id=f"j{n}", command=["true"]) for n in range(20)]
    assert client.submit(name, jobs).wait(timeout=60) == "SUCCEEDED"
    return time.monotonic() - started


def test_a_gpu_job_waits_slows_nobody_and_starts_when_a_gpu_worker_joins(cluster: Cluster) -> None:
    cluster.start_worker(8080, slots=2)
    with cluster.client() as client:
        lasted_s(client, "warm")
        alone = min(lasted_s(client, f"alone{n}") for n in range(3))
        gpu = [
            TitanJob(id=f"g{n}", command=["true"], requirement="GPU", priority=10)
            for n in range(200)
        ]
        waiting = client.submit("train", gpu)
        assert "it needs GPU, and none of the 1 known workers has that" in waiting.notices[0]
        beside = min(lasted_s(client, f"beside{n}") for n in range(3))
        assert beside < 1.5 * alone + 0.5, f"{beside:.2f} s beside what waits, {alone:.2f} s alone"

        (cause,) = client.explain("g0", run=waiting).causes
        assert (str(cause.kind), cause.message) == (
            "SKILLS",
            "waits for a worker with GPU: none of the 1 known has that",
        )
        cluster.start_worker(8081, "--skill", "GPU", slots=4)
        seen_ms = time.time() * 1000
        assert waiting.wait(timeout=60) == "SUCCEEDED"
        first = min(client.job(f"g{n}", run=waiting).started_at_ms for n in range(4))
        assert first - seen_ms < AT_ONCE_MS


def test_a_licence_is_had_by_one_at_a_time_and_a_cordon_by_none(cluster: Cluster) -> None:
    cluster.start_worker(8080, "--resource", "licence=1", slots=4)
    with cluster.client() as client:
        holds = [
            TitanJob(id=name, command=["sleep", "600"], resources={"licence": 1}) for name in "ab"
        ]
        run = client.submit("licensed", holds)
        wait_until(lambda: client.job("a", run=run).state == "RUNNING", within_s=30, what="a runs")
        (cause,) = client.explain("b", run=run).causes
        assert (str(cause.kind), cause.workers[0].free, cause.workers[0].total) == (
            "RESOURCES",
            0,
            1,
        )
        (worker,) = client.workers()
        assert worker.resources["licence"].taken == 1
        assert worker.resources["cpu"].total >= 1_000

        client.cordon("8080")
        later = client.submit("later", [TitanJob(id="c", command=["true"])])
        (cause,) = client.explain("c", run=later).causes
        assert str(cause.kind) == "CORDONED"
        client.uncordon("8080")
        assert later.wait(timeout=30) == "SUCCEEDED"
        client.stop("licensed-1/a")
        wait_until(lambda: client.job("b", run=run).state == "RUNNING", within_s=30, what="b runs")
        run.cancel()


def test_what_is_to_be_beside_another_is_there_and_says_so(cluster: Cluster) -> None:
    for port in range(8080, 8084):
        cluster.start_worker(port, slots=2)
    with cluster.client() as client:
        for n in range(10):
            train = TitanJob(id="TRAIN", command=["true"])
            evaluate = TitanJob(
                id="EVALUATE",
                command=["sleep", "600"],
                dependencies=["TRAIN"],
                affinity={"mode": "require"},
            )
            run = client.submit(f"pair{n}", [train, evaluate])
            wait_until(
                lambda run=run: client.job("EVALUATE", run=run).state == "RUNNING",
                within_s=30,
                what="EVALUATE runs",
            )
            home = client.job("TRAIN", run=run).worker
            (cause,) = client.explain("EVALUATE", run=run).causes
            assert cause.message == f"runs on {home}, beside TRAIN, as its affinity requires"
            run.cancel()
            run.wait(timeout=30)
