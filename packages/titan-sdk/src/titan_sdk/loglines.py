"""Lines out of pieces of logs, and which of them are wanted.

Decides where a line begins and ends, what stands where bytes were dropped, and what a point in time
may be written as. Holds at most a line of each output. Knows no client: called by `following`, by the
client, and by `titan logs`.
"""

from __future__ import annotations

import datetime
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from titan_proto.durations import BadDuration, parse_duration
from titan_proto.messages import STDERR, LogData, LogPiece, LogStream
from titan_sdk.errors import InvalidSpec

Since = str | float | datetime.timedelta | datetime.datetime | None
"""A point in time, as programs may say it."""

LINE_BYTES: Final = 1024 * 1024
"""What is longer is told in parts, each as a line without an end."""


class Wanted(Struct, frozen=True, kw_only=True):
    """Which part of a log."""

    stream: LogStream = LogStream.BOTH
    attempt: int = 0
    """0: the newest."""
    lines: int = 0
    """Only the last so many; 0: all."""
    since_ms: int = 0
    """Only what the worker saw then or later; 0: all."""
    grep: re.Pattern[str] | None = None
    """Only lines in which this is found."""

    @property
    def tail_lines(self) -> int:
        """How many lines from the end are asked of the master, where it can tell."""
        return 0 if self.grep else self.lines


def make_wanted(
    stream: str = "both",
    *,
    attempt: int = 0,
    lines: int = 0,
    since: Since = None,
    grep: str | None = None,
) -> Wanted:
    """Which part of a log these arguments of calls and options mean. Raises InvalidSpec."""
    if attempt < 0 or lines < 0:
        raise InvalidSpec(f"attempt ({attempt}) and lines ({lines}) count from 0")
    return Wanted(
        stream=log_stream(stream),
        attempt=attempt,
        lines=lines,
        since_ms=since_ms_of(since, datetime.datetime.now(datetime.timezone.utc)),
        grep=pattern_of(grep),
    )


class Line(NamedTuple):
    """A line of one job's log, its end included if it had one."""

    job: str
    data: bytes
    attempt: int
    stream: int
    offset: int = 0
    """Where in its output it begins."""
    seen_at_ms: int = 0
    """When its beginning was seen on its worker; 0: not known."""
    dropped: int = 0
    """It stands for so many bytes that were dropped."""


class LogLine(NamedTuple):
    """A line of a job's log, for programs."""

    job: str
    text: str
    """Without its end."""
    stream: str
    """stdout or stderr."""
    attempt: int
    offset: int
    """Where in that output it begins, in bytes."""
    at: datetime.datetime | None
    """When its worker saw it, in UTC."""
    dropped: int
    """Above 0: no line, but the word that so many bytes were dropped here."""


def as_log_line(line: Line) -> LogLine:
    """What programs get of a line."""
    at = None
    if line.seen_at_ms:
        at = datetime.datetime.fromtimestamp(line.seen_at_ms / 1000, datetime.timezone.utc)
    return LogLine(
        line.job,
        text_of(line.data),
        "stderr" if line.stream == STDERR else "stdout",
        line.attempt,
        line.offset,
        at,
        line.dropped,
    )


def notice(dropped: int) -> bytes:
    """The line that stands for bytes that were dropped."""
    return f"[titan] {dropped} bytes dropped\n".encode()


def bytes_of(pieces: Iterable[LogPiece]) -> Iterator[bytes]:
    """A log as it was written; where bytes were dropped, a line says so."""
    ended = True
    for piece in pieces:
        if piece.dropped:
            yield notice(piece.dropped) if ended else b"\n" + notice(piece.dropped)
            ended = True
        elif piece.data:
            yield piece.data
            ended = piece.data.endswith(b"\n")


def whole_lines(job: str, pieces: Iterable[LogPiece]) -> Iterator[Line]:
    """Lines out of pieces cut anywhere. A line of one stream is not torn by one of the other."""
    open_lines: dict[int, Line] = {}
    for piece in pieces:
        rest = open_lines.pop(piece.stream, None)
        if piece.dropped:
            if rest is not None:
                yield rest
            yield Line(
                job, notice(piece.dropped), piece.number, piece.stream,
                piece.offset, piece.seen_at_ms, piece.dropped,
            )  # fmt: skip
            continue
        line = rest or Line(job, b"", piece.number, piece.stream, piece.offset, piece.seen_at_ms)
        offset = piece.offset
        *ended, last = piece.data.split(b"\n")
        for part in ended:
            yield line._replace(data=line.data + part + b"\n")
            offset += len(part) + 1
            line = Line(job, b"", piece.number, piece.stream, offset, piece.seen_at_ms)
        line = line._replace(data=line.data + last)
        if len(line.data) >= LINE_BYTES:
            yield line
        elif line.data:
            open_lines[piece.stream] = line
    yield from open_lines.values()


def chosen(lines: Iterable[Line], wanted: Wanted, *, live: bool) -> Iterator[Line]:
    """The lines that are wanted; of a log that grows (`live`) the master has left out the first ones."""
    found: Iterable[Line] = lines
    if wanted.grep is not None:
        search = wanted.grep.search
        found = (line for line in found if line.dropped or search(text_of(line.data)))
    if wanted.lines and not live:
        return iter(deque(found, maxlen=wanted.lines))
    return iter(found)


class Seen:
    """What of a log has been handed on: of what comes again, only what is new counts."""

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}

    def fresh(self, piece: LogData) -> LogPiece | None:
        """The part of the piece that has not been here; None if there is none."""
        if not isinstance(piece, LogPiece):  # a master of before, which tells no places
            return LogPiece(piece.number, piece.stream, piece.position, piece.data, 0, 0, 0)
        end = piece.offset + len(piece.data) + piece.dropped
        known = self._ends.get(piece.stream, 0)
        if end <= known:
            return None
        self._ends[piece.stream] = end
        again = max(0, known - piece.offset)
        if not again:
            return piece
        return replace(
            piece,
            offset=known,
            data=piece.data[again:],
            dropped=piece.dropped and piece.dropped - again,
        )


def text_of(line: bytes) -> str:
    """A line without its end."""
    return line.decode("utf-8", "replace").rstrip("\r\n")


def pattern_of(text: str | None) -> re.Pattern[str] | None:
    """The regular expression that a user has written. Raises InvalidSpec."""
    if text is None:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidSpec(f"grep: {text!r} is no regular expression: {error}") from error


def since_ms_of(since: Since, now: datetime.datetime) -> int:
    """The point in time that is meant, in milliseconds since the epoch; 0 for none.

    A number is seconds ago, a text a duration (10m), a date with or without a time, in RFC 3339 or
    by the local clock, or a time of today (14:05; what has not come yet was yesterday).

    Raises:
        InvalidSpec: it is none of these.
    """
    if since is None:
        return 0
    if isinstance(since, str):
        at = _point(since.strip(), now)
    elif isinstance(since, datetime.datetime):
        at = since.astimezone()
    elif isinstance(since, datetime.timedelta):
        at = now - since
    else:
        at = now - datetime.timedelta(seconds=since)
    return max(1, int(at.timestamp() * 1000))


def _point(text: str, now: datetime.datetime) -> datetime.datetime:
    try:
        return now - datetime.timedelta(milliseconds=parse_duration(text))
    except BadDuration:
        pass
    # Python 3.10 does not read the Z of RFC 3339.
    iso = text[:-1] + "+00:00" if text[-1:] in {"Z", "z"} else text
    try:
        return datetime.datetime.fromisoformat(iso).astimezone()
    except ValueError:
        pass
    try:
        clock = datetime.time.fromisoformat(text)
    except ValueError:
        raise InvalidSpec(
            f"since: {text!r} is no point in time: write how long ago, such as 10m, or a time, "
            "such as 14:05 or 2026-07-01T14:05:00Z"
        ) from None
    local = now.astimezone()
    at = datetime.datetime.combine(local.date(), clock).astimezone()
    return at if at <= local else at - datetime.timedelta(days=1)


def log_stream(name: str) -> LogStream:
    """The stream of that name."""
    for stream in (LogStream.BOTH, LogStream.STDOUT, LogStream.STDERR):
        if stream.value == name:
            return stream
    raise ValueError(f'stream is "both", "stdout" or "stderr", not {name!r}')
