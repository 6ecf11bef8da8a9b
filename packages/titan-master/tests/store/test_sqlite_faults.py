"""SQLite with damage, with sudden death, and with the wrong version."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys

import pytest
import stories

from titan_master.store import sqlite as sqlite_module
from titan_master.store.base import JournalDamaged, JournalTooNew, StoreError
from titan_master.store.sqlite import SqliteStore, connect

TESTS = pathlib.Path(__file__).parents[1]
KILLS = 5

# Commits one event after the other and says so only when it is durable.
COMMITTER = """
import sys
from titan_master.core.events import WorkerRetired, WorkerJoined
from titan_master.store.sqlite import SqliteStore, connect
from pathlib import Path

store = SqliteStore(Path(sys.argv[1]), connect=connect)
found = store.open()
print("open", found.last_seq, flush=True)
serial = found.last_seq
while True:
    worker = f"w{serial}"
    joined = WorkerJoined(at_ms=serial, worker_id=worker, host="h", port=serial % 60000,
                          incarnation=1, boot_id="b", slots=1, skills=())
    serial = store.commit((joined, WorkerRetired(at_ms=serial, worker_id=worker)), found.term)
    print(serial, flush=True)
"""


@contextlib.contextmanager
def raw(path):
    """The file, as somebody else would open it, committed at the end."""
    connection = sqlite3.connect(path)
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path):
    """A store with a day in it, closed."""
    place = tmp_path / "t.sqlite"
    store = SqliteStore(place, connect=connect)
    store.commit(stories.events(stories.a_day()), store.open().term)
    store.close()
    return place


def damage_of(path):
    with pytest.raises(JournalDamaged) as caught:
        SqliteStore(path, connect=connect).open()
    return caught.value


@pytest.mark.parametrize("column", ["body", "chain", "crc", "term"])
def test_a_changed_record_is_found(path, column):
    """Whatever part of it changed; what lies before it is known to be good."""
    with raw(path) as connection:
        if column in {"crc", "term"}:
            connection.execute(f"UPDATE journal SET {column} = {column} + 1 WHERE seq = 7")
        else:
            (old,) = connection.execute(f"SELECT {column} FROM journal WHERE seq = 7").fetchone()
            new = old[:-1] + bytes((old[-1] ^ 1,))
            connection.execute(f"UPDATE journal SET {column} = ? WHERE seq = 7", (new,))
    assert damage_of(path).last_good_seq == 6


def test_a_missing_record_is_found(path):
    """One in the middle leaves a gap."""
    with raw(path) as connection:
        connection.execute("DELETE FROM journal WHERE seq = 4")
    assert damage_of(path).last_good_seq == 3


def test_a_journal_that_ends_too_early_is_found(path):
    """It is sound in itself; the mark beside it knows how far it went."""
    with raw(path) as connection:
        (last,) = connection.execute("SELECT max(seq) FROM journal").fetchone()
        connection.execute("DELETE FROM journal WHERE seq > ?", (last - 2,))
    assert damage_of(path).last_good_seq == last - 2


def test_every_bit_of_the_journal_counts(path):
    """One flipped bit anywhere in a record's body never opens as if nothing had happened."""
    blank = path.read_bytes()
    store = SqliteStore(path, connect=connect)
    good = store.open().last_seq
    store.close()
    with raw(path) as connection:
        bodies = [row[0] for row in connection.execute("SELECT body FROM journal WHERE seq < 9")]
    for body in bodies:
        at = blank.find(body) + len(body) // 2
        path.write_bytes(blank[:at] + bytes((blank[at] ^ 0x10,)) + blank[at + 1 :])
        for beside in ("-wal", "-shm"):
            path.with_name(path.name + beside).unlink(missing_ok=True)
        assert damage_of(path).last_good_seq < good


@pytest.mark.parametrize("place_in_log", [0.5, 1.0])
def test_a_flipped_bit_in_the_log_beside_the_database_is_found(tmp_path, place_in_log):
    """SQLite drops the rest of its log without a word; the mark tells, of the last commit too."""
    place = tmp_path / "t.sqlite"
    store = SqliteStore(place, connect=connect)
    term = store.open().term
    for event in stories.events(stories.a_day()):
        store.commit((event,), term)
    wal = place.with_name("t.sqlite-wal")
    copy = tmp_path / "copy.sqlite"
    log = bytearray(wal.read_bytes())
    assert len(log) > 100_000
    log[int(len(log) * place_in_log) - 100] ^= 1
    copy.write_bytes(place.read_bytes())
    copy.with_name("copy.sqlite-wal").write_bytes(log)
    copy.with_name("copy.sqlite.mark").write_bytes(place.with_name("t.sqlite.mark").read_bytes())
    store.close()
    before = copy.with_name("copy.sqlite-wal").read_bytes()
    assert damage_of(copy).last_good_seq < len(stories.a_day().journal)
    assert copy.with_name("copy.sqlite-wal").read_bytes() == before, "the evidence is left alone"


def test_a_term_that_went_back_is_damage(path):
    """It is the fence against an old master, and no record's seal covers it."""
    with raw(path) as connection:
        connection.execute("UPDATE meta SET value = 0 WHERE key = 'term'")
    assert "term" in damage_of(path).reason


def test_a_file_that_is_no_database_is_damage(tmp_path):
    """And is not written to."""
    place = tmp_path / "t.sqlite"
    place.write_bytes(b"no database " * 500)
    assert damage_of(place).last_good_seq == 0
    assert place.read_bytes() == b"no database " * 500


def test_a_folder_that_is_not_there_is_no_damage(tmp_path):
    """It is an error of input and output: the journal may be as sound as ever."""
    with pytest.raises(StoreError) as caught:
        SqliteStore(tmp_path / "gone" / "t.sqlite", connect=connect).open()
    assert not isinstance(caught.value, JournalDamaged)


def test_a_newer_journal_is_refused(path):
    """With what to do about it."""
    with raw(path) as connection:
        connection.execute("UPDATE meta SET value = 99 WHERE key = 'format'")
    with pytest.raises(JournalTooNew, match="install"):
        SqliteStore(path, connect=connect).open()


def test_a_commit_that_fails_is_final(path):
    """The store says so, and does not try to write again when it is closed."""
    store = SqliteStore(path, connect=connect)
    term = store.open().term
    with raw(path) as connection:
        # From now on every record of a commit meets this.
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON journal "
            "BEGIN SELECT raise(ABORT, 'disk full'); END"
        )
    with pytest.raises(StoreError, match="disk full"):
        store.commit(stories.events(stories.a_day())[:1], term)
    store.close()


class FailsOnce(sqlite3.Connection):
    """Its first commit is refused by the disk, each later one would succeed."""

    def execute(self, statement, *values):
        done = super().execute(statement, *values)
        if statement == "COMMIT" and not getattr(self, "has_failed", False):
            self.has_failed = True
            raise sqlite3.OperationalError("disk I/O error")
        return done


def test_after_a_sync_that_failed_nothing_is_acknowledged_any_more(path):
    """The next one may succeed and say nothing of the hole: only a new start reads the disk."""

    def connect_failing(place):
        return sqlite3.connect(place, isolation_level=None, factory=FailsOnce)

    store = SqliteStore(path, connect=connect_failing)
    term = store.open().term
    event = stories.events(stories.a_day())[0]
    for words in ("disk I/O error", "earlier commit failed"):
        with pytest.raises(StoreError, match=words):
            store.commit((event,), term)
    store.close()


def test_a_log_left_behind_is_written_anew_before_it_is_believed(tmp_path, monkeypatch):
    """A sync that failed may have left it in memory alone; an end in good order leaves none."""
    place = tmp_path / "t.sqlite"
    store = SqliteStore(place, connect=connect)
    store.commit(stories.events(stories.a_day()), store.open().term)
    wal = place.with_name("t.sqlite-wal")
    left = wal.read_bytes()
    written = []
    pwrite, fsync = os.pwrite, os.fsync
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, at: written.append(data) or pwrite(fd, data, at)
    )
    monkeypatch.setattr(os, "fsync", lambda fd: written.append(b"synced") or fsync(fd))
    sqlite_module.write_log_anew(place)
    assert b"".join(written) == left + b"synced"
    assert wal.read_bytes() == left
    store.close()
    written.clear()
    sqlite_module.write_log_anew(place)
    assert b"synced" not in written


def test_the_log_is_moved_into_the_database_when_it_has_grown(path, monkeypatch):
    """Without a pause of the commits."""
    monkeypatch.setattr(sqlite_module, "_WAL_BYTES_MAX", 10_000)
    monkeypatch.setattr(sqlite_module, "_LOG_LOOKED_AT_EVERY", 1)
    store = SqliteStore(path, connect=connect)
    term = store.open().term
    wal = path.with_name("t.sqlite-wal")
    sizes = set()
    for event in stories.events(stories.a_day())[:2] * 20:
        store.commit((event,), term)
        sizes.add(wal.stat().st_size)
    assert max(sizes) <= 10_000
    assert 0 in sizes
    store.close()


def test_what_was_acknowledged_survives_being_killed(tmp_path):
    """Killed in the middle of commits, again and again: never less than what it had said."""
    place = tmp_path / "t.sqlite"
    said = 0
    for _ in range(KILLS):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(
            [sys.executable, "-c", COMMITTER, str(place)],
            stdout=subprocess.PIPE, text=True, env=environment,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            words = process.stdout.readline().split()
            assert words[0] == "open"
            assert int(words[1]) >= said
            for _ in range(20):
                said = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                if line.endswith("\n"):
                    said = int(line)
    store = SqliteStore(place, connect=connect)
    assert store.open().last_seq >= said
    store.close()
