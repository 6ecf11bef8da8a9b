"""Logs on their way to the master: by offset, a window per output, every output in its turn.

Each output of an attempt is shipped from where the master says it stands. After a new link (and
for what an earlier process left) one piece goes first and its acknowledgement tells where to go on,
so that nothing large is sent twice. An attempt that wrote nothing costs nothing here. Called by the
engine; sends on the bulk lane, which never delays reports.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from titan_proto.errors import LinkLost
from titan_proto.ids import AttemptRef
from titan_proto.limits import BULK_CHUNK_BYTES
from titan_proto.messages import STDERR, STDOUT, LogAck, LogChunk
from titan_worker.output import POLL_MIN_S, Output, Pace

_LOG: Final = logging.getLogger(__name__)
WINDOW_BYTES: Final = 1024 * 1024
"""Sent and not acknowledged, per output."""
_TURN_PIECES: Final = 8
"""So many pieces leave before the loop gets its turn."""


class LogLink(Protocol):
    """What is needed of a link."""

    def send(self, message: LogChunk) -> None:
        """Queue a piece."""

    async def bulk_room(self, size: int) -> None:
        """Wait until so much may be queued. Raises LinkLost."""


class _Shipment:
    """One output, and how far the master has it."""

    __slots__ = ("acked", "is_probing", "is_queued", "number", "output", "ref", "sent")

    def __init__(self, ref: AttemptRef, number: int, output: Output, *, is_probing: bool) -> None:
        self.ref = ref
        self.number = number
        self.output = output
        self.acked = 0
        self.sent = 0
        self.is_queued = False
        self.is_probing = is_probing
        """Until the next acknowledgement one piece at a time: the master may be elsewhere."""

    @property
    def allowed(self) -> int:
        """How many bytes may leave now."""
        window = 0 if self.is_probing and self.sent > self.acked else WINDOW_BYTES
        return min(self.output.readable - self.sent, self.acked + window - self.sent)

    def rewind(self) -> None:
        """A new link: what was under way on the old one may be lost."""
        self.sent = self.acked
        self.is_probing = True


class _Attempt:
    """Both outputs of one attempt."""

    __slots__ = ("ended", "look", "pace", "shipments")

    def __init__(self, ref: AttemptRef, stdout: Output, stderr: Output, *, known: bool) -> None:
        self.shipments = (
            _Shipment(ref, STDOUT, stdout, is_probing=known),
            _Shipment(ref, STDERR, stderr, is_probing=known),
        )
        self.pace = Pace()
        self.ended = False
        self.look = 0
        """Which look at its files is the next one; what else is due of it means nothing."""

    @property
    def is_done(self) -> bool:
        """Whether the master has everything and nothing will be added."""
        return self.ended and all(
            shipment.acked >= shipment.output.readable for shipment in self.shipments
        )


class Shipping:
    """All logs of this worker that the master does not have yet."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        now_ms: Callable[[], int],
        on_shipped: Callable[[AttemptRef], None],
        ceiling_bytes: int,
    ) -> None:
        self._loop = loop
        self._now_ms = now_ms
        self._on_shipped = on_shipped
        self._ceiling_bytes = ceiling_bytes
        self._attempts: dict[AttemptRef, _Attempt] = {}
        # (when, tie-breaker, attempt): looks at running attempts' files. Ended ones fall out.
        self._looks: list[tuple[float, int, AttemptRef]] = []
        self._look_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._queue: deque[_Shipment] = deque()
        self._news = asyncio.Event()
        self._done = asyncio.Event()
        self._done.set()
        self._link: LogLink | None = None
        # First pieces on this link that wait for their answer, in the order in which they left.
        self._asking: dict[_Shipment, None] = {}

    # -- attempts -------------------------------------------------------------------------------
    def watch(self, ref: AttemptRef, stdout: str, stderr: str) -> None:
        """The attempt's process runs."""
        self._add(ref, stdout, stderr, known=False)
        self._look_at(self._loop.time() + POLL_MIN_S, ref)

    def go_on(self, ref: AttemptRef, stdout: str, stderr: str) -> None:
        """Another process of a service writes into the same files, after `end`."""
        attempt = self._attempts.get(ref)
        if attempt is None:  # the master has all of the earlier ones
            self._add(ref, stdout, stderr, known=True)
        else:
            attempt.ended = False
            for shipment in attempt.shipments:
                shipment.output.go_on()
        self._look_at(self._loop.time() + POLL_MIN_S, ref)

    def end(self, ref: AttemptRef) -> tuple[int, int]:
        """The attempt's process is gone; how much it wrote: (stdout, stderr)."""
        attempt = self._attempts.get(ref)
        if attempt is None:  # nobody wants its log any more
            return 0, 0
        attempt.ended = True
        stdout, stderr = (shipment.output.end() for shipment in attempt.shipments)
        if stdout or stderr:
            self._offer(attempt)
        self._settle(ref, attempt)
        return stdout, stderr

    def resume(self, ref: AttemptRef, stdout: str, stderr: str) -> bool:
        """An attempt of an earlier process; False if it left nothing to ship."""
        self._add(ref, stdout, stderr, known=True)
        return any(self.end(ref))

    def owes(self, ref: AttemptRef) -> bool:
        """Whether something the attempt wrote may be missing at the master."""
        return ref in self._attempts

    def drop_all(self) -> None:
        """Ship nothing of what is known by now."""
        for ref in list(self._attempts):
            self._drop(ref)

    def _drop(self, ref: AttemptRef) -> None:
        attempt = self._attempts.pop(ref, None)
        if attempt is None:
            return
        self._queue = deque(s for s in self._queue if s not in attempt.shipments)
        self._on_shipped(ref)
        if not self._attempts:
            self._done.set()

    def _add(self, ref: AttemptRef, stdout: str, stderr: str, *, known: bool) -> None:
        out, err = (Output(path, self._ceiling_bytes) for path in (stdout, stderr))
        self._attempts[ref] = _Attempt(ref, out, err, known=known)
        self._done.clear()

    def _settle(self, ref: AttemptRef, attempt: _Attempt) -> None:
        """Let go of it if nothing is left to do."""
        if attempt.is_done:
            del self._attempts[ref]
            self._on_shipped(ref)
            if not self._attempts:
                self._done.set()

    # -- looking --------------------------------------------------------------------------------
    def _look_at(self, at_s: float, ref: AttemptRef) -> None:
        self._look_count += 1
        self._attempts[ref].look = self._look_count
        heapq.heappush(self._looks, (at_s, self._look_count, ref))
        if self._timer is None or at_s < self._timer_at:
            self._set_timer(at_s)

    def _set_timer(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at_s
        self._timer = self._loop.call_at(at_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        # Whatever is due within half a look's time is looked at now: one wake-up for all of them.
        due: list[tuple[int, AttemptRef]] = []
        while self._looks and self._looks[0][0] <= now_s + POLL_MIN_S / 2:
            due.append(heapq.heappop(self._looks)[1:])
        for number, ref in due:
            attempt = self._attempts.get(ref)
            if attempt is None or attempt.ended or attempt.look != number:
                continue
            grown = [shipment.output.look() for shipment in attempt.shipments]
            if any(grown):
                self._offer(attempt)
            self._look_at(now_s + attempt.pace.seen(grown=any(grown)), ref)
        if self._looks and self._timer is None:
            self._set_timer(self._looks[0][0])

    # -- sending --------------------------------------------------------------------------------
    def link_up(self, link: LogLink) -> None:
        """The master listens (again)."""
        self._link = link
        for attempt in self._attempts.values():
            for shipment in attempt.shipments:
                if shipment.sent:
                    shipment.rewind()
            self._offer(attempt)
        self._news.set()  # for what was queued while nobody listened

    def link_down(self, *, is_rejected: bool) -> None:
        """Nobody listens. `is_rejected`: the master hung up over something that it was sent."""
        self._link = None
        asking, self._asking = self._asking, {}
        if is_rejected and asking:
            # It does not know the first one asked about (a master restored from an older backup).
            # Asking again would end every link from now on.
            ref = next(iter(asking)).ref
            _LOG.warning("log_rejected attempt=%s", ref)
            self._drop(ref)

    def acked(self, ack: LogAck) -> None:
        """The master has everything before an offset."""
        attempt = self._attempts.get(ack.ref)
        if attempt is None or ack.stream not in {STDOUT, STDERR}:
            return
        shipment = attempt.shipments[0 if ack.stream == STDOUT else 1]
        self._asking.pop(shipment, None)
        if shipment.is_probing or ack.offset < shipment.acked:
            # Where the master stands decides, forward (it knew more) and back (it forgot).
            shipment.sent = ack.offset
            shipment.is_probing = False
        shipment.acked = min(ack.offset, shipment.output.readable)
        shipment.sent = min(max(shipment.sent, shipment.acked), shipment.output.readable)
        self._offer(attempt)
        self._settle(ack.ref, attempt)

    async def wait_shipped(self) -> None:
        """Until the master has all of it. The caller sets the deadline."""
        await self._done.wait()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            # No deadline: without news there is nothing to do.
            await self._news.wait()
            self._news.clear()
            link = self._link
            if link is not None:
                try:
                    await self._send(link)
                except LinkLost:
                    continue  # `link_up` offers everything again

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _offer(self, attempt: _Attempt) -> None:
        for shipment in attempt.shipments:
            if not shipment.is_queued and shipment.allowed > 0:
                shipment.is_queued = True
                self._queue.append(shipment)
                self._news.set()

    async def _send(self, link: LogLink) -> None:
        """Send what is queued, one piece of each in turn."""
        pieces = 0
        while self._queue:
            await link.bulk_room(BULK_CHUNK_BYTES)
            if self._link is not link:
                return
            shipment = self._queue.popleft()
            shipment.is_queued = False
            self._send_piece(link, shipment)
            if shipment.allowed > 0:
                shipment.is_queued = True
                self._queue.append(shipment)
            pieces += 1
            if pieces % _TURN_PIECES == 0:
                await asyncio.sleep(0)

    def _send_piece(self, link: LogLink, shipment: _Shipment) -> None:
        length = min(shipment.allowed, BULK_CHUNK_BYTES)
        if length <= 0:
            return
        data = shipment.output.read(shipment.sent, length)
        if not data:
            shipment.output.look()  # somebody has cut the file: less is there than was seen
            return
        if shipment.is_probing:
            self._asking[shipment] = None
        link.send(LogChunk(shipment.ref, shipment.number, shipment.sent, self._now_ms(), data))
        shipment.sent += len(data)
