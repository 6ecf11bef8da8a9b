"""The worker's disk is bounded: what is old, or too much, goes; what is live never."""

import asyncio
import os

import pytest

from titan_proto.ids import AttemptRef
from titan_worker.archives import Tree
from titan_worker.artifacts import Artifacts, Cache
from titan_worker.carrying import Carrier
from titan_worker.endings import HOUR_MS, Endings
from titan_worker.retention import Retention
from titan_worker.tasks import Tasks
from titan_worker.workspace import Workspaces

KEEP_MS = 24 * HOUR_MS
NOW_MS = 1_000 * HOUR_MS
RUN = "r" * 16
OTHER = "q" * 16


class Disk:
    """A worker's folder, with a clock and a master of the test's."""

    def __init__(self, root, tasks):
        self.now_ms = NOW_MS
        self.is_busy = False
        self.held = set()
        self.over = {}
        self.asked = []
        self.root = root
        self.endings = Endings(root / "endings")
        self.endings.open()
        self.cache = Cache(root / "cache", bytes_max=10**9, boot_id="boot")
        self.cache.open()
        self.artifacts = Artifacts(cache=self.cache, fetch=None, tasks=tasks)
        self.shared = root / "shared"
        self.carrier = Carrier(
            shared=str(self.shared), artifacts=self.artifacts, upload=None, tasks=tasks
        )
        self.workspaces = Workspaces(
            root,
            port=8080,
            artifacts=self.artifacts,
            carrier=self.carrier,
            tasks=tasks,
            on_ready=None,
            on_failed=None,
        )
        self.most = 10**12

    async def sweep(self):
        """Until there is nothing more to do at this time."""

        async def is_over(run_id):
            self.asked.append(run_id)
            return self.over.get(run_id)

        retention = Retention(
            root=str(self.root),
            endings=self.endings,
            workspaces=self.workspaces,
            carrier=self.carrier,
            artifacts=self.artifacts,
            keep_ms=KEEP_MS,
            bytes_max=self.most,
            cache_keep_ms=KEEP_MS,
            now_ms=lambda: self.now_ms,
            is_busy=lambda: self.is_busy,
            holds=lambda run_id: run_id in self.held,
            is_over=is_over,
        )
        for _ in range(100):
            if await retention.sweep() > 1:
                return
        assert self.is_busy, "it never comes to an end"

    def attempt(self, name, *, ended_ms=None, run=RUN, size=0, owes=False):
        """The folder of an attempt that has ended, or of one that goes on."""
        ref = AttemptRef(run, name, 1)
        folder = self.root / "jobs" / run / f"{name}.1"
        (folder / "work").mkdir(parents=True)
        (folder / "work" / "data").write_bytes(b"x" * size)
        if ended_ms is not None:
            self.endings.ended(ref, ended_ms, owes_logs=owes)
        return folder

    def share(self, run=RUN, touched_ms=NOW_MS - 2 * KEEP_MS):
        folder = self.shared / run
        folder.mkdir(parents=True)
        (folder / "data").write_text("x")
        os.utime(folder, (touched_ms / 1000, touched_ms / 1000))
        return folder


@pytest.fixture
async def disk(tmp_path):
    async with asyncio.TaskGroup() as group:
        made = Disk(tmp_path, Tasks(group))
        yield made
        made.endings.close()


async def test_folders_of_attempts_go_when_they_are_old_enough(disk):
    old = disk.attempt("old", ended_ms=NOW_MS - KEEP_MS - HOUR_MS)
    young = disk.attempt("young", ended_ms=NOW_MS - KEEP_MS + HOUR_MS)
    runs = disk.attempt("runs")
    owes = disk.attempt("owes", ended_ms=NOW_MS - KEEP_MS - HOUR_MS, owes=True)
    await disk.sweep()
    assert [one.exists() for one in (old, young, runs, owes)] == [False, True, True, True]


async def test_beside_what_runs_they_go_later_and_little_by_little(disk):
    disk.is_busy = True
    just = disk.attempt("just", ended_ms=NOW_MS - KEEP_MS - HOUR_MS)
    await disk.sweep()
    assert just.exists()
    disk.now_ms += HOUR_MS
    await disk.sweep()
    assert not just.exists()


async def test_too_much_goes_from_the_end_that_was_first_whatever_its_age(disk):
    first = disk.attempt("first", ended_ms=NOW_MS - 3 * HOUR_MS, size=400_000)
    second = disk.attempt("second", ended_ms=NOW_MS - 2 * HOUR_MS, size=400_000)
    runs = disk.attempt("runs", size=400_000)
    disk.most = 1_000_000
    await disk.sweep()
    assert [one.exists() for one in (first, second, runs)] == [False, True, True]


async def test_what_ended_within_this_hour_makes_room_too_and_is_not_forgotten(disk):
    first = disk.attempt("first", ended_ms=NOW_MS, size=400_000)
    disk.most = 100_000
    await disk.sweep()
    assert not first.exists()
    second = disk.attempt("second", ended_ms=NOW_MS, size=50_000)
    await disk.sweep()
    assert second.exists()
    disk.now_ms += KEEP_MS + 2 * HOUR_MS
    await disk.sweep()
    assert not second.exists()


async def test_what_runs_is_never_touched_however_much_it_is(disk):
    runs = disk.attempt("runs", size=400_000)
    owes = disk.attempt("owes", ended_ms=NOW_MS - HOUR_MS, size=400_000, owes=True)
    share = disk.share()
    disk.most = 1
    await disk.sweep()
    assert [one.exists() for one in (runs, owes, share)] == [True, True, True]


async def test_a_shared_folder_goes_once_the_master_says_that_its_run_is_over(disk):
    share = disk.share()
    marks = disk.shared / ".layers" / RUN
    marks.mkdir(parents=True)
    await disk.sweep()  # no master, no answer
    assert share.exists()
    disk.over[RUN] = False
    await disk.sweep()
    assert share.exists()
    disk.over[RUN] = True
    await disk.sweep()
    assert not share.exists()
    assert not marks.exists()
    assert [path.name for path in disk.shared.iterdir()] == [".layers"]


async def test_a_shared_folder_stays_while_anything_of_its_run_is_here_or_is_young(disk):
    disk.over = {RUN: True, OTHER: True}
    disk.attempt("runs")
    beside = disk.share()
    young = disk.share(OTHER, touched_ms=NOW_MS - HOUR_MS)
    await disk.sweep()
    assert beside.exists()
    assert young.exists()
    assert disk.asked == []
    disk.now_ms += KEEP_MS
    disk.held.add(OTHER)
    await disk.sweep()
    assert young.exists()


async def test_shared_folders_of_ended_runs_make_room_last(disk):
    share = disk.share(touched_ms=NOW_MS - HOUR_MS)
    (share / "big").write_bytes(b"x" * 400_000)
    os.utime(share, (1, (NOW_MS - HOUR_MS) / 1000))
    disk.over[RUN] = True
    disk.most = 100_000
    await disk.sweep()
    assert not share.exists()


async def test_what_nothing_has_used_for_long_leaves_the_cache(disk, monkeypatch):
    now_s = 0.0
    monkeypatch.setattr("titan_worker.artifacts.time.monotonic", lambda: now_s)

    for name in ("used", "unused"):
        disk.cache.add(name, disk.cache.new_folder(), Tree((), ()))
    now_s = KEEP_MS / 1000 - 1
    disk.cache.find("used")
    now_s += 2
    await disk.sweep()
    assert disk.cache.find("used") is not None
    assert disk.cache.find("unused") is None
    assert not (disk.root / "cache" / "unused").exists()
