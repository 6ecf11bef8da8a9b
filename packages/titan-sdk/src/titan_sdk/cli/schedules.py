"""`titan schedule`: what is run when, again and again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from titan_proto.errors import NotFound
from titan_sdk.cli import render
from titan_sdk.cli.context import (
    Moment,
    Names,
    Settings,
    emit,
    output_option,
    params_option,
    say,
    values_of,
    write,
)
from titan_sdk.cli.failures import CANCELLED, FAILED, INTERRUPTED
from titan_sdk.cli.look import did_you_mean, look_of, print_table
from titan_sdk.cli.progress import shown
from titan_sdk.cli.sanitize import clean

if TYPE_CHECKING:
    from titan_proto.messages import ScheduleView
    from titan_sdk.client import TitanClient

_PIPELINES: Final = (".yaml", ".yml")


@click.group()
def schedule() -> None:
    """Have something run again and again: add, list, show, pause, resume, trigger, remove."""


@schedule.command("add")
@click.argument("cron", metavar="[CRON]")
@click.argument("file", required=False, metavar="FILE")
@click.argument("args", nargs=-1)
@click.option("--name", help="Name of the schedule. Default: the pipeline's, or the script's.")
@click.option("--tz", "timezone", help="Time zone: an IANA name. Default: UTC.")
@click.option(
    "--overlap",
    metavar="[skip|queue|allow|replace]",
    help="While its last run goes on: skip (default), queue, allow or replace.",
)
@click.option(
    "--catchup",
    metavar="[none|latest|all]",
    help="What was missed: none (default), the latest, or all of it.",
)
@click.option("--catchup-window", metavar="DURATION", help="Nothing older. Default: 24h.")
@click.option("--jitter", metavar="DURATION", help="Begin up to so much later. Default: 0.")
@click.option("--start", type=Moment(past=True), help="Nothing before this time.")
@click.option("--end", type=Moment(), help="Nothing after this time.")
@click.option(
    "--pause-on-failure", is_flag=True, default=None, help="Pause once a run of it has failed."
)
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
@output_option
@click.pass_obj
def add(
    settings: Settings,
    /,
    cron: str,
    file: str | None,
    args: tuple[str, ...],
    *,
    name: str | None,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    params: tuple[str, ...],
    output: str,
    **policy: Any,
) -> None:
    """Run FILE, a pipeline with its folder or a script, at the times of CRON, from now on.

    CRON is five fields (minute, hour, day of month, month, day of week), a macro such as @daily, or
    "@every 5m". A pipeline may say all of that itself, under the key `schedule`; what is said here wins.
    ARGS go to a script; write -- before those that begin with a dash. A schedule of that name is
    replaced: files are taken as they are now, and runs that go on keep what they began with.

    \b
    Examples:
      titan schedule add "@every 5s" hello.py
      titan schedule add "30 2 * * *" nightly.yaml --tz America/New_York --catchup latest
      titan schedule add nightly.yaml
    """  # noqa: D301 - click reads the backspace
    when, what = _split(cron, file)
    variables = dict(pair.split("=", 1) for pair in env)
    with settings.client() as client:
        view = client.schedule_file(
            what,
            when,
            name=name,
            args=args,
            env=variables or None,
            env_file=env_file,
            params=values_of(params),
            **policy,
        )
    if output == "json":
        emit("Schedule", render.schedule_json(view))
        return
    write(clean(view.name))
    if view.known:
        say("Nothing has changed: it stays as it is.")
    elif view.version > 1:
        say(f"Replaced: this is version {view.version}.")
    say(clean(_story(view)))


def _split(cron: str, file: str | None) -> tuple[str | None, str]:
    """CRON and FILE; a pipeline may stand alone."""
    if file is not None:
        return cron, file
    if not cron.lower().endswith(_PIPELINES):
        raise click.UsageError(
            f"Say when and what: titan schedule add '30 2 * * *' {cron or 'FILE'}"
        )
    return None, cron


def _story(view: ScheduleView) -> str:
    if view.paused_at_ms:
        return f"It is paused.  titan schedule resume {view.name!r}"
    if not view.next_at_ms:
        return "It has no times to come."
    return f"{view.words}, {view.spec.zone}; next {render.local_time(view.next_at_ms[0])} here"


@schedule.command("ls")
@output_option
@click.pass_obj
def ls(settings: Settings, *, output: str) -> None:
    """List the schedules: when each fires next, and how its last run went.

    \b
    Example:
      titan schedule ls
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        found = client.schedules()
    if output == "json":
        emit("ScheduleList", {"items": [render.schedule_json(one) for one in found]})
    elif found:
        look = look_of(settings)
        print_table(render.schedules_table(found, look, int(time.time() * 1000)), look)
    else:
        say("There is no schedule.   titan schedule add '@hourly' hello.py")


@schedule.command("show")
@click.argument("name")
@output_option
@click.pass_obj
def show(settings: Settings, name: str, *, output: str) -> None:
    """Show the schedule NAME: its next times on both clocks, its policies, what goes on.

    \b
    Example:
      titan schedule show nightly
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client, _suggesting(client, name):
        view = client.find_schedule(name)
    _print(view, output)


@schedule.command("pause")
@click.argument("name")
@click.option("-m", "--message", default="", help="Why.")
@output_option
@click.pass_obj
def pause(settings: Settings, name: str, *, message: str, output: str) -> None:
    """Have the schedule NAME fire no more, until it is resumed. Runs that go on do so.

    \b
    Example:
      titan schedule pause nightly -m "the source is down"
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client, _suggesting(client, name):
        view = client.pause_schedule(name, message)
    if output == "json":
        emit("Schedule", render.schedule_json(view))
    else:
        say(clean(f"Schedule {view.name} is paused.  titan schedule resume {view.name!r}"))


@schedule.command("resume")
@click.argument("name")
@output_option
@click.pass_obj
def resume(settings: Settings, name: str, *, output: str) -> None:
    """Have the schedule NAME fire again. What came meanwhile is not caught up with.

    \b
    Example:
      titan schedule resume nightly
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client, _suggesting(client, name):
        view = client.resume_schedule(name)
    if output == "json":
        emit("Schedule", render.schedule_json(view))
    else:
        say(clean(_story(view)))


@schedule.command("trigger")
@click.argument("name")
@click.option("--wait", is_flag=True, help="Wait for the end; exit 1 if it failed, 8 if cancelled.")
@output_option
@click.pass_obj
def trigger(settings: Settings, name: str, *, wait: bool, output: str) -> None:
    """Run the schedule NAME once, now, paused or not. The run's alias is printed on stdout.

    \b
    Examples:
      titan schedule trigger nightly
      titan schedule trigger nightly --wait
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        with _suggesting(client, name):
            handle = client.trigger_schedule(name)
        if output != "json":
            write(handle.alias)
        if wait:
            try:
                with shown(client, handle.id, color=settings.color):
                    client.wait(handle)
            except KeyboardInterrupt:
                say(f"\nDetached. Run {handle.alias} goes on.  titan ps {handle.alias}")
                raise click.exceptions.Exit(INTERRUPTED) from None
        view = client.view(handle)
    if output == "json":
        emit("Run", render.run_json(view))
    if wait:
        if output != "json":
            say(f"Run {view.alias} {view.state}")
        code = {"FAILED": FAILED, "CANCELLED": CANCELLED}.get(view.state.value, 0)
        raise click.exceptions.Exit(code)


@schedule.command("rm")
@click.argument("name")
@output_option
@click.pass_obj
def rm(settings: Settings, name: str, *, output: str) -> None:
    """Remove the schedule NAME. Runs that go on do so.

    \b
    Example:
      titan schedule rm nightly
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client, _suggesting(client, name):
        view = client.remove_schedule(name)
    if output == "json":
        emit("Schedule", render.schedule_json(view))
    else:
        say(clean(f"Schedule {view.name} is gone."))


@contextlib.contextmanager
def _suggesting(client: TitanClient, name: str) -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        known = [one.name for one in client.schedules()]
        raise NotFound(f"{error.message}{did_you_mean(name, known)}") from error


def _print(view: ScheduleView, output: str) -> None:
    if output == "json":
        emit("Schedule", render.schedule_json(view))
    else:
        write(clean(render.schedule_text(view)))
