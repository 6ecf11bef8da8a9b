"""What can be done from a page: first what will happen is said, then it is done, then what came of it is said.

Each action is a page of its own that asks (so that it works without a script), and a form that does it once:
what would be done twice by being sent twice carries a key. The master decides what may be done.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from flask import Flask, abort, g, redirect, render_template, request
from msgspec import Struct
from werkzeug.wrappers import Response

from titan_dashboard.auth import Sessions
from titan_dashboard.link import Kind, Master, Trouble
from titan_dashboard.pages import Look
from titan_dashboard.words import mark
from titan_proto.messages import (
    CancelRun,
    DecideGate,
    GetJob,
    GetRun,
    GetStats,
    ListServices,
    RerunRun,
    RestartService,
    ServiceView,
    ShutDownWorker,
    SpawnWorker,
    StopJob,
    StopService,
    WorkerView,
)
from titan_proto.states import RUN_TERMINAL, RunState

Form = Mapping[str, str]
_PORT_MAX: Final = 65_535


class Field(Struct, frozen=True, kw_only=True):
    """Something that a person may add."""

    name: str
    label: str
    kind: str = "text"
    value: str = ""
    required: bool = False


class Choice(Struct, frozen=True, kw_only=True):
    """One of several ways to do it."""

    value: str
    label: str


class Plan(Struct, frozen=True, kw_only=True):
    """What will happen, before it does."""

    title: str
    says: Sequence[str]
    back: str
    """The page that it is about."""
    button: str
    danger: bool = False
    fields: Sequence[Field] = ()
    choices: Sequence[Choice] = ()
    keyed: bool = False


class Done(Struct, frozen=True, kw_only=True):
    """What came of it, and where that is to be seen."""

    says: str
    path: str


class Action(Struct, frozen=True, kw_only=True):
    """Something that can be done to something."""

    plan: Callable[[Look, str], Plan]
    do: Callable[[Look, str, Form], Done]


def _jobs(number: int, what: str) -> str:
    return f"{number} {what} job{'s' if number != 1 else ''}"


# -- runs -----------------------------------------------------------------------------------------


def _plan_cancel(look: Look, run: str) -> Plan:
    view = look.ask(GetRun(run=run))
    path = f"/runs/{view.run_id}"
    if view.state in RUN_TERMINAL:
        raise Trouble(Kind.CONFLICT, f"{view.alias} has ended already: {mark(view.state).word}.")
    going = sum(view.counts.get(state, 0) for state in ("RUNNING", "PLACED"))
    rest = sum(
        view.counts.get(state, 0)
        for state in ("QUEUED", "BLOCKED", "SCHEDULED", "BACKOFF", "WAITING")
    )
    return Plan(
        title=f"Cancel {view.alias}?",
        says=(
            f"{_jobs(going, 'running')} will be stopped, {_jobs(rest, 'waiting')} will not start.",
            "What has succeeded stays as it is; the run can be run again later.",
        ),
        back=path,
        button="Cancel the run",
        danger=True,
    )


def _cancel(look: Look, run: str, form: Form) -> Done:
    del form
    view = look.ask(CancelRun(run=run))
    how = "is cancelled" if view.state is RunState.CANCELLED else "is being cancelled"
    return Done(says=f"{view.alias} {how}.", path=f"/runs/{view.run_id}")


def _plan_rerun(look: Look, run: str) -> Plan:
    view = look.ask(GetRun(run=run))
    if view.state not in RUN_TERMINAL:
        raise Trouble(Kind.CONFLICT, f"{view.alias} goes on: wait for its end, or cancel it first.")
    choices = [Choice(value="all", label=f"all {view.jobs} jobs")]
    if view.state is not RunState.SUCCEEDED:
        left = view.jobs - view.counts.get("SUCCEEDED", 0)
        label = f"only what did not succeed: {_jobs(left, '').replace('  ', ' ')}"
        choices.insert(0, Choice(value="failed", label=label))
    return Plan(
        title=f"Run {view.alias} again?",
        says=("A new run is made of it; this one stays as it is.",),
        back=f"/runs/{view.run_id}",
        button="Run again",
        choices=choices,
        keyed=True,
    )


def _rerun(look: Look, run: str, form: Form) -> Done:
    failed = form.get("choice") == "failed"
    receipt = look.ask(RerunRun(key=form.get("key", ""), run=run, failed=failed))
    return Done(says=f"Submitted as {receipt.alias}.", path=f"/runs/{receipt.run_id}")


def _job_of(target: str) -> tuple[str, str]:
    run, slash, job = target.partition("/")
    if not slash:
        raise Trouble(Kind.MISSING, f"{target[:100]!r} names no job: expected RUN/JOB.")
    return run, job


def _plan_stop_job(look: Look, target: str) -> Plan:
    run, job = _job_of(target)
    view = look.ask(GetJob(run=run, job=job))
    name = f"{view.run_alias}/{view.job_id}"
    return Plan(
        title=f"Stop {name}?",
        says=(
            (
                f"It is {mark(view.state).word}. It will be cancelled, and so will what depends on it; "
                "the other jobs of the run go on."
            ),
        ),
        back=f"/runs/{view.run_id}/jobs/{view.job_id}",
        button="Stop the job",
        danger=True,
    )


def _stop_job(look: Look, target: str, form: Form) -> Done:
    del form
    run, job = _job_of(target)
    view = look.ask(StopJob(run=run, job=job))
    return Done(
        says=f"{view.job_id} is {mark(view.state).word}.",
        path=f"/runs/{view.run_id}/jobs/{view.job_id}",
    )


def _plan_decide(look: Look, target: str, *, approve: bool) -> Plan:
    run, job = _job_of(target)
    view = look.ask(GetJob(run=run, job=job))
    if view.gate is None:
        raise Trouble(Kind.CONFLICT, f"{view.run_alias}/{view.job_id} asks nobody anything.")
    goes = "What waits for it begins." if approve else "What waits for it is skipped."
    return Plan(
        title=f"{'Approve' if approve else 'Reject'} {view.run_alias}/{view.job_id}?",
        says=(f"It asks: {view.gate.message}" if view.gate.message else "It asks nothing.", goes),
        back=f"/runs/{view.run_id}",
        button="Approve" if approve else "Reject",
        danger=not approve,
        fields=(Field(name="comment", label="Comment"),),
    )


def _decide(look: Look, target: str, form: Form, *, approve: bool) -> Done:
    comment = form.get("comment", "").strip()
    view = look.ask(DecideGate(gate=target, approve=approve, comment=comment))
    how = "approved" if approve else "rejected"
    return Done(says=f"{view.job_id} is {how}.", path=f"/runs/{view.run_id}")


# -- services -------------------------------------------------------------------------------------


def _instances(look: Look, name: str) -> list[ServiceView]:
    up = [one for one in look.ask(ListServices()).services if one.name == name]
    if not up:
        raise Trouble(Kind.MISSING, f"No service is called {name[:200]!r}; it may have ended.")
    return up


def _plan_stop_service(look: Look, name: str) -> Plan:
    up = _instances(look, name)
    where = ", ".join(one.worker or "waiting for a worker" for one in up)
    return Plan(
        title=f"Stop {name}?",
        says=(f"{len(up)} of it ({where}) will be told to end, and will not be started again.",),
        back="/services",
        button="Stop the service",
        danger=True,
    )


def _stop_service(look: Look, name: str, form: Form) -> Done:
    del form
    view = look.ask(StopService(service=name))
    return Done(says=f"{view.name} is {mark(view.state).word}.", path="/services")


def _plan_restart_service(look: Look, name: str) -> Plan:
    up = _instances(look, name)
    return Plan(
        title=f"Replace {name}?",
        says=(
            (
                f"Each of its {len(up)} instance{'s' if len(up) != 1 else ''} is replaced by a new one, "
                "and goes once that is healthy."
            ),
        ),
        back="/services",
        button="Restart the service",
    )


def _restart_service(look: Look, name: str, form: Form) -> Done:
    del form
    look.ask(RestartService(service=name))
    return Done(says=f"{name} is being replaced.", path="/services")


# -- workers --------------------------------------------------------------------------------------


def _worker(look: Look, name: str) -> WorkerView:
    for one in look.ask(GetStats()).workers:
        if name in {one.worker_id, str(one.port), f"{one.host}:{one.port}"}:
            return one
    raise Trouble(Kind.MISSING, f"There is no worker {name[:100]!r}.")


def _plan_drain(look: Look, name: str) -> Plan:
    view = _worker(look, name)
    tasks = max(0, view.used - len(view.services))
    return Plan(
        title=f"Drain worker {view.host}:{view.port}?",
        says=(
            "It gets nothing new, and ends when it has nothing left.",
            (
                f"{_jobs(tasks, 'running')} may end in the time that it was started with; "
                "what does not is queued again, and not blamed."
            ),
            f"{len(view.services)} services are started elsewhere first, where there is room.",
        ),
        back=f"/workers/{view.host}:{view.port}",
        button="Drain the worker",
        danger=True,
    )


def _drain(look: Look, name: str, form: Form) -> Done:
    del form
    view = look.ask(ShutDownWorker(worker=name)).worker
    return Done(says=f"{view.host}:{view.port} has been told to leave.", path="/workers")


def _plan_launch(look: Look, near: str) -> Plan:
    workers = look.ask(GetStats()).workers
    taken = {one.port for one in workers}
    free = next(port for port in range(8080, _PORT_MAX) if port not in taken)
    says = "A worker that is here starts another one beside itself. It stays until it is drained."
    return Plan(
        title="Launch a worker?",
        says=(says,),
        back=f"/workers/{near}" if near else "/workers",
        button="Launch a worker",
        fields=(
            Field(
                name="port", label="Name (a port)", kind="number", value=str(free), required=True
            ),
        ),
    )


def _launch(look: Look, near: str, form: Form) -> Done:
    text = form.get("port", "")
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= _PORT_MAX):
        raise Trouble(Kind.CONFLICT, f"{text[:20]!r} is no port: expected 1 to {_PORT_MAX}.")
    ordered = look.ask(SpawnWorker(port=int(text), parent=near))
    return Done(says=f"{ordered.parent} is starting [{ordered.port}].", path="/workers")


ACTIONS: Final[Mapping[str, Action]] = {
    "cancel": Action(plan=_plan_cancel, do=_cancel),
    "rerun": Action(plan=_plan_rerun, do=_rerun),
    "stop-job": Action(plan=_plan_stop_job, do=_stop_job),
    "approve": Action(
        plan=lambda look, target: _plan_decide(look, target, approve=True),
        do=lambda look, target, form: _decide(look, target, form, approve=True),
    ),
    "reject": Action(
        plan=lambda look, target: _plan_decide(look, target, approve=False),
        do=lambda look, target, form: _decide(look, target, form, approve=False),
    ),
    "stop-service": Action(plan=_plan_stop_service, do=_stop_service),
    "restart-service": Action(plan=_plan_restart_service, do=_restart_service),
    "drain": Action(plan=_plan_drain, do=_drain),
    "launch": Action(plan=_plan_launch, do=_launch),
}


def install(app: Flask, master: Master, sessions: Sessions) -> None:
    """Add the routes."""

    @app.get("/do/<action>")
    def ask(action: str) -> str:
        known = ACTIONS.get(action) or abort(404)
        target = request.args.get("target", "")
        plan = known.plan(Look(master, g.session.who), target)
        return render_template(
            "confirm.html",
            plan=plan,
            action=action,
            target=target,
            key=f"dashboard-{secrets.token_hex(16)}",
        )

    @app.post("/do/<action>")
    def do(action: str) -> Response:
        known = ACTIONS.get(action) or abort(404)
        target = request.form.get("target", "")
        done = known.do(Look(master, g.session.who), target, request.form)
        sessions.tell(g.session, done.says)
        return redirect(done.path, 303)
