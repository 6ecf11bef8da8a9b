"""What anybody may try by hand to see whether nothing is lost, as tests."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import journal
from tests.chaos.audit import faults_of, read_marks
from tests.chaos.load import Promise, job_line
from tests.harness.cluster import Cluster
from tests.harness.processes import jobs_of
from tests.harness.waiting import wait_until
from titan_sdk import Run, TitanClient, TitanJob

JOBS = 200
STORM_S = float(os.environ.get("TITAN_CHAOS_STORM_S", "10"))
"""How long the master is killed every second; the full run takes 30."""
STORM_SHARE = 0.03
"""Of it, one job takes: eight at a time, the 200 keep the whole storm busy."""


def submit_many(client: TitanClient, marks: Path, seconds: float) -> tuple[Run, Promise]:
    """A run of 200 jobs that hang on nothing."""
    jobs = [TitanJob(id=f"j{n}", run=job_line(marks, seconds)) for n in range(JOBS)]
    run = client.submit("many", jobs)
    return run, Promise("many", run.id, {job.id: () for job in jobs}, None)


def in_flight(cluster: Cluster, client: TitanClient, run: Run, port: int) -> set[str]:
    """The jobs of this run that run on that worker, if they are as many as it has slots."""
    del cluster
    found = {
        job.job_id
        for job in client.jobs(run)
        if job.state == "RUNNING" and job.worker.endswith(f":{port}")
    }
    return found if len(found) == 4 else set()


@pytest.mark.timeout(120)
def test_a_worker_killed_under_four_jobs(make_cluster: Callable[..., Cluster], marks: Path) -> None:
    """1. All 200 jobs are done within 40 s, each with one result; the four were LOST, then tried again."""
    cluster = make_cluster("3s")
    doomed = cluster.start_worker(8080)
    cluster.start_worker(8081)
    with cluster.client() as client:
        run, promise = submit_many(client, marks, 0.15)
        four = wait_until(
            lambda: in_flight(cluster, client, run, 8080), within_s=20, what="four jobs in flight"
        )
        doomed.kill()
        assert run.wait(timeout=40) == "SUCCEEDED", cluster.logs()
        assert faults_of(cluster, client, promise, marks) == []
        lost = {job.job_id: (job.attempt, job.lost) for job in client.jobs(run) if job.lost}
        # Between the look and the kill one may have ended and another begun in its slot.
        assert 1 <= len(lost) <= 4
        assert len(set(lost) & four) >= 1
        assert set(lost.values()) == {(2, 1)}
        ends = [
            (event["number"], event["reason"])
            for event in journal.of_type(cluster.data, "AttemptEnded")
            if event["job_id"] in lost
        ]
        assert sorted(ends) == sorted([(1, "LOST"), (2, "EXITED")] * len(lost))
        begun = read_marks(marks).begun
        # One may have been killed between its start and its mark: then it shows the second try only.
        assert all(begun[run.id, job] in ([1, 2], [2]) for job in lost)
        assert all(begun[run.id, job] == [1] for job in promise.parents if job not in lost)
        cluster.start_worker(8080)
        assert jobs_of(cluster.home) == {}


@pytest.mark.timeout(180)
def test_the_master_killed_every_second(make_cluster: Callable[..., Cluster], marks: Path) -> None:
    """2. Killed each second for a while, then left alone: 200 jobs, each begun once, each done."""
    cluster = make_cluster("3s")
    cluster.start_worker(8080)
    cluster.start_worker(8081)
    # No call outlives a second of the storm: who waits for its end must have more patience than for one start.
    with TitanClient(master=cluster.address, token=cluster.token, timeout=150) as client:
        run, promise = submit_many(client, marks, STORM_SHARE * STORM_S)
        over = threading.Event()
        waiter = threading.Thread(target=lambda: (run.wait(timeout=120), over.set()))
        waiter.start()
        for _ in range(round(STORM_S)):
            over.wait(1.0)  # the second for which it lives; the storm goes on if the run is over
            assert cluster.master is not None
            cluster.master.kill()
            cluster.start_master()
        waiter.join(130)
        assert over.is_set(), cluster.logs()
        assert run.status() == "SUCCEEDED"
        assert faults_of(cluster, client, promise, marks) == []
        assert [job.attempt for job in client.jobs(run)] == [1] * JOBS
        assert set(map(tuple, read_marks(marks).begun.values())) == {(1,)}


def test_a_diamond_over_the_masters_death(
    make_cluster: Callable[..., Cluster], marks: Path
) -> None:
    """3. Killed while the left arm runs: the sink begins after both arms, nothing runs twice."""
    cluster = make_cluster()
    cluster.start_worker(8080)
    cluster.start_worker(8081)
    arms = {"source": (), "left": ("source",), "right": ("source",), "sink": ("left", "right")}
    seconds = {"left": 2.0}
    with cluster.client() as client:
        jobs = [
            TitanJob(id=job, run=job_line(marks, seconds.get(job, 0.0)), dependencies=list(parents))
            for job, parents in arms.items()
        ]
        run = client.submit("diamond", jobs)
        promise = Promise("diamond", run.id, arms, None)
        wait_until(
            lambda: " left 1 begin" in marks.read_text(), within_s=20, what="the left arm runs"
        )
        client.fetch_logs("right", run=run)
        assert cluster.master is not None
        cluster.master.kill()
        assert " left 1 end" not in marks.read_text()
        cluster.start_master()
        assert run.wait(timeout=40) == "SUCCEEDED", cluster.logs()
        assert faults_of(cluster, client, promise, marks) == []
        assert set(map(tuple, read_marks(marks).begun.values())) == {(1,)}
