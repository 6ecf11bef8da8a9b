"""Lines out of pieces: none torn, none twice, each with its place and its time."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan_proto.messages import STDERR, STDOUT, LogPiece, ReadLog
from titan_sdk.errors import InvalidSpec
from titan_sdk.loglines import (
    LINE_BYTES,
    Line,
    Seen,
    Wanted,
    bytes_of,
    chosen,
    pattern_of,
    since_ms_of,
    whole_lines,
)

UTC = datetime.timezone.utc
NOW = datetime.datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def piece(offset, data=b"", *, stream=STDOUT, at=5, dropped=0, position=0):
    return LogPiece(1, stream, position, data, offset, at, dropped)


def test_a_line_knows_where_it_begins_and_when_its_beginning_was_seen():
    lines = list(
        whole_lines(
            "A", [piece(0, b"one\ntw", at=5), piece(6, b"o\n", at=6), piece(8, b"end", at=7)]
        )
    )
    assert lines == [
        Line("A", b"one\n", 1, STDOUT, 0, 5),
        Line("A", b"two\n", 1, STDOUT, 4, 5),
        Line("A", b"end", 1, STDOUT, 8, 7),
    ]


def test_a_line_of_one_output_is_not_torn_by_one_of_the_other():
    lines = whole_lines("A", [piece(0, b"o"), piece(0, b"e\n", stream=STDERR), piece(1, b"ut\n")])
    assert [(line.stream, line.data) for line in lines] == [(STDERR, b"e\n"), (STDOUT, b"out\n")]


def test_what_was_dropped_is_a_line_of_its_own_behind_what_was_begun():
    lines = list(whole_lines("A", [piece(0, b"beg"), piece(3, dropped=97), piece(100, b"end\n")]))
    assert [(line.data, line.offset, line.dropped) for line in lines] == [
        (b"beg", 0, 0),
        (b"[titan] 97 bytes dropped\n", 3, 97),
        (b"end\n", 100, 0),
    ]
    whole = b"".join(bytes_of([piece(0, b"beg"), piece(3, dropped=97), piece(100, b"end\n")]))
    assert whole == b"beg\n[titan] 97 bytes dropped\nend\n"


def test_a_line_without_end_takes_only_so_much_memory():
    """It is told in parts that make the whole."""
    parts = [piece(n * 65_536, b"x" * 65_536) for n in range(40)]
    lines = list(whole_lines("A", parts))
    assert all(len(line.data) < LINE_BYTES + 65_536 for line in lines)
    assert b"".join(line.data for line in lines) == b"x" * (40 * 65_536)
    assert lines[1].offset == len(lines[0].data)


@given(cuts=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20)), max_size=30))
def test_of_what_comes_again_only_what_is_new_is_handed_on(cuts):
    """Pieces that overlap as they like, and leave no gap: every byte once, none missing."""
    text = bytes(range(60))
    seen, got, end = Seen(), b"", 0
    for offset, length in cuts:
        if offset > end:
            continue
        end = max(end, offset + length)
        fresh = seen.fresh(piece(offset, text[offset : offset + length]))
        got += fresh.data if fresh else b""
    assert got == text[:end]


def test_a_link_that_broke_gives_nothing_twice(master, client):
    """What a follower was given ahead of the stored copy has no place of its own to go on from."""
    master.answers[ReadLog] = lambda request: (
        [piece(0, b"one\n", position=0), piece(4, b"two\n", position=8), "cut"]
        if not request.position
        else [piece(0, b"one\ntwo\nthree\n", position=14)]
    )
    text = b"".join(found.data for found in client.read_log("run-1", "TASK", follow=True))
    assert text == b"one\ntwo\nthree\n"


def test_the_last_lines_are_those_in_which_something_is_found():
    lines = [Line("A", b"%d\n" % n, 1, STDOUT) for n in range(30)]
    wanted = Wanted(lines=2, grep=pattern_of("1$"))
    assert wanted.tail_lines == 0
    assert [line.data for line in chosen(lines, wanted, live=False)] == [b"11\n", b"21\n"]


@pytest.mark.parametrize(
    ("since", "ago_s"),
    [
        ("10m", 600),
        (90, 90),
        (datetime.timedelta(hours=1), 3600),
        ("2026-07-01T11:59:00Z", 60),
        ("2026-07-01T13:59:00+02:00", 60),
        (datetime.datetime(2026, 7, 1, 11, tzinfo=UTC), 3600),
    ],
)
def test_a_point_in_time_may_be_said_in_many_ways(since, ago_s):
    assert since_ms_of(since, NOW) == int(NOW.timestamp() - ago_s) * 1000


def test_a_time_of_the_day_is_the_last_one_of_that_name():
    """By the local clock."""
    local = NOW.astimezone()
    for minutes in (-5, 5):
        at = local + datetime.timedelta(minutes=minutes)
        found = since_ms_of(at.strftime("%H:%M"), NOW) / 1000
        assert 0 <= NOW.timestamp() - found <= 24 * 3600
    assert since_ms_of(None, NOW) == 0


@pytest.mark.parametrize("text", ["", "soon", "25:00", "10 parsecs"])
def test_what_is_no_point_in_time_is_refused_with_examples(text):
    with pytest.raises(InvalidSpec, match="10m"):
        since_ms_of(text, NOW)


def test_what_is_no_regular_expression_is_refused():
    with pytest.raises(InvalidSpec, match="grep"):
        pattern_of("(")
