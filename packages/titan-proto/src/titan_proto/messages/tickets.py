"""Messages about tickets: a word that is good once, for whoever opens the dashboard with it."""

from __future__ import annotations

from typing import ClassVar

from titan_proto.messages.base import Message, Request
from titan_proto.opcodes import OpCode


class TicketIssued(Message, frozen=True, kw_only=True):
    """The ticket. The master keeps no copy from which it could be told again."""

    OPCODE: ClassVar[OpCode] = OpCode.TICKET_ISSUED
    ticket: str
    good_for_ms: int
    """So long, unless it is redeemed before, or the master is started again."""


class IssueTicket(Request[TicketIssued], frozen=True, kw_only=True):
    """Ask for one, good for whoever redeems it to be who asks."""

    OPCODE: ClassVar[OpCode] = OpCode.ISSUE_TICKET


class TicketRedeemed(Message, frozen=True, kw_only=True):
    """It was good, and is not any more."""

    OPCODE: ClassVar[OpCode] = OpCode.TICKET_REDEEMED
    role: str
    """Of who asked for it ..."""
    name: str
    """... and the public id of that one's token."""


class RedeemTicket(Request[TicketRedeemed], frozen=True, kw_only=True):
    """Give one in. One that was used, is too old or never was is NOT_FOUND."""

    OPCODE: ClassVar[OpCode] = OpCode.REDEEM_TICKET
    ticket: str
