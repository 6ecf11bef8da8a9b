"""Clients: people and programs that ask, lose their link, and ask again.

A client runs errands over one link. An errand is a generator that yields what it wants next and is
sent the answer; while there is no link its wish waits, and when a link breaks under a request the
same request is sent again on the next one. That is all a real client may rely on.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from msgspec import Struct

from tests.sim import wire
from tests.sim.coverage import Coverage
from tests.sim.network import End, Network
from tests.sim.wire import Wire
from tests.sim.world import Life, World
from titan_proto.connection import Opened, Received
from titan_proto.errors import ErrorCode
from titan_proto.messages import AnyMessage, Cancel, Done, Error, JobChange, Role

BACKOFF_MS = 50
BACKOFF_MAX_MS = 2_000


class Call(Struct, frozen=True):
    """Send a request; the answer is its reply, or an `Error`."""

    request: AnyMessage
    give_up_ms: int = 0
    """If not 0, take the request back after so long; the answer is then None."""


class Stream(Struct, frozen=True):
    """Send a request; the answer is the list of what came before the end."""

    request: AnyMessage


class Blurt(Struct, frozen=True):
    """Send a request and drop the link at once, as a client killed just then; the answer is None."""

    request: AnyMessage


class Pause(Struct, frozen=True):
    """Do nothing for a while; the answer is None."""

    for_ms: int


class HangUp(Struct, frozen=True):
    """Drop the link, as a client does that is killed; the answer is None."""


Wish = Call | Stream | Blurt | Pause | HangUp
Errand = Generator[Wish, Any, None]


class Task:
    """An errand on its way."""

    def __init__(self, name: str, errand: Errand) -> None:
        self.name = name
        self.errand = errand
        self.wish: Wish | None = None
        self.correlation = 0
        self.collected: list[AnyMessage] = []
        self.tries = 0
        """How often its present wish was sent; an old timer knows itself by it."""


class Client:
    """One client."""

    def __init__(
        self, world: World, network: Network, coverage: Coverage, name: str, *, stranger: bool
    ) -> None:
        self._world = world
        self._network = network
        self._coverage = coverage
        self.life = Life(world, name)
        self._key = wire.KEY if not stranger else b"\0" * 32
        self.tasks: dict[Task, None] = {}
        self._wire: Wire | None = None
        self._dialling = False
        self._backoff_ms = BACKOFF_MS
        self._asked: dict[int, Task] = {}
        self.refusals = 0

    def add(self, name: str, errand: Errand, after_ms: int) -> None:
        """Have an errand begin after a while."""
        task = Task(name, errand)
        self.tasks[task] = None
        self.life.after(after_ms, lambda: self._go_on(task, None))

    # -- errands ----------------------------------------------------------------------------------

    def _go_on(self, task: Task, answer: Any) -> None:
        """Hand an errand its answer and see what it wants next."""
        if self._world.tracing and answer is not None:
            self._world.trace(self.life.name, f"{task.name} < {answer}")
        task.collected = []
        task.correlation = 0
        try:
            task.wish = task.errand.send(answer)
        except StopIteration:
            del self.tasks[task]
            return
        if isinstance(task.wish, Pause):
            self.life.after(task.wish.for_ms, lambda: self._go_on(task, None))
        elif isinstance(task.wish, HangUp):
            if self._wire is not None:
                self._wire.drop()
                self._closed(None)
            self.life.after(0, lambda: self._go_on(task, None))
        else:
            self._ask(task)

    def _ask(self, task: Task) -> None:
        wish = task.wish
        assert isinstance(wish, (Call, Stream, Blurt))
        if self._wire is None or not self._wire.is_open:
            self._dial()
            return
        if self._world.tracing:
            self._world.trace(self.life.name, f"{task.name} > {wish.request}")
        task.correlation = self._wire.call(wish.request)
        if isinstance(wish, Blurt):
            self._wire.drop()
            self._closed(None)
            task.wish = None
            self.life.after(0, lambda: self._go_on(task, None))
            return
        self._asked[task.correlation] = task
        task.collected = []
        task.tries += 1
        if isinstance(wish, Call) and wish.give_up_ms:
            tries = task.tries
            self.life.after(wish.give_up_ms, lambda: self._give_up(task, tries))

    def _give_up(self, task: Task, tries: int) -> None:
        if task.tries != tries or self._asked.get(task.correlation) is not task:
            return
        assert self._wire is not None
        del self._asked[task.correlation]
        self._wire.send(Cancel(), task.correlation)
        self._wire.flush()
        self._go_on(task, None)

    # -- the link ---------------------------------------------------------------------------------

    def _dial(self) -> None:
        if self._wire is None and not self._dialling:
            self._dialling = True
            self._network.dial(self.life, connected=self._connected, refused=self._again)

    def _connected(self, end: End) -> None:
        connection = wire.dialler(self._world, Role.CLIENT, key=self._key)
        link = Wire(self._world, end, connection, self._coverage)
        link.on_open = self._opened
        link.on_message = self._message
        link.on_close = self._closed
        self._wire = link
        self._dialling = False
        link.flush()

    def _opened(self, opened: Opened) -> None:
        del opened
        self._backoff_ms = BACKOFF_MS
        for task in list(self.tasks):
            # One of them may drop the link.
            if self._wire is not None and isinstance(task.wish, (Call, Stream, Blurt)):
                self._ask(task)

    def _message(self, received: Received) -> None:
        task = self._asked.get(received.correlation)
        if task is None:
            return
        if isinstance(task.wish, Stream) and isinstance(received.message, JobChange):
            task.collected.append(received.message)
            if not received.end:
                return
        del self._asked[received.correlation]
        if isinstance(task.wish, Stream) and isinstance(received.message, (JobChange, Done)):
            self._go_on(task, task.collected)
        else:
            self._go_on(task, received.message)

    def _closed(self, code: ErrorCode | None) -> None:
        if code is ErrorCode.UNAUTHENTICATED:
            self.refusals += 1
        self._wire = None
        self._asked.clear()
        self._again()

    def _again(self) -> None:
        self._dialling = True
        delay_ms = self._world.between(self._backoff_ms // 2, self._backoff_ms)
        self._backoff_ms = min(BACKOFF_MAX_MS, self._backoff_ms * 2)
        self.life.after(delay_ms, self._redial)

    def _redial(self) -> None:
        self._dialling = False
        if any(isinstance(task.wish, (Call, Stream, Blurt)) for task in self.tasks):
            self._dial()


def is_error(answer: Any, *codes: ErrorCode) -> bool:
    """Whether an answer is a refusal, of one of these codes if any are named."""
    return isinstance(answer, Error) and (not codes or answer.code in codes)
