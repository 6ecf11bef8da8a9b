"""`titan ps`, `titan show`, `titan stats`: what there is and how it goes."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from titan_proto.errors import Conflict, NotFound
from titan_proto.specs import JobKind, Shape, Trigger
from titan_proto.states import ExitReason, JobState
from titan_sdk.cli import render
from titan_sdk.cli.context import (
    ENDED_SHOWN,
    Settings,
    emit,
    has_color,
    is_unicode,
    limit_option,
    output_option,
    say,
    stdout_is_terminal,
    write,
)
from titan_sdk.cli.sanitize import clean
from titan_sdk.keys import named, nearest
from titan_sdk.reasons import never_started

if TYPE_CHECKING:
    from titan_proto.messages import (
        GateView,
        JobView,
        RunView,
        ServiceView,
        WorkerUsageView,
        WorkerView,
    )
    from titan_sdk.client import TitanClient

_VALUES_AT = 12
"""Where the values of a job's fields begin: its longest name, a colon and a blank before them."""
_OUTPUT_SHOWN_CHARS = 200
"""Of an output; JSON has all of it."""
_EXPLAINED = 5
"""Each costs the master a look at every worker; those behind them wait for the same."""


@click.command()
@click.argument("run", required=False)
@click.option("-a", "--all", "everything", is_flag=True, help="Ended runs too.")
@limit_option("With -a: at most so many runs and ended services, newest first.")
@output_option
@click.pass_obj
def ps(settings: Settings, run: str | None, *, everything: bool, limit: int, output: str) -> None:
    """List active runs and services; with RUN, the jobs of that run.

    \b
    Examples:
      titan ps
      titan ps -a
      titan ps nightly-1
      titan ps @last -o json
    """  # noqa: D301 - click reads the backspace
    look = look_of(settings)
    now_ms = int(time.time() * 1000)
    with settings.client() as client:
        if run is not None:
            with suggesting_runs(client, run):
                jobs = client.jobs(run)
            if output == "json":
                emit("JobList", {"items": [render.job_json(job) for job in jobs]})
                return
            print_table(render.jobs_table(_explained(client, jobs), look, now_ms), look)
            return
        runs = client.runs(ended=everything, limit=limit if everything else None)
        services = client.services(ended=everything, limit=limit)
    if output == "json":
        body = {
            "runs": [render.run_json(one) for one in runs],
            "services": [render.service_json(one) for one in services],
        }
        emit("ProcessList", body)
        return
    if runs:
        print_table(render.runs_table(runs, look, now_ms), look)
    if services:
        if runs:
            write("")
        print_table(render.services_table(services, look, now_ms), look)
    if not runs and not services:
        what = "Nothing has run yet." if everything else "Nothing runs."
        say(
            f"{what} Try:  titan run hello.py"
            + ("" if everything else "   (ended ones: titan ps -a)")
        )


@click.command()
@click.argument("id")
@output_option
@click.pass_obj
def show(settings: Settings, id: str, *, output: str) -> None:  # noqa: A002 - what the user types
    """Show all about one run, job (RUN/JOB), service or worker.

    A bare job id means that job of the newest run that has it.

    \b
    Examples:
      titan show nightly-1
      titan show nightly-1/EXTRACT
      titan show EXTRACT -o json
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        kind, body, text = _describe(client, id, look_of(settings))
    if output == "json":
        emit(kind, body)
    else:
        write(text)


@click.command()
@output_option
@click.pass_obj
def stats(settings: Settings, *, output: str) -> None:
    """Show the cluster at a glance: workers, their load, what waits.

    \b
    Examples:
      titan stats
      titan stats -o json
    """  # noqa: D301 - click reads the backspace
    _show_stats(settings, as_json=output == "json")


@click.command()
@click.pass_obj
def json(settings: Settings) -> None:
    """Print the cluster's state as JSON: the same as `titan stats -o json`.

    \b
    Example:
      titan json
    """  # noqa: D301 - click reads the backspace
    _show_stats(settings, as_json=True)


def _show_stats(settings: Settings, *, as_json: bool) -> None:
    with settings.client() as client:
        view = client.stats()
        traffic = client.traffic() if as_json else None
        usage = client.usage() if as_json else None
        scaling = client.scaling()
    if usage is not None:
        emit("Stats", render.stats_json(view, traffic, usage, scaling))
    else:
        write(render.stats_screen(view, symbols=is_unicode(), scaling=scaling))


@click.command()
@limit_option("At most so many, those of the newest run first.")
@output_option
@click.pass_obj
def dead(settings: Settings, *, limit: int, output: str) -> None:
    """List jobs that failed for good: their tries are spent, or they lost too many workers.

    \b
    Examples:
      titan dead
      titan dead -n 10 -o json
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        jobs = client.dead(limit)
    if output == "json":
        emit("JobList", {"items": [render.job_json(job) for job in jobs]})
        return
    if not jobs:
        say("No job has failed for good.")
        return
    look = look_of(settings)
    print_table(render.dead_table(jobs, look), look)
    first = jobs[0].run_alias
    say(f"\nRun again what failed:  titan retry {first} --failed   Its log:  titan logs RUN/JOB")


def look_of(settings: Settings) -> render.Look:
    """How to draw on stdout."""
    color = has_color(settings.color, terminal=stdout_is_terminal())
    return render.Look(symbols=is_unicode(), color=color)


def print_table(table: render.Table, look: render.Look) -> None:
    """A table; on a terminal it is narrowed to fit, and says so."""
    width = shutil.get_terminal_size().columns if stdout_is_terminal() else None
    text, dropped = table.text(look, width)
    # Not through `write`: click must not take the colours out that were asked for.
    click.echo(text, color=look.color or None)
    if dropped:
        say(f"(not shown for lack of width: {', '.join(dropped)}; -o json has them)")


def _explained(client: TitanClient, jobs: list[JobView]) -> list[JobView]:
    """The jobs, the first queued ones with what they wait for: a list does not say it."""
    queued = [n for n, job in enumerate(jobs) if job.state is JobState.QUEUED and not job.message]
    shown = list(jobs)
    for n in queued[:_EXPLAINED]:
        shown[n] = client.job(jobs[n].job_id, run=jobs[n].run_id)
    return shown


def find_job(client: TitanClient, name: str) -> JobView:
    """`RUN/JOB`, or a bare job id: that job of the newest run that has it."""
    run, slash, job = name.rpartition("/")
    if not slash:
        return client.job(name, run="")
    try:
        return client.job(job, run=run)
    except NotFound as error:
        with suggesting_runs(client, run):
            known = client.view(run)
        ids = [view.job_id for view in client.jobs(known.run_id)]
        raise NotFound(
            f"run {known.alias} has no job {named(job)}{did_you_mean(job, ids)}"
        ) from error


@contextlib.contextmanager
def suggesting_runs(client: TitanClient, name: str) -> Iterator[None]:
    """Where no run is called `name`, the error names the one that may be meant."""
    try:
        yield
    except NotFound as error:
        known = [run.alias for run in client.runs(ended=True, limit=ENDED_SHOWN)]
        raise NotFound(f"no run is called {named(name)}{did_you_mean(name, known)}") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error's sentence; empty if nothing is near."""
    meant = nearest(name, known)
    return f"; did you mean {meant}?" if meant else ""


def _describe(client: TitanClient, name: str, look: render.Look) -> tuple[str, dict[str, Any], str]:
    if "/" in name:
        return _slashed(client, name, look)
    several: Conflict | None = None
    try:
        return _run(client, client.view(name), look)
    except NotFound:
        pass
    except Conflict as error:
        several = error  # the beginning of several runs' names may be one job's whole name
    try:
        return _job(client, find_job(client, name), look)
    except NotFound:
        if several is not None:
            raise several from None
    stats = client.stats()
    for service in client.services(ended=True):
        if name in {service.name, service.job_id}:
            return _service(service, look)
    for worker in stats.workers:
        if name in {str(worker.port), f"{worker.host}:{worker.port}", worker.worker_id}:
            usage = client.usage(worker)
            return (
                "Worker",
                render.busy_worker_json(worker, usage),
                _worker(worker, render.usage_of(usage, worker), look),
            )
    known = [run.alias for run in client.runs(ended=True, limit=ENDED_SHOWN)]
    raise NotFound(
        f"no run, job, service or worker is called {named(name)}{did_you_mean(name, known)}"
    )


def _slashed(client: TitanClient, name: str, look: render.Look) -> tuple[str, dict[str, Any], str]:
    """`RUN/JOB`, or a service's name, which is made of the run's name instead of its alias."""
    try:
        return _job(client, find_job(client, name), look)
    except NotFound as error:
        services = client.services(ended=True)
        for service in services:
            if service.name == name:
                return _service(service, look)
        meant = did_you_mean(name, [service.name for service in services])
        if meant:
            raise NotFound(f"no job or service is called {named(name)}{meant}") from error
        raise


def _slot(run: RunView) -> str:
    """The schedule that began a run, and for when."""
    if run.fired is None:
        return ""
    asked = ", triggered" if run.fired.triggered else ""
    return f"{run.fired.schedule}, for {render.local_time(run.fired.slot_at_ms)}{asked}"


def _run(client: TitanClient, run: RunView, look: render.Look) -> tuple[str, dict[str, Any], str]:
    now_ms = int(time.time() * 1000)
    jobs = client.jobs(run.run_id)
    head = render.fields(
        [
            ("Run", run.alias),
            ("Id", run.run_id),
            ("Name", run.name),
            ("Repeats", run.rerun_of),
            ("Schedule", _slot(run)),
            ("State", look.state(run.state)),
            ("Submitted", render.local_time(run.submitted_at_ms)),
            ("Ended", render.local_time(run.ended_at_ms) if run.ended_at_ms else ""),
            ("Time", render.took(run.submitted_at_ms, run.ended_at_ms, now_ms)),
        ]
    )
    table, _ = render.jobs_table(jobs, look, now_ms).text(look, None)
    body = {**render.run_json(run), "items": [render.job_json(job) for job in jobs]}
    return "Run", body, f"{head}\n\n{table}\n\nLogs:  titan logs {run.alias}/JOB"


def _job(client: TitanClient, job: JobView, look: render.Look) -> tuple[str, dict[str, Any], str]:
    now_ms = int(time.time() * 1000)
    # A service settles as a job once it is healthy; whether it is still up is another matter.
    is_service = job.kind is JobKind.SERVICE
    services = client.services(ended=True, run=job.run_id) if is_service else []
    # An older master does not know that it was asked for one run's alone.
    its_own = [one for one in services if (one.run_id, one.job_id) == (job.run_id, job.job_id)]
    ended = job.reason is not ExitReason.UNKNOWN
    gate = job.gate
    open_until_ms = gate.expires_at_ms if gate is not None and is_open(gate) else 0
    printed = f"{job.stdout_bytes:,} bytes stdout, {job.stderr_bytes:,} bytes stderr"
    text = render.fields(
        [
            ("Job", job.job_id),
            ("Run", f"{job.run_alias} ({job.run_id})"),
            ("Type", str(job.kind)),
            ("State", look.state(job.state)),
            ("Service", ", ".join(_service_line(one, look) for one in its_own)),
            ("Attempt", str(job.attempt) if job.attempt else ""),
            ("Tries", render.tries(job)),
            ("Worker", job.worker),
            ("Port", str(job.port) if job.port else ""),
            ("Limits", render.limits_asked(job.resources)),
            ("Held by", _held_by(client, job)),
            ("Depends on", ", ".join(job.dependencies)),
            ("Cell of", _cell(job.shape)),
            ("Trigger", _trigger(job.shape)),
            ("When", clean(job.shape.when) if job.shape is not None else ""),
            ("Waits for", ", ".join(job.waits_for)),
            ("Started", render.local_time(job.started_at_ms) if job.started_at_ms else ""),
            ("Ended", render.local_time(job.ended_at_ms) if job.ended_at_ms else ""),
            ("Time", render.took(job.started_at_ms, job.ended_at_ms, now_ms)),
            ("Question", clean(gate.message) if gate else ""),
            ("Open until", render.local_time(open_until_ms) if open_until_ms else ""),
            ("Decided by", clean(gate.decided_by) if gate else ""),
            ("Comment", clean(gate.comment) if gate else ""),
            ("Outcome", render.outcome(job) if not is_open(gate) else ""),
            ("Outputs", _outputs(job.outputs, _VALUES_AT)),
            ("Printed", printed if ended and gate is None and not never_started(job) else ""),
        ]
    )
    name = f"{job.run_alias}/{job.job_id}"
    if is_open(gate):
        text += f"\n\nApprove it:  titan approve {name}\nReject it:   titan reject {name} -m WHY"
    elif gate is None and not never_started(job):
        text += f"\n\nLog:  titan logs {name}"
    return "Job", render.job_json(job), text


def _cell(shape: Shape | None) -> str:
    """Of a cell of a matrix: whose, and its values."""
    if shape is None or not shape.cell_of:
        return ""
    values = ", ".join(f"{key}={clean(value)}" for key, value in shape.cell.items())
    return f"{shape.cell_of}: {values}"


def _trigger(shape: Shape | None) -> str:
    """Which ends of its dependencies let it begin, where that is not the usual."""
    if shape is None or shape.trigger is Trigger.ALL_SUCCEEDED:
        return ""
    return str(shape.trigger).lower()


def _held_by(client: TitanClient, job: JobView) -> str:
    """What holds it to its limits where it is, or was; empty where that worker is not known any more."""
    if job.resources is None or not job.worker:
        return ""
    seen = next((one for one in client.usage().workers if one.name == job.worker), None)
    return render.limits_held(job.resources, seen.limits) if seen is not None else ""


def _outputs(outputs: Mapping[str, str], size: int) -> str:
    """Each on a line of its own, cut where it would be a page; `size`: how far they are set in."""
    lines = []
    for key, value in sorted(outputs.items()):
        more = f"… ({len(value):,} characters)" if len(value) > _OUTPUT_SHOWN_CHARS else ""
        lines.append(f"{key}={clean(value[:_OUTPUT_SHOWN_CHARS])}{more}")
    return f"\n{' ' * size}".join(lines)


def is_open(gate: GateView | None) -> bool:
    """Whether somebody has to decide about it now."""
    return gate is not None and gate.state is JobState.WAITING


def _service_line(service: ServiceView, look: render.Look) -> str:
    why = render.service_outcome(service)
    return f"{look.state(service.state)}, {clean(service.name)}" + (f", {why}" if why else "")


def _service(service: ServiceView, look: render.Look) -> tuple[str, dict[str, Any], str]:
    now_ms = int(time.time() * 1000)
    table, _ = render.services_table([service], look, now_ms).text(look, None)
    log = f"{service.run_alias}/{service.job_id}"
    text = f"{table}\n\nLog:      titan logs {log}"
    if not service.ended_at_ms:
        text += f"\nStop it:  titan stop {clean(service.name)}"
    return "Service", render.service_json(service), text


def _worker(worker: WorkerView, seen: WorkerUsageView | None, look: render.Look) -> str:
    down = render.worker_state(worker).removeprefix(str(worker.state))
    known = worker.memory_total_bytes > 0  # its first report comes with its first heartbeat
    return render.fields(
        [
            ("Worker", f"{worker.host}:{worker.port}"),
            ("Id", worker.worker_id),
            ("State", look.state(worker.state) + down),
            ("Slots", f"{worker.used} of {worker.slots} taken"),
            ("Skills", ", ".join(worker.skills)),
            ("CPU", f"{worker.cpu_permille / 10:.1f} %" if known else ""),
            ("Memory", render.memory(worker) if known else ""),
            *render.usage_fields(seen),
            ("Heard of", f"{render.duration(worker.seen_ms_ago / 1000)} ago"),
            ("Services", ", ".join(worker.services)),
            ("Software", worker.software),
        ]
    )
