"""Workers: arriving, being heard, falling silent, getting lost, leaving; and what they report.

The three fences are kept here: an old incarnation is hung up on, a report counts only from the
worker that holds the attempt under its newest number. Called by ``core``.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from titan_master.core import filling, leaving, lifecycle, moving, services, sharing, siblings
from titan_master.core.effects import HangUp, Tell
from titan_master.core.events import (
    WorkerDraining,
    WorkerJoined,
    WorkerLost,
    WorkerRetired,
    WorkerReturned,
    WorkerSilent,
)
from titan_master.core.inputs import (
    ReportsArrived,
    SpawnsReported,
    WorkerArrived,
    WorkerHeard,
    WorkerLeft,
)
from titan_master.core.state import Attempt, InvariantViolation, Job, State, WorkerInfo
from titan_master.core.turn import Draft
from titan_proto.errors import ErrorCode
from titan_proto.ids import INSTANCE_MARK, AttemptRef
from titan_proto.limits import RESOURCES_PER_WORKER, WORKER_SLOTS
from titan_proto.messages import AttemptOrder, Join, Joined
from titan_proto.messages.worker import AttemptReport
from titan_proto.states import AttemptState, ExitReason, WorkerState

PORT_MAX: Final = 65_535
WORKERS_KNOWN_MAX: Final = 10_000
"""Workers that have joined and were not forgotten yet, whether they are here or lost."""


# -- arriving -------------------------------------------------------------------------------------
def arrive(draft: Draft, item: WorkerArrived) -> None:
    """A worker joins: let it in and reconcile what it holds with what is known, or hang up."""
    join, state = item.join, draft.state
    known = state.workers.get(join.worker_id)
    if known is not None and _is_late(draft, item, known):
        # Its inventory is an old one: what the worker has taken since would seem to be lost.
        reason = f"worker {join.worker_id} has joined already, on this link or on a newer one"
        draft.require(HangUp(link_id=item.link_id, code=ErrorCode.UNAVAILABLE, reason=reason))
        if draft.roster.link_of(join.worker_id) == item.link_id:
            draft.roster.unbind(item.link_id, draft.now_ms)
        return
    refusal = _refusal(draft, item, known)
    if refusal is not None:
        code, reason = refusal
        draft.require(HangUp(link_id=item.link_id, code=code, reason=reason))
        return
    namesake = state.names.get(f"{join.host}:{join.port}", join.worker_id)
    if namesake != join.worker_id:
        draft.emit(WorkerRetired(at_ms=draft.now_ms, worker_id=namesake))  # it was lost
    _take_over_link(draft, join.worker_id, item.link_id)
    is_new = known is None or known.incarnation != join.incarnation
    # A ledger survives its process but not, for certain, a crash of the machine: only on the same
    # boot does "not held" of a new process mean "never begun".
    is_ledger_trusted = known is not None and (not is_new or known.boot_id == join.boot_id)
    gone = ExitReason.LOST if known is None else _blame(known)
    if is_new:
        draft.emit(_joined_event(item, draft.now_ms))
        siblings.registered(draft, item)
    elif known is not None and known.state in (WorkerState.SILENT, WorkerState.LOST):
        draft.emit(WorkerReturned(at_ms=draft.now_ms, worker_id=join.worker_id))
    draft.roster.bind(join.worker_id, item.link_id, draft.now_ms)
    draft.placement_due = True
    leaving.arrived(draft, join, is_new=is_new)
    siblings.arrived(draft, item)
    if join.leaving:
        _drain(draft, join.worker_id)
    _watch(draft, state.workers[join.worker_id])
    _reconcile(draft, item.link_id, join, is_ledger_trusted=is_ledger_trusted, gone=gone)
    draft.leaving_due[join.worker_id] = None  # what it was told on its last link may be lost
    leaving.tell_again(draft, join.worker_id)
    siblings.reconcile(draft, item)


def _is_late(draft: Draft, item: WorkerArrived, known: WorkerInfo) -> bool:
    """Whether this process has said this before: a process dials one link after the other."""
    newest = draft.roster.of(known.worker_id).newest_link_id
    is_same = item.join.incarnation == known.incarnation and item.join.boot_id == known.boot_id
    return is_same and item.link_id <= newest


def _refusal(
    draft: Draft, item: WorkerArrived, known: WorkerInfo | None
) -> tuple[ErrorCode, str] | None:
    join = item.join
    if not 1 <= join.slots <= WORKER_SLOTS:
        return ErrorCode.PROTOCOL, f"a worker has 1 to {WORKER_SLOTS} slots, not {join.slots}"
    if len(join.resources) > RESOURCES_PER_WORKER:
        number = len(join.resources)
        most = f"{RESOURCES_PER_WORKER} (RESOURCES_PER_WORKER)"
        return ErrorCode.PROTOCOL, f"a worker has at most {most} resources, not {number}"
    if known is not None and join.incarnation < known.incarnation:
        return (
            ErrorCode.SUPERSEDED,
            (
                f"a newer process of this worker has joined (start {known.incarnation}, "
                f"this is start {join.incarnation})"
            ),
        )
    if known is None and len(draft.state.workers) >= WORKERS_KNOWN_MAX:
        return (
            ErrorCode.LIMIT_EXCEEDED,
            f"{WORKERS_KNOWN_MAX} workers (WORKERS_KNOWN_MAX) are known; lost ones count for a day",
        )
    if known is not None and _is_copy(draft, join, known):
        return (
            ErrorCode.DUPLICATE_WORKER,
            (
                f"worker {join.worker_id} runs on another machine: this one's data folder is a "
                "copy of that one's; start it with an empty one"
            ),
        )
    stranger = siblings.why_not_let_in(draft, item.kin, known)
    if stranger:
        return ErrorCode.SUPERSEDED, stranger
    name = f"{join.host}:{join.port}"
    holder = draft.state.workers.get(draft.state.names.get(name, join.worker_id))
    if holder is None or holder.worker_id == join.worker_id:
        return None
    if holder.state is WorkerState.LOST:
        return None
    free = _free_port(draft.state, join.host, join.port)
    if draft.roster.link_of(holder.worker_id) is None:
        # It may be back in a moment. Or never: a folder that was restored knows the workers of
        # another time as if they were here.
        return (
            ErrorCode.UNAVAILABLE,
            (
                f"worker {name} was here, and its place is kept until it is lost; come again then, "
                f"or start under another port, such as {free}"
            ),
        )
    return (
        ErrorCode.DUPLICATE_WORKER,
        f"worker {name} is here already; start this one under another port, such as {free}",
    )


def _is_copy(draft: Draft, join: Join, known: WorkerInfo) -> bool:
    """Whether two processes have one ledger: they are on two boots, and either it is the same start
    of it or the one that was here first is here still. (A machine that was started again comes in
    once it has not been heard of for a while.)
    """
    is_here = known.state is WorkerState.ONLINE and draft.roster.link_of(known.worker_id)
    is_same_start = known.incarnation == join.incarnation
    return known.boot_id != join.boot_id and (is_same_start or bool(is_here))


def _free_port(state: State, host: str, port: int) -> int:
    while f"{host}:{port}" in state.names and port < PORT_MAX:
        port += 1
    return port


def _take_over_link(draft: Draft, worker_id: str, link_id: int) -> None:
    """One link a worker, one worker a link: whoever was there before is not listened to."""
    old = draft.roster.link_of(worker_id)
    if old is not None and old != link_id:
        reason = "this worker has joined on a newer link"
        draft.require(HangUp(link_id=old, code=ErrorCode.SUPERSEDED, reason=reason))
        draft.roster.unbind(old, draft.now_ms)
    draft.roster.unbind(link_id, draft.now_ms)


def _joined_event(item: WorkerArrived, now_ms: int) -> WorkerJoined:
    join, kin = item.join, item.kin
    return WorkerJoined(
        at_ms=now_ms,
        worker_id=join.worker_id,
        host=join.host,
        port=join.port,
        incarnation=join.incarnation,
        boot_id=join.boot_id,
        slots=join.slots,
        skills=join.skills,
        software=join.software,
        workspace=join.workspace,
        spawn=0 if kin is None else kin.number,
        resources=join.resources,
        network=join.network,
    )


# -- reconciling ----------------------------------------------------------------------------------
def _reconcile(
    draft: Draft, link_id: int, join: Join, *, is_ledger_trusted: bool, gone: ExitReason
) -> None:
    """Compare both inventories: what is known here and not held there, and the other way round.

    Args:
        draft: the turn.
        link_id: the worker's.
        join: what it holds.
        is_ledger_trusted: whether "not held" means "never begun".
        gone: why what it cannot answer for any more has ended.
    """
    worker = draft.state.workers[join.worker_id]
    held = {line.ref: line.state for line in join.held}
    for (run_id, job_id), number in list(worker.held.items()):
        ref = AttemptRef(run_id, job_id, number)
        attempt = draft.state.find_attempt(run_id, job_id)
        if attempt is None:
            raise InvariantViolation(f"{worker.worker_id} holds {ref}, which nobody knows")
        if not is_ledger_trusted:
            message = f"worker {worker.name} came back after its machine had been started again"
            hold_ms = draft.config.old_lease_ms
            lifecycle.lose_attempt(draft, ref, attempt, gone, message, hold_ms=hold_ms)
        elif ref not in held:
            _not_held(draft, worker, ref, attempt, gone)
        elif attempt.state is AttemptState.STOPPING and held[ref] is not AttemptState.ENDED:
            _stop_again(draft, ref)
    stale = [ref for ref in held if not _is_held_by(draft.state, ref, worker.worker_id)]
    joined = Joined(
        term=draft.state.term,
        heartbeat_ms=draft.config.heartbeat_ms,
        lost_after_ms=draft.config.lost_after_ms,
        moves_services=True,
        stop=tuple(ref for ref in stale if held[ref] is not AttemptState.ENDED),
        forget=tuple(ref for ref in stale if held[ref] is AttemptState.ENDED),
    )
    draft.require(Tell(link_id=link_id, message=joined))


def _blame(worker: WorkerInfo) -> ExitReason:
    """What ended the attempts of a worker that cannot answer for them: its shutdown, or nobody knows."""
    leaving = worker.state is WorkerState.DRAINING
    return ExitReason.WORKER_LEFT if leaving else ExitReason.LOST


def _not_held(
    draft: Draft, worker: WorkerInfo, ref: AttemptRef, attempt: Attempt, gone: ExitReason
) -> None:
    if attempt.state is AttemptState.PREPARING:
        # Placed and never confirmed: the order was lost on its way. The same number may go out
        # again, because the worker writes a number down before it acts on it.
        job = draft.state.find_job(ref.run_id, ref.job_id)
        if job is None:
            raise InvariantViolation(f"{ref} was placed, and nobody knows its job")
        send_order(draft, job, attempt)
    elif attempt.state is AttemptState.STOPPING and not attempt.started_at_ms:
        message = "stopped before its worker had heard of it"
        lifecycle.lose_attempt(draft, ref, attempt, _why_stopping(draft.state, ref), message)
    else:
        message = f"worker {worker.name} came back without it"
        hold_ms = 0 if worker.incarnation == attempt.incarnation else draft.config.old_lease_ms
        lifecycle.lose_attempt(draft, ref, attempt, gone, message, hold_ms=hold_ms)


def _why_stopping(state: State, ref: AttemptRef) -> ExitReason:
    if (ref.run_id, ref.job_id) in state.services:
        return ExitReason.STOPPED
    return state.runs[ref.run_id].jobs[ref.job_id].stop_reason


def _stop_again(draft: Draft, ref: AttemptRef) -> None:
    service = draft.state.services.get((ref.run_id, ref.job_id))
    if service is not None:
        services.order_stop(draft, service)
    else:
        run = draft.state.runs[ref.run_id]
        lifecycle.order_stop(draft, run, run.jobs[ref.job_id])


def _is_held_by(state: State, ref: AttemptRef, worker_id: str) -> bool:
    """Whether this attempt is live here and was placed on that worker."""
    worker = state.workers[worker_id]
    return worker.held.get((ref.run_id, ref.job_id)) == ref.number


def send_order(draft: Draft, job: Job, attempt: Attempt) -> None:
    """Tell a worker to execute a placement."""
    link_id = draft.roster.link_of(attempt.worker_id)
    if link_id is None:
        return
    spec, state = job.spec, draft.state
    service = state.services.get((job.run_id, spec.id))
    takes_over, ancestors, slot_ms = "", tuple[str, ...](), 0
    if service is not None and state.instances.get((job.run_id, spec.id)) is job:
        run_name, workspace = service.run_name, service.workspace
        publishes, layers, intake = False, service.layers, service.intake
    else:
        run = state.runs[job.run_id]
        run_name, workspace = run.name, run.workspace
        takes_over, ancestors = run.rerun_of, run.ancestors
        slot_ms = 0 if run.fired is None else run.fired.slot_at_ms
        launch = filling.filled_in(run, job)
        if launch is not spec.launch:
            spec = replace(spec, launch=launch)
        publishes = sharing.is_published(state, run, job)
        layers = sharing.layers_for(run, job, draft.roster.of(attempt.worker_id))
        intake = sharing.intake_for(run, job)
    draft.order(
        link_id,
        AttemptOrder(
            ref=AttemptRef(job.run_id, spec.id, attempt.number),
            fence=attempt.fence,
            # Whom it waited for is nothing to the worker, and may be 100,000 names.
            spec=replace(spec, dependencies=()) if spec.dependencies else spec,
            run_name=run_name,
            workspace=workspace,
            takes_over=takes_over,
            ancestors=ancestors,
            publishes=publishes,
            layers=layers,
            intake=intake,
            scheduled_for_ms=slot_ms,
        ),
    )


# -- being heard ----------------------------------------------------------------------------------
def heard(draft: Draft, item: WorkerHeard) -> None:
    """A heartbeat that changes something; see `Core.hear` for all others."""
    worker_id = _sign_of_life(draft, item.link_id)
    if worker_id is None:
        return
    draft.roster.of(worker_id).status = item.status
    if item.status.leaving:
        _drain(draft, worker_id, at_once=item.status.at_once)


def _drain(draft: Draft, worker_id: str, *, at_once: bool = False) -> None:
    """It is being shut down, and says so before anything else ends there: nothing new for it."""
    draft.roster.of(worker_id).farewell = None
    worker = draft.state.workers[worker_id]
    if worker.state is WorkerState.ONLINE:
        draft.emit(WorkerDraining(at_ms=draft.now_ms, worker_id=worker_id, at_once=at_once))
        if not at_once:
            moving.begin(draft, worker)


def _sign_of_life(draft: Draft, link_id: int) -> str | None:
    """Anything from a worker renews its lease; what comes on a link without one is not heard."""
    worker_id = draft.roster.worker_on(link_id)
    if worker_id is None:
        return None
    draft.roster.of(worker_id).seen_ms = draft.now_ms
    if draft.state.workers[worker_id].state is WorkerState.SILENT:
        draft.emit(WorkerReturned(at_ms=draft.now_ms, worker_id=worker_id))
    return worker_id


def reports_arrive(draft: Draft, item: ReportsArrived) -> None:
    """News of attempts, each fenced; every end is acknowledged, so that the worker may forget."""
    worker_id = _sign_of_life(draft, item.link_id)
    if worker_id is None:
        return
    foreign = next((r for r in item.reports if _is_foreign(draft.state, r.ref, worker_id)), None)
    if foreign is not None:
        _refuse_reports(draft, item.link_id, worker_id, foreign)
        return
    for report in item.reports:
        if report.state is AttemptState.ENDED:
            if _is_held_by(draft.state, report.ref, worker_id):
                _attempt_ended(draft, report)
            draft.acknowledge(item.link_id, report.ref)
        elif report.state is AttemptState.RUNNING:
            if _is_held_by(draft.state, report.ref, worker_id):
                lifecycle.attempt_running(draft, report)
            else:
                # Given away or forgotten here: it must not go on for nobody.
                draft.stop(worker_id, report.ref, ExitReason.CANCELLED)


def spawns_reported(draft: Draft, item: SpawnsReported) -> None:
    """What became of siblings that this worker was told to spawn."""
    worker_id = _sign_of_life(draft, item.link_id)
    if worker_id is not None:
        siblings.heard_of(draft, worker_id, item.reports)


def _is_foreign(state: State, ref: AttemptRef, worker_id: str) -> bool:
    """Whether this attempt was surely never placed on that worker.

    A number below the newest may have been the worker's own: it is stale, not foreign. So may be
    whatever belongs to a run that has ended.
    """
    service = state.services.get((ref.run_id, ref.job_id))
    run = state.runs.get(ref.run_id)
    if run is None or service is not None:
        newest = None if service is None else service.attempt
        return (
            newest is not None
            and ref.number >= newest.number
            and not (ref.number == newest.number and newest.worker_id == worker_id)
        )
    job = run.jobs.get(ref.job_id)
    if job is None and ref.job_id.partition(INSTANCE_MARK)[0] in run.jobs:
        return False  # an instance of a service that has ended
    if job is None or ref.number > job.number or ref.number < 1:
        return True
    attempt = job.attempt
    return attempt is not None and ref.number == attempt.number and attempt.worker_id != worker_id


def _refuse_reports(draft: Draft, link_id: int, worker_id: str, report: AttemptReport) -> None:
    """Nothing of such a message is believed; the worker has to join again and show what it holds."""
    reason = f"worker {worker_id} reports on {report.ref}, which was never placed on it"
    draft.require(HangUp(link_id=link_id, code=ErrorCode.PERMISSION_DENIED, reason=reason))
    draft.roster.unbind(link_id, draft.now_ms)


def _attempt_ended(draft: Draft, report: AttemptReport) -> None:
    attempt = draft.state.find_attempt(report.ref.run_id, report.ref.job_id)
    if attempt is None:
        raise InvariantViolation(f"{report.ref} is held by a worker, and nobody knows it")
    lifecycle.attempt_ended(draft, attempt, report)


def link_closed(draft: Draft, link_id: int) -> None:
    """No change of state: the worker may be back in a moment. Until then it gets nothing new."""
    draft.roster.unbind(link_id, draft.now_ms)


# -- falling silent -------------------------------------------------------------------------------
def look_at(draft: Draft, worker_id: str) -> None:
    """A deadline of this worker has passed: see whether it is silent, lost, or to be forgotten."""
    worker = draft.state.workers.get(worker_id)
    if worker is None:
        return
    now_ms, config = draft.now_ms, draft.config
    silence_ms = now_ms - draft.roster.of(worker_id).seen_ms
    if worker.state is WorkerState.ONLINE and silence_ms >= config.silent_after_ms:
        draft.emit(WorkerSilent(at_ms=now_ms, worker_id=worker_id))
    unheard = worker.state in (WorkerState.SILENT, WorkerState.DRAINING)
    if unheard and silence_ms >= config.lost_after_ms:
        _lose(draft, worker)
    elif worker.state is WorkerState.LOST and now_ms - worker.since_ms >= config.forget_after_ms:
        draft.emit(WorkerRetired(at_ms=now_ms, worker_id=worker_id))
        return
    _watch(draft, worker)


def _watch(draft: Draft, worker: WorkerInfo) -> None:
    """Set the next deadline, by what the worker is now."""
    config = draft.config
    seen_ms = draft.roster.of(worker.worker_id).seen_ms
    if worker.state is WorkerState.ONLINE:
        at_ms = seen_ms + config.silent_after_ms
    elif worker.state in (WorkerState.SILENT, WorkerState.DRAINING):
        at_ms = seen_ms + config.lost_after_ms
    else:
        at_ms = worker.since_ms + config.forget_after_ms
    draft.timers.watch_worker(worker.worker_id, at_ms)


def _lose(draft: Draft, worker: WorkerInfo) -> None:
    link_id = draft.roster.link_of(worker.worker_id)
    seconds = draft.config.lost_after_ms // 1000
    if link_id is not None:
        # Should it still be there, it has to join again, so that inventories are compared.
        reason = f"nothing was heard for {seconds} s: join again"
        draft.require(HangUp(link_id=link_id, code=ErrorCode.UNAVAILABLE, reason=reason))
        draft.roster.unbind(link_id, draft.now_ms)
    reason = _blame(worker)
    draft.emit(WorkerLost(at_ms=draft.now_ms, worker_id=worker.worker_id))
    # It may be alive and only unheard: what must never run twice at once waits a little longer.
    hold_ms = draft.config.give_away_after_ms
    message = f"worker {worker.name} was silent for {seconds} s"
    _lose_held(draft, worker, reason, message, hold_ms=hold_ms)


def _lose_held(
    draft: Draft, worker: WorkerInfo, reason: ExitReason, message: str, *, hold_ms: int = 0
) -> None:
    for (run_id, job_id), number in list(worker.held.items()):
        attempt = draft.state.find_attempt(run_id, job_id)
        if attempt is not None:
            ref = AttemptRef(run_id, job_id, number)
            lifecycle.lose_attempt(draft, ref, attempt, reason, message, hold_ms=hold_ms)


# -- leaving and returning ------------------------------------------------------------------------
def leave(draft: Draft, item: WorkerLeft) -> None:
    """It goes for good, in good order: what it has not reported is no fault of the jobs."""
    worker_id = draft.roster.worker_on(item.link_id)
    if worker_id is None:
        return
    worker = draft.state.workers[worker_id]
    draft.roster.unbind(item.link_id, draft.now_ms)
    _lose_held(draft, worker, ExitReason.WORKER_LEFT, f"worker {worker.name} left")
    draft.emit(WorkerRetired(at_ms=draft.now_ms, worker_id=worker_id))


def fresh_leases(draft: Draft, *, longer_ms: int = 0) -> None:
    """This master has just started, or stood still: whom it could not hear has not been silent.

    Args:
        draft: the turn.
        longer_ms: what this first lease is longer than all later ones.
    """
    for worker in draft.state.workers.values():
        draft.roster.of(worker.worker_id).seen_ms = draft.now_ms + longer_ms
        _watch(draft, worker)
