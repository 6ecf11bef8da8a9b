"""`titan deploy` and `titan service`: bring it up, how many of it, and all of it anew."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from titan_proto.errors import NotFound
from titan_proto.states import RunState, ScalingKind, ServiceState
from titan_sdk.cli import render
from titan_sdk.cli.context import Names, Settings, emit, limit_option, output_option, say
from titan_sdk.cli.failures import CANCELLED, FAILED, INTERRUPTED, Failure
from titan_sdk.cli.look import did_you_mean, look_of, print_table
from titan_sdk.cli.progress import shown
from titan_sdk.cli.sanitize import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from titan_proto.messages import ScalingChange, ServiceView
    from titan_sdk.client import TitanClient
    from titan_sdk.run import Run

_WORKER: Final = ("worker", "Worker.jar")
"""What deploys a worker where no file is called so; the second is what the manual says."""
_SETTLED: Final = (ScalingKind.JOINED, ScalingKind.FAILED, ScalingKind.TIMED_OUT)
_LOOK_S: Final = 0.1


@click.command()
@click.argument("file")
@click.argument("port", required=False)
@click.argument("requirement", required=False)
@click.option("--name", help="Name of the service. Default: the file's, without its ending.")
@click.option("--replicas", type=click.IntRange(min=1), help="So many instances of it.")
@click.option("--health", metavar="PATH", help="It is healthy once this path answers by HTTP.")
@click.option(
    "--env", "env", multiple=True, type=Names(), help="KEY=VALUE for it; may be repeated."
)
@click.option(
    "--env-file",
    "env_file",
    multiple=True,
    metavar="PATH",
    help="KEY=VALUE lines for it; may be repeated. --env wins over them.",
)
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is healthy.")
@output_option
@click.pass_obj
def deploy(
    settings: Settings,
    file: str,
    port: str | None,
    requirement: str | None,
    *,
    name: str | None,
    replicas: int | None,
    health: str | None,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    detach: bool,
    output: str,
) -> None:
    """Bring FILE, a script or a jar, up as a service: kept alive until somebody stops it.

    PORT is a number, or auto, and is given to it as $PORT. REQUIREMENT is a skill that its worker must
    have. Deployed again, a file that has not changed is left alone; a changed one replaces it, once
    it is healthy. Waits for that, unless told not to; exit 1 if it never is.

    `worker PORT` (or `Worker.jar PORT`, where there is no such file) has a worker spawn another one
    under that port, with REQUIREMENT or its own skills. It stays until it is shut down.

    \b
    Examples:
      titan deploy server.py
      titan deploy server.py 8080 --health /health
      titan deploy api.jar auto GPU --replicas 2
      titan deploy worker 8085
    """  # noqa: D301 - click reads the backspace
    if port is not None and _means_a_worker(settings, file):
        given = [name, replicas, health, *env, *env_file]
        if any(one is not None for one in given):
            raise click.UsageError(
                f"{file} PORT spawns a worker; of all options it takes -d and -o alone"
            )
        _deploy_worker(settings, port, requirement, detach=detach, output=output)
        return
    if file.lower().endswith((".yaml", ".yml")):
        raise click.UsageError(f"{file} is a pipeline; bring it up by:  titan run {file}")
    variables = dict(pair.split("=", 1) for pair in env)
    with settings.client() as client:
        handle = client.deploy(
            file,
            port,
            requirement,
            name=name,
            replicas=replicas,
            healthcheck=health,
            env=variables or None,
            env_file=list(env_file) or None,
        )
        for notice in handle.notices:
            say(clean(f"note: {notice}"))
        if not detach:
            _await_health(settings, client, handle)
        (job,) = client.jobs(handle)
        its_name = f"{client.view(handle).name}/{job.job_id}"
        found = [one for one in client.services() if one.name == its_name]
    if found or output == "json":
        _print(settings, found, output)
    else:
        say(clean(f"{job.job_id} is {job.state}.  titan ps {handle.alias}"))


def _means_a_worker(settings: Settings, file: str) -> bool:
    """Whether it is no file, neither here nor among the master's."""
    if file not in _WORKER or Path(file).exists():
        return False
    with settings.client() as client:
        return all(one.name != file for one in client.files())


def _deploy_worker(
    settings: Settings, port: str, skill: str | None, *, detach: bool, output: str
) -> None:
    """Have a worker spawned by hand, and wait until it has joined."""
    if not port.isdecimal():
        raise click.UsageError(f"PORT is {port!r}; a worker's port is a number, such as 8085")
    with settings.client() as client:
        ordered = client.spawn(int(port), skills=() if skill is None else (skill,))
        found = None if detach else _await_worker(client, ordered.number)
    if output == "json":
        body = {"number": ordered.number, "parent": ordered.parent, "port": ordered.port}
        emit("WorkerSpawned", {**body, "hasJoined": found is not None})
    elif found is None:
        say(clean(f"{ordered.parent} spawns worker {ordered.port}.  titan stats"))
    else:
        say(clean(f"Worker {found.worker} is here; {ordered.parent} has spawned it."))
        say(f"  stop it:  titan shutdown {ordered.port}")


def _await_worker(client: TitanClient, number: int) -> ScalingChange:
    """Until it has joined. Raises Failure if it will not."""
    # No deadline of our own: the master gives it up after a while, and says so.
    while True:
        scaling = client.scaling()
        recent = () if scaling is None else scaling.recent
        news = next((one for one in recent if one.number == number and one.kind in _SETTLED), None)
        if news is None:
            time.sleep(_LOOK_S)
            continue
        if news.kind is not ScalingKind.JOINED:
            raise Failure(
                clean(f"the worker was not spawned: {news.cause}"),
                FAILED,
                hint="titan stats -o json",
            )
        return news


def _await_health(settings: Settings, client: TitanClient, handle: Run) -> None:
    try:
        with shown(client, handle.id, color=settings.color):
            state = client.wait(handle).state
    except KeyboardInterrupt:
        say(f"\nDetached. It goes on.  titan ps {handle.alias}   titan cancel {handle.alias}")
        raise click.exceptions.Exit(INTERRUPTED) from None
    if state is RunState.SUCCEEDED:
        return
    (job,) = client.jobs(handle)
    say(clean(f"{job.job_id} did not come up: {render.outcome(job)}"))
    say(f"  more:  titan logs {handle.alias}/{job.job_id}")
    raise click.exceptions.Exit(CANCELLED if state is RunState.CANCELLED else FAILED)


@click.group()
def service() -> None:
    """List services, change how many instances one has, or start it anew."""


@service.command("ls")
@click.option("-a", "--all", "everything", is_flag=True, help="Ended ones too.")
@limit_option("With -a: at most so many ended ones, newest first.")
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
    for one in found:
        if one.state is ServiceState.STARTING and one.message:
            say(clean(f"note: {render.instance_name(one)} {one.message}."))


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
