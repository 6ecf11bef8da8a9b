"""Files between jobs: what an attempt left goes to the master by digest, what others left comes from there.

Before a success is told, what belongs to it is stored: new or changed files of the run's shared folder
where somebody may want them in another folder, and what the job hands out. Before an attempt starts, what
the jobs above it left is in the shared folder, and what it takes in is in its working folder. Bytes come
through the worker's cache: once per node, whoever asks. Files that are here already, because the job that
left them ran here, are not moved at all. Called by ``engine`` and ``workspace``; decides nothing about jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple, Protocol

from titan_proto.errors import LinkLost, LocalProtocolError, Malformed, TitanError
from titan_proto.filelist import FileLeft, FileList
from titan_proto.ids import is_digest
from titan_proto.limits import BULK_CHUNK_BYTES, FILE_LIST_BYTES
from titan_proto.messages.worker import AttemptOrder, Layer, Left
from titan_proto.specs import ArtifactFormat, ArtifactRef, JobKind, Share
from titan_worker import leavings, patterns
from titan_worker.artifacts import ArtifactError, Artifacts
from titan_worker.layers import CannotPlace, Known, Layers, Placing
from titan_worker.leavings import Changing, Found, Unfit
from titan_worker.tasks import Tasks

# Asked for every job that may leave something: no pathlib.
# ruff: noqa: PTH123

_LOG: Final = logging.getLogger(__name__)
_TRIES: Final = 3
_JOBS_REMEMBERED: Final = 10_000
_UPLOADS: Final = 4
"""So many files of one attempt are on their way at once."""
STOPPED: Final = "it was stopped while its files were being stored"


class Upload(Protocol):
    """How bytes are stored with the master."""

    async def __call__(self, digest: str, size: int, read: Callable[[int], bytes]) -> None:
        """Once there is a link. Raises LinkLost, RequestError."""


class CarryFailed(Exception):
    """Files cannot be had, or cannot be left; the text is for people."""


class Published(NamedTuple):
    """What became of what an attempt left."""

    left: Left | None
    problem: str = ""
    """Why it cannot be taken; then nothing is."""


class Carrier:
    """The files of every run's jobs on this worker."""

    def __init__(self, *, shared: str, artifacts: Artifacts, upload: Upload, tasks: Tasks) -> None:
        self._shared = shared
        self._layers = Layers(shared)
        self._artifacts = artifacts
        self._upload = upload
        self._tasks = tasks
        self._told: dict[str, dict[int, Layer]] = {}
        """By run: layers that were named by an order and are not known to be here."""
        self._bringing: dict[str, asyncio.Task[str]] = {}
        self._since: dict[tuple[str, str], int] = {}
        """When a job began here, by the clock of the file system."""

    # -- leaving --------------------------------------------------------------------------------
    def begins(self, order: AttemptOrder, attempt: str) -> None:
        """Its process is about to start; its folder is `attempt`. What is touched from now on may be its."""
        if not order.publishes:
            return
        key = (order.ref.run_id, order.ref.job_id)
        if key not in self._since:
            # What an earlier try left, and this one found good, is the job's too: of a try that this
            # process did not see, everything may be.
            self._since[key] = 0
            if order.ref.number == 1:
                with contextlib.suppress(OSError):
                    self._since[key] = os.stat(attempt).st_ctime_ns  # noqa: PTH116 - as above
            if len(self._since) > _JOBS_REMEMBERED:
                del self._since[next(iter(self._since))]

    def may_have_left(self, order: AttemptOrder) -> bool:
        """Whether there is anything to look for: for most attempts there is not."""
        artifacts = order.spec.launch.artifacts
        if artifacts is not None and artifacts.out:
            return True
        return order.publishes and self._has_shared(order)

    def keeps(self, order: AttemptOrder) -> bool:
        """Whether what is in the shared folder of its run is meant for others, and is here alone."""
        is_meant = order.spec.launch.share is Share.RUN and order.spec.kind is JobKind.TASK
        return is_meant and not order.publishes and self._has_shared(order)

    def _has_shared(self, order: AttemptOrder) -> bool:
        try:
            with os.scandir(f"{self._shared}/{order.ref.run_id}") as entries:
                return next(entries, None) is not None
        except OSError:
            return False

    async def publish(self, order: AttemptOrder, work: str) -> Published:
        """Store what the attempt left: the files, then the list of them."""
        try:
            return Published(await self._publish(order, work))
        except (Unfit, CarryFailed) as error:
            return Published(None, str(error))
        except OSError as error:
            return Published(None, f"its files cannot be read: {error.strerror} ({error.filename})")

    async def _publish(self, order: AttemptOrder, work: str) -> Left | None:
        run_id = order.ref.run_id
        shared = f"{self._shared}/{run_id}"
        for _ in range(_TRIES):
            files = await asyncio.to_thread(self._look, order, shared, work)
            if not files.shared and not files.artifacts:
                return None
            stored = [
                *((shared, file) for file in files.shared),
                *((work, file) for file in files.artifacts),
            ]
            by_digest = {
                file.digest: (folder, file) for folder, file in stored if not file.is_inline
            }
            try:
                await self._store_files(list(by_digest.values()))
            except Changing:
                continue  # it was touched between the look and the sending: look again
            data = leavings.encode(files)
            digest = hashlib.sha256(data).hexdigest()
            await self._store(digest, len(data), partial(_piece, data))
            if files.shared:
                await asyncio.to_thread(self._layers.note, run_id, digest, files)
            return Left(
                digest=digest,
                size_bytes=len(data),
                shared=len(files.shared),
                artifacts=len(files.artifacts),
            )
        raise CarryFailed("somebody goes on writing to the files that it left")

    def _look(self, order: AttemptOrder, shared: str, work: str) -> FileList:
        """Find and read what it left. Runs in a thread."""
        budget = _Budget()
        kept: list[FileLeft] = []
        if order.publishes:
            known = Known(self._layers.marks(order.ref.run_id))
            since_ns = self._since.get((order.ref.run_id, order.ref.job_id), 0)
            found = leavings.changed(shared, since_ns, known.is_untouched)
            kept = [file for file in _listed(shared, found, budget) if not known.is_same(file)]
        artifacts = order.spec.launch.artifacts
        out: list[FileLeft] = []
        if artifacts is not None and artifacts.out:
            handed_out = leavings.handed_out(work, artifacts.out)
            out = _listed(work, handed_out, budget)
            if len(out) < len(handed_out):
                raise Unfit("artifacts: somebody goes on writing to a file that it hands out")
        return FileList(tuple(kept), tuple(out))

    async def _store_files(self, files: list[tuple[str, FileLeft]]) -> None:
        for start in range(0, len(files), _UPLOADS):
            batch = files[start : start + _UPLOADS]
            ends = await asyncio.gather(
                *(self._store_file(folder, file) for folder, file in batch), return_exceptions=True
            )
            for end in ends:
                if end is not None:
                    raise end

    async def _store_file(self, folder: str, file: FileLeft) -> None:
        """Raises Changing where the bytes are not those of the list any more."""
        try:
            fd = leavings.opened(folder, file.path)
        except OSError as error:
            raise Changing(file.path) from error
        try:
            await self._store(file.digest, file.size, lambda at: os.pread(fd, BULK_CHUNK_BYTES, at))
        finally:
            os.close(fd)

    async def _store(self, digest: str, size: int, read: Callable[[int], bytes]) -> None:
        while True:
            try:
                await self._upload(digest, size, read)
                return
            except LinkLost:
                _LOG.info("store_paused digest=%s", digest[:12])
            except (Malformed, LocalProtocolError) as error:  # other bytes than it had, or fewer
                raise Changing(digest) from error
            except TitanError as error:
                raise CarryFailed(
                    f"the master did not take a file that it left: {error}"
                ) from error

    # -- bringing -------------------------------------------------------------------------------
    def told(self, orders: Iterable[AttemptOrder]) -> None:
        """The master named these; each only once on a link, whatever becomes of its order."""
        for order in orders:
            if order.layers:
                known = self._told.setdefault(order.ref.run_id, {})
                known.update((layer.index, layer) for layer in order.layers)

    def lacks(self, order: AttemptOrder) -> bool:
        """Whether files may have to be brought before this attempt starts."""
        artifacts = order.spec.launch.artifacts
        takes = artifacts is not None and bool(artifacts.take)
        return takes or order.ref.run_id in self._told

    async def bring(self, run_id: str) -> None:
        """See to it that all layers that were named are in the shared folder. Raises CarryFailed."""
        while run_id in self._told:
            task = self._bringing.get(run_id)
            if task is None:
                task = self._bringing[run_id] = self._tasks.start(self._bring(run_id))
                task.add_done_callback(lambda _task: self._bringing.pop(run_id, None))
            # One attempt that is stopped meanwhile must not take the files from the others.
            problem = await asyncio.shield(task)
            if problem:
                raise CarryFailed(problem)

    async def _bring(self, run_id: str) -> str:
        """Bring what is lacking, in order; what went wrong is a value, because several may wait."""
        told = self._told.get(run_id, {})
        layers = [told[index] for index in sorted(told)]
        try:
            wanted = await asyncio.to_thread(self._layers.wanted, run_id, layers)
            if wanted:
                folder = await asyncio.to_thread(self._layers.temporary, run_id)
                try:
                    for layer in wanted:
                        await self._bring_layer(run_id, layer, folder)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
        except (ArtifactError, CannotPlace, Unfit) as error:
            return f"what jobs before it left in the shared folder cannot be had: {error}"
        except OSError as error:
            return (
                "what jobs before it left in the shared folder cannot be put there: "
                f"{error.strerror} ({error.filename})"
            )
        for layer in layers:
            told.pop(layer.index, None)
        if not told:
            self._told.pop(run_id, None)
        return ""

    async def _bring_layer(self, run_id: str, layer: Layer, folder: str) -> None:
        files = await self._list(layer.left, folder)
        lacking = await asyncio.to_thread(self._layers.lacking, run_id, layer, files)
        await self._bytes_of(lacking, folder)
        await asyncio.to_thread(self._layers.place, run_id, layer, files, folder)

    async def take_in(self, order: AttemptOrder, work: str, beside: str) -> None:
        """Put what the job takes in from others into its working folder. Raises CarryFailed, OSError."""
        artifacts = order.spec.launch.artifacts
        if artifacts is None or not artifacts.take:
            return
        folder = f"{beside}/intake"
        try:
            os.mkdir(folder)  # noqa: PTH102 - as above
            wanted = await self._intake(order, folder)
            await self._bytes_of(wanted, folder)
            await asyncio.to_thread(_put_all, wanted, work, folder, beside)
        except (ArtifactError, CannotPlace, Unfit) as error:
            raise CarryFailed(f"what it takes in (artifacts) cannot be had: {error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _intake(self, order: AttemptOrder, folder: str) -> list[FileLeft]:
        """The files that the job takes in, each path once."""
        artifacts = order.spec.launch.artifacts
        wanted: dict[str, tuple[str, FileLeft]] = {}
        lists: dict[str, FileList] = {}
        for take in artifacts.take if artifacts is not None else ():
            left = order.intake.get(take.job)
            if left is not None and take.job not in lists:
                lists[take.job] = await self._list(left, folder)
            files = lists.get(take.job, FileList()).artifacts
            matching = [file for file in files if patterns.is_match(file.path, take.files)]
            if not matching:
                raise Unfit(f"{take.job} handed out no file {take.files!r}")
            for file in matching:
                other, known = wanted.setdefault(file.path, (take.job, file))
                if known.digest != file.digest:
                    raise Unfit(f"{file.path!r} comes from {other} and, different, from {take.job}")
        return [file for _, file in wanted.values()]

    async def _list(self, left: Left, folder: str) -> FileList:
        if not is_digest(left.digest) or not 0 < left.size_bytes <= FILE_LIST_BYTES:
            raise Unfit("the list of files has no digest, or no size that one may have")
        await self._blob(left.digest, left.size_bytes, folder)
        path = f"{folder}/{left.digest}"
        data = await asyncio.to_thread(_read, path)
        return await asyncio.to_thread(leavings.decode, data)

    async def _bytes_of(self, files: list[FileLeft], folder: str) -> None:
        """The bytes of those that no list holds, into `folder`, by digest."""
        for digest, size in {
            file.digest: file.size for file in files if not file.is_inline
        }.items():
            await self._blob(digest, size, folder)

    async def _blob(self, digest: str, size: int, folder: str) -> None:
        file = ArtifactFormat.FILE
        ref = ArtifactRef(digest=digest, size_bytes=size, format=file, name=digest)
        await self._artifacts.copy(ref, folder)

    # -- the end of a run -------------------------------------------------------------------------
    def forget(self, run_id: str) -> None:
        """Its shared folder is about to go from here. May run in a thread."""
        self._told.pop(run_id, None)
        self._layers.forget(run_id)


class _Budget:
    """How much of files may still lie in the list itself."""

    def __init__(self) -> None:
        self.left = leavings.INLINE_TOTAL_BYTES


def _listed(folder: str, found: list[Found], budget: _Budget) -> list[FileLeft]:
    """The files with their digests; what is being written, or has gone, is left out."""
    files: list[FileLeft] = []
    for one in found:
        try:
            file = leavings.listed(folder, one, inline=one.size <= budget.left)
        except (Changing, FileNotFoundError):
            # Another job of the run writes it: it goes with that one.
            _LOG.info("not_listed path=%s/%s why=it is being written", folder, one.path)
            continue
        budget.left -= len(file.data)
        files.append(file)
    return files


def _put_all(files: list[FileLeft], work: str, blobs: str, beside: str) -> None:
    with Placing(work, beside, "placing") as placing:
        for file in files:
            placing.put(file, blobs)


def _piece(data: bytes, at: int) -> bytes:
    return data[at : at + BULK_CHUNK_BYTES]


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
