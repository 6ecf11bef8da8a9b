"""The life of jobs and attempts: what a report, a loss or a cancellation makes of them.

The one place that decides whether a job ends, is tried again, or lets others begin. Called by
``workers`` (reports, losses), ``asking`` (cancellations) and ``core`` (deadlines).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from titan_master.core import graph, moving, retrying, rollout, services, sharing
from titan_master.core.events import (
    AttemptEnded,
    AttemptStarted,
    GatesOpened,
    JobBackoff,
    JobCancelling,
    JobEnded,
    JobsDropped,
    JobsQueued,
    JobsScheduled,
    RunCancelRequested,
    RunEnded,
)
from titan_master.core.state import Attempt, Job, Run, State
from titan_master.core.timers import JobsDue, OvertimeDue, still_due
from titan_master.core.turn import Draft
from titan_proto.ids import AttemptRef
from titan_proto.limits import OUTPUTS_PER_RUN_BYTES, REPORT_MESSAGE_CHARS
from titan_proto.messages.worker import AttemptReport, Left
from titan_proto.outputs import size_of
from titan_proto.specs import JobKind
from titan_proto.states import AttemptState, ExitReason, JobState, RunState, ServiceState

NOT_PLACED: Final = (
    JobState.BLOCKED,
    JobState.SCHEDULED,
    JobState.QUEUED,
    JobState.WAITING,
    JobState.BACKOFF,
)
"""States of a job that can end at once, because nothing of it is anywhere."""

NO_FAULT_OF_THE_JOB: Final = services.WITH_ITS_WORKER
"""The attempt ended with its worker. Of these `apply` counts only LOST: a job may have killed it."""


# -- reports --------------------------------------------------------------------------------------
def attempt_running(draft: Draft, report: AttemptReport) -> None:
    """Its worker says that it runs, and of a service perhaps that it is healthy."""
    service = draft.state.services.get((report.ref.run_id, report.ref.job_id))
    if service is not None:
        was = service.state
        services.hear(draft, service, report)
        if was is not ServiceState.HEALTHY and service.state is ServiceState.HEALTHY:
            rollout.came_up(draft, service)
            moving.came_up(draft, service)
        return
    run = draft.state.runs[report.ref.run_id]
    job = run.jobs[report.ref.job_id]
    if job.state is JobState.PLACED:
        draft.emit(
            AttemptStarted(
                at_ms=draft.now_ms,
                run_id=run.run_id,
                job_id=job.spec.id,
                number=report.ref.number,
                port=report.port,
            )
        )
    # One that is being cancelled has its stop order already; its health is of no interest.
    if report.healthy and job.spec.kind is JobKind.SERVICE and job.state is JobState.RUNNING:
        services.come_up(draft, run, job, report)
        settled = draft.state.services[run.run_id, job.spec.id]
        # A service is not ended for what its run has no room for.
        left = None if report.left and sharing.complaint(run, report.left) else report.left
        settle_job(draft, run, job, JobState.SUCCEEDED, ExitReason.UNKNOWN, left=left)
        rollout.came_up(draft, settled)
        rollout.add_replicas(draft, settled)
        moving.came_up(draft, settled)


def attempt_ended(draft: Draft, attempt: Attempt, report: AttemptReport) -> None:
    """Its worker says how it ended; of a loss, that very process or a later one."""
    is_its_own = draft.state.workers[attempt.worker_id].incarnation == attempt.incarnation
    end_attempt(
        draft,
        attempt,
        AttemptEnded(
            at_ms=draft.now_ms,
            run_id=report.ref.run_id,
            job_id=report.ref.job_id,
            number=report.ref.number,
            worker_id=attempt.worker_id,
            worker=attempt.worker,
            reason=report.reason,
            exit_code=report.exit_code,
            signal=report.signal,
            message=report.message[:REPORT_MESSAGE_CHARS],
            placed_at_ms=attempt.placed_at_ms,
            started_at_ms=_started_at_ms(attempt, report, draft.now_ms),
            stdout_bytes=report.stdout_bytes,
            stderr_bytes=report.stderr_bytes,
        ),
        hold_ms=0 if is_its_own else draft.config.old_lease_ms,
        outputs=report.outputs,
        left=sharing.stored(report.left),
        keeps=report.left is not None and report.left.kept,
        # Of what it had sent on to its process, a worker that is shut down says when it began.
        never_began=report.reason is ExitReason.WORKER_LEFT and not report.started_at_ms,
    )


def _started_at_ms(attempt: Attempt, report: AttemptReport, now_ms: int) -> int:
    """When it began by the master's clock; only durations are taken from the worker's."""
    if attempt.started_at_ms or not report.started_at_ms:
        return attempt.started_at_ms
    lasted = max(0, report.ended_at_ms - report.started_at_ms)
    return max(attempt.placed_at_ms, now_ms - lasted)


def lose_attempt(
    draft: Draft,
    ref: AttemptRef,
    attempt: Attempt,
    reason: ExitReason,
    message: str,
    *,
    hold_ms: int = 0,
) -> None:
    """Nobody will report on it any more; see `end_attempt` for `hold_ms`."""
    end_attempt(
        draft,
        attempt,
        AttemptEnded(
            at_ms=draft.now_ms,
            run_id=ref.run_id,
            job_id=ref.job_id,
            number=ref.number,
            worker_id=attempt.worker_id,
            worker=attempt.worker,
            reason=reason,
            message=message,
            placed_at_ms=attempt.placed_at_ms,
            started_at_ms=attempt.started_at_ms,
        ),
        hold_ms=hold_ms,
    )


def end_attempt(
    draft: Draft,
    attempt: Attempt,
    event: AttemptEnded,
    *,
    hold_ms: int = 0,
    never_began: bool = False,
    outputs: dict[str, str] | None = None,
    left: Left | None = None,
    keeps: bool = False,
) -> None:
    """Emit the end of an attempt and everything that follows from it.

    Args:
        draft: the turn.
        attempt: which; live until now.
        event: its end.
        hold_ms: of an attempt that may still run, unheard: how long an exclusive job must wait
            before it may be placed again.
        never_began: its worker is sure that there was no process.
        outputs: what it left for others; recorded with the job's success, or never.
        left: likewise, the files.
        keeps: some of them are where it was, and nowhere else.
    """
    if outputs:
        event = _with_room_for(draft.state, event, outputs)
    if left is not None:
        event = _with_place_for(draft.state, event, left)
    draft.emit(event)
    service = draft.state.services.get((event.run_id, event.job_id))
    if service is not None and service.attempt is attempt:
        services.attempt_ended(draft, service, event, hold_ms=hold_ms)
        return
    run = draft.state.runs[event.run_id]
    job = run.jobs[event.job_id]
    succeeded = event.reason is ExitReason.EXITED and event.exit_code == 0
    if job.spec.kind is JobKind.SERVICE:
        succeeded = False  # it ended before it was ever up
    if succeeded:
        succeeded_as = JobState.SUCCEEDED
        home = sharing.home_of(draft.state, run, job) if keeps else ""
        settle_job(
            draft, run, job, succeeded_as, event.reason, outputs=outputs, left=left, home=home
        )
    elif job.state is JobState.CANCELLING:
        _settle_stopped(draft, run, job)
    elif event.reason in NO_FAULT_OF_THE_JOB:
        _after_a_loss(draft, run, job, event.reason, hold_ms=hold_ms, never_began=never_began)
    else:
        _after_a_failure(draft, run, job, event)


def _with_room_for(state: State, event: AttemptEnded, outputs: dict[str, str]) -> AttemptEnded:
    """The same end, or a failure where the run has no room for what the attempt left."""
    run = state.runs.get(event.run_id)
    size = size_of(outputs)
    if run is None or run.outputs_bytes + size <= OUTPUTS_PER_RUN_BYTES:
        return event
    return replace(
        event,
        reason=ExitReason.BAD_OUTPUT,
        message=f"its outputs have {size} bytes, and those of its run's jobs {run.outputs_bytes} already: "
        f"together more than OUTPUTS_PER_RUN_BYTES ({OUTPUTS_PER_RUN_BYTES})",
    )


def _with_place_for(state: State, event: AttemptEnded, left: Left) -> AttemptEnded:
    """The same end, or a failure where the run has no place for the files."""
    run = state.runs.get(event.run_id)
    problem = "" if run is None else sharing.complaint(run, left)
    return replace(event, reason=ExitReason.BAD_FILES, message=problem) if problem else event


def _settle_stopped(draft: Draft, run: Run, job: Job) -> None:
    """What was told to stop has stopped."""
    if job.stop_reason is ExitReason.TIMED_OUT:
        settle_job(draft, run, job, JobState.FAILED, ExitReason.TIMED_OUT, _overtime(job))
    else:
        settle_job(draft, run, job, JobState.CANCELLED, ExitReason.CANCELLED)


def _after_a_loss(
    draft: Draft, run: Run, job: Job, reason: ExitReason, *, hold_ms: int, never_began: bool
) -> None:
    """Try again whatever `retries` says, unless it must not be done twice or costs too many workers."""
    if not job.spec.retries.after_loss and not never_began:
        message = (
            "it may have been done, and is to be done at most once: look, then `titan retry` it"
        )
        settle_job(draft, run, job, JobState.FAILED, reason, message)
    elif job.lost >= draft.config.crash_limit:
        message = (
            f"{job.lost} attempts were lost with their workers (crash_limit): it may be what kills "
            "them, and is not tried again"
        )
        settle_job(draft, run, job, JobState.FAILED, ExitReason.QUARANTINED, message)
    elif job.spec.exclusive and hold_ms:
        _back_off(draft, run, job, hold_ms, job.failures)
    else:
        draft.emit(JobsQueued(at_ms=draft.now_ms, run_id=run.run_id, job_ids=(job.spec.id,)))


def _after_a_failure(draft: Draft, run: Run, job: Job, event: AttemptEnded) -> None:
    """The attempt ended by itself and not well: another try, or the end of the job."""
    failures = job.failures + retrying.is_own_failure(event)
    policy = job.spec.retries
    if job.spec.kind is JobKind.TASK and retrying.is_worth_another(policy, event, failures):
        ref = AttemptRef(run.run_id, job.spec.id, event.number)
        _back_off(draft, run, job, retrying.delay_ms(policy, ref, failures), failures)
        return
    settle_job(draft, run, job, JobState.FAILED, event.reason, failures=failures)


def _back_off(draft: Draft, run: Run, job: Job, wait_ms: int, failures: int) -> None:
    draft.emit(
        JobBackoff(
            at_ms=draft.now_ms,
            run_id=run.run_id,
            job_id=job.spec.id,
            until_ms=draft.now_ms + wait_ms,
            failures=failures,
        )
    )


# -- ends and what they bring about ---------------------------------------------------------------
def settle_job(
    draft: Draft,
    run: Run,
    job: Job,
    state: JobState,
    reason: ExitReason,
    message: str = "",
    *,
    failures: int | None = None,
    outputs: dict[str, str] | None = None,
    left: Left | None = None,
    home: str = "",
) -> None:
    """A job that had attempts, or a gate, is terminal: let others begin, or drop them."""
    attempt = job.attempt
    ended = attempt is not None and attempt.state is AttemptState.ENDED
    draft.emit(
        JobEnded(
            at_ms=draft.now_ms,
            run_id=run.run_id,
            job_id=job.spec.id,
            state=state,
            reason=reason,
            number=job.number,
            lost=job.lost,
            failures=job.failures if failures is None else failures,
            exit_code=attempt.exit_code if attempt is not None and ended else 0,
            signal=attempt.signal if attempt is not None and ended else 0,
            message=message or (attempt.message if attempt is not None and ended else ""),
            outputs=outputs or {},
            left=left,
            home=home,
        )
    )
    follow(draft, run, graph.decided_by(run, (job,), chars=draft.condition_chars))
    end_if_over(draft, run)


def follow(draft: Draft, run: Run, outcome: graph.Outcome) -> None:
    """Make what has been decided of jobs further down come true; what is left is for later turns."""
    draft.condition_chars -= outcome.chars
    if outcome.left:
        draft.undecided.setdefault(run.run_id, []).extend(outcome.left)
    for end, jobs in outcome.dropped:
        words = [outcome.words.get(job.index, "") for job in jobs]
        drop(draft, run, jobs, end.state, end.reason, tuple(words) if any(words) else ())
    release(draft, run, outcome.opened)


def decide(draft: Draft) -> None:
    """Look at the conditions that earlier turns had no room for; what this one has none for is left again."""
    for run_id in list(draft.undecided):
        if draft.condition_chars <= 0:
            break
        jobs = draft.undecided.pop(run_id)
        run = draft.state.runs.get(run_id)
        if run is None:
            continue
        # No more than that can be decided: the others are not even looked at.
        most = draft.condition_chars // graph.CONDITION_CHARS_LEAST + 1
        if jobs[most:]:
            draft.undecided[run_id] = jobs[most:]
        follow(draft, run, graph.undecided(run, jobs[:most], chars=draft.condition_chars))
        end_if_over(draft, run)


def find_undecided(draft: Draft, run: Run) -> None:
    """After a restart: which conditions nobody has looked at yet."""
    if not run.counts.get(JobState.BLOCKED):
        return
    jobs = [job for job in run.order if graph.is_undecided(job)]
    if jobs:
        draft.undecided[run.run_id] = jobs


def drop(
    draft: Draft,
    run: Run,
    jobs: list[Job],
    state: JobState,
    reason: ExitReason,
    messages: tuple[str, ...] = (),
) -> None:
    """End jobs that will not be tried, all in one event."""
    if jobs:
        draft.emit(
            JobsDropped(
                at_ms=draft.now_ms,
                run_id=run.run_id,
                job_ids=tuple(job.spec.id for job in jobs),
                state=state,
                reason=reason,
                messages=messages,
            )
        )


def release(draft: Draft, run: Run, jobs: list[Job]) -> None:
    """These jobs wait for nothing but, perhaps, their moment and their delay."""
    now_ms = draft.now_ms
    begin(draft, run, [job for job in jobs if job.spec.begins_at_ms(now_ms) <= now_ms])
    later = [job for job in jobs if job.spec.begins_at_ms(now_ms) > now_ms]
    if later:
        draft.emit(
            JobsScheduled(
                at_ms=now_ms,
                run_id=run.run_id,
                job_ids=tuple(job.spec.id for job in later),
                until_ms=tuple(job.spec.begins_at_ms(now_ms) for job in later),
            )
        )


def begin(draft: Draft, run: Run, jobs: list[Job]) -> None:
    """These wait for nothing any more: gates are opened, all others queued."""
    now_ms = draft.now_ms
    gates = [job for job in jobs if job.spec.kind is JobKind.GATE]
    others = tuple(job.spec.id for job in jobs if job.spec.kind is not JobKind.GATE)
    if others:
        draft.emit(JobsQueued(at_ms=now_ms, run_id=run.run_id, job_ids=others))
        if draft.state.services:
            keep_services(draft, run, [job for job in jobs if job.spec.kind is JobKind.SERVICE])
    if gates:
        timeouts_ms = [job.question.timeout_ms for job in gates]
        draft.emit(
            GatesOpened(
                at_ms=now_ms,
                run_id=run.run_id,
                job_ids=tuple(job.spec.id for job in gates),
                expires_ms=tuple(now_ms + wait_ms if wait_ms else 0 for wait_ms in timeouts_ms),
            )
        )


def keep_services(draft: Draft, run: Run, jobs: Iterable[Job]) -> None:
    """Settle at once those of these queued services that an earlier run of this name has left."""
    for job in jobs:
        whose = rollout.is_kept(draft, run, job)
        if whose:
            message = f"kept from {whose}"
            settle_job(draft, run, job, JobState.SUCCEEDED, ExitReason.TAKEN_OVER, message)


def delays_over(draft: Draft, due: JobsDue) -> None:
    """The time of jobs that were delayed or backed off has come."""
    job_ids = still_due(draft.state, due, draft.now_ms)
    if not job_ids:
        return
    run = draft.state.runs[due.run_id]
    jobs = [run.jobs[job_id] for job_id in job_ids]
    until_ms = draft.held_until_ms
    if draft.now_ms < until_ms:
        held = tuple(job.spec.id for job in jobs if _may_run_on(job))
        jobs = [job for job in jobs if not _may_run_on(job)]
        if held:
            draft.timers.delay_jobs(run.run_id, held, (until_ms,) * len(held))
    begin(draft, run, jobs)


def _may_run_on(job: Job) -> bool:
    return job.spec.exclusive and job.state is JobState.BACKOFF


# -- the time of a job as a whole -----------------------------------------------------------------
def watch_overtime(draft: Draft, run: Run) -> None:
    """After a restart: set the deadlines of jobs whose time runs."""
    for job in run.order:
        if job.spec.job_timeout_ms and job.first_placed_at_ms and not job.is_terminal:
            draft.timers.watch_job(
                run.run_id, job.spec.id, job.first_placed_at_ms + job.spec.job_timeout_ms
            )


def time_over(draft: Draft, due: OvertimeDue) -> None:
    """A job's time is over: it fails now, or when its attempt has been stopped."""
    run = draft.state.runs.get(due.run_id)
    if run is None:
        return
    job = run.jobs[due.job_id]
    if job.state in NOT_PLACED:
        settle_job(draft, run, job, JobState.FAILED, ExitReason.TIMED_OUT, _overtime(job))
    elif job.state in (JobState.PLACED, JobState.RUNNING):
        stop_job(draft, run, job, ExitReason.TIMED_OUT)


def _overtime(job: Job) -> str:
    return (
        f"it took longer, all attempts together, than its job_timeout of "
        f"{job.spec.job_timeout_ms / 1000:g} s"
    )


# -- the end of a run -----------------------------------------------------------------------------
def end_if_over(draft: Draft, run: Run) -> None:
    """End the run once nothing of it is left to do; asked again, it has ended."""
    # What one job lets begin may settle at once, and so may the whole run, before that job's own turn.
    if not run.remaining and run.run_id in draft.state.runs:
        event = RunEnded(
            at_ms=draft.now_ms,
            run_id=run.run_id,
            state=verdict(run),
            schedule="" if run.fired is None else run.fired.schedule,
        )
        draft.end_run(run, event)


def verdict(run: Run) -> RunState:
    """How a run ended, whose jobs are all terminal; skipped jobs count as neither."""
    if run.counts.get(JobState.FAILED):
        return RunState.FAILED
    if run.counts.get(JobState.CANCELLED):
        return RunState.CANCELLED
    return RunState.SUCCEEDED


# -- cancelling -----------------------------------------------------------------------------------
def cancel_run(draft: Draft, run: Run) -> None:
    """Nothing new starts; what runs is told to stop. Twice is once, but for the stop orders."""
    if not run.cancelled:
        draft.emit(RunCancelRequested(at_ms=draft.now_ms, run_id=run.run_id))
    waiting = [job for job in run.order if job.state in NOT_PLACED]
    drop(draft, run, waiting, JobState.CANCELLED, ExitReason.CANCELLED)
    for job in run.order:
        if job.state in (JobState.PLACED, JobState.RUNNING):
            stop_job(draft, run, job, ExitReason.CANCELLED)
        elif job.state is JobState.CANCELLING:
            order_stop(draft, run, job)
    end_if_over(draft, run)


def cancel_job(draft: Draft, run: Run, job: Job) -> None:
    """This one, and what needs its success; the rest of its run goes on. Twice is once, but for the order."""
    if job.state in (JobState.PLACED, JobState.RUNNING):
        stop_job(draft, run, job, ExitReason.CANCELLED)
    elif job.state is JobState.CANCELLING:
        order_stop(draft, run, job)
    else:
        chars = draft.condition_chars
        follow(draft, run, graph.decided_by(run, (), dropping=(job,), chars=chars))
        end_if_over(draft, run)


def stop_job(draft: Draft, run: Run, job: Job, reason: ExitReason) -> None:
    """Its attempt must end: from now on the state says so, and the order can be repeated."""
    draft.emit(
        JobCancelling(at_ms=draft.now_ms, run_id=run.run_id, job_id=job.spec.id, reason=reason)
    )
    order_stop(draft, run, job)


def order_stop(draft: Draft, run: Run, job: Job) -> None:
    """Send the stop order, at first and whenever its worker comes back without having obeyed."""
    if job.attempt is not None:
        ref = AttemptRef(run.run_id, job.spec.id, job.number)
        draft.stop(job.attempt.worker_id, ref, job.stop_reason)
