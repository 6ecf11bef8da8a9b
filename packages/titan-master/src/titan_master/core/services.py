"""Services once their job has settled: coming up, coming up again elsewhere, being stopped.

Their worker starts a process again, by itself. What is decided here is what becomes of a service whose
attempt is over though nobody stopped it: with its worker gone it is queued again, however often; where it
failed, it is given to another worker, within a budget. How many instances there are, and which takes whose
place, is ``rollout``'s. Called by ``lifecycle``, ``rollout``, ``placement`` and ``asking``.
"""

from __future__ import annotations

from typing import Final

from titan_master.core import conditions, queries
from titan_master.core.events import (
    AttemptEnded,
    AttemptStarted,
    ServiceChanged,
    ServiceEnded,
    ServiceQueued,
    ServiceStopping,
    ServiceUp,
)
from titan_master.core.inputs import Origin
from titan_master.core.state import (
    Job,
    Run,
    Service,
    State,
    WorkerInfo,
    has_too_little,
    is_meant,
)
from titan_master.core.timers import ServiceDue
from titan_master.core.turn import Draft
from titan_proto.errors import ErrorCode
from titan_proto.ids import INSTANCE_MARK, AttemptRef
from titan_proto.limits import JOB_ID_CHARS, NAME_CHARS, RESTART_WELL_MS, SERVICE_MOVES
from titan_proto.messages import StopService
from titan_proto.messages.worker import AttemptReport
from titan_proto.specs import JobSpec, ServiceSection
from titan_proto.states import AttemptState, ExitReason, ServiceState, WorkerState

WITH_ITS_WORKER: Final = (ExitReason.LOST, ExitReason.WORKER_LEFT)
"""Ends of an attempt that are no fault of what was executed."""
_NOT_ITS_WILL: Final = (
    ExitReason.CRASH_LOOP,
    ExitReason.START_FAILED,
    ExitReason.PREPARE_FAILED,
)
"""Ends of one that was to stay up."""
_MAY_TAKE: Final = (WorkerState.ONLINE, WorkerState.SILENT)
_QUOTED_CHARS: Final = NAME_CHARS + 1 + JOB_ID_CHARS
"""No name is longer; what was asked for may be."""


def come_up(draft: Draft, run: Run, job: Job, report: AttemptReport) -> None:
    """It is healthy for the first time: from now on an object of the cluster. See also `rollout`."""
    attempt = job.attempt
    draft.emit(
        ServiceUp(
            at_ms=draft.now_ms,
            name=f"{run.name}/{job.spec.id}",
            run_id=run.run_id,
            job_id=job.spec.id,
            number=job.number,
            worker_id="" if attempt is None else attempt.worker_id,
            port=report.port or (0 if attempt is None else attempt.port),
            restarts=report.restarts,
        )
    )


def hear(draft: Draft, service: Service, report: AttemptReport) -> None:
    """What its worker says of one that is up: that it starts it again, or that it is well again."""
    if service.state is ServiceState.STOPPING:
        return
    if service.attempt.state is AttemptState.PREPARING:
        draft.emit(
            AttemptStarted(
                at_ms=draft.now_ms,
                run_id=service.run_id,
                job_id=service.job_id,
                number=report.ref.number,
                port=report.port,
            )
        )
    # A report may come twice, or late: with each restart it is unwell first, and then perhaps well.
    if (report.restarts, report.healthy) > (
        service.restarts,
        service.state is ServiceState.HEALTHY,
    ):
        draft.emit(
            ServiceChanged(
                at_ms=draft.now_ms,
                run_id=service.run_id,
                job_id=service.job_id,
                healthy=report.healthy,
                restarts=report.restarts,
            )
        )


def attempt_ended(draft: Draft, service: Service, event: AttemptEnded, *, hold_ms: int) -> None:
    """Its attempt is over, as ordered or not; see `lifecycle.end_attempt` for `hold_ms`."""
    if service.state is ServiceState.STOPPING:
        _end(draft, service, event.reason, stopped=True)
    elif service.spec is None:
        _end(draft, service, event.reason)
    elif event.reason in WITH_ITS_WORKER:
        _gone_with_its_worker(draft, service, event, hold_ms=hold_ms)
    elif event.reason in _NOT_ITS_WILL:
        _move(draft, service, service.spec, event)
    else:
        _end(draft, service, event.reason)  # it ended, and its policy is content with that


def _gone_with_its_worker(
    draft: Draft, service: Service, event: AttemptEnded, *, hold_ms: int
) -> None:
    """It comes up elsewhere, unless something has been placed already that takes its place."""
    replacement = replacement_of(draft.state, service)
    if replacement is not None and replacement.attempt.number:
        _end(draft, service, event.reason, stopped=True)
        return
    why = ""
    if event.reason is ExitReason.WORKER_LEFT:
        why = why_it_stays(draft.state, service)
    if replacement is not None:
        # Nowhere yet: it would be the same service once more, under another name.
        why = why or "no worker had room for its replacement in time"
        _end(draft, replacement, ExitReason.STOPPED, stopped=True)
    exclusive = service.spec is not None and service.spec.exclusive
    _queue(
        draft,
        service,
        event.reason,
        moves=service.moves,
        avoid=service.avoid,
        until_ms=draft.now_ms + hold_ms if exclusive and hold_ms else 0,
        why=why,
    )


def replacement_of(state: State, service: Service) -> Service | None:
    """The instance that is there to take its place."""
    for one in state.services.values():
        if one.run_id == service.run_id and one.replaces == service.job_id:
            return one
    return None


def why_it_stays(state: State, service: Service) -> str:
    """Why it cannot be up on another worker too before it is stopped, in words; empty if it can."""
    spec = service.spec
    if spec is None:
        return "it comes from an older master, and is placed nowhere else"
    if spec.exclusive:
        return "it is exclusive, and never beside its replacement"
    own = service.attempt.worker_id
    places = places_for(state, spec, (own,))
    if not places:
        return "no other worker could have it"
    replacement = replacement_of(state, service)
    avoid = service.avoid if replacement is None else (*service.avoid, *replacement.avoid)
    places = [one for one in places if one.worker_id not in avoid]
    if not places:
        return "it has failed on every other worker that could have it"
    port = 0 if spec.service is None else spec.service.port
    # Its own port may be free by now: what is asked is whether both could have been up.
    beside = {} if own not in state.workers else state.neighbours[state.workers[own].ports]
    places = [one for one in places if one.worker_id not in beside]
    if port and all(conditions.holder_of(state, one, port) is not None for one in places):
        return f"no other worker can have port {port} for its replacement"
    return ""


def could_have(worker: WorkerInfo, spec: JobSpec) -> bool:
    """Whether it is here, with what the service needs, though perhaps not free at the moment."""
    return (
        worker.state in _MAY_TAKE
        and not worker.cordoned
        and set(spec.needs.skills) <= set(worker.skills)
        and spec.needs.slots <= worker.slots
        and not has_too_little(worker, spec.needs.terms)
        and is_meant(worker, spec.needs.terms)
    )


def places_for(state: State, spec: JobSpec, avoid: tuple[str, ...] = ()) -> list[WorkerInfo]:
    """The workers that could have it, perhaps later, but for those that it avoids."""
    return [
        worker
        for worker in state.workers.values()
        if worker.worker_id not in avoid and could_have(worker, spec)
    ]


def _move(draft: Draft, service: Service, spec: JobSpec, event: AttemptEnded) -> None:
    """It failed where it was: another worker may have what it lacks there."""
    policy = (spec.service or ServiceSection()).restart
    lasted_ms = event.at_ms - (event.started_at_ms or event.at_ms)
    was_well = lasted_ms > policy.within_ms + RESTART_WELL_MS
    moves, avoid = (0, ()) if was_well else (service.moves, service.avoid)
    avoid = (*avoid, event.worker_id)
    places = places_for(draft.state, spec, avoid)
    if replacement_of(draft.state, service) is not None:
        _end(draft, service, event.reason)  # beside what takes its place it would be one too many
        return
    if moves >= SERVICE_MOVES or not places or _ends_another(draft.state, service, event, places):
        _end(draft, service, event.reason)
        return
    _queue(draft, service, event.reason, moves=moves + 1, avoid=avoid)


def _ends_another(
    state: State, service: Service, event: AttemptEnded, places: list[WorkerInfo]
) -> bool:
    """Whether it crashed, and could come up only once what it replaces, which is well, has gone.

    One that was not even begun may lack there what it has in the other's place; one that crashed may
    crash there as well.
    """
    replaced = state.services.get((service.run_id, service.replaces))
    section = None if service.spec is None else service.spec.service
    if replaced is None or section is None or not section.port:
        return False
    if replaced.state is not ServiceState.HEALTHY or event.reason is not ExitReason.CRASH_LOOP:
        return False
    key = (replaced.run_id, replaced.job_id)
    return all(conditions.holder_of(state, worker, section.port) == key for worker in places)


def _queue(
    draft: Draft,
    service: Service,
    reason: ExitReason,
    *,
    moves: int,
    avoid: tuple[str, ...],
    until_ms: int = 0,
    why: str = "",
) -> None:
    _release(draft, service)
    draft.places_due = True  # where another one is to make way for it, it is time to look
    draft.emit(
        ServiceQueued(
            at_ms=draft.now_ms,
            run_id=service.run_id,
            job_id=service.job_id,
            reason=reason,
            moves=moves,
            avoid=avoid,
            until_ms=until_ms,
            why=why,
        )
    )


def hold_over(draft: Draft, due: ServiceDue) -> None:
    """What may have run on unheard is surely over now: it may be placed again."""
    service = draft.state.services.get((due.run_id, due.job_id))
    if service is not None and service.not_before_ms and service.not_before_ms <= draft.now_ms:
        if draft.now_ms < draft.held_until_ms:
            draft.timers.watch_service(service.run_id, service.job_id, draft.held_until_ms)
            return
        reason, moves, avoid = service.attempt.reason, service.moves, service.avoid
        _queue(draft, service, reason, moves=moves, avoid=avoid)


def watch_holds(draft: Draft) -> None:
    """After a restart: set the deadlines of services that may not be placed yet."""
    for service in draft.state.services.values():
        if service.not_before_ms:
            draft.timers.watch_service(service.run_id, service.job_id, service.not_before_ms)


def _release(draft: Draft, service: Service) -> None:
    """It is nowhere: what it is to replace may not be worth waiting for, where that one's worker leaves."""
    replaced = draft.state.services.get((service.run_id, service.replaces))
    if replaced is not None:
        draft.leaving_due[replaced.attempt.worker_id] = None


def _end(draft: Draft, service: Service, reason: ExitReason, *, stopped: bool = False) -> None:
    _release(draft, service)
    draft.emit(
        ServiceEnded(
            at_ms=draft.now_ms,
            run_id=service.run_id,
            job_id=service.job_id,
            number=service.attempt.number,
            stopped=stopped,
            reason=reason,
        )
    )


def find(state: State, selector: str) -> list[Service]:
    """What a selector means: one instance; else all of one job of a run, of a name, of a job's id."""
    up = list(state.services.values())
    for meant in (
        [one for one in up if INSTANCE_MARK in selector and selector in _exact_names(one)],
        [one for one in up if selector in _exact_names(one, one.base or one.job_id)],
        [one for one in up if selector == one.name],
        [one for one in up if selector in (one.job_id, one.base)],
    ):
        if meant:
            return meant
    return []


def _exact_names(service: Service, job_id: str = "") -> tuple[str, str]:
    job_id = job_id or service.job_id
    return f"{service.run_id}/{job_id}", f"{service.run_alias}/{job_id}"


def meant(draft: Draft, origin: Origin, selector: str) -> list[Service]:
    """The instances of the one service that is meant; none when that has been refused."""
    found = find(draft.state, selector)
    quoted = repr(selector[:_QUOTED_CHARS])
    if not found:
        draft.refuse(
            origin,
            ErrorCode.NOT_FOUND,
            (
                f"no service is called {quoted}; `titan ps` lists those that are up, "
                "and one that is still starting ends when its run is cancelled"
            ),
        )
        return []
    # Two of one name are one service, of which a run is replacing what another has left.
    if len({service.name for service in found}) > 1:
        names = ", ".join(dict.fromkeys(_exact_names(one, one.base)[1] for one in found))
        draft.refuse(
            origin,
            ErrorCode.CONFLICT,
            f"{quoted} may be any of {names}: name one of them",
            details={"candidates": names},
        )
        return []
    return found


def stop_service(draft: Draft, origin: Origin, request: StopService) -> None:
    """A person wants it down, all of it. Asking twice repeats the order."""
    found = meant(draft, origin, request.service)
    for service in found:
        stop(draft, service)
    if found:
        draft.reply(origin, queries.service_view(found[0]))


def stop(draft: Draft, service: Service, why: str = "") -> None:
    """End one instance: at once, where it is nowhere."""
    if not service.attempt.is_live:
        _end(draft, service, ExitReason.STOPPED, stopped=True)
        return
    if service.state is not ServiceState.STOPPING:
        draft.emit(
            ServiceStopping(
                at_ms=draft.now_ms, run_id=service.run_id, job_id=service.job_id, why=why
            )
        )
    order_stop(draft, service)


def order_stop(draft: Draft, service: Service) -> None:
    """Send the stop order, at first and whenever its worker comes back without having obeyed."""
    ref = AttemptRef(service.run_id, service.job_id, service.attempt.number)
    draft.stop(service.attempt.worker_id, ref, ExitReason.STOPPED)
