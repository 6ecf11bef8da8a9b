"""`titan up`, `titan down`, `titan demo`: clusters on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from titan_proto.errors import NoToken
from titan_proto.io.address import Address, find_master, find_token, read_token_file
from titan_proto.limits import DEFAULT_PORT
from titan_sdk.cli.context import (
    Settings,
    emit,
    emit_line,
    has_color,
    is_unicode,
    output_option,
    say,
    write,
)
from titan_sdk.cli.failures import CONFLICT, FAILED, USAGE, Failure
from titan_sdk.cli.opening import link
from titan_sdk.cli.sanitize import clean
from titan_sdk.local import DASHBOARD, MASTER, WORKER, LocalCluster, LocalError, Plan

if TYPE_CHECKING:
    from titan_sdk.cli.demo import Told
    from titan_sdk.local import Member

_COLORS: Final = ("cyan", "green", "magenta", "blue", "yellow")
_TAIL_S: Final = 0.1


@click.command()
@click.option("-d", "--detach", is_flag=True, help="Return when it is ready; it goes on.")
@click.option("--workers", type=click.IntRange(0, 64), default=1, show_default=True)
@click.option("--skill", "skills", multiple=True, help="A skill of the workers; may be repeated.")
@click.option("--slots", type=click.IntRange(1, 4096), help="Jobs at once per worker. [default: 4]")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".titan"),
    show_default=True,
    help="Everything it writes lies here.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Where the master listens on 127.0.0.1; 0: any free port.",
)
@click.option(
    "--autoscale",
    type=click.Choice(["on", "off"]),
    help="Whether workers are spawned while more waits than these can take. [default: on]",
)
@click.option("--no-dashboard", is_flag=True, help="Start no dashboard.")
@output_option
@click.pass_context
def up(
    ctx: click.Context,
    *,
    detach: bool,
    workers: int,
    skills: tuple[str, ...],
    slots: int | None,
    data: Path,
    port: int,
    autoscale: str | None,
    no_dashboard: bool,
    output: str,
) -> None:
    """Start a master, workers and the dashboard on this machine.

    Stays in the foreground with everybody's log; Ctrl-C stops it. What is up already, here or in a
    folder above, stays as it is.

    \b
    Examples:
      titan up
      titan up -d --workers 2
      titan up -d --skill GPU --skill GENERAL --port 9191
    """  # noqa: D301 - click reads the backspace
    plan = Plan(
        port=port,
        workers=workers,
        slots=slots,
        skills=skills,
        dashboard=not no_dashboard,
        autoscale=autoscale,
    )
    is_given = ctx.get_parameter_source("data") is not ParameterSource.DEFAULT
    with _explained(), _terminable():
        cluster = LocalCluster(data if is_given else _nearest(alive=True))
        before = cluster.alive()
        started = cluster.start(plan)
        if output == "json":
            emit_line("Cluster", _cluster_json(cluster, already_up=not started))
        else:
            _say_up(cluster, started, wants_dashboard=not no_dashboard)
        _say_unheeded(ctx, cluster, before)
        if detach or not started:
            return
        _stay(cluster, started, ctx.obj)


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="The data folder. Default: the nearest .titan with a cluster that is up.",
)
@click.option("--purge", is_flag=True, help="Delete the data folder too, after asking.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def down(data: Path | None, *, purge: bool, yes: bool, output: str) -> None:
    """Stop what `titan up` started here, workers first.

    \b
    Examples:
      titan down
      titan down --purge
    """  # noqa: D301 - click reads the backspace
    folder = data if data is not None else _nearest(alive=False)
    with _explained():
        cluster = LocalCluster(folder)
        if purge and not yes and folder.exists():
            if not sys.stdin.isatty():
                raise Failure(
                    "--purge asks first, and this is no terminal", USAGE, hint="add --yes"
                )
            click.confirm(
                f"Delete {cluster.data} with all runs, logs and workspaces?", abort=True, err=True
            )
        stopped = cluster.stop()
        is_purged = purge and folder.exists()
        if is_purged:
            cluster.purge()
        if output == "json":
            body = {"data": str(cluster.data), "stopped": [member.name for member in stopped]}
            emit("ClusterStopped", {**body, "purged": is_purged})
            return
        if stopped:
            say(f"Stopped {', '.join(member.name for member in stopped)}.")
        else:
            say(f"Nothing is up in {cluster.data}.")
        if is_purged:
            say(f"Deleted {cluster.data}.")


@click.command()
@click.option("--exit", "leave", is_flag=True, help="Do not stay until Ctrl-C on a terminal.")
@click.option(
    "--example",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Run the copy of the sample pipeline in this folder instead.",
)
@output_option
@click.pass_obj
def demo(settings: Settings, *, leave: bool, example: Path | None, output: str) -> None:
    """Start a cluster for a minute, run a pipeline on it, ask its service, and clean up.

    The service's answer is printed on stdout. On a terminal it stays until Ctrl-C; elsewhere it
    exits by itself: 0 if all went well, else 1. Nothing is left behind, no process and no file.

    \b
    Examples:
      titan demo
      titan demo --exit > months.json
    """  # noqa: D301 - click reads the backspace
    from titan_sdk.cli.demo import run_demo

    stay = not leave and sys.stdin.isatty() and sys.stdout.isatty()
    show = (lambda told: emit_line("Demo", told.as_json())) if output == "json" else _show_answer
    with _explained(), _terminable():
        is_good = run_demo(example, stay=stay, color=settings.color, show=show)
    if not is_good:
        raise click.exceptions.Exit(FAILED)


def _show_answer(told: Told) -> None:
    """The service's answer, one month a line."""
    months = ",\n".join(json.dumps(month) for month in told.answer["months"])
    write('{"months": [\n' + months + "\n]}")


def _cluster_json(cluster: LocalCluster, *, already_up: bool) -> dict[str, Any]:
    return {
        "address": str(cluster.address),
        "data": str(cluster.data),
        "workers": [member.name.removeprefix(f"{WORKER}-") for member in cluster.alive(WORKER)],
        "dashboard": cluster.dashboard_url() or None,
        "alreadyUp": already_up,
    }


def _say_up(cluster: LocalCluster, started: list[Member], *, wants_dashboard: bool) -> None:
    workers = [member.name.removeprefix(f"{WORKER}-") for member in cluster.alive(WORKER)]
    ports = f"worker {', '.join(f'[{port}]' for port in workers)}" if workers else "no worker"
    how = "Up" if started else "Already up"
    say(f"{how}: master {cluster.address}, {ports}, data in {cluster.data}")
    if url := cluster.dashboard_url():
        say(f"Dashboard: {link(url, cluster.ticket())}")
        say("That link is good once, for ten minutes; `titan open` prints another.")
    elif wants_dashboard:
        say("No dashboard: titan-dashboard is not installed in this Python.")
    say(f"Try:  {_reaching(cluster)} stats     Stop it:  {_downing(cluster)}")


def _say_unheeded(ctx: click.Context, cluster: LocalCluster, before: list[Member]) -> None:
    """Which options had no effect, because what they are about was up already."""
    asked = {
        name: value
        for name, value in ctx.params.items()
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    was_up = {member.name for member in before}
    workers = [one for one in cluster.stats().workers if f"{WORKER}-{one.port}" in was_up]
    address = cluster.address
    unheeded = []
    if MASTER in was_up and address is not None and asked.get("port", 0) not in {0, address.port}:
        unheeded.append(f"--port {asked['port']}")
    if "slots" in asked and any(one.slots != asked["slots"] for one in workers):
        unheeded.append(f"--slots {asked['slots']}")
    if "skills" in asked and any(set(one.skills) != set(asked["skills"]) for one in workers):
        unheeded += [f"--skill {skill}" for skill in asked["skills"]]
    if "workers" in asked and asked["workers"] < len(workers):
        unheeded.append(f"--workers {asked['workers']}")
    if MASTER in was_up and asked.get("autoscale"):
        unheeded.append(f"--autoscale {asked['autoscale']}")
    if asked.get("no_dashboard") and DASHBOARD in was_up:
        unheeded.append("--no-dashboard")
    if unheeded:
        say(
            f"Does not apply to what was up already: {', '.join(unheeded)}. "
            f"To have it so:  {_downing(cluster)}   and up again."
        )


def _reaching(cluster: LocalCluster) -> str:
    """How `titan` is called from here so that it speaks to this cluster's master."""
    address, own = cluster.address, read_token_file(cluster.token_file)
    assert address is not None  # it is up
    if find_master(None, os.environ, Path.cwd()) == address and _token(address) == own:
        return "titan"
    by_address = f"titan --master {address}"
    if _token(address) == own:
        return by_address
    return f"TITAN_TOKEN_FILE={shlex.quote(str(cluster.token_file))} {by_address}"


def _token(address: Address) -> str | None:
    try:
        return find_token(address, os.environ, Path.cwd())
    except NoToken:
        return None


def _downing(cluster: LocalCluster) -> str:
    """The command that stops this cluster from here."""
    if LocalCluster(_nearest(alive=False)).data == cluster.data:
        return "titan down"
    here = Path.cwd()
    below = cluster.data.is_relative_to(here)
    shown = cluster.data.relative_to(here) if below else cluster.data
    return f"titan down --data {shlex.quote(str(shown))}"


def _stay(cluster: LocalCluster, started: list[Member], settings: Settings) -> None:
    """In the foreground: show the logs until Ctrl-C, or until the master has gone."""
    ended = threading.Event()
    width = max(len(member.name) for member in started)
    color = has_color(settings.color, terminal=sys.stderr.isatty())
    threads = [
        threading.Thread(
            target=_tail,
            args=(
                cluster.log(member.name),
                f"{member.name:<{width}}",
                _COLORS[n % len(_COLORS)] if color else None,
                ended,
            ),
            daemon=True,
        )
        for n, member in enumerate(started)
    ]
    for thread in threads:
        thread.start()
    gone: set[str] = set()
    try:
        while cluster.alive(MASTER):
            running = {member.name for member in cluster.alive()}
            for member in started:
                if member.name not in running | gone:
                    gone.add(member.name)
                    say(f"{member.name} has ended.")
            if not running:
                break
            ended.wait(_TAIL_S)
        # Not by Ctrl-C: `titan down` elsewhere, or the master died.
        others = cluster.alive()
        code = FAILED if others else 0
    except KeyboardInterrupt:
        say("\nStopping ...")
        code = 0
    # A second Ctrl-C must not leave half a cluster behind.
    with _unhurried():
        cluster.stop()
    ended.set()
    for thread in threads:
        thread.join(1)
    say("Stopped.")
    if code:
        raise Failure("the master ended by itself", code, hint=f"its log:  {cluster.log(MASTER)}")


def _tail(path: Path, name: str, color: str | None, ended: threading.Event) -> None:
    bar = "│" if is_unicode(sys.stderr.encoding) else "|"
    head = f"{name} {bar} "
    head = click.style(head, fg=color) if color else head
    with path.open("rb") as file:
        rest = b""
        while True:
            over = ended.is_set()
            while piece := file.read(65536):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    say(head + clean(line.decode("utf-8", "replace")))
            if over:
                return
            ended.wait(_TAIL_S)


def _nearest(*, alive: bool) -> Path:
    """The nearest folder up from here in which something was started, or still runs; else ./.titan.

    What was killed with its machine is still there for `titan down` to tidy up, but is no reason
    for `titan up` to go to another folder.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        data = folder / ".titan"
        if (data / "up.json").exists() and not (alive and not LocalCluster(data).alive()):
            return data
    return here / ".titan"


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except LocalError as error:
        code = CONFLICT if error.conflict else FAILED
        raise Failure(str(error), code, hint=error.hint) from error


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: everything is taken down first."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _unhurried() -> Iterator[None]:
    """While something is taken down, being told again to stop changes nothing."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
