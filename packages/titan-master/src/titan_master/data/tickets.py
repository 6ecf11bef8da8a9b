"""Tickets: a word of 128 bits that signs somebody in to the dashboard, once, for ten minutes.

Kept in memory alone and as a digest alone: a master that starts again knows none, and nobody who reads
its memory can use one. It never touches the core. Called by ``net/link.py`` on the loop.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import NamedTuple

from titan_proto.limits import TICKET_MS, TICKETS
from titan_proto.messages import TicketIssued, TicketRedeemed

_BYTES = 16


class _Ticket(NamedTuple):
    role: str
    name: str
    until_ms: int


class TicketDesk:
    """The tickets that are good now."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._tickets: dict[bytes, _Ticket] = {}

    def issue(self, role: str, name: str) -> TicketIssued:
        """One for this identity."""
        self._forget()
        while len(self._tickets) >= TICKETS:
            del self._tickets[next(iter(self._tickets))]
        ticket = secrets.token_hex(_BYTES)
        until_ms = self._now_ms() + TICKET_MS
        self._tickets[_digest(ticket)] = _Ticket(role, name, until_ms)
        return TicketIssued(ticket=ticket, good_for_ms=TICKET_MS)

    def redeem(self, ticket: str) -> TicketRedeemed | None:
        """Whose it was, if it was good; from now on it is not."""
        self._forget()
        found = self._tickets.pop(_digest(ticket), None)
        return None if found is None else TicketRedeemed(role=found.role, name=found.name)

    def _forget(self) -> None:
        """They are in the order of their end: those in front go first."""
        now_ms = self._now_ms()
        while self._tickets and next(iter(self._tickets.values())).until_ms <= now_ms:
            del self._tickets[next(iter(self._tickets))]


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode()).digest()
