"""What nobody has wanted for long goes; what is needed, or may be in a moment, never."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from disks import endless

from titan_master.core.pins import Pins
from titan_master.data import sweeping
from titan_master.data.blobs import BlobStore
from titan_master.data.sweeping import ArtifactSweep, UnreadableList, missing
from titan_proto.filelist import FileLeft, FileList
from titan_proto.limits import ARTIFACT_KEEP_MIN_MS

HOUR_MS = 3_600_000
KEEP_MS = 100 * HOUR_MS


def digest_of(data):
    return hashlib.sha256(data).hexdigest()


class Kept:
    """A folder of artifacts, a clock that the test moves, and what is needed."""

    def __init__(self, root, *, bytes_max=10**9):
        self.now_ms = 1_700_000_000_000
        self.blobs = BlobStore(root, endless(), lambda: self.now_ms)
        self.artifacts = set()
        self.lists = set()
        self.sweep = ArtifactSweep(
            blobs=self.blobs,
            noted=lambda: self.pins,
            disk=None,
            now_ms=lambda: self.now_ms,
            keep_ms=KEEP_MS,
            bytes_max=bytes_max,
        )
        self.look()  # the first one only notes that ages count from now on

    def pins(self):
        return Pins(frozenset(self.artifacts), frozenset(self.lists))

    def store(self, data):
        """As an upload does."""
        incoming = self.blobs.receive(digest_of(data), len(data))
        incoming.begin()
        incoming.write(0, data)
        incoming.finish()
        return digest_of(data)

    def store_list(self, *contents, inline=()):
        """A list of files whose bytes are stored, and of others whose bytes it holds."""
        files = [
            FileLeft(f"f{n}", 0o644, 0, len(data), self.store(data))
            for n, data in enumerate(contents)
        ]
        files += [
            FileLeft(f"i{n}", 0o644, 0, len(d), digest_of(d), d) for n, d in enumerate(inline)
        ]
        half = len(files) // 2
        data = msgspec.msgpack.encode(
            FileList(shared=tuple(files[:half]), artifacts=tuple(files[half:]))
        )
        return self.store(data)

    def look(self, after_ms=0):
        self.now_ms += after_ms
        return self.sweep.sweep(self.pins())


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path)


def test_what_nobody_has_wanted_for_as_long_goes_and_what_was_offered_again_stays(kept):
    old, offered = kept.store(b"old"), kept.store(b"offered")
    kept.look(KEEP_MS - 1)
    assert kept.blobs.touch(offered)
    assert kept.blobs.has(old)
    kept.look(1)
    assert (kept.blobs.has(old), kept.blobs.has(offered)) == (False, True)
    kept.look(KEEP_MS)
    assert not kept.blobs.has(offered)


def test_storing_what_is_there_already_wants_it_again(kept):
    digest = kept.store(b"same")
    kept.now_ms += KEEP_MS
    kept.store(b"same")
    kept.look()
    assert kept.blobs.has(digest)


def test_what_a_run_needs_stays_and_its_age_counts_from_the_runs_end(kept):
    script = kept.store(b"script")
    files = kept.store_list(b"one", b"two", inline=[b"small"])
    kept.artifacts.add(script)
    kept.lists.add(files)
    kept.look(5 * KEEP_MS)
    kept.artifacts.clear()
    kept.lists.clear()
    kept.look(KEEP_MS - 1)
    assert missing(kept.blobs, Pins(frozenset({script}), frozenset({files}))) == 0
    kept.look(KEEP_MS)
    needed = Pins(frozenset({script}), frozenset({files}))
    # The list is gone, so nobody can tell what it named.
    assert missing(kept.blobs, needed) == 2
    assert list(kept.blobs.all()) == []


def test_asking_whether_all_is_there_keeps_it_there(kept):
    """A run that is about to be run again: between the answer and its acceptance there may be a look."""
    files = kept.store_list(b"one")
    needed = Pins(frozenset(), frozenset({files}))
    kept.now_ms += KEEP_MS
    assert missing(kept.blobs, needed) == 0
    kept.look()
    assert missing(kept.blobs, needed) == 0


def test_a_file_of_a_list_that_is_gone_is_missed(kept):
    files = kept.store_list(b"one", b"two")
    assert kept.blobs.remove(digest_of(b"one"), kept.now_ms)
    assert missing(kept.blobs, Pins(frozenset(), frozenset({files}))) == 1


def test_too_much_goes_oldest_first_but_not_what_may_belong_to_a_run_that_is_just_coming(tmp_path):
    kept = Kept(tmp_path, bytes_max=300)
    digests = []
    for n in range(5):
        digests.append(kept.store(bytes([n]) * 100))
        kept.now_ms += 60_000
    kept.artifacts.add(digests[0])
    kept.look()
    assert all(map(kept.blobs.has, digests)), "all of them may be wanted in a moment"
    kept.look(ARTIFACT_KEEP_MIN_MS)
    assert [kept.blobs.has(digest) for digest in digests] == [True, False, False, True, True]


def test_needed_artifacts_that_are_too_much_all_stay_and_it_is_said(tmp_path, caplog):
    kept = Kept(tmp_path, bytes_max=10)
    kept.artifacts.add(kept.store(b"x" * 100))
    kept.look(KEEP_MS)
    assert len(list(kept.blobs.all())) == 1
    assert "artifacts full bytes=100 most=10" in caplog.text


def test_a_portion_at_a_time(kept, monkeypatch):
    monkeypatch.setattr(sweeping, "PORTION", 2)
    for n in range(5):
        kept.store(bytes([n]))
    assert [kept.look(KEEP_MS) for _ in range(3)] == [True, True, False]
    assert list(kept.blobs.all()) == []


def test_where_a_list_that_is_needed_cannot_be_read_nothing_goes(kept):
    """What it names cannot be told from what nobody needs."""
    kept.store(b"old")
    kept.lists.add(kept.store(b"no list"))
    with pytest.raises(UnreadableList, match="cannot be read"):
        kept.look(KEEP_MS)
    assert len(list(kept.blobs.all())) == 2
    assert missing(kept.blobs, kept.pins()) == 1


def test_in_a_folder_of_before_all_are_wanted_when_it_is_first_looked_at(tmp_path):
    """Nobody said then when they were: after an update, or in a backup, the time begins anew."""
    kept = Kept(tmp_path)
    digest = kept.store(b"old")
    (tmp_path / "ageing").unlink()
    kept.look(KEEP_MS)
    kept.look(KEEP_MS - 1)
    assert kept.blobs.has(digest)
    kept.look(1)
    assert not kept.blobs.has(digest)


def test_what_is_wanted_between_the_look_and_the_removal_stays(kept):
    digest = kept.store(b"old")
    kept.now_ms += KEEP_MS
    before = kept.now_ms - KEEP_MS
    kept.blobs.touch(digest)
    assert not kept.blobs.remove(digest, before)
    assert kept.blobs.has(digest)
    assert not kept.blobs.remove(digest_of(b"never there"), before)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_in_whatever_order_nothing_needed_or_young_is_missed(tmp_path, seed):
    """Runs come, end and are run again, looks and ends of the process fall anywhere between."""
    dice = random.Random(seed)
    kept = Kept(tmp_path, bytes_max=dice.choice((10**9, 200)))
    names = itertools.count()
    live, ended = {}, {}
    for _ in range(150):
        kept.now_ms += dice.choice((0, 60_000, HOUR_MS, 20 * HOUR_MS))
        step = dice.randrange(5)
        if step == 0:
            parts = [bytes([dice.randrange(6)]) * 20 for _ in range(dice.randrange(1, 4))]
            live[next(names)] = (kept.store(parts[0]), kept.store_list(*parts[1:]))
        elif step == 1 and live:
            name = dice.choice(list(live))
            kept.look()  # as there is one within the hour before, at the latest
            ended[name] = (live.pop(name), kept.now_ms)
        elif step == 2 and ended:
            name = dice.choice(list(ended))
            (script, files), _at_ms = ended.pop(name)
            if not missing(kept.blobs, Pins(frozenset({script}), frozenset({files}))):
                live[name] = (script, files)
        elif step == 3:
            # The process ends and is started again: nothing is remembered but the folder.
            kept.blobs = BlobStore(tmp_path, endless(), lambda: kept.now_ms)
            kept.sweep._blobs = kept.blobs
        kept.artifacts = {script for script, _ in live.values()}
        kept.lists = {files for _, files in live.values()}
        kept.look()
        assert missing(kept.blobs, kept.pins()) == 0, "a live run lacks something"
        for (script, files), at_ms in ended.values():
            if kept.now_ms - at_ms < (
                ARTIFACT_KEEP_MIN_MS if kept.sweep._bytes_max < 10**9 else KEEP_MS
            ):
                assert kept.blobs.has(script)
                assert kept.blobs.has(files)


async def test_a_disk_that_cannot_be_read_is_said_and_looked_at_again(
    tmp_path, caplog, monkeypatch
):
    kept = Kept(tmp_path)
    again = asyncio.Event()
    loop = asyncio.get_running_loop()
    looks = []

    def fail(pins):
        looks.append(pins)
        if len(looks) == 2:
            loop.call_soon_threadsafe(again.set)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sweeping, "_EVERY_S", 0.0)
    monkeypatch.setattr(kept.sweep, "sweep", fail)
    with ThreadPoolExecutor(1) as disk:
        kept.sweep._disk = disk
        task = asyncio.create_task(kept.sweep.run())
        await asyncio.wait_for(again.wait(), 20)
        task.cancel()
    assert "artifacts not swept error=Input/output error" in caplog.text


async def test_what_is_needed_is_noted_on_the_loop_and_worked_out_off_it(tmp_path, monkeypatch):
    """There may be a thousand schedules to decode, and heartbeats are to be answered meanwhile."""
    kept = Kept(tmp_path)
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()
    threads = []

    def pins():
        threads.append(threading.get_ident())
        return kept.pins()

    def note():
        threads.append(threading.get_ident())
        return pins

    def sweep(found):
        assert found == kept.pins()
        loop.call_soon_threadsafe(looked.set)
        return False

    monkeypatch.setattr(kept.sweep, "sweep", sweep)
    kept.sweep._noted = note
    with ThreadPoolExecutor(1) as disk:
        kept.sweep._disk = disk
        task = asyncio.create_task(kept.sweep.run())
        await asyncio.wait_for(looked.wait(), 20)
        task.cancel()
    assert [thread == threading.get_ident() for thread in threads] == [True, False]
