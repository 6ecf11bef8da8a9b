"""What attempts write, as it grows: the processes append to their files, this looks at them.

Looks at a file's size while its attempt runs (soon after it grew, seldom while it is quiet), reads
pieces of it, and keeps the ceiling: of an output that outgrew it, what is read ends in a line that
says so. Nothing is copied or held in memory. Called by ``shipping`` and the engine.
"""

from __future__ import annotations

import os
import stat
from typing import Final

# The name lies in its job's reach: what is there now may be a link, or block whoever opens it.
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

LAST_WORDS_LINES: Final = 5
LAST_WORDS_BYTES: Final = 1_000
"""What is told of a service's log where it ended for good: so many lines of so many bytes in all."""
POLL_MIN_S: Final = 0.02
POLL_MAX_S: Final = 0.05
"""However quiet it was: what is written then is at the master, and with who follows it, well within
a tenth of a second."""
_SLOWER: Final = 1.5


def size_of(path: str) -> int:
    """The file's size; 0 if there is no plain file of that name (any more)."""
    try:
        found = os.lstat(path)
    except OSError:  # its job has removed it, or what leads to it
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def last_words(path: str) -> str:
    """The last lines of the file, for people; empty if there is nothing."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:  # as in `size_of`
        return ""
    try:
        size = os.fstat(fd).st_size
        data = os.pread(fd, LAST_WORDS_BYTES, max(0, size - LAST_WORDS_BYTES))
    except OSError:  # a folder, or a file that cannot be read any more
        return ""
    finally:
        os.close(fd)
    return "\n".join(data.decode("utf-8", "replace").splitlines()[-LAST_WORDS_LINES:])


class Output:
    """One output of one attempt: a file that grows until the attempt ends."""

    __slots__ = ("_ceiling", "_ended", "_mark", "_size", "path")

    def __init__(self, path: str, ceiling_bytes: int) -> None:
        self.path = path
        self._ceiling = ceiling_bytes
        self._mark = f"\n[titan] cut here: this output is above {ceiling_bytes} bytes\n".encode()
        self._size = 0
        self._ended = False

    @property
    def readable(self) -> int:
        """How many bytes `read` would give by now.

        While the attempt runs the room for the ceiling's mark stays free: what has been shipped
        cannot be taken back.
        """
        if self._size > self._ceiling:
            return self._ceiling
        if self._ended:
            return self._size
        return min(self._size, self._ceiling - len(self._mark))

    def look(self) -> bool:
        """See how far the file has come; whether there is more to read than before."""
        before = self.readable
        self._size = size_of(self.path)
        return self.readable > before

    def go_on(self) -> None:
        """Another process writes to it."""
        self._ended = False

    def end(self) -> int:
        """Nobody writes to it any more; how many bytes it has in all."""
        self._ended = True
        self.look()
        return self.readable

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset` on; fewer than asked for only at a seam or the end."""
        kept = self._ceiling - len(self._mark) if self._size > self._ceiling else self.readable
        if offset >= kept:
            return self._mark[offset - kept :][:length] if self._size > self._ceiling else b""
        try:
            fd = os.open(self.path, _FLAGS)
            try:
                return os.pread(fd, min(length, kept - offset), offset)
            finally:
                os.close(fd)
        except OSError:  # as in `size_of`: there is nothing to read any more
            return b""


class Pace:
    """When to look at a growing file again: soon after it grew, later and later while it rests."""

    __slots__ = ("wait_s",)

    def __init__(self) -> None:
        self.wait_s = POLL_MIN_S

    def seen(self, *, grown: bool) -> float:
        """Seconds until the next look."""
        self.wait_s = POLL_MIN_S if grown else min(self.wait_s * _SLOWER, POLL_MAX_S)
        return self.wait_s
