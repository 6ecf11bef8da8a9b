"""The command ``titan-master``: flags and environment → a config, its outcome → an exit code.

Nothing else may import click: a master that runs does not need it. Exit codes are those of
sysexits: 64 usage, 65 data damaged, 70 a bug, 74 input or output, 75 already running, 78 config.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from titan_master.__about__ import __version__
from titan_master.config import (
    DEFAULT_DATA,
    DEFAULT_LISTEN,
    BadConfig,
    MasterConfig,
    default_perm_files,
    parse_disk_reserve,
    parse_listen,
    parse_lost_after,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="titan-master")
def master() -> None:
    """The master of a Titan cluster."""


@master.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="TITAN_DATA",
    default=Path(DEFAULT_DATA),
    show_default=True,
    help="Folder of the database, the token, artifacts and logs.",
)
@click.option(
    "--perm-files",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="TITAN_PERM_FILES",
    help="Folder of scripts that runs may name.  [default: ./perm_files, else in the data folder]",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    envvar="TITAN_LISTEN",
    default=DEFAULT_LISTEN,
    show_default=True,
    help="Where to listen; port 0 takes a free one.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Allow an address that other machines can reach, without encryption.",
)
@click.option("--name", default="titan", show_default=True, help="The cluster's name.")
@click.option(
    "--lost-after",
    metavar="DURATION",
    default="30s",
    show_default=True,
    help="A worker silent for so long is lost, and its jobs run elsewhere.",
)
@click.option(
    "--disk-reserve",
    metavar="SIZE",
    envvar="TITAN_DISK_RESERVE",
    default="64MiB",
    show_default=True,
    help="Held free in the data folder, for the ends of what runs when the disk is full.",
)
@click.option(
    "--no-token-link",
    is_flag=True,
    help="Write nothing outside the data folder; clients then need TITAN_TOKEN_FILE.",
)
def start(
    data: Path,
    perm_files: Path | None,
    listen: str,
    insecure: bool,
    name: str,
    lost_after: str,
    disk_reserve: str,
    no_token_link: bool,
) -> None:
    """Run the master until it is told to stop (SIGTERM, or Ctrl-C)."""
    from titan_master.app import run  # the daemon's modules, which --help need not load

    try:
        config = MasterConfig(
            data=data.absolute(),
            perm_files=(perm_files or default_perm_files(data, Path.cwd())).absolute(),
            listen=parse_listen(listen),
            name=name,
            insecure=insecure,
            token_link=not no_token_link,
            lost_after_ms=parse_lost_after(lost_after),
            disk_reserve_bytes=parse_disk_reserve(disk_reserve),
        )
    except BadConfig as error:
        _complain(str(error))
        sys.exit(os.EX_CONFIG)
    sys.exit(run(config))


def _complain(message: str) -> None:
    click.echo(f"titan-master: {message}", err=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit."""
    try:
        master.main(arguments, prog_name="titan-master", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(os.EX_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(os.EX_USAGE)
    except click.Abort:
        sys.exit(130)
    sys.exit(0)
