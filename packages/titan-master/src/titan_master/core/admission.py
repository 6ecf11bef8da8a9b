"""Admission: may this run in? Keys seen before, limits, and the run's number among its namesakes.

A run is admitted whole in one event or refused whole. The spec has been validated by the shell,
off the loop; here only what depends on the state is looked at. Called by ``core``.
"""

from __future__ import annotations

from itertools import islice
from typing import Final, TypeVar

from titan_master.core import explaining, graph, lifecycle
from titan_master.core.apply import KEY_REMEMBERED_MS
from titan_master.core.events import RunAccepted
from titan_master.core.inputs import Origin, RunSubmitted
from titan_master.core.state import KeyRecord, State
from titan_master.core.storage import room_of_run
from titan_master.core.turn import Draft
from titan_proto.errors import ErrorCode
from titan_proto.ids import AttemptRef, slug
from titan_proto.limits import JOBS_PER_RUN, SUBMIT_KEY_CHARS
from titan_proto.messages import RunReceipt
from titan_proto.outputs import size_of
from titan_proto.specs import JobKind, RunSpec
from titan_proto.states import JobState

_T = TypeVar("_T")

NOTICES: Final = 5
"""Of so many jobs that nothing can run yet a receipt says so."""


def submit(draft: Draft, item: RunSubmitted) -> None:
    """Accept a run, recognise it, or say why not."""
    if known_before(draft, item.origin, item.key, item.digest, item.notices):
        return
    if not item.key or len(item.key) > SUBMIT_KEY_CHARS:
        message = f"a submit key has 1 to {SUBMIT_KEY_CHARS} characters"
        details = {"limit": "submit_key_chars"}
        draft.refuse(item.origin, ErrorCode.LIMIT_EXCEEDED, message, details=details)
        return
    refusal = obstacle(draft, len(item.spec.jobs), _room(item))
    if refusal is not None:
        code, message, details = refusal
        draft.refuse(item.origin, code, message, details=details)
        return
    if item.digest in draft.state.poison:
        draft.refuse(
            item.origin,
            ErrorCode.INTERNAL,
            "this submission made the master stop once and is refused; its log says more",
        )
        return
    _accept(draft, item)


def known_before(
    draft: Draft, origin: Origin, key: str, digest: str, notices: tuple[str, ...] = ()
) -> bool:
    """Answer what was submitted under this key before; False if it is new."""
    known = remembered(draft.state, key, draft.now_ms)
    if known is not None:
        _recognise(draft, origin, key, digest, known, notices)
    return known is not None


def remembered(state: State, key: str, now_ms: int) -> KeyRecord | None:
    """What a key was used for. One that is too old may still lie in the state: it counts no more."""
    record = state.keys.get(key)
    if record is None or now_ms - record.at_ms >= KEY_REMEMBERED_MS:
        return None
    return record


def _recognise(
    draft: Draft,
    origin: Origin,
    key: str,
    digest: str,
    known: KeyRecord,
    notices: tuple[str, ...],
) -> None:
    if known.digest == digest:
        receipt = RunReceipt(run_id=known.run_id, alias=known.alias, known=True, notices=notices)
        draft.reply(origin, receipt)
        return
    draft.refuse(
        origin,
        ErrorCode.CONFLICT,
        f"key {key!r} was used for {known.alias}, which has another content: "
        "use a new key for a new run",
        details={"run_id": known.run_id, "alias": known.alias},
    )


def obstacle(
    draft: Draft, jobs: int, wanted_bytes: int
) -> tuple[ErrorCode, str, dict[str, str]] | None:
    """Why a run of so many jobs, which may come to take so much of the disk, cannot be let in now."""
    met = _limit_met(draft, jobs)
    if met is not None:
        limit, message = met
        return ErrorCode.LIMIT_EXCEEDED, message, {"limit": limit}
    if not draft.storage.has_room(wanted_bytes):
        words, details = draft.storage.refusal(wanted_bytes)
        return ErrorCode.STORAGE_FULL, words, details
    return None


def _limit_met(draft: Draft, jobs: int) -> tuple[str, str] | None:
    """The first limit that the run would break: its name, and what to say."""
    state, config = draft.state, draft.config
    live = sum(state.counts.values())
    if jobs > JOBS_PER_RUN:
        return "jobs_per_run", f"{jobs} jobs in one run; at most {JOBS_PER_RUN} are allowed"
    if len(state.runs) >= config.live_runs_max:
        return "live_runs", f"{config.live_runs_max} runs are live; wait for one to end"
    if live + jobs > config.live_jobs_max:
        return (
            "live_jobs",
            (
                f"{live} jobs of live runs and {jobs} more would be above {config.live_jobs_max}; "
                "wait for runs to end"
            ),
        )
    return None


def _accept(draft: Draft, item: RunSubmitted) -> None:
    short = slug(item.spec.name)
    taken_over = _taken_over(draft.state, item)
    event = RunAccepted(
        at_ms=draft.now_ms,
        run_id=item.run_id,
        key=item.key,
        digest=item.digest,
        name=item.spec.name,
        slug=short,
        number=draft.state.slugs.get(short, 0) + 1,
        owner=item.owner,
        jobs=len(item.spec.jobs),
        spec=item.spec_bytes,
        rerun_of=item.rerun_of,
        rerun_alias=item.rerun_alias,
        taken_over=taken_over,
        outputs={job_id: item.outputs[job_id] for job_id in taken_over if job_id in item.outputs},
        left=_left_by(taken_over, item.left),
        homes=_left_by(taken_over, item.homes),
        ancestors=item.ancestors,
        near=_near(draft.state, item.parent),
        fired=item.fired,
    )
    draft.storage.begin(_room(item))
    receipt = RunReceipt(
        run_id=item.run_id,
        alias=f"{event.slug}-{event.number}",
        notices=(
            *item.notices,
            *islice(explaining.never_yet(draft.state, item.spec.jobs), NOTICES),
        ),
    )
    draft.reply(item.origin, receipt)
    begin(draft, event, item.spec)


def begin(draft: Draft, event: RunAccepted, spec: RunSpec) -> None:
    """Let a run in, and see to what of it is over at once."""
    draft.emit(event, spec)
    run = draft.state.runs[event.run_id]
    if draft.state.services:
        ready = (job for job in run.order if job.state is JobState.QUEUED)
        lifecycle.keep_services(
            draft, run, [job for job in ready if job.spec.kind is JobKind.SERVICE]
        )
    if spec.shapes:
        outcome = graph.undecided(run, run.order, chars=draft.condition_chars)
        lifecycle.follow(draft, run, outcome)
    lifecycle.end_if_over(draft, run)  # a run without jobs has nothing to wait for


def _near(state: State, parent: AttemptRef | None) -> str:
    """The worker of the attempt that asks; none where it has ended, or is not what it says."""
    if parent is None:
        return ""
    attempt = state.find_attempt(parent.run_id, parent.job_id)
    is_it = attempt is not None and attempt.is_live and attempt.number == parent.number
    return attempt.worker_id if attempt is not None and is_it else ""


def _left_by(
    jobs: tuple[str, ...], found: tuple[tuple[str, _T], ...]
) -> tuple[tuple[str, _T], ...]:
    """Of what the old run's jobs left, by job: what those left that are taken over."""
    wanted = set(jobs) if found else ()
    return tuple(one for one in found if one[0] in wanted)


def _room(item: RunSubmitted) -> int:
    taken_over = sum(size_of(outputs) for outputs in item.outputs.values())
    taken_over += sum(len(job_id) + len(home) for job_id, home in item.homes)
    return room_of_run(len(item.spec.jobs), len(item.spec_bytes) + taken_over)


def _taken_over(state: State, item: RunSubmitted) -> tuple[str, ...]:
    """What need not run again; of services only those that are up, for others may need them."""
    if not item.taken_over:
        return ()
    up = {service.name for service in state.services.values()}
    services = {job.id for job in item.spec.jobs if job.kind is JobKind.SERVICE}
    return tuple(
        job_id
        for job_id in item.taken_over
        if job_id not in services or f"{item.spec.name}/{job_id}" in up
    )
