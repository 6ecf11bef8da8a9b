"""Workers under attack: by their own jobs, by time, by a master that comes and goes."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import threading
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from titan_sdk import Run, TitanClient, TitanJob


def first_line(run: Run, job: str = "a") -> str:
    """The first line that the job prints; it is running then."""
    return next(iter(run.logs(job, follow=True)))


def test_a_job_that_kills_its_worker_is_tried_elsewhere_and_stops_at_the_crash_limit(
    tmp_path: Path,
) -> None:
    """Three workers' lives and no more; nothing of it is left running."""
    with Cluster(tmp_path / "cluster", lost_after="2s") as cluster:
        cluster.start_master()
        line = 'setsid sleep 600 & echo $! $$; kill -9 "$PPID"; exec sleep 600'
        pids: list[int] = []
        with cluster.client() as client:
            run = client.submit("killer", [TitanJob(id="a", run=line)])
            for life in range(1, 4):
                worker = cluster.start_worker(8080, ready=False)
                worker.process.wait(30)
                attempt = cluster.home / f"titan_workspace/jobs/{run.id}/a.{life}"
                pids += map(int, (attempt / "stdout.log").read_text().split())
            cluster.start_worker(8080)
            assert run.wait(timeout=60) == "FAILED", cluster.logs()
            job = run.jobs()[0]
            assert (job.reason, job.attempt, job.lost) == ("QUARANTINED", 3, 3)
            assert client.submit("ok", [TitanJob(id="a", run="true")]).wait(30) == "SUCCEEDED"
        assert len(pids) == 6
        assert not [pid for pid in pids if _is_sleep(pid)]


def test_a_worker_frozen_beyond_its_lease_stops_what_was_given_away(tmp_path: Path) -> None:
    """Its job has moved on; when it wakes, its own copy is stopped and tells nobody an end."""
    with Cluster(tmp_path / "cluster", lost_after="2s") as cluster:
        cluster.start_master()
        frozen = cluster.start_worker(8080)
        flag = tmp_path / "second-try"
        line = f'echo $$; if [ -e "{flag}" ]; then exit 0; fi; touch "{flag}"; exec sleep 600'
        with cluster.client() as client:
            run = client.submit("moved", [TitanJob(id="a", run=line)])
            pid = int(first_line(run))
            pidfd = os.pidfd_open(pid)
            os.kill(frozen.pid, signal.SIGSTOP)
            try:
                cluster.start_worker(8081)
                assert run.wait(timeout=60) == "SUCCEEDED", cluster.logs()
                assert _is_sleep(pid)
            finally:
                os.kill(frozen.pid, signal.SIGCONT)
            assert _gone(pidfd)
            os.close(pidfd)
            job = run.jobs()[0]
            assert (job.attempt, job.lost) == (2, 1)
            # Both are of use again.
            both = [TitanJob(id=f"j{n}", run="sleep 0.2; echo $TITAN_WORKER") for n in range(8)]
            again = client.submit("both", both)
            assert again.wait(timeout=60) == "SUCCEEDED"
            assert {job.worker[-4:] for job in again.jobs()} == {"8080", "8081"}


@pytest.mark.timeout(180)
def test_a_master_killed_again_and_again_loses_and_doubles_nothing(cluster: Cluster) -> None:
    """Killed ten times under load: each job once, each log byte once."""
    cluster.start_worker(8080)
    cluster.start_worker(8081)
    line = "i=0; while [ $i -lt 400 ]; do echo $TITAN_JOB_ID line $i; i=$((i+1)); sleep 0.004; done"
    jobs = [TitanJob(id=f"j{number}", run=line) for number in range(48)]
    # Ten starts of a master that no call outlives may take longer than a client waits for one.
    with TitanClient(master=cluster.address, token=cluster.token, timeout=150) as client:
        run = client.submit("storm", jobs)
        states: list[str] = []
        waiter = threading.Thread(target=lambda: states.append(run.wait(timeout=150)))
        waiter.start()
        for _ in range(10):
            waiter.join(0.7)  # the load goes on for a while between two deaths
            assert cluster.master is not None
            cluster.master.kill()
            cluster.start_master()
        waiter.join(160)
        assert states == ["SUCCEEDED"], cluster.logs()
        assert cluster.attempt_folders(run.id) == sorted(f"{job.id}.1" for job in jobs)
        for job in jobs:
            text = client.fetch_logs(job.id, run=run)
            assert text == "".join(f"{job.id} line {n}\n" for n in range(400)), job.id


@pytest.mark.parametrize("harm", ["zeros", "half", "garbage", "no header"])
def test_a_damaged_ledger_costs_one_try_and_no_more(tmp_path: Path, harm: str) -> None:
    """The worker waits for its old self's lease, starts as a new one, and says what it did."""
    with Cluster(tmp_path / "cluster", lost_after="1s") as cluster:
        cluster.start_master()
        first = cluster.start_worker(8080)
        line = 'echo $$; [ "$TITAN_ATTEMPT" = 2 ] || exec sleep 600'
        with cluster.client() as client:
            run = client.submit("again", [TitanJob(id="a", run=line)])
            pid = int(first_line(run))
            first.kill()
            ledger = cluster.home / ".worker-8080" / "ledger.sqlite"
            ledger.with_name("ledger.sqlite-wal").unlink(missing_ok=True)
            data = ledger.read_bytes()
            ledger.write_bytes(
                {
                    "zeros": b"\0" * len(data),
                    "half": data[: len(data) // 2 + 7],
                    "garbage": data[:100] + random.Random(7).randbytes(len(data) - 100),
                    "no header": b"\xff" * 16 + data[16:],
                }[harm]
            )
            cluster.start_worker(8080)
            assert run.wait(timeout=50) == "SUCCEEDED", cluster.logs()
            assert run.jobs()[0].attempt == 2
        assert not _is_sleep(pid)
        said = cluster.workers[8080].log.read_text()
        assert re.search(r"ledger_damaged moved_to=\S+", said)


def test_a_signal_while_workspaces_are_made_is_obeyed(cluster: Cluster, tmp_path: Path) -> None:
    """Jobs that had not started go back into the queue; the worker ends with 0."""
    worker = cluster.start_worker(8080)
    project = tmp_path / "project"
    project.mkdir()
    (project / "big.bin").write_bytes(os.urandom(30_000_000))
    (project / "a.sh").write_text("echo done\n")
    with cluster.client() as client:
        run = client.submit(
            "big", [TitanJob(id=f"j{n}", filename="a.sh") for n in range(4)], workspace=project
        )
        assert worker.stop() == 0
        assert run.status() == "ACTIVE"
        cluster.start_worker(8080)
        assert run.wait(timeout=60) == "SUCCEEDED", cluster.logs()


def _gone(pidfd: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(20_000))


def _is_sleep(pid: int) -> bool:
    try:
        return b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
