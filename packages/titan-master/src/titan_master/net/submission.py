"""From SubmitRun to RunSubmitted: decoded, validated, and pinned to bytes that cannot change.

A script that neither the run's workspace nor the job brings along is looked up by name in
``perm_files/`` at this moment, and the run keeps what was found. Small submissions that need no disk
are done at once; all others in one thread, one after the other, in steps short enough that the loop
goes on meanwhile. Scripts that come along are then staged (``staging.py``), in a thread of its own. Whether the run is admitted is the core's to say. Called by ``link.py``.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Struct

from titan_master.core.inputs import Input, Origin, RunSubmitted, ScheduleSubmitted
from titan_master.data.archives import BadArchive, opened
from titan_master.data.blobs import BadBlob, BlobStore
from titan_master.data.feed import Outlet, Streams
from titan_master.data.perm_files import PermFiles
from titan_master.data.reserve import is_full
from titan_master.net.staging import Stager
from titan_proto import schedules
from titan_proto.errors import ErrorCode, Problem
from titan_proto.ids import is_digest
from titan_proto.io.entropy import new_id
from titan_proto.limits import (
    JOBS_PER_RUN,
    PARAMS_PER_RUN,
    RUN_SPEC_BYTES,
    SCHEDULE_SPEC_BYTES,
    SUBMIT_KEY_CHARS,
)
from titan_proto.messages import Error, PutSchedule, SubmitRun
from titan_proto.specs import (
    ArtifactFormat,
    ArtifactRef,
    JobKind,
    JobSpec,
    LaunchKind,
    RunSpec,
    Shape,
)
from titan_proto.validation import problems

MISSING_SCRIPT: Final = "Y250"
MISSING_ARTIFACT: Final = "Y251"
BAD_WORKSPACE: Final = "Y252"

_AT_ONCE_JOBS: Final = 32
"""A run of so many jobs is validated in less time than a thread takes to wake."""
_WORKSPACES_KNOWN: Final = 64
"""Of so many workspaces the names of their files are remembered."""

_ENCODER: Final = msgspec.msgpack.Encoder()


class RawRun(Struct, omit_defaults=True):
    """A RunSpec whose jobs are still bytes: taken apart in one go, decoded one by one."""

    name: str
    # Counted before it is taken apart: a byte each could be nothing, and an object here.
    jobs: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=JOBS_PER_RUN)]
    workspace: ArtifactRef | None = None
    shapes: Annotated[dict[str, Shape], msgspec.Meta(max_length=JOBS_PER_RUN)] = msgspec.field(
        default_factory=dict
    )
    params: Annotated[dict[str, str], msgspec.Meta(max_length=PARAMS_PER_RUN)] = msgspec.field(
        default_factory=dict
    )


_RAW: Final = msgspec.msgpack.Decoder(RawRun)
_JOB: Final = msgspec.msgpack.Decoder(JobSpec)


class Refusal(Exception):
    """The submission is not admitted; `error` says why."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.message)
        self.error = error


class Submissions:
    """Makes inputs for the core out of what clients submit."""

    def __init__(
        self,
        *,
        blobs: BlobStore,
        perm_files: PermFiles,
        stager: Stager,
        streams: Streams,
        worker: Executor,
        is_known_key: Callable[[str], bool],
        put: Callable[[Input], None],
    ) -> None:
        self._blobs = blobs
        self._perm_files = perm_files
        self._stager = stager
        self._streams = streams
        self._worker = worker
        self._is_known_key = is_known_key
        self._put = put
        self._contents: OrderedDict[str, frozenset[str]] = OrderedDict()

    def submit(self, outlet: Outlet, correlation: int, owner: str, request: SubmitRun) -> None:
        """Take a submission; the core or an Error answers it."""
        origin = Origin(outlet.link_id, correlation)
        if not 0 < len(request.key) <= SUBMIT_KEY_CHARS:
            message = f"a submit key has 1 to {SUBMIT_KEY_CHARS} (SUBMIT_KEY_CHARS) characters"
            error = Error(code=ErrorCode.INVALID_SPEC, message=message)
            outlet.send(error, correlation, end=True)
            return
        is_known = self._is_known_key(request.key)
        if request.spec is None or not self._is_light(request.spec, is_known=is_known):
            self._streams.start(
                outlet,
                correlation,
                lambda: self._off_loop(outlet, origin, owner, request, is_known=is_known),
            )
            return
        try:
            item = self._prepare(origin, owner, request, is_known=is_known)
        except Refusal as refusal:
            outlet.send(refusal.error, correlation, end=True)
            return
        notices = self._stager.notices_nowait(item.spec, item.key, is_known=is_known)
        if notices is None:
            self._streams.start(
                outlet, correlation, lambda: self._stage_and_put(item, is_known=is_known)
            )
        else:
            self._put(_told(item, notices))

    def put_schedule(
        self, outlet: Outlet, correlation: int, owner: str, request: PutSchedule
    ) -> None:
        """Take a schedule; the core or an Error answers it."""
        origin = Origin(outlet.link_id, correlation)
        self._streams.start(
            outlet, correlation, lambda: self._schedule_off_loop(outlet, origin, owner, request)
        )

    async def _schedule_off_loop(
        self, outlet: Outlet, origin: Origin, owner: str, request: PutSchedule
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            item = await loop.run_in_executor(
                self._worker, lambda: self._prepare_schedule(origin, owner, request)
            )
        except Refusal as refusal:
            outlet.send(refusal.error, origin.correlation, end=True)
            return
        except OSError as error:
            message = f"the master's disk: {error.strerror or error}"
            refused = Error(code=_disk_code(error), message=message)
            outlet.send(refused, origin.correlation, end=True)
            return
        # Staged as a run's files are, and under a key that changes when they do.
        await self._stager.notices(item.run, f"schedule {item.digest}", is_known=False)
        self._put(item)

    async def _off_loop(
        self, outlet: Outlet, origin: Origin, owner: str, request: SubmitRun, *, is_known: bool
    ) -> None:
        def prepare() -> RunSubmitted:
            return self._prepare(origin, owner, request, is_known=is_known)

        loop = asyncio.get_running_loop()
        try:
            item = await loop.run_in_executor(self._worker, prepare)
            await self._stage_and_put(item, is_known=is_known)
        except Refusal as refusal:
            outlet.send(refusal.error, origin.correlation, end=True)
        except OSError as error:
            message = f"the master's disk: {error.strerror or error}"
            refused = Error(code=_disk_code(error), message=message)
            outlet.send(refused, origin.correlation, end=True)

    async def _stage_and_put(self, item: RunSubmitted, *, is_known: bool) -> None:
        """Whatever becomes of the files: the submission goes on."""
        notices = await self._stager.notices(item.spec, item.key, is_known=is_known)
        self._put(_told(item, notices))

    def _is_light(self, spec: RunSpec, *, is_known: bool) -> bool:
        """Whether preparing this needs neither much time nor a file's content."""
        if len(spec.jobs) > _AT_ONCE_JOBS:
            return False
        scripts = [job for job in spec.jobs if _names_script(job)]
        if is_known or not scripts:
            return True
        names = self._known_names(spec.workspace)
        return names is not None and all(job.launch.script in names for job in scripts)

    def _known_names(self, workspace: ArtifactRef | None) -> frozenset[str] | None:
        """The workspace's files, without looking into it; None if that cannot be."""
        if workspace is None:
            return frozenset()
        if workspace.format is ArtifactFormat.FILE:
            return frozenset({workspace.name})
        return self._contents.get(workspace.digest)

    # -- in the thread, or at once where it is little ---------------------------------------------

    def _prepare(
        self, origin: Origin, owner: str, request: SubmitRun, *, is_known: bool
    ) -> RunSubmitted:
        spec, spec_bytes = self._read(request)
        found = problems(spec)
        if found:
            raise _invalid(found)
        # Of the bytes as the client sent them: what perm_files hold by now must not turn the
        # second try of a submission into another one.
        digest = hashlib.sha256(spec_bytes).hexdigest()
        if not is_known:
            spec = self._pinned(spec)
        if spec is not request.spec:
            spec_bytes = encode_spec(spec)
        return RunSubmitted(
            origin=origin,
            run_id=new_id(),
            key=request.key,
            digest=digest,
            spec=spec,
            spec_bytes=spec_bytes,
            owner=owner,
            parent=request.parent,
        )

    def _prepare_schedule(
        self, origin: Origin, owner: str, request: PutSchedule
    ) -> ScheduleSubmitted:
        fault = schedules.name_fault(request.name)
        if fault:
            where, code = "name", schedules.BAD_SCHEDULE_NAME
            problem = Problem(where=where, message=f"the schedule's name {fault}", code=code)
            raise _invalid((problem,))
        # Its zone is read here, once: the core finds it in memory.
        found = (*schedules.problems(request.spec), *problems(request.run))
        if found:
            raise _invalid(found)
        sent = _ENCODER.encode((request.spec, request.run))
        run = self._pinned(request.run)
        run_bytes = encode_spec(run)
        if len(run_bytes) > SCHEDULE_SPEC_BYTES:
            most = f"SCHEDULE_SPEC_BYTES ({SCHEDULE_SPEC_BYTES})"
            raise _refusal(
                ErrorCode.LIMIT_EXCEEDED,
                f"what the schedule runs takes {len(run_bytes)} bytes, more than {most}",
            )
        return ScheduleSubmitted(
            origin=origin,
            name=request.name,
            schedule_id=new_id(),
            spec=request.spec,
            run=run,
            run_bytes=run_bytes,
            # Of what was found, too: a script of perm_files that has changed is a new version.
            digest=hashlib.sha256(sent + run_bytes).hexdigest(),
            owner=owner,
        )

    def _read(self, request: SubmitRun) -> tuple[RunSpec, bytes]:
        if (request.spec is None) == (not request.spec_digest):
            raise _refusal(ErrorCode.MALFORMED, "a submission has either a spec or its digest")
        if request.spec is not None:
            return request.spec, _ENCODER.encode(request.spec)
        digest = request.spec_digest
        size = self._blobs.size(digest) if is_digest(digest) else None
        if size is None:
            raise _refusal(ErrorCode.NOT_FOUND, f"no artifact {digest[:64]!r} is stored here")
        if size > RUN_SPEC_BYTES:
            most = f"RUN_SPEC_BYTES ({RUN_SPEC_BYTES})"
            raise _refusal(ErrorCode.LIMIT_EXCEEDED, f"a spec of {size} bytes is above {most}")
        try:
            spec_bytes = self._blobs.read(digest)
        except OSError as error:
            raise _refusal(ErrorCode.UNAVAILABLE, f"the master's disk: {error}") from error
        return decode_spec(spec_bytes), spec_bytes

    def _pinned(self, spec: RunSpec) -> RunSpec:
        """The spec with every script found; the same object where nothing had to be looked up."""
        found: list[Problem] = []
        self._check_stored(spec, found)
        if found:
            raise _invalid(tuple(found))
        names = self._names(spec.workspace)
        known: dict[str, ArtifactRef | None] = {}
        jobs: list[JobSpec] | None = None
        for at, job in enumerate(spec.jobs):
            if not _names_script(job) or job.launch.script in names:
                continue
            script = job.launch.script
            if script not in known:
                known[script] = self._perm_file(script)
            ref = known[script]
            if ref is None:
                found.append(_missing_script(at, script))
                continue
            jobs = list(spec.jobs) if jobs is None else jobs
            launch = msgspec.structs.replace(job.launch, artifact=ref)
            jobs[at] = msgspec.structs.replace(job, launch=launch)
        if found:
            raise _invalid(tuple(found))
        return spec if jobs is None else msgspec.structs.replace(spec, jobs=tuple(jobs))

    def _check_stored(self, spec: RunSpec, found: list[Problem]) -> None:
        """Every artifact that is named must be here already."""
        known: set[str] = set()
        places = [("workspace", spec.workspace)]
        places += (
            (f"jobs[{at}].launch.artifact", job.launch.artifact)
            for at, job in enumerate(spec.jobs)
            if job.launch.artifact is not None
        )
        for where, ref in places:
            if ref is None or ref.digest in known:
                continue
            known.add(ref.digest)
            if not self._blobs.touch(ref.digest):
                found.append(
                    Problem(
                        where=where,
                        message=f"artifact {ref.digest} is not stored here",
                        hint="upload it before the run is submitted",
                        code=MISSING_ARTIFACT,
                    )
                )

    def _names(self, workspace: ArtifactRef | None) -> frozenset[str]:
        names = self._known_names(workspace)
        if names is not None or workspace is None:
            return names or frozenset()
        names = _zip_names(self._blobs.path(workspace.digest))
        self._contents[workspace.digest] = names
        if len(self._contents) > _WORKSPACES_KNOWN:
            self._contents.popitem(last=False)
        return names

    def _perm_file(self, name: str) -> ArtifactRef | None:
        try:
            return self._perm_files.find(name)
        except BadBlob as error:
            raise _refusal(ErrorCode.LIMIT_EXCEEDED, f"perm_files/{name}: {error}") from error
        except OSError as error:
            raise _refusal(_disk_code(error), f"perm_files/{name}: {error}") from error


def decode_spec(spec_bytes: bytes) -> RunSpec:
    """A RunSpec of any size, job by job, so that no step holds up other threads for long."""
    where = "the spec"
    try:
        raw = _RAW.decode(spec_bytes)
        jobs = []
        for at, job in enumerate(raw.jobs):
            where = f"jobs[{at}]"
            jobs.append(_JOB.decode(job))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, OverflowError) as error:
        raise _refusal(ErrorCode.MALFORMED, f"{where} cannot be read: {error}") from error
    return RunSpec(
        name=raw.name,
        jobs=tuple(jobs),
        workspace=raw.workspace,
        shapes=raw.shapes,
        params=raw.params,
    )


def encode_spec(spec: RunSpec) -> bytes:
    """What the journal keeps: only what was understood, whatever came beside it.

    A field that nobody knows may be nested so deep that this thread could just step over it, and
    the next start, reading the journal from another depth, could not. In steps, as `decode_spec`.
    """
    jobs = tuple(msgspec.Raw(_ENCODER.encode(job)) for job in spec.jobs)
    return _ENCODER.encode(
        RawRun(
            name=spec.name,
            jobs=jobs,
            workspace=spec.workspace,
            shapes=spec.shapes,
            params=spec.params,
        )
    )


def _told(item: RunSubmitted, notices: tuple[str, ...]) -> RunSubmitted:
    return msgspec.structs.replace(item, notices=notices) if notices else item


def _names_script(job: JobSpec) -> bool:
    is_script = job.kind is not JobKind.GATE and job.launch.kind is LaunchKind.SCRIPT
    return is_script and job.launch.artifact is None


def _zip_names(path: Path) -> frozenset[str]:
    try:
        with opened(path) as archive:
            return archive.names
    except BadArchive as error:
        problem = Problem(where="workspace", message=str(error), code=BAD_WORKSPACE)
        raise _invalid((problem,)) from error


def _missing_script(at: int, script: str) -> Problem:
    return Problem(
        where=f"jobs[{at}].launch.script",
        message=f"script {script!r} is neither in the run's workspace "
        "nor among the master's perm_files",
        hint="send it along with the run, or put it into the master's perm_files folder",
        code=MISSING_SCRIPT,
    )


def _disk_code(error: OSError) -> ErrorCode:
    return ErrorCode.STORAGE_FULL if is_full(error) else ErrorCode.UNAVAILABLE


def _refusal(code: ErrorCode, message: str) -> Refusal:
    return Refusal(Error(code=code, message=message))


def _invalid(found: tuple[Problem, ...]) -> Refusal:
    first = f"{found[0].where}: {found[0].message}"
    message = first if len(found) == 1 else f"{first} (and {len(found) - 1} more)"
    return Refusal(Error(code=ErrorCode.INVALID_SPEC, message=message, problems=found))
