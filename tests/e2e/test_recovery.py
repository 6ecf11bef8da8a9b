"""What was acknowledged is there: over kills at any moment, whatever the master was doing."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from tests.harness.cluster import Cluster
from titan_proto.errors import LinkError
from titan_proto.io.address import parse_address
from titan_proto.io.blocking import BlockingLink
from titan_proto.messages import ListJobs, Role, RunReceipt, SubmitRun, WaitRun
from titan_proto.specs import JobSpec, Launch, LaunchKind, RunSpec
from titan_proto.states import JobState, RunState

KILLS = 8
ANSWER_S = 60.0


def link_to(cluster: Cluster) -> BlockingLink:
    """A link of a client's."""
    return BlockingLink.connect(
        parse_address(cluster.address),
        cluster.token,
        role=Role.CLIENT,
        software="test",
        timeout_s=20,
    )


def pair(line: str) -> RunSpec:
    """A run of two jobs, one after the other."""
    launch = Launch(kind=LaunchKind.SHELL, shell=line)
    return RunSpec(
        name="busy",
        jobs=(
            JobSpec(id="a", launch=launch),
            JobSpec(id="b", launch=launch, dependencies=("a",)),
        ),
    )


class Submitter(threading.Thread):
    """Submits one run after the other, each again under its key until a receipt has come."""

    def __init__(self, cluster: Cluster, line: str) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._line = line
        self._news = threading.Condition()
        self._is_wanted = True
        self.receipts: dict[str, RunReceipt] = {}

    def run(self) -> None:
        """Until `finish`."""
        serial = 0
        while self._is_wanted:
            try:
                with link_to(self._cluster) as link:
                    while self._is_wanted:
                        key = f"key-{serial}"
                        request = SubmitRun(key=key, spec=pair(self._line))
                        receipt = link.call(request, timeout_s=20)
                        serial += 1
                        with self._news:
                            self.receipts[key] = receipt
                            self._news.notify_all()
            except LinkError:
                continue  # the master is dead: dial until it is back

    def wait_for(self, count: int) -> None:
        """Back when it has so many receipts."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.receipts) >= count, ANSWER_S)

    def finish(self) -> None:
        """Submit no more."""
        self._is_wanted = False
        self.join(ANSWER_S)


def test_nothing_acknowledged_is_lost_over_many_kills(cluster: Cluster, tmp_path: Path) -> None:
    """Killed while it accepts, places and takes reports: each run is there, each job ran once."""
    dice = random.Random(4711)
    cluster.start_worker(8080)
    marks = tmp_path / "marks"
    marks.mkdir()
    line = f'echo "$TITAN_ATTEMPT" >> "{marks}/$TITAN_RUN_ID.$TITAN_JOB_ID"'
    submitter = Submitter(cluster, line)
    submitter.start()
    for _ in range(KILLS):
        submitter.wait_for(len(submitter.receipts) + dice.randint(1, 12))
        master = cluster.master
        assert master is not None
        master.kill()
        cluster.start_master()
    submitter.wait_for(len(submitter.receipts) + 5)
    submitter.finish()
    ids = [receipt.run_id for receipt in submitter.receipts.values()]
    assert len(set(ids)) == len(ids) > KILLS
    with link_to(cluster) as link:
        for key, receipt in submitter.receipts.items():
            over = link.call(WaitRun(run=receipt.run_id), timeout_s=ANSWER_S)
            assert over.state is RunState.SUCCEEDED, cluster.logs()
            jobs = link.call(ListJobs(run=receipt.run_id)).jobs
            assert [(job.job_id, job.state, job.attempt) for job in jobs] == [
                ("a", JobState.SUCCEEDED, 1),
                ("b", JobState.SUCCEEDED, 1),
            ]
            again = link.call(SubmitRun(key=key, spec=pair(line)), timeout_s=20)
            assert (again.run_id, again.known) == (receipt.run_id, True)
    ran = {path.name: path.read_text() for path in marks.iterdir()}
    assert ran == {f"{run_id}.{job}": "1\n" for run_id in ids for job in "ab"}
