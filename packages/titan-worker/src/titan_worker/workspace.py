"""Folders that attempts run in: made, filled, and swept long after.

    titan_workspace/jobs/<run>/<job>.<number>/   stdout.log, stderr.log, work/; see ``outputs``
    titan_workspace/shared/<run>/                one per run on this machine
    titan_workspace/ahead/<port>/                see ``ahead``

``work/`` starts as a copy of the run's workspace artifact plus the job's own; ``shared/`` of a run
that repeats another as a copy of that one's, before its first job starts here. Small copies of what
is in the cache already are made at once, the rest in a thread; no folder is ever removed here while
jobs start (see ``endings`` for when they go). Called by the engine alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple

from titan_proto.ids import AttemptRef, is_instance_id, is_run_id
from titan_proto.messages.worker import AttemptOrder
from titan_proto.specs import ArtifactRef
from titan_worker.ahead import STDERR, STDOUT, WORK, FoldersAhead
from titan_worker.artifacts import ArtifactError, Artifacts, Entry, EntryDamaged, copy_into
from titan_worker.carrying import Carrier, CarryFailed
from titan_worker.outputs import NAME as OUTPUTS
from titan_worker.takeover import TakeOverFailed, clear_unfinished, take_over
from titan_worker.tasks import Tasks

# One to four folders per job are the worker's hot path: no pathlib.
# ruff: noqa: PTH102, PTH103, PTH106, PTH108, PTH110, PTH112, PTH116

_INLINE_BYTES: Final = 256 * 1024
_INLINE_FILES: Final = 8
"""Up to this much is copied at once: a thread would cost more than the copying."""
_RUNS_REMEMBERED: Final = 10_000
_ID: Final = ".id"


def may_have_folder(ref: AttemptRef) -> bool:
    """Whether the attempt's name may become a path.

    Orders and lists come from outside: this is asked here, whoever has asked before.
    """
    return is_run_id(ref.run_id) and is_instance_id(ref.job_id) and ref.number > 0


def workspace_id(root: Path, draw: Callable[[], str]) -> str:
    """What tells this workspace folder from all others, for every worker that uses it.

    A copy of the folder is another one: its file is.
    """
    os.makedirs(root, exist_ok=True)
    file = f"{root}/{_ID}"
    if not os.path.exists(file):
        own = f"{file}-{draw()}"
        Path(own).write_text(draw(), encoding="ascii")
        # Another worker may be making it at this moment: the first one's counts.
        with contextlib.suppress(FileExistsError):
            os.link(own, file)
        os.unlink(own)
    return f"{Path(file).read_text(encoding='ascii')[:32]}-{os.stat(file).st_ino}"


class Folders(NamedTuple):
    """Where one attempt lives."""

    attempt: str
    work: str
    stdout: str
    stderr: str
    shared: str
    outputs: str
    """A file that the job makes, if it has anything to hand on."""


class Workspaces:
    """The workspace folders of one data folder, which workers on other ports may share."""

    def __init__(
        self,
        root: Path,
        *,
        port: int,
        artifacts: Artifacts,
        carrier: Carrier,
        tasks: Tasks,
        on_ready: Callable[[AttemptRef], None],
        on_failed: Callable[[AttemptRef, str], None],
    ) -> None:
        self._jobs = f"{root}/jobs"
        self._shared = f"{root}/shared"
        self._artifacts = artifacts
        self._carrier = carrier
        self._tasks = tasks
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._filling: dict[AttemptRef, asyncio.Task[None]] = {}
        # Runs whose folders exist: saves two system calls for every job but a run's first.
        self._runs: dict[str, None] = {}
        for folder in (self._jobs, self._shared):
            os.makedirs(folder, exist_ok=True)
        # Shared folders that are being copied: the run's other attempts wait for the same copy.
        self._taking: dict[str, asyncio.Task[TakeOverFailed | OSError | None]] = {}
        clear_unfinished(self._shared)
        self._ahead = FoldersAhead(root / "ahead" / str(port))

    def folders(self, ref: AttemptRef) -> Folders:
        """Where `ref` lives; whether it is there is another matter."""
        if not may_have_folder(ref):
            raise ValueError(f"not an attempt's name: {ref!r}")
        attempt = f"{self._jobs}/{ref.run_id}/{ref.job_id}.{ref.number}"
        return Folders(
            attempt,
            f"{attempt}/{WORK}",
            f"{attempt}/{STDOUT}",
            f"{attempt}/{STDERR}",
            f"{self._shared}/{ref.run_id}",
            f"{attempt}/{OUTPUTS}",
        )

    def prepare(self, order: AttemptOrder) -> None:
        """Make and fill the attempt's folders, then say so; perhaps before this returns."""
        ref = order.ref
        wanted = [
            artifact
            for artifact in (order.workspace, order.spec.launch.artifact)
            if artifact is not None
        ]
        if old := self._to_take_over(order):
            self._fill_later(ref, self._fill_after_taking_over(old, order, wanted))
            return
        try:
            folders = self._make(ref)
            entries = None if self._carrier.lacks(order) else self._at_hand(wanted)
            if entries is not None:
                for entry, artifact in zip(entries, wanted, strict=True):
                    copy_into(entry, artifact, folders.work)
                self._on_ready(ref)
                return
        except EntryDamaged:
            pass  # the copying below notices too, and has it fetched again
        except (ArtifactError, OSError, ValueError) as error:
            self._on_failed(ref, _explain(error))
            return
        self._fill_later(ref, self._fill(order, folders, wanted))

    def _fill_later(self, ref: AttemptRef, filling: Coroutine[Any, Any, None]) -> None:
        task = self._filling[ref] = self._tasks.start(filling)
        task.add_done_callback(lambda _task: self._filling.pop(ref, None))

    @property
    def lacks_ahead(self) -> bool:
        """Whether `make_ahead` would be of use."""
        return self._ahead.is_short

    def make_ahead(self) -> None:
        """Make one folder for an attempt to come."""
        self._ahead.make()

    def abandon(self, ref: AttemptRef) -> None:
        """Nobody wants this workspace any more."""
        task = self._filling.pop(ref, None)
        if task is not None:
            task.cancel()

    def remove(self, ref: AttemptRef) -> None:
        """Delete the attempt's folder, and the run's if it was the last. May run in a thread.

        What jobs have put into the run's shared folder stays: a later job may still come for it,
        and only the master knows when a run is over.
        """
        folders = self.folders(ref)
        shutil.rmtree(folders.attempt, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(f"{self._jobs}/{ref.run_id}")
            # Only then: other attempts of the run may count on it.
            os.rmdir(folders.shared)
            self._carrier.forget(ref.run_id)

    def _to_take_over(self, order: AttemptOrder) -> str:
        """The run from whose shared folder, which is here, this one's is to be made; empty: from none."""
        old, new = order.takes_over, order.ref.run_id
        if not old or not may_have_folder(order.ref):
            return ""
        if new not in self._taking and (
            new in self._runs or os.path.lexists(f"{self._shared}/{new}")
        ):
            return ""
        # Orders come from outside: a name becomes a path only if it is one that a run may have.
        runs = (one for one in (old, *order.ancestors) if is_run_id(one))
        return next((one for one in runs if os.path.isdir(f"{self._shared}/{one}")), "")

    async def _fill_after_taking_over(
        self, old: str, order: AttemptOrder, wanted: list[ArtifactRef]
    ) -> None:
        ref = order.ref
        problem = await self._take_over(old, ref.run_id)
        try:
            if problem is not None:
                raise problem
            folders = self._make(ref)
        except (TakeOverFailed, OSError) as error:
            self._on_failed(ref, _explain(error))
            return
        await self._fill(order, folders, wanted)

    async def _take_over(self, old: str, new: str) -> TakeOverFailed | OSError | None:
        """Copy the one run's shared folder for the other, once, whoever asks; what went wrong."""
        task = self._taking.get(new)
        if task is None:
            task = self._taking[new] = self._tasks.start(self._copy_shared(old, new))
            task.add_done_callback(lambda _task: self._taking.pop(new, None))
        # One attempt that is stopped meanwhile must not take the copy from the others.
        return await asyncio.shield(task)

    async def _copy_shared(self, old: str, new: str) -> TakeOverFailed | OSError | None:
        try:
            await asyncio.to_thread(take_over, f"{self._shared}/{old}", f"{self._shared}/{new}")
        except (TakeOverFailed, OSError) as error:
            return error
        return None

    def _make(self, ref: AttemptRef) -> Folders:
        folders = self.folders(ref)
        if ref.run_id not in self._runs:
            self._make_run(ref.run_id, folders.shared)
        if self._ahead.take(folders.attempt):
            return folders
        try:
            os.mkdir(folders.attempt)
        except FileExistsError:
            # Left by a life whose ledger is gone. Logs are appended to: they must begin empty.
            shutil.rmtree(folders.attempt)
            os.mkdir(folders.attempt)
        except FileNotFoundError:  # the run's folder was swept since
            self._make_run(ref.run_id, folders.shared)
            os.mkdir(folders.attempt)
        os.mkdir(folders.work)
        return folders

    def _make_run(self, run_id: str, shared: str) -> None:
        os.makedirs(f"{self._jobs}/{run_id}", exist_ok=True)
        os.makedirs(shared, exist_ok=True)
        self._runs[run_id] = None
        if len(self._runs) > _RUNS_REMEMBERED:
            del self._runs[next(iter(self._runs))]

    def _at_hand(self, wanted: list[ArtifactRef]) -> list[Entry] | None:
        """The artifacts, if they are here and small enough to be copied at once."""
        entries = []
        for artifact in wanted:
            entry = self._artifacts.find(artifact)
            if (
                entry is None
                or len(entry.tree.files) > _INLINE_FILES
                or entry.tree.size_bytes > _INLINE_BYTES
            ):
                return None
            entries.append(entry)
        return entries

    async def _fill(self, order: AttemptOrder, folders: Folders, wanted: list[ArtifactRef]) -> None:
        try:
            for artifact in wanted:
                await self._artifacts.copy(artifact, folders.work)
            if self._carrier.lacks(order):
                await self._carrier.bring(order.ref.run_id)
                await self._carrier.take_in(order, folders.work, folders.attempt)
        except (ArtifactError, CarryFailed, OSError) as error:
            self._on_failed(order.ref, _explain(error))
            return
        self._on_ready(order.ref)


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"the workspace could not be made: {error.strerror} ({error.filename})"
    return f"the workspace could not be made: {error}"
