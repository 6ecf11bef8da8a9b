"""What was acknowledged is there: over kills at any moment, and over a disk that has run full."""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from titan_proto.errors import LinkError
from titan_proto.io.address import parse_address
from titan_proto.io.blocking import BlockingLink
from titan_proto.messages import GetRun, ListJobs, Role, RunReceipt, SubmitRun, WaitRun
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


def submit_for_ever(link: BlockingLink, receipts: list[RunReceipt]) -> None:
    """Until the link breaks; what was acknowledged goes into `receipts`."""
    while True:
        request = SubmitRun(key=f"key-{len(receipts)}", spec=pair("true"))
        receipts.append(link.call(request, timeout_s=20))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds 2 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.needs("root")
def test_a_full_disk_ends_the_master_and_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    """It ends with 74 rather than answer; with room again, everything acknowledged is there."""
    receipts: list[RunReceipt] = []
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.data = small_disk / "data"
        master = cluster.start_master()
        with link_to(cluster) as link, pytest.raises(LinkError):
            submit_for_ever(link, receipts)
        assert master.process.wait(20) == os.EX_IOERR
        assert len(receipts) > 20
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        cluster.start_master()
        with link_to(cluster) as link:
            for receipt in receipts:
                view = link.call(GetRun(run=receipt.run_id), timeout_s=20)
                assert view.state is RunState.ACTIVE
        assert cluster.master is not None
        assert cluster.master.stop() == 0
