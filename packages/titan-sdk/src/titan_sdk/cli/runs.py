"""`titan run`, `submit`, `dag`, `cancel`, `retry`, `stop`: what changes something."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from titan_proto.errors import NotFound
from titan_proto.messages import JobView
from titan_proto.states import JobState, RunState
from titan_sdk.cli import render
from titan_sdk.cli.context import (
    Duration,
    Moment,
    Names,
    Settings,
    emit,
    emit_line,
    output_option,
    params_option,
    say,
    values_of,
    write,
)
from titan_sdk.cli.failures import CANCELLED, FAILED, INTERRUPTED, USAGE, Failure
from titan_sdk.cli.logs import put_lines
from titan_sdk.cli.look import did_you_mean, suggesting_runs
from titan_sdk.cli.progress import shown
from titan_sdk.cli.sanitize import clean
from titan_sdk.cli.stalls import explained
from titan_sdk.reasons import never_started
from titan_sdk.scripts import is_absent, what_instead

if TYPE_CHECKING:
    from titan_proto.messages import RunView
    from titan_sdk.client import TitanClient
    from titan_sdk.run import Run

_TAIL_LINES = 10


@click.command()
@click.argument("file")
@click.argument("args", nargs=-1)
@click.option("--wait", is_flag=True, help="Wait for the end; exit 1 if it failed, 8 if cancelled.")
@click.option("--follow", is_flag=True, help="Print the logs as they come, and wait for the end.")
@click.option(
    "--timeout", type=Duration(), help="With --wait: give up waiting after this (exit 6)."
)
@click.option("--name", help="Name of the run. Default: the pipeline's name, or the script's.")
@click.option(
    "--env", "env", multiple=True, type=Names(), help="KEY=VALUE for every job; may be repeated."
)
@click.option(
    "--env-file",
    "env_file",
    multiple=True,
    metavar="PATH",
    help="KEY=VALUE lines for every job; may be repeated. --env wins over them.",
)
@params_option
@click.option(
    "--in", "delay", type=Duration(), help="Begin after this, instead of at once: 10m, 1h30m."
)
@click.option(
    "--at",
    type=Moment(),
    help="Begin at this time: 08:30, '2026-12-01 08:30' (of this machine's zone), or with a zone.",
)
@output_option
@click.pass_obj
def run(
    settings: Settings,
    file: str,
    args: tuple[str, ...],
    *,
    wait: bool,
    follow: bool,
    timeout: float | None,
    name: str | None,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    params: tuple[str, ...],
    delay: float | None,
    at: str | None,
    output: str,
) -> None:
    """Run FILE: a pipeline (.yaml, .yml) with its folder, or a script.

    A script that is not here is looked for by its name in the master's perm_files. The run's alias
    is printed on stdout. ARGS go to the script; write -- before those that begin with a dash.

    \b
    Examples:
      titan run hello.py
      titan run pipeline.yaml --follow -p day=2026-11-26
      titan run train.py --wait --env STAGE=test -- --epochs 3
      titan run cleanup.py --in 2h
    """  # noqa: D301 - click reads the backspace
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait.")
    if delay is not None and at is not None:
        raise click.UsageError("--in and --at both say when it begins: give one of them.")
    variables = dict(pair.split("=", 1) for pair in env)
    when = {"at": at, "delay": delay, "params": values_of(params)}
    with settings.client() as client:
        handle = _submit(client, file, args, name, variables, env_file, when)
        _see(settings, client, handle, wait=wait, follow=follow, timeout=timeout, output=output)


@click.command()
@click.argument("skill")
@click.argument("data", nargs=-1)
@click.option("--wait", is_flag=True, help="Wait for the end; exit 1 if it failed, 8 if cancelled.")
@click.option("--follow", is_flag=True, help="Print the log as it comes, and wait for the end.")
@click.option("--name", help="Name of the run. Default: the skill's.")
@output_option
@click.pass_obj
def submit(
    settings: Settings,
    skill: str,
    data: tuple[str, ...],
    *,
    wait: bool,
    follow: bool,
    name: str | None,
    output: str,
) -> None:
    """Hand DATA to the handler that a worker registered for SKILL.

    A worker registers it by `titan-worker --handler SKILL=PATH`: PATH is run there with DATA as its one
    argument; several words of DATA are joined by blanks. The run's alias is printed on stdout.

    \b
    Examples:
      titan submit pdf_convert report.html
      titan submit pdf_convert report.html --follow
    """  # noqa: D301 - click reads the backspace
    from titan_sdk.client import job_id_for
    from titan_sdk.jobs import TitanJob

    job = TitanJob(id=job_id_for(skill), handler=skill, args=[" ".join(data)] if data else None)
    with settings.client() as client:
        handle = client.submit(name or skill, [job])
        _see(settings, client, handle, wait=wait, follow=follow, output=output)


@click.command()
@click.argument("dag_string")
@click.option("--wait", is_flag=True, help="Wait for the end; exit 1 if it failed, 8 if cancelled.")
@click.option("--follow", is_flag=True, help="Print the logs as they come, and wait for the end.")
@click.option("--name", default="dag", show_default=True, help="Name of the run.")
@output_option
@click.pass_obj
def dag(
    settings: Settings, dag_string: str, *, wait: bool, follow: bool, name: str, output: str
) -> None:
    """Run the jobs of a raw DAG string; - reads it from stdin.

    One job is  id | skill | RUN_PAYLOAD | file | content | priority | delay | [parents];  a semicolon
    stands between two. The content is the script in base64, or empty for a file that is here or in the
    master's perm_files. A backslash takes a character as it is. The run's alias is printed on stdout.

    \b
    Examples:
      titan dag "A|GENERAL|RUN_PAYLOAD|a.py||5|0|[] ; B|GENERAL|RUN_PAYLOAD|b.py||5|0|[A]"
      titan dag - < graph.txt
    """  # noqa: D301 - click reads the backspace
    text = sys.stdin.read() if dag_string == "-" else dag_string
    with settings.client() as client:
        handle = client.submit_dag(text, name=name)
        _see(settings, client, handle, wait=wait, follow=follow, output=output)


@click.command()
@click.argument("run", default="@last")
@output_option
@click.pass_obj
def watch(settings: Settings, run: str, *, output: str) -> None:
    """Watch RUN go, job by job, until it ends; without RUN the newest one.

    Exits as the run does: 1 if it failed, 8 if it was cancelled. Ctrl-C detaches, the run goes on. With -o
    json each change is one line.

    \b
    Examples:
      titan watch
      titan watch nightly-1
      titan watch nightly-1 -o json
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        with suggesting_runs(client, run):
            handle = client.run(run)
        try:
            if output == "json":
                for change in client.watch(handle):
                    emit_line("JobChange", render.change_json(change))
                view = client.view(handle)
            else:
                with shown(client, handle.id, color=settings.color, as_tree=True):
                    view = client.wait(handle)
        except KeyboardInterrupt:
            say(
                f"\nDetached. Run {handle.alias} goes on.  "
                f"titan watch {handle.alias}   titan cancel {handle.alias}"
            )
            raise click.exceptions.Exit(INTERRUPTED) from None
        _conclude(client, view, quiet=output == "json", was_followed=False)


@click.command()
@click.argument("run")
@output_option
@click.pass_obj
def cancel(settings: Settings, run: str, *, output: str) -> None:
    """End RUN: nothing new of it starts, what runs is stopped. Services that are up stay up.

    \b
    Examples:
      titan cancel nightly-1
      titan cancel @last
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client, suggesting_runs(client, run):
        view = client.cancel(run)
    if output == "json":
        emit("Run", render.run_json(view))
    elif view.state is RunState.ACTIVE:
        say(f"Run {view.alias} is being cancelled.  titan ps {view.alias}")
    else:
        say(f"Run {view.alias} is {view.state}.")


@click.command()
@click.argument("run")
@click.option("--failed", is_flag=True, help="Only what did not succeed.")
@click.option(
    "--from", "from_job", metavar="JOB", help="JOB, all that hangs on it, and what did not succeed."
)
@click.option("--wait", is_flag=True, help="Wait for the end; exit 1 if it failed, 8 if cancelled.")
@output_option
@click.pass_obj
def retry(
    settings: Settings, run: str, *, failed: bool, from_job: str | None, wait: bool, output: str
) -> None:
    """Run RUN, which has ended, again: as a new run that names the old one.

    What is not run again is taken over as it ended: its state, its results, and the files in the
    run's shared folder. The new run's alias is printed on stdout.

    \b
    Examples:
      titan retry nightly-1
      titan retry nightly-1 --failed
      titan retry nightly-1 --from TRANSFORM --wait
    """  # noqa: D301 - click reads the backspace
    if failed and from_job:
        raise click.UsageError("--from takes what failed along; leave --failed out.")
    with settings.client() as client:
        with suggesting_runs(client, run):
            handle = client.rerun(run, failed=failed, from_job=from_job or "")
        if output != "json":
            write(handle.alias)
        if wait:
            try:
                with shown(client, handle.id, color=settings.color):
                    client.wait(handle)
            except KeyboardInterrupt:
                say(
                    f"\nDetached. Run {handle.alias} goes on.  "
                    f"titan ps {handle.alias}   titan cancel {handle.alias}"
                )
                raise click.exceptions.Exit(INTERRUPTED) from None
        view = client.view(handle)
        if output == "json":
            emit("Run", render.run_json(view))
        if wait:
            _conclude(client, view, quiet=output == "json", was_followed=False)


@click.command()
@click.argument("id")
@output_option
@click.pass_obj
def stop(settings: Settings, id: str, *, output: str) -> None:  # noqa: A002 - what the user types
    """Stop the service or the running job ID: a service's name, RUN/JOB, or a job's id.

    A service stays stopped. A job is CANCELLED, and what depends on it; the rest of its run goes on.

    \b
    Examples:
      titan stop Nightly-Data-Pipeline/DEPLOY_API
      titan stop DEPLOY_API
      titan stop nightly-7/TRANSFORM
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        try:
            view = client.stop(id)
        except NotFound as error:
            known = [name for one in client.services() for name in (one.name, one.job_id)]
            raise NotFound(f"{error.message}{did_you_mean(id, known)}") from error
    if isinstance(view, JobView):
        if output == "json":
            emit("Job", render.job_json(view))
        else:
            say(clean(f"Job {view.run_alias}/{view.job_id} is {view.state}."))
    elif output == "json":
        emit("Service", render.service_json(view))
    else:
        say(f"Service {clean(view.name)} is {view.state}.")


def _see(
    settings: Settings,
    client: TitanClient,
    handle: Run,
    *,
    wait: bool,
    follow: bool,
    timeout: float | None = None,
    output: str,
) -> None:
    """Tell what a submission came to, and stay for as long as was asked."""
    for notice in handle.notices:
        say(clean(f"note: {notice}"))
    if output != "json":
        # With --follow stdout is for the logs.
        (say if follow else write)(handle.alias)
    try:
        if follow:
            with explained(client, handle.id, _say_why):
                put_lines(client, client.view(handle), as_json=output == "json")
        elif wait:
            with shown(client, handle.id, color=settings.color):
                client.wait(handle, timeout)
        view = client.wait(handle) if follow or wait else client.view(handle)
    except KeyboardInterrupt:
        say(
            f"\nDetached. Run {handle.alias} goes on.  "
            f"titan logs -f {handle.alias}   titan cancel {handle.alias}"
        )
        raise click.exceptions.Exit(INTERRUPTED) from None
    if output == "json":
        emit("Run", render.run_json(view))
    if follow or wait:
        _conclude(client, view, quiet=output == "json", was_followed=follow)


def _submit(
    client: TitanClient,
    file: str,
    args: tuple[str, ...],
    name: str | None,
    env: dict[str, str],
    env_file: tuple[str, ...],
    when: dict[str, Any],
) -> Run:
    from titan_sdk.client import PIPELINE_SUFFIXES

    is_pipeline = file.lower().endswith(PIPELINE_SUFFIXES)
    if not file:
        raise click.UsageError("FILE is empty.")
    if is_pipeline and is_absent(Path(file)):
        raise Failure(f"{file}: there is no such file", USAGE)
    if is_pipeline and Path(file).is_symlink() and (what := what_instead(Path(file))):
        raise Failure(f"{file} is {what}", USAGE)
    if is_pipeline and args:
        raise click.UsageError("A pipeline takes no ARGS; its jobs have args of their own.")
    if os.path.isdir(file):  # noqa: PTH112 - a text that may be no path at all
        raise Failure(f"{file} is a folder; name a script or a pipeline in it", USAGE)
    try:
        return client.run_file(file, name=name, args=args, env=env, env_file=env_file, **when)
    except OSError as error:
        if error.filename is None:
            raise
        # What the user named cannot be opened; `titan validate` calls that a wrong file, too.
        raise Failure(f"{error.filename}: {error.strerror}", USAGE) from error


def _say_why(job: JobView, why: str) -> None:
    say(clean(f"{job.job_id} is {job.state}: {why}"))


def _conclude(client: TitanClient, view: RunView, *, quiet: bool, was_followed: bool) -> None:
    """Say how it ended, with the last lines of what failed, and leave with the run's code."""
    spent = render.duration(max(0, view.ended_at_ms - view.submitted_at_ms) / 1000)
    if not quiet:
        say(f"Run {view.alias} {view.state} in {spent}")
    if view.state is RunState.SUCCEEDED:
        return
    if view.state is RunState.CANCELLED:
        raise click.exceptions.Exit(CANCELLED)
    if not quiet:
        _why(client, view, was_followed=was_followed)
    raise click.exceptions.Exit(FAILED)


def _why(client: TitanClient, view: RunView, *, was_followed: bool) -> None:
    failed = [job for job in client.jobs(view.run_id) if job.state is JobState.FAILED]
    if not failed:
        return
    first = failed[0]
    how = render.outcome(first)
    # Of one that ran the last words stand in its log, which follows or was followed.
    say(f"{first.job_id} failed: {how if never_started(first) else render.first_line(how)}")
    if never_started(first):
        say(f"  more:  titan show {view.alias}/{first.job_id}{_others(failed)}")
        return
    if not was_followed:
        text = clean(b"".join(client.log_bytes(first)).decode("utf-8", "replace"))
        for line in text.splitlines()[-_TAIL_LINES:]:
            say(f"  | {line}")
    say(f"  more:  titan logs {view.alias}/{first.job_id}{_others(failed)}")


def _others(failed: list[JobView]) -> str:
    return f", and {len(failed) - 1} more failed" if len(failed) > 1 else ""
