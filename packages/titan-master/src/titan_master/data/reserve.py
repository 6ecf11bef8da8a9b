"""Room on the disk of the data folder: a file held in reserve, and what may still be written.

While the reserve is held everybody may write. When what is free beside it falls below a floor it is
given up, and what it held is for the ends of what has begun: artifacts, logs and new work are refused.
Once there is room for it again it is made anew. `Reserve` touches the disk and belongs off the loop;
`Space` is the loop's side of it, asked before every write that could be done without; `DiskWatch`
looks from time to time. Built by ``app.py``; the core is told by whoever is called with each look.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from msgspec import Struct

_log = logging.getLogger("titan.disk")

LOOK_S: Final = 1.0
"""So often the disk is looked at ..."""
LOOK_NEAR_S: Final = 0.1
"""... and so often while less than this may be written."""
NEAR_BYTES: Final = 1024 * 1024 * 1024

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_FLOOR_SHARE: Final = 4
"""The floor is this part of the reserve: what may be written between two looks, and more."""


def is_full(error: BaseException | None) -> bool:
    """Whether a call failed because there was no room on the disk."""
    return isinstance(error, OSError) and error.errno in _FULL


class Look(Struct, frozen=True, kw_only=True):
    """What was found."""

    is_held: bool
    """Whether the reserve is; if not, nothing may be written but ends."""
    free_bytes: int
    room_bytes: int
    """What may be written by those who could do without; 0 and less: nothing."""
    wanted_bytes: int
    """When so much is free, the reserve is made again."""


class Reserve:
    """The file ``reserve`` in the data folder."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._path = folder / "reserve"
        self._size = size_bytes
        self._floor = size_bytes // _FLOOR_SHARE
        self._is_held = False

    def begin(self) -> Look:
        """Take up what an earlier process has left, or make it; the first look."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return self.look()
        # In blocks, because a file may have a size and hold nothing.
        self._is_held = status.st_size == self._size and status.st_blocks * 512 >= self._size
        if not self._is_held:
            self._path.unlink()  # of another size, or begun and not finished
        return self.look()

    def look(self) -> Look:
        """See how much is free; make the reserve, or give it up, as that says."""
        free = self._free()
        wanted = self._size + 2 * self._floor
        if self._is_held and free < self._floor:
            self._give_up()
            free = self._free()
            _log.warning(
                "disk full, the reserve is given up free_bytes=%d wanted_bytes=%d", free, wanted
            )
        elif not self._is_held and free >= wanted and self._make():
            free = self._free()
            _log.info("reserve held size_bytes=%d free_bytes=%d", self._size, free)
        return Look(
            is_held=self._is_held,
            free_bytes=free,
            room_bytes=free - self._floor if self._is_held else 0,
            wanted_bytes=wanted,
        )

    def _free(self) -> int:
        found = os.statvfs(self._path.parent)
        return found.f_bavail * found.f_frsize

    def _make(self) -> bool:
        """False if there is no room after all."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
            finally:
                os.close(descriptor)
        except OSError as error:
            if not is_full(error):
                raise
            self._give_up()
            return False
        self._is_held = True
        return True

    def _give_up(self) -> None:
        self._path.unlink(missing_ok=True)
        self._is_held = False


class Space:
    """What the data plane may write until the next look. Asked from any thread."""

    def __init__(self, first: Look) -> None:
        self._lock = threading.Lock()
        self._room_bytes = first.room_bytes
        self._room_wanted: list[Callable[[], None]] = []

    def has(self, wanted_bytes: int) -> bool:
        """Whether so much may be written, as far as is known."""
        return self._room_bytes >= wanted_bytes

    def take(self, wanted_bytes: int) -> None:
        """So much is about to be written. Raises OSError (ENOSPC) if it must not be."""
        with self._lock:
            if self._room_bytes >= wanted_bytes:
                self._room_bytes -= wanted_bytes
                return
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def when_room(self, call: Callable[[], None]) -> None:
        """Call this once after a look that has found room. On the loop."""
        self._room_wanted.append(call)

    def looked(self, look: Look) -> None:
        """Go by this from now on. On the loop."""
        with self._lock:
            self._room_bytes = look.room_bytes
        if look.room_bytes > 0 and self._room_wanted:
            wanted, self._room_wanted = self._room_wanted, []
            for call in wanted:
                call()


class DiskWatch:
    """Looks from time to time, more often the less room there is; tells `space`, and `tell`."""

    def __init__(
        self,
        *,
        reserve: Reserve,
        space: Space,
        worker: Executor,
        tell: Callable[[Look], None],
    ) -> None:
        self._reserve = reserve
        self._space = space
        self._worker = worker
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def begin(self, first: Look) -> None:
        """Tell of the look at the start, and go on looking."""
        self._tell(first)
        self._look_after(first)

    def close(self) -> None:
        """Look no more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _look_after(self, look: Look) -> None:
        pause_s = LOOK_NEAR_S if look.room_bytes < NEAR_BYTES else LOOK_S
        self._timer = self._loop.call_later(pause_s, self._look)

    def _look(self) -> None:
        looked = self._loop.run_in_executor(self._worker, self._reserve.look)
        looked.add_done_callback(self._looked)

    def _looked(self, done: asyncio.Future[Look]) -> None:
        if self._is_closed or done.cancelled():
            return
        # A disk that cannot even be looked at is no reason to end: the next commit says more. What
        # was known counts on, until it is used up.
        error = done.exception()
        if isinstance(error, OSError):
            _log.error("the disk cannot be looked at error=%s", error.strerror)
            self._timer = self._loop.call_later(LOOK_S, self._look)
            return
        look = done.result()
        self._space.looked(look)
        self._tell(look)
        self._look_after(look)
