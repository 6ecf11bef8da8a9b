"""`titan shutdown` and `titan worker`: workers, and whether they are given anything."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

import click

from titan_proto.errors import Conflict, NotFound, Timeout
from titan_sdk.cli import PluginGroup, render
from titan_sdk.cli.context import Duration, Settings, emit, output_option, say
from titan_sdk.cli.failures import CONFLICT, Failure
from titan_sdk.cli.look import did_you_mean, look_of, print_table
from titan_sdk.cli.sanitize import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from titan_proto.messages import WorkerDetail, WorkerView
    from titan_sdk.client import TitanClient


_LOOK_S: Final = 0.2
"""So often it is asked whether a worker that is drained is empty."""


@click.command()
@click.argument("worker", metavar="PORT|NAME")
@click.option("--now", is_flag=True, help="Stop its tasks at once; they are queued again.")
@click.option(
    "--drain-timeout",
    type=Duration(),
    help="How long its running tasks may go on. Default: what the worker was started with.",
)
@click.option("--wait", is_flag=True, help="Wait until it has left.")
@click.option(
    "--timeout", type=Duration(), help="With --wait: give up waiting after this (exit 6)."
)
@output_option
@click.pass_obj
def shutdown(
    settings: Settings,
    worker: str,
    *,
    now: bool,
    drain_timeout: float | None,
    wait: bool,
    timeout: float | None,
    output: str,
) -> None:
    """Have the worker PORT, or NAME (host:port), finish what it runs, say goodbye, and end.

    It takes nothing new. Its services are brought up elsewhere before they are stopped. Tasks that
    are not done within the drain timeout are stopped and go back into the queue. The process ends
    with 0 and does not come back by itself.

    \b
    Examples:
      titan shutdown 8081
      titan shutdown node7:8080 --drain-timeout 10m --wait
      titan shutdown 8081 --now
    """  # noqa: D301 - click reads the backspace
    if now and drain_timeout is not None:
        raise click.UsageError("--now waits for nothing; leave --drain-timeout out.")
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait.")
    with settings.client() as client:
        view = _tell(
            client, worker, drain_s=0.0 if now else drain_timeout, wait=wait, timeout_s=timeout
        )
    if output == "json":
        emit("Worker", {**render.worker_json(view), "hasLeft": wait})
    else:
        say(f"Worker {clean(f'{view.host}:{view.port}')} {_what_happens(view, has_left=wait)}")


def _tell(
    client: TitanClient, worker: str, *, drain_s: float | None, wait: bool, timeout_s: float | None
) -> WorkerView:
    with _named(client, worker, "titan shutdown"):
        return client.shutdown(worker, drain_timeout=drain_s, wait=wait, timeout=timeout_s)


@contextlib.contextmanager
def _named(client: TitanClient, worker: str, command: str) -> Iterator[None]:
    """What to type instead where no worker is called so, or several are."""
    try:
        yield
    except NotFound as error:
        known = [
            name
            for one in client.stats().workers
            for name in (str(one.port), f"{one.host}:{one.port}")
        ]
        raise NotFound(f"{error.message}{did_you_mean(worker, known)}") from error
    except Conflict as error:
        candidates = error.details.get("candidates", "")
        hint = f"{command} {candidates.split(',')[0]}" if candidates else "titan stats"
        raise Failure(str(error), CONFLICT, hint=hint, name=error.code.value) from error


def _what_happens(view: WorkerView, *, has_left: bool) -> str:
    if has_left:
        return "has left."
    busy = render.what_is_left(view)
    return f"leaves; on it: {busy}." if busy else "leaves."


# -- titan worker -----------------------------------------------------------------------------------
@click.group(cls=PluginGroup)
def worker() -> None:
    """List workers, or give one nothing new."""


@worker.command("ls")
@output_option
@click.pass_obj
def list_workers(settings: Settings, *, output: str) -> None:
    """The workers: slots, skills, what jobs can take of them, and who is cordoned.

    \b
    Examples:
      titan worker ls
      titan worker ls -o json
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        found = client.workers()
    if output == "json":
        emit("WorkerList", {"items": [render.worker_detail_json(one) for one in found]})
    elif not found:
        say("No worker has joined. Start one:  titan up, or titan-worker on another machine")
    else:
        look = look_of(settings)
        print_table(render.workers_table(found, look), look)


@worker.command()
@click.argument("worker", metavar="PORT|NAME")
@output_option
@click.pass_obj
def cordon(settings: Settings, worker: str, *, output: str) -> None:
    """Give the worker PORT, or NAME (host:port), nothing new. What is on it goes on.

    \b
    Examples:
      titan worker cordon 8081
      titan worker cordon node7:8080
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client, _named(client, worker, "titan worker cordon"):
        found = client.cordon(worker)
    if output == "json":
        emit("Worker", render.worker_detail_json(found))
        return
    name = clean(f"{found.worker.host}:{found.worker.port}")
    busy = render.what_is_left(found.worker)
    on_it = f" On it, and going on: {busy}." if busy else ""
    say(f"Worker {name} is given nothing new.{on_it} Take that back:  titan worker uncordon {name}")


@worker.command()
@click.argument("worker", metavar="PORT|NAME")
@output_option
@click.pass_obj
def uncordon(settings: Settings, worker: str, *, output: str) -> None:
    """Give the worker PORT, or NAME (host:port), jobs again.

    \b
    Examples:
      titan worker uncordon 8081
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client, _named(client, worker, "titan worker uncordon"):
        found = client.uncordon(worker)
    if output == "json":
        emit("Worker", render.worker_detail_json(found))
    else:
        say(f"Worker {clean(f'{found.worker.host}:{found.worker.port}')} is given jobs again.")


@worker.command()
@click.argument("worker", metavar="PORT|NAME")
@click.option("--wait", is_flag=True, help="Wait until nothing is on it any more.")
@click.option(
    "--timeout", type=Duration(), help="With --wait: give up waiting after this (exit 6)."
)
@output_option
@click.pass_obj
def drain(
    settings: Settings, worker: str, *, wait: bool, timeout: float | None, output: str
) -> None:
    """Cordon the worker PORT, or NAME (host:port), and bring its services up elsewhere.

    Its tasks end by themselves; a service is stopped there once it is healthy elsewhere. The worker
    stays: what was the reason can be done meanwhile, and then it is uncordoned.

    \b
    Examples:
      titan worker drain 8081
      titan worker drain node7:8080 --wait --timeout 1h
    """  # noqa: D301 - click reads the backspace
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait.")
    deadline = None if timeout is None else time.monotonic() + timeout
    with settings.client() as client, _named(client, worker, "titan worker drain"):
        found = client.cordon(worker, drain=True)
        if wait:
            found = _wait_empty(client, found, deadline)
    if output == "json":
        emit("Worker", render.worker_detail_json(found))
        return
    name = clean(f"{found.worker.host}:{found.worker.port}")
    busy = render.what_is_left(found.worker)
    left = f"On it: {busy}." if busy else "Nothing is on it."
    say(f"Worker {name} is given nothing new. {left} Take that back:  titan worker uncordon {name}")


def _wait_empty(client: TitanClient, found: WorkerDetail, deadline: float | None) -> WorkerDetail:
    while found.attempts:
        if deadline is not None and time.monotonic() + _LOOK_S > deadline:
            name = f"{found.worker.host}:{found.worker.port}"
            raise Timeout(
                f"worker {name} is not empty in time: {render.what_is_left(found.worker)}"
            )
        time.sleep(_LOOK_S)
        found = client.workers(found.worker.worker_id)[0]
    return found
