"""Two workers in one folder, as in the documents: what becomes of one is nothing to the other."""

from __future__ import annotations

import os
import select
from pathlib import Path

from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until
from titan_sdk import Run, TitanJob

# Says who it is and whom it has started beside itself, and stays; so does what it has started.
LINE = "setsid sleep 600 & echo $! $$; exec sleep 600"


def held(run: Run, job: str) -> list[int]:
    """Descriptors of the job's processes, once it runs."""
    line = next(iter(run.logs(job, follow=True)))
    return [os.pidfd_open(int(word)) for word in line.split()]


def ends(descriptors: list[int], within_s: float = 20.0) -> bool:
    """Whether all of them end in time."""
    return all(_poll(fd, within_s) for fd in descriptors)


def live(descriptors: list[int]) -> bool:
    """Whether none of them has ended."""
    return not any(_poll(fd, 0) for fd in descriptors)


def _poll(descriptor: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))


def test_starting_killing_sweeping_and_ending_one_ends_nothing_of_the_other(
    tmp_path: Path,
) -> None:
    """Each has a registry, a ledger, and groups of its own; of each runs a task and a held one."""
    with Cluster(tmp_path / "cluster", lost_after="2s") as cluster:
        cluster.start_master()
        cluster.start_worker(8080, "--skill", "A")
        with cluster.client() as client:
            jobs = [
                TitanJob(id=f"{skill}{kind}", run=LINE, requirement=skill, resources=limits)
                for skill in "AB"
                for kind, limits in (("plain", None), ("held", {"pids": 50}))
            ]
            run = client.submit("both", jobs)
            first = held(run, "Aplain") + held(run, "Aheld")

            second_worker = cluster.start_worker(8081, "--skill", "B")
            second = held(run, "Bplain") + held(run, "Bheld")
            assert live(first), "starting the second one ended what the first one ran"

            cluster.workers[8080].kill()
            assert live(second), "the first one's death ended what the second one ran"
            cluster.start_worker(8080, "--skill", "A")
            assert ends(first), "what the first one left was not swept"
            assert live(second), "the first one's sweep ended what the second one ran"

            # Tried again there, while the second one leaves in good order.
            wait_until(
                lambda: all(
                    (job.attempt, str(job.state)) == (2, "RUNNING")
                    for job in run.jobs()
                    if job.job_id.startswith("A")
                ),
                within_s=30.0,
                what="what the first one lost runs again",
            )
            again = held(run, "Aplain") + held(run, "Aheld")
            assert second_worker.stop() == 0
            assert ends(second)
            assert live(again), "the second one's end ended what the first one ran"
            for fd in (*first, *second, *again):
                os.close(fd)
        assert (cluster.home / ".worker-8080" / "ledger.sqlite").exists()
        assert (cluster.home / ".worker-8081" / "ledger.sqlite").exists()
