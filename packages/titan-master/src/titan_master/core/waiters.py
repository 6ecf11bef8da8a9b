"""Who waits for what: exchanges that are answered when something becomes true.

Waiters live with their link and are not durable: after a restart the client asks again. It decides
nothing; ``asking`` puts waiters in, ``turn`` tells it what has changed and takes the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from titan_master.core import queries
from titan_master.core.effects import Effect, Reply, ServeLog
from titan_master.core.inputs import Origin
from titan_master.core.state import Job, Run
from titan_proto.errors import ErrorCode
from titan_proto.messages import (
    Error,
    JobChange,
    JobMilestone,
    ReadLog,
    WaitJob,
    WaitRun,
    WatchRun,
)
from titan_proto.states import AttemptState, ExitReason, JobState, RunState

CHANGES_AT_ONCE: Final = 1_000
"""More changes of one moment than this are told as one summary."""

Waiting = WaitRun | WaitJob | WatchRun | ReadLog


def serve_log(origin: Origin, request: ReadLog, job: Job) -> Effect:
    """Stream the log of the job's newest attempt, or say that there is none."""
    attempt = job.attempt
    if attempt is None:
        why = f"it has not started ({job.state}: {job.reason})"
        if not job.is_terminal:
            why = "it has not started yet"
        elif job.reason is ExitReason.TAKEN_OVER:
            why = f"it was taken over {job.message}, where its log is"
        return Reply(
            origin=origin,
            message=Error(
                code=ErrorCode.NOT_FOUND,
                message=f"job {job.spec.id} has no log: {why}",
                details={"state": str(job.state)},
            ),
        )
    ended = attempt.state is AttemptState.ENDED
    return ServeLog(
        origin=origin,
        ref=queries.attempt_ref(job),
        request=request,
        ended=ended,
        stdout_bytes=attempt.stdout_bytes,
        stderr_bytes=attempt.stderr_bytes,
        lost=ended and not queries.has_final_sizes(attempt),
    )


def is_reached(job: Job, until: JobMilestone) -> bool:
    """Whether a job has come as far as a WaitJob wants it; what is unknown waits for the end."""
    if job.is_terminal or until is not JobMilestone.STARTED:
        return job.is_terminal
    return job.attempt is not None and (
        job.state is JobState.RUNNING
        or (job.state is JobState.CANCELLING and job.attempt.started_at_ms > 0)
    )


class Waiters:
    """All exchanges that are open for news of live runs."""

    def __init__(self) -> None:
        self._of_run: dict[str, dict[Origin, WaitRun | WatchRun]] = {}
        self._of_job: dict[str, dict[str, dict[Origin, WaitJob | ReadLog]]] = {}
        self._by_link: dict[int, dict[Origin, tuple[str, str]]] = {}

    def concerns(self, run_id: str) -> bool:
        """Whether anybody wants news of this run."""
        return run_id in self._of_run or run_id in self._of_job

    def wait(self, origin: Origin, run_id: str, request: WaitRun | WatchRun) -> None:
        """Until the run ends."""
        self._of_run.setdefault(run_id, {})[origin] = request
        self._by_link.setdefault(origin.link_id, {})[origin] = (run_id, "")

    def wait_job(
        self, origin: Origin, run_id: str, job_id: str, request: WaitJob | ReadLog
    ) -> None:
        """Until the job is as far as the request wants it."""
        self._of_job.setdefault(run_id, {}).setdefault(job_id, {})[origin] = request
        self._by_link.setdefault(origin.link_id, {})[origin] = (run_id, job_id)

    def drop(self, origin: Origin) -> None:
        """Nobody waits on this exchange any more."""
        places = self._by_link.get(origin.link_id, {})
        place = places.pop(origin, None)
        if place is None:
            return
        if not places:
            del self._by_link[origin.link_id]
        run_id, job_id = place
        if not job_id:
            _discard(self._of_run, run_id, origin)
            return
        jobs = self._of_job[run_id]
        _discard(jobs, job_id, origin)
        if not jobs:
            del self._of_job[run_id]

    def drop_link(self, link_id: int) -> None:
        """The link is gone, and everybody on it."""
        for origin in list(self._by_link.get(link_id, ())):
            self.drop(origin)

    def jobs_changed(self, run: Run, jobs: Sequence[Job], at_ms: int) -> list[Effect]:
        """Answers to everybody who waits for one of these jobs, and news to who watches the run."""
        effects: list[Effect] = []
        watchers = [
            origin
            for origin, request in self._of_run.get(run.run_id, {}).items()
            if isinstance(request, WatchRun)
        ]
        if watchers:
            news = changes(run, jobs, at_ms)
            effects.extend(
                Reply(origin=origin, message=change, end=False)
                for origin in watchers
                for change in news
            )
        waiting = self._of_job.get(run.run_id)
        if waiting:
            for job in jobs:
                if job.spec.id in waiting:
                    effects.extend(self._answer_job(run, job))
        return effects

    def _answer_job(self, run: Run, job: Job) -> list[Effect]:
        effects: list[Effect] = []
        for origin, request in list(self._of_job[run.run_id][job.spec.id].items()):
            if isinstance(request, ReadLog):
                if job.attempt is None and not job.is_terminal:
                    continue
                effects.append(serve_log(origin, request, job))
            elif is_reached(job, request.until):
                effects.append(Reply(origin=origin, message=queries.job_view(run, job)))
            else:
                continue
            self.drop(origin)
        return effects

    def run_ended(self, run: Run, state: RunState, at_ms: int) -> list[Effect]:
        """Answers to everybody who waits for the run's end."""
        effects: list[Effect] = []
        for origin, request in list(self._of_run.get(run.run_id, {}).items()):
            message = (
                JobChange(run_id=run.run_id, at_ms=at_ms, run_state=state)
                if isinstance(request, WatchRun)
                else queries.run_view(run, state, at_ms)
            )
            effects.append(Reply(origin=origin, message=message))
            self.drop(origin)
        return effects


def changes(run: Run, jobs: Sequence[Job], at_ms: int) -> list[JobChange]:
    """The news of these jobs; beyond a number, what is left is told as one sum per state."""
    news = [queries.job_change(run, job, at_ms) for job in jobs[:CHANGES_AT_ONCE]]
    rest: dict[JobState, int] = {}
    for job in jobs[CHANGES_AT_ONCE:]:
        rest[job.state] = rest.get(job.state, 0) + 1
    news.extend(
        JobChange(
            run_id=run.run_id,
            at_ms=at_ms,
            state=state,
            message=f"{number} more jobs are {state}",
        )
        for state, number in rest.items()
    )
    return news


def _discard(table: dict[str, dict[Origin, Any]], key: str, origin: Origin) -> None:
    entries = table[key]
    del entries[origin]
    if not entries:
        del table[key]
