"""The loop: inputs → core → store → effects, one turn at a time.

What a turn asks for is done, in order, only when its events are durable; one thread commits, and the
loop never waits for a disk. While a commit is under way inputs gather, so an idle master commits one
input at a time and a busy one hundreds at once. It decides nothing about runs or workers, and never
touches a socket or a file: those it is given.

A commit that fails ends the process (74): nobody knows then what the disk holds. So does an input
that breaks the core (70); what it was is remembered, so that it cannot do it again. ``app.py`` makes
the engine, ``net`` feeds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, ClassVar, Final, Protocol

import msgspec
from msgspec import Struct

from titan_master.clock import Clock
from titan_master.core.core import Core
from titan_master.core.effects import (
    AskHistory,
    CloseLog,
    Effect,
    HangUp,
    OpenLog,
    Reply,
    ServeLog,
    Tell,
)
from titan_master.core.events import AnyEvent, PoisonRemembered
from titan_master.core.inputs import (
    Asked,
    Heard,
    Input,
    Origin,
    ReportsArrived,
    RunSubmitted,
    ScheduleSubmitted,
    WorkerArrived,
    WorkerHeard,
)
from titan_master.core.turn import Turn
from titan_master.store.base import HistoryDamaged, Store
from titan_master.telling import Teller
from titan_proto.errors import ErrorCode
from titan_proto.ids import AttemptRef
from titan_proto.messages import AnyMessage, Error, ReadLog, WorkerStatus

_log = logging.getLogger("titan.engine")

QUIET_S: Final = 1.0
"""After so long without a commit the store does what it has put off."""
KEEP_UP_EVENTS: Final = 256
"""After so many events the store does a share of it, pause or not."""
WALL_S: Final = 1.0
"""So often an idle master looks whether the wall has jumped: its own timers do not notice."""


class Links(Protocol):
    """The links, by number; what is sent to one that is gone is dropped."""

    def reply(self, origin: Origin, message: AnyMessage, *, end: bool) -> None:
        """Answer an exchange."""
        ...

    def tell(self, link_id: int, message: AnyMessage) -> None:
        """Send something outside any exchange."""
        ...

    def hang_up(self, link_id: int, code: ErrorCode, reason: str) -> None:
        """Close a link after what was sent."""
        ...


class Logs(Protocol):
    """The data plane, as far as the core has to do with it."""

    def serve(
        self,
        origin: Origin,
        ref: AttemptRef,
        request: ReadLog,
        final_bytes: tuple[int, int] | None,
    ) -> None:
        """Stream a log; `final_bytes` once the attempt has ended."""
        ...

    def open(self, ref: AttemptRef, worker_id: str) -> None:
        """This worker may write that log from now on."""
        ...

    def finish(self, ref: AttemptRef, stdout_bytes: int, stderr_bytes: int) -> None:
        """The attempt has ended, having written so much."""
        ...


class EngineConfig(Struct, frozen=True, kw_only=True):
    """Policy of the loop."""

    inbox_max: int
    turn_inputs_max: int


Answer = Sequence[Effect] | Asked | RunSubmitted
"""Effects to release, or something for the core: the question put precisely, or what came of it."""


class Engine:
    """One core, one store, one loop."""

    def __init__(
        self,
        *,
        core: Core,
        poison: dict[str, str],
        store: Store,
        term: int,
        writer: Executor,
        answer: Callable[[AskHistory], Answer],
        reader: Executor,
        clock: Clock,
        links: Links,
        logs: Logs,
        config: EngineConfig,
    ) -> None:
        self._core = core
        self._teller = Teller(core.state)
        self._poison = poison
        self._store = store
        self._term = term
        self._writer = writer
        self._answer = answer
        self._reader = reader
        self._clock = clock
        self._jumps = clock.jumps
        self._links = links
        self._logs = logs
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[Input] = deque()
        self._room_wanted: list[Callable[[], None]] = []
        self._is_turn_due = False
        self._commit: Future[int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._wall: asyncio.TimerHandle | None = None
        self._commits = 0
        self._events_behind = 0
        self._is_stopping = False
        self._idle: asyncio.Future[None] | None = None
        self.failure: asyncio.Future[int] = self._loop.create_future()
        """The exit code with which the process must end, once there is one."""

    # -- what feeds it ----------------------------------------------------------------------------

    def put(self, item: Input) -> None:
        """Take an input in. Never refuses: who can wait asks `is_full` first."""
        if self._is_stopping:
            return
        self._inbox.append(item)
        self._turn_soon()

    def hear(self, link_id: int, status: WorkerStatus) -> Heard:
        """A heartbeat, past the inbox: it counts from now, also while a commit is under way."""
        return self._core.hear(link_id, status, self._clock.now_ms())

    @property
    def is_full(self) -> bool:
        """Whether whoever has more should wait for `when_room`."""
        return len(self._inbox) >= self._config.inbox_max

    def when_room(self, call: Callable[[], None]) -> None:
        """Call this once when the inbox has been worked off by half."""
        self._room_wanted.append(call)

    async def begin(self, first: Turn) -> None:
        """Make the core's first turn durable and do it, before anybody is let in."""
        # No deadline: nothing can happen before this is on disk.
        await asyncio.wrap_future(self._writer.submit(self._store.commit, first.events, self._term))
        self._tell_operator(first.events)
        self._release(first.effects)
        self._look_at_wall()
        self._turn_soon()

    async def stop(self) -> None:
        """Take nothing more in; back once the commit under way is durable and done."""
        self._is_stopping = True
        self._inbox.clear()
        for timer in (self._timer, self._quiet, self._wall):
            if timer is not None:
                timer.cancel()
        if self._commit is not None and not self.failure.done():
            self._idle = self._loop.create_future()
            # No deadline: what is being written must be either durable or refused by the disk.
            await self._idle

    # -- the turn ---------------------------------------------------------------------------------

    def _turn_soon(self) -> None:
        if not self._is_turn_due and self._commit is None:
            self._is_turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turn_due = False
        if self._commit is not None or self._is_stopping or self.failure.done():
            return
        now_ms = self._clock.now_ms()
        if self._jumps != self._clock.jumps:
            self._jumps = self._clock.jumps
            self._core.time_jumped(now_ms)
            _log.warning("the clock has jumped now_ms=%d", now_ms)
        for _ in range(min(len(self._inbox), self._config.turn_inputs_max)):
            self._handle(self._inbox.popleft(), now_ms)
        self._settle(now_ms)
        turn = self._core.drain()
        if turn.events:
            self._commit = self._writer.submit(self._store.commit, turn.events, self._term)
            self._commit.add_done_callback(lambda done: self._committed_soon(done, turn))
        else:
            self._release(turn.effects)
            self._after_turn(now_ms)
        self._make_room()

    def _handle(self, item: Input, now_ms: int) -> None:
        if self._poison and self._is_poison(item):
            return
        is_sound = False
        try:
            self._core.handle(item, now_ms)
            is_sound = True
        finally:
            # Not an except clause: what broke goes on up, to end the process with its trace.
            if not is_sound:
                self._remember(item)

    def _settle(self, now_ms: int) -> None:
        is_sound = False
        try:
            self._core.settle(now_ms)
            is_sound = True
        finally:
            if not is_sound:
                self._remember(None)

    def _committed_soon(self, done: Future[int], turn: Turn) -> None:
        """In the writer's thread."""
        self._loop.call_soon_threadsafe(self._committed, done, turn)

    def _committed(self, done: Future[int], turn: Turn) -> None:
        self._commit = None
        error = done.exception()
        if error is not None:
            _log.critical("commit failed, the process ends error=%r", error)
            self._fail(os.EX_IOERR)
            return
        self._commits += 1
        self._release(turn.effects)
        # Behind what that has sent: nobody waits for a line of the log.
        self._loop.call_soon(self._tell_operator, turn.events)
        self._events_behind += len(turn.events)
        if self._events_behind >= KEEP_UP_EVENTS:
            # While the loop thinks about the next turn, whose commit stands behind this.
            self._events_behind = 0
            self._writer.submit(self._store.keep_up).add_done_callback(self._tidied)
        if self._quiet is None:
            self._quiet = self._loop.call_later(QUIET_S, self._tidy_if_quiet, self._commits)
        if self._idle is not None:
            self._idle.set_result(None)
            return
        self._after_turn(self._clock.now_ms())

    def _after_turn(self, now_ms: int) -> None:
        """See to it that the next turn comes when there is something to do."""
        if self._inbox:
            self._turn_soon()
            return
        deadline_ms = self._core.next_deadline_ms()
        if deadline_ms is None:
            return
        if deadline_ms <= now_ms:
            self._turn_soon()
            return
        when = self._loop.time() + (deadline_ms - now_ms) / 1000
        # A timer that fires too early costs one empty turn; setting it anew each turn costs more.
        if self._timer is None or self._timer.when() > when:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(when, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._turn_soon()

    def _look_at_wall(self) -> None:
        if self._is_stopping or self.failure.done():
            return
        self._clock.now_ms()
        if self._jumps != self._clock.jumps:
            self._turn_soon()
        self._wall = self._loop.call_later(WALL_S, self._look_at_wall)

    def _make_room(self) -> None:
        if self._room_wanted and len(self._inbox) * 2 <= self._config.inbox_max:
            wanted, self._room_wanted = self._room_wanted, []
            for call in wanted:
                call()

    def _tidy_if_quiet(self, commits: int) -> None:
        self._quiet = None
        if self._is_stopping or self.failure.done():
            return
        if self._commit is not None or commits != self._commits:
            self._quiet = self._loop.call_later(QUIET_S, self._tidy_if_quiet, self._commits)
            return
        self._writer.submit(self._store.tidy).add_done_callback(self._tidied)

    def _tidied(self, done: Future[None]) -> None:
        """In the writer's thread."""
        error = done.exception()
        if error is not None:
            _log.critical("the store failed, the process ends error=%r", error)
            self._loop.call_soon_threadsafe(self._fail, os.EX_IOERR)

    # -- effects ----------------------------------------------------------------------------------

    def _release(self, effects: Sequence[Effect]) -> None:
        # Answers last: a worker still has a process to start, a client only an answer to read, and
        # where cores are few the one that wakes first runs first. No link gets both.
        answers = []
        for effect in effects:
            if type(effect) is Reply:
                answers.append(effect)
            else:
                self._RELEASE[type(effect)](self, effect)
        for answer in answers:
            self._reply(answer)

    def _reply(self, effect: Reply) -> None:
        self._links.reply(effect.origin, effect.message, end=effect.end)

    def _tell(self, effect: Tell) -> None:
        self._links.tell(effect.link_id, effect.message)

    def _hang_up(self, effect: HangUp) -> None:
        self._links.hang_up(effect.link_id, effect.code, effect.reason)

    def _ask_history(self, effect: AskHistory) -> None:
        asked = self._reader.submit(self._answer, effect)
        asked.add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(self._answered, effect, done)
        )

    def _answered(self, effect: AskHistory, done: Future[Answer]) -> None:
        error = done.exception()
        if error is not None:
            _log.error("history failed request=%s error=%r", type(effect.request).__name__, error)
            refusal = Error(code=ErrorCode.UNAVAILABLE, message="history cannot be read just now")
            if isinstance(error, HistoryDamaged):
                # Asking again would not help; no answer is better than a wrong one.
                refusal = Error(code=ErrorCode.INTERNAL, message=f"history is damaged: {error}")
            self._links.reply(effect.origin, refusal, end=True)
            return
        answer = done.result()
        if isinstance(answer, (Asked, RunSubmitted)):
            self.put(answer)
        else:
            self._release(answer)

    def _serve_log(self, effect: ServeLog) -> None:
        final = None
        if effect.ended:
            final = (0, 0) if effect.lost else (effect.stdout_bytes, effect.stderr_bytes)
        self._logs.serve(effect.origin, effect.ref, effect.request, final)

    def _open_log(self, effect: OpenLog) -> None:
        self._logs.open(effect.ref, effect.worker_id)

    def _close_log(self, effect: CloseLog) -> None:
        sizes = (0, 0) if effect.lost else (effect.stdout_bytes, effect.stderr_bytes)
        self._logs.finish(effect.ref, *sizes)

    _RELEASE: ClassVar[dict[type, Callable[[Engine, Any], None]]] = {
        Tell: _tell,
        HangUp: _hang_up,
        AskHistory: _ask_history,
        ServeLog: _serve_log,
        OpenLog: _open_log,
        CloseLog: _close_log,
    }

    # -- the end ----------------------------------------------------------------------------------

    def broken(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's handler of exceptions that nobody caught.

        One on a transport has ended that transport, one on a listening socket (no descriptor is
        left for a newcomer) passes. Any other one is a bug with unknown reach: the process ends, and
        its successor recovers from the journal.
        """
        loop.default_exception_handler(context)
        if "transport" not in context and "socket" not in context:
            self._fail(os.EX_SOFTWARE)

    def _fail(self, code: int) -> None:
        if not self.failure.done():
            self.failure.set_result(code)
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _remember(self, item: Input | None) -> None:
        """The core broke, over this input or over what is due: nothing of this turn may ever be true.

        Where it dealt with a schedule that is to blame, whoever asked for it: its successor meets that
        again without anybody asking.
        """
        digest, what = self._core.culprit, "Schedule"
        if not digest:
            digest = "" if item is None else poison_digest(item)
            what = type(item).__name__ if item is not None else "deadlines"
        if digest:
            event = PoisonRemembered(at_ms=self._clock.now_ms(), digest=digest, what=what)
            # Waited for: the process ends right after this.
            self._writer.submit(self._store.commit, (event,), self._term).result()
        _log.critical("the core is broken, the process ends input=%s digest=%s", what, digest)
        self._fail(os.EX_SOFTWARE)

    def _is_poison(self, item: Input) -> bool:
        digest = poison_digest(item)
        if digest not in self._poison:
            return False
        reason = (
            "this request broke the master once and is refused from now on; "
            f"its digest is {digest}, the log of that time has the cause"
        )
        _log.error("poison refused input=%s digest=%s", type(item).__name__, digest)
        if isinstance(item, (RunSubmitted, ScheduleSubmitted, Asked)):
            self._links.reply(item.origin, Error(code=ErrorCode.INTERNAL, message=reason), end=True)
        elif isinstance(item, (WorkerArrived, WorkerHeard, ReportsArrived)):
            self._links.hang_up(item.link_id, ErrorCode.INTERNAL, reason)
        return True

    def _tell_operator(self, events: Sequence[AnyEvent]) -> None:
        for line in self._teller.lines(events):
            _log.info("%s", line)


_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")


def poison_digest(item: Input) -> str:
    """One text for what an input asks, wherever it comes from; empty where that is nothing.

    Links and drawn ids are left out: the same request on another link is the same poison.
    """
    content: object
    if isinstance(item, (RunSubmitted, ScheduleSubmitted)):
        return item.digest
    if isinstance(item, Asked):
        content = item.request
    elif isinstance(item, WorkerArrived):
        content = item.join
    elif isinstance(item, ReportsArrived):
        content = item.reports
    elif isinstance(item, WorkerHeard):
        content = item.status
    else:
        return ""
    body = _ENCODER.encode((type(item).__name__, type(content).__name__, content))
    return hashlib.sha256(body).hexdigest()
