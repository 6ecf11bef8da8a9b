"""`titan logs`: bytes as the job wrote them, to a file or a pipe; cleaned for a terminal."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import click

from titan_proto.errors import NotFound
from titan_proto.messages import STDERR, LogStream, RunView
from titan_proto.specs import JobKind
from titan_proto.states import RUN_TERMINAL
from titan_sdk.cli import render
from titan_sdk.cli.context import (
    Settings,
    emit,
    emit_line,
    output_option,
    reader_may_leave,
    say,
    stdout_is_terminal,
)
from titan_sdk.cli.failures import INTERRUPTED
from titan_sdk.cli.look import find_job, suggesting_runs
from titan_sdk.cli.sanitize import Cleaner
from titan_sdk.following import follow_run, text_of, whole_lines
from titan_sdk.reasons import never_started

if TYPE_CHECKING:
    from titan_proto.messages import JobView, LogData
    from titan_sdk.client import TitanClient
    from titan_sdk.following import Line


@click.command()
@click.argument("id")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is printed, to the end.")
@click.option("-n", "--lines", type=click.IntRange(min=1), help="Only the last so many lines.")
@click.option("--stderr", "only", flag_value="stderr", help="Only what went to stderr.")
@click.option("--stdout", "only", flag_value="stdout", help="Only what went to stdout.")
@click.option("--attempt", type=click.IntRange(min=1), help="Of this attempt, not the newest.")
@output_option
@click.pass_obj
def logs(
    settings: Settings,
    id: str,  # noqa: A002 - what the user types
    *,
    follow: bool,
    lines: int | None,
    only: str | None,
    attempt: int | None,
    output: str,
) -> None:
    """Print what a job has printed.

    ID is RUN/JOB, or a job's id alone (that job of the newest run that has it), or a run. To a file
    or a pipe every byte comes as it was written; on a terminal control sequences are left out.

    \b
    Examples:
      titan logs nightly-1/EXTRACT
      titan logs -f @last
      titan logs TRAIN -n 20 --stderr
      titan logs nightly-1/EXTRACT > extract.log
    """  # noqa: D301 - click reads the backspace
    stream = LogStream(only) if only else LogStream.BOTH
    with settings.client() as client:
        found = _find(client, id)
        if isinstance(found, RunView):
            if attempt is not None or lines is not None:
                raise click.UsageError(f"{id} has several jobs: name one, as {id}/JOB.")
            try:
                _whole_run(client, found, stream, follow=follow, as_json=output == "json")
            except KeyboardInterrupt:
                if found.state in RUN_TERMINAL:
                    # Only services of it are left, and the run cannot be cancelled any more.
                    _detached(f"What is up of run {found.alias} goes on.", "titan ps")
                _detached_from(found.alias)
            return
        if output != "json" and attempt is None and never_started(found):
            how = render.outcome(found) or str(found.state)
            say(f"{found.run_alias}/{found.job_id} never ran: {how}")
            return
        if not found.attempt and not follow and output != "json":
            say(f"{found.run_alias}/{found.job_id} has not run: {found.state}")
            return
        if "/" not in id and not id.startswith("@"):
            say(f"{found.run_alias}/{found.job_id}")
        pieces = _pieces(client, found, stream, follow=follow, lines=lines, attempt=attempt)
        try:
            _one(
                pieces,
                found,
                lines=None if follow else lines,
                as_json=output == "json",
                follow=follow,
            )
        except KeyboardInterrupt:
            if found.kind is JobKind.SERVICE:
                name = f"{found.run_alias}/{found.job_id}"
                _detached(f"Service {name} goes on if it is up.", f"titan stop {name}")
            _detached_from(found.run_alias)


def _find(client: TitanClient, name: str) -> JobView | RunView:
    """The job that is meant, or a run with several."""
    if "/" in name:
        return find_job(client, name)
    if not name.startswith("@"):
        try:
            return find_job(client, name)
        except NotFound:
            pass
    with suggesting_runs(client, name):
        run = client.view(name)
    if run.jobs == 1:
        return client.jobs(run.run_id)[0]
    return run


def _pieces(
    client: TitanClient,
    job: JobView,
    stream: LogStream,
    *,
    follow: bool,
    lines: int | None,
    attempt: int | None,
) -> Iterator[LogData]:
    return client.read_log(
        job.run_id,
        job.job_id,
        attempt=attempt or 0,
        stream=stream,
        follow=follow,
        tail_lines=lines or 0,
    )


def _one(
    pieces: Iterator[LogData], job: JobView, *, lines: int | None, as_json: bool, follow: bool
) -> None:
    if as_json:
        _as_json(pieces, job, lines, follow=follow)
        return
    data = (piece.data for piece in pieces)
    put(data if lines is None else _last_lines(data, lines))


def put(data: Iterator[bytes]) -> None:
    """Bytes to stdout as they come: cleaned on a terminal, untouched anywhere else."""
    if not stdout_is_terminal():
        for piece in data:
            _put_bytes(piece)
        return
    cleaner = Cleaner()
    for piece in data:
        sys.stdout.write(_shown(cleaner.feed(piece)))
        sys.stdout.flush()
    sys.stdout.write(_shown(cleaner.finish()))
    sys.stdout.flush()


def _put_bytes(data: bytes) -> None:
    with reader_may_leave():
        sys.stdout.flush()  # what was written as text before goes first
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _shown(text: str) -> str:
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _last_lines(data: Iterator[bytes], count: int) -> Iterator[bytes]:
    """The last `count` lines; the master already left out most of what comes before them."""
    kept: deque[bytes] = deque(maxlen=count)
    rest = b""
    for piece in data:
        *whole, rest = (rest + piece).split(b"\n")
        kept.extend(line + b"\n" for line in whole)
    if rest:
        kept.append(rest)
    return iter(kept)


def _as_json(pieces: Iterator[LogData], job: JobView, lines: int | None, *, follow: bool) -> None:
    if follow:
        for line in whole_lines(job.job_id, pieces):
            _emit_line(job.run_id, job.run_alias, line)
        return
    # Nothing has run, nothing is read: asked for its newest log, the master would refuse.
    data = (piece.data for piece in pieces) if job.attempt else iter(())
    body = b"".join(data if lines is None else _last_lines(data, lines))
    about = {"run": job.run_id, "runAlias": job.run_alias, "job": job.job_id}
    text = body.decode("utf-8", "replace")
    emit("Log", {**about, "attempt": job.attempt or None, "text": text})


def _emit_line(run_id: str, alias: str, line: Line) -> None:
    body = {
        "run": run_id,
        "runAlias": alias,
        "job": line.job,
        "attempt": line.attempt,
        "stream": "stderr" if line.stream == STDERR else "stdout",
        "text": text_of(line.data),
    }
    emit_line("LogLine", body)


def _whole_run(
    client: TitanClient, run: RunView, stream: LogStream, *, follow: bool, as_json: bool
) -> None:
    """Every job of a run, each line after the id of its job."""
    if follow:
        put_lines(client, run, stream, stay=True, as_json=as_json)
        return
    items: list[dict[str, object]] = []
    for job in client.jobs(run.run_id):
        if not job.attempt:
            continue
        data = b"".join(client.log_bytes(job, stream))
        if as_json:
            text = data.decode("utf-8", "replace")
            items.append({"job": job.job_id, "attempt": job.attempt, "text": text})
        else:
            put(f"{job.job_id} | ".encode() + line for line in _ended_lines(data))
    if as_json:
        emit("LogList", {"run": run.run_id, "runAlias": run.alias, "items": items})


def put_lines(
    client: TitanClient,
    run: RunView,
    stream: LogStream = LogStream.BOTH,
    *,
    stay: bool = False,
    as_json: bool = False,
) -> None:
    """The lines of a run's jobs as they come, to its end; ids before them if it has several."""
    many = run.jobs > 1
    terminal = stdout_is_terminal()

    def tell(job: str, question: str) -> None:
        say(f"{job}: {render.asks(run.alias, job, question)}")

    for line in follow_run(client, run.run_id, stream=stream, stay=stay, on_gate=tell):
        if as_json:
            _emit_line(run.run_id, run.alias, line)
            continue
        data = line.data if line.data.endswith(b"\n") or not many else line.data + b"\n"
        if terminal:
            cleaner = Cleaner()
            data = _shown(cleaner.feed(data) + cleaner.finish()).encode(
                sys.stdout.encoding, "replace"
            )
        _put_bytes(f"{line.job} | ".encode() + data if many else data)


def _ended_lines(data: bytes) -> Iterator[bytes]:
    for line in data.splitlines(keepends=True):
        yield line if line.endswith(b"\n") else line + b"\n"


def _detached_from(run: str) -> NoReturn:
    _detached(
        f"Run {run} goes on if it has not ended.", f"titan logs -f {run}   titan cancel {run}"
    )


def _detached(goes_on: str, commands: str) -> NoReturn:
    say(f"\nDetached. {goes_on}  {commands}")
    raise click.exceptions.Exit(INTERRUPTED)
