"""`titan service`: what is up, how many of it, and all of it anew."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from titan_proto.errors import NotFound
from titan_sdk.cli import render
from titan_sdk.cli.context import Settings, emit, output_option, say
from titan_sdk.cli.look import did_you_mean, look_of, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from titan_proto.messages import ServiceView
    from titan_sdk.client import TitanClient

_ENDED_SHOWN = 50


@click.group()
def service() -> None:
    """List services, change how many instances one has, or start it anew."""


@service.command("ls")
@click.option("-a", "--all", "everything", is_flag=True, help="Ended ones too.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=_ENDED_SHOWN,
    show_default=True,
    help="With -a: at most so many ended ones, newest first.",
)
@output_option
@click.pass_obj
def ls(settings: Settings, *, everything: bool, limit: int, output: str) -> None:
    """List services, an instance a line: where each is, since when, and how often it was started again.

    \b
    Example:
      titan service ls
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        found = client.services(ended=everything, limit=limit)
    _print(settings, found, output)


@service.command("scale")
@click.argument("id")
@click.argument("replicas", type=click.IntRange(min=1))
@output_option
@click.pass_obj
def scale(settings: Settings, id: str, replicas: int, *, output: str) -> None:  # noqa: A002
    """Have REPLICAS instances of the service ID: more are added, the newest go first.

    \b
    Examples:
      titan service scale Shop/api 3
      titan service scale api 1
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        found = _of(client, id, lambda: client.scale(id, replicas))
    _print(settings, found, output)


@service.command("restart")
@click.argument("id")
@output_option
@click.pass_obj
def restart(settings: Settings, id: str, *, output: str) -> None:  # noqa: A002
    """Replace every instance of the service ID; each goes once its replacement is healthy.

    Where a fixed port leaves no other worker for the replacement, the old one goes first.

    \b
    Examples:
      titan service restart Shop/api
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        found = _of(client, id, lambda: client.restart(id))
    _print(settings, found, output)


def _of(client: TitanClient, name: str, ask: Callable[[], list[ServiceView]]) -> list[ServiceView]:
    try:
        return ask()
    except NotFound as error:
        known = [known for one in client.services() for known in (one.name, one.job_id)]
        raise NotFound(f"{error.message}{did_you_mean(name, known)}") from error


def _print(settings: Settings, found: list[ServiceView], output: str) -> None:
    if output == "json":
        emit("ServiceList", {"items": [render.service_json(one) for one in found]})
    elif found:
        look = look_of(settings)
        print_table(render.services_table(found, look, int(time.time() * 1000)), look)
    else:
        say("No service is up.   (ended ones: titan service ls -a)")
