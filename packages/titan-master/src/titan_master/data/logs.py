"""What attempts wrote, as files: ``<run>/<job>.<n>/{stdout.log,stderr.log,index}``.

A worker ships by offset; what is here already is skipped, what leaves a gap is refused by answering
with the offset that is expected. ``index`` keeps the order in which pieces of the two outputs
arrived, so that they can be read together; a log of one output has none. Nothing is synced here:
the worker's own files are the truth until its retention ends. Appends are at most a chunk and run
on the loop; ``pieces`` and ``tail`` may run in a thread beside it. Called by ``feed.py`` and ``net``.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from titan_master.data.reserve import Space
from titan_proto.ids import AttemptRef, is_instance_id, is_run_id
from titan_proto.limits import BULK_CHUNK_BYTES
from titan_proto.messages import STDERR, STDOUT, LogStream

if TYPE_CHECKING:
    import asyncio

BOTH: Final = 0
"""The two outputs in the order of their arrival."""
OPEN_LOGS_MAX: Final = 64
"""Logs kept open without a reader; all that is known of one can be read from its files again."""

_RECORD_BYTES: Final = 5
_NAMES: Final = {STDOUT: "stdout.log", STDERR: "stderr.log"}

Piece = tuple[int, bytes]
"""An output's number and bytes of it."""


class LogFiles:
    """Every log of this master, the ones in use held open."""

    def __init__(self, root: Path, ceiling_bytes: int, space: Space) -> None:
        self._root = root
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
        log = self._logs[ref] = Log(folder, self._ceiling, self.space)
        return log

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


class Log:
    """The two outputs of one attempt."""

    def __init__(self, folder: Path, ceiling_bytes: int, space: Space) -> None:
        self._folder = folder
        self._space = space
        self._ceiling = ceiling_bytes
        self._descriptors: dict[str, int] = {}
        self._sizes = {stream: _size_of(folder / name) for stream, name in _NAMES.items()}
        # Segments: where each begins in the order of arrival, whose it is, and where in that file.
        self._starts = array("q")
        self._streams = array("b")
        self._origins = array("q")
        self._final: tuple[int, int] | None = None
        self.followers: set[asyncio.Event] = set()
        """Set when there is news; a log with followers stays open."""
        self._load_order()

    # -- writing ----------------------------------------------------------------------------------

    def append(self, stream: int, offset: int, data: bytes) -> int:
        """Store a piece; up to where this output is settled now, and shipping goes on.

        Bytes above the ceiling are dropped and count as settled, so that their sender goes on. What
        cannot be written whole is not written at all. Raises OSError.
        """
        size = self._sizes[stream]
        end = offset + len(data)
        room = self._ceiling - self.length(BOTH)
        if offset > size:
            return size if room > 0 else end
        fresh = data[size - offset :][: max(0, room)]
        if fresh:
            self._space.take(len(fresh))
            is_stored = False
            try:
                self._write(_NAMES[stream], fresh)
                self._note(stream, len(fresh))
                is_stored = True
            finally:
                if not is_stored:
                    self._take_back(stream)
            for news in self.followers:
                news.set()
        return max(end, self._sizes[stream]) if room <= len(fresh) else self._sizes[stream]

    def finish(self, stdout_bytes: int, stderr_bytes: int) -> None:
        """The attempt has ended, having written so much."""
        self._final = (stdout_bytes, stderr_bytes)
        for news in self.followers:
            news.set()

    def close(self) -> None:
        """Close the files."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

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
        has_all = self._sizes[STDOUT] >= self._final[0] and self._sizes[STDERR] >= self._final[1]
        return has_all or self.length(BOTH) >= self._ceiling

    def which(self, stream: LogStream) -> int:
        """The number of an output, or BOTH."""
        return {LogStream.STDOUT: STDOUT, LogStream.STDERR: STDERR}.get(stream, BOTH)

    def length(self, stream: int) -> int:
        """How many bytes are stored."""
        if stream == BOTH:
            return self._sizes[STDOUT] + self._sizes[STDERR]
        return self._sizes[stream]

    def pieces(self, stream: int, position: int, limit_bytes: int) -> list[Piece]:
        """What stands from `position` on, in pieces of at most a chunk. May run in a thread."""
        end = min(self.length(stream), position + limit_bytes)
        pieces: list[Piece] = []
        while position < end:
            owner, offset, there = self._locate(stream, position)
            wanted = min(there, end - position, BULK_CHUNK_BYTES)
            data = os.pread(self._descriptor(_NAMES[owner]), wanted, offset)
            if not data:
                break  # somebody has cut the file: what is gone cannot be served
            pieces.append((owner, data))
            position += len(data)
        return pieces

    def tail(self, stream: int, lines: int) -> int:
        """The position from which about the last `lines` lines stand. May run in a thread."""
        position = end = self.length(stream)
        left = lines
        while position > 0:
            begin = max(0, position - BULK_CHUNK_BYTES)
            block = b"".join(data for _, data in self.pieces(stream, begin, position - begin))
            # The newline that ends the last line does not begin another one.
            searched = len(block) - 1 if position == end else len(block)
            while left and searched > 0:
                found = block.rfind(b"\n", 0, searched)
                if found < 0:
                    break
                left -= 1
                searched = found
            if not left:
                return begin + searched + 1
            position = begin
        return 0

    # -- the order of arrival ---------------------------------------------------------------------

    def _locate(self, stream: int, position: int) -> tuple[int, int, int]:
        """Which file holds `position`, from which offset, and how much of it in one piece."""
        if stream != BOTH:
            return stream, position, self._sizes[stream] - position
        at = bisect_right(self._starts, position) - 1
        inside = position - self._starts[at]
        last = at + 1 == len(self._starts)
        end = self.length(BOTH) if last else self._starts[at + 1]
        return self._streams[at], self._origins[at] + inside, end - position

    def _note(self, stream: int, added: int) -> None:
        """So many bytes of `stream` have just arrived."""
        same = bool(self._streams) and self._streams[-1] == stream
        if not same:
            if len(self._streams) == 1:
                self._write_record(0, self._streams[0], self.length(BOTH))
            self._starts.append(self.length(BOTH))
            self._streams.append(stream)
            self._origins.append(self._sizes[stream])
        self._sizes[stream] += added
        if len(self._streams) > 1:
            length = self._sizes[stream] - self._origins[-1]
            self._write_record(len(self._streams) - 1, stream, length)

    def _write_record(self, place: int, stream: int, length: int) -> None:
        record = bytes((stream,)) + length.to_bytes(_RECORD_BYTES - 1, "big")
        os.pwrite(self._descriptor("index"), record, place * _RECORD_BYTES)

    def _load_order(self) -> None:
        """Rebuild the order from ``index``, and make both agree with what the files hold.

        A process may end between writing bytes and noting their order; a machine may forget more
        of one file than of another. The files' sizes decide.
        """
        sizes = dict(self._sizes)
        present = [stream for stream in (STDOUT, STDERR) if sizes[stream]]
        self._sizes = {STDOUT: 0, STDERR: 0}
        if len(present) < 2:
            if present:
                self._note(present[0], sizes[present[0]])
            return
        for stream, length in _records(self._folder / "index"):
            known = min(length, sizes[stream] - self._sizes[stream])
            if known > 0:
                self._note(stream, known)
        for stream in present:
            missing = sizes[stream] - self._sizes[stream]
            if missing > 0:
                self._note(stream, missing)
        os.ftruncate(self._descriptor("index"), len(self._streams) * _RECORD_BYTES)

    # -- files ------------------------------------------------------------------------------------

    def _write(self, name: str, data: bytes) -> None:
        descriptor = self._descriptor(name)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def _take_back(self, stream: int) -> None:
        """A write broke off: its file ends again where this output was settled."""
        descriptor = self._descriptors.get(_NAMES[stream])
        if descriptor is not None:
            os.ftruncate(descriptor, self._sizes[stream])

    def _descriptor(self, name: str) -> int:
        descriptor = self._descriptors.get(name)
        if descriptor is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            if name != "index":
                flags |= os.O_APPEND
            path = self._folder / name
            try:
                descriptor = os.open(path, flags, 0o600)
            except FileNotFoundError:
                self._folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, flags, 0o600)
            self._descriptors[name] = descriptor
        return descriptor


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _records(path: Path) -> list[tuple[int, int]]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = len(raw) - len(raw) % _RECORD_BYTES
    found = []
    for at in range(0, whole, _RECORD_BYTES):
        stream = raw[at]
        if stream not in _NAMES:
            break
        found.append((stream, int.from_bytes(raw[at + 1 : at + _RECORD_BYTES], "big")))
    return found
