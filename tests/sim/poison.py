"""A core with a bug: one kind of run breaks it, after it has changed what it knows.

Planted in every simulated master, so that what the engine does about such a thing is exercised: the
turn never was, the request (or the schedule whose slot it was) is remembered, the process ends, and its
successor refuses that request (or pauses the schedule).
The engine's own code does it, on a stand-in for the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from titan_master.core.core import Core, CoreConfig
from titan_master.core.events import AnyEvent, RunAccepted
from titan_master.core.inputs import Origin, RunSubmitted
from titan_master.core.state import InvariantViolation, State
from titan_master.engine import Engine
from titan_proto.errors import ErrorCode
from titan_proto.messages import AnyMessage
from titan_proto.specs import RunSpec

NAME: Final = "poison"
"""Of the runs that do it; the names of their schedules begin with it."""


class BrittleCore(Core):
    """The real core, but for that."""

    def __init__(self, state: State, config: CoreConfig) -> None:
        super().__init__(state, config)
        emit = self._draft.emit

        def brittle(event: AnyEvent, spec: RunSpec | None = None) -> None:
            emit(event, spec)
            if isinstance(event, RunAccepted) and event.name == NAME and event.fired is not None:
                raise InvariantViolation(
                    f"planted: a slot of {event.fired.schedule} breaks the core"
                )

        self._draft.emit = brittle  # type: ignore[method-assign]

    def handle(self, item: Any, now_ms: int) -> None:
        """As the core does, half of it."""
        super().handle(item, now_ms)
        if is_poisonous(item):
            raise InvariantViolation(f"planted: {item.key} breaks the core")


class StandIn:
    """As much of an engine as its dealing with poison needs."""

    def __init__(
        self,
        *,
        core: Core,
        poison: dict[str, str],
        now_ms: Callable[[], int],
        commit: Callable[[tuple[AnyEvent, ...]], None],
        reply: Callable[[Origin, AnyMessage], None],
        fail: Callable[[int], None],
    ) -> None:
        self._core = core
        self._poison = poison
        self._now_ms = now_ms
        self._commit_events = commit
        self._send = reply
        self._fail = fail
        self._term = 0
        # One object for everything that it would call.
        self._clock = self._store = self._writer = self._links = self

    def remember(self, item: Any) -> None:
        """What the engine does about an input that broke its core."""
        Engine._remember(self, item)  # type: ignore[arg-type]

    def refuses(self, item: Any) -> bool:
        """Whether the engine keeps an input from its core."""
        return bool(self._poison) and Engine._is_poison(self, item)  # type: ignore[arg-type]

    def now_ms(self) -> int:
        """Of the clock."""
        return self._now_ms()

    def submit(self, call: Callable[..., Any], *args: Any) -> Future[Any]:
        """Of the writer: at once, here."""
        done: Future[Any] = Future()
        done.set_result(call(*args))
        return done

    def commit(self, events: tuple[AnyEvent, ...], term: int) -> None:
        """Of the store."""
        del term
        self._commit_events(events)

    def reply(self, origin: Origin, message: AnyMessage, *, end: bool) -> None:
        """Of the links."""
        del end
        self._send(origin, message)

    def hang_up(self, link_id: int, code: ErrorCode, reason: str) -> None:
        """Of the links. No worker's message breaks this core."""
        raise InvariantViolation(f"link {link_id} is hung up on: {code} {reason}")


def is_poisonous(item: Any) -> bool:
    """Whether this input is one that breaks it."""
    return isinstance(item, RunSubmitted) and item.spec.name == NAME
