"""What attempts wrote, as files: ``<run>/<job>.<n>/{stdout.log,stderr.log,timeline}``.

A worker ships by offset; what is here already is skipped, what leaves a gap is refused by answering
with the offset that is expected, until the worker says that it never comes. Of a log above
its ceiling the beginning and the end are kept: what lies between is cut out of its file as a hole, so
that offsets stay what they were. ``timeline`` keeps the order in which pieces of the two outputs
arrived, when, and what was dropped; a log that came in one go has none. Nothing is synced here: the
worker's own files are the truth until its retention ends. Appends are at most a chunk and run on the
loop; `Log.pieces`, `tail` and `since` may run in a thread beside it. Called by ``feed.py`` and ``net``.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections import OrderedDict
from concurrent.futures import Executor, Future
from pathlib import Path
from struct import Struct as Layout
from typing import TYPE_CHECKING, Final, NamedTuple

from titan_master.data.reserve import Space
from titan_proto.ids import AttemptRef, is_instance_id, is_run_id
from titan_proto.io.holes import HOLE_BYTES, punch, rounded
from titan_proto.limits import BULK_CHUNK_BYTES
from titan_proto.messages import STDERR, STDOUT, LogStream

if TYPE_CHECKING:
    from titan_master.data.feed import Follower

BOTH: Final = 0
"""The two outputs in the order of their arrival."""
OPEN_LOGS_MAX: Final = 64
"""Logs kept open without a reader; all that is known of one can be read from its files again."""

_TOGETHER_MS: Final = 100
_TOGETHER_SHARE: Final = 10_000
"""Bytes of one output that come within so long, or within such a part of the log's age, share a time:
so a log that grows for ever needs few of them."""
_RECORD: Final = Layout(">BQQ")
"""Whose bytes, or whose gap; how many; when. Before them, one for each output: what is cut out."""
_TIMELINE: Final = "timeline"
"""By its name the last of the three: who copies them in turn gets an order that knows of every hole."""
_NAMES: Final = {STDOUT: "stdout.log", STDERR: "stderr.log"}
_GAP: Final = 2
"""Added to an output's number: bytes of it that never came."""
_STEPS: Final = 64
"""What is cut out at once is such a part of the ceiling: enough to be seldom, and soon done."""
_COMPACT_FROM: Final = 1_024
"""So many segments are kept without a thought of joining any."""


class Piece(NamedTuple):
    """Bytes of one output, or the word that so many of it were dropped."""

    stream: int
    data: bytes
    offset: int
    """Where in its output it begins."""
    seen_at_ms: int
    dropped: int = 0


class LogFiles:
    """Every log of this master, the ones in use held open."""

    def __init__(self, root: Path, ceiling_bytes: int, space: Space, cutter: Executor) -> None:
        """`cutter` makes holes in files: the disk may take its time."""
        self._root = root
        self._cutter = cutter
        self.space = space
        self._ceiling = ceiling_bytes
        self._logs: OrderedDict[AttemptRef, Log] = OrderedDict()

    def get(self, ref: AttemptRef) -> Log:
        """The log of an attempt, open; it need not have a byte yet."""
        log = self._logs.get(ref)
        if log is not None:
            self._logs.move_to_end(ref)
            return log
        if not (is_run_id(ref.run_id) and is_instance_id(ref.job_id) and ref.number > 0):
            raise ValueError(f"not an attempt's name: {ref!r}")
        self._put_away()
        folder = self._root / ref.run_id / f"{ref.job_id}.{ref.number}"
        log = self._logs[ref] = Log(folder, self._ceiling, self.space, self._cutter)
        return log

    def open_log(self, ref: AttemptRef) -> Log | None:
        """The log of an attempt, if it is open just now."""
        return self._logs.get(ref)

    def finish(self, ref: AttemptRef, stdout_bytes: int, stderr_bytes: int) -> None:
        """The attempt has ended, having written so much."""
        log = self._logs.get(ref)
        if log is None:
            return  # nobody reads it, and its files say the rest
        log.finish(stdout_bytes, stderr_bytes)
        if log.is_complete and not log.followers:
            del self._logs[ref]
            log.close()

    def close(self) -> None:
        """Close every file."""
        while self._logs:
            self._logs.popitem()[1].close()

    def _put_away(self) -> None:
        """Close the log that was used longest ago, if too many are open."""
        if len(self._logs) < OPEN_LOGS_MAX:
            return
        for ref, log in self._logs.items():
            if not log.followers:
                del self._logs[ref]
                log.close()
                return


class _Order:
    """Segments in the order of their arrival: both outputs, with what never came of them.

    Read by threads while the loop adds to it. Whatever else changes makes a new one.
    """

    __slots__ = ("kinds", "origins", "own", "sizes", "starts", "times", "total")

    def __init__(self) -> None:
        self.starts = array("q")
        """Where each segment begins in both outputs together,"""
        self.kinds = array("b")
        """whose it is, or whose gap,"""
        self.origins = array("q")
        """where in that output it begins,"""
        self.times = array("q")
        """and when the first of it came."""
        self.own = {STDOUT: array("q"), STDERR: array("q")}
        """The numbers of each output's segments."""
        self.sizes = {STDOUT: 0, STDERR: 0}
        """How far each output is settled, with what never came."""
        self.total = 0

    def __len__(self) -> int:
        return len(self.starts)

    def add(self, kind: int, length: int, at_ms: int) -> None:
        """A segment more."""
        stream = _stream_of(kind)
        self.kinds.append(kind)
        self.origins.append(self.sizes[stream])
        self.times.append(at_ms)
        self.starts.append(self.total)
        self.own[stream].append(len(self.starts) - 1)
        self.extend(length)

    def extend(self, length: int) -> None:
        """The last segment grows."""
        self.total += length
        self.sizes[_stream_of(self.kinds[-1])] += length

    def length_of(self, number: int) -> int:
        """How many bytes a segment has."""
        end = self.starts[number + 1] if number + 1 < len(self.starts) else self.total
        return end - self.starts[number]

    def last_length(self) -> int:
        """How many bytes the last segment has."""
        return self.total - self.starts[-1]

    def find(self, stream: int, position: int) -> int:
        """The number of the segment that holds a byte which is there."""
        if stream == BOTH:
            return bisect_right(self.starts, position) - 1
        own = self.own[stream]
        return own[bisect_right(own, position, key=self.origins.__getitem__) - 1]

    def together_ms(self, number: int) -> int:
        """How much later bytes may come and still belong to a segment."""
        age_ms = self.times[number] - self.times[0]
        return max(_TOGETHER_MS, age_ms // _TOGETHER_SHARE)


class Log:
    """The two outputs of one attempt."""

    def __init__(self, folder: Path, ceiling_bytes: int, space: Space, cutter: Executor) -> None:
        self._folder = folder
        self._cutter = cutter
        self._space = space
        self._ceiling = ceiling_bytes
        # Of each output a quarter of the ceiling is its beginning, which stays.
        self._head = rounded(ceiling_bytes // 4)
        self._step = max(HOLE_BYTES, rounded(ceiling_bytes // _STEPS))
        self._is_frugal = False
        """Nothing can be cut out here: what comes above the ceiling is dropped instead."""
        self._descriptors: dict[str, int] = {}
        self._order = _Order()
        self._is_noted = False
        """Whether the order has a file."""
        self._compact_at = _COMPACT_FROM
        self._stored = {STDOUT: 0, STDERR: 0}
        """Bytes that came and were not cut out again."""
        self._cuts = {STDOUT: (0, 0), STDERR: (0, 0)}
        """What is cut out of each output, from and to."""
        self._final: tuple[int, int] | None = None
        self.followers: set[Follower] = set()
        """Told when there is news; a log with followers stays open."""
        self._load()

    # -- writing ----------------------------------------------------------------------------------

    def append(self, stream: int, offset: int, data: bytes, seen_at_ms: int = 0) -> int:
        """Store a piece; up to where this output is settled now, and shipping goes on.

        What cannot be written whole is not written at all. Raises OSError.
        """
        size = self.length(stream)
        fresh = data[size - offset :] if offset <= size else b""
        if fresh:
            self._store(stream, fresh, seen_at_ms)
            self._tell()
        return self.length(stream)

    def skip(self, stream: int, offset: int, seen_at_ms: int) -> int:
        """What has not come up to `offset` never will; up to where this output is settled now.

        Raises OSError.
        """
        size = self.length(stream)
        if offset > size:
            self._note(stream + _GAP, offset - size, seen_at_ms)
            self._tell()
        return self.length(stream)

    def _tell(self) -> None:
        for follower in self.followers:
            follower.news.set()

    def _store(self, stream: int, fresh: bytes, seen_at_ms: int) -> None:
        if self._is_frugal and self._stored_bytes + len(fresh) > self._ceiling:
            self._note(stream + _GAP, len(fresh), seen_at_ms)
            return
        self._space.take(len(fresh))
        is_stored = False
        try:
            self._write(stream, fresh)
            self._note(stream, len(fresh), seen_at_ms)
            is_stored = True
        finally:
            if not is_stored:
                self._take_back(stream)
        self._stored[stream] += len(fresh)
        while self._stored_bytes > self._ceiling and self._cut_step():
            pass

    def finish(self, stdout_bytes: int, stderr_bytes: int) -> None:
        """The attempt has ended, having written so much."""
        self._final = (stdout_bytes, stderr_bytes)
        self._tell()

    def close(self) -> None:
        """Close the files."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    # -- the ceiling ------------------------------------------------------------------------------

    @property
    def _stored_bytes(self) -> int:
        return self._stored[STDOUT] + self._stored[STDERR]

    def _cut_step(self) -> bool:
        """Cut the oldest of what is not a beginning out of the output that has more of it."""
        ends = {stream: max(self._head, self._cuts[stream][1]) for stream in _NAMES}
        stream = max(_NAMES, key=lambda one: self.length(one) - ends[one])
        begin = ends[stream]
        if begin + self._step > self.length(stream):
            return False
        order = self._order
        end = begin + self._step
        number = order.find(stream, begin)
        if order.kinds[number] != stream:  # a gap, as long as it may be, is one step
            end = max(end, rounded(order.origins[number] + order.length_of(number)))
        # Noted first: after a crash bytes may be there that nobody is shown, but no zeros that are.
        self._cuts[stream] = (self._head, end)
        self._write_cut(stream)
        # A descriptor of its own: this log may be put away before its turn comes.
        descriptor = os.dup(self._descriptor(_NAMES[stream]))
        self._cutter.submit(_cut, descriptor, begin, end).add_done_callback(self._was_cut)
        self._stored[stream] -= self._came(stream, begin, end)
        if len(order) > self._compact_at:
            self._compact()
        return True

    def _was_cut(self, done: Future[bool]) -> None:
        """Called in the cutter's thread."""
        if not done.cancelled() and not done.result():
            self._is_frugal = True

    def _came(self, stream: int, begin: int, end: int) -> int:
        """How many bytes of that range had come."""
        order, found = self._order, 0
        number = order.find(stream, begin)
        own = order.own[stream]
        for place in range(bisect_right(own, number) - 1, len(own)):
            number = own[place]
            origin = order.origins[number]
            if origin >= end:
                break
            if order.kinds[number] == stream:
                found += min(end, origin + order.length_of(number)) - max(begin, origin)
        return found

    def _compact(self) -> None:
        """Join what is not there any more: of a log that grows for ever that is nearly all of it."""
        order, joined = self._order, _Order()
        gone = {STDOUT: 0, STDERR: 0}
        gone_ms = 0

        def settle() -> None:
            for stream, length in gone.items():
                if length:
                    joined.add(stream + _GAP, length, gone_ms)
                    gone[stream] = 0

        for number, kind in enumerate(order.kinds):
            stream, length = _stream_of(kind), order.length_of(number)
            begin, end = self._cuts[stream]
            origin = order.origins[number]
            if kind != stream or (begin <= origin and origin + length <= end):
                gone[stream] += length
                gone_ms = order.times[number]
            else:
                settle()
                joined.add(kind, length, order.times[number])
        settle()
        self._order = joined
        self._compact_at = max(_COMPACT_FROM, 2 * len(joined))
        self._write_all()

    # -- reading ----------------------------------------------------------------------------------

    @property
    def is_ended(self) -> bool:
        """Whether the attempt is known to have ended."""
        return self._final is not None

    @property
    def is_complete(self) -> bool:
        """Whether no more bytes will come."""
        if self._final is None:
            return False
        return self.length(STDOUT) >= self._final[0] and self.length(STDERR) >= self._final[1]

    def which(self, stream: LogStream) -> int:
        """The number of an output, or BOTH."""
        return {LogStream.STDOUT: STDOUT, LogStream.STDERR: STDERR}.get(stream, BOTH)

    def length(self, stream: int) -> int:
        """How many bytes there were, those included that were dropped."""
        return self._order.total if stream == BOTH else self._order.sizes[stream]

    def pieces(self, stream: int, position: int, limit_bytes: int) -> list[Piece]:
        """What stands from `position` on, in pieces of at most a chunk. May run in a thread.

        The positions that a piece takes are as many as its bytes, or as were dropped.
        """
        order = self._order
        total = order.total if stream == BOTH else order.sizes[stream]
        pieces: list[Piece] = []
        left = limit_bytes
        while position < total and left > 0:
            piece = self._piece(order, stream, position, left, total)
            if piece is None:
                break  # somebody has cut the file: what is gone cannot be served
            position += len(piece.data) + piece.dropped
            left -= len(piece.data)
            last = pieces[-1] if pieces else None
            if piece.dropped and last is not None and last.dropped and last.stream == piece.stream:
                pieces[-1] = last._replace(dropped=last.dropped + piece.dropped)
            else:
                pieces.append(piece)
        return pieces

    def _piece(
        self, order: _Order, stream: int, position: int, left: int, total: int
    ) -> Piece | None:
        number = order.find(stream, position)
        begin = order.starts[number] if stream == BOTH else order.origins[number]
        offset = order.origins[number] + position - begin
        there = min(order.length_of(number) - (position - begin), total - position)
        kind, at_ms = order.kinds[number], order.times[number]
        owner = _stream_of(kind)
        gone = there if kind != owner else self._gone(owner, offset, there)
        if gone:
            return Piece(owner, b"", offset, at_ms, gone)
        wanted = min(there, left, BULK_CHUNK_BYTES)
        begin_cut = self._cuts[owner][0]
        if offset < begin_cut:
            wanted = min(wanted, begin_cut - offset)
        data = os.pread(self._descriptor(_NAMES[owner]), wanted, offset)
        # It may have been cut out while it was read: then these are no bytes but zeros.
        if gone := self._gone(owner, offset, len(data)):
            return Piece(owner, b"", offset, at_ms, gone)
        return Piece(owner, data, offset, at_ms) if data else None

    def _gone(self, stream: int, offset: int, there: int) -> int:
        """How many bytes from `offset` on are cut out."""
        begin, end = self._cuts[stream]
        return min(there, end - offset) if begin <= offset < end else 0

    def tail(self, stream: int, lines: int) -> int:
        """The position from which about the last `lines` lines stand. May run in a thread.

        It does not look behind what was dropped.
        """
        position = end = self.length(stream)
        left = lines
        while position > 0:
            begin = max(0, position - BULK_CHUNK_BYTES)
            at = position
            for piece in reversed(self.pieces(stream, begin, position - begin)):
                if piece.dropped:
                    return at
                at -= len(piece.data)
                # The newline that ends the last line does not begin another one.
                searched = len(piece.data) - (at + len(piece.data) == end)
                while left and searched > 0:
                    found = piece.data.rfind(b"\n", 0, searched)
                    if found < 0:
                        break
                    left -= 1
                    searched = found
                if not left:
                    return at + searched + 1
            position = begin
        return 0

    def since(self, stream: int, at_ms: int) -> int:
        """The position of the first byte that came at that time or later, as far as is known."""
        order = self._order
        number = bisect_right(order.times, at_ms) - 1
        if number < 0:
            return 0
        if at_ms - order.times[number] > order.together_ms(number):
            number += 1
        if number >= len(order):
            return self.length(stream)
        if stream == BOTH:
            return order.starts[number]
        own = order.own[stream]
        place = bisect_right(own, number - 1)
        return order.origins[own[place]] if place < len(own) else self.length(stream)

    # -- the order of arrival ---------------------------------------------------------------------

    def _note(self, kind: int, added: int, at_ms: int) -> None:
        """So many bytes of an output have just arrived, or never will."""
        order = self._order
        last = len(order) - 1
        at_ms = max(at_ms, order.times[last]) if last >= 0 else at_ms
        same = (
            last >= 0
            and order.kinds[last] == kind
            and at_ms - order.times[last] < order.together_ms(last)
        )
        if not self._is_noted and (kind > _GAP or (last >= 0 and not same)):
            self._write_all()
        if self._is_noted:
            number = last if same else last + 1
            length = added + (order.last_length() if same else 0)
            self._write_record(number, kind, length, order.times[last] if same else at_ms)
        if same:
            order.extend(added)
        else:
            order.add(kind, added, at_ms)

    def _write_record(self, number: int, kind: int, length: int, at_ms: int) -> None:
        record = _RECORD.pack(kind, length, at_ms)
        os.pwrite(self._descriptor(_TIMELINE), record, (len(_NAMES) + number) * _RECORD.size)

    def _write_cut(self, stream: int) -> None:
        if not self._is_noted:
            self._write_all()
        record = _RECORD.pack(stream, *self._cuts[stream])
        os.pwrite(self._descriptor(_TIMELINE), record, (stream - 1) * _RECORD.size)

    def _write_all(self) -> None:
        """The order's file, anew: a reader of it, after a crash, finds the old one or this one."""
        order = self._order
        cuts = b"".join(_RECORD.pack(stream, *self._cuts[stream]) for stream in _NAMES)
        records = b"".join(
            _RECORD.pack(kind, order.length_of(number), order.times[number])
            for number, kind in enumerate(order.kinds)
        )
        draft = self._folder / f"{_TIMELINE}.new"
        self._folder.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(cuts + records)
        old = self._descriptors.pop(_TIMELINE, None)
        if old is not None:
            os.close(old)
        draft.replace(self._folder / _TIMELINE)
        self._is_noted = True

    def _load(self) -> None:
        """Rebuild the order from its file, and make both agree with what the others hold.

        A process may end between writing bytes and noting their order; a machine may forget more
        of one file than of another. The files' sizes decide.
        """
        order = self._order
        found = {stream: _size_and_time(self._folder / name) for stream, name in _NAMES.items()}
        cuts, records = _records(self._folder / _TIMELINE)
        for kind, length, at_ms in records:
            stream = _stream_of(kind)
            known = (
                length if kind != stream else min(length, found[stream][0] - order.sizes[stream])
            )
            if known > 0:
                order.add(kind, known, at_ms)
        for stream, (size, at_ms) in found.items():
            missing = size - order.sizes[stream]
            if missing > 0:
                order.add(stream, missing, max(at_ms, order.times[-1] if len(order) else 0))
        self._cuts |= {s: (begin, end) for s, begin, end in cuts if end <= order.sizes[s]}
        for stream in _NAMES:
            cut = self._cuts[stream]
            size = order.sizes[stream]
            came = self._came(stream, 0, size) if size else 0
            self._stored[stream] = came - (self._came(stream, *cut) if cut[1] else 0)
        # What is mended here is written down with the next piece: reading must not need room.
        self._is_noted = bool(records) and records == [
            (kind, order.length_of(number), order.times[number])
            for number, kind in enumerate(order.kinds)
        ]

    # -- files ------------------------------------------------------------------------------------

    def _write(self, stream: int, data: bytes) -> None:
        """Behind what is settled: before it there may be a gap, which becomes a hole."""
        descriptor = self._descriptor(_NAMES[stream])
        size = self.length(stream)
        if self._order.own[stream] and self._order.kinds[self._order.own[stream][-1]] != stream:
            os.ftruncate(descriptor, size)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def _take_back(self, stream: int) -> None:
        """A write broke off: its file ends again where this output was settled."""
        descriptor = self._descriptors.get(_NAMES[stream])
        if descriptor is not None:
            os.ftruncate(descriptor, self.length(stream))

    def _descriptor(self, name: str) -> int:
        descriptor = self._descriptors.get(name)
        if descriptor is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            if name in _NAMES.values():
                flags |= os.O_APPEND
            path = self._folder / name
            try:
                descriptor = os.open(path, flags, 0o600)
            except FileNotFoundError:
                self._folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, flags, 0o600)
            self._descriptors[name] = descriptor
        return descriptor


def _cut(descriptor: int, begin: int, end: int) -> bool:
    try:
        return punch(descriptor, begin, end)
    finally:
        os.close(descriptor)


def _stream_of(kind: int) -> int:
    return kind - _GAP if kind > _GAP else kind


def _size_and_time(path: Path) -> tuple[int, int]:
    """Of a file, how long it is and when it was last written to; nothing of one that is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_size, found.st_mtime_ns // 1_000_000


Record = tuple[int, int, int]


def _records(path: Path) -> tuple[list[Record], list[Record]]:
    """What is cut out, and the segments, up to the first that cannot be one."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return [], []
    found = list(_RECORD.iter_unpack(raw[: len(raw) - len(raw) % _RECORD.size]))
    cuts, records = found[: len(_NAMES)], found[len(_NAMES) :]
    known = {kind + more for kind in _NAMES for more in (0, _GAP)}
    whole = next((n for n, record in enumerate(records) if record[0] not in known), len(records))
    return [cut for cut in cuts if cut[0] in _NAMES], records[:whole]
