"""How busy workers are and have been: in memory alone, for as long as people look back.

Takes what workers tell, answers who asks, and has workers tell it more often while somebody does.
It never touches the core or the disk: nothing is decided by these numbers, and a master that starts
again begins to remember anew. Bounded by age and by bytes. Called by ``net/link.py`` on the loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from titan_master.data.feed import Outlet
from titan_proto.messages import (
    GetUsage,
    SampleUsage,
    Usage,
    UsagePoint,
    UsageView,
    WorkerUsage,
    WorkerUsageView,
)

LOOK_EVERY_MS: Final = 2_000
LOOK_FOR_MS: Final = 10_000
"""So long after a question somebody still looks."""
_SAY_AGAIN_MS: Final = 5_000
_POINT_BYTES: Final = 100
"""What a remembered look takes besides its own bytes, more or less."""
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Usage)


class UsageLimits(Struct, frozen=True, kw_only=True):
    """How much is remembered, and told."""

    history_ms: int
    history_bytes: int
    reply_bytes: int


class _Worker(Struct, kw_only=True, eq=False):
    """What is remembered of one."""

    name: str
    outlet: Outlet
    limits: str = ""
    points: deque[tuple[int, bytes]]
    """(when, encoded), oldest first; never empty."""
    asked_ms: int = 0
    """When it was last asked to tell more often, on this link."""


class UsageDesk:
    """The memory of all workers' use."""

    def __init__(self, now_ms: Callable[[], int], limits: UsageLimits) -> None:
        self._now_ms = now_ms
        self._limits = limits
        self._workers: dict[str, _Worker] = {}
        self._bytes = 0
        self._looked_ms: int | None = None

    def heard(self, outlet: Outlet, worker_id: str, name: str, message: WorkerUsage) -> None:
        """A worker has told on this link how busy it is."""
        now_ms = self._now_ms()
        body = _ENCODER.encode(message.usage)
        known = self._workers.get(worker_id)
        if known is None:
            known = self._workers[worker_id] = _Worker(name=name, outlet=outlet, points=deque())
        if known.outlet is not outlet:
            known.outlet, known.asked_ms = outlet, 0
        known.name, known.limits = name, message.limits
        known.points.append((now_ms, body))
        self._bytes += len(body) + _POINT_BYTES
        self._forget(now_ms)
        if self._looked_ms is not None and now_ms - self._looked_ms < LOOK_FOR_MS:
            self._have_told_often(known, now_ms)

    def gone(self, outlet: Outlet) -> None:
        """The link is: nobody is to be asked on it any more."""
        for known in self._workers.values():
            if known.outlet is outlet:
                known.asked_ms = -1

    def answer(self, outlet: Outlet, correlation: int, request: GetUsage) -> None:
        """Somebody looks."""
        now_ms = self._looked_ms = self._now_ms()
        self._forget(now_ms)
        for known in self._workers.values():
            self._have_told_often(known, now_ms)
        room = self._limits.reply_bytes
        views = []
        for worker_id, known in self._workers.items():
            at_ms, body = known.points[-1]
            usage = _DECODER.decode(body)
            if len(body) > room:
                usage = replace(usage, attempts=())
            room -= min(len(body), room)
            views.append(
                WorkerUsageView(
                    worker_id=worker_id,
                    name=known.name,
                    at_ms=at_ms,
                    usage=usage,
                    limits=known.limits,
                )
            )
        history = tuple(self._history(request.history_of, room))[::-1]
        reply = UsageView(at_ms=now_ms, workers=tuple(views), history=history)
        outlet.send(reply, correlation, end=True)

    def _history(self, worker_id: str, room: int) -> Iterator[UsagePoint]:
        """Newest first, as far as there is room."""
        known = self._workers.get(worker_id)
        for at_ms, body in reversed(known.points) if known is not None else ():
            room -= len(body) + _POINT_BYTES
            if room < 0:
                return
            yield UsagePoint(at_ms=at_ms, usage=_DECODER.decode(body))

    def _have_told_often(self, known: _Worker, now_ms: int) -> None:
        if known.asked_ms < 0 or (known.asked_ms and now_ms - known.asked_ms < _SAY_AGAIN_MS):
            return
        known.asked_ms = now_ms
        known.outlet.send(SampleUsage(every_ms=LOOK_EVERY_MS, for_ms=LOOK_FOR_MS))

    def _forget(self, now_ms: int) -> None:
        """What is too old goes, and the oldest of all where there is too much."""
        for worker_id, known in list(self._workers.items()):
            while known.points and known.points[0][0] < now_ms - self._limits.history_ms:
                self._drop_oldest(worker_id)
        while self._bytes > self._limits.history_bytes:
            self._drop_oldest(min(self._workers, key=lambda one: self._workers[one].points[0]))

    def _drop_oldest(self, worker_id: str) -> None:
        points = self._workers[worker_id].points
        self._bytes -= len(points.popleft()[1]) + _POINT_BYTES
        if not points:
            del self._workers[worker_id]
