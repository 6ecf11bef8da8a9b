"""Folders for attempts to come, made while the worker has time and a free slot.

    titan_workspace/ahead/<port>/<n>/   stdout.log, stderr.log, work/

To create these four takes a tenth of a millisecond on a fresh file system, and one or two on a file system
that has just deleted many; a job that comes to a worker with room need not wait for it, for what is here is
moved into place by its name. ``engine`` says when there is time; ``workspace`` makes what is not here.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from titan_worker.host.base import LOG_FLAGS, LOG_MODE

# Looked at for every job: no pathlib.
# ruff: noqa: PTH102, PTH104

FOLDERS_KEPT: Final = 4
"""So many wait: one for each slot that a worker has unless told otherwise."""
WORK: Final = "work"
STDOUT: Final = "stdout.log"
STDERR: Final = "stderr.log"
"""What lies in an attempt's folder."""


class FoldersAhead:
    """What is ready for attempts that nobody has ordered yet. Each worker's own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ready: list[str] = []
        self._made = 0
        self._is_broken = False
        # What an earlier life left is not used: nobody knows how far it had come.
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True, exist_ok=True)

    @property
    def is_short(self) -> bool:
        """Whether another one would be kept."""
        return len(self._ready) < FOLDERS_KEPT and not self._is_broken

    def make(self) -> None:
        """Make one. Where that fails none is made any more; the next attempt's reason says why."""
        self._made += 1
        folder = f"{self._root}/{self._made}"
        try:
            os.mkdir(folder)
            os.mkdir(f"{folder}/{WORK}")
            for name in (STDOUT, STDERR):
                os.close(os.open(f"{folder}/{name}", LOG_FLAGS, LOG_MODE))
        except OSError:
            self._is_broken = True
            return
        self._ready.append(folder)

    def take(self, attempt: str) -> bool:
        """Move one to `attempt`; False where none is left or it cannot be moved there."""
        # Made by the attempt itself, so that what stood in the way is told if it still does.
        self._is_broken = False
        if not self._ready:
            return False
        folder = self._ready.pop()
        try:
            os.rename(folder, attempt)
        except OSError:  # something is there, or the run's folder or this one was swept
            shutil.rmtree(folder, ignore_errors=True)
            return False
        return True
