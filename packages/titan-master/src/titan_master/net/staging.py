"""The scripts that a submission brings, put into ``perm_files/`` under their names.

What can be found there by name next time is a convenience, and a run needs none of it: it is pinned
to the artifacts that it came with. So nothing that goes wrong here is more than a notice on the
receipt, and a submission that brings nothing new, as one of commands does, is not held up at all.
Called by ``submission.py`` once a spec is known to be valid; whether the run is admitted comes after.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from typing import Final

from msgspec import Struct

from titan_master.data.archives import Archive, BadArchive, TooMuch, opened
from titan_master.data.blobs import BlobStore
from titan_master.data.perm_files import BadFile, PermFiles, Put
from titan_proto.limits import STAGED_BYTES_PER_RUN, STAGED_FILES_PER_RUN
from titan_proto.messages import FileOrigin
from titan_proto.specs import ArtifactFormat, JobKind, JobSpec, LaunchKind, RunSpec

_STAGED_KNOWN: Final = 4_096
"""Of so many scripts in their archives it is remembered what became of them."""


class Brought(Struct, frozen=True):
    """A script in an archive of a submission."""

    name: str
    archive: str
    """Its digest."""


class Stager:
    """Puts what submissions bring where it can be found by name."""

    def __init__(
        self,
        blobs: BlobStore,
        perm_files: PermFiles,
        worker: Executor,
        now_ms: Callable[[], int],
    ) -> None:
        self._blobs = blobs
        self._perm_files = perm_files
        self._worker = worker
        self._now_ms = now_ms
        self._staged: OrderedDict[Brought, Put] = OrderedDict()

    def notices_nowait(self, spec: RunSpec, key: str, *, is_known: bool) -> tuple[str, ...] | None:
        """What to say, if nothing has to be read or written to know it; else None."""
        if is_known:
            return None if any(map(_runs_script, spec.jobs)) else ()
        files, notices = brought(spec)
        for one in files.values():
            put = self._staged.get(one)
            if put is None or (key and put.displaced_by == key):
                return None
            if not self._perm_files.is_current(one.name, put.digest):
                return None
        return tuple(notices)

    async def notices(self, spec: RunSpec, key: str, *, is_known: bool) -> tuple[str, ...]:
        """Stage what `spec` brings; what whoever brought it should know."""
        found = self.notices_nowait(spec, key, is_known=is_known)
        if found is not None:
            return found
        now_ms = self._now_ms()

        def work() -> tuple[tuple[str, ...], dict[Brought, Put]]:
            return (self._told(spec, key), {}) if is_known else self._stage(spec, key, now_ms)

        said, staged = await asyncio.get_running_loop().run_in_executor(self._worker, work)
        self._staged.update(staged)
        while len(self._staged) > _STAGED_KNOWN:
            self._staged.popitem(last=False)
        return said

    # -- in the thread ----------------------------------------------------------------------------

    def _told(self, spec: RunSpec, key: str) -> tuple[str, ...]:
        """What the receipt of the same submission said, or would have."""
        names = dict.fromkeys(job.launch.script for job in spec.jobs if _runs_script(job))
        said = (
            self._perm_files.told(n, key) for n in itertools.islice(names, STAGED_FILES_PER_RUN)
        )
        return tuple(itertools.chain.from_iterable(said))

    def _stage(
        self, spec: RunSpec, key: str, now_ms: int
    ) -> tuple[tuple[str, ...], dict[Brought, Put]]:
        files, notices = brought(spec)
        done: dict[Brought, Put] = {}
        left = STAGED_BYTES_PER_RUN
        for digest, scripts in _by_archive(files).items():
            try:
                with opened(self._blobs.path(digest)) as archive:
                    for one in scripts:
                        put, left, wrong = self._stage_one(archive, one, key, now_ms, left)
                        if put is not None:
                            done[one] = put
                            notices += put.notices
                        notices += [_not_kept(one.name, wrong)] if wrong else []
            except BadArchive as error:
                notices += [_not_kept(one.name, f"its archive is {error}") for one in scripts]
        return tuple(notices), done

    def _stage_one(
        self, archive: Archive, one: Brought, key: str, now_ms: int, left: int
    ) -> tuple[Put | None, int, str]:
        """What became of it, the bytes that may still be staged, and what was wrong."""
        if one.name not in archive.names:
            return None, left, "it is not in the archive that came with it"
        size = 0

        def content() -> Iterator[bytes]:
            nonlocal size
            size = 0
            for piece in archive.pieces(one.name, left):
                size += len(piece)
                yield piece

        try:
            put = self._perm_files.put(
                one.name,
                content,
                origin=FileOrigin.STAGED,
                key=key,
                now_ms=now_ms,
                is_executable=archive.is_executable(one.name),
            )
        except BadFile as error:
            return None, left, f"it {error}"
        except TooMuch:
            limit = f"STAGED_BYTES_PER_RUN ({STAGED_BYTES_PER_RUN})"
            return None, left, f"the run's scripts have more than {limit} bytes"
        except BadArchive as error:
            return None, left, f"it {error}"
        except OSError as error:
            return None, left, f"the master's disk: {error.strerror or error}"
        return put, left - size, ""


def brought(spec: RunSpec) -> tuple[dict[str, Brought], list[str]]:
    """The scripts that come along in archives, by name; and what is to be said of them.

    Where jobs bring different files of one name, the last counts: a name stands for one.
    """
    whole = spec.workspace
    found: dict[str, Brought] = {}
    several: dict[str, None] = {}
    for job in spec.jobs:
        if not _runs_script(job):
            continue
        ref = job.launch.artifact or whole
        if ref is None or ref.format is not ArtifactFormat.ZIP:
            continue  # it was found by name, so it is there, or was
        one = Brought(job.launch.script, ref.digest)
        if found.setdefault(one.name, one) != one:
            several[one.name] = None
            found[one.name] = one
    notices = [
        f"{name}: jobs of this run bring different files of this name; perm_files keeps the last"
        for name in itertools.islice(several, STAGED_FILES_PER_RUN)
    ]
    if len(found) > STAGED_FILES_PER_RUN:
        notices.append(
            f"this run brings {len(found)} scripts; perm_files keeps the first "
            f"{STAGED_FILES_PER_RUN} (STAGED_FILES_PER_RUN)"
        )
    return dict(itertools.islice(found.items(), STAGED_FILES_PER_RUN)), notices


def _by_archive(files: Mapping[str, Brought]) -> dict[str, list[Brought]]:
    archives: dict[str, list[Brought]] = {}
    for one in files.values():
        archives.setdefault(one.archive, []).append(one)
    return archives


def _not_kept(name: str, why: str) -> str:
    return f"{name} is not kept in perm_files, which does not affect the run: {why}"


def _runs_script(job: JobSpec) -> bool:
    return job.kind is not JobKind.GATE and job.launch.kind is LaunchKind.SCRIPT
