"""`titan gates`, `titan approve`, `titan reject`: what waits for a person, and the answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from titan_sdk.cli import render
from titan_sdk.cli.context import Settings, emit, output_option, say
from titan_sdk.cli.look import look_of, print_table

if TYPE_CHECKING:
    from titan_proto.messages import GateView

_MESSAGE = ("-m", "--message", "comment")


@click.command()
@output_option
@click.pass_obj
def gates(settings: Settings, *, output: str) -> None:
    """List the gates that are open: what waits for an approval, longest first.

    \b
    Examples:
      titan gates
      titan gates -o json
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        views = client.gates()
    if output == "json":
        emit("GateList", {"items": [render.gate_json(view) for view in views]})
        return
    if not views:
        say("Nothing waits for an approval.")
        return
    look = look_of(settings)
    print_table(render.gates_table(views, int(time.time() * 1000)), look)
    say(f"Decide:  titan approve {views[0].run_alias}/{views[0].job_id}   (or: titan reject)")


@click.command()
@click.argument("gate")
@click.option(*_MESSAGE, default="", help="What to say beside it; it is kept with the run.")
@output_option
@click.pass_obj
def approve(settings: Settings, gate: str, *, comment: str, output: str) -> None:
    """Approve GATE (RUN/JOB, or its job id if only one open gate has it): what waits for it begins.

    Approving twice is once; a gate that was rejected stays rejected (exit 7).

    \b
    Examples:
      titan approve nightly-1/REVIEW
      titan approve REVIEW -m "rows look right"
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        view = client.approve(gate, comment)
    _tell(view, output)


@click.command()
@click.argument("gate")
@click.option(*_MESSAGE, required=True, help="Why; it is kept with the run.")
@output_option
@click.pass_obj
def reject(settings: Settings, gate: str, *, comment: str, output: str) -> None:
    """Reject GATE (RUN/JOB, or its job id if only one open gate has it): what waits for it is skipped.

    \b
    Examples:
      titan reject nightly-1/REVIEW -m "half of the rows are missing"
    """  # noqa: D301 - click reads the backspace
    if not comment.strip():
        raise click.UsageError("-m is empty: say why it is rejected.")
    with settings.client() as client:
        view = client.reject(gate, comment)
    _tell(view, output)


def _tell(view: GateView, output: str) -> None:
    if output == "json":
        emit("Gate", render.gate_json(view))
        return
    when = render.local_time(view.decided_at_ms)
    say(f"Gate {view.run_alias}/{view.job_id} {render.decision(view)} at {when}.")
