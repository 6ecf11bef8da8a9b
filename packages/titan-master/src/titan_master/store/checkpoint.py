"""State ⇄ rows: what the journal came to, kept per aggregate so that its records may go. Pure.

The store folds a state of its own from the records that are durable (`Shadow`), never from the
engine's, which is ahead of the disk; so a checkpoint is the fold of a journal by construction. The
shadow notes which aggregates each event touched, by the names that the event itself carries. A
checkpoint rewrites the rows of those alone: what it costs follows what has happened, not what there
is. A run is one row and one more for each `JOBS_PER_ROW` of its jobs of which any has been touched;
its first state is derived from the event that accepted it, as in any other fold.

What is a state's and durable is encoded field by field of the structs, so that a field that is added
there is in the next checkpoint; what is derived is left out and made anew. Called by the stores, on
their writer's thread.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, ClassVar, Final, NamedTuple, cast

import msgspec
from msgspec import Struct

from titan_master.core.apply import apply, derive, expired_keys
from titan_master.core.events import (
    AnyEvent,
    PoisonRemembered,
    RunAccepted,
    ServiceAdded,
    SiblingDismissed,
    SpawnAsked,
    SpawnSettled,
    WorkerLost,
    WorkerRetired,
)
from titan_master.core.state import (
    Job,
    KeyRecord,
    Run,
    Schedule,
    Service,
    Spawn,
    State,
    WorkerInfo,
)
from titan_master.store.base import JournalDamaged
from titan_master.store.codec import JOURNAL_FORMAT, check_format
from titan_proto.messages import ScalingChange
from titan_proto.specs import JobSpec, RunSpec

JOBS_PER_ROW: Final = 64
"""So many jobs of a run share a row; one of them touched, all are written anew."""

HEAD: Final = "head"
BASE: Final = "base"
RUN: Final = "run"
JOBS: Final = "jobs"
WORKER: Final = "worker"
SERVICE: Final = "service"
KEY: Final = "key"
SLUG: Final = "slug"
POISON: Final = "poison"
SPAWN: Final = "spawn"
SCALINGS: Final = "scalings"
SCHEDULE: Final = "schedule"

AGGREGATES: Final = frozenset(
    {
        *("runs", "workers", "services", "keys", "slugs", "poison", "schedules"),
        *("spawns", "scalings"),
    }
)
"""Fields of State that have rows of their own; what is neither here nor derived is in the head."""
DERIVED: Final = {
    State: frozenset(
        {
            "aliases",
            "names",
            "workspaces",
            "counts",
            "queue",
            "gates",
            "instances",
            "groups",
            "seats",
            "neighbours",
            "siblings",
            "observer",
        }
    ),
    Run: frozenset(
        {
            "jobs",
            "order",
            "children",
            "counts",
            "remaining",
            "outputs_bytes",
            "skills",
            "layers",
            "params",
            "is_tied",
        }
    ),
    Job: frozenset({"spec", "run_id", "index", "waiting", "layers", "shape"}),
}
"""Fields that `derive`, or the event that accepted the run, gives back."""

_SCALINGS_BY: Final = frozenset(
    {SpawnAsked, SpawnSettled, SiblingDismissed, WorkerLost, WorkerRetired}
)
"""Events that may add to the last of what became of spawned workers."""

Address = tuple[str, str]
"""A row's kind and id."""

Upcaster = Callable[[str, Any], Any]

UPCASTERS: Final[dict[int, Upcaster]] = {1: lambda _kind, value: value}
"""By the journal's format under which a row was written, each to the next one: from the row's kind
and the plain value in its body to the value that takes its place. A field that was only added needs
a default, and nothing here."""


def is_part_of(address: Address, whole: Address) -> bool:
    """Whether a row goes when another is dropped: a run takes the rows of its jobs along."""
    return whole[0] == RUN and address[0] == JOBS and address[1].startswith(f"{whole[1]}/")


class Row(NamedTuple):
    """A part of a checkpoint as it lies there."""

    kind: str
    id: str
    seq: int
    """The record at which the row was written."""
    body: bytes
    seal: bytes


class CheckpointDamaged(JournalDamaged):
    """A row is not what was written, or one is missing: nothing of the checkpoint is believed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the checkpoint is damaged: {reason}", 0)


# -- what rows hold -------------------------------------------------------------------------------
def _durable(kind: type[Struct], name: str, left_out: frozenset[str]) -> type[Struct]:
    """A struct of the fields of another one that are not derived, each with its type."""
    kept: list[Any] = []
    for field in msgspec.structs.fields(kind):
        if field.name in left_out:
            continue
        if field.required:
            kept.append((field.name, field.type))
        elif field.default is not msgspec.NODEFAULT:
            kept.append((field.name, field.type, msgspec.field(default=field.default)))
        else:
            kept.append(
                (field.name, field.type, msgspec.field(default_factory=field.default_factory))
            )
    return msgspec.defstruct(name, kept, frozen=True, kw_only=True, omit_defaults=True)


_Scalars: Final = _durable(State, "Scalars", DERIVED[State] | AGGREGATES)
_RunFields: Final = _durable(Run, "RunFields", DERIVED[Run])
_JobFields: Final = _durable(Job, "JobFields", DERIVED[Job])


class Head(Struct, frozen=True, kw_only=True):
    """The row that all others hang on: where the checkpoint stands, and what all rows come to."""

    format: int
    """Of the journal, and so of the state, when this was written."""
    seq: int
    term: int
    chain: bytes
    at_ms: int
    """The last four are the record's that this is the fold of."""
    rows: int
    total: bytes
    """The sum of their seals: a row that is missing, or older than it should be, changes it."""
    state: msgspec.Raw


class _RunRow(Struct, frozen=True, kw_only=True):
    place: int
    """The record that accepted the run."""
    crc: int
    """Of its body."""
    queued_seq: int
    """The state's, before that record."""
    fields: msgspec.Raw
    gates_opened: int = 0
    """Likewise: some of its gates may have been open from the beginning."""


class _Placed(Struct, frozen=True, array_like=True):
    """A thing, and the record that brought it: things are kept in that order."""

    place: int
    value: msgspec.Raw


class _ServiceRow(Struct, frozen=True, array_like=True):
    place: int
    run_place: int
    value: Service


_ENCODER: Final = msgspec.msgpack.Encoder()


class Acceptance(NamedTuple):
    """What a run's first state is made from."""

    place: int
    crc: int
    queued_seq: int
    gates_opened: int


# -- seals ----------------------------------------------------------------------------------------
_LENGTHS: Final = struct.Struct(">HHQ")
_TYPES: Final = (str, str, int, bytes, bytes)
_MODULUS: Final = 1 << 256


def _seal(kind: str, row_id: str, seq: int, body: bytes) -> bytes:
    name, key = kind.encode(), row_id.encode()
    digest = hashlib.sha256(_LENGTHS.pack(len(name), len(key), seq))
    digest.update(name)
    digest.update(key)
    digest.update(body)
    return digest.digest()


def row(kind: str, row_id: str, seq: int, body: bytes) -> Row:
    """A row with its seal."""
    return Row(kind, row_id, seq, body, _seal(kind, row_id, seq, body))


def check_seal(found: Row) -> None:
    """Compare a row with its seal. Raises CheckpointDamaged."""
    try:
        # A flipped bit in the head of a row may make of any column something else.
        is_row = tuple(map(type, found)) == _TYPES
        seal = _seal(*found[:4]) if is_row else b""
    except struct.error:
        seal = b""
    if not seal or seal != found.seal:
        raise CheckpointDamaged(f"its row {found.kind} {found.id!r} fails its checksum")


class Total:
    """The rows of a checkpoint taken together, kept in step with what is put and dropped."""

    def __init__(self, rows: int = 0, total: bytes = b"") -> None:
        self.rows = rows
        self._sum = int.from_bytes(total, "big")

    def copy(self) -> Total:
        return Total(self.rows, self.to_bytes())

    def add(self, seal: bytes) -> None:
        self.rows += 1
        self._sum = (self._sum + int.from_bytes(seal, "big")) % _MODULUS

    def remove(self, seal: bytes) -> None:
        self.rows -= 1
        self._sum = (self._sum - int.from_bytes(seal, "big")) % _MODULUS

    def to_bytes(self) -> bytes:
        return self._sum.to_bytes(32, "big")


# -- the store's own state ------------------------------------------------------------------------
class Shadow:
    """The state at the journal's durable end, and what has changed since the last checkpoint."""

    def __init__(self) -> None:
        self.state = State()
        self.seq = 0
        self.term = 0
        self.chain = b""
        self.at_ms = 0
        self.accepted: dict[str, Acceptance] = {}
        """Of the runs that are live, and of those that left a service."""
        self.places: dict[Address, int] = {}
        """Of workers and services: the records that brought them."""
        self.touched: dict[Address, None] = {}
        """Rows to write anew, or to drop where there is nothing any more."""
        self._key_places: dict[str, int] = {}
        """Of the keys that are touched."""

    def fold(self, seq: int, term: int, chain: bytes, crc: int, event: AnyEvent) -> None:
        """Make the next record's event true here, too."""
        if type(event) is RunAccepted:
            self._accept(seq, crc, event)
        else:
            apply(self.state, event)
        self._touch(seq, event)
        self.seq, self.term, self.chain, self.at_ms = seq, term, chain, event.at_ms

    def _accept(self, seq: int, crc: int, event: RunAccepted) -> None:
        state = self.state
        if event.fired is not None:
            self._touch_schedule(seq, event.fired.schedule)
        for key in expired_keys(state, event.at_ms):
            self.touched[KEY, key] = None
        if event.key:
            self.touched[KEY, event.key] = None
            self._key_places[event.key] = seq
        self.touched[SLUG, event.slug] = None
        self.accepted[event.run_id] = Acceptance(seq, crc, state.queued_seq, state.gates_opened)
        apply(state, event, spec_in_steps(event.spec))

    def _touch(self, seq: int, event: AnyEvent) -> None:
        if type(event) is PoisonRemembered:
            self.touched[POISON, event.digest] = None
        elif isinstance(event, SpawnAsked | SpawnSettled):
            self.touched[SPAWN, str(event.number)] = None
        if type(event) in _SCALINGS_BY:
            self.touched[SCALINGS, ""] = None
        schedule = getattr(event, "schedule", "")
        if schedule:
            self._touch_schedule(seq, schedule)
        worker_id = getattr(event, "worker_id", None)
        if worker_id is not None:
            is_there = worker_id in self.state.workers
            self._touch_placed(seq, (WORKER, worker_id), is_there=is_there)
        run_id = getattr(event, "run_id", None)
        if run_id is None:
            return
        self.touched[RUN, run_id] = None
        job_id = getattr(event, "job_id", None)
        job_ids = getattr(event, "job_ids", ()) if job_id is None else (job_id,)
        run = self.state.runs.get(run_id)
        for name in job_ids:
            # An instance of a service beside the first is no job of the run.
            if run is not None and name in run.jobs:
                self.touched[JOBS, _jobs_id(run_id, run.jobs[name].index // JOBS_PER_ROW)] = None
        if job_id is not None:
            is_up = (run_id, job_id) in self.state.services
            self._touch_placed(seq, (SERVICE, f"{run_id}/{job_id}"), is_there=is_up)
        if type(event) is ServiceAdded:
            # Every instance of its job keeps the number that was given last.
            for run_of, name in self.state.services:
                if run_of == run_id:
                    self.touched[SERVICE, f"{run_of}/{name}"] = None
        if run is None and not self._left_service(run_id):
            self.accepted.pop(run_id, None)

    def _touch_schedule(self, seq: int, name: str) -> None:
        self._touch_placed(seq, (SCHEDULE, name), is_there=name in self.state.schedules)

    def _touch_placed(self, seq: int, address: Address, *, is_there: bool) -> None:
        if is_there:
            self.places.setdefault(address, seq)
            self.touched[address] = None
        elif self.places.pop(address, None) is not None:
            self.touched[address] = None

    def _left_service(self, run_id: str) -> bool:
        return any(run == run_id for run, _ in self.state.services)

    # -- rows out ---------------------------------------------------------------------------------

    def touch_all(self) -> None:
        """The next checkpoint is whole: nothing that lies there is to be kept."""
        state = self.state
        # There are never more keys than records, so these come before all that follow.
        self._key_places = {key: place for place, key in enumerate(state.keys)}
        self.touched = dict.fromkeys((KEY, key) for key in state.keys)
        self.touched.update(dict.fromkeys((SLUG, slug) for slug in state.slugs))
        self.touched.update(dict.fromkeys((POISON, digest) for digest in state.poison))
        self.touched.update(dict.fromkeys((SPAWN, str(number)) for number in state.spawns))
        self.touched[SCALINGS, ""] = None
        self.touched.update(dict.fromkeys(self.places))
        for run in state.runs.values():
            self.touched[RUN, run.run_id] = None
            for start in range(0, len(run.order), JOBS_PER_ROW):
                self.touched[JOBS, _jobs_id(run.run_id, start // JOBS_PER_ROW)] = None

    def changes(self) -> tuple[list[Row], list[Address]]:
        """The rows to put, and the addresses to drop; a run that is dropped takes its jobs' along."""
        puts: list[Row] = []
        drops: list[Address] = []
        for kind, row_id in self.touched:
            body = self.BODIES[kind](self, row_id)
            if body is not None:
                puts.append(row(kind, row_id, self.seq, body))
            elif kind != JOBS:
                drops.append((kind, row_id))
        return puts, drops

    def head(self, total: Total, written: int) -> Row:
        """The row that goes with `changes`, once `total` has them."""
        head = Head(
            format=written,
            seq=self.seq,
            term=self.term,
            chain=self.chain,
            at_ms=self.at_ms,
            rows=total.rows,
            total=total.to_bytes(),
            state=_raw(_Scalars(**_values(self.state, _Scalars))),
        )
        return row(HEAD, "", self.seq, _ENCODER.encode(head))

    def settled(self) -> None:
        """What was touched is written."""
        self.touched.clear()
        self._key_places.clear()

    def _run_body(self, run_id: str) -> bytes | None:
        run = self.state.runs.get(run_id)
        if run is None:
            return None
        found = self.accepted[run_id]
        fields = _raw(_RunFields(**_values(run, _RunFields)))
        return _ENCODER.encode(
            _RunRow(
                place=found.place,
                crc=found.crc,
                queued_seq=found.queued_seq,
                fields=fields,
                gates_opened=found.gates_opened,
            )
        )

    def _jobs_body(self, row_id: str) -> bytes | None:
        run_id, _, number = row_id.partition("/")
        run = self.state.runs.get(run_id)
        if run is None:
            return None
        start = int(number) * JOBS_PER_ROW
        return _ENCODER.encode(
            [_JOB_ROW(job) for job in run.order[start : start + JOBS_PER_ROW]],
        )

    def _worker_body(self, worker_id: str) -> bytes | None:
        worker = self.state.workers.get(worker_id)
        if worker is None:
            return None
        return _ENCODER.encode(_Placed(self.places[WORKER, worker_id], _raw(worker)))

    def _service_body(self, row_id: str) -> bytes | None:
        run_id, _, job_id = row_id.partition("/")
        service = self.state.services.get((run_id, job_id))
        if service is None:
            return None
        place = self.places[SERVICE, row_id]
        return _ENCODER.encode(_ServiceRow(place, self.accepted[run_id].place, service))

    def _key_body(self, key: str) -> bytes | None:
        record = self.state.keys.get(key)
        if record is None:
            return None
        return _ENCODER.encode(_Placed(self._key_places[key], _raw(record)))

    def _slug_body(self, slug: str) -> bytes | None:
        return _ENCODER.encode(self.state.slugs[slug])

    def _schedule_body(self, name: str) -> bytes | None:
        schedule = self.state.schedules.get(name)
        if schedule is None:
            return None
        return _ENCODER.encode(_Placed(self.places[SCHEDULE, name], _raw(schedule)))

    def _poison_body(self, digest: str) -> bytes | None:
        return _ENCODER.encode(self.state.poison[digest])

    def _spawn_body(self, number: str) -> bytes | None:
        spawn = self.state.spawns.get(int(number))
        return None if spawn is None else _ENCODER.encode(spawn)

    def _scalings_body(self, _: str) -> bytes | None:
        scalings = self.state.scalings
        return _ENCODER.encode(scalings) if scalings else None

    BODIES: ClassVar[dict[str, Callable[[Shadow, str], bytes | None]]] = {
        RUN: _run_body,
        JOBS: _jobs_body,
        WORKER: _worker_body,
        SERVICE: _service_body,
        KEY: _key_body,
        SLUG: _slug_body,
        POISON: _poison_body,
        SPAWN: _spawn_body,
        SCALINGS: _scalings_body,
        SCHEDULE: _schedule_body,
    }
    """What a row of each kind holds; None where there is nothing any more."""


def _jobs_id(run_id: str, number: int) -> str:
    return f"{run_id}/{number:06d}"


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_ENCODER.encode(value))


def _values(source: Struct, kind: type[Struct]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in kind.__struct_fields__}


def _job_row() -> Callable[[Job], Struct]:
    names = _JobFields.__struct_fields__
    values = cast("Callable[[Job], tuple[Any, ...]]", attrgetter(*names))

    def make(job: Job) -> Struct:
        return _JobFields(**dict(zip(names, values(job), strict=True)))

    return make


_JOB_ROW: Final = _job_row()


# -- rows in --------------------------------------------------------------------------------------
class Loaded(NamedTuple):
    """A checkpoint that was read."""

    shadow: Shadow
    head: Head
    total: Total


def load(rows: Iterable[Row], accepted: Callable[[int, int], RunAccepted]) -> Loaded | None:
    """The shadow at the checkpoint's record; None where there is no checkpoint.

    Args:
        rows: all of them but the base, in any order; each is compared with its seal, all together
            with the head.
        accepted: the event of the record at a place, whose body has that CRC.

    Raises CheckpointDamaged.
    """
    found: dict[str, list[Row]] = {kind: [] for kind in (HEAD, *Shadow.BODIES)}
    total = Total()
    for one in rows:
        check_seal(one)
        if one.kind not in found:
            raise CheckpointDamaged(f"nobody knows rows of the kind {one.kind!r}")
        found[one.kind].append(one)
        if one.kind != HEAD:
            total.add(one.seal)
    if not found[HEAD]:
        if total.rows:
            raise CheckpointDamaged("its head is missing")
        return None
    try:
        head = msgspec.msgpack.decode(found[HEAD][0].body, type=Head)
        check_format(head.format)
        if (head.rows, head.total) != (total.rows, total.to_bytes()):
            raise CheckpointDamaged(f"it should have {head.rows} rows and has {total.rows} others")
        if head.format < JOURNAL_FORMAT:
            found = {
                kind: [_raised(one, head.format) for one in some] for kind, some in found.items()
            }
            head = msgspec.msgpack.decode(found[HEAD][0].body, type=Head)
        shadow = _Loading(found, accepted).shadow(head)
    except (msgspec.DecodeError, KeyError, ValueError, TypeError) as error:
        raise CheckpointDamaged(f"it cannot be read: {error}") from error
    return Loaded(shadow, head, total)


def _raised(one: Row, written: int) -> Row:
    """A row of an older format as the present one has it."""
    value = msgspec.msgpack.decode(one.body)
    for number in range(written, JOURNAL_FORMAT):
        value = UPCASTERS[number](one.kind, value)
    return one._replace(body=_ENCODER.encode(value))


class _Loading:
    """Puts a state together from rows whose seals hold."""

    def __init__(
        self, found: dict[str, list[Row]], accepted: Callable[[int, int], RunAccepted]
    ) -> None:
        self._found = found
        self._accepted = accepted
        self._shadow = Shadow()

    def shadow(self, head: Head) -> Shadow:
        shadow, state = self._shadow, self._shadow.state
        shadow.seq, shadow.term = head.seq, head.term
        shadow.chain, shadow.at_ms = head.chain, head.at_ms
        self._runs()
        self._jobs()
        # What accepting the runs anew has left there; the rows have all of it.
        state.keys.clear()
        state.slugs.clear()
        self._workers()
        self._services()
        state.schedules.clear()
        for one in self._in_order(SCHEDULE):
            state.schedules[one.id] = _decode(_placed(one).value, Schedule)
            self._shadow.places[SCHEDULE, one.id] = _placed(one).place
        for key in self._in_order(KEY):
            state.keys[key.id] = _decode(_placed(key).value, KeyRecord)
        for slug in self._found[SLUG]:
            state.slugs[slug.id] = _decode(slug.body, int)
        for poison in self._found[POISON]:
            state.poison[poison.id] = _decode(poison.body, str)
        # In the order in which they were asked for: their numbers grow.
        for spawn in sorted(self._found[SPAWN], key=lambda one: int(one.id)):
            state.spawns[int(spawn.id)] = _decode(spawn.body, Spawn)
        for scalings in self._found[SCALINGS]:
            state.scalings = _decode(scalings.body, tuple[ScalingChange, ...])
        _overlay(state, _decode(head.state, _Scalars))
        derive(state)
        return shadow

    def _runs(self) -> None:
        state = self._shadow.state
        runs = [(_decode(one.body, _RunRow), one.id) for one in self._found[RUN]]
        for found, run_id in sorted(runs, key=lambda pair: pair[0].place):
            event = self._accepted(found.place, found.crc)
            if event.run_id != run_id:
                raise CheckpointDamaged(f"record {found.place} did not accept run {run_id}")
            state.queued_seq, state.gates_opened = found.queued_seq, found.gates_opened
            apply(state, event)
            _overlay(state.runs[run_id], _decode(found.fields, _RunFields))
            self._shadow.accepted[run_id] = Acceptance(
                found.place, found.crc, found.queued_seq, found.gates_opened
            )

    def _jobs(self) -> None:
        kind = msgspec.msgpack.Decoder(list[_JobFields])  # type: ignore[valid-type]
        for one in self._found[JOBS]:
            run_id, _, number = one.id.partition("/")
            start = int(number) * JOBS_PER_ROW
            jobs = self._shadow.state.runs[run_id].order[start : start + JOBS_PER_ROW]
            for job, fields in zip(jobs, kind.decode(one.body), strict=True):
                _overlay(job, fields)

    def _workers(self) -> None:
        for one in self._in_order(WORKER):
            self._shadow.state.workers[one.id] = _decode(_placed(one).value, WorkerInfo)
            self._shadow.places[WORKER, one.id] = _placed(one).place

    def _services(self) -> None:
        state = self._shadow.state
        rows = [(_decode(one.body, _ServiceRow), one.id) for one in self._found[SERVICE]]
        for found, row_id in sorted(rows, key=lambda pair: pair[0].place):
            service = found.value
            run = state.runs.get(service.run_id)
            if run is not None:
                job = run.jobs.get(service.job_id)
                if job is not None and job.attempt is None:
                    raise CheckpointDamaged(f"service {row_id} has no attempt")
                if job is not None and job.attempt is not None:
                    service.attempt = job.attempt
            else:
                # Its run's acceptance is named for history; the run itself has left the state.
                left = Acceptance(found.run_place, 0, 0, 0)
                self._shadow.accepted[service.run_id] = left
            state.services[service.run_id, service.job_id] = service
            self._shadow.places[SERVICE, row_id] = found.place

    def _in_order(self, kind: str) -> Iterator[Row]:
        yield from sorted(self._found[kind], key=lambda one: _placed(one).place)


def _placed(one: Row) -> _Placed:
    return msgspec.msgpack.decode(one.body, type=_Placed)


def _decode(body: bytes | msgspec.Raw, kind: type[Any]) -> Any:
    return msgspec.msgpack.decode(body, type=kind)


def _overlay(target: Struct, fields: Struct) -> None:
    for name in fields.__struct_fields__:
        setattr(target, name, getattr(fields, name))


# -- a run's description ----------------------------------------------------------------------------
class _RawJobs(Struct):
    """A RunSpec's jobs, still bytes."""

    jobs: tuple[msgspec.Raw, ...]


_RAW_JOBS: Final = msgspec.msgpack.Decoder(_RawJobs)
_JOB: Final = msgspec.msgpack.Decoder(JobSpec)
_FRAME: Final = msgspec.msgpack.Decoder(_durable(RunSpec, "Frame", frozenset({"jobs"})))


def spec_in_steps(body: bytes) -> RunSpec:
    """A RunSpec decoded job by job, so that a large one does not hold up the loop's thread."""
    frame = _FRAME.decode(body)
    jobs = tuple(_JOB.decode(job) for job in _RAW_JOBS.decode(body).jobs)
    return RunSpec(jobs=jobs, **_values(frame, type(frame)))
