"""A link without a socket, for those who only write to one."""

from __future__ import annotations

import asyncio
import itertools

from titan_proto.errors import LinkLost
from titan_proto.messages import AnyMessage

_NUMBERS = itertools.count(1)


class FakeOutlet:
    """Collects what is sent; `room` is how many bulk bytes it takes before it is full."""

    def __init__(self, room: int = 1 << 40) -> None:
        self.link_id = next(_NUMBERS)
        self.room = room
        self.sent: list[tuple[AnyMessage, int, bool]] = []
        self.is_gone = False
        self._changed = asyncio.Event()

    def send(self, message: AnyMessage, correlation: int = 0, *, end: bool = False) -> None:
        self.sent.append((message, correlation, end))
        self.room -= len(getattr(message, "data", b""))
        self._changed.set()

    def has_bulk_room(self, wanted_bytes: int) -> bool:
        return self.room >= wanted_bytes

    async def bulk_room(self, wanted_bytes: int) -> None:
        await self.until(lambda: self.is_gone or self.room >= wanted_bytes)
        if self.is_gone:
            raise LinkLost("gone")

    def change(self, **what: object) -> None:
        """Set attributes, and wake who waits for them."""
        for name, value in what.items():
            setattr(self, name, value)
        self._changed.set()

    async def until(self, is_true) -> None:
        """Wait for a condition that sending or `change` may make true."""
        while not is_true():
            self._changed.clear()
            await self._changed.wait()

    async def ended(self) -> list[AnyMessage]:
        """Everything sent, once the exchange is over."""
        await asyncio.wait_for(self.until(lambda: self.sent and self.sent[-1][2]), 10)
        return [message for message, _, _ in self.sent]
