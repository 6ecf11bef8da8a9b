"""What waits to be written: two lanes, control before bulk, both with a ceiling in bytes.

Inside one exchange order is kept: a control frame that follows bulk frames of its own exchange
waits behind them, or a stream's Done would overtake the stream.

Holds finished frames, knows nothing of messages. Called by `connection` alone.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from titan_proto.errors import LocalProtocolError
from titan_proto.limits import OUTBOX_BULK_BYTES, OUTBOX_CONTROL_BYTES


class ControlFull(Exception):
    """The peer reads so slowly that even the control lane is full."""


class _Bulk(NamedTuple):
    correlation: int
    frame: bytes


class Outbox:
    """Frames on their way out."""

    def __init__(self) -> None:
        self._control: deque[bytes] = deque()
        self._bulk: deque[_Bulk] = deque()
        self._bulk_waiting: dict[int, int] = {}
        self.control_bytes = 0
        self.bulk_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """What waits in both lanes."""
        return self.control_bytes + self.bulk_bytes

    @property
    def bulk_room(self) -> int:
        """What the bulk lane still takes; while it is above zero one more frame fits."""
        return max(0, OUTBOX_BULK_BYTES - self.bulk_bytes)

    def put_control(self, frame: bytes, correlation: int = 0) -> None:
        """Queue a control frame, behind bulk of its own exchange if any waits.

        Without a correlation it may overtake everything. Raises ControlFull.
        """
        if correlation and correlation in self._bulk_waiting:
            self._append_bulk(frame, correlation)
            return
        if self.control_bytes + len(frame) > OUTBOX_CONTROL_BYTES:
            raise ControlFull
        self.put_last(frame)

    def put_last(self, frame: bytes) -> None:
        """Queue the link's last word, which the ceiling does not hold back."""
        self._control.append(frame)
        self.control_bytes += len(frame)

    def put_bulk(self, frame: bytes, correlation: int = 0) -> None:
        """Queue a bulk frame. The caller has looked at `bulk_room`; a full lane is its bug."""
        if self.bulk_bytes >= OUTBOX_BULK_BYTES:
            raise LocalProtocolError(
                f"the bulk lane holds OUTBOX_BULK_BYTES ({OUTBOX_BULK_BYTES}); "
                "ask bulk_room before sending"
            )
        self._append_bulk(frame, correlation)

    def take(self, max_bytes: int) -> bytes:
        """Whole frames, at most `max_bytes` of them together but at least one if any waits."""
        batch: list[bytes] = []
        room = max_bytes
        control, bulk = self._control, self._bulk
        while control and (not batch or len(control[0]) <= room):
            frame = control.popleft()
            self.control_bytes -= len(frame)
            room -= len(frame)
            batch.append(frame)
        while bulk and not control and (not batch or len(bulk[0].frame) <= room):
            correlation, frame = bulk.popleft()
            self.bulk_bytes -= len(frame)
            room -= len(frame)
            batch.append(frame)
            if correlation:
                self._forget(correlation)
        return batch[0] if len(batch) == 1 else b"".join(batch)

    def drop_bulk(self) -> None:
        """Forget the bulk lane: the link is about to end."""
        self._bulk.clear()
        self._bulk_waiting.clear()
        self.bulk_bytes = 0

    def drop_all(self) -> None:
        """Forget everything."""
        self.drop_bulk()
        self._control.clear()
        self.control_bytes = 0

    def _append_bulk(self, frame: bytes, correlation: int) -> None:
        self._bulk.append(_Bulk(correlation, frame))
        self.bulk_bytes += len(frame)
        if correlation:
            self._bulk_waiting[correlation] = self._bulk_waiting.get(correlation, 0) + 1

    def _forget(self, correlation: int) -> None:
        left = self._bulk_waiting[correlation] - 1
        if left:
            self._bulk_waiting[correlation] = left
        else:
            del self._bulk_waiting[correlation]
