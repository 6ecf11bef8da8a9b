"""Leadership on one machine: a lock on a file beside the database.

The kernel lets go of the lock when the process ends, however it ends, so a dead master never
keeps the next one out. The file is removed in good order only, while the lock is still held.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from titan_master.leadership.base import NotLeading

_HOLDER_BYTES = 200


class SoloLeadership:
    """An exclusive ``flock``, held for the life of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock. Raises NotLeading at once when somebody has it."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, _HOLDER_BYTES, 0).decode(errors="replace").strip()
                os.close(descriptor)
                raise NotLeading(holder or "an unnamed process") from None
            if self._is_still_named(descriptor):
                break
            # Its holder removed the file between our open and our lock: this inode guards nothing.
            os.close(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def resign(self) -> None:
        """Remove the file, then let go."""
        if self._descriptor < 0:
            return
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1

    def _is_still_named(self, descriptor: int) -> bool:
        mine = os.fstat(descriptor)
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)
