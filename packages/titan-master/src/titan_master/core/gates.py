"""Gates: jobs that a person does. Who decides about an open one, and what its time decides.

A gate is state and nothing else: it takes no slot, no worker and no process, and nothing passes it
but a decision that is in the journal. ``lifecycle`` opens it like any job whose turn has come; here
it is closed, once. Called by ``asking`` (decisions) and ``core`` (deadlines).
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from titan_master.core import lifecycle, queries
from titan_master.core.events import GateDecided
from titan_master.core.inputs import Origin
from titan_master.core.state import Job, Run, State
from titan_master.core.timers import JobsDue
from titan_master.core.turn import Draft
from titan_proto.errors import ErrorCode
from titan_proto.limits import DECISION_CHARS
from titan_proto.messages import DecideGate
from titan_proto.specs import GateExpiry, JobKind
from titan_proto.states import ExitReason, JobState

EXPIRED_AT_ONCE: Final = 500
"""Gates of one run that one turn lets expire; the others follow in the next."""
_LISTED: Final = 10
"""So many open gates are named where one is not found."""

_BY_TIME: Final = {
    GateExpiry.APPROVE: (JobState.SUCCEEDED, "approved, as its on_timeout says"),
    GateExpiry.REJECT: (JobState.FAILED, "rejected, as its on_timeout says"),
    GateExpiry.FAIL: (JobState.FAILED, "failed"),
}


# -- finding what is meant ------------------------------------------------------------------------
def called(state: State, job_id: str) -> list[Job]:
    """The open gates with this bare job id, in the order in which they were opened."""
    return [job for (_, name), job in state.gates.items() if name == job_id]


def names(state: State, jobs: list[Job]) -> str:
    """The first few of these gates, as somebody may type them."""
    shown = [f"{state.runs[job.run_id].alias}/{job.spec.id}" for job in jobs[:_LISTED]]
    more = len(jobs) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def listing(state: State) -> str:
    """Which gates are open, for a refusal."""
    if not state.gates:
        return "no gate is open"
    more = len(state.gates) - _LISTED
    shown = names(state, list(islice(state.gates.values(), _LISTED)))
    return f"open are {shown}" + (f" and {more} more" if more > 0 else "")


# -- deciding -------------------------------------------------------------------------------------
def is_too_long(draft: Draft, origin: Origin, request: DecideGate) -> bool:
    """Whether so much was said that the decision is refused."""
    chars = len(request.comment)
    if chars > DECISION_CHARS:
        draft.refuse(
            origin,
            ErrorCode.LIMIT_EXCEEDED,
            f"a comment of {chars} characters is more than DECISION_CHARS ({DECISION_CHARS})",
            details={"limit": "decision_chars"},
        )
    return chars > DECISION_CHARS


def decide(
    draft: Draft, origin: Origin, request: DecideGate, who: str, found: tuple[Run, Job]
) -> None:
    """Approve or reject what was found. The same decision twice is one; the first is final."""
    run, job = found
    reason = ExitReason.APPROVED if request.approve else ExitReason.REJECTED
    name = f"{run.alias}/{job.spec.id}"
    if job.spec.kind is not JobKind.GATE:
        text = f"{name} is a {job.spec.kind}, not a gate; {listing(draft.state)}"
        draft.refuse(origin, ErrorCode.NOT_FOUND, text)
        return
    if job.state is JobState.WAITING:
        state = JobState.SUCCEEDED if request.approve else JobState.FAILED
        said = f": {request.comment}" if request.comment else ""
        words = f"{reason.value.lower()} by {who}{said}"
        _close(draft, run, job, reason, state, words, by=who, comment=request.comment)
    elif not job.is_terminal:
        text = f"gate {name} is not open yet: it is {job.state}. Decide once it is WAITING"
        draft.refuse(origin, ErrorCode.CONFLICT, text)
        return
    elif job.reason is not reason:
        draft.refuse(origin, ErrorCode.CONFLICT, decided_already(name, job.reason, job.message))
        return
    draft.reply(origin, queries.gate_view(run, job))


def decided_already(name: str, reason: ExitReason, words: str) -> str:
    """Why a gate cannot be decided about any more."""
    how = words or reason.value
    return f"gate {name} is closed, and what was decided stays: {how}"


def expire(draft: Draft, due: JobsDue) -> None:
    """The time of open gates may be over: what their ``on_timeout`` says comes true."""
    over = [job for job in _waiting(draft, due) if _is_over(job, draft.now_ms)]
    if len(over) > EXPIRED_AT_ONCE:
        later = tuple(job.spec.id for job in over[EXPIRED_AT_ONCE:])
        draft.timers.delay_jobs(due.run_id, later, (draft.now_ms + 1,) * len(later))
    for job in over[:EXPIRED_AT_ONCE]:
        section = job.question
        state, words = _BY_TIME.get(section.on_timeout, _BY_TIME[GateExpiry.REJECT])
        message = f"nobody decided within {section.timeout_ms / 1000:.10g} s: {words}"
        run = draft.state.runs[due.run_id]
        _close(draft, run, job, ExitReason.EXPIRED, state, message)


def _waiting(draft: Draft, due: JobsDue) -> list[Job]:
    run = draft.state.runs.get(due.run_id)
    if run is None or not run.counts.get(JobState.WAITING):
        return []
    jobs = (run.jobs[job_id] for job_id in due.job_ids)
    return [job for job in jobs if job.state is JobState.WAITING]


def _is_over(job: Job, now_ms: int) -> bool:
    return job.gate is not None and 0 < job.gate.expires_at_ms <= now_ms


def _close(
    draft: Draft,
    run: Run,
    job: Job,
    reason: ExitReason,
    state: JobState,
    message: str,
    *,
    by: str = "",
    comment: str = "",
) -> None:
    gate = job.gate
    draft.emit(
        GateDecided(
            at_ms=draft.now_ms,
            run_id=run.run_id,
            job_id=job.spec.id,
            reason=reason,
            by=by,
            comment=comment,
            opened_at_ms=gate.opened_at_ms if gate is not None else 0,
            expires_at_ms=gate.expires_at_ms if gate is not None else 0,
        )
    )
    lifecycle.settle_job(draft, run, job, state, reason, message)
