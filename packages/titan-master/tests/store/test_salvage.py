"""Going on without a damaged end: only by name, with the damage kept, and with nothing made up."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
import stories
from core_world import World, job, run

from titan_master.core.apply import apply
from titan_master.core.check import check
from titan_master.core.state import State, digest
from titan_master.store import sqlite_checkpoint
from titan_master.store.base import TERM_JUMP, JournalDamaged, JournalKeep
from titan_master.store.salvage import LossRefused, accept_loss, copy_database
from titan_master.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "titan.sqlite"


def filled(path, *, checkpoint_at=0, keep=None):
    """A store with a day in it, closed; its events."""
    events = stories.events(stories.a_day())
    store = SqliteStore(path, keep or JournalKeep())
    term = store.open().term
    for seq, event in enumerate(events, 1):
        store.commit((event,), term)
        if seq == checkpoint_at:
            store.checkpoint()
            store.tidy()
    store.close()
    return events


def spoil(path, seq):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE journal SET body = x'00' WHERE seq = ?", (seq,))
        connection.commit()


def fold(events):
    state = State()
    for event in events:
        apply(state, event)
    return state


@pytest.mark.parametrize("checkpoint_at", [0, 11])
@pytest.mark.parametrize("last", range(12, 40, 3))
def test_what_is_left_is_the_journal_up_to_there(path, tmp_path, last, checkpoint_at):
    """State as it was then; history says nothing of what came later; work goes on from afar."""
    events = filled(path, checkpoint_at=checkpoint_at)
    last = min(last, len(events) - 1)
    spoil(path, last + 1)
    with pytest.raises(JournalDamaged) as caught:
        SqliteStore(path).open()
    assert caught.value.last_good_seq == last
    loss = accept_loss(path, last, tmp_path / "aside")
    assert (loss.last_good_seq, loss.history_is_whole) == (last, True)
    assert loss.lost_records == len(events) - last
    store = SqliteStore(path)
    found = store.open()
    assert digest(found.state) == digest(fold(events[:last]))
    assert (found.last_seq, found.term, found.is_behind) == (last, 2 + TERM_JUMP, True)
    plain = SqliteStore(tmp_path / "plain.sqlite")
    plain.commit(events[:last], plain.open().term)
    assert store.runs("", 9).runs == plain.runs("", 9).runs
    for view in plain.runs("", 9).runs:
        assert store.jobs(view.run_id, "", 9) == plain.jobs(view.run_id, "", 9)
    # The rest of the day, once more: history takes it as if nothing had been.
    for one in (store, plain):
        one.commit(events[last:], one._term)
    assert store.runs("", 9).runs == plain.runs("", 9).runs
    for run_id in ("run1", "run2", "run3"):
        page = store.jobs(run_id, "", 9)
        assert page == plain.jobs(run_id, "", 9)
        for view in page.jobs:
            attempts = store.attempts(run_id, view.job_id)
            assert attempts == plain.attempts(run_id, view.job_id)
    for one in (store, plain):
        one.close()
    again = store.open()
    assert not again.is_behind
    assert digest(again.state) == digest(fold(events))
    store.close()


def test_only_the_last_good_record_can_be_named(path, tmp_path):
    """Neither less nor more, and nothing is touched by the attempt."""
    filled(path)
    spoil(path, 9)
    before = path.read_bytes()
    for seq in (0, 7, 9, 12):
        with pytest.raises(LossRefused, match="the last good record is 8"):
            accept_loss(path, seq, tmp_path / "aside")
    assert path.read_bytes() == before
    assert not (tmp_path / "aside").exists()


def test_a_sound_journal_has_nothing_to_lose(path, tmp_path):
    """A flag that was left in a service's file does no harm."""
    filled(path)
    with pytest.raises(LossRefused, match="sound"):
        accept_loss(path, 3, tmp_path / "aside")


def test_the_damaged_files_are_kept_as_they_are(path, tmp_path):
    """Database, log and mark: byte for byte."""
    filled(path)
    store = SqliteStore(path)
    store.commit(stories.events(stories.a_day())[:1], store.open().term)
    store._let_go()  # as if killed: the log stays
    spoil(path, 9)
    names = ("titan.sqlite", "titan.sqlite-wal", "titan.sqlite.mark")
    before = {name: (tmp_path / name).read_bytes() for name in names if (tmp_path / name).exists()}
    accept_loss(path, 8, tmp_path / "aside")
    assert {name: (tmp_path / "aside" / name).read_bytes() for name in before} == before
    assert not (tmp_path / "titan.sqlite-wal").exists()


def test_a_journal_cut_short_is_accepted_at_its_end(path, tmp_path):
    """The mark knows how many records are lost."""
    events = filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM journal WHERE seq > ?", (len(events) - 2,))
        connection.commit()
    loss = accept_loss(path, len(events) - 2, tmp_path / "aside")
    assert loss.lost_records == 2
    with contextlib.closing(SqliteStore(path)) as store:
        state = store.open().state
    assert digest(state) == digest(fold(events[:-2]))


def test_where_nothing_can_be_believed_a_new_journal_begins(path, tmp_path):
    """A file that is no database: its owner may say so, and keeps the file."""
    path.write_bytes(b"no database " * 500)
    loss = accept_loss(path, 0, tmp_path / "aside")
    assert loss.lost_records is None
    assert (tmp_path / "aside" / path.name).read_bytes() == b"no database " * 500
    store = SqliteStore(path)
    found = store.open()
    assert (found.last_seq, found.is_behind) == (0, True)
    store.close()


def test_a_loss_behind_a_checkpoint_with_damaged_old_records(path, tmp_path):
    """Records that nobody needs are not taken along where they are damaged; specs are."""
    events = filled(path, checkpoint_at=30)
    spoil(path, 7)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE journal SET body = x'00' WHERE seq = 33")
        connection.commit()
    accept_loss(path, 32, tmp_path / "aside")
    store = SqliteStore(path)
    found = store.open()
    assert digest(found.state) == digest(fold(events[:32]))
    assert store.spec("run1") is not None
    store.close()


def test_a_copy_is_of_one_moment_and_has_a_mark_of_its_own(path, tmp_path, monkeypatch):
    """Of a store that is being written, with its first records gone already."""
    monkeypatch.setattr(sqlite_checkpoint, "PRUNED_AT_ONCE", 5)
    world = World({"w1": 2})
    store = SqliteStore(path, JournalKeep(ms=0, bytes=0))
    term = store.open().term
    seen = 0
    for number in range(6):
        world.submit(run("a", job("x")), run_id=f"r{number}")
        store.commit(stories.events(world)[seen:], term)
        seen = len(world.journal)
        store.checkpoint()
        store.tidy()
        (tmp_path / str(number)).mkdir()
        copy = tmp_path / str(number) / "titan.sqlite"
        found = copy_database(path, copy)
        assert digest(found.folded.state) == digest(world.state)
        assert not copy.with_name("titan.sqlite-wal").exists()
        opened = SqliteStore(copy)
        state = opened.open().state
        check(state)
        assert digest(state) == digest(world.state)
        opened.close()
    store.close()


def test_a_reader_holds_up_no_commit(path):
    """A backup reads for as long as it takes; the log is moved behind it, or later."""
    store = SqliteStore(path)
    term = store.open().term
    events = stories.events(stories.a_day())
    store.commit(events[:3], term)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM journal").fetchone() == (3,)
        store.commit(events[3:], term)
        store.checkpoint()
        store.tidy()
        assert reader.execute("SELECT count(*) FROM journal").fetchone() == (3,)
    store.tidy()
    assert path.with_name(path.name + "-wal").stat().st_size == 0
    store.close()
