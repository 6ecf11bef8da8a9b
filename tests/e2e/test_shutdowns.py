"""Workers that are shut down in good order: what they do is tried again, and blamed on no job."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from titan_sdk import Run, TitanJob


def wait_until_running(run: Run, job: str = "a") -> None:
    """Its newest attempt has printed something, and so runs."""
    next(iter(run.logs(job, follow=True)))


@pytest.mark.timeout(180)
def test_shutting_all_workers_down_again_and_again_does_not_fail_a_long_job(
    tmp_path: Path,
) -> None:
    """Twice as often as the crash limit, two workers each time: it runs on, and ends well."""
    flag = tmp_path / "enough"
    line = f'echo up; while [ ! -e "{flag}" ]; do sleep 0.05; done'
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.start_master()
        with cluster.client() as client:
            run = client.submit("long", [TitanJob(id="a", run=line)])
            for _ in range(6):
                workers = [cluster.start_worker(8080), cluster.start_worker(8081)]
                wait_until_running(run)
                for worker in workers:
                    worker.process.send_signal(signal.SIGTERM)
                assert [worker.process.wait(60) for worker in workers] == [0, 0]
                (job,) = run.jobs()
                assert (job.state, job.lost) == ("QUEUED", 0), cluster.logs()
            flag.touch()
            cluster.start_worker(8080)
            assert run.wait(timeout=60) == "SUCCEEDED", cluster.logs()
            (job,) = run.jobs()
            assert job.attempt > 6


def test_a_worker_that_is_shut_down_is_shown_as_draining_and_gets_nothing_new(
    cluster: Cluster, tmp_path: Path
) -> None:
    """While its job takes its time to stop, whatever is submitted waits for somebody who stays."""
    flag = tmp_path / "go"
    line = f'trap : TERM; echo up; while [ ! -e "{flag}" ]; do sleep 0.05; done'
    going = cluster.start_worker(8080)
    with cluster.client() as client:
        slow = client.submit("slow", [TitanJob(id="a", run=line)])
        wait_until_running(slow)
        going.process.send_signal(signal.SIGTERM)
        while client.stats().workers[0].state == "ONLINE":
            assert going.process.poll() is None
        (worker,) = client.stats().workers
        assert worker.state == "DRAINING"
        late = client.submit("late", [TitanJob(id="a", run="echo $TITAN_WORKER")])
        cluster.start_worker(8081)
        assert late.wait(timeout=30) == "SUCCEEDED"
        assert late.logs("a").strip().endswith("8081")
        flag.touch()
        assert going.process.wait(60) == 0
        assert slow.wait(timeout=30) == "SUCCEEDED"
        assert slow.jobs()[0].lost == 0
