"""`titan shutdown`: a worker is told to leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from titan_proto.errors import Conflict, NotFound
from titan_sdk.cli import render
from titan_sdk.cli.context import Duration, Settings, emit, output_option, say
from titan_sdk.cli.failures import CONFLICT, Failure
from titan_sdk.cli.look import did_you_mean
from titan_sdk.cli.sanitize import clean

if TYPE_CHECKING:
    from titan_proto.messages import WorkerView
    from titan_sdk.client import TitanClient


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
    try:
        return client.shutdown(worker, drain_timeout=drain_s, wait=wait, timeout=timeout_s)
    except NotFound as error:
        known = [
            name
            for one in client.stats().workers
            for name in (str(one.port), f"{one.host}:{one.port}")
        ]
        raise NotFound(f"{error.message}{did_you_mean(worker, known)}") from error
    except Conflict as error:
        candidates = error.details.get("candidates", "")
        hint = f"titan shutdown {candidates.split(',')[0]}" if candidates else "titan stats"
        raise Failure(str(error), CONFLICT, hint=hint, name=error.code.value) from error


def _what_happens(view: WorkerView, *, has_left: bool) -> str:
    if has_left:
        return "has left."
    busy = render.what_is_left(view)
    return f"leaves; on it: {busy}." if busy else "leaves."
