"""Tickets: each is good once, for a while, and for nobody who only guesses."""

from __future__ import annotations

import re

from titan_master.data.tickets import TicketDesk
from titan_proto.limits import TICKET_MS, TICKETS
from titan_proto.messages import TicketRedeemed

WHO = TicketRedeemed(role="admin", name="ann")


class Clock:
    now_ms = 1_000


def desk() -> TicketDesk:
    Clock.now_ms = 1_000
    return TicketDesk(lambda: Clock.now_ms)


def test_a_ticket_is_good_once_and_for_who_asked_for_it():
    made = desk()
    issued = made.issue("admin", "ann")
    assert re.fullmatch(r"[0-9a-f]{32}", issued.ticket)
    assert issued.good_for_ms == TICKET_MS == 600_000
    assert made.redeem(issued.ticket) == WHO
    assert made.redeem(issued.ticket) is None


def test_two_tickets_are_two():
    made = desk()
    first, second = made.issue("admin", "ann"), made.issue("admin", "bob")
    assert first.ticket != second.ticket
    assert made.redeem(second.ticket) == TicketRedeemed(role="admin", name="bob")
    assert made.redeem(first.ticket) == WHO


def test_a_ticket_that_is_too_old_is_not_good():
    made = desk()
    old, young = made.issue("admin", "ann"), None
    Clock.now_ms += TICKET_MS - 1
    young = made.issue("admin", "ann")
    Clock.now_ms += 1
    assert made.redeem(old.ticket) is None
    assert made.redeem(young.ticket) == WHO


def test_there_is_an_end_to_how_many_there_are():
    made = desk()
    tickets = [made.issue("admin", "ann").ticket for _ in range(TICKETS + 1)]
    assert made.redeem(tickets[0]) is None
    assert made.redeem(tickets[1]) == WHO


def test_what_is_no_ticket_is_not_good():
    made = desk()
    made.issue("admin", "ann")
    for text in ("", "0" * 32, "x" * 100_000, "\ud800"[:0]):
        assert made.redeem(text) is None


def test_no_ticket_can_be_read_out_of_the_desk():
    made = desk()
    ticket = made.issue("admin", "ann").ticket
    assert ticket not in repr(vars(made))
