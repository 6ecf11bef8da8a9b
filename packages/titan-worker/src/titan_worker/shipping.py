"""Logs on their way to the master: by offset, a window per output, every output in its turn.

Each output of an attempt is shipped from where the master says it stands. After a new link (and
for what an earlier process left) one piece goes first and its acknowledgement tells where to go on,
so that nothing large is sent twice. What an attempt wrote faster than it could be sent, and what was cut
out for the sake of the ceiling meanwhile, is skipped, and the master told. An attempt that wrote nothing
costs nothing here. Called by the engine; sends on the bulk lane, which never delays reports.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from titan_proto.errors import LinkLost
from titan_proto.ids import AttemptRef
from titan_proto.limits import (
    BULK_CHUNK_BYTES,
    DATAGRAM_LOG_BYTES,
    LOG_BYTES_PER_ATTEMPT_MIN,
)
from titan_proto.messages import STDERR, STDOUT, LogAck, LogChunk, LogGap
from titan_worker.output import POLL_MIN_S, Cut, Output, Outputs, Pace, carry_out

_LOG: Final = logging.getLogger(__name__)
WINDOW_BYTES: Final = 1024 * 1024
"""Sent and not acknowledged, per output."""
_COPIED_BYTES: Final = 16 * DATAGRAM_LOG_BYTES
"""What grew by more at one look is a flood: nobody reads along, and copies would slow it down."""
_LOOK_S: Final = 50e-6
"""What looking at one attempt's files may cost, several times over: with a thousand running ones at
once each is looked at less often."""
_TURN_PIECES: Final = 8
"""So many pieces leave before the loop gets its turn."""


class LogLink(Protocol):
    """What is needed of a link."""

    @property
    def takes_gaps(self) -> bool:
        """Whether the master can be told that something never comes."""

    @property
    def takes_copies(self) -> bool:
        """Whether pieces may be sent ahead."""

    def copy(self, chunk: LogChunk) -> None:
        """Send a piece ahead, which may be lost."""

    def send(self, message: LogChunk | LogGap) -> None:
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

    __slots__ = ("ended", "look", "outputs", "pace", "shipments")

    def __init__(self, ref: AttemptRef, outputs: Outputs, *, known: bool) -> None:
        self.outputs = outputs
        self.shipments = (
            _Shipment(ref, STDOUT, outputs.stdout, is_probing=known),
            _Shipment(ref, STDERR, outputs.stderr, is_probing=known),
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
        # A thread of its own: a cut waits for the disk, and the loop's threads may be busy for long.
        self._cutter = ThreadPoolExecutor(1, thread_name_prefix="log-cuts")
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
        self._look_at(self._loop.time() + POLL_MIN_S, ref)

    def end(self, ref: AttemptRef) -> tuple[int, int]:
        """The attempt's process is gone; how much it wrote: (stdout, stderr)."""
        attempt = self._attempts.get(ref)
        if attempt is None:  # nobody wants its log any more
            return 0, 0
        attempt.ended = True
        self._look_at_files(attempt)
        stdout, stderr = (shipment.output.size for shipment in attempt.shipments)
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

    def keep(self, ceiling_bytes: int) -> None:
        """The master says how much of an attempt's outputs is kept."""
        self._ceiling_bytes = max(LOG_BYTES_PER_ATTEMPT_MIN, ceiling_bytes)
        for attempt in self._attempts.values():
            attempt.outputs.ceiling_bytes = self._ceiling_bytes

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
        outputs = Outputs(stdout, stderr, self._ceiling_bytes, known=known)
        self._attempts[ref] = _Attempt(ref, outputs, known=known)
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
            grown = self._look_at_files(attempt)
            if grown:
                self._offer(attempt)
            pause_s = max(attempt.pace.seen(grown=grown), len(self._attempts) * _LOOK_S)
            self._look_at(now_s + pause_s, ref)
        if self._looks and self._timer is None:
            self._set_timer(self._looks[0][0])

    def _look_at_files(self, attempt: _Attempt) -> bool:
        """Whether there is more; what there is too much of is cut out."""
        at_ms = self._now_ms()
        is_grown = False
        for shipment in attempt.shipments:
            before = shipment.output.size
            if shipment.output.look(at_ms):
                is_grown = True
                self._copy(shipment, before, at_ms)
        if not is_grown:
            return False
        for output, cut in attempt.outputs.too_much().items():
            done = self._loop.run_in_executor(self._cutter, carry_out, cut)
            done.add_done_callback(functools.partial(_cut, output, cut))
        return True

    def _copy(self, shipment: _Shipment, offset: int, at_ms: int) -> None:
        """Send ahead what is new, if all before it has left: else a follower could not use it."""
        link, output = self._link, shipment.output
        length = output.size - offset
        is_next = shipment.sent >= offset and not shipment.is_probing
        if link is None or not link.takes_copies or not is_next or length > _COPIED_BYTES:
            return
        data = output.read(offset, length)
        if data:
            link.copy(LogChunk(shipment.ref, shipment.number, offset, at_ms, data))

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
        self._cutter.shutdown(wait=False, cancel_futures=True)

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
        if shipment.allowed <= 0:
            return
        output, offset, now_ms = shipment.output, shipment.sent, self._now_ms()
        behind = output.behind_hole(offset)
        if behind > offset:
            self._send_gap(link, shipment, behind)
            return
        seen_at_ms, end = output.seen_at(offset, now_ms)
        length = min(shipment.allowed, BULK_CHUNK_BYTES, end - offset)
        data = output.read(offset, length)
        if output.behind_hole(offset) > offset:
            return  # cut out meanwhile: what was read may be zeros
        if not data:
            output.look(now_ms)  # somebody has cut the file: less is there than was seen
            if output.readable > offset:
                output.give_up(offset)
            return
        if shipment.is_probing:
            self._asking[shipment] = None
        link.send(LogChunk(shipment.ref, shipment.number, offset, seen_at_ms, data))
        shipment.sent += len(data)

    def _send_gap(self, link: LogLink, shipment: _Shipment, behind: int) -> None:
        if not link.takes_gaps:
            # A master of before this was possible waits for every byte: it gets what is whole.
            shipment.output.give_up(shipment.sent)
            return
        seen_at_ms, _ = shipment.output.seen_at(behind, self._now_ms())
        if shipment.is_probing:
            self._asking[shipment] = None
        link.send(LogGap(shipment.ref, shipment.number, behind, seen_at_ms))
        shipment.sent = behind


def _cut(output: Output, cut: Cut, done: asyncio.Future[bool]) -> None:
    """The hole is made, or there can be none."""
    if not done.cancelled() and not done.result():
        output.cut_short(cut)
