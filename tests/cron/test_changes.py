"""The default run: each rule's changes of two years, with the schedules that a change can hit."""

from __future__ import annotations

import pytest

from tests.cron.brute import Schedule, minutes
from tests.cron.campaign import FIRST_YEAR, YEAR_MS, Found, compare, fired, near_changes

NEAR = (
    "* * * * *",
    "*/10 0-3 * * *",
    "0 * * * *",
    "15,45 */2 * * *",
    "30 0 * * *",
    "0 2 * * *",
    "30 2 * * *",
    "0,30 1-3 * * *",
    "59 23 * * *",
)


def test_near_every_change_of_clocks_it_is_what_a_scan_of_all_minutes_finds() -> None:
    """Every zone of the database, one of each rule, for two years."""
    found = Found()
    near_changes(found, FIRST_YEAR, FIRST_YEAR + 2 * YEAR_MS, NEAR)
    assert found.wrong == []
    assert found.rules > 60
    assert found.changes > 100


@pytest.mark.parametrize("zone", ["America/New_York", "Australia/Lord_Howe", "UTC"])
def test_a_month_of_all_minutes(zone: str) -> None:
    """With every schedule of the full run, in a month that has a change."""
    first = 1_790_985_600_000 // 60_000  # from the third of October 2026
    compared, wrong = compare(zone, first, first + 43_200)
    assert wrong == []
    assert compared > 50_000


def test_the_scan_can_fail() -> None:
    """A fixed time is fired once where the clock shows it twice; a rhythm twice."""
    first = 1_793_491_200_000 // 60_000  # the first of November 2026, America/New_York
    scanned = list(minutes("America/New_York", first, first + 1440))
    assert len(fired(Schedule("30 1 * * *"), scanned)) == 1
    assert len(fired(Schedule("30 * * * *"), scanned)) == 24
    assert sum(minute.again for minute in scanned) == 60
