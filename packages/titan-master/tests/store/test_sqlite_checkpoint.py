"""Checkpoints in the file: what goes, what stays, what happens when they are damaged or do not fit."""

from __future__ import annotations

import contextlib
import sqlite3
import time

import msgspec
import pytest
import stories
from core_world import World, job, run

from titan_master.core.events import WorkerJoined, WorkerRetired
from titan_master.core.state import digest
from titan_master.store import sqlite as sqlite_module
from titan_master.store import sqlite_checkpoint
from titan_master.store.base import (
    HistoryDamaged,
    JournalDamaged,
    JournalKeep,
    StoreError,
    TermLost,
)
from titan_master.store.sqlite import SqliteStore
from titan_proto.specs import RunSpec

NOTHING = JournalKeep(ms=0, bytes=0)
RECOVERY_S = 2.0
UNDER_LOAD = 3


@contextlib.contextmanager
def raw(path):
    """The file, as somebody else would open it, committed at the end."""
    connection = sqlite3.connect(path)
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()


def value(path, question):
    with raw(path) as connection:
        return connection.execute(question).fetchone()[0]


def filler(count, at_ms=1):
    """Events that leave nothing in the state."""
    found = []
    for n in range(count):
        worker = f"filler-{n}"
        found.append(
            WorkerJoined(
                at_ms=at_ms, worker_id=worker, host="f", port=n, incarnation=1, boot_id="b",
                slots=1, skills=(),
            )
        )  # fmt: skip
        found.append(WorkerRetired(at_ms=at_ms, worker_id=worker))
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.sqlite"


@pytest.fixture
def pruned(path, monkeypatch):
    """A store with a day in it whose first records are gone, closed; and what its state is."""
    monkeypatch.setattr(sqlite_checkpoint, "PRUNED_AT_ONCE", 5)
    world = stories.a_day()
    store = SqliteStore(path, NOTHING)
    store.commit(stories.events(world), store.open().term)
    store.checkpoint()
    store.tidy()
    store.close()
    assert value(path, "SELECT min(seq) FROM journal") > 20
    return digest(world.state)


# -- what goes ----------------------------------------------------------------------------------------


def test_records_that_no_start_needs_are_let_go(path, pruned):
    """The state, the history and what was submitted are all there without them."""
    store = SqliteStore(path, NOTHING)
    assert digest(store.open().state) == pruned
    spec = msgspec.msgpack.decode(store.spec("run1"), type=RunSpec)
    assert [one.id for one in spec.jobs] == ["PULL", "API"]
    assert [view.alias for view in store.runs("", 9).runs] == ["nightly-1", "etl-2", "etl-1"]
    assert store.job("run1", "PULL").lost == 1
    assert len(store.jobs("run2", "", 9).jobs) == 2
    store.close()


def test_a_journal_without_its_beginning_goes_on(path, pruned):
    """Commits, checkpoints and starts, as before."""
    world = stories.a_day()
    seen = len(world.journal)
    store = SqliteStore(path, NOTHING)
    term = store.open().term
    world.ended("run4/PULL")
    store.commit(stories.events(world)[seen:], term)
    store.checkpoint()
    store.close()
    assert digest(store.open().state) == digest(world.state)
    assert store.run("run4").counts == {"SUCCEEDED": 1}
    assert store.spec("run4") is not None
    store.close()


def test_old_records_stay_as_long_as_they_are_to_be_kept(path, monkeypatch):
    """By the journal's own clock."""
    monkeypatch.setattr(sqlite_checkpoint, "PRUNED_AT_ONCE", 10)
    store = SqliteStore(path, JournalKeep(ms=1_000, bytes=10**9))
    term = store.open().term
    store.commit(filler(10, at_ms=1), term)
    store.commit(filler(10, at_ms=900), term)
    store.checkpoint()
    store.tidy()
    assert value(path, "SELECT count(*) FROM journal") == 40
    store.commit(filler(1, at_ms=1_500), term)
    store.checkpoint()
    store.tidy()
    assert value(path, "SELECT min(seq) FROM journal") == 21
    store.close()


def test_a_busy_journal_is_bounded_without_a_pause(path, monkeypatch):
    """With nothing but commits, and the share of tidying that goes with them."""
    monkeypatch.setattr(sqlite_module, "CHECKPOINT_RECORDS", 200)
    monkeypatch.setattr(sqlite_module, "QUIET_RECORDS", 50)
    monkeypatch.setattr(sqlite_checkpoint, "PRUNED_AT_ONCE", 100)
    store = SqliteStore(path, NOTHING)
    term = store.open().term
    most = 0
    for _ in range(40):
        store.commit(filler(25), term)
        store.keep_up()
        most = max(most, value(path, "SELECT count(*) FROM journal"))
    assert most <= 400
    store.close()
    assert store.open().last_seq == 2_000
    store.close()


def test_a_quiet_moment_keeps_what_came_together(path):
    """So that the next start is short; a handful of records is not worth it."""
    store = SqliteStore(path)
    term = store.open().term
    store.commit(filler(20), term)
    store.tidy()
    assert value(path, "SELECT count(*) FROM checkpoint") == 0
    store.commit(filler(sqlite_module.QUIET_RECORDS // 2), term)
    store.tidy()
    assert value(path, "SELECT seq FROM checkpoint WHERE kind = 'head'") == store._seq
    store.close()


def test_an_older_master_takes_no_checkpoint(path):
    """As it commits nothing."""
    old = SqliteStore(path)
    old.commit(filler(5), old.open().term)
    new = SqliteStore(path)
    new.open()
    with pytest.raises(TermLost):
        old.checkpoint()
    new.close()
    old.close()


def test_a_checkpoint_that_finds_the_disk_full_is_put_off(path):
    """Commits may still fit; the next one has it all."""
    world = stories.a_day()
    store = SqliteStore(path)
    term = store.open().term
    store.commit(stories.events(world), term)
    workers = filler(200)[::2]
    store.commit(workers, term)
    connection = store._open_connection()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall()
    store.checkpoint()
    assert value(path, "SELECT count(*) FROM checkpoint") == 0
    connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    store.commit(filler(200)[1::2], term)
    store.checkpoint()
    assert value(path, "SELECT count(*) FROM checkpoint") > 5
    store.close()
    assert digest(store.open().state) == digest(world.state)
    store.close()


def test_old_records_stay_where_the_disk_is_too_full_to_let_them_go(path):
    """That takes room first, for what history keeps of them; commits may still fit."""
    world = stories.a_day()
    store = SqliteStore(path, NOTHING)
    term = store.open().term
    store.commit(stories.events(world), term)
    store.checkpoint()
    connection = store._open_connection()
    connection.execute(
        "CREATE TRIGGER fills BEFORE DELETE ON journal "
        "BEGIN INSERT OR REPLACE INTO history_spec VALUES (-1, 0, zeroblob(10000000)); END"
    )
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 20}").fetchall()
    store.keep_up()
    assert value(path, "SELECT min(seq) FROM journal") == 1
    store.commit(filler(2), term)
    connection.execute("DROP TRIGGER fills")
    connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    store.keep_up()
    assert value(path, "SELECT min(seq) FROM journal") > 1
    store.close()


# -- damage -------------------------------------------------------------------------------------------


def spoil(path, statement):
    with raw(path) as connection:
        assert connection.execute(statement).rowcount == 1


DAMAGES = (
    "UPDATE checkpoint SET body = CAST(body || x'00' AS BLOB) WHERE kind = 'run'",
    "UPDATE checkpoint SET seal = zeroblob(32) WHERE kind = 'worker' AND id = 'w1'",
    "DELETE FROM checkpoint WHERE kind = 'key' AND id = 'key-run1'",
    "DELETE FROM checkpoint WHERE kind = 'head'",
)


@pytest.mark.parametrize("statement", DAMAGES)
def test_a_damaged_checkpoint_is_no_loss_while_the_journal_is_whole(path, statement):
    """It comes to the same, provably; the checkpoint is written anew, and it is said."""
    world = stories.a_day()
    store = SqliteStore(path)
    store.commit(stories.events(world), store.open().term)
    store.checkpoint()
    store.close()
    spoil(path, statement)
    found = store.open()
    assert digest(found.state) == digest(world.state)
    assert "checkpoint" in found.note
    store.close()
    found = store.open()
    assert (found.note, digest(found.state)) == ("", digest(world.state))
    store.close()


@pytest.mark.parametrize("statement", DAMAGES)
def test_a_damaged_checkpoint_is_never_believed(path, pruned, statement):
    """Without the records that it stands for, nothing can be made good."""
    assert pruned
    spoil(path, statement)
    before = path.read_bytes()
    with pytest.raises(JournalDamaged) as caught:
        SqliteStore(path).open()
    assert caught.value.last_good_seq == 0
    assert path.read_bytes() == before


def test_old_records_that_are_missing_are_said_and_no_loss(path, pruned):
    """No start needs them; where the journal begins is noted anew, so that it goes on shrinking."""
    spoil(path, "DELETE FROM checkpoint WHERE kind = 'base'")
    with contextlib.closing(SqliteStore(path)) as raised:
        found = raised.open()
    assert digest(found.state) == pruned
    assert "no start needs them" in found.note
    store = SqliteStore(path, NOTHING)
    assert store.open().note == ""
    store.commit(filler(20), 3)
    store.checkpoint()
    store.tidy()
    assert value(path, "SELECT min(seq) FROM journal") > store._seq - 6
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM journal WHERE seq = (SELECT max(seq) FROM journal)",
        "UPDATE journal SET chain = zeroblob(32) WHERE seq = (SELECT max(seq) FROM journal)",
    ],
)
def test_the_record_that_a_checkpoint_stands_on_must_be_there(path, pruned, statement):
    """A journal that ends before its checkpoint has lost something."""
    assert pruned
    last = value(path, "SELECT max(seq) FROM journal")
    spoil(path, statement)
    with pytest.raises(JournalDamaged) as caught:
        SqliteStore(path).open()
    assert caught.value.last_good_seq == last


def test_a_run_whose_acceptance_is_damaged_is_not_made_up(path, pruned):
    """It is live, and its record has moved to where what was submitted is kept."""
    assert pruned
    with raw(path) as connection:
        moved = connection.execute(
            "UPDATE history_spec SET body = CAST(body || x'00' AS BLOB) "
            "WHERE run_seq = (SELECT seq FROM history_run WHERE run_id = 'run4')"
        ).rowcount
        if not moved:
            connection.execute(
                "UPDATE journal SET body = CAST(body || x'00' AS BLOB) "
                "WHERE seq = (SELECT seq FROM history_run WHERE run_id = 'run4')"
            )
    with pytest.raises(JournalDamaged, match="accepted a run"):
        SqliteStore(path).open()


@pytest.mark.parametrize(
    ("statement", "ask"),
    [
        ("UPDATE history_run SET state = 'FAILED' WHERE run_id = 'run1'", "run"),
        ("UPDATE history_job SET exit_code = 0 WHERE job_id = 'PULL' AND exit_code = 3", "job"),
        ("DELETE FROM history_job WHERE job_id = 'PULL' AND exit_code = 3", "job"),
        ("UPDATE history_attempt SET stdout_bytes = 8 WHERE stdout_bytes = 7", "attempts"),
        (("UPDATE history_spec SET body = CAST(body || x'00' AS BLOB) WHERE run_seq = "
         "(SELECT seq FROM history_run WHERE run_id = 'run1')"), "spec"),
    ],
)  # fmt: skip
def test_damage_to_history_gives_no_answer_rather_than_a_wrong_one(path, pruned, statement, ask):
    """The row's own checksum, or the jobs that a run must have."""
    assert pruned
    spoil(path, statement)
    store = SqliteStore(path)
    store.open()
    asks = {
        "run": lambda: store.run("run1"),
        "job": lambda: store.job("run2", "PULL"),
        "attempts": lambda: store.attempts("run1", "PULL"),
        "spec": lambda: store.spec("run1"),
    }
    with pytest.raises(HistoryDamaged):
        asks[ask]()
    store.close()


# -- killed while it recovers ----------------------------------------------------------------------------


def test_a_recovery_that_is_broken_off_is_as_if_it_had_not_begun(path, pruned, monkeypatch):
    """At the last moment, again and again: same state, and the term only ever grows."""
    terms = []
    for _ in range(3):
        store = SqliteStore(path)
        with monkeypatch.context() as patch:
            patch.setattr(sqlite_module, "migrate", _fail)
            with pytest.raises(StoreError):
                store.open()
        found = SqliteStore(path)
        again = found.open()
        terms.append(again.term)
        assert digest(again.state) == pruned
        found._let_go()  # as if killed: nothing is tidied
    assert terms == sorted(set(terms))


def _fail(_connection):
    raise sqlite3.OperationalError("killed here")


# -- time ---------------------------------------------------------------------------------------------------


def test_ten_thousand_live_jobs_are_back_in_two_seconds(path, capsys):
    """From a checkpoint: half of them have run, the rest wait; three times as long under load."""
    world = World({"w1": 4})
    term = None
    store = SqliteStore(path)
    term = store.open().term
    for number in range(10):
        name = f"r{number}"
        world.submit(run(name, *(job(f"j{n}") for n in range(1_000))), run_id=name)
    store.commit(stories.events(world), term)
    store.checkpoint()
    store.close()
    started = time.perf_counter()
    with contextlib.closing(SqliteStore(path)) as again:
        state = again.open().state
        took_s = time.perf_counter() - started
    assert digest(state) == digest(world.state)
    with capsys.disabled():
        print(f" [10,000 live jobs recovered in {took_s:.2f} s] ", end="")
    assert took_s <= RECOVERY_S * UNDER_LOAD
