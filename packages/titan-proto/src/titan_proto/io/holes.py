"""Holes in files: what lies in one takes no room on the disk, and all behind it stays where it is.

So a log that grows for ever can be kept within a limit while its process goes on appending to it, and
every byte keeps its offset. Linux alone can do it, and not on every file system; whoever asks is told.
Used for logs, by workers and by the master.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from typing import Any, Final

HOLE_BYTES: Final = 64 * 1024
"""Holes begin and end at multiples of this, which are multiples of any file system's block."""
_KEEP_SIZE: Final = 1
_PUNCH_HOLE: Final = 2


def punch(descriptor: int, begin: int, end: int) -> bool:
    """Give back the room of these bytes, which read as zeros from then on; False if that is not possible."""
    call = _fallocate()
    if call is None:
        return False
    done = call(
        descriptor,
        _PUNCH_HOLE | _KEEP_SIZE,
        ctypes.c_int64(begin),
        ctypes.c_int64(end - begin),
    )
    return bool(done == 0)


def hole_from(descriptor: int) -> int:
    """Where the file's first hole begins; its end if it has none."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_HOLE)
    except OSError:  # an empty file, or a file system that knows of none
        return os.fstat(descriptor).st_size


def data_from(descriptor: int, offset: int) -> int:
    """Where the first byte from `offset` on stands that is in no hole; the file's end if none does."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:  # nothing but a hole up to the end, or the end has been passed
        return max(offset, os.fstat(descriptor).st_size)


def rounded(offset: int) -> int:
    """The last place at or before `offset` where a hole may begin or end."""
    return offset - offset % HOLE_BYTES


@functools.cache
def _fallocate() -> Callable[..., Any] | None:
    """The C library's call; none on other systems."""
    try:
        found = ctypes.CDLL(None, use_errno=True).fallocate64
    except (OSError, AttributeError):
        return None
    found.restype = ctypes.c_int
    return found
