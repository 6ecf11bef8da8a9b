"""Which exchanges are open on one link, and which ids are next.

An exchange is one request and all its replies, joined by a correlation id. The dialler draws odd
ids, the listener even ones, both upwards, so an id at or below the highest one seen that is not
open has ended: what still arrives for it is late, not wrong. An exchange ends when the side that
did *not* open it sends a frame with END, or when the side that opened it sends Cancel.

Called by `connection` alone. It knows nothing of messages.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from titan_proto.errors import LocalProtocolError, RemoteProtocolError
from titan_proto.frame import CORRELATION_MAX
from titan_proto.limits import EXCHANGES_PER_LINK


class Arrival(Enum):
    """What a frame with a correlation id is, seen from the side that received it."""

    REPLY = auto()
    """Of an exchange that we opened."""
    OPENING = auto()
    """The first frame of an exchange that the peer opens."""
    CONTINUED = auto()
    """One more of those."""
    LATE = auto()
    """Of an exchange that has ended."""
    TOO_MANY = auto()
    """An opening beyond what a link may have open."""


class Exchanges:
    """The open exchanges of one connection."""

    def __init__(self, *, is_dialler: bool) -> None:
        self._mine: set[int] = set()
        self._theirs: set[int] = set()
        self._mine_parity: Final = 1 if is_dialler else 0
        self._next = 1 if is_dialler else 2
        self._theirs_highest = 0

    def open(self) -> int:
        """A new exchange of ours."""
        if len(self._mine) >= EXCHANGES_PER_LINK:
            raise LocalProtocolError(f"EXCHANGES_PER_LINK ({EXCHANGES_PER_LINK}) are open already")
        if self._next > CORRELATION_MAX:
            raise LocalProtocolError("the link has used up its correlation ids; dial a new one")
        correlation = self._next
        self._next += 2
        self._mine.add(correlation)
        return correlation

    def is_open(self, correlation: int) -> bool:
        """Whether something may still be said in it."""
        return correlation in self._mine or correlation in self._theirs

    def is_mine(self, correlation: int) -> bool:
        """Whether it is an id that this side draws."""
        return correlation & 1 == self._mine_parity

    def arrive(self, correlation: int, *, may_open: bool) -> Arrival:
        """File a frame that came in; `may_open` is False for what never begins an exchange."""
        if correlation in self._mine:
            return Arrival.REPLY
        if correlation in self._theirs:
            return Arrival.CONTINUED
        if self.is_mine(correlation):
            if correlation >= self._next:
                raise RemoteProtocolError(f"a reply to exchange {correlation}, never opened")
            return Arrival.LATE
        if correlation <= self._theirs_highest or not may_open:
            return Arrival.LATE
        self._theirs_highest = correlation
        if len(self._theirs) >= EXCHANGES_PER_LINK:
            return Arrival.TOO_MANY
        self._theirs.add(correlation)
        return Arrival.OPENING

    def may_send(self, correlation: int) -> bool:
        """Whether the exchange is open; False for one that has ended, which is nobody's fault.

        Raises LocalProtocolError for an id that was never in use.
        """
        if correlation in self._theirs or correlation in self._mine:
            return True
        ever = self._next - 1 if self.is_mine(correlation) else self._theirs_highest
        if not 0 < correlation <= ever:
            raise LocalProtocolError(f"exchange {correlation} was never opened")
        return False

    def end(self, correlation: int) -> None:
        """Nothing more belongs to it; what still arrives is late."""
        self._mine.discard(correlation)
        self._theirs.discard(correlation)
