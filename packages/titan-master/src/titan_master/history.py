"""What the core cannot answer alone: ended runs, prefixes of names, names that nobody has.

Decides which run a selector means where live and ended ones both fit. It reads the store's history,
writes nothing, and runs in a thread beside the loop. Called by the engine for each AskHistory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import msgspec

from titan_master.core import gates, rerun
from titan_master.core.effects import RUNS_NAMED, AskHistory, Effect, Reply, ServeLog
from titan_master.core.inputs import Asked, Origin, RunSubmitted
from titan_master.core.pins import Pins, needed
from titan_master.store.base import AttemptRow, History
from titan_proto.errors import ErrorCode
from titan_proto.ids import INSTANCE_MARK, AttemptRef
from titan_proto.limits import (
    ATTEMPTS_LISTED,
    JOB_ID_CHARS,
    NAME_CHARS,
    OUTPUTS_PER_RUN_BYTES,
    PAGE_ITEMS,
    RERUN_ANCESTORS,
)
from titan_proto.messages import (
    AnyMessage,
    AttemptList,
    AttemptView,
    CancelRun,
    DecideGate,
    Error,
    Fired,
    GetJob,
    GetRun,
    JobChange,
    JobList,
    JobView,
    ListAttempts,
    ListDead,
    ListJobs,
    ListRuns,
    ListServices,
    ReadLog,
    RerunRun,
    RunList,
    RunView,
    ServiceList,
    StopJob,
    WaitJob,
    WaitRun,
    WatchRun,
)
from titan_proto.outputs import size_of
from titan_proto.specs import JobSpec, RunSpec
from titan_proto.states import AttemptState, ExitReason, JobState, RunState

_SPEC: Final = msgspec.msgpack.Decoder(RunSpec)


class Answers:
    """Answers from history."""

    def __init__(
        self, history: History, draw_id: Callable[[], str], missing: Callable[[Pins], int]
    ) -> None:
        """`missing`: how many of these artifacts are gone; those that are not stay from then on."""
        self._history = history
        self._draw_id = draw_id
        self._missing = missing

    def answer(self, ask: AskHistory) -> Sequence[Effect] | Asked | RunSubmitted:
        """What to do for `ask`: effects, or something for the core.

        That is the question with the exact run, or the submission that a RerunRun comes to.
        """
        request = ask.request
        if isinstance(request, ListDead):
            return (Reply(origin=ask.origin, message=self._list_dead(ask, request)),)
        if isinstance(request, ListServices):
            return (Reply(origin=ask.origin, message=self._list_services(ask, request)),)
        if isinstance(request, ListRuns):
            return (Reply(origin=ask.origin, message=self._list_runs(ask, request)),)
        if isinstance(request, ListAttempts) and ask.live_jobs:
            return _reply(ask.origin, self._attempts_of(ask.live_jobs[0], ask.live_spec))
        if isinstance(request, ReadLog) and request.attempt:
            # Of a live run the core knows the newest attempts only, and names the run exactly.
            rows = self._history.attempts(request.run, request.job)
            if _wanted(rows, request.attempt) is not None:
                return self._read_log(ask.origin, request, request.run)
        found = self._run_id(ask)
        if isinstance(found, Error):
            return (Reply(origin=ask.origin, message=found),)
        if found in ask.live_ids:
            return Asked(origin=ask.origin, request=_exactly(request, found), by=ask.by)
        if isinstance(request, RerunRun):
            return self._rerun(ask, request, found)
        if isinstance(request, DecideGate):
            return _reply(ask.origin, self._decide(ask, request, found))
        return self._HANDLERS[type(request)](self, ask.origin, request, found)

    # -- which run --------------------------------------------------------------------------------

    def _run_id(self, ask: AskHistory) -> str | Error:
        request = ask.request
        if isinstance(request, GetJob) and not request.run:
            return self._run_with_job(request.job, ask.live_ids)
        if isinstance(request, DecideGate):
            selector, _, job_id = request.gate.rpartition("/")
            if not selector:
                # Ids are drawn in the order of time, as below.
                ended = self._history.newest_with_gate(job_id)
                among = (*ask.live_ids, ended) if ended is not None else ask.live_ids
                return max(among) if among else _no_gate(ask, request)
        else:
            assert not isinstance(request, (ListRuns, ListDead, ListServices))
            selector = request.run
        known = self._history.resolve(selector)
        if len(known) == 1 and self._is_exact(known[0], selector):
            return known[0]
        # A run may have ended since the core was asked: then it is in both.
        fits = tuple(dict.fromkeys((*ask.live_ids, *known)))
        if len(fits) == 1:
            return fits[0]
        if not fits:
            if isinstance(request, DecideGate):
                return _no_gate(ask, request)
            return _not_found(f"no run is called {selector[:NAME_CHARS]!r}")
        aliases = dict(zip(ask.live_ids, ask.live_aliases, strict=False))
        shown = ", ".join(aliases.get(one) or self._alias(one) for one in fits[:RUNS_NAMED])
        more = " and more" if len(fits) > RUNS_NAMED else ""
        return Error(
            code=ErrorCode.CONFLICT,
            message=f"{selector[:NAME_CHARS]!r} fits several runs: {shown}{more}; give more of the name",
        )

    def _alias(self, run_id: str) -> str:
        view = self._history.run(run_id)
        return run_id if view is None else view.alias

    def _is_exact(self, run_id: str, selector: str) -> bool:
        if selector in {"@last", run_id}:
            return True
        view = self._history.run(run_id)
        return view is not None and view.alias == selector

    def _run_with_job(self, job_id: str, live_ids: tuple[str, ...]) -> str | Error:
        # Ids are drawn in the order of time: the greatest is the newest, live or ended.
        ended = self._history.newest_with_job(job_id)
        among = (*live_ids, ended) if ended is not None else live_ids
        return max(among) if among else _no_job_at_all(job_id)

    def _decide(self, ask: AskHistory, request: DecideGate, run_id: str) -> AnyMessage:
        """Of a run that has ended every gate is closed: only the same decision is no news."""
        job = self._history.job(run_id, request.gate.rpartition("/")[2])
        if job is None or job.gate is None:
            return _no_gate(ask, request)
        wanted = ExitReason.APPROVED if request.approve else ExitReason.REJECTED
        if job.reason is wanted:
            return job.gate
        name = f"{job.run_alias}/{job.job_id}"
        text = gates.decided_already(name, job.reason, job.message)
        return Error(code=ErrorCode.CONFLICT, message=text)

    # -- answers ----------------------------------------------------------------------------------

    def _list_runs(self, ask: AskHistory, request: ListRuns) -> AnyMessage:
        limit = max(1, min(request.limit, PAGE_ITEMS))
        live = ask.live_runs[:limit]
        if len(live) == limit:
            # Nothing of history on a page that the living fill; it begins on the next one.
            return RunList(runs=live, cursor="" if not self._any_ended() else _HISTORY)
        cursor = request.cursor.removeprefix(_HISTORY)
        ended = self._history.runs(cursor, limit - len(live))
        following = _HISTORY + ended.cursor if ended.cursor else ""
        shown = {view.run_id for view in live}  # one of them may have ended since
        rest = tuple(view for view in ended.runs if view.run_id not in shown)
        return RunList(runs=(*live, *rest), cursor=following)

    def _list_dead(self, ask: AskHistory, request: ListDead) -> AnyMessage:
        page = self._history.dead(request.cursor, request.limit)
        shown = {(view.run_id, view.job_id) for view in ask.live_jobs}  # one may have ended since
        rest = tuple(view for view in page.jobs if (view.run_id, view.job_id) not in shown)
        return JobList(jobs=(*ask.live_jobs, *rest), cursor=page.cursor)

    def _list_services(self, ask: AskHistory, request: ListServices) -> AnyMessage:
        ended = self._history.services(request.run, request.limit)
        shown = {(one.run_id, one.job_id) for one in ask.live_services}  # it may have ended since
        rest = tuple(one for one in ended if (one.run_id, one.job_id) not in shown)
        return ServiceList(services=(*ask.live_services, *rest))

    def _rerun(
        self, ask: AskHistory, request: RerunRun, run_id: str
    ) -> Sequence[Effect] | RunSubmitted:
        view, spec_bytes = self._history.run(run_id), self._history.spec(run_id)
        if view is None or spec_bytes is None:
            return _reply(ask.origin, _not_found(f"no run {run_id}"))
        spec = _SPEC.decode(spec_bytes)
        try:
            taken_over = rerun.taken_over(spec, self._history.ends(run_id), request)
        except rerun.NothingToRerun as error:
            refusal = Error(
                code=ErrorCode.CONFLICT, message=f"run {view.alias} is not run again: {error}"
            )
            return _reply(ask.origin, refusal)
        outputs = self._history.outputs(run_id) if taken_over else {}
        left = self._history.left(run_id) if taken_over else ()
        homes = self._history.homes(run_id) if taken_over else ()
        before = self._history.repeats(run_id) if taken_over else ()
        kept = {job_id: outputs[job_id] for job_id in taken_over if job_id in outputs}
        if sum(map(size_of, kept.values())) > OUTPUTS_PER_RUN_BYTES:
            refusal = Error(
                code=ErrorCode.LIMIT_EXCEEDED,
                message=f"the jobs of {view.alias} that would not run again left outputs of more than "
                f"OUTPUTS_PER_RUN_BYTES ({OUTPUTS_PER_RUN_BYTES}): run all of it again",
                details={"limit": "outputs_per_run_bytes"},
            )
            return _reply(ask.origin, refusal)
        wanted = set(taken_over)
        gone = self._missing(needed(spec, (files for job_id, files in left if job_id in wanted)))
        if gone:
            refusal = Error(
                code=ErrorCode.CONFLICT,
                message=f"run {view.alias} cannot be run again: {gone} of the files that it needs are "
                "gone, for nobody has wanted them for as long as the master keeps them "
                "(--keep-artifacts); submit it anew",
            )
            return _reply(ask.origin, refusal)
        return RunSubmitted(
            origin=ask.origin,
            run_id=self._draw_id(),
            key=request.key,
            digest=rerun.rerun_digest(request),
            spec=spec,
            spec_bytes=spec_bytes,
            owner=ask.by,
            rerun_of=run_id,
            rerun_alias=view.alias,
            taken_over=taken_over,
            outputs=kept,
            left=left,
            homes=homes,
            ancestors=before[:RERUN_ANCESTORS],
            fired=_again(view.fired),
        )

    def _any_ended(self) -> bool:
        return bool(self._history.runs("", 1).runs)

    def _run(self, origin: Origin, _request: GetRun | WaitRun, run_id: str) -> Sequence[Effect]:
        view = self._history.run(run_id)
        return _reply(origin, view or _not_found(f"no run {run_id}"))

    def _cancel(self, origin: Origin, _request: CancelRun, run_id: str) -> Sequence[Effect]:
        view = self._history.run(run_id)
        if view is not None and view.state is not RunState.CANCELLED:
            refusal = f"run {view.alias} has ended already: {view.state}"
            return _reply(origin, Error(code=ErrorCode.ALREADY_DONE, message=refusal))
        return _reply(origin, view or _not_found(f"no run {run_id}"))

    def _jobs(self, origin: Origin, request: ListJobs, run_id: str) -> Sequence[Effect]:
        limit = max(1, min(request.limit, PAGE_ITEMS))
        page = self._history.jobs(run_id, request.cursor, limit)
        return _reply(origin, page or _not_found(f"no run {run_id}"))

    def _job(self, origin: Origin, request: GetJob | WaitJob, run_id: str) -> Sequence[Effect]:
        view = self._history.job(run_id, request.job) or self._instance(run_id, request.job)
        return _reply(origin, view or _no_job(run_id, request.job))

    def _instance(self, run_id: str, job_id: str) -> JobView | None:
        """An instance of a service beside the first: no job, but it has had attempts."""
        base, mark, _ = job_id.partition(INSTANCE_MARK)
        rows = self._history.attempts(run_id, job_id) if mark else ()
        view = self._history.job(run_id, base) if rows else None
        if view is None:
            return None
        last = rows[-1]
        return msgspec.structs.replace(
            view,
            job_id=job_id,
            attempt=last.number,
            attempt_state=AttemptState.ENDED if last.ended else AttemptState.RUNNING,
            worker=last.worker,
            reason=last.reason,
            exit_code=last.exit_code,
            signal=last.signal,
            message=last.message,
            placed_at_ms=last.placed_at_ms,
            started_at_ms=last.started_at_ms,
            ended_at_ms=last.ended_at_ms,
            stdout_bytes=last.stdout_bytes,
            stderr_bytes=last.stderr_bytes,
        )

    def _list_attempts(
        self, origin: Origin, request: ListAttempts, run_id: str
    ) -> Sequence[Effect]:
        view = self._history.job(run_id, request.job) or self._instance(run_id, request.job)
        if view is None:
            return _reply(origin, _no_job(run_id, request.job))
        encoded = self._history.spec(run_id)
        jobs = _SPEC.decode(encoded).jobs if encoded is not None else ()
        base = request.job.partition(INSTANCE_MARK)[0]
        spec = next((job for job in jobs if job.id == base), None)
        return _reply(origin, self._attempts_of(view, spec))

    def _attempts_of(self, view: JobView, spec: JobSpec | None) -> AttemptList:
        """Every attempt that history has of the job, and the newest, which may go on.

        Of what the job is and what history has, one must not know more than the other: the view of a live
        job was taken earlier in the turn, and a later step of that turn may have placed a new attempt.
        """
        rows = self._history.attempts(view.run_id, view.job_id)
        found = {row.number: _attempt_view(row) for row in rows if row.number <= view.attempt}
        newest = found.get(view.attempt)
        if view.attempt and (newest is None or newest.state is not AttemptState.ENDED):
            found[view.attempt] = AttemptView(
                number=view.attempt,
                state=view.attempt_state,
                worker=view.worker,
                reason=view.reason,
                exit_code=view.exit_code,
                signal=view.signal,
                message=view.message,
                placed_at_ms=view.placed_at_ms,
                started_at_ms=view.started_at_ms,
                ended_at_ms=view.ended_at_ms,
                stdout_bytes=view.stdout_bytes,
                stderr_bytes=view.stderr_bytes,
            )
        listed = [found[number] for number in sorted(found)]
        return AttemptList(
            job=view, attempts=tuple(listed[-ATTEMPTS_LISTED:]), spec=_without_values(spec)
        )

    def _stop_job(self, origin: Origin, request: StopJob, run_id: str) -> Sequence[Effect]:
        view = self._history.job(run_id, request.job)
        if view is None:
            return _reply(origin, _no_job(run_id, request.job))
        text = f"{view.run_alias}/{view.job_id} has ended already: {view.state}"
        return _reply(origin, Error(code=ErrorCode.ALREADY_DONE, message=text))

    def _watch(self, origin: Origin, _request: WatchRun, run_id: str) -> Sequence[Effect]:
        run = self._history.run(run_id)
        if run is None:
            return _reply(origin, _not_found(f"no run {run_id}"))
        page = self._history.jobs(run_id, "", PAGE_ITEMS)
        shown = page.jobs if page is not None else ()
        effects: list[Effect] = [
            Reply(origin=origin, message=_change(job), end=False) for job in shown
        ]
        rest = Counter(run.counts)
        rest.subtract(job.state.value for job in shown)
        effects += (
            Reply(origin=origin, message=_sum(run, JobState(state), number), end=False)
            for state, number in rest.items()
            if number > 0
        )
        last = JobChange(run_id=run_id, at_ms=run.ended_at_ms, run_state=run.state)
        effects.append(Reply(origin=origin, message=last))
        return effects

    def _read_log(self, origin: Origin, request: ReadLog, run_id: str) -> Sequence[Effect]:
        rows = self._history.attempts(run_id, request.job)
        row = _wanted(rows, request.attempt)
        if row is None:
            return _reply(origin, self._no_log(run_id, request))
        return (
            ServeLog(
                origin=origin,
                ref=AttemptRef(run_id, request.job, row.number),
                request=request,
                ended=row.ended,
                stdout_bytes=row.stdout_bytes,
                stderr_bytes=row.stderr_bytes,
                lost=row.reason is ExitReason.LOST,
            ),
        )

    def _no_log(self, run_id: str, request: ReadLog) -> Error:
        view = self._history.job(run_id, request.job)
        if view is None:
            return _no_job(run_id, request.job)
        if request.attempt and view.attempt:
            return _not_found(
                f"job {request.job} of run {view.run_alias} has no attempt {request.attempt}; "
                f"its newest is {view.attempt}"
            )
        why = f"it never started ({view.state}, {view.reason})"
        if view.reason is ExitReason.TAKEN_OVER:
            why = f"it was taken over {view.message}, where its log is"
        return _not_found(f"job {request.job} of run {view.run_alias} has no log: {why}")

    _HANDLERS: ClassVar[dict[type, Callable[[Answers, Origin, Any, str], Sequence[Effect]]]] = {
        GetRun: _run,
        WaitRun: _run,
        CancelRun: _cancel,
        ListJobs: _jobs,
        GetJob: _job,
        ListAttempts: _list_attempts,
        WaitJob: _job,
        StopJob: _stop_job,
        WatchRun: _watch,
        ReadLog: _read_log,
    }


_HISTORY: Final = "h"
"""Begins the cursors of pages that hold ended runs."""


def _again(fired: Fired | None) -> Fired | None:
    """The slot that a run was begun for is what it is repeated for; a person wants that."""
    return None if fired is None else msgspec.structs.replace(fired, triggered=True)


def _exactly(request: Any, run_id: str) -> Any:
    """The same request, about the run of that id."""
    if isinstance(request, DecideGate):
        return msgspec.structs.replace(request, gate=f"{run_id}/{request.gate.rpartition('/')[2]}")
    return msgspec.structs.replace(request, run=run_id)


def _attempt_view(row: AttemptRow) -> AttemptView:
    return AttemptView(
        number=row.number,
        state=AttemptState.ENDED if row.ended else AttemptState.RUNNING,
        worker=row.worker,
        reason=row.reason,
        exit_code=row.exit_code,
        signal=row.signal,
        message=row.message,
        placed_at_ms=row.placed_at_ms,
        started_at_ms=row.started_at_ms,
        ended_at_ms=row.ended_at_ms,
        stdout_bytes=row.stdout_bytes,
        stderr_bytes=row.stderr_bytes,
    )


def _without_values(spec: JobSpec | None) -> JobSpec | None:
    """Whoever may look may know which variables a job gets, and not what is in them."""
    if spec is None or not spec.launch.env:
        return spec
    hidden = dict.fromkeys(spec.launch.env, "")
    return msgspec.structs.replace(spec, launch=msgspec.structs.replace(spec.launch, env=hidden))


def _wanted(rows: Sequence[AttemptRow], number: int) -> AttemptRow | None:
    if not number:
        return rows[-1] if rows else None
    return next((row for row in rows if row.number == number), None)


def _reply(origin: Origin, message: AnyMessage) -> Sequence[Effect]:
    return (Reply(origin=origin, message=message),)


def _not_found(text: str) -> Error:
    return Error(code=ErrorCode.NOT_FOUND, message=text)


def _no_gate(ask: AskHistory, request: DecideGate) -> Error:
    name = request.gate[: NAME_CHARS + JOB_ID_CHARS]
    return _not_found(f"no gate is called {name!r}; {ask.open_gates}")


def _no_job(run_id: str, job_id: str) -> Error:
    return _not_found(f"run {run_id} has no job {job_id[:JOB_ID_CHARS]!r}")


def _no_job_at_all(job_id: str) -> Error:
    return _not_found(f"no run has a job {job_id[:JOB_ID_CHARS]!r}")


def _sum(run: RunView, state: JobState, number: int) -> JobChange:
    """One line for what is too much to be told job by job."""
    return JobChange(
        run_id=run.run_id,
        at_ms=run.ended_at_ms,
        state=state,
        message=f"{number} more jobs are {state}",
    )


def _change(job: JobView) -> JobChange:
    return JobChange(
        run_id=job.run_id,
        at_ms=job.ended_at_ms,
        job_id=job.job_id,
        state=job.state,
        attempt=job.attempt,
        worker=job.worker,
        reason=job.reason,
        exit_code=job.exit_code,
        signal=job.signal,
        message=job.message,
        port=job.port,
    )
