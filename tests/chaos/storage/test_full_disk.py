"""A disk that runs full under a real master: refused is what is new, recorded is what ends."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.chaos.storage.asking import link_to, lost, submit, submit_for_ever, until
from tests.harness.cluster import Cluster
from titan_proto.errors import LinkError, StorageFull
from titan_proto.io.blocking import BlockingLink
from titan_proto.messages import CancelRun, GetJob, OfferArtifact, RunReceipt, WaitJob, WaitRun
from titan_proto.states import JobState, RunState

RESERVE = 512 * 1024
LOG_LINES = 20_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds 12 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def cluster(tmp_path: Path, small_disk: Path) -> Iterator[Cluster]:
    """A master whose data folder lies on it."""
    with Cluster(tmp_path / "cluster") as made:
        made.data = small_disk / "data"
        made.env["TITAN_DISK_RESERVE"] = f"{RESERVE // 1024}KiB"
        made.start_master()
        yield made


def free_bytes(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def fill(disk: Path, leave_bytes: int) -> Path:
    """Somebody else's file takes what is free."""
    ballast = disk / "ballast"
    with ballast.open("ab") as file, contextlib.suppress(OSError):
        while free_bytes(disk) > leave_bytes:
            file.write(bytes(min(65_536, free_bytes(disk) - leave_bytes)))
            file.flush()
    return ballast


def refusal_of(link: BlockingLink, key: str) -> StorageFull | None:
    """What a submission is refused with; None while it is not."""
    try:
        submit(link, key, "true")
    except StorageFull as error:
        return error
    return None


@pytest.mark.needs("root")
def test_a_full_disk_refuses_what_is_new_records_what_ends_and_goes_on_by_itself(
    cluster: Cluster, small_disk: Path, tmp_path: Path
) -> None:
    """No restart, no lost log line, and the refusal says what is free and what is wanted."""
    cluster.start_worker(8080)
    master = cluster.master
    assert master is not None
    reserve = small_disk / "data" / "reserve"
    assert reserve.stat().st_size == RESERVE
    flag = tmp_path / "flag"
    waits = f'while [ ! -e "{flag}" ]; do sleep 0.05; done; seq {LOG_LINES}'
    with link_to(cluster) as link:
        long = submit(link, "long", waits, "echo after")
        doomed = submit(link, "doomed", "sleep 600")
        for run_id in (long.run_id, doomed.run_id):
            until(lambda run_id=run_id: _is_running(link, run_id) or None)
        ballast = fill(small_disk, RESERVE // 16)
        until(lambda: None if reserve.exists() else True)
        # The reserve is gone before the core has heard why: one that is accepted still is known for ever.
        keys = (f"new {number}" for number in count())
        error = until(lambda: refusal_of(link, next(keys)))
        assert "are free" in error.message
        assert int(error.details["wanted_bytes"]) > RESERVE
        assert int(error.details["free_bytes"]) < RESERVE * 2
        with pytest.raises(StorageFull):
            link.call(
                OfferArtifact(digest=hashlib.sha256(b"x" * 9_000).hexdigest(), size_bytes=9_000)
            )
        _cli_is_refused(cluster, tmp_path)

        flag.touch()
        ended = link.call(WaitJob(run=long.run_id, job="j0"), timeout_s=20)
        assert ended.state is JobState.SUCCEEDED
        assert link.call(GetJob(run=long.run_id, job="j1")).state is JobState.QUEUED
        link.call(CancelRun(run=doomed.run_id))
        over = link.call(WaitRun(run=doomed.run_id), timeout_s=20)
        assert over.state is RunState.CANCELLED
        assert refusal_of(link, "still full") is not None

        ballast.unlink()
        until(lambda: True if reserve.exists() else None)
        until(lambda: True if refusal_of(link, "again") is None else None)
        over = link.call(WaitRun(run=long.run_id), timeout_s=20)
        assert over.state is RunState.SUCCEEDED, cluster.logs()
    with cluster.client() as client:
        lines = "".join(f"{n}\n" for n in range(1, LOG_LINES + 1))
        until(lambda: client.fetch_logs("j0", run=long.run_id) == lines or None)
    assert master.process.poll() is None
    assert master.stop() == 0


def _is_running(link: BlockingLink, run_id: str) -> bool:
    return link.call(GetJob(run=run_id, job="j0")).state is JobState.RUNNING


def _cli_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "hello.py"
    script.write_text("print('hello')\n")
    done = subprocess.run(
        [sys.executable, "-m", "titan_sdk", "run", script.name],
        cwd=tmp_path,
        env=cluster.client_env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7, done
    assert "full" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.needs("root")
def test_submissions_that_fill_the_disk_are_refused_before_a_commit_fails(
    cluster: Cluster, small_disk: Path
) -> None:
    """The master counts what it lets in, however fast it comes; all of it is there."""
    fill(small_disk, RESERVE * 4)
    receipts: dict[str, RunReceipt] = {}
    with pytest.raises(StorageFull):
        submit_for_ever(cluster, receipts, prefix="key-", most=5_000)
    with link_to(cluster) as link:
        assert lost(link, receipts) == []
    assert receipts
    assert cluster.master is not None
    assert cluster.master.process.poll() is None


@pytest.mark.needs("root")
def test_a_commit_that_fails_all_the_same_ends_the_master_and_loses_nothing(
    cluster: Cluster, small_disk: Path
) -> None:
    """Somebody takes even the reserve: 74 rather than an answer; with room, everything is there."""
    master = cluster.master
    assert master is not None
    receipts: dict[str, RunReceipt] = {}
    submit_for_ever(cluster, receipts, prefix="key-", most=40)
    assert len(receipts) == 40
    with link_to(cluster) as link:
        doomed = [submit(link, f"doomed-{n}", "true").run_id for n in range(20)]
        with pytest.raises(LinkError):
            _cancel_without_room(small_disk, link, doomed)
    assert master.process.wait(20) == os.EX_IOERR, cluster.logs()
    (small_disk / "ballast").unlink()
    cluster.start_master()
    with link_to(cluster) as link:
        assert lost(link, receipts) == []


def _cancel_without_room(disk: Path, link: BlockingLink, run_ids: list[str]) -> None:
    for run_id in run_ids:
        fill(disk, 0)  # whatever has become free since, the reserve included
        link.call(CancelRun(run=run_id), timeout_s=10)
