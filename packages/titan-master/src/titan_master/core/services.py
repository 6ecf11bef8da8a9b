"""Services once their job has settled: coming up, being started again, being stopped, going down.

Their worker starts them again, by itself; one whose worker is lost or has given it up stays down in
this version. Called by ``lifecycle`` and ``asking``.
"""

from __future__ import annotations

from typing import Final

from titan_master.core import queries
from titan_master.core.events import (
    AttemptEnded,
    ServiceChanged,
    ServiceEnded,
    ServiceStopping,
    ServiceUp,
)
from titan_master.core.inputs import Origin
from titan_master.core.state import Job, Run, Service, State
from titan_master.core.turn import Draft
from titan_proto.errors import ErrorCode
from titan_proto.ids import AttemptRef
from titan_proto.limits import JOB_ID_CHARS, NAME_CHARS
from titan_proto.messages import StopService
from titan_proto.messages.worker import AttemptReport
from titan_proto.states import ExitReason, ServiceState

_QUOTED_CHARS: Final = NAME_CHARS + 1 + JOB_ID_CHARS
"""No name is longer; what was asked for may be."""


def come_up(draft: Draft, run: Run, job: Job, report: AttemptReport) -> None:
    """It is healthy for the first time: from now on an object of the cluster."""
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


def go_down(draft: Draft, service: Service, event: AttemptEnded) -> None:
    """Its attempt has ended, as ordered or not."""
    draft.emit(
        ServiceEnded(
            at_ms=draft.now_ms,
            run_id=service.run_id,
            job_id=service.job_id,
            number=event.number,
            stopped=service.state is ServiceState.STOPPING,
            reason=event.reason,
        )
    )


def find(state: State, selector: str) -> list[Service]:
    """The services that a selector means: exactly one job of one run, else by name, else by id."""
    up = list(state.services.values())
    for meant in (
        [one for one in up if selector in _exact_names(one)],
        [one for one in up if selector == one.name],
        [one for one in up if selector == one.job_id],
    ):
        if meant:
            return meant
    return []


def _exact_names(service: Service) -> tuple[str, str]:
    return (
        f"{service.run_id}/{service.job_id}",
        f"{service.run_alias}/{service.job_id}",
    )


def stop_service(draft: Draft, origin: Origin, request: StopService) -> None:
    """A person wants it down. Asking twice repeats the order."""
    meant = find(draft.state, request.service)
    if not meant:
        draft.refuse(
            origin,
            ErrorCode.NOT_FOUND,
            (
                f"no service is called {request.service[:_QUOTED_CHARS]!r}; `titan ps` lists those that are up, "
                "and one that is still starting ends when its run is cancelled"
            ),
        )
        return
    if len(meant) > 1:
        names = ", ".join(_exact_names(service)[1] for service in meant)
        draft.refuse(
            origin,
            ErrorCode.CONFLICT,
            f"{request.service[:_QUOTED_CHARS]!r} may be any of {names}: name one of them",
            details={"candidates": names},
        )
        return
    _stop(draft, meant[0])
    draft.reply(origin, queries.service_view(meant[0]))


def _stop(draft: Draft, service: Service) -> None:
    if service.state is not ServiceState.STOPPING:
        draft.emit(
            ServiceStopping(at_ms=draft.now_ms, run_id=service.run_id, job_id=service.job_id)
        )
    order_stop(draft, service)


def order_stop(draft: Draft, service: Service) -> None:
    """Send the stop order, at first and whenever its worker comes back without having obeyed."""
    ref = AttemptRef(service.run_id, service.job_id, service.attempt.number)
    draft.stop(service.attempt.worker_id, ref, ExitReason.STOPPED)
