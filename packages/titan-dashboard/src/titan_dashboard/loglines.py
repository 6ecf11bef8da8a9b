"""Lines out of pieces of a log, as far as they can be told for good. Pure.

A log is read from a position to what is there by now. A line that is not ended yet is told as open,
and so is all that came after it began: the position stands before it, and it comes again, longer,
with the next read. So nothing is lost or told twice, however the two outputs are woven together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from titan_proto.messages import LogPiece

READ_BYTES: Final = 1024 * 1024
"""About so much is told at once."""
_FORCED_BYTES: Final = 4 * READ_BYTES
"""Without a place at which all lines are ended, lines are broken after so much."""
LINE_CHARS: Final = 10_000
"""What is longer is cut: the download has it all."""
NOTICE: Final = 0
"""In place of a stream: a line of the dashboard's own."""


class Line(Struct, frozen=True, array_like=True):
    """An array on the wire, for there are many."""

    stream: int
    seen_at_ms: int
    text: str
    cut: int = 0
    """So many characters of it are left out."""


class Lines(Struct, frozen=True, kw_only=True):
    """What a read came to."""

    at: int
    """Where the next one begins."""
    lines: list[Line]
    """Told for good."""
    open: list[Line]
    """Told for now."""
    more: bool
    """Whether there is more by now."""


def read(pieces: Iterable[LogPiece], at: int, limit: int = READ_BYTES) -> Lines:
    """Lines from `at` on, of about `limit` bytes."""
    lines: list[Line] = []
    carry: dict[int, tuple[int, bytes]] = {}
    safe, safe_at, last_at, size = 0, at, at, 0
    for piece in pieces:
        last_at = piece.position
        size += len(piece.data)
        if piece.dropped:
            seen, rest = carry.pop(piece.stream, (0, b""))
            if rest:
                lines.append(_line(piece.stream, seen, rest))
            text = f"[titan] {piece.dropped} bytes dropped"
            lines.append(Line(NOTICE, piece.seen_at_ms, text))
        else:
            _take(lines, carry, piece)
        if not carry:
            safe, safe_at = len(lines), last_at
        if size >= limit and (safe_at > at or size >= _FORCED_BYTES):
            break
    else:
        rest_of_all = [_line(stream, seen, rest) for stream, (seen, rest) in carry.items()]
        return Lines(at=safe_at, lines=lines[:safe], open=[*lines[safe:], *rest_of_all], more=False)
    if safe_at > at:
        return Lines(at=safe_at, lines=lines[:safe], open=[], more=True)
    lines += [_line(stream, seen, rest) for stream, (seen, rest) in carry.items()]
    return Lines(at=last_at, lines=lines, open=[], more=True)


def _take(lines: list[Line], carry: dict[int, tuple[int, bytes]], piece: LogPiece) -> None:
    seen, rest = carry.pop(piece.stream, (piece.seen_at_ms, b""))
    *ended, last = piece.data.split(b"\n")
    for part in ended:
        lines.append(_line(piece.stream, seen, rest + part))
        seen, rest = piece.seen_at_ms, b""
    if rest + last:
        carry[piece.stream] = (seen, rest + last)


def _line(stream: int, seen_at_ms: int, data: bytes) -> Line:
    # Four bytes are the most that a character takes.
    text = data[: 4 * LINE_CHARS].decode("utf-8", "replace").removesuffix("\r")
    cut = max(0, len(data) - 4 * LINE_CHARS) + max(0, len(text) - LINE_CHARS)
    return Line(stream, seen_at_ms, text[:LINE_CHARS], cut)
