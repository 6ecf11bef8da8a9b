"""The command ``titan-master``: flags and environment → a config, its outcome → an exit code.

Nothing else may import click: a master that runs does not need it. Exit codes are those of
sysexits: 64 usage, 65 data damaged, 66 no input, 70 a bug, 73 the target is taken, 74 input or output,
75 already running, 78 config.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from titan_master.__about__ import __version__
from titan_master.config import (
    DEFAULT_DATA,
    DEFAULT_LISTEN,
    BadConfig,
    MasterConfig,
    default_perm_files,
    parse_artifacts_cap,
    parse_disk_reserve,
    parse_keep_artifacts,
    parse_keep_journal,
    parse_listen,
    parse_log_cap,
    parse_lost_after,
    parse_scale_every,
    parse_sibling_idle,
)
from titan_proto.limits import SIBLINGS, SIBLINGS_PER_HOST


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="titan-master")
def master() -> None:
    """The master of a Titan cluster."""


if TYPE_CHECKING:
    from titan_master.care.copies import BackupNote

_DATA: Final = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="TITAN_DATA",
    default=Path(DEFAULT_DATA),
    show_default=True,
    help="Folder of the database, the token, artifacts and logs.",
)
_OUTPUT: Final = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    envvar="TITAN_FORMAT",
    default="table",
    show_default=True,
    help="How the answer is printed.",
)


@master.command(epilog="Example: titan-master start --data /var/lib/titan")
@_DATA
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
    "--log-cap",
    default="256MiB",
    envvar="TITAN_LOG_CAP",
    metavar="SIZE",
    show_default=True,
    help="Of what an attempt prints so much is kept, from its beginning and its end.",
)
@click.option(
    "--keep-journal",
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="Keep records for so long after no start needs them any more.",
)
@click.option(
    "--keep-artifacts",
    metavar="DURATION",
    envvar="TITAN_KEEP_ARTIFACTS",
    default="720h",
    show_default=True,
    help="Keep the files of runs for so long after no run needs them any more.",
)
@click.option(
    "--artifacts-cap",
    metavar="SIZE",
    envvar="TITAN_ARTIFACTS_CAP",
    default="64GiB",
    show_default=True,
    help="Above so much those files go sooner, what was wanted longest ago first.",
)
@click.option(
    "--autoscale",
    type=click.Choice(["on", "off"]),
    envvar="TITAN_AUTOSCALE",
    default="on",
    show_default=True,
    help="Have workers spawn others on their hosts while more waits than they can take.",
)
@click.option(
    "--scale-every",
    metavar="DURATION",
    default="15s",
    show_default=True,
    help="Compare what waits with what can serve it so often.",
)
@click.option(
    "--sibling-idle",
    metavar="DURATION",
    default="45s",
    show_default=True,
    help="A spawned worker that holds nothing for so long is told to leave.",
)
@click.option(
    "--siblings-per-host",
    type=click.IntRange(min=0),
    default=SIBLINGS_PER_HOST,
    show_default=True,
    help="Spawn so many on one host, and none beyond 4 slots a core in all.",
)
@click.option(
    "--siblings-max",
    type=click.IntRange(min=0),
    default=SIBLINGS,
    show_default=True,
    help="Have so many spawned workers at once, those included that somebody asked for.",
)
@click.option(
    "--accept-loss",
    metavar="SEQ",
    type=click.IntRange(min=0),
    help="Go on without what a damaged journal said behind record SEQ.",
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
    log_cap: str,
    keep_journal: str,
    keep_artifacts: str,
    artifacts_cap: str,
    autoscale: str,
    scale_every: str,
    sibling_idle: str,
    siblings_per_host: int,
    siblings_max: int,
    accept_loss: int | None,
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
            log_bytes=parse_log_cap(log_cap),
            journal_keep_ms=parse_keep_journal(keep_journal),
            artifact_keep_ms=parse_keep_artifacts(keep_artifacts),
            artifacts_bytes=parse_artifacts_cap(artifacts_cap),
            autoscale=autoscale == "on",
            scale_every_ms=parse_scale_every(scale_every),
            sibling_idle_ms=parse_sibling_idle(sibling_idle),
            siblings_per_host=siblings_per_host,
            siblings_max=siblings_max,
            accept_loss=accept_loss,
        )
    except BadConfig as error:
        _complain(str(error))
        sys.exit(os.EX_CONFIG)
    sys.exit(run(config))


@master.command(epilog="Example: titan-master backup /backups/titan-monday --data /var/lib/titan")
@click.argument("target", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@_DATA
@click.option("--with-logs", is_flag=True, help="Copy what jobs printed, too.")
@click.option("--with-token", is_flag=True, help="Copy the secret, too: keep the backup as safe.")
@_OUTPUT
def backup(target: Path, data: Path, with_logs: bool, with_token: bool, output: str) -> None:
    """Copy a master's data to DIR, while it runs or not; DIR must not be there yet, or be empty."""
    from titan_master.care.copies import CopyFailed, back_up

    try:
        note = back_up(
            data.absolute(),
            target.absolute(),
            with_logs=with_logs,
            with_token=with_token,
            software=f"titan-master/{__version__}",
            now_ms=_now_ms(),
        )
    except CopyFailed as error:
        _complain(str(error))
        sys.exit(error.code)
    if output == "json":
        _print_json("Backup", _note_json(target, note))
        return
    click.echo(
        f"{target}: {note.cluster_name} up to record {note.last_seq}, {note.artifacts} artifacts, "
        f"{note.files} files, {note.bytes:,} bytes; verified"
    )
    if not with_logs:
        click.echo("Not copied: logs (--with-logs).")
    if not with_token:
        click.echo("Not copied: the token (--with-token); a restored master makes a new one.")


@master.command(
    epilog="Example: titan-master restore /backups/titan-monday --data /var/lib/titan-new"
)
@click.argument("source", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The new data folder; it must not be there yet, or be empty.",
)
@_OUTPUT
def restore(source: Path, data: Path, output: str) -> None:
    """Make a new data folder from the backup in DIR."""
    from titan_master.care import copies

    try:
        note = copies.restore(source.absolute(), data.absolute())
    except copies.CopyFailed as error:
        _complain(str(error))
        sys.exit(error.code)
    if output == "json":
        _print_json("Restore", _note_json(data, note))
        return
    click.echo(
        f"{data}: {note.cluster_name} as it was at record {note.last_seq}. What was accepted after "
        f"that is not in it.\nStart it: titan-master start --data {data}"
    )


@master.command(epilog="Example: titan-master doctor --data /var/lib/titan")
@_DATA
@_OUTPUT
def doctor(data: Path, output: str) -> None:
    """Look whether a data folder is well, and say what to do; nothing is changed.

    Exit code 1 if a check fails. A master may be running on the folder.
    """
    from titan_master.care.doctor import Level, examine

    found = list(examine(data.absolute(), _now_ms()))
    if output == "json":
        items = [
            {
                "check": one.check,
                "level": one.level.value,
                "message": one.message,
                "fix": one.fix or None,
            }
            for one in found
        ]
        _print_json("Doctor", {"items": items})
    else:
        for one in found:
            click.echo(f"{one.level.value:<5}{one.check:<13}{one.message}")
            if one.fix:
                click.echo(f"{'':18}→ {one.fix}")
    sys.exit(1 if any(one.level is Level.FAIL for one in found) else 0)


@master.command(epilog="Example: titan-master replay --data /backups/titan-monday --until 4711")
@_DATA
@click.option(
    "--until",
    metavar="SEQ",
    type=click.IntRange(min=1),
    help="Stop at this record.  [default: the last one]",
)
@click.option("--events", is_flag=True, help="Print the records first, one a line.")
@_OUTPUT
def replay(data: Path, until: int | None, events: bool, output: str) -> None:
    """Fold a journal, or that of a backup, and show what it comes to; nothing is changed."""
    from titan_master.care import replay as replaying
    from titan_master.store.base import StoreError, exit_code_of

    try:
        found = replaying.replayed(data.absolute(), until)
        if events:
            for seq, term, event in replaying.events(data.absolute(), until):
                click.echo(json.dumps({"seq": seq, "term": term, **event}))
    except replaying.NoSuchRecord as error:
        _complain(str(error))
        sys.exit(os.EX_NOINPUT)
    except StoreError as error:
        _complain(str(error))
        sys.exit(exit_code_of(error))
    shown = replaying.summary(found)
    if output == "json":
        _print_json("Replay", shown)
        return
    for name in ("lastSeq", "firstSeq", "checkpointSeq", "term", "clusterName", "stateDigest"):
        click.echo(f"{name:<15}{shown[name] if shown[name] is not None else '-'}")
    for run in shown["runs"]:
        jobs = ", ".join(f"{number} {state}" for state, number in run["jobs"].items())
        click.echo(f"{'run':<15}{run['run']}: {jobs}")
    for name in ("services", "workers"):
        for line in shown[name]:
            click.echo(f"{name[:-1]:<15}{line}")


def _now_ms() -> int:
    from titan_master.clock import SystemClock

    return SystemClock().now_ms()


def _note_json(folder: Path, note: BackupNote) -> dict[str, Any]:
    made_at = datetime.fromtimestamp(note.made_at_ms / 1000, UTC)
    return {
        "folder": str(folder.absolute()),
        "software": note.software,
        "madeAt": made_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "clusterId": note.cluster_id,
        "clusterName": note.cluster_name,
        "term": note.term,
        "lastSeq": note.last_seq,
        "stateDigest": note.state_digest,
        "artifacts": note.artifacts,
        "files": note.files,
        "bytes": note.bytes,
        "withLogs": note.with_logs,
        "withToken": note.with_token,
    }


def _print_json(kind: str, fields: dict[str, Any]) -> None:
    click.echo(json.dumps({"apiVersion": "titan/v1", "kind": kind, **fields}))


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
