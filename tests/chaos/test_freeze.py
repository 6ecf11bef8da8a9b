"""Processes that stand still: SIGSTOP for longer than the lease, then SIGCONT.

What a frozen worker held is given away; what it says when it wakes is refused, and what it still
runs is stopped. A frozen master was the one that did not listen: it must not blame its workers.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from tests.chaos import journal
from tests.chaos.audit import faults_of, read_marks
from tests.chaos.load import Promise, job_line
from tests.harness.cluster import Cluster, Daemon
from tests.harness.processes import jobs_of
from tests.harness.waiting import wait_until
from titan_sdk import TitanJob

LEASE_S = 1.0


class Frozen:
    """Stops a daemon, its process alone, and lets it go on."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def __enter__(self) -> Self:
        os.kill(self._daemon.pid, signal.SIGSTOP)
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._daemon.pid, signal.SIGCONT)


@pytest.mark.timeout(120)
def test_what_a_frozen_worker_held_is_done_by_another(
    make_cluster: Callable[..., Cluster], marks: Path
) -> None:
    """Attempt 2 elsewhere; the old ones' ends and lines count no more once it wakes, and they stop."""
    cluster = make_cluster(f"{LEASE_S:g}s")
    frozen = cluster.start_worker(8080)
    # Two end while their worker stands still: their reports come too late. Two go on for ever.
    who = '"$TITAN_RUN_ID $TITAN_JOB_ID $TITAN_ATTEMPT'
    first = {
        "ends0": "sleep 1; echo late",
        "ends1": "sleep 1; echo late",
        "stays0": "while :; do echo stale; sleep 0.05; done",
        "stays1": "while :; do echo stale; sleep 0.05; done",
    }
    jobs = [
        TitanJob(
            id=job,
            run=(
                f'echo {who} begin" >> "{marks}"; echo try $TITAN_ATTEMPT; '
                f'if [ "$TITAN_ATTEMPT" = 1 ]; then {line}; fi; '
                f'sleep 0.5; echo {who} end" >> "{marks}"'
            ),
        )
        for job, line in first.items()
    ]
    with cluster.client() as client:
        run = client.submit("frozen", jobs)
        promise = Promise("frozen", run.id, {job.id: () for job in jobs}, None)
        wait_until(
            lambda: marks.read_text().count(" 1 begin") == 4, within_s=20, what="all four run"
        )
        with Frozen(frozen):
            cluster.start_worker(8081)
            wait_until(
                lambda: journal.of_type(cluster.data, "WorkerLost"),
                within_s=LEASE_S + 5,
                what="it is lost",
            )
            wait_until(
                lambda: marks.read_text().count(" 1 end") == 2, within_s=20, what="two have ended"
            )
        wait_until(
            lambda: not [line for line in jobs_of(cluster.home).values() if "stale" in line],
            within_s=10,
            what="the stale attempts are stopped",
        )
        assert run.wait(timeout=40) == "SUCCEEDED", cluster.logs()
        assert faults_of(cluster, client, promise, marks) == []
        assert {(job.attempt, job.lost) for job in client.jobs(run)} == {(2, 1)}
        # Each attempt has a log of its own: what the old ones still wrote is in theirs alone.
        for job in first:
            assert client.fetch_logs(job, run=run) == "try 2\n"
        ended = journal.of_type(cluster.data, "AttemptEnded")
        assert sorted((event["number"], event["reason"]) for event in ended) == sorted(
            [(1, "LOST"), (2, "EXITED")] * 4
        )
        # Awake again it is of use, and what it reports now counts.
        both = client.submit(
            "both", [TitanJob(id=f"j{n}", run=job_line(marks, 0.3)) for n in range(8)]
        )
        assert both.wait(timeout=30) == "SUCCEEDED"
        assert {job.worker[-4:] for job in both.jobs()} == {"8080", "8081"}


@pytest.mark.timeout(120)
def test_a_frozen_master_loses_no_worker(make_cluster: Callable[..., Cluster], marks: Path) -> None:
    """It stood still for three leases, and twice: everybody gets a fresh one, nothing runs again."""
    cluster = make_cluster(f"{LEASE_S:g}s")
    cluster.start_worker(8080)
    cluster.start_worker(8081)
    master = cluster.master
    assert master is not None
    with cluster.client() as client:
        jobs = [TitanJob(id=f"j{n}", run=job_line(marks, 0.2 + n / 6)) for n in range(12)]
        run = client.submit("patience", jobs)
        wait_until(lambda: "begin" in marks.read_text(), within_s=20, what="jobs run")
        for _ in range(2):
            with Frozen(master):
                # There is nobody to ask when it has been long enough: only the clock knows.
                threading.Event().wait(3 * LEASE_S)
            assert client.stats().runs_active == 1
        assert run.wait(timeout=60) == "SUCCEEDED", cluster.logs()
        promise = Promise("patience", run.id, {job.id: () for job in jobs}, None)
        assert faults_of(cluster, client, promise, marks) == []
        assert journal.of_type(cluster.data, "WorkerLost") == []
        assert set(map(tuple, read_marks(marks).begun.values())) == {(1,)}
