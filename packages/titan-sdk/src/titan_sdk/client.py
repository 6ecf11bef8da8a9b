"""TitanClient: what a program asks of a master, as plain calls.

Decides which requests a call is made of, and that a submission carries the same key each time it is
tried, so that asking twice is asking once. Holds no truth: everything can be asked for again. Used
by programs, by `Run`, and by every command of the CLI.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, final

import msgspec
from msgspec.structs import replace

from titan_proto.errors import (
    Conflict,
    InvalidSpec,
    LimitExceeded,
    NotFound,
    Problem,
    Timeout,
    Unsupported,
)
from titan_proto.ids import AttemptRef
from titan_proto.io.entropy import new_key
from titan_proto.limits import (
    DRAIN_TIMEOUT_MS,
    FILE_NAMES_PER_REQUEST,
    INLINE_SPEC_BYTES,
    LOG_BYTES_PER_ATTEMPT,
    NAMED_FILES,
    PAGE_ITEMS,
    SCHEDULE_SPEC_BYTES,
)
from titan_proto.messages import (
    CancelRun,
    Cause,
    CauseKind,
    CordonWorker,
    DecideGate,
    ExplainJob,
    Explanation,
    FetchArtifact,
    FileView,
    FindFiles,
    GateView,
    GetJob,
    GetRun,
    GetScaling,
    GetSchedule,
    GetStats,
    GetTraffic,
    GetUsage,
    IssueTicket,
    JobChange,
    JobMilestone,
    JobView,
    ListDead,
    ListFiles,
    ListGates,
    ListJobs,
    ListRuns,
    ListSchedules,
    ListServices,
    ListWorkers,
    LogPiece,
    LogStream,
    NameFile,
    PauseSchedule,
    PutSchedule,
    ReadLog,
    RemoveSchedule,
    Request,
    RerunRun,
    RestartService,
    RunView,
    ScaleService,
    Scaling,
    ScheduleView,
    ServiceView,
    ShutDownWorker,
    SpawnOrdered,
    SpawnWorker,
    Stats,
    StopJob,
    StopService,
    SubmitRun,
    TicketIssued,
    Traffic,
    TriggerSchedule,
    UsageView,
    WaitJob,
    WaitRun,
    WatchRun,
    WorkerDetail,
    WorkerView,
)
from titan_proto.specs import ArtifactRef, JobKind, JobSpec, ScheduleSpec
from titan_proto.states import JOB_TERMINAL, RUN_TERMINAL, JobState, WorkerState
from titan_sdk.approvals import gate_id, obstacle, with_gates
from titan_sdk.jobs import Duration, Moment, TitanJob, TitanService
from titan_sdk.keys import (
    DAG_PREFIX,
    BadValue,
    Concurrency,
    duration_ms,
    in_group_of_runs,
    moment_ms,
    named,
    nearest,
)
from titan_sdk.keys import concurrency as read_concurrency
from titan_sdk.links import Links
from titan_sdk.loglines import (
    LogLine,
    Seen,
    Since,
    Wanted,
    as_log_line,
    bytes_of,
    log_stream,
    make_wanted,
)
from titan_sdk.params import plain
from titan_sdk.reasons import how_ended, why_not_started
from titan_sdk.run import Run
from titan_sdk.staging import (
    NOW,
    Deferral,
    Staged,
    check_spec_size,
    read_variables,
    refuse,
    stage_jobs,
    stage_pipeline,
)

if TYPE_CHECKING:
    from types import TracebackType

    from titan_proto.io.address import Address
    from titan_sdk.dagstring import DagJob
    from titan_sdk.pipeline import Pipeline

ReplyT = TypeVar("ReplyT")

RunLike = str | Run
JobLike = str | TitanJob

PIPELINE_SUFFIXES: Final = (".yaml", ".yml")
CONNECT_TIMEOUT_S: Final = 10.0
WARN_AFTER_S: Final = 5.0
"""How long `fetch_logs` waits for a start before it says what is missing."""
_LOG_COMPLETE_S: Final = 5.0
"""How long the rest of an ended attempt's log may take to reach the master."""
_PAUSE_FIRST_S: Final = 0.05
_PAUSE_MAX_S: Final = 1.0
_ORDER_AGAIN_S: Final = 2.0
"""After so long a worker that was told to leave and says nothing of it is told again."""

_log = logging.getLogger("titan_sdk")


@final
class TitanClient:
    """A client of one master.

    Args:
        master: its address; by default $TITAN_MASTER, the nearest `.titan/`, then 127.0.0.1:9090.
        token: its token's text; by default where `titan_proto.io.address.find_token` finds it.
        timeout: seconds for which a lost master is tried again before a call gives up.

    Nothing is dialled before the first call. One client may be used by many threads, and by the
    child of a fork, which dials for itself.
    """

    def __init__(
        self, master: str | None = None, token: str | None = None, *, timeout: float = 30.0
    ) -> None:
        self._links = Links(master, token, patience_s=timeout, connect_timeout_s=CONNECT_TIMEOUT_S)
        self._last_run: Run | None = None
        # What is kept for the end must not lead back to the client, or it would never end.
        self._finalizer = weakref.finalize(self, self._links.close)

    # -- runs ---------------------------------------------------------------------------------

    def submit(
        self,
        name: str,
        jobs: Sequence[TitanJob] | TitanJob,
        *,
        workspace: str | os.PathLike[str] | None = None,
        at: Moment | None = None,
        delay: Duration | None = None,
        concurrency: str | Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
    ) -> Run:
        """Hand in a run; it is durable when this returns.

        Args:
            name: free text; the run's alias is made of it.
            jobs: the jobs; they may name each other as dependencies.
            workspace: a folder that every job's workspace starts from. Without it each script is
                packed alone.
            at: nothing of it starts before this moment: text such as 2026-12-01T08:30:00Z, or a
                datetime with a zone.
            delay: nothing of it starts before so much time has passed: `10m`, or seconds.
            params: values that stand for `${{ params.NAME }}` in the jobs, and that conditions read.
            concurrency: a group of runs of which one runs at a time, or a mapping of group and limit.

        Raises:
            InvalidSpec: the jobs make no valid run, or a script is nowhere; nothing was sent.
            PackagingError: files that cannot be packed.
        """
        given = _jobs_of(jobs)
        if not isinstance(name, str):
            raise InvalidSpec(f"a run's name is text, not {name!r}")
        folder = None if workspace is None else Path(os.fspath(workspace)).expanduser()
        deferral = _deferral(at, delay)
        group = _group_of_runs(concurrency)
        staged = stage_jobs(
            name,
            _with_gates(given),
            folder=Path.cwd(),
            workspace=folder,
            find=self.find_files,
            env_files={job.id: job.env_file for job in given if job.env_file},
            shapes={job.id: job.shape for job in given if job.shape is not None},
            matrices={job.id: job.matrix for job in given if job.matrix is not None},
            params=plain(params or {}),
        )
        return self._submit(staged, deferral, group)

    def run_file(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        env_file: Sequence[str | os.PathLike[str]] = (),
        at: Moment | None = None,
        delay: Duration | None = None,
        params: Mapping[str, object] | None = None,
    ) -> Run:
        """Run a pipeline file with its folder (`.yaml`, `.yml`), or any other file as a script.

        `env_file` are files of KEY=VALUE lines in the working folder, for every job; they win over
        what the pipeline says, and `env` wins over them. `params` are values of the params that the
        pipeline defines. `at` and `delay` are as for `submit`.
        """
        shown = os.fspath(path)
        if shown.lower().endswith(PIPELINE_SUFFIXES):
            from titan_sdk.pipeline import load  # yaml is not loaded for a script

            if args:
                raise InvalidSpec("a pipeline takes no arguments; its jobs have args of their own")
            added = {**read_variables([os.fspath(one) for one in env_file]), **(env or {})}
            return self.run_pipeline(
                load(path), name=name, env=added, at=at, delay=delay, params=params
            )
        if params:
            raise InvalidSpec("a script has no params; it takes arguments")
        job = TitanJob(
            id=job_id_for(shown),
            script=shown,
            args=list(args),
            env=env,
            env_file=list(env_file) or None,
        )
        return self.submit(name or Path(shown).stem or "run", [job], at=at, delay=delay)

    def deploy(
        self,
        path: str | os.PathLike[str],
        port: int | str | None = None,
        requirement: str | None = None,
        *,
        name: str | None = None,
        args: Sequence[str] = (),
        **keys: Any,
    ) -> Run:
        """Bring a script or a jar up as a service named after it; deployed again, it is replaced.

        Args:
            path: the file, looked for here, then by its name in the master's perm_files.
            port: told to it as $PORT; "auto" takes a free one.
            requirement: one skill that its worker must have.
            name: the service's, instead of the file's.
            args: for the script.
            keys: as `TitanService` takes them: `replicas`, `healthcheck`, `env`, `slots` and so on.
        """
        shown = os.fspath(path)
        called = name or Path(shown).stem or "service"
        job = TitanService(
            id=job_id_for(name) if name else job_id_for(shown),
            script=shown,
            port=port,
            requirement=requirement,
            args=list(args),
            **keys,
        )
        return self.submit(called, [job])

    def submit_dag(
        self,
        text: str,
        *,
        name: str = "dag",
        at: Moment | None = None,
        delay: Duration | None = None,
    ) -> Run:
        """Hand in a raw DAG string, as `titan dag` takes it; what it carries in base64 comes along.

        Raises:
            DagStringError: it says nothing that could be run; nothing was sent.
            InvalidSpec, PackagingError: as for `submit`.
        """
        from titan_sdk.dagstring import parse

        with tempfile.TemporaryDirectory(prefix="titan-dag-") as folder:
            jobs = [_dag_job(job, Path(folder)) for job in parse(text)]
            return self.submit(name, jobs, at=at, delay=delay)

    def run_pipeline(
        self,
        pipeline: Pipeline,
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        at: Moment | None = None,
        delay: Duration | None = None,
        params: Mapping[str, object] | None = None,
    ) -> Run:
        """Run a pipeline that was read before; `env` is added to the environment of every job.

        `params` are values of the params that it defines. `at` and `delay` are as for `submit`.
        """
        deferral = _deferral(at, delay)
        if params:
            pipeline.bind(params)
        if name is not None:
            pipeline.name = name
        if env:
            pipeline.add_env(env)
        run = self._submit(stage_pipeline(pipeline, self.find_files), deferral)
        if pipeline.schedule is not None:
            hint = f"this is one run of its own; its schedule:  titan schedule add {pipeline.path}"
            run.notices = (*run.notices, hint)
        return run

    def run(self, run: RunLike) -> Run:
        """The handle of a run that somebody submitted: by id, alias, unique prefix or @last."""
        if isinstance(run, Run):
            return run
        view = self.ask(GetRun(run=run))
        return Run(self, view.run_id, view.alias)

    def runs(self, *, ended: bool = False, limit: int | None = None) -> list[RunView]:
        """Active runs, newest first; with `ended`, ended ones too."""
        return list(self.iter_runs(ended=ended, limit=limit))

    def iter_runs(self, *, ended: bool = False, limit: int | None = None) -> Iterator[RunView]:
        """As `runs`, a page at a time."""
        cursor, left = "", limit
        while left is None or left > 0:
            size = PAGE_ITEMS if left is None else min(left, PAGE_ITEMS)
            page = self.ask(ListRuns(ended=ended, cursor=cursor, limit=size))
            yield from page.runs
            if not page.cursor:
                return
            left = None if left is None else left - len(page.runs)
            cursor = page.cursor

    def view(self, run: RunLike) -> RunView:
        """A run as it stands."""
        return self.ask(GetRun(run=_selector(run)))

    def jobs(self, run: RunLike | None = None) -> list[JobView]:
        """The jobs of a run (of the one submitted last by this client), in their order."""
        selector = _selector(run if run is not None else self._last("jobs"))
        pages = _pages(lambda cursor: self.ask(ListJobs(run=selector, cursor=cursor)))
        return [job for page in pages for job in page.jobs]

    def job(self, job: JobLike, *, run: RunLike | None = None) -> JobView:
        """One job as it stands."""
        selector, job_id = self._which(job, run)
        return self.ask(GetJob(run=selector, job=job_id))

    def cancel(self, run: RunLike) -> RunView:
        """End a run: nothing new starts, what runs is stopped."""
        return self.ask(CancelRun(run=_selector(run)))

    def rerun(self, run: RunLike, *, failed: bool = False, from_job: JobLike = "") -> Run:
        """Run an ended run again, as a new run that names the old one; the new run's handle.

        Without a choice every job runs again. What does not is taken over: its state, its results
        and the files in the run's shared folder.

        Args:
            run: which; it must have ended.
            failed: only what did not succeed.
            from_job: this job, all that hangs on it, and what did not succeed.

        Raises:
            Conflict: it has not ended, or nothing of it would run.
        """
        job_id = from_job.id if isinstance(from_job, TitanJob) else from_job
        # One key for all tries of this call, as with a submission.
        request = RerunRun(key=new_key(), run=_selector(run), failed=failed, from_job=job_id)
        receipt = self.ask(request)
        self._last_run = Run(self, receipt.run_id, receipt.alias)
        return self._last_run

    def dead(self, limit: int | None = None) -> list[JobView]:
        """Jobs that failed for good: their tries are spent, or they lost too many workers."""
        pages = _pages(lambda cursor: self.ask(ListDead(cursor=cursor)))
        return list(islice((job for page in pages for job in page.jobs), limit))

    def wait(self, run: RunLike, timeout: float | None = None) -> RunView:
        """Wait until a run has ended.

        Raises:
            Timeout: it had not after `timeout` seconds; it goes on.
        """
        try:
            return self.ask(WaitRun(run=_selector(run)), timeout_s=timeout)
        except Timeout as error:
            name = run.alias if isinstance(run, Run) else named(run)
            raise Timeout(f"run {name} had not ended after {timeout:g} s") from error

    def watch(self, run: RunLike) -> Iterator[JobChange]:
        """Every job's present state, then each change, to the end of the run.

        After a lost link what was seen comes again: the newest word on a job counts.
        """
        selector = _selector(run)
        for change in self._links.stream(lambda: WatchRun(run=selector)):
            yield change
            if change.run_state in RUN_TERMINAL:
                return

    # -- logs ---------------------------------------------------------------------------------

    def fetch_logs(
        self,
        job: JobLike,
        *,
        run: RunLike | None = None,
        wait: bool = True,
        timeout: float | None = None,
        stream: str = "both",
    ) -> str:
        """What a job has printed.

        Args:
            job: an id in the run that this client submitted last, or `run/job`.
            run: another run.
            wait: until the job has ended (a service: until it has started).
            timeout: seconds to wait at most.
            stream: "stdout", "stderr" or "both".

        Raises:
            Timeout: it had not ended in time; it goes on.
            NotFound: there is no such job.
        """
        which = log_stream(stream)
        selector, job_id = self._which(job, run)
        view = self.ask(GetJob(run=selector, job=job_id))
        if wait:
            view = self._wait_for_log(view, timeout)
        if view.attempt == 0:
            self._warn_never_ran(view)
            return ""
        return b"".join(self.log_bytes(view, which)).decode("utf-8", "replace")

    def log_lines(
        self,
        job: JobLike,
        *,
        run: RunLike | None = None,
        follow: bool = False,
        stream: str = "both",
        attempt: int = 0,
        lines: int = 0,
        since: Since = None,
        grep: str | None = None,
    ) -> Iterator[LogLine]:
        """What a job has printed so far, line by line, each with its output, its place and its time.

        Args:
            job: an id in the run that this client submitted last, or `run/job`.
            run: another run.
            follow: go on as more is printed, to the end of the attempt.
            stream: "stdout", "stderr" or "both".
            attempt: of this attempt; 0: of the newest.
            lines: only the last so many; 0: all.
            since: only what was printed then or later: a datetime, a timedelta or seconds ago, or
                text such as "10m" or "2026-07-01T14:05:00Z".
            grep: only lines in which this regular expression is found.

        Raises:
            NotFound: there is no such job, or it has no such attempt.
            InvalidSpec: one of the arguments says nothing that can be meant.
        """
        from titan_sdk.following import follow_job, job_lines

        wanted = make_wanted(stream, attempt=attempt, lines=lines, since=since, grep=grep)
        selector, job_id = self._which(job, run)
        if follow:
            return map(as_log_line, follow_job(self, selector, job_id, wanted))
        view = self.ask(GetJob(run=selector, job=job_id))
        return map(as_log_line, job_lines(self, view, wanted) if view.attempt else ())

    def log_bytes(self, view: JobView, stream: LogStream = LogStream.BOTH) -> Iterator[bytes]:
        """The log of a job's newest attempt, to its last byte if the job has ended.

        Where bytes were dropped for the sake of the limit, a line says how many.
        """
        return bytes_of(self.log_pieces(view, Wanted(stream=stream)))

    def log_pieces(self, view: JobView, wanted: Wanted) -> Iterator[LogPiece]:
        """The same in pieces, with their places and times; `wanted.grep` is the caller's to apply."""
        ended = view.state in JOB_TERMINAL and view.kind is not JobKind.SERVICE
        is_newest = wanted.attempt in {0, view.attempt}
        is_whole = not wanted.tail_lines and not wanted.since_ms
        expected = _log_size(view, wanted.stream) if ended and is_newest and is_whole else 0
        position = got = 0
        give_up_at = time.monotonic() + _LOG_COMPLETE_S
        pause = _PAUSE_FIRST_S
        while True:
            for piece in self.read_log(
                view.run_id,
                view.job_id,
                attempt=wanted.attempt or view.attempt,
                stream=wanted.stream,
                position=position,
                tail_lines=wanted.tail_lines,
                since_ms=wanted.since_ms,
            ):
                position = piece.position
                got += len(piece.data) + piece.dropped
                yield piece
            # The end of a job is known before the last of its log has come to the master.
            if got >= expected or time.monotonic() > give_up_at:
                return
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE_MAX_S)

    def read_log(
        self,
        run: str,
        job: str,
        *,
        attempt: int = 0,
        stream: LogStream = LogStream.BOTH,
        follow: bool = False,
        position: int = 0,
        tail_lines: int = 0,
        since_ms: int = 0,
    ) -> Iterator[LogPiece]:
        """Pieces of a log as they come; with `follow`, until its attempt has ended.

        Every byte comes once, and those of one output in their order, whatever becomes of the link.
        """

        def request() -> ReadLog:
            return ReadLog(
                run=run,
                job=job,
                attempt=attempt,
                stream=stream,
                follow=follow,
                position=position,
                tail_lines=tail_lines,
                since_ms=since_ms,
                places=True,
            )

        seen = Seen()
        for piece in self._links.stream(request):
            # From here on, should the link break.
            attempt, position = piece.number, piece.position
            if position:
                tail_lines = since_ms = 0
            fresh = seen.fresh(piece)
            if fresh is not None:
                yield fresh

    # -- schedules ----------------------------------------------------------------------------

    def schedule(
        self,
        name: str,
        cron: str | Sequence[str],
        jobs: Sequence[TitanJob] | TitanJob,
        *,
        workspace: str | os.PathLike[str] | None = None,
        **policy: Any,
    ) -> ScheduleView:
        """Have jobs run again and again, at the times of `cron`.

        What had the name before is replaced by a new version, unless nothing has changed. Scripts are
        taken as they are now.

        Args:
            name: of the schedule, and of its runs.
            cron: five fields, a macro such as "@daily", or "@every 5m"; or a list of these.
            jobs: as for `submit`.
            workspace: likewise.
            policy: `timezone`, `overlap` ("skip", "queue", "allow", "replace"), `catchup` ("none",
                "latest", "all"), `catchup_window`, `jitter`, `start`, `end`, `pause_on_failure`.

        Raises:
            InvalidSpec: the times, the policy or the jobs are not valid; nothing was sent.
        """
        spec = _schedule_spec(cron, policy)
        given = _jobs_of(jobs)
        staged = stage_jobs(
            name,
            _with_gates(given),
            folder=Path.cwd(),
            workspace=None if workspace is None else Path(os.fspath(workspace)).expanduser(),
            find=self.find_files,
            env_files={job.id: job.env_file for job in given if job.env_file},
        )
        return self._put_schedule(name, spec, staged)

    def schedule_file(
        self,
        path: str | os.PathLike[str],
        cron: str | Sequence[str] | None = None,
        *,
        name: str | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        env_file: Sequence[str | os.PathLike[str]] = (),
        params: Mapping[str, object] | None = None,
        **policy: Any,
    ) -> ScheduleView:
        """Have a pipeline file (with its folder), or any other file as a script, run again and again.

        A pipeline's own `schedule:` says when; what is said here wins over it. Every run of it has these
        `params`. The rest is as for `run_file` and `schedule`.
        """
        shown = os.fspath(path)
        if shown.lower().endswith(PIPELINE_SUFFIXES):
            from titan_sdk.pipeline import load  # yaml is not loaded for a script

            if args:
                raise InvalidSpec("a pipeline takes no arguments; its jobs have args of their own")
            pipeline = load(path)
            added = {**read_variables([os.fspath(one) for one in env_file]), **(env or {})}
            if added:
                pipeline.add_env(added)
            if params:
                pipeline.bind(params)
            pipeline.check()
            spec = _schedule_spec(cron, policy, pipeline.schedule)
            called = name or pipeline.name
            return self._put_schedule(called, spec, stage_pipeline(pipeline, self.find_files))
        if params:
            raise InvalidSpec("a script has no params; it takes arguments")
        if cron is None:
            raise InvalidSpec("say when: a line of times, such as '30 2 * * *' or '@every 5m'")
        job = TitanJob(
            id=job_id_for(shown),
            script=shown,
            args=list(args),
            env=env,
            env_file=list(env_file) or None,
        )
        return self.schedule(name or Path(shown).stem or "run", cron, [job], **policy)

    def schedules(self) -> list[ScheduleView]:
        """The schedules that there are, by name."""
        pages = _pages(lambda cursor: self.ask(ListSchedules(cursor=cursor, limit=PAGE_ITEMS)))
        return [schedule for page in pages for schedule in page.schedules]

    def find_schedule(self, name: str) -> ScheduleView:
        """One schedule, by its name. Raises NotFound."""
        return self.ask(GetSchedule(schedule=name))

    def pause_schedule(self, name: str, why: str = "") -> ScheduleView:
        """Have it fire no more until it is resumed; runs that go on do so."""
        return self.ask(PauseSchedule(schedule=name, why=why))

    def resume_schedule(self, name: str) -> ScheduleView:
        """Have it fire again, from now on: what came meanwhile is not caught up with."""
        return self.ask(PauseSchedule(schedule=name, resume=True))

    def trigger_schedule(self, name: str) -> Run:
        """Run it now, paused or not; the new run's handle."""
        receipt = self.ask(TriggerSchedule(key=new_key(), schedule=name))
        self._last_run = Run(self, receipt.run_id, receipt.alias)
        return self._last_run

    def remove_schedule(self, name: str) -> ScheduleView:
        """Take it away; runs that go on do so. What it was at last."""
        return self.ask(RemoveSchedule(schedule=name))

    # -- services and the cluster -------------------------------------------------------------

    def stats(self) -> Stats:
        """The cluster at a glance."""
        return self.ask(GetStats())

    def ticket(self) -> TicketIssued:
        """A word that signs somebody in to the dashboard as whose token this is: once, for a while.

        Needs a token that may be an administrator's, as the local one may.
        """
        return self._links.persist(
            lambda link, left_s: link.call(IssueTicket(), left_s), None, as_admin=True
        )

    def traffic(self) -> Traffic | None:
        """What comes and goes at the master beside its decisions; None if it is too old to tell."""
        try:
            return self.ask(GetTraffic())
        except Unsupported:
            return None

    def scaling(self) -> Scaling | None:
        """Which workers other workers have spawned, and why; None if the master is too old to tell."""
        try:
            return self.ask(GetScaling())
        except Unsupported:
            return None

    def spawn(
        self,
        port: int,
        *,
        parent: str = "",
        slots: int | None = None,
        skills: Sequence[str] = (),
        timeout: float | None = None,
    ) -> SpawnOrdered:
        """Have a worker spawn another one on its host, which stays until it is shut down.

        What becomes of it is in `scaling().recent`, under the number that is returned. Needs a token that
        may be an administrator's, as the local one may.

        Args:
            port: part of the new worker's name.
            parent: port, name or id of the worker that shall do it. Default: the master picks one.
            slots: jobs that it runs at the same time. Default: as many as its parent.
            skills: what it offers. Default: what its parent does.
            timeout: seconds to reach a master.

        Raises:
            Conflict: a worker of that name is there, or on its way; or none is there that could do it.
            NotFound: no worker is called `parent`.
            LimitExceeded: there are as many spawned workers as may be.
        """
        request = SpawnWorker(port=port, parent=parent, slots=slots or 0, skills=tuple(skills))
        return self._links.persist(
            lambda link, left_s: link.call(request, left_s), timeout, as_admin=True
        )

    def usage(self, worker: WorkerView | None = None) -> UsageView:
        """How busy the workers are, and what their attempts use; of `worker`, how busy it has been.

        Whoever asks every few seconds is told what is two seconds old at most. A master of before
        that knows nothing of it says so by an empty answer.
        """
        try:
            return self.ask(GetUsage(history_of=worker.worker_id if worker is not None else ""))
        except Unsupported:
            return UsageView(at_ms=0)

    def services(
        self, *, ended: bool = False, limit: int = 100, run: str = ""
    ) -> list[ServiceView]:
        """The services that are up.

        Args:
            ended: those too that were up and have ended, the last to end first.
            limit: at most so many of these.
            run: only those of the run with exactly this id.
        """
        return list(self.ask(ListServices(ended=ended, limit=limit, run=run)).services)

    def stop(self, what: str | TitanJob) -> ServiceView | JobView:
        """Stop a service or a running job, as a decision that stays.

        A service: by its name, by `run/job`, or by a job id that only one service has; with all its
        instances, unless one is named (`run/job~2`). Else a job, by `run/job` or by its id alone (then
        of the newest run that has it): it and what depends on it will be CANCELLED, the rest of its run
        goes on. One of them has its process ended by SIGTERM, and by SIGKILL after its `stop_grace`.
        """
        name = what.id if isinstance(what, TitanJob) else what
        try:
            return self.ask(StopService(service=name))
        except NotFound as error:
            run, _, job = name.rpartition("/")
            try:
                run = run or self.ask(GetJob(run="", job=job)).run_id
                return self.ask(StopJob(run=run, job=job))
            except NotFound:
                raise NotFound(f"no job and {error.message}") from None

    def scale(self, service: str | TitanJob, replicas: int) -> list[ServiceView]:
        """Have so many instances of a service; all of them as they are then."""
        name = service.id if isinstance(service, TitanJob) else service
        return list(self.ask(ScaleService(service=name, replicas=replicas)).services)

    def restart(self, service: str | TitanJob) -> list[ServiceView]:
        """Replace every instance of a service by a new one, which comes first; all as they are then.

        An instance goes once its replacement is healthy; where a fixed port leaves no worker for both,
        before that.
        """
        name = service.id if isinstance(service, TitanJob) else service
        return list(self.ask(RestartService(service=name)).services)

    def explain(self, job: JobLike, run: RunLike | None = None) -> Explanation:
        """Why a job does not run, one cause after the other, with numbers per worker; or where it is, and why.

        Args:
            job: the job, its id, or `RUN/JOB`.
            run: which run; by default the last one that this client submitted.

        Raises:
            NotFound: there is no such job.
        """
        selector, job_id = self._which(job, run)
        view = self.job(job_id, run=selector)
        if view.state in JOB_TERMINAL and view.kind is not JobKind.SERVICE:
            return _ended(view)
        try:
            return self.ask(ExplainJob(run=view.run_id, job=view.job_id))
        except NotFound:
            return _ended(self.job(job_id, run=view.run_id))  # it has ended meanwhile

    def workers(self, worker: str = "") -> list[WorkerDetail]:
        """The workers, with what jobs can take of them; or the one of that port, name or id."""
        return list(self.ask(ListWorkers(worker=worker)).workers)

    def cordon(self, worker: str, *, drain: bool = False) -> WorkerDetail:
        """Have a worker be given nothing new until `uncordon`; what is on it goes on.

        Needs a token that may be an administrator's, as the local one may.

        Args:
            worker: its port, its name (`host:port`) or its id.
            drain: its services are brought up elsewhere, too, and stopped there once they are healthy.

        Raises:
            Conflict: workers on several hosts have that port.
            NotFound: no worker is called so; the error lists those that there are.
        """
        return self._cordon(CordonWorker(worker=worker, drain=drain))

    def uncordon(self, worker: str) -> WorkerDetail:
        """Take that back: it is given jobs again. Raises as `cordon` does."""
        return self._cordon(CordonWorker(worker=worker, cordoned=False))

    def _cordon(self, request: CordonWorker) -> WorkerDetail:
        return self._links.persist(
            lambda link, left_s: link.call(request, left_s), None, as_admin=True
        ).workers[0]

    def shutdown(
        self,
        worker: str,
        *,
        drain_timeout: str | float | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> WorkerView:
        """Have a worker take nothing new, finish what it runs, say goodbye, and end.

        What it cannot finish goes back into the queue. Its process ends with 0 and does not come
        back by itself. Needs a token that may be an administrator's, as the local one may.

        Args:
            worker: its port, its name (`host:port`) or its id.
            drain_timeout: how long running tasks may go on (`10m`, or seconds); 0: stop them at once.
                Default: what the worker was started with.
            wait: return when it has left.
            timeout: with `wait`: seconds after which Timeout is raised; it goes on leaving.

        Returns:
            The worker as it was when it was told.

        Raises:
            Conflict: workers on several hosts have that port, or it cannot be told now; or, with
                `wait`, it was lost before it said goodbye.
            NotFound: no worker is called so; the error lists those that there are.
            LimitExceeded: a drain timeout beyond DRAIN_TIMEOUT_MS.
        """
        drain_ms = None if drain_timeout is None else _drain_ms(drain_timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        view = self._order_shutdown(worker, drain_ms)
        if wait:
            self._wait_left(view, drain_ms, deadline)
        return view

    # -- gates --------------------------------------------------------------------------------

    def gates(self) -> list[GateView]:
        """The gates that are open, those that have waited longest first."""
        pages = _pages(lambda cursor: self.ask(ListGates(cursor=cursor, limit=PAGE_ITEMS)))
        return [gate for page in pages for gate in page.gates]

    def approve(self, gate: str | TitanJob, comment: str = "") -> GateView:
        """Let what waits for a gate begin: by `run/job`, or a job id unique among open gates.

        A job that has an `approval` stands for its gate. Approving twice is once.

        Raises:
            Conflict: it is not open yet, it was decided otherwise, or the name fits several.
            NotFound: no gate is called so; the error lists the open ones.
        """
        return self.ask(DecideGate(gate=_gate_of(gate), approve=True, comment=comment))

    def reject(self, gate: str | TitanJob, comment: str = "") -> GateView:
        """End a gate as FAILED, and with it what waits for it. Raises as `approve` does."""
        return self.ask(DecideGate(gate=_gate_of(gate), approve=False, comment=comment))

    def find_files(self, names: Sequence[str]) -> dict[str, ArtifactRef]:
        """Those of the names that are files in the master's perm_files."""
        found: dict[str, ArtifactRef] = {}
        for start in range(0, len(names), FILE_NAMES_PER_REQUEST):
            part = tuple(names[start : start + FILE_NAMES_PER_REQUEST])
            found.update((ref.name, ref) for ref in self.ask(FindFiles(names=part)).files)
        return found

    # -- files by name ------------------------------------------------------------------------

    def upload(self, path: str | os.PathLike[str], *, name: str | None = None) -> FileView:
        """Put a file into the master's perm_files, under its own name or another.

        What had that name stays as a version of it; `notices` of the answer say so where somebody
        had put it there on purpose.

        Raises:
            PackagingError: it cannot be read, or is larger than ARTIFACT_BYTES.
            InvalidSpec: no file there can be called so.
        """
        from titan_sdk.files import Upload

        place = Path(os.fspath(path)).expanduser()
        file = Upload(place, place.name if name is None else name)
        self._upload(file.digest, file.size, file.chunks)
        return self.ask(NameFile(name=file.name, digest=file.digest, key=new_key()))

    def files(self, name: str | None = None) -> list[FileView]:
        """What the master's perm_files hold, by name; with `name`, that one alone.

        Raises:
            NotFound: nothing is called so; the error says what may be meant.
        """
        if name is not None:
            try:
                return list(self.ask(ListFiles(name=name)).files)
            except NotFound as error:
                from titan_sdk.files import unknown

                raise unknown(name, (view.name for view in self.files())) from error
        pages = list(_pages(lambda cursor: self.ask(ListFiles(cursor=cursor, limit=PAGE_ITEMS))))
        if pages[-1].is_cut:
            _log.warning(
                "perm_files hold more names than NAMED_FILES (%d), which is what a list shows",
                NAMED_FILES,
            )
        return [file for page in pages for file in page.files]

    def download(
        self,
        name: str,
        path: str | os.PathLike[str] | None = None,
        *,
        version: str = "",
        overwrite: bool = False,
    ) -> Path:
        """Fetch a file of the master's perm_files; where it lies now.

        It is written under another name beside its place, compared with its digest, and renamed.

        Args:
            name: of the file there.
            path: where to; a folder means in it. Default: its name's last part, here.
            version: a digest, or its beginning, of what it was before.
            overwrite: replace what lies there.

        Raises:
            NotFound: there is no such file, or no such version of it.
            Conflict: something lies at `path`.
        """
        from titan_sdk.files import save, wanted

        (view,) = self.files(name)
        target = Path(name).name if path is None else Path(os.fspath(path)).expanduser()
        place = Path(target)
        if place.is_dir():
            place = place / Path(name).name
        content = wanted(view, version)
        if view.current is not None and content.digest == view.current.digest:
            # The master takes the file as it is now into its store: what is fetched cannot change.
            refs = self.find_files([name])
            if name not in refs:
                raise NotFound(f'file "{named(name)}" has just been removed from perm_files')
            if not version:
                content = msgspec.structs.replace(content, digest=refs[name].digest)
        pieces = self._fetch(content.digest, name)
        save(pieces, place, content, overwrite=overwrite)
        return place

    def _fetch(self, digest: str, name: str) -> Iterator[bytes]:
        offset = 0
        request = lambda: FetchArtifact(digest=digest, offset=offset, name=name)  # noqa: E731
        for chunk in self._links.stream(request):
            offset += len(chunk.data)
            yield chunk.data

    @property
    def address(self) -> Address:
        """Where the master is looked for."""
        return self._links.address

    # -- asking -------------------------------------------------------------------------------

    def ask(self, request: Request[ReplyT], *, timeout_s: float | None = None) -> ReplyT:
        """Any request of the protocol that asking twice does not hurt."""
        try:
            return self._links.persist(lambda link, left_s: link.call(request, left_s), timeout_s)
        except NotFound:
            meant = _as_the_manual_names(request)
            if meant is None:
                raise
        return self._links.persist(lambda link, left_s: link.call(meant, left_s), timeout_s)

    def close(self) -> None:
        """Hang up. A client that is simply dropped does the same."""
        self._finalizer()

    def __enter__(self) -> TitanClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------

    def _submit(
        self, staged: Staged, deferral: Deferral = NOW, group: Concurrency | None = None
    ) -> Run:
        # The key is drawn before the first try: a retry cannot become a second run.
        key = new_key()
        with staged:
            for package in staged.packages:
                self._upload(package.digest, package.size, package.chunks)
            spec = deferral.of(staged.spec)
            if group is not None:
                spec = in_group_of_runs(spec, group)
            parent = attempt_of(os.environ)
            encoded = msgspec.msgpack.encode(spec)
            if len(encoded) > INLINE_SPEC_BYTES:
                check_spec_size(len(encoded))
                digest = hashlib.sha256(encoded).hexdigest()
                self._upload(digest, len(encoded), lambda offset: iter((encoded[offset:],)))
                receipt = self.ask(SubmitRun(key=key, spec_digest=digest, parent=parent))
            else:
                receipt = self.ask(SubmitRun(key=key, spec=spec, parent=parent))
        self._last_run = Run(
            self, receipt.run_id, receipt.alias, skills_of(staged.spec.jobs), receipt.notices
        )
        return self._last_run

    def _put_schedule(self, name: str, spec: ScheduleSpec, staged: Staged) -> ScheduleView:
        with staged:
            size = len(msgspec.msgpack.encode(staged.spec))
            if size > SCHEDULE_SPEC_BYTES:
                most = f"SCHEDULE_SPEC_BYTES ({SCHEDULE_SPEC_BYTES})"
                raise InvalidSpec(f"what the schedule runs takes {size} bytes, more than {most}")
            for package in staged.packages:
                self._upload(package.digest, package.size, package.chunks)
            return self.ask(PutSchedule(name=name, spec=spec, run=staged.spec))

    def _upload(self, digest: str, size: int, chunks: Callable[[int], Iterator[bytes]]) -> None:
        self._links.persist(lambda link, left_s: link.upload(digest, size, chunks, left_s), None)

    def _order_shutdown(self, worker: str, drain_ms: int | None) -> WorkerView:
        request = ShutDownWorker(worker=worker, drain_ms=drain_ms)
        return self._links.persist(
            lambda link, left_s: link.call(request, left_s), None, as_admin=True
        ).worker

    def _wait_left(self, told: WorkerView, drain_ms: int | None, deadline: float | None) -> None:
        """Until the process that was told is gone; an order that shows no effect is repeated."""
        name, pause_s = f"{told.host}:{told.port}", _PAUSE_FIRST_S
        order_again = time.monotonic() + _ORDER_AGAIN_S
        while True:
            now = next(
                (one for one in self.stats().workers if one.worker_id == told.worker_id), None
            )
            if now is None or now.incarnation > told.incarnation:
                return
            if now.state is WorkerState.LOST:
                raise Conflict(f"worker {name} was lost before it had said goodbye")
            if deadline is not None and time.monotonic() + pause_s > deadline:
                raise Timeout(f"worker {name} has not left in time; it is {now.state}")
            if now.state is WorkerState.ONLINE and time.monotonic() > order_again:
                # A master that was started again meanwhile has forgotten it.
                order_again = time.monotonic() + _ORDER_AGAIN_S
                with contextlib.suppress(Conflict, NotFound):
                    self._order_shutdown(told.worker_id, drain_ms)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def _last(self, what: str) -> Run:
        if self._last_run is None:
            raise NotFound(f"{what}: this client has submitted no run yet; say which with run=")
        return self._last_run

    def _which(self, job: JobLike, run: RunLike | None) -> tuple[str, str]:
        """The run and the job that a caller means."""
        job_id = job.id if isinstance(job, TitanJob) else job
        if run is None and "/" in job_id:
            selector, _, job_id = job_id.partition("/")
            return selector, job_id
        return _selector(run if run is not None else self._last(f"job {named(job_id)}")), job_id

    def _wait_for_log(self, view: JobView, timeout: float | None) -> JobView:
        """Until there is a log to fetch: the job's end, a service's start."""
        service = view.kind is JobKind.SERVICE
        until = JobMilestone.STARTED if service else JobMilestone.ENDED
        request = WaitJob(run=view.run_id, job=view.job_id, until=until)
        first = WARN_AFTER_S if timeout is None else min(WARN_AFTER_S, timeout)
        try:
            return self.ask(request, timeout_s=first)
        except Timeout:
            if timeout is not None and timeout <= first:
                raise _log_timeout(view, timeout) from None
        now = self.ask(GetJob(run=view.run_id, job=view.job_id))
        if not _has_started(now):
            _log.warning(
                "job %s of run %s has not started after %g s: %s",
                now.job_id,
                now.run_alias,
                WARN_AFTER_S,
                why_not_started(now, self.stats(), self._skills(now)),
            )
        try:
            return self.ask(request, timeout_s=None if timeout is None else timeout - first)
        except Timeout:
            raise _log_timeout(view, timeout) from None

    def _skills(self, view: JobView) -> tuple[str, ...]:
        run = self._last_run
        known = run.skills if run is not None and run.id == view.run_id else {}
        return known.get(view.job_id, ())

    @staticmethod
    def _warn_never_ran(view: JobView) -> None:
        if view.state in JOB_TERMINAL:
            _log.warning(
                "job %s of run %s never ran: %s (%s)",
                view.job_id,
                view.run_alias,
                view.state,
                how_ended(view),
            )


def _group_of_runs(given: str | Mapping[str, object] | None) -> Concurrency | None:
    if given is None:
        return None
    try:
        return read_concurrency(given)
    except BadValue as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise InvalidSpec(f"concurrency: {error.message}{hint}") from error


def attempt_of(environ: Mapping[str, str]) -> AttemptRef | None:
    """The attempt that this process belongs to; None outside a job."""
    run_id, job_id = environ.get("TITAN_RUN_ID", ""), environ.get("TITAN_JOB_ID", "")
    number = environ.get("TITAN_ATTEMPT", "")
    if not (run_id and job_id and number.isascii() and number.isdigit()):
        return None
    return AttemptRef(run_id, job_id, int(number[:9]))


def _as_the_manual_names(request: Request[ReplyT]) -> Request[ReplyT] | None:
    """The same about `JOB`, where nothing is called `DAG-JOB`, as the manual's screens name every job."""
    for field in ("job", "service", "gate"):
        run, slash, job = getattr(request, field, "").rpartition("/")
        if job.startswith(DAG_PREFIX) and job != DAG_PREFIX:
            return replace(request, **{field: f"{run}{slash}{job.removeprefix(DAG_PREFIX)}"})
    return None


def _dag_job(raw: DagJob, folder: Path) -> TitanJob:
    """A job of a DAG string; what it carries is written into a folder of its own."""
    script = raw.file
    if raw.content is not None:
        # Only the name: two jobs may carry different files of one name, and none leads elsewhere.
        its_own = folder / hashlib.sha256(raw.id.encode("utf-8", "surrogatepass")).hexdigest()
        its_own.mkdir(exist_ok=True)
        path = its_own / (Path(raw.file).name or "script")
        path.write_bytes(raw.content)
        path.chmod(0o755)
        script = str(path)
    return TitanJob(
        id=raw.id,
        script=script or None,
        handler=raw.handler or None,
        args=raw.args if isinstance(raw.args, str) else list(raw.args),
        dependencies=list(raw.parents),
        type="SERVICE" if raw.is_service else None,
        port=int(raw.port) if raw.port.isdigit() else raw.port or None,
        skills=list(raw.skills) or None,
        priority=raw.priority,
        delay=raw.delay_ms / 1000,
        affinity=raw.affinity or None,
    )


def _schedule_spec(
    cron: str | Sequence[str] | None,
    policy: Mapping[str, Any],
    base: ScheduleSpec | None = None,
) -> ScheduleSpec:
    """A schedule of what is said here, on top of what a file says. Raises InvalidSpec."""
    from titan_sdk.scheduling import SCHEDULE_KEYS, crons

    read: dict[str, Any] = {}
    for key, value in policy.items():
        if key not in SCHEDULE_KEYS or key == "cron":
            meant = nearest(key, SCHEDULE_KEYS)
            hint = f'did you mean "{meant}"?' if meant else f"any of {', '.join(SCHEDULE_KEYS)}"
            raise InvalidSpec(f"a schedule has no {key}: {hint}")
        if value is None:
            continue
        field, reader = SCHEDULE_KEYS[key]
        try:
            read[field] = reader(value)
        except BadValue as error:
            raise InvalidSpec(f"{key}: {error.message}: {error.hint}") from error
    if cron is not None:
        try:
            read["crons"] = crons(cron)
        except BadValue as error:
            raise InvalidSpec(f"{error.message}: {error.hint}") from error
    if base is not None:
        spec = msgspec.structs.replace(base, **read)
    elif "crons" in read:
        spec = ScheduleSpec(**read)
    else:
        raise InvalidSpec("this pipeline has no schedule: say when, or give it the key `schedule`")
    if 0 < spec.end_ms < spec.start_ms:
        raise InvalidSpec("the schedule ends before it starts")
    return spec


def _ended(view: JobView) -> Explanation:
    """Of what is not live any more: how it ended."""
    text = f"has ended: {view.state}" + (f" ({view.message})" if view.message else "")
    cause = Cause(kind=CauseKind.ENDED, message=text, since_ms=view.ended_at_ms)
    return Explanation(
        run_id=view.run_id,
        run_alias=view.run_alias,
        job_id=view.job_id,
        state=view.state,
        causes=(cause,),
    )


def _deferral(at: Moment | None, delay: Duration | None) -> Deferral:
    """When a run begins. Raises InvalidSpec."""
    read: dict[str, int] = {}
    for name, value, reader in (("at", at, moment_ms), ("delay", delay, duration_ms)):
        if value is None:
            continue
        try:
            read[f"{name}_ms"] = reader(value)
        except BadValue as error:
            raise InvalidSpec(f"{name}: {error.message}: {error.hint}") from error
    return Deferral(**read)


def _drain_ms(value: str | float) -> int:
    try:
        drain_ms = duration_ms(value)
    except BadValue as error:
        raise InvalidSpec(f"drain_timeout: {error.message}: {error.hint}") from error
    if drain_ms > DRAIN_TIMEOUT_MS:
        raise LimitExceeded(
            f"drain_timeout is {drain_ms} ms, at most {DRAIN_TIMEOUT_MS} (DRAIN_TIMEOUT_MS)",
            details={"limit": "DRAIN_TIMEOUT_MS"},
        )
    return drain_ms


def job_id_for(path: str) -> str:
    """The id of the one job that runs a script: its name, made safe."""
    stem = Path(path).stem
    safe = "".join(
        char if char.isascii() and (char.isalnum() or char in "_-") else "-" for char in stem
    )
    return safe.lstrip("-")[:64] or "job"


def skills_of(jobs: Sequence[JobSpec]) -> dict[str, tuple[str, ...]]:
    """What the jobs need that not every worker has; to say why one does not start."""
    return {job.id: job.needs.skills for job in jobs if job.needs.skills != ("GENERAL",)}


class _Paged(Protocol):
    """A page of a list."""

    @property
    def cursor(self) -> str:
        """Where the next one begins; empty on the last."""
        ...


_PageT = TypeVar("_PageT", bound=_Paged)


def _pages(ask: Callable[[str], _PageT]) -> Iterator[_PageT]:
    """All pages of a list, one question each; `ask` asks for the one at a cursor."""
    cursor = ""
    while True:
        page = ask(cursor)
        yield page
        cursor = page.cursor
        if not cursor:
            return


def _selector(run: RunLike) -> str:
    return run.id if isinstance(run, Run) else run


def _jobs_of(given: object) -> list[TitanJob]:
    """The jobs as a list; what is something else is refused, not taken apart."""
    is_list = isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping))
    jobs: list[TitanJob] = []
    for one in given if is_list else [given]:  # type: ignore[attr-defined]  # see the line above
        if not isinstance(one, TitanJob):
            raise InvalidSpec(f"expected TitanJob, not {type(one).__name__}: {one!r}")
        jobs.append(one)
    return jobs


def _gate_of(gate: str | TitanJob) -> str:
    if isinstance(gate, str):
        return gate
    return gate.id if gate.approval is None else gate_id(gate.id)


def _with_gates(jobs: Sequence[TitanJob]) -> list[JobSpec]:
    """What the jobs are submitted as: themselves, and the gates that they ask for."""
    ids = {job.id for job in jobs}
    sections = {place: job.approval for place, job in enumerate(jobs) if job.approval is not None}
    said = {place: obstacle(jobs[place].id, ids) for place in sections}
    refuse(
        [
            Problem(
                where=f"jobs[{place}].approval",
                message=f"job {jobs[place].id} {message}",
                hint=hint,
                code="Y106",
            )
            for place, (message, hint) in said.items()
            if message
        ]
    )
    return [spec for _, spec in with_gates([job.spec for job in jobs], sections)]


def _has_started(view: JobView) -> bool:
    return view.state in JOB_TERMINAL or view.state in {JobState.RUNNING, JobState.CANCELLING}


def _log_size(view: JobView, stream: LogStream) -> int:
    sizes = {LogStream.STDOUT: view.stdout_bytes, LogStream.STDERR: view.stderr_bytes}
    size = sizes.get(stream, view.stdout_bytes + view.stderr_bytes)
    return min(size, LOG_BYTES_PER_ATTEMPT)


def _log_timeout(view: JobView, timeout: float | None) -> Timeout:
    what = "started" if view.kind is JobKind.SERVICE else "ended"
    return Timeout(f"job {view.job_id} of run {view.run_alias} had not {what} after {timeout:g} s")
