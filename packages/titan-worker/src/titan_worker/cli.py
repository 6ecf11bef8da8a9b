"""``titan-worker [PORT] [MASTER_HOST] [MASTER_PORT]``: reads the command line, nothing else."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Final

import click

from titan_proto.limits import (
    DEFAULT_PORT,
    DEFAULT_WORKER_PORT,
    DRAIN_TIMEOUT_MS_DEFAULT,
    WORKER_SLOTS_DEFAULT,
)
from titan_worker.__about__ import __version__
from titan_worker.config import CGROUPS, ConfigError, make_settings

USAGE: Final = 64
INTERRUPTED: Final = 130
_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("port", type=int, required=False)
@click.argument("master_host", required=False)
@click.argument("master_port", type=int, required=False)
@click.option(
    "--port", "port_flag", type=int, help=f"The same as PORT (default {DEFAULT_WORKER_PORT})."
)
@click.option(
    "--master",
    "master_flag",
    metavar="HOST:PORT",
    help=f"The same as MASTER_HOST and MASTER_PORT (default 127.0.0.1:{DEFAULT_PORT}).",
)
@click.option(
    "--slots", type=int, help=f"Jobs that run at the same time (default {WORKER_SLOTS_DEFAULT})."
)
@click.option("--skill", "skills", multiple=True, help="May be repeated (default GENERAL).")
@click.option(
    "--handler",
    "handlers",
    metavar="NAME=PATH",
    multiple=True,
    help="A program for `titan submit NAME DATA`; NAME becomes a skill. May be repeated.",
)
@click.option(
    "--resource",
    "resources",
    metavar="NAME=AMOUNT",
    multiple=True,
    help="What jobs can ask for and take, such as gpu=2 or licence=1; may be repeated. cpu (cores) and "
    "memory (12GiB) are those of this machine unless they are given.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder for titan_workspace/ and .worker-PORT/ (default: the current one).",
)
@click.option(
    "--drain-timeout",
    metavar="DURATION",
    help="Once told to stop, let running tasks go on for so long, such as 10m; 0s: stop them at once "
    f"(default {DRAIN_TIMEOUT_MS_DEFAULT // 1000}s).",
)
@click.option(
    "--cgroups",
    type=click.Choice(CGROUPS),
    default=CGROUPS[0],
    help="Which jobs run in a control group of their own, where this machine lets them: services and "
    f"those with `resources`, all, or none (default {CGROUPS[0]}).",
)
@click.option(
    "--keep",
    metavar="DURATION",
    help="Keep the folders of ended attempts, and shared folders of ended runs, for so long (default 24h).",
)
@click.option(
    "--keep-bytes",
    metavar="SIZE",
    help="Remove those that ended first earlier, while all of titan_workspace/ is larger (default 10GiB).",
)
@click.option(
    "--cache-bytes",
    metavar="SIZE",
    help="Unpacked artifacts that are kept (default 2GiB).",
)
@click.option(
    "--spawner",
    metavar="HOW",
    help="How this worker starts another one when the master asks for it: local (beside itself, the "
    "default), off, or a command that starts one elsewhere.",
)
@click.version_option(__version__, prog_name="titan-worker")
def command(
    port: int | None,
    master_host: str | None,
    master_port: int | None,
    port_flag: int | None,
    master_flag: str | None,
    slots: int | None,
    skills: tuple[str, ...],
    handlers: tuple[str, ...],
    resources: tuple[str, ...],
    data: Path,
    drain_timeout: str | None,
    cgroups: str,
    keep: str | None,
    keep_bytes: str | None,
    cache_bytes: str | None,
    spawner: str | None,
) -> int:
    """Run jobs of a Titan master on this machine.

    PORT is part of this worker's name (host:PORT); no TCP port is opened. The token is found in
    TITAN_TOKEN, TITAN_TOKEN_FILE, the nearest .titan/token, or where a master of this account
    has left it.

    SIGTERM, SIGHUP or Ctrl-C: it takes no new work, lets running tasks go on until the drain timeout,
    and services until they are up elsewhere, stops what is left, and leaves. A second one ends the wait.
    """
    try:
        settings = make_settings(
            port=port,
            master_host=master_host,
            master_port=master_port,
            port_flag=port_flag,
            master_flag=master_flag,
            slots=slots,
            skills=skills,
            handlers=handlers,
            resources=resources,
            data=data,
            drain_timeout=drain_timeout,
            cgroups=cgroups,
            keep=keep,
            keep_bytes=keep_bytes,
            cache_bytes=cache_bytes,
            spawner=spawner,
            environ=os.environ,
            cwd=Path.cwd(),
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=_LOG_FORMAT)
    from titan_worker import app  # a wrong option is told before everything is loaded

    return app.run(settings)


def main() -> None:
    """Entry point of ``titan-worker`` and ``python -m titan_worker``."""
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = USAGE
    except click.Abort:
        code = INTERRUPTED
    sys.exit(code)
