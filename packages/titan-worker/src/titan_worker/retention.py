"""What may go from this worker's disk, and when: bounded by age and by size, never what is live.

* Folders of ended attempts go when they are old enough, or when all of the workspace weighs too much, those
  that ended first before the others. Not while their logs are owed.
* A run's shared folder goes when it is that old, nothing of the run is left here, and the master says that the
  run has ended: until then a later job may come for it.
* Unpacked artifacts go when nothing has used them for long; their weight is bounded where they are made.

In portions, and at best while nothing runs: after thousands of deletions creating files becomes slow for a
while. A worker that always has something to do sweeps beside it, a little at a time. Runs as one task;
built by ``app``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from titan_proto.ids import AttemptRef, is_run_id
from titan_worker.artifacts import Artifacts
from titan_worker.carrying import Carrier
from titan_worker.endings import HOUR_MS, Endings, Portion
from titan_worker.workspace import Workspaces

# Looks at every file of a workspace: no pathlib.
# ruff: noqa: PTH104, PTH110

_LOG: Final = logging.getLogger(__name__)
_EVERY_S: Final = 600.0
_PAUSE_S: Final = 1.0
_BUSY_PORTION: Final = 50
"""So many folders go at a time while something runs ..."""
_PATIENCE_MS: Final = HOUR_MS
"""... which it does only when a moment without has not come for so long."""
_RUNS_ASKED: Final = 100
"""So many runs are asked about in one sweep."""
_YIELD_EVERY: Final = 200
"""While a folder is measured, others get their turn after so many entries."""
_BLOCK: Final = 512
_GONE: Final = ".gone-"


class Retention:
    """The sweeping of one worker."""

    def __init__(
        self,
        *,
        root: str,
        endings: Endings,
        workspaces: Workspaces,
        carrier: Carrier,
        artifacts: Artifacts,
        keep_ms: int,
        bytes_max: int,
        cache_keep_ms: int,
        now_ms: Callable[[], int],
        is_busy: Callable[[], bool],
        holds: Callable[[str], bool],
        is_over: Callable[[str], Awaitable[bool | None]],
    ) -> None:
        """`holds`: whether anything of a run is held here; `is_over`: what the master says, if it does."""
        self._jobs = f"{root}/jobs"
        self._shared = f"{root}/shared"
        self._endings = endings
        self._workspaces = workspaces
        self._carrier = carrier
        self._artifacts = artifacts
        self._keep_ms = keep_ms
        self._bytes_max = bytes_max
        self._cache_keep_s = cache_keep_ms / 1000
        self._now_ms = now_ms
        self._is_busy = is_busy
        self._holds = holds
        self._is_over = is_over

    async def run(self) -> None:
        """Sweep at the start, and again and again, for ever."""
        while True:
            pause_s = await self.sweep()
            await asyncio.sleep(pause_s)

    async def sweep(self) -> float:
        """Let go what may go, or a portion of it; how many seconds until the next look."""
        due = self._endings.due(self._now_ms(), self._keep_ms)
        if due is not None:
            if not self._is_busy():
                await self._remove(due)
            elif self._endings.due(self._now_ms(), self._keep_ms + _PATIENCE_MS) is not None:
                some = self._endings.due(self._now_ms(), self._keep_ms, most=_BUSY_PORTION)
                assert some is not None  # it was there before
                await self._remove(some)
            return _PAUSE_S
        await self._artifacts.drop_unused(self._cache_keep_s)
        await self._sweep_shared(self._keep_ms)
        weight = await asyncio.to_thread(_weight, self._jobs, self._shared)
        if weight > self._bytes_max:
            await self._make_room(weight)
        return _EVERY_S

    async def _make_room(self, weight: int) -> None:
        """All together weighs too much: what ended first goes first, whatever its age."""
        _LOG.info("making_room bytes=%d most=%d", weight, self._bytes_max)
        while weight > self._bytes_max:
            portion = self._endings.due(self._now_ms(), None, most=_BUSY_PORTION)
            if portion is None:
                await self._sweep_shared(0)
                weight = await asyncio.to_thread(_weight, self._jobs, self._shared)
                break
            weight -= await asyncio.to_thread(self._weight_of, portion.refs)
            await self._remove(portion)
        if weight > self._bytes_max:
            # What is left is in use, or its logs are owed, or its run goes on.
            _LOG.warning("workspace_full bytes=%d most=%d", weight, self._bytes_max)

    def _weight_of(self, refs: Iterable[AttemptRef]) -> int:
        return _weight(*(self._workspaces.folders(ref).attempt for ref in refs))

    async def _remove(self, portion: Portion) -> None:
        await asyncio.to_thread(self._remove_all, portion.refs)
        self._endings.removed(portion, self._now_ms())

    def _remove_all(self, refs: Iterable[AttemptRef]) -> None:
        for ref in refs:
            self._workspaces.remove(ref)

    # -- shared folders -----------------------------------------------------------------------------
    async def _sweep_shared(self, keep_ms: int) -> None:
        asked = 0
        for run_id in await asyncio.to_thread(self._abandoned, keep_ms):
            if asked >= _RUNS_ASKED:
                return
            asked += 1
            if self._holds(run_id) or not await self._is_over(run_id):
                continue
            if not self._holds(run_id):  # it took time to hear from the master
                await asyncio.to_thread(self._remove_shared, run_id)

    def _abandoned(self, keep_ms: int) -> list[str]:
        """Runs of which nothing is here but a shared folder that nobody has touched for so long."""
        found: list[tuple[int, str]] = []
        with os.scandir(self._shared) as entries:
            for entry in entries:
                if entry.name.startswith(_GONE):
                    shutil.rmtree(entry.path, ignore_errors=True)  # a sweep was interrupted
                elif is_run_id(entry.name) and not os.path.exists(f"{self._jobs}/{entry.name}"):
                    with contextlib.suppress(FileNotFoundError):
                        touched_ms = entry.stat(follow_symlinks=False).st_mtime_ns // 1_000_000
                        if touched_ms + keep_ms <= self._now_ms():
                            found.append((touched_ms, entry.name))
        return [name for _, name in sorted(found)]

    def _remove_shared(self, run_id: str) -> None:
        if os.path.exists(f"{self._jobs}/{run_id}"):
            return  # likewise
        self._carrier.forget(run_id)
        # Out of sight in one step: nobody takes over half of it.
        gone = f"{self._shared}/{_GONE}{run_id}"
        with contextlib.suppress(FileNotFoundError):  # another worker of this folder was faster
            os.rename(f"{self._shared}/{run_id}", gone)
        shutil.rmtree(gone, ignore_errors=True)


def _weight(*folders: str) -> int:
    """What everything in these takes on the disk. Runs in a thread."""
    weight = looked = 0
    todo = list(folders)
    while todo:
        try:
            entries = list(os.scandir(todo.pop()))
        except OSError:  # it goes at this moment, or a job has closed it to us
            continue
        for entry in entries:
            looked += 1
            if looked % _YIELD_EVERY == 0:
                time.sleep(0)
            with contextlib.suppress(OSError):
                weight += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
    return weight
