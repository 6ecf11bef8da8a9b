"""`titan logs`: bytes as the job wrote them, to a file or a pipe; cleaned for a terminal."""

from __future__ import annotations

import datetime
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

from titan_proto.errors import NotFound
from titan_proto.messages import STDERR, RunView
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
    stdout_encoding,
    stdout_is_terminal,
)
from titan_sdk.cli.failures import INTERRUPTED
from titan_sdk.cli.look import find_job, suggesting_runs
from titan_sdk.cli.sanitize import Cleaner
from titan_sdk.errors import InvalidSpec
from titan_sdk.following import ALL, follow_job, follow_run, job_lines
from titan_sdk.loglines import Wanted, bytes_of, make_wanted, text_of
from titan_sdk.reasons import never_started

if TYPE_CHECKING:
    from titan_proto.messages import JobView
    from titan_sdk.client import TitanClient
    from titan_sdk.loglines import Line


@click.command()
@click.argument("id")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is printed, to the end.")
@click.option("-n", "--lines", type=click.IntRange(min=1), help="Only the last so many lines.")
@click.option(
    "--since",
    metavar="WHEN",
    help="Only what was printed since: a duration such as 10m, or a time such as 14:05.",
)
@click.option("--grep", metavar="REGEX", help="Only lines in which this is found.")
@click.option("--stderr", "only", flag_value="stderr", help="Only what went to stderr.")
@click.option("--stdout", "only", flag_value="stdout", help="Only what went to stdout.")
@click.option("--attempt", type=click.IntRange(min=1), help="Of this attempt, not the newest.")
@click.option("--times", is_flag=True, help="Before each line when it was printed.")
@output_option
@click.pass_obj
def logs(
    settings: Settings,
    id: str,  # noqa: A002 - what the user types
    *,
    follow: bool,
    lines: int | None,
    since: str | None,
    grep: str | None,
    only: str | None,
    attempt: int | None,
    times: bool,
    output: str,
) -> None:
    """Print what a job has printed.

    ID is RUN/JOB, or a job's id alone (that job of the newest run that has it), or a run: then the
    job's id stands before each line. To a file or a pipe every byte comes as it was written; on a
    terminal control sequences are left out.

    \b
    Examples:
      titan logs nightly-1/EXTRACT
      titan logs -f @last
      titan logs TRAIN -n 20 --stderr
      titan logs API --since 10m --grep "ERROR|WARN" --times
      titan logs nightly-1/EXTRACT > extract.log
    """  # noqa: D301 - click reads the backspace
    with settings.client() as client:
        try:
            wanted = make_wanted(
                only or "both",
                attempt=attempt or 0,
                lines=lines or 0,
                since=since,
                grep=grep,
            )
        except InvalidSpec as error:
            raise click.UsageError(f"--{error}") from error
        show = _Show(as_json=output == "json", times=times)
        found = _find(client, id)
        if isinstance(found, RunView):
            if attempt is not None:
                raise click.UsageError(f"{id} has several jobs: name one, as {id}/JOB.")
            try:
                _whole_run(client, found, wanted, show, follow=follow)
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
        try:
            _one(client, found, wanted, show, follow=follow)
        except KeyboardInterrupt:
            if found.kind is JobKind.SERVICE:
                name = f"{found.run_alias}/{found.job_id}"
                _detached(f"Service {name} goes on if it is up.", f"titan stop {name}")
            _detached_from(found.run_alias)


class _Show(NamedTuple):
    """How lines are put out."""

    as_json: bool = False
    times: bool = False


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


def _one(client: TitanClient, job: JobView, wanted: Wanted, show: _Show, *, follow: bool) -> None:
    if show.as_json and not follow:
        _as_json(client, job, wanted)
        return
    if show.as_json or show.times or wanted.grep:
        lines = (
            follow_job(client, job.run_id, job.job_id, wanted)
            if follow
            else job_lines(client, job, wanted)
        )
        for line in lines:
            _put_line(line, job.run_id, job.run_alias, show, named=False)
        return
    pieces = client.read_log(
        job.run_id,
        job.job_id,
        attempt=wanted.attempt,
        stream=wanted.stream,
        follow=follow,
        tail_lines=wanted.lines,
        since_ms=wanted.since_ms,
    )
    data = bytes_of(pieces)
    put(_last_lines(data, wanted.lines) if wanted.lines and not follow else data)


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


def _as_json(client: TitanClient, job: JobView, wanted: Wanted) -> None:
    # Nothing has run, nothing is read: asked for its newest log, the master would refuse.
    has_log = bool(job.attempt or wanted.attempt)
    text = _text(job_lines(client, job, wanted)) if has_log else ""
    about = {"run": job.run_id, "runAlias": job.run_alias, "job": job.job_id}
    emit("Log", {**about, "attempt": wanted.attempt or job.attempt or None, "text": text})


def _text(lines: Iterable[Line]) -> str:
    return b"".join(line.data for line in lines).decode("utf-8", "replace")


def _put_line(line: Line, run_id: str, alias: str, show: _Show, *, named: bool) -> None:
    """A line by itself: `named`, after the id of its job."""
    if show.as_json:
        _emit_line(run_id, alias, line)
        return
    data = line.data
    if (named or show.times) and not data.endswith(b"\n"):
        data += b"\n"
    if stdout_is_terminal():
        cleaner = Cleaner()
        data = _shown(cleaner.feed(data) + cleaner.finish()).encode(stdout_encoding(), "replace")
    before = f"{_clock(line.seen_at_ms)} " if show.times else ""
    _put_bytes(f"{before}{line.job} | ".encode() + data if named else before.encode() + data)


def _clock(at_ms: int) -> str:
    """The local time to the millisecond; as long where it is not known."""
    if not at_ms:
        return f"{'-':<23}"
    at = datetime.datetime.fromtimestamp(at_ms / 1000).astimezone()
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{at_ms % 1000:03d}"


def _emit_line(run_id: str, alias: str, line: Line) -> None:
    body = {
        "run": run_id,
        "runAlias": alias,
        "job": line.job,
        "attempt": line.attempt,
        "stream": "stderr" if line.stream == STDERR else "stdout",
        "offset": line.offset,
        "at": render.rfc3339(line.seen_at_ms),
        "dropped": line.dropped,
        "text": text_of(line.data),
    }
    emit_line("LogLine", body)


def _whole_run(
    client: TitanClient, run: RunView, wanted: Wanted, show: _Show, *, follow: bool
) -> None:
    """Every job of a run, each line after the id of its job."""
    if follow:
        _put_lines(client, run, wanted, show, stay=True)
        return
    items: list[dict[str, object]] = []
    for job in client.jobs(run.run_id):
        if not job.attempt:
            continue
        lines = job_lines(client, job, wanted)
        if show.as_json:
            items.append({"job": job.job_id, "attempt": job.attempt, "text": _text(lines)})
            continue
        for line in lines:
            _put_line(line, run.run_id, run.alias, show, named=True)
    if show.as_json:
        emit("LogList", {"run": run.run_id, "runAlias": run.alias, "items": items})


def put_lines(client: TitanClient, run: RunView, *, as_json: bool = False) -> None:
    """The lines of a run's jobs as they come, to its end; ids before them if it has several."""
    _put_lines(client, run, ALL, _Show(as_json=as_json), stay=False)


def _put_lines(
    client: TitanClient, run: RunView, wanted: Wanted, show: _Show, *, stay: bool
) -> None:
    def tell(job: str, question: str) -> None:
        say(f"{job}: {render.asks(run.alias, job, question)}")

    for line in follow_run(client, run.run_id, wanted, stay=stay, on_gate=tell):
        _put_line(line, run.run_id, run.alias, show, named=run.jobs > 1)


def _detached_from(run: str) -> NoReturn:
    _detached(
        f"Run {run} goes on if it has not ended.", f"titan logs -f {run}   titan cancel {run}"
    )


def _detached(goes_on: str, commands: str) -> NoReturn:
    say(f"\nDetached. {goes_on}  {commands}")
    raise click.exceptions.Exit(INTERRUPTED)
