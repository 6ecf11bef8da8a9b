"""What attempts write, as it grows: the processes append to their files, this looks at them.

Looks at a file's size while its attempt runs (soon after it grew, less often while it is quiet),
remembers when it had grown how far, reads pieces of it, and keeps both outputs of an attempt within a
ceiling: what lies between a log's beginning and its end is cut out of its file, under the process that
goes on appending to it. Offsets are those of everything that was ever written. Nothing is copied or
held in memory. Called by ``shipping`` and the engine.
"""

from __future__ import annotations

import logging
import os
import stat
from collections import deque
from typing import Final, NamedTuple

from titan_proto.io.holes import HOLE_BYTES, data_from, hole_from, punch, rounded
from titan_proto.limits import LOG_OFFSET

_LOG: Final = logging.getLogger(__name__)

# The name lies in its job's reach: what is there now may be a link, or block whoever opens it.
_SAFELY: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FLAGS: Final = os.O_RDONLY | _SAFELY

LAST_WORDS_LINES: Final = 5
LAST_WORDS_BYTES: Final = 1_000
"""What is told of a service's log where it ended for good: so many lines of so many bytes in all."""
POLL_MIN_S: Final = 0.02
POLL_MAX_S: Final = 0.05
"""However quiet it was: what is written then is at the master, and with who follows it, well within
a tenth of a second."""
_SLOWER: Final = 1.5
_STEPS: Final = 64
"""What is cut out at once is such a part of the ceiling."""
_MARKS: Final = 64
"""So many looks are remembered that saw an output grow."""
_TOGETHER_MS: Final = 100
_DIGITS: Final = 20
_MOVED: Final = ".cut"
"""Beside a log that was cut short: by how much what stands behind the cut has moved."""


def _plain_file(path: str) -> os.stat_result | None:
    """What lies there, if it is a plain file (still)."""
    try:
        found = os.lstat(path)
    except OSError:  # its job has removed it, or what leads to it
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def last_words(path: str) -> str:
    """The last lines of the file, for people; empty if there is nothing."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:  # as in `_plain_file`
        return ""
    try:
        size = os.fstat(fd).st_size
        data = os.pread(fd, LAST_WORDS_BYTES, max(0, size - LAST_WORDS_BYTES))
    except OSError:  # a folder, or a file that cannot be read any more
        return ""
    finally:
        os.close(fd)
    return "\n".join(data.decode("utf-8", "replace").splitlines()[-LAST_WORDS_LINES:])


class Cut(NamedTuple):
    """What is to be cut out of a file."""

    path: str
    file: tuple[int, int]
    """Which file that name meant: device and inode."""
    begin: int
    end: int


class Output:
    """One output of one attempt: a file that grows until the attempt ends."""

    __slots__ = ("_file", "_given_up", "_head", "_hole_end", "_marks", "_moved", "path", "size")

    def __init__(self, path: str, head_bytes: int, *, known: bool = False) -> None:
        """`known`: an earlier process may have left something of it, cut already."""
        self.path = path
        self.size = 0
        """How much was written, as far as has been seen, with what was cut out."""
        self._file = (0, 0)
        self._head = self._hole_end = rounded(head_bytes)
        self._moved = 0
        """By so much what stands behind the hole is nearer to the front of the file: there is no hole."""
        self._given_up: int | None = None
        # How far it had grown at the last looks that saw it grow, and when that was.
        self._marks: deque[tuple[int, int]] = deque()
        if known:
            self._find_hole()

    @property
    def readable(self) -> int:
        """How far it can be read by now."""
        return self.size if self._given_up is None else self._given_up

    @property
    def kept(self) -> int:
        """How many bytes are there."""
        return self.size - (self._hole_end - self._head)

    @property
    def tail(self) -> int:
        """How many of them stand behind the beginning that stays."""
        return max(0, self.size - self._hole_end)

    def look(self, at_ms: int) -> bool:
        """See how far the file has come; whether there is more to read than before."""
        before = self.size
        found = _plain_file(self.path)
        self._file = (found.st_dev, found.st_ino) if found else (0, 0)
        # A job may make its log as long as it likes, without writing it.
        self.size = min(found.st_size + self._moved, LOG_OFFSET) if found else 0
        if self.size <= before:
            return False
        if len(self._marks) >= _MARKS:
            # What waits for long is told more roughly.
            self._marks = deque(mark for number, mark in enumerate(self._marks) if number % 2)
        self._marks.append((self.size, at_ms))
        return self._given_up is None

    def give_up(self, offset: int) -> None:
        """What stands from there on cannot be read, whatever the file's size says."""
        self._given_up = offset

    def behind_hole(self, offset: int) -> int:
        """Where there is something to read again; `offset` itself if there is something."""
        return self._hole_end if self._head <= offset < self._hole_end else offset

    def seen_at(self, offset: int, now_ms: int) -> tuple[int, int]:
        """When the byte at `offset` was seen first, and how far what was seen then goes."""
        marks = [mark for mark in self._marks if mark[0] > offset]
        if not marks:
            return now_ms, self.size
        at_ms = marks[0][1]
        return at_ms, max(end for end, later_ms in marks if later_ms - at_ms < _TOGETHER_MS)

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset` on, which is in no hole."""
        end = self._head if offset < self._head < self._hole_end else self.readable
        at = offset - self._moved if offset >= self._hole_end else offset
        try:
            fd = os.open(self.path, _FLAGS)
            try:
                return os.pread(fd, max(0, min(length, end - offset)), at)
            finally:
                os.close(fd)
        except OSError:  # as in `_plain_file`: there is nothing to read any more
            return b""

    def plan_cut(self, step: int) -> Cut | None:
        """Keep so much less from now on; what is to be done about it, if anything can."""
        begin = self._hole_end
        end = rounded(min(begin + step, self.size))
        if end <= begin:
            return None
        self._hole_end = end
        return Cut(self.path, self._file, begin, end)

    def cut_short(self, cut: Cut) -> None:
        """Where a file can have no hole: keep its beginning alone, and note what that moves.

        What the process writes in this very moment is lost, and not counted.
        """
        fd = _open_to_cut(cut)
        if fd is None:
            return
        try:
            size = os.fstat(fd).st_size + self._moved
            _note_moved(self.path, size - self._head)
            os.ftruncate(fd, self._head)
            self._hole_end = self.size = size
            self._moved = size - self._head
        except OSError as error:
            _LOG.warning("log_not_cut path=%s error=%s", self.path, error.strerror)
        finally:
            os.close(fd)

    def _find_hole(self) -> None:
        try:
            fd = os.open(self.path, _FLAGS)
        except OSError:  # it wrote nothing, or has removed it
            return
        try:
            size = os.fstat(fd).st_size
            self._moved = _moved_by(self.path)
            begin = hole_from(fd)
            if self._moved:
                self._hole_end = self._head + self._moved
            elif begin < size:  # with another ceiling than now's, perhaps
                self._head, self._hole_end = begin, data_from(fd, begin)
        except OSError:  # not a plain file any more
            pass
        finally:
            os.close(fd)


class Outputs:
    """Both outputs of an attempt, and the ceiling that they share."""

    __slots__ = ("ceiling_bytes", "stderr", "stdout")

    def __init__(
        self, stdout: str, stderr: str, ceiling_bytes: int, *, known: bool = False
    ) -> None:
        self.stdout = Output(stdout, ceiling_bytes // 4, known=known)
        self.stderr = Output(stderr, ceiling_bytes // 4, known=known)
        self.ceiling_bytes = ceiling_bytes
        """May be changed; a beginning that is there already stays as long as it is."""

    def too_much(self) -> dict[Output, Cut]:
        """What must be cut out now, of each output in one piece: the oldest behind its beginning."""
        cuts: dict[Output, Cut] = {}
        step = max(HOLE_BYTES, rounded(self.ceiling_bytes // _STEPS))
        # At most three times: the longer one is cut down to the other, then both by the same.
        while (excess := self.stdout.kept + self.stderr.kept - self.ceiling_bytes) > 0:
            shorter, longer = sorted((self.stdout, self.stderr), key=lambda output: output.tail)
            more = longer.tail - shorter.tail
            wanted = excess if more >= excess else more + (excess - more + 1) // 2
            cut = longer.plan_cut(rounded(wanted + step - 1) or step)
            if cut is None:
                break
            begun = cuts.get(longer)
            cuts[longer] = cut if begun is None else cut._replace(begin=begun.begin)
        return cuts


def carry_out(cut: Cut) -> bool:
    """Make the hole; False if there can be none. For a thread: the disk may be busy."""
    fd = _open_to_cut(cut)
    if fd is None:
        return True
    try:
        return punch(fd, cut.begin, cut.end)
    finally:
        os.close(fd)


def _open_to_cut(cut: Cut) -> int | None:
    """The file, if it is the attempt's log still, and nothing else."""
    try:
        fd = os.open(cut.path, os.O_WRONLY | _SAFELY)
    except OSError:  # as in `_plain_file`
        return None
    found = os.fstat(fd)
    # By another name it may be something that its job wants to keep.
    if (found.st_dev, found.st_ino) == cut.file and found.st_nlink == 1:
        return fd
    os.close(fd)
    return None


def _note_moved(path: str, by: int) -> None:
    """Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _SAFELY
    fd = os.open(path + _MOVED, flags, 0o600)
    try:
        os.write(fd, b"%d" % by)
    finally:
        os.close(fd)


def _moved_by(path: str) -> int:
    try:
        # As the log itself, it lies in its job's reach.
        fd = os.open(path + _MOVED, _FLAGS)
        try:
            return min(max(0, int(os.read(fd, _DIGITS))), LOG_OFFSET)
        finally:
            os.close(fd)
    except (OSError, ValueError):  # it was never cut short
        return 0


class Pace:
    """When to look at a growing file again: soon after it grew, later and later while it rests."""

    __slots__ = ("wait_s",)

    def __init__(self) -> None:
        self.wait_s = POLL_MIN_S

    def seen(self, *, grown: bool) -> float:
        """Seconds until the next look."""
        self.wait_s = POLL_MIN_S if grown else min(self.wait_s * _SLOWER, POLL_MAX_S)
        return self.wait_s
