"""What a worker remembers, and what it does when its memory is damaged."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.apply import apply
from titan_worker.core.inputs import LinkDown, Started
from titan_worker.core.records import (
    AttemptClosed,
    AttemptForgotten,
    AttemptHeld,
    AttemptSpawned,
    AttemptStopping,
    ClusterBound,
)
from titan_worker.core.state import WorkerState, digest
from titan_worker.ledger import Ledger

BOOT = "boot"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def opened():
    """Opens ledgers and closes every one of them at the end."""
    ledgers = []
    ids = (f"worker-{number}" for number in range(1, 100))

    def open_ledger(path):
        ledgers.append(Ledger.open(path, lambda: next(ids), BOOT))
        return ledgers[-1]

    yield open_ledger
    for ledger in ledgers:
        ledger.close()


def tamper(path, *statements):
    """Change a closed ledger behind its back."""
    database = sqlite3.connect(path)
    with database:
        for statement in statements:
            database.execute(statement)
    database.close()


def rows(path):
    database = sqlite3.connect(path)
    (count,) = database.execute("SELECT count(*) FROM record").fetchone()
    database.close()
    return count


def history(world):
    """A little of everything: bound, one attempt ended, one that runs."""
    return [
        ClusterBound(cluster_id="c1", term=1),
        AttemptHeld(order=world.order("a"), at_ms=1),
        AttemptHeld(order=world.order("b"), at_ms=2),
        AttemptSpawned(ref=world.ref("a"), pid=5, start_ticks=6, at_ms=3),
        AttemptSpawned(ref=world.ref("b"), pid=7, start_ticks=8, at_ms=4),
        AttemptClosed(report=world.ended("a", ExitReason.EXITED, ended_at_ms=9)),
    ]


def written(path, world, opened):
    """A closed ledger at `path` with `history` in it."""
    ledger = opened(path)
    ledger.commit(history(world))
    ledger.close()
    return ledger.worker_id


# -- identity ---------------------------------------------------------------------------------------
def test_a_worker_keeps_its_id_and_each_process_is_a_new_incarnation(path, opened):
    first = opened(path)
    assert (first.worker_id, first.incarnation, first.boot_id) == ("worker-1", 1, "")
    first.note_boot("boot-1")
    first.close()
    second = opened(path)
    assert (second.worker_id, second.incarnation, second.boot_id) == ("worker-1", 2, "boot-1")
    assert second.moved_aside is None


def test_an_incarnation_is_used_up_by_being_opened(path, opened):
    """Whatever happens to this process next, no other may show the same number."""
    for expected in (1, 2, 3):
        ledger = opened(path)
        assert ledger.incarnation == expected
        ledger.close()


def test_nobody_else_may_read_the_environments_of_jobs(path, opened, world):
    ledger = opened(path)
    ledger.commit(history(world))
    files = list(path.parent.iterdir())
    assert len(files) >= 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


# -- records ----------------------------------------------------------------------------------------
def test_what_was_committed_is_there_in_the_next_process(path, opened, world):
    state = WorkerState()
    for record in history(world):
        apply(state, record)
    written(path, world, opened)
    assert digest(opened(path).load()) == digest(state)


def test_attempts_keep_their_order(path, opened, world):
    ledger = opened(path)
    ledger.commit([ClusterBound(cluster_id="c1", term=1)])
    for name in ("z", "a", "m"):
        ledger.commit([AttemptHeld(order=world.order(name), at_ms=1)])
    ledger.close()
    assert [ref.job_id for ref in opened(path).load().held] == ["z", "a", "m"]


def test_what_is_forgotten_leaves_no_row(path, opened, world):
    ledger = opened(path)
    ledger.commit(history(world))
    ledger.commit([AttemptForgotten(ref=world.ref("a"))])
    ledger.commit(
        [
            AttemptClosed(report=world.ended("b", ExitReason.EXITED, ended_at_ms=9)),
            AttemptForgotten(ref=world.ref("b")),
        ]
    )
    for term in range(2, 9):
        ledger.commit([ClusterBound(cluster_id="c1", term=term)])
    ledger.close()
    assert rows(path) == 1
    state = opened(path).load()
    assert (state.cluster_id, state.term, state.held) == ("c1", 8, {})


def test_a_new_term_does_not_estrange_what_is_held(path, opened, world):
    ledger = opened(path)
    ledger.commit(history(world))
    ledger.commit([ClusterBound(cluster_id="c1", term=2)])
    ledger.close()
    state = opened(path).load()
    assert state.term == 2
    assert [held.foreign for held in state.held.values()] == [False, False]


def test_what_was_held_for_another_cluster_stays_foreign(path, opened, world):
    ledger = opened(path)
    ledger.commit(history(world))
    ledger.commit([ClusterBound(cluster_id="c2", term=1)])
    ledger.commit([AttemptHeld(order=world.order("new"), at_ms=5)])
    ledger.commit([ClusterBound(cluster_id="c2", term=2)])
    ledger.close()
    state = opened(path).load()
    foreign = {ref.job_id: held.foreign for ref, held in state.held.items()}
    assert foreign == {"a": True, "b": True, "new": False}


def test_a_core_fed_from_the_ledger_goes_on_where_the_last_one_stopped(path, opened, world):
    """Every turn of a life with all kinds of records reads back as the live state."""
    ledger = opened(path)

    def turn(*items):
        ledger.commit(world.turn(*items).records)
        assert digest(ledger.load()) == digest(world.core.state)

    turn(Started(boot_id="boot"))
    turn(world.link_up())
    turn(world.joined())
    turn(world.start(*(world.order(name) for name in "abcd")))
    turn(world.ready("a"), world.ready("b"), world.ready("c"))
    turn(world.spawned("a"), world.spawned("b"))
    turn(world.stop("a", "c"), world.exited("b"))
    turn(LinkDown())
    turn(world.link_up(term=2))
    turn(world.joined(term=2, forget=[world.ref("b")]))
    turn(world.exited("a", signal=15))
    turn(world.acks("a", "c"))
    turn(world.link_up(cluster="c2"))
    turn(world.joined())
    turn(world.link_up(cluster="c1", term=2))


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(("hold", "spawn", "stop", "close", "forget", "term", "cluster")),
            st.sampled_from("abc"),
        ),
        max_size=25,
    ),
    per_commit=st.integers(1, 4),
)
def test_any_history_reads_back_as_its_fold(new_world, steps, per_commit):
    state, records = WorkerState(), []
    for step in [("cluster", "a"), *steps]:
        record = next_record(new_world, state, *step)
        if record is not None:
            apply(state, record)
            records.append(record)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.open(Path(folder) / "ledger.sqlite", lambda: "w", BOOT)
        for start in range(0, len(records), per_commit):
            ledger.commit(records[start : start + per_commit])
        ledger.close()
        again = Ledger.open(Path(folder) / "ledger.sqlite", lambda: "other", BOOT)
        assert again.worker_id == "w"
        assert digest(again.load()) == digest(state)
        assert list(again.load().held) == list(state.held)
        again.close()


def next_record(w, state, step, name):
    """The record of `step` where the state allows it, else None."""
    ref, held = w.ref(name), state.held.get(w.ref(name))
    at = held.state if held else None
    if step == "term":
        return ClusterBound(cluster_id=state.cluster_id, term=state.term + 1)
    if step == "cluster":
        return ClusterBound(cluster_id=f"c{name}", term=max(state.term, 1))
    if step == "hold" and held is None:
        return AttemptHeld(order=w.order(name), at_ms=1)
    if step == "spawn" and at in {AttemptState.PREPARING, AttemptState.STOPPING} and not held.pid:
        return AttemptSpawned(ref=ref, pid=3, start_ticks=4, at_ms=2)
    if step == "stop" and at in {AttemptState.PREPARING, AttemptState.RUNNING}:
        return AttemptStopping(ref=ref, reason=ExitReason.STOPPED, at_ms=3)
    if step == "close" and at not in {None, AttemptState.ENDED}:
        return AttemptClosed(report=w.ended(name, ExitReason.EXITED, ended_at_ms=4))
    if step == "forget" and (at is AttemptState.ENDED or (held is not None and held.foreign)):
        return AttemptForgotten(ref=ref)
    return None


PROGRAM = """
import os, signal, sys
from pathlib import Path
from titan_worker.core.records import ClusterBound
from titan_worker.ledger import Ledger
ledger = Ledger.open(Path(sys.argv[1]), lambda: "w", "boot")
for term in range(1, 400):
    ledger.commit([ClusterBound(cluster_id="c1", term=term)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_nothing_that_it_committed(path, opened):
    killed = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=30,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    ledger = opened(path)
    assert (ledger.worker_id, ledger.incarnation, ledger.load().term) == ("w", 2, 399)


# -- damage -----------------------------------------------------------------------------------------
DAMAGE = {
    "a flipped byte in a record": "UPDATE record SET body = x'90' WHERE seq = 2",
    "a wrong checksum": "UPDATE record SET crc = crc + 1 WHERE seq = 2",
    "a record of the wrong kind of value": "UPDATE record SET body = 'text' WHERE seq = 2",
    "a record in another's place": "UPDATE record SET seq = 99 WHERE seq = 2",
    "a record that is missing": "DELETE FROM record WHERE seq = 2",
    "another worker's id": "UPDATE identity SET worker_id = 'else'",
    "an incarnation that was turned back": "UPDATE identity SET incarnation = 0",
    "no identity": "DELETE FROM identity",
    "a missing table": "DROP TABLE record",
    "a format of the future": "PRAGMA user_version = 2",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_ledger_is_moved_aside_and_another_worker_begins(path, opened, world, what):
    written(path, world, opened)
    tamper(path, DAMAGE[what])
    ledger = opened(path)
    assert (ledger.worker_id, ledger.incarnation) == ("worker-2", 1)
    assert digest(ledger.load()) == digest(WorkerState())
    assert ledger.moved_aside == path.with_name("ledger.sqlite.damaged-1")
    assert ledger.moved_aside.exists()
    ledger.close()
    again = opened(path)
    assert (again.worker_id, again.incarnation, again.moved_aside) == ("worker-2", 2, None)


@pytest.mark.parametrize("what", ["garbage", "torn", "zeros"])
def test_a_file_that_is_no_database_is_kept_for_people_to_look_at(path, opened, world, what):
    written(path, world, opened)
    content = path.read_bytes()
    spoiled = {
        "garbage": b"not a ledger\n" * 1000,
        "torn": content[: len(content) // 2],
        "zeros": bytes(len(content)),
    }[what]
    path.write_bytes(spoiled)
    ledger = opened(path)
    assert ledger.worker_id == "worker-2"
    assert ledger.moved_aside.read_bytes() == spoiled


@pytest.mark.parametrize("left", ["a part of a page", "a byte", "no journal"])
def test_a_ledger_that_looks_empty_and_is_not_new_is_damaged(path, opened, world, left):
    """SQLite takes these for databases without tables; nobody else begins one here."""
    written(path, world, opened)
    if left == "no journal":
        path.unlink()
        path.with_name("ledger.sqlite-wal").unlink(missing_ok=True)
        database = sqlite3.connect(path)
        database.execute("PRAGMA journal_mode = WAL")
        database.close()
    else:
        path.write_bytes(path.read_bytes()[: 2_000 if left == "a part of a page" else 1])
    ledger = opened(path)
    assert ledger.worker_id == "worker-2"
    assert ledger.moved_aside is not None


DYING = """
import os, signal, sys
from pathlib import Path
from titan_proto.ids import AttemptRef
from titan_proto.messages import AttemptOrder
from titan_proto.specs import JobSpec, Launch
from titan_worker.core.records import AttemptHeld, ClusterBound
from titan_worker.ledger import Ledger
ledger = Ledger.open(Path(sys.argv[1]), lambda: "w", "boot")
ledger.note_boot("boot")
ledger.commit([ClusterBound(cluster_id="c1", term=1)])
for number in range(20):
    spec = JobSpec(id=f"j{number}", launch=Launch(script="a.py"))
    order = AttemptOrder(
        ref=AttemptRef("r" * 16, spec.id, 1), fence=number, spec=spec, run_name="nightly"
    )
    ledger.commit([AttemptHeld(order=order, at_ms=1)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_ledger(path):
    """A ledger of 20 attempts, as kill -9 leaves it: all of it in the write-ahead file."""
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=30,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    return path.with_name("ledger.sqlite-wal")


@pytest.mark.parametrize("harm", ["zeros", "cut", "a flipped bit", "gone"])
def test_a_ledger_that_has_lost_its_end_is_damaged_not_shorter(path, opened, harm):
    """What it had taken would otherwise seem never to have been started, and be run again."""
    journal = killed_ledger(path)
    content = bytearray(journal.read_bytes())
    half = len(content) // 2
    if harm == "zeros":
        content[half:] = bytes(len(content) - half)
    elif harm == "cut":
        del content[half:]
    else:
        content[half] ^= 1
    journal.write_bytes(bytes(content))
    if harm == "gone":
        journal.unlink()

    ledger = opened(path)

    assert ledger.worker_id == "worker-1"
    assert ledger.moved_aside is not None
    ledger.close()
    assert opened(path).moved_aside is None


def test_a_ledger_that_kill_9_left_is_whole(path, opened):
    killed_ledger(path)

    ledger = opened(path)

    assert (ledger.worker_id, len(ledger.load().held)) == ("w", 20)


def test_after_another_boot_a_shorter_ledger_is_what_the_disk_kept(path):
    """Its worker goes on; the master sees the other boot, and counts what is missing as lost."""
    journal = killed_ledger(path)
    journal.write_bytes(journal.read_bytes()[: journal.stat().st_size // 2])

    ledger = Ledger.open(path, lambda: "other", "another boot")

    assert (ledger.worker_id, ledger.boot_id) == ("w", "boot")
    assert 0 < len(ledger.load().held) < 20
    ledger.close()


def test_a_process_that_dies_between_the_mark_and_its_commit_has_lost_nothing(path, opened, world):
    written(path, world, opened)
    ledger = opened(path)
    held = ledger.load().held
    ledger._announce(ledger._sum._replace(rows=ledger._sum.rows + 1))
    ledger._database.close()

    assert opened(path).load().held == held


@pytest.mark.parametrize("left", [b"", b"x", bytes(72)])
def test_without_its_mark_a_ledger_is_believed(path, opened, world, left):
    """An older version wrote none."""
    written(path, world, opened)
    path.with_name("ledger.mark").write_bytes(left)

    assert opened(path).moved_aside is None


def test_damage_twice_keeps_both(path, opened, world):
    for number in (1, 2):
        written(path, world, opened)
        path.write_bytes(b"broken" * 1000)
        ledger = opened(path)
        assert ledger.moved_aside.name == f"ledger.sqlite.damaged-{number}"
        ledger.close()
        path.unlink()


def test_what_was_not_written_back_yet_does_not_haunt_the_next_ledger(path, opened, world):
    """The write-ahead file of a damaged database, beside a new one, would be taken for its own."""
    written(path, world, opened)
    first = opened(path)
    first.commit([ClusterBound(cluster_id="c1", term=2)])
    wal = path.with_name("ledger.sqlite-wal")
    behind = wal.read_bytes()
    first.close()
    path.write_bytes(b"x" * path.stat().st_size)
    wal.write_bytes(behind)
    for expected in (1, 2):
        ledger = opened(path)
        assert (ledger.worker_id, ledger.incarnation) == ("worker-2", expected)
        assert ledger.load().cluster_id == ""
        ledger.close()
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "ledger.mark",
        "ledger.sqlite",
        "ledger.sqlite.damaged-1",
    ]


def test_trouble_with_the_machine_is_not_damage(path, opened):
    """Who cannot read the ledger just now must not become another worker."""
    ledger = opened(path)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        opened(path)
    assert [file.name for file in path.parent.glob("*damaged*")] == []
    ledger.close()
    assert opened(path).incarnation == 2


def test_a_folder_in_the_ledgers_place_is_said_as_it_is(path, opened):
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        opened(path)
    assert path.is_dir()
