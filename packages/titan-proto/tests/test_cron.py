"""When a schedule fires. Every change of clocks is compared with a scan of all minutes in tests/cron."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan_proto import cron
from titan_proto.cron import BadCron, parse
from titan_proto.limits import CRON_CHARS

NEW_YORK = "America/New_York"


def ms(text):
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def walls(text, zone, after, count):
    """The next times, as the zone's own clock shows them."""
    times, at_ms, found = parse(text, zone), ms(after), []
    for _ in range(count):
        at_ms = times.next_ms(at_ms)
        local = datetime.fromtimestamp(at_ms / 1000, cron.find_zone(zone))
        found.append(local.strftime("%m-%d %H:%M %Z"))
    return found


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        # what the clock skips
        ("30 2 * * *", "2026-03-07T12:00-05:00", ["03-08 03:00 EDT", "03-09 02:30 EDT"]),
        (
            "*/30 * * * *",
            "2026-03-08T01:00-05:00",
            ["03-08 01:30 EST", "03-08 03:00 EDT", "03-08 03:30 EDT"],
        ),
        (
            "0,30 2,3 * * *",
            "2026-03-08T01:00-05:00",
            ["03-08 03:00 EDT", "03-08 03:30 EDT", "03-09 02:00 EDT"],
        ),
        ("0 */2 * * *", "2026-03-08T00:30-05:00", ["03-08 04:00 EDT"]),
        # what it shows twice
        ("30 1 * * *", "2026-10-31T12:00-04:00", ["11-01 01:30 EDT", "11-02 01:30 EST"]),
        (
            "*/30 * * * *",
            "2026-11-01T00:45-04:00",
            ["11-01 01:00 EDT", "11-01 01:30 EDT", "11-01 01:00 EST", "11-01 01:30 EST"],
        ),
        (
            "0 * * * *",
            "2026-11-01T00:30-04:00",
            ["11-01 01:00 EDT", "11-01 01:00 EST", "11-01 02:00 EST"],
        ),
        # asked in the second of two equal hours, a fixed time of that hour is over
        ("30 1 * * *", "2026-11-01T01:10-05:00", ["11-02 01:30 EST"]),
        # day and weekday: either, unless one of them begins with a star
        ("0 0 13 * 5", "2026-11-07T00:00-05:00", ["11-13 00:00 EST", "11-20 00:00 EST"]),
        ("0 0 */13 * 5", "2026-11-07T00:00-05:00", ["11-27 00:00 EST"]),
        ("@daily", "2026-11-07T12:00-05:00", ["11-08 00:00 EST"]),
        ("@hourly", "2026-11-07T12:00-05:00", ["11-07 13:00 EST"]),
        ("@weekly", "2026-11-07T12:00-05:00", ["11-08 00:00 EST", "11-15 00:00 EST"]),
        ("@monthly", "2026-11-07T12:00-05:00", ["12-01 00:00 EST"]),
        ("@YEARLY", "2026-11-07T12:00-05:00", ["01-01 00:00 EST"]),
        ("0 6 L * *", "2026-11-07T12:00-05:00", ["11-30 06:00 EST"]),
        ("0 6 * jan-mar mon#1", "2026-11-07T12:00-05:00", ["01-04 06:00 EST"]),
    ],
)
def test_in_new_york(text, after, expected):
    assert walls(text, NEW_YORK, after, len(expected)) == expected


def test_clocks_that_change_by_half_an_hour_or_at_midnight():
    # Lord Howe, 4 April 2027: 02:00 is 01:30 again. Santiago, 6 September 2026: 00:00 is 01:00.
    assert walls("*/20 2 * * *", "Australia/Lord_Howe", "2027-04-03T15:29+00:00", 3) == [
        "04-04 02:00 +1030",
        "04-04 02:20 +1030",
        "04-04 02:40 +1030",
    ]
    assert walls("*/30 */2 * * *", "America/Santiago", "2026-09-06T03:30+00:00", 1) == [
        "09-06 02:00 -03"
    ]
    assert walls("0 0 * * *", "America/Santiago", "2026-09-05T05:00+00:00", 2) == [
        "09-06 01:00 -03",
        "09-07 00:00 -03",
    ]


def test_equal_steps_take_no_notice_of_clocks():
    times = parse("@every 1h30m", NEW_YORK, anchor_ms=1_000)
    step = 90 * 60_000
    assert times.next_ms(0) == 1_000 + step  # its first step comes after the anchor
    assert times.next_ms(1_000 + step - 1) == 1_000 + step
    assert times.next_ms(1_000 + step) == 1_000 + 2 * step
    assert times.last_ms(1_000 + 5 * step + 7, 0) == 1_000 + 5 * step
    assert times.last_ms(1_000 + 5 * step, 1_000 + 5 * step) is None
    assert times.last_ms(1_000, 0) is None
    assert times.words() == "Every 1 hour 30 minutes"
    assert parse("@every 1s").words() == "Every second"
    assert parse("@every 2d").words() == "Every 2 days"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("*/5 * * * * *", "has six", "no field for seconds"),
        ("* * * *", "has not five fields but 4", "minute hour"),
        ("", "is empty", "minute hour"),
        ("60 * * * *", '"60" is no minute', "0 to 59"),
        ("* 24 * * *", '"24" is no hour', "0 to 23"),
        ("* * 0 * *", '"0" is no day of month', "1 to 31"),
        ("* * * 13 *", '"13" is no month', "1 to 12"),
        ("* * * * FRY", '"FRY" is no day of week', "SUN to SAT"),
        ("*/0 * * * *", '"*/0" is no minute', "0 to 59"),
        ("0 0 31 2 *", "never fires", "minute hour"),
        ("0 0 31 4,6,9,11 *", "never fires", "minute hour"),
        ("@dayly", "is no macro", 'did you mean "@daily"?'),
        ("@reboot", "means nothing here", "minute hour"),
        ("@every", "does not say how often", "@every 30s"),
        ("@every 5", "does not say how often", "@every 30s"),
        ("@every 0s", "is out of range", "1s (EVERY_MS_MIN)"),
        ("@every 400d", "is out of range", "366d (EVERY_MS)"),
        ("0 0 * * *" + " " * CRON_CHARS + "x", "CRON_CHARS (256)", "minute hour"),
    ],
)
def test_what_means_nothing_is_refused_with_the_reason(text, message, hint):
    with pytest.raises(BadCron) as caught:
        parse(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/berlin", 'did you mean "Europe/Berlin"?'),
        ("../../etc/passwd", "a name such as Europe/Berlin"),
        ("", "a name such as Europe/Berlin"),
        ("localtime", "a name such as Europe/Berlin"),
    ],
)
def test_a_zone_that_is_none_is_refused(zone, hint):
    with pytest.raises(BadCron) as caught:
        parse("@daily", zone)
    assert "is no time zone" in caught.value.message
    assert caught.value.hint == hint


def test_a_leap_day_comes_round():
    leap = parse("0 0 29 2 *")
    assert leap.next_ms(ms("2026-01-01T00:00+00:00")) == ms("2028-02-29T00:00+00:00")
    assert leap.next_ms(ms("2096-03-01T00:00+00:00")) == ms("2104-02-29T00:00+00:00")


def test_every_zone_can_be_read_and_tells_its_changes():
    assert len(cron.zones()) > 500
    for name in cron.zones():
        cron.find_zone(name)
    found = cron.changes(
        cron.find_zone(NEW_YORK), ms("2026-01-01T00:00+00:00"), ms("2027-01-01T00:00+00:00")
    )
    assert found == [
        (ms("2026-03-08T02:00-05:00"), -5 * 3600, -4 * 3600),
        (ms("2026-11-01T02:00-04:00"), -4 * 3600, -5 * 3600),
    ]


FIELDS = st.tuples(
    st.sampled_from(["*", "*/7", "0", "30", "5,25", "59"]),
    st.sampled_from(["*", "*/5", "0", "1-3", "2", "23"]),
    st.sampled_from(["*", "1", "*/10", "28-31", "L"]),
    st.sampled_from(["*", "3", "10,11", "JAN-JUN"]),
    st.sampled_from(["*", "SUN", "1-5", "*/2"]),
)
ZONES = st.sampled_from(["UTC", NEW_YORK, "Australia/Lord_Howe", "America/Santiago", "Asia/Gaza"])


@given(FIELDS, ZONES, st.integers(0, 10 * 365 * 1440))
def test_times_grow_and_the_last_one_before_is_the_one_that_came(fields, zone, minute):
    times = parse(" ".join(fields), zone)
    first = ms("2026-01-01T00:00+00:00") + minute * 60_000
    moments = [first]
    for _ in range(4):
        at_ms = times.next_ms(moments[-1])
        assert at_ms is not None
        assert at_ms > moments[-1]
        assert at_ms % 60_000 == 0
        moments.append(at_ms)
    assert times.last_ms(moments[-1], first) == moments[-1]
    assert times.last_ms(moments[-1] - 1, first) == moments[-2]
    assert times.last_ms(moments[1] - 1, first) is None
    assert times.words()
    # None of these days is rarer than a last of March that is also a Sunday.
    assert moments[-1] - first < timedelta(days=40 * 366).total_seconds() * 1000
