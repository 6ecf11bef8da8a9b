"""Instances of a service: how many there are, and which takes whose place.

A replacement is queued beside what it replaces, which goes only once the new one is healthy. Only where a
fixed port leaves no worker for both does the old one go first, and its event says so. A later run of the
same name takes over what an earlier one has left: kept where it is defined alike, replaced where it is not.
Called by ``lifecycle``, ``admission`` and ``asking``.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from titan_master.core import conditions, filling, queries, services
from titan_master.core.events import ServiceAdded
from titan_master.core.inputs import Origin
from titan_master.core.state import Job, Run, Service, State
from titan_master.core.turn import Draft
from titan_proto.errors import ErrorCode
from titan_proto.ids import instance_id
from titan_proto.limits import REPLICAS
from titan_proto.messages import RestartService, ScaleService, ServiceList
from titan_proto.specs import JobKind, JobSpec
from titan_proto.states import ServiceState


# -- more and fewer -------------------------------------------------------------------------------
def add_replicas(draft: Draft, service: Service) -> None:
    """The first instance has come up for the first time: the others may follow."""
    section = None if service.spec is None else service.spec.service
    for _ in range(1, 1 if section is None else section.replicas):
        _add(draft, service)


def replace_one(draft: Draft, service: Service, *, why: str) -> None:
    """One instance is to come up anew, where it has not failed; it goes once that is healthy."""
    _add(draft, service, replaces=service.job_id, avoid=service.avoid, why=why)


def _add(
    draft: Draft,
    like: Service,
    *,
    replaces: str = "",
    avoid: tuple[str, ...] = (),
    why: str = "",
) -> None:
    number = like.made + 1
    draft.emit(
        ServiceAdded(
            at_ms=draft.now_ms,
            run_id=like.run_id,
            job_id=instance_id(like.base, number),
            of=like.job_id,
            number=number,
            replaces=replaces,
            avoid=avoid,
            why=why,
        )
    )


def scale(draft: Draft, origin: Origin, request: ScaleService) -> None:
    """A person wants so many instances: the newest go first."""
    if not 1 <= request.replicas <= REPLICAS:
        draft.refuse(
            origin,
            ErrorCode.LIMIT_EXCEEDED,
            f"a service has 1 to {REPLICAS} (REPLICAS) instances, not {request.replicas}; "
            "`titan stop` ends it",
        )
        return
    found = services.meant(draft, origin, request.service)
    if not found:
        return
    wanted = [one for one in found if _stays(draft, one)]
    if not wanted:
        text = f"{found[0].name} is being stopped: run its pipeline again to have it back"
        draft.refuse(origin, ErrorCode.CONFLICT, text)
        return
    for _ in range(len(wanted), request.replicas):
        _add(draft, wanted[0])
    for one in wanted[request.replicas :]:
        services.stop(draft, one, why=f"scaled to {request.replicas}")
    _reply(draft, origin, wanted[0])


def _stays(draft: Draft, service: Service) -> bool:
    """Whether it counts as one of those there are to be: not on its way out, nor to be replaced."""
    return (
        service.state is not ServiceState.STOPPING
        and service.spec is not None
        and services.replacement_of(draft.state, service) is None
    )


def restart(draft: Draft, origin: Origin, request: RestartService) -> None:
    """A person wants every instance anew: each goes once its replacement is healthy."""
    found = services.meant(draft, origin, request.service)
    if not found:
        return
    for one in found:
        # What is nowhere comes up anew anyway.
        is_new = bool(conditions.replaced_by(draft.state, one)) or not one.attempt.is_live
        if _stays(draft, one) and not is_new:
            _add(draft, one, replaces=one.job_id)
            instance = draft.state.instances[one.run_id, instance_id(one.base, one.made)]
            make_way(draft, instance.spec, [one])
    _reply(draft, origin, found[0])


def _reply(draft: Draft, origin: Origin, service: Service) -> None:
    group = (one for one in draft.state.services.values() if one.name == service.name)
    views = queries.service_views(draft.state, draft.roster, group)
    draft.reply(origin, ServiceList(services=views))


# -- in place of another --------------------------------------------------------------------------
def came_up(draft: Draft, service: Service) -> None:
    """It is healthy, as it was not before: what it replaces is not needed any more."""
    others = conditions.left_by_others(draft.state, service.name, service.run_id)
    for old in (*conditions.replaced_by(draft.state, service), *others):
        if old.state is not ServiceState.STOPPING:
            services.stop(draft, old, why=f"replaced by {service.run_alias}/{service.job_id}")


def is_kept(draft: Draft, run: Run, job: Job) -> str:
    """Whether the service that this job asks for is there, healthy and defined alike: then, whose."""
    if job.spec.kind is not JobKind.SERVICE:
        return ""
    left = conditions.left_by_others(draft.state, f"{run.name}/{job.spec.id}", run.run_id)
    if not left:
        return ""
    try:
        spec = filling.on_its_own(run, job)
    except filling.Missing:
        return ""  # placement says what is missing
    for one in left:
        is_well = one.state is ServiceState.HEALTHY
        same = one.workspace == run.workspace and _definition(one.spec) == _definition(
            _named(spec, one.job_id)
        )
        if is_well and same:
            return one.run_alias
    make_way(draft, spec, left)
    return ""


def _definition(spec: JobSpec | None) -> JobSpec | None:
    """What a service is, whenever it was to begin."""
    if spec is None or not (spec.delay_ms or spec.launch.at_ms):
        return spec
    return replace(spec, delay_ms=0, launch=replace(spec.launch, at_ms=0))


def _named(spec: JobSpec, job_id: str) -> JobSpec:
    return spec if spec.id == job_id else replace(spec, id=job_id)


def make_way(
    draft: Draft, spec: JobSpec, old: Iterable[Service], *, avoid: tuple[str, ...] = ()
) -> None:
    """Where a replacement cannot be beside what it replaces, that goes first.

    It cannot where it is exclusive, or where a fixed port leaves no worker for both, of those that it
    has not come to `avoid`.
    """
    if spec.exclusive:
        for one in list(old):
            if one.state is not ServiceState.STOPPING:
                services.stop(draft, one, why="it is exclusive: its replacement waits for its end")
        return
    port = 0 if spec.service is None else spec.service.port
    if not port:
        return
    places = services.places_for(draft.state, spec, avoid)
    if any(conditions.holder_of(draft.state, worker, port) is None for worker in places):
        return
    for one in old:
        holders = (conditions.holder_of(draft.state, worker, port) for worker in places)
        is_in_the_way = (one.run_id, one.job_id) in holders
        if is_in_the_way and one.state is not ServiceState.STOPPING:
            why = f"no other worker can have port {port} for its replacement"
            services.stop(draft, one, why=why)
            return


def port_taken(state: State, run: Run, job: Job) -> str:
    """Who has the job's fixed port on every worker that could have it, in words; empty if it may wait."""
    port = 0 if job.spec.service is None else job.spec.service.port
    places = services.places_for(state, job.spec)
    holders = [conditions.holder_of(state, worker, port) for worker in places]
    names = []
    for key in holders:
        service = None if key is None else state.services.get(key)
        is_going = service is not None and service.state is ServiceState.STOPPING
        if key is None or is_going:
            return ""
        holder_run = state.runs.get(key[0])
        if service is not None:
            name = service.name
        elif holder_run is not None:
            name = f"{holder_run.name}/{key[1]}"
        else:
            return ""
        if name == f"{run.name}/{job.spec.id}":
            return ""  # which makes way for it
        names.append(name)
    if not names:
        return ""
    who = ", ".join(dict.fromkeys(names))
    return f"port {port} is that of {who} on every worker that could have it"
