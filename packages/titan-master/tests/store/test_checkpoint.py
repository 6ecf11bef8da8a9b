"""A checkpoint is the fold of the journal in other words: nothing forgotten, nothing kept too long."""

from __future__ import annotations

from collections import deque

import msgspec
import pytest
import stories
from core_world import World, job, run

from titan_master.core.apply import KEY_REMEMBERED_MS, apply, twin
from titan_master.core.check import check
from titan_master.core.events import PoisonRemembered, SchedulePut, WorkerJoined, WorkerRetired
from titan_master.core.state import Job, Line, ReadyClass, ReadyQueue, Run, State, digest
from titan_master.store import checkpoint, codec
from titan_master.store.base import JournalTooNew
from titan_master.store.checkpoint import CheckpointDamaged, Total, load
from titan_master.store.memory import MemoryStore
from titan_master.store.recovery import blank
from titan_proto.specs import ScheduleSpec

POISON = PoisonRemembered(at_ms=stories.a_day().now_ms, digest="d", what="w")


def committed(events, *, checkpoint_at=()):
    """A memory store that has seen these, one a commit, with checkpoints at those records."""
    store = MemoryStore()
    term = store.open().term
    for seq, event in enumerate(events, 1):
        store.commit((event,), term)
        if seq in checkpoint_at:
            store.checkpoint()
    return store


def rows_of(store):
    return list(store._checkpoint.values())


def loaded(store, rows):
    return load(rows, store._accepted)


# -- nothing is forgotten ---------------------------------------------------------------------------


def test_from_a_checkpoint_at_any_record_comes_the_state_that_comes_from_all():
    """Digest, invariants (the derived parts among them), and the order in which things lie."""
    events = [*stories.events(stories.a_day()), POISON, SCHEDULE]
    straight = committed(events).open().state
    for seq in range(1, len(events) + 1):
        state = committed(events, checkpoint_at={seq}).open().state
        check(state)
        assert digest(state) == digest(straight), f"checkpoint at record {seq}"
        for name in ("runs", "workers", "services", "keys"):
            assert list(getattr(state, name)) == list(getattr(straight, name)), (name, seq)


def test_one_checkpoint_upon_another_comes_to_the_same():
    """Whatever was rewritten, and whatever was left as it lay there."""
    events = stories.events(stories.a_day())
    every = committed(events, checkpoint_at=set(range(len(events) + 1)))
    assert digest(every.open().state) == digest(committed(events).open().state)


def test_what_has_no_rows_of_its_own_is_a_number_or_a_text():
    """The head is written anew each time: a field that grows must become an aggregate."""
    for field in msgspec.structs.fields(checkpoint._Scalars):
        assert field.type in {int, str}, f"State.{field.name} belongs into AGGREGATES or DERIVED"


@pytest.mark.parametrize("kind", [State, Run, Job])
def test_what_is_named_as_derived_exists(kind):
    """A field that was renamed would be in the checkpoint under its new name, and stay out here."""
    named = set(checkpoint.DERIVED[kind]) | (checkpoint.AGGREGATES if kind is State else set())
    assert named <= set(kind.__struct_fields__)


def reached(value, found):
    """Everything that can change, reached from a value."""
    if id(value) in found or value is None:
        return
    if isinstance(value, msgspec.Struct):
        if value.__struct_config__.frozen:
            return
        parts = [getattr(value, name) for name in value.__struct_fields__]
    elif isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, (list, deque, set)):
        parts = list(value)
    elif isinstance(value, (Line, ReadyClass, ReadyQueue)):
        parts = [getattr(value, name) for name in type(value).__slots__]
    else:
        return
    found[id(value)] = value
    for part in parts:
        reached(part, found)


def test_a_twin_is_equal_and_shares_nothing_that_changes():
    """What the core does to the one must never be seen in the other."""
    state = stories.a_day().state
    state.observer = None
    other = twin(state)
    check(other)
    assert digest(other) == digest(state)
    mine, its = {}, {}
    reached(state, mine)
    reached(other, its)
    shared = [value for key, value in mine.items() if key in its]
    assert shared == []
    assert len(its) > 20


def test_a_service_of_a_live_run_and_its_job_have_one_attempt():
    """In the twin, and out of a checkpoint."""
    world = World({"w1": 2})
    world.submit(run("a", job("s", service=True), job("t", "s")), run_id="r")
    world.running("r/s", healthy=True, port=80)
    for state in (world.recovered(), twin(world.state)):
        assert state.services["r", "s"].attempt is state.runs["r"].jobs["s"].attempt


# -- nothing is kept too long -------------------------------------------------------------------------


def changed(store):
    """The rows that the next checkpoint puts and drops, besides the head."""
    shadow = store._shadow
    for record in store._records[shadow.seq :]:
        event = codec.decode(record.body)
        shadow.fold(record.seq, record.term, record.chain, record.crc, event)
    puts, drops = shadow.changes()
    return [(one.kind, one.id) for one in puts], drops


def test_what_is_rewritten_follows_what_has_happened():
    """One job of 10,000 has started: its slice, its run, its worker, and nothing else."""
    world = World({"w1": 1})
    world.submit(run("big", *(job(f"j{n}") for n in range(10_000))), run_id="r")
    world.kept.checkpoint()
    world.running("r/j0")
    puts, drops = changed(world.kept)
    assert sorted(puts) == [("jobs", "r/000000"), ("run", "r")]
    assert drops == []


def test_a_run_that_nobody_has_touched_is_one_row():
    """Its first state is made again from its acceptance."""
    world = World()
    world.submit(run("big", *(job(f"j{n}") for n in range(1_000))), run_id="r")
    world.kept.checkpoint()
    assert [one.id for one in rows_of(world.kept) if one.kind in {"run", "jobs"}] == ["r"]
    assert world.recovered().runs["r"].remaining == 1_000


def test_rows_go_with_what_they_are_about():
    """Of a run that has ended nothing stays but its key and its number; of a worker nothing."""
    world = World({"w1": 1})
    world.submit(run("a", job("x")), run_id="r")
    world.running("r/x")
    world.kept.checkpoint()
    world.ended("r/x")
    world.leave("w1")
    world.kept.checkpoint()
    assert sorted((one.kind, one.id) for one in rows_of(world.kept)) == [
        ("head", ""), ("key", "key-r"), ("slug", "a"),
    ]  # fmt: skip


def test_a_key_that_was_let_go_leaves_the_checkpoint():
    """After a week, with the next run."""
    world = World()
    world.submit(run("a", job("x")), run_id="r1")
    world.kept.checkpoint()
    world.advance(KEY_REMEMBERED_MS + 1)
    world.submit(run("b", job("x")), run_id="r2")
    world.kept.checkpoint()
    assert [one.id for one in rows_of(world.kept) if one.kind == "key"] == ["key-r2"]
    assert list(world.recovered().keys) == ["key-r2"]


def test_a_key_that_is_used_again_moves_to_the_end():
    """Where the oldest are let go from the front."""
    world = World()
    for name in ("r1", "r2"):
        world.submit(run(name, job("x")), run_id=name)
    world.kept.checkpoint()
    world.advance(KEY_REMEMBERED_MS + 1)
    world.submit(run("r3", job("x")), run_id="r3", key="key-r1")
    world.kept.checkpoint()
    assert list(world.recovered().keys) == list(world.state.keys)


def test_the_shadow_remembers_only_what_is_live():
    """Workers and runs that come and go leave nothing behind but the runs' keys."""
    shadow = blank()
    for seq in range(1, 201, 2):
        joined = WorkerJoined(
            at_ms=seq, worker_id=f"w{seq}", host="h", port=seq, incarnation=1, boot_id="b",
            slots=1, skills=(),
        )  # fmt: skip
        shadow.fold(seq, 1, b"", 0, joined)
        shadow.fold(seq + 1, 1, b"", 0, WorkerRetired(at_ms=seq, worker_id=f"w{seq}"))
    shadow.settled()
    assert (shadow.places, shadow.accepted, shadow.touched) == ({}, {}, {})


# -- damage ---------------------------------------------------------------------------------------


SCHEDULE = SchedulePut(
    at_ms=2_000_000,
    schedule="nightly",
    schedule_id="s",
    version=1,
    spec=ScheduleSpec(crons=("@daily",)),
    run=b"run",
    digest="d",
)


@pytest.fixture
def kept():
    """A store with a checkpoint of a day."""
    events = [*stories.events(stories.a_day()), POISON, SCHEDULE]
    return committed(events, checkpoint_at={len(events) // 2, len(events)})


def test_any_flipped_bit_of_a_row_is_seen(kept):
    """Whatever column it is in."""
    rows = rows_of(kept)
    assert {one.kind for one in rows} == {"head", *checkpoint.Shadow.BODIES}
    for place, one in enumerate(rows):
        spoiled = [one._replace(seq=one.seq ^ 1), one._replace(kind=one.kind[:-1] + "x")]
        spoiled.append(one._replace(id=one.id + "x"))
        for at in range(len(one.body)):
            body = bytearray(one.body)
            body[at] ^= 1 << (at % 8)
            spoiled.append(one._replace(body=bytes(body)))
        spoiled.append(one._replace(seal=one.seal[:-1] + bytes((one.seal[-1] ^ 1,))))
        for bad in spoiled:
            with pytest.raises(CheckpointDamaged):
                loaded(kept, [*rows[:place], bad, *rows[place + 1 :]])


def test_a_missing_row_is_seen(kept):
    """Any of them, the head included."""
    rows = rows_of(kept)
    for place in range(len(rows)):
        with pytest.raises(CheckpointDamaged):
            loaded(kept, [*rows[:place], *rows[place + 1 :]])


def test_a_row_that_is_older_than_the_rest_is_seen():
    """It is sound in itself; the head knows what all of them come to."""
    world = World({"w1": 1})
    world.submit(run("a", job("x")), run_id="r")
    world.kept.checkpoint()
    old = next(one for one in rows_of(world.kept) if one.kind == "worker")
    world.running("r/x")
    world.submit(run("b", job("x")), run_id="s")
    world.cut("w1")
    world.advance(60_000)
    world.kept.checkpoint()
    rows = [old if one.kind == "worker" else one for one in rows_of(world.kept)]
    with pytest.raises(CheckpointDamaged, match="rows"):
        loaded(world.kept, rows)


def test_no_rows_are_no_checkpoint():
    """That is where every journal begins."""
    assert loaded(MemoryStore(), []) is None


# -- formats ----------------------------------------------------------------------------------------


def rewritten(store, written, change):
    """The checkpoint as another version would have written it."""
    total = Total()
    rows = []
    for one in rows_of(store):
        if one.kind == "head":
            continue
        value = change(one.kind, msgspec.msgpack.decode(one.body))
        made = checkpoint.row(one.kind, one.id, one.seq, msgspec.msgpack.encode(value))
        total.add(made.seal)
        rows.append(made)
    return [*rows, store._shadow.head(total, written)]


def test_rows_of_an_older_format_are_raised(kept, monkeypatch):
    """A made-up one, in which a slug's number was written as text."""

    def raise_slug(kind, value):
        return int(value) if kind == "slug" else value

    monkeypatch.setitem(checkpoint.UPCASTERS, 0, raise_slug)
    rows = rewritten(kept, 0, lambda kind, value: str(value) if kind == "slug" else value)
    found = loaded(kept, rows)
    assert digest(found.shadow.state) == digest(kept.open().state)


def test_rows_of_a_newer_format_are_refused(kept):
    """With what to do about it."""
    rows = rewritten(kept, codec.JOURNAL_FORMAT + 1, lambda _kind, value: value)
    with pytest.raises(JournalTooNew, match="install"):
        loaded(kept, rows)


def test_every_format_has_a_way_up():
    """From each that was ever released to the present one, for events and for rows."""
    older = set(range(1, codec.JOURNAL_FORMAT))
    assert set(codec.UPCASTERS) == set(checkpoint.UPCASTERS) == older


def test_a_spec_decoded_in_steps_is_the_same():
    """Every field of it, whatever is added."""
    spec = run("a", job("x"), job("y", "x", priority=7))
    body = msgspec.msgpack.encode(spec)
    assert checkpoint.spec_in_steps(body) == spec


def test_a_fold_goes_on_from_a_checkpoint_as_from_the_start():
    """The events that follow do not notice."""
    events = stories.events(stories.a_day())
    half = len(events) // 2
    one = committed(events[:half], checkpoint_at={half}).open().state
    other = State()
    for event in events[:half]:
        apply(other, event)
    for event in events[half:]:
        apply(one, event)
        apply(other, event)
        assert digest(one) == digest(other)
    check(one)


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("kind", None),
        ("id", 7),
        ("seq", None),
        ("seq", "1"),
        ("seq", -1),
        ("body", "x"),
        ("seal", 1),
    ],
)
def test_a_row_whose_column_has_become_something_else_is_damage(column, other):
    """A flipped bit in the head of a row makes a number a text, or nothing at all."""
    row = checkpoint.row("run", "r", 7, b"body")
    checkpoint.check_seal(row)
    with pytest.raises(CheckpointDamaged):
        checkpoint.check_seal(row._replace(**{column: other}))
