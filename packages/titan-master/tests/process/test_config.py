"""What an operator may write."""

from __future__ import annotations

import time
import types

import pytest

from titan_master.clock import JUMP_MS, SystemClock
from titan_master.config import (
    BadConfig,
    parse_disk_reserve,
    parse_duration,
    parse_listen,
    parse_log_cap,
    parse_lost_after,
)
from titan_proto.io.address import Address


@pytest.mark.parametrize(
    ("text", "ms"), [("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("1.5h", 5_400_000)]
)
def test_durations(text, ms):
    """A number and a unit."""
    assert parse_duration(text) == ms


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1d", "1 s", "1e3s"])
def test_what_is_no_duration(text):
    """Is refused with an example."""
    with pytest.raises(BadConfig, match="30s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["50ms", "25h"])
def test_a_lease_within_reason(text):
    """Neither so short that everybody is always lost, nor so long that nobody ever is."""
    with pytest.raises(BadConfig):
        parse_lost_after(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("64MiB", 64 << 20), ("512 KiB", 512 << 10), ("2GiB", 2 << 30)]
)
def test_how_much_is_held_in_reserve(text, size_bytes):
    """A number and a unit."""
    assert parse_disk_reserve(text) == size_bytes


@pytest.mark.parametrize("text", ["", "64", "64MB", "-1MiB", "1.5GiB", "63KiB", "1025GiB"])
def test_what_is_no_reserve(text):
    """Refused in words, out of range as well."""
    with pytest.raises(BadConfig, match=r"MiB|between"):
        parse_disk_reserve(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9090", ("127.0.0.1", 9090)),
        ("localhost", ("localhost", 9090)),
        (":8000", ("127.0.0.1", 8000)),
        (":0", ("127.0.0.1", 0)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:0", ("::1", 0)),
        ("[::1]:9090", ("::1", 9090)),
    ],
)
def test_where_to_listen(text, address):
    """Host, port, or both; 0 is any free port."""
    assert parse_listen(text) == Address(*address)


@pytest.mark.parametrize("text", ["x:y", "", "a b:1", "h:70000"])
def test_what_is_no_address(text):
    """Is refused in words."""
    with pytest.raises(BadConfig):
        parse_listen(text)


@pytest.fixture
def shown(monkeypatch):
    """A machine whose wall and whose ticks are moved by hand."""
    shown = {"wall": 1_700_000_000_000, "ticks": 5_000}
    fake = types.SimpleNamespace(
        time_ns=lambda: shown["wall"] * 1_000_000,
        monotonic_ns=lambda: shown["ticks"] * 1_000_000,
    )
    monkeypatch.setattr("titan_master.clock.time", fake)
    return shown


def test_the_clock_does_not_notice_that_the_wall_is_set_back(shown):
    clock = SystemClock()
    assert clock.now_ms() == 1_700_000_000_000
    shown["wall"] -= 86_400_000
    for _ in range(3):
        shown["ticks"] += 1_000
        shown["wall"] += 1_000
    assert clock.now_ms() == 1_700_000_003_000
    assert clock.jumps == 0


def test_the_clock_follows_a_wall_that_is_ahead_and_says_so(shown):
    """Set forward, or the machine slept: ticks have stood still, calendars have not."""
    clock = SystemClock()
    shown["wall"] += 8 * 3_600_000
    assert clock.now_ms() == clock.now_ms() == 1_700_000_000_000 + 8 * 3_600_000
    assert clock.jumps == 1
    shown["wall"] += JUMP_MS  # as much as clocks disagree
    assert clock.now_ms() == 1_700_000_000_000 + 8 * 3_600_000
    shown["wall"] -= 3_600_000
    shown["ticks"] += 500
    assert clock.now_ms() == 1_700_000_000_500 + 8 * 3_600_000
    assert clock.jumps == 1


def test_no_jump_comes_of_a_floor_that_the_wall_is_behind(shown):
    clock = SystemClock()
    clock.not_before(1_700_000_060_000)
    shown["wall"] += 30_000
    shown["ticks"] += 30_000
    assert clock.now_ms() == 1_700_000_090_000
    assert clock.jumps == 0


def test_the_clock_never_goes_back():
    """Not below a floor either; and it goes on from there, or no lease would ever end."""
    clock = SystemClock()
    first = clock.now_ms()
    clock.not_before(first + 60_000)
    floor = clock.now_ms()
    assert first + 60_000 <= floor < first + 70_000
    clock.not_before(first)
    assert clock.now_ms() >= floor
    deadline = time.monotonic() + 10
    while clock.now_ms() == floor:
        assert time.monotonic() < deadline, "time stands still"


def test_the_cap_of_logs_has_a_unit_and_bounds():
    assert parse_log_cap("256MiB") == 256 << 20
    for text in ("1", "1023KiB", "1025GiB"):
        with pytest.raises(BadConfig, match=r"log-cap|no size"):
            parse_log_cap(text)
