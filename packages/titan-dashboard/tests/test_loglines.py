"""Lines of a log: each once and whole, however it was cut and however often it was asked for."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from titan_dashboard.loglines import LINE_CHARS, NOTICE, Line, read
from titan_dashboard.views.logs import clean
from titan_proto.messages import STDERR, STDOUT, LogPiece


def pieces(parts: list[tuple[int, bytes]], dropped: int = 0) -> list[LogPiece]:
    """What a master would send: positions grow by the bytes of both outputs."""
    made, at, ends = [], 0, {STDOUT: 0, STDERR: 0}
    for stream, data in parts:
        at += len(data)
        made.append(LogPiece(1, stream, at, data, ends[stream], 1_000 + at, 0))
        ends[stream] += len(data)
    if dropped:
        made.append(LogPiece(1, STDOUT, at + dropped, b"", ends[STDOUT], 1_000 + at, dropped))
    return made


def after(log: list[LogPiece], at: int) -> Iterator[LogPiece]:
    return (piece for piece in log if piece.position > at)


def texts(lines: list[Line], stream: int) -> list[str]:
    return [line.text for line in lines if line.stream == stream]


OUTPUT = st.lists(
    st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(min_size=1, max_size=12).map(
        lambda data: bytes(b"ab\n"[byte % 3] for byte in data)
    )),
    max_size=30,
)  # fmt: skip


@given(OUTPUT, st.integers(1, 40), st.lists(st.integers(0, 30), max_size=5))
def test_each_line_is_told_once_in_its_order(
    parts: list[tuple[int, bytes]], limit: int, grown: list[int]
) -> None:
    """The log grows between reads; what was told for good, with what is open, is always all of it."""
    log = pieces(parts)
    told: list[Line] = []
    at = 0
    for there in [*sorted(grown), len(log), len(log)]:
        more = True
        while more:
            found = read(after(log[:there], at), at, limit)
            told += found.lines
            at, more = found.at, found.more
        for stream in (STDOUT, STDERR):
            written = b"".join(data for one, data in parts[:there] if one == stream)
            lines = written.decode().split("\n")
            if not lines[-1]:
                lines.pop()
            assert texts([*told, *found.open], stream) == lines


def test_a_line_that_never_ends_is_broken_and_does_not_stand_still() -> None:
    log = pieces([(STDOUT, b"x" * 100) for _ in range(200)])
    found = read(after(log, 0), 0, 1_000)
    assert found.lines == []
    assert len(found.open) == 1
    forced = read(iter(pieces([(STDOUT, b"x" * 65_536) for _ in range(80)])), 0)
    assert forced.more
    assert forced.at > 0
    assert len(forced.lines) == 1


def test_a_long_line_is_cut_and_says_by_how_much() -> None:
    (line,) = read(iter(pieces([(STDOUT, b"y" * (LINE_CHARS + 7) + b"\n")])), 0).lines
    assert (len(line.text), line.cut) == (LINE_CHARS, 7)


def test_what_was_dropped_stands_as_a_line_of_its_own() -> None:
    found = read(iter(pieces([(STDOUT, b"whole\nhalf")], dropped=99)), 0)
    assert [(line.stream, line.text) for line in found.lines] == [
        (STDOUT, "whole"),
        (STDOUT, "half"),
        (NOTICE, "[titan] 99 bytes dropped"),
    ]


def test_bytes_that_are_no_text_are_told_as_such() -> None:
    (line,) = read(iter(pieces([(STDOUT, b"\xff\xfe ok\r\n")])), 0).lines
    assert line.text == "\ufffd\ufffd ok"


def test_without_a_script_only_letters_are_left() -> None:
    assert clean("\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x08!\x1b") == (
        "red link!"
    )
