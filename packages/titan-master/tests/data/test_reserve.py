"""The reserve: held while there is room, given up when there is none, made again by itself."""

from __future__ import annotations

import asyncio
import errno
import os
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
from disks import look

from titan_master.data import reserve as module
from titan_master.data.reserve import DiskWatch, Reserve, Space, is_full

SIZE = 1 << 20
FLOOR = SIZE // 4


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A disk of the test's: `free` is what statvfs says beside what the reserve holds."""
    made = types.SimpleNamespace(total=100 * SIZE, folder=tmp_path)

    def statvfs(folder):
        held = tmp_path / "reserve"
        taken = held.stat().st_blocks * 512 if held.exists() else 0
        return types.SimpleNamespace(f_bavail=max(0, made.total - taken), f_frsize=1)

    monkeypatch.setattr(module.os, "statvfs", statvfs)
    return made


def test_it_is_made_at_the_start_and_really_holds_its_room(disk):
    found = Reserve(disk.folder, SIZE).begin()
    assert found.is_held
    assert found.room_bytes == 99 * SIZE - FLOOR
    status = (disk.folder / "reserve").stat()
    assert status.st_size == SIZE
    assert status.st_blocks * 512 >= SIZE


def test_it_is_given_up_below_the_floor_and_made_again_when_there_is_room_for_it(disk):
    """With a distance between the two: it does not come and go."""
    reserve = Reserve(disk.folder, SIZE)
    reserve.begin()
    disk.total = SIZE + FLOOR
    assert reserve.look().is_held
    disk.total -= 1
    low = reserve.look()
    assert not low.is_held
    assert low.room_bytes == 0
    assert low.free_bytes == SIZE + FLOOR - 1
    assert not (disk.folder / "reserve").exists()
    disk.total = low.wanted_bytes - 1
    assert not reserve.look().is_held
    disk.total = low.wanted_bytes
    again = reserve.look()
    assert again.is_held
    assert again.room_bytes == FLOOR


def test_the_next_process_takes_it_up(disk):
    Reserve(disk.folder, SIZE).begin()
    disk.total = SIZE + FLOOR  # too little to make one now
    assert Reserve(disk.folder, SIZE).begin().is_held


@pytest.mark.parametrize("left", [b"", b"half"])
def test_one_that_was_not_finished_is_made_anew(disk, left):
    (disk.folder / "reserve").write_bytes(left)
    assert Reserve(disk.folder, SIZE).begin().is_held
    assert (disk.folder / "reserve").stat().st_size == SIZE


def test_a_hole_in_a_file_holds_no_room(disk):
    """It has the size, and no block of the disk."""
    with (disk.folder / "reserve").open("wb") as file:
        file.truncate(SIZE)
    disk.total = SIZE
    assert not Reserve(disk.folder, SIZE).begin().is_held


def test_on_a_disk_too_small_for_it_nothing_begins(disk):
    disk.total = SIZE
    found = Reserve(disk.folder, SIZE).begin()
    assert not found.is_held
    assert found.room_bytes == 0
    assert found.wanted_bytes == SIZE + 2 * FLOOR


def test_what_fills_up_while_it_is_being_made_leaves_none(disk, monkeypatch):
    def no_room(descriptor, offset, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "posix_fallocate", no_room)
    assert not Reserve(disk.folder, SIZE).begin().is_held
    assert not (disk.folder / "reserve").exists()


def test_space_is_counted_down_between_two_looks():
    space = Space(look(100))
    space.take(60)
    with pytest.raises(OSError, match="No space") as caught:
        space.take(60)
    assert is_full(caught.value)
    assert not space.has(41)
    space.looked(look(100))
    assert space.has(100)


def test_who_waits_for_room_is_called_once_there_is_some():
    calls = []
    space = Space(look(0))
    space.when_room(lambda: calls.append("now"))
    space.looked(look(0))
    assert calls == []
    space.looked(look(1))
    space.looked(look(1))
    assert calls == ["now"]


async def test_the_watch_tells_of_every_look_and_outlives_a_disk_that_cannot_be_looked_at(
    disk, monkeypatch
):
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    monkeypatch.setattr(module, "LOOK_NEAR_S", 0.001)
    reserve = Reserve(disk.folder, SIZE)
    told = asyncio.Queue()
    first = reserve.begin()
    space = Space(first)
    real, failed = reserve._free, []

    def fails_once():
        if not failed:
            failed.append(True)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real()

    monkeypatch.setattr(reserve, "_free", fails_once)
    disk.total = SIZE
    with ThreadPoolExecutor(1) as worker:
        watch = DiskWatch(reserve=reserve, space=space, worker=worker, tell=told.put_nowait)
        watch.begin(first)
        assert await told.get() == first
        assert not (await asyncio.wait_for(told.get(), 10)).is_held
        assert failed
        assert not space.has(1)
        watch.close()
