"""A small world round the master's core: workers, clients and a clock that tests move by hand.

After every turn it checks all invariants, and that a second state, folded from the turn's encoded
events alone, equals the first. A master that is started again recovers from a checkpoint and the
records behind it. Turns are read as lines of text: see `text`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec
from msgspec.structs import replace

from titan_master.core.apply import apply
from titan_master.core.check import check
from titan_master.core.core import Core, CoreConfig, Turn
from titan_master.core.effects import Reply, Tell
from titan_master.core.events import AnyEvent, AttemptPlaced
from titan_master.core.inputs import (
    Asked,
    ExchangeDropped,
    Heard,
    Input,
    LinkClosed,
    Origin,
    ReportsArrived,
    RunSubmitted,
    ScheduleSubmitted,
    WorkerArrived,
    WorkerHeard,
    WorkerLeft,
)
from titan_master.core.state import State, digest
from titan_master.store.memory import MemoryStore
from titan_proto.ids import AttemptRef
from titan_proto.messages import AttemptOrder, HeldAttempt, Join, Kin, StartAttempts, WorkerStatus
from titan_proto.messages.worker import AttemptReport
from titan_proto.specs import (
    Counted,
    GateSection,
    JobKind,
    JobSpec,
    Launch,
    LaunchKind,
    Needs,
    RunSpec,
    ScheduleSpec,
    ServiceSection,
    Shape,
    Terms,
    Trigger,
)
from titan_proto.states import AttemptState, ExitReason, JobState

START_MS = 1_000_000
CHECKPOINT_EVERY = 3
"""Turns."""
EVENTS = msgspec.msgpack.Decoder(AnyEvent)
LAUNCH = Launch(kind=LaunchKind.SHELL, shell="true")


def job(
    name: str,
    *after: str,
    skills: Sequence[str] = ("GENERAL",),
    slots: int = 1,
    service: bool = False,
    port: int = 0,
    takes: Mapping[str, int] | None = None,
    terms: Mapping[str, Any] | None = None,
    at_ms: int = 0,
    **options: Any,
) -> JobSpec:
    """A job `name` that runs after the others named, takes so much of counted resources, and is placed
    on these terms.
    """
    counted = tuple(Counted(name=name, amount=amount) for name, amount in (takes or {}).items())
    return JobSpec(
        id=name,
        launch=replace(LAUNCH, at_ms=at_ms),
        dependencies=after,
        needs=Needs(
            skills=tuple(skills),
            slots=slots,
            terms=Terms(counted=counted, **(terms or {})) if counted or terms else None,
        ),
        kind=JobKind.SERVICE if service else JobKind.TASK,
        service=ServiceSection(port=port, port_auto=not port) if service else None,
        **options,
    )


def gate(name: str, *after: str, delay_ms: int = 0, at_ms: int = 0, **section: Any) -> JobSpec:
    """A gate `name` that opens after the jobs named."""
    return JobSpec(
        id=name,
        launch=Launch(at_ms=at_ms),
        kind=JobKind.GATE,
        dependencies=after,
        delay_ms=delay_ms,
        gate=GateSection(**section),
    )


def run(name: str, *jobs: JobSpec, **shapes: Shape | Trigger) -> RunSpec:
    """A run; of jobs named besides: what it says of them, or their triggers."""
    read = {
        job_id: shape if isinstance(shape, Shape) else Shape(trigger=shape)
        for job_id, shape in shapes.items()
    }
    return RunSpec(name=name, jobs=jobs, shapes=read)


# -- turns as text --------------------------------------------------------------------------------
def text(value: Any) -> str:
    """One line for anything a turn holds: its type and what differs from the defaults."""
    if isinstance(value, AttemptRef):
        return str(value)
    if isinstance(value, JobSpec):
        return value.id
    if isinstance(value, Origin):
        return f"{value.link_id}.{value.correlation}"
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, bytes):
        return "<bytes>"
    if isinstance(value, str):
        return value if value and " " not in value else repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text(k)}: {text(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(text(item) for item in value) + "]"
    if isinstance(value, msgspec.Struct):
        return f"{type(value).__name__}({_fields(value)})"
    return str(value)


def _fields(value: msgspec.Struct) -> str:
    shown = []
    for field in msgspec.structs.fields(value):
        item = getattr(value, field.name)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        # What every event or order has tells nothing; digests of specs change with their defaults.
        if item != default and field.name not in ("at_ms", "term", "digest"):
            shown.append(f"{field.name}={text(item)}")
    return ", ".join(shown)


def events(turn: Turn) -> list[str]:
    return [text(event) for event in turn.events]


def effects(turn: Turn) -> list[str]:
    return [text(effect) for effect in turn.effects]


def kinds(turn: Turn) -> list[str]:
    return [type(event).__name__ for event in turn.events]


def placements(turn: Turn) -> list[tuple[str, str]]:
    """What was placed, in order, and where."""
    return [
        (event.job_id, event.worker_id) for event in turn.events if isinstance(event, AttemptPlaced)
    ]


def order_of(turn: Turn, job_id: str) -> AttemptOrder:
    """What a worker is told in this turn about the job."""
    (order,) = [
        order
        for effect in turn.effects
        if isinstance(effect, Tell) and isinstance(effect.message, StartAttempts)
        for order in effect.message.orders
        if order.ref.job_id == job_id
    ]
    return order


class World:
    """Given: build one and let things happen. When: one more. Then: look at its turn."""

    def __init__(
        self, workers: dict[str, int] | None = None, config: CoreConfig | None = None
    ) -> None:
        self.config = config or CoreConfig()
        self.now_ms = START_MS
        self.journal: list[bytes] = []
        self.moves: set[tuple[str, str, str]] = set()
        self.links: dict[str, int] = {}
        self.joins: dict[str, Join] = {}
        self.kin: dict[str, Kin] = {}
        self.term = 0
        self._link = 100
        self._correlation = 0
        self._shadow = State()
        self.kept = MemoryStore()
        self._kept_term = self.kept.open().term
        self._turns = 0
        self.core = self._boot(State())
        for name, slots in (workers or {}).items():
            self.join(name, slots=slots)

    @property
    def state(self) -> State:
        return self.core.state

    # -- turns ------------------------------------------------------------------------------------
    def _boot(self, state: State) -> Core:
        state.observer = self._observe
        core = self.core = Core(state, self.config)
        self.term += 1
        core.start(
            self.now_ms, term=self.term, software="test", cluster_id="c", cluster_name="test"
        )
        self.started = self._take()
        return core

    def _observe(self, table: str, frm: object, to: object) -> None:
        self.moves.add((table, str(frm), str(to)))

    def _take(self) -> Turn:
        turn = self.core.drain()
        for event in turn.events:
            body = msgspec.msgpack.encode(event)
            self.journal.append(body)
            apply(self._shadow, EVENTS.decode(body))
        check(self.state)
        assert digest(self._shadow) == digest(self.state), "state is not what its events say"
        self.kept.commit(turn.events, self._kept_term)
        self._turns += 1
        if self._turns % CHECKPOINT_EVERY == 0:
            self.kept.checkpoint()
        return turn

    def turn(self, *inputs: Input) -> Turn:
        """One turn: these inputs, then settle."""
        for item in inputs:
            self.core.handle(item, self.now_ms)
        self.core.settle(self.now_ms)
        self.last = self._take()
        return self.last

    def advance(self, ms: int) -> Turn:
        """Let time pass, waking up at every deadline as the engine would; all turns as one."""
        end_ms = self.now_ms + ms
        turns = []
        while True:
            deadline = self.core.next_deadline_ms()
            if deadline is None or deadline > end_ms:
                break
            self.now_ms = max(self.now_ms, deadline)
            turns.append(self.turn())
        self.now_ms = end_ms
        turns.append(self.turn())
        return joined(turns)

    def restart(self) -> Turn:
        """The master is killed and started again from its store; links and waiters are gone."""
        state = self.recovered()
        self.links.clear()
        self._boot(state)
        return self.started

    def recovered(self) -> State:
        """What a store gives back now, from its checkpoint and the records behind it."""
        found = self.kept.open()
        self._kept_term = found.term
        check(found.state)
        assert digest(found.state) == digest(self.state), "recovery differs from what was there"
        for name in ("runs", "workers", "services", "keys", "schedules"):
            # The order is no part of the digest, and decides what the core looks at first.
            assert list(getattr(found.state, name)) == list(getattr(self.state, name)), name
        return found.state

    # -- clients ----------------------------------------------------------------------------------
    def origin(self, link_id: int = 1) -> Origin:
        self._correlation += 1
        return Origin(link_id, self._correlation)

    def submission(
        self, spec: RunSpec, *, key: str = "", run_id: str = "", parent: str = ""
    ) -> RunSubmitted:
        body = msgspec.msgpack.encode(spec)
        return RunSubmitted(
            origin=self.origin(),
            run_id=run_id or spec.name,
            key=key or f"key-{run_id or spec.name}",
            digest=hashlib.sha256(body).hexdigest()[:8],
            spec=spec,
            spec_bytes=body,
            owner="ann",
            parent=self.ref(parent) if parent else None,
        )

    def submit(self, spec: RunSpec, *, key: str = "", run_id: str = "", parent: str = "") -> Turn:
        return self.turn(self.submission(spec, key=key, run_id=run_id, parent=parent))

    def schedule(
        self,
        name: str,
        cron: str | tuple[str, ...],
        *jobs: JobSpec,
        spec: RunSpec | None = None,
        **options: Any,
    ) -> Turn:
        """Have these jobs (one, `a`, if none are named) run at these times."""
        ran = spec or run(name, *(jobs or (job("a"),)))
        crons = (cron,) if isinstance(cron, str) else cron
        policy = ScheduleSpec(crons=crons, **options)
        body = msgspec.msgpack.encode(ran)
        sent = msgspec.msgpack.encode((policy, ran))
        return self.turn(
            ScheduleSubmitted(
                origin=self.origin(),
                name=name,
                schedule_id=f"id-{name}",
                spec=policy,
                run=ran,
                run_bytes=body,
                digest=hashlib.sha256(sent).hexdigest()[:8],
                owner="ann",
            )
        )

    def ask(self, request: Any, *, link_id: int = 1, who: str = "ann") -> Turn:
        return self.turn(Asked(origin=self.origin(link_id), request=request, by=who))

    def answer(self, request: Any, *, who: str = "ann") -> Any:
        """The message that a request is answered with at once."""
        turn = self.ask(request, who=who)
        replies = [effect.message for effect in turn.effects if isinstance(effect, Reply)]
        assert len(replies) == 1, effects(turn)
        return replies[0]

    def drop(self, origin: Origin) -> Turn:
        return self.turn(ExchangeDropped(origin=origin))

    def close_link(self, link_id: int) -> Turn:
        return self.turn(LinkClosed(link_id=link_id))

    # -- workers ----------------------------------------------------------------------------------
    def join(
        self,
        name: str,
        *,
        slots: int | None = None,
        skills: Sequence[str] | None = None,
        resources: Mapping[str, int] | None = None,
        port: int | None = None,
        boot: str | None = None,
        incarnation: int | None = None,
        held: Iterable[tuple[str, str]] = (),
        leaving: bool = False,
        takes_shutdown: bool = True,
        workspace: str | None = None,
        kin: Kin | None = None,
        network: str | None = None,
    ) -> Turn:
        """A worker joins on a new link; what is not said is as at its last join."""
        before = self.joins.get(name)
        if before is None:
            before = Join(
                worker_id=name,
                host="host",
                port=8080 + len(self.joins),
                incarnation=1,
                boot_id="boot",
                software="test",
                slots=4,
                skills=("GENERAL",),
                network=f"net-{name}",
            )
        join = Join(
            worker_id=name,
            host=before.host,
            port=before.port if port is None else port,
            incarnation=before.incarnation if incarnation is None else incarnation,
            boot_id=before.boot_id if boot is None else boot,
            software=before.software,
            slots=before.slots if slots is None else slots,
            skills=before.skills if skills is None else tuple(skills),
            held=tuple(
                HeldAttempt(ref=self.ref(ref), state=AttemptState(state)) for ref, state in held
            ),
            leaving=leaving,
            takes_shutdown=takes_shutdown,
            workspace=before.workspace if workspace is None else workspace,
            resources=before.resources if resources is None else dict(resources),
            network=before.network if network is None else network,
        )
        self._link += 1
        self.joins[name] = join
        if kin is not None:
            self.kin[name] = kin
        self.links[name] = self._link
        return self.turn(WorkerArrived(link_id=self._link, join=join, kin=self.kin.get(name)))

    def heartbeat(self, *names: str, leaving: bool = False, at_once: bool = False) -> Turn:
        """Heard at once, as the engine does; only what changes something makes an input."""
        status = WorkerStatus(running=0, leaving=leaving, at_once=at_once)
        return self.turn(
            *(
                WorkerHeard(link_id=self.links[name], status=status)
                for name in names
                if self.core.hear(self.links[name], status, self.now_ms) is Heard.CHANGING
            )
        )

    def cut(self, name: str) -> Turn:
        return self.turn(LinkClosed(link_id=self.links.pop(name)))

    def leave(self, name: str) -> Turn:
        return self.turn(WorkerLeft(link_id=self.links.pop(name)))

    def ref(self, name: str) -> AttemptRef:
        """`run/job` is its newest attempt, `run/job.n` exactly that one."""
        path, _, number = name.partition(".")
        run_id, _, job_id = path.partition("/")
        if number:
            return AttemptRef(run_id, job_id, int(number))
        attempt = self.state.find_attempt(run_id, job_id)
        assert attempt is not None, f"{name} has no attempt"
        return AttemptRef(run_id, job_id, attempt.number)

    def worker_of(self, name: str) -> str:
        ref = self.ref(name)
        attempt = self.state.find_attempt(ref.run_id, ref.job_id)
        assert attempt is not None
        return attempt.worker_id

    def running_report(self, name: str, **fields: Any) -> AttemptReport:
        return AttemptReport(ref=self.ref(name), state=AttemptState.RUNNING, **fields)

    def ended_report(
        self, name: str, code: int = 0, reason: ExitReason = ExitReason.EXITED, **fields: Any
    ) -> AttemptReport:
        return AttemptReport(
            ref=self.ref(name),
            state=AttemptState.ENDED,
            reason=reason,
            exit_code=code,
            **fields,
        )

    def report(self, worker: str, *reports: AttemptReport) -> Turn:
        return self.turn(ReportsArrived(link_id=self.links[worker], reports=reports))

    def running(self, name: str, **fields: Any) -> Turn:
        return self.report(self.worker_of(name), self.running_report(name, **fields))

    def ended(
        self, name: str, code: int = 0, reason: ExitReason = ExitReason.EXITED, **fields: Any
    ) -> Turn:
        return self.report(self.worker_of(name), self.ended_report(name, code, reason, **fields))

    # -- looking ----------------------------------------------------------------------------------
    def job_state(self, name: str) -> JobState:
        run_id, _, job_id = name.partition("/")
        return self.state.runs[run_id].jobs[job_id].state

    def job_states(self, run_id: str) -> dict[str, str]:
        return {name: str(one.state) for name, one in self.state.runs[run_id].jobs.items()}


def joined(turns: Iterable[Turn]) -> Turn:
    """Several turns as one."""
    kept = list(turns)
    return Turn(
        tuple(event for turn in kept for event in turn.events),
        tuple(effect for turn in kept for effect in turn.effects),
    )
