"""Logs: lines for the viewer, everything for a download, and word that there is more.

Bytes come from the master by position and go on as they come; nothing is kept here but, for logs
that somebody looks at, how far each has come.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from flask import Flask, Response, g, request

from titan_dashboard.link import Kind, Master, Trouble
from titan_dashboard.loglines import Line, Lines, read
from titan_dashboard.pages import Look, Page, Query
from titan_dashboard.views.runs import job as job_context
from titan_dashboard.views.runs import jobs_of
from titan_proto.ids import INSTANCE_MARK
from titan_proto.messages import GetJob, GetRun, JobView, LogData, LogPiece, LogStream, ReadLog
from titan_proto.specs import JobKind
from titan_proto.states import JOB_TERMINAL, JobState

TAIL_LINES: Final = 200_000
"""The viewer begins so many lines before the end: what is older is in the download."""
_SHOWN_LINES: Final = 300
"""Without a script: the last lines."""
_RUN_JOBS: Final = 200
"""Logs that the view of a whole run joins: those of the jobs that come first."""
_MARKS: Final = 2_000
_STREAMS: Final = {"both": LogStream.BOTH, "stdout": LogStream.STDOUT, "stderr": LogStream.STDERR}
_NUMBER_MAX: Final = 2**62
# What moves the cursor, colours or rings: a page that has no script shows letters alone.
_ESCAPES: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|.)?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


class Marks:
    """How far logs that somebody follows have come. Safe to call from any thread."""

    def __init__(self) -> None:
        self._at: dict[tuple[str, str, int], int] = {}
        self._lock = threading.Lock()

    def position(self, look: Look, job: JobView) -> int:
        """Where the newest attempt's log ends by now. Raises Trouble."""
        key = (job.run_id, job.job_id, job.attempt)
        with self._lock:
            known = self._at.get(key)
        ask = ReadLog(
            run=job.run_id,
            job=job.job_id,
            attempt=job.attempt,
            position=known or 0,
            tail_lines=0 if known else 1,
            places=True,
        )
        at = known or 0
        for piece in look.master.stream(look.who, ask):
            at = piece.position
        with self._lock:
            while len(self._at) >= _MARKS:
                self._at.pop(next(iter(self._at)))
            self._at[key] = at
        return at


def clean(text: str) -> str:
    """A line without control sequences."""
    return _ESCAPES.sub("", text)


def stream_of(query: Mapping[str, str]) -> LogStream:
    """Which output is asked for. Raises Trouble."""
    name = query.get("stream", "both")
    if name not in _STREAMS:
        raise Trouble(Kind.MISSING, f"A job has no output {name!r}; it has stdout and stderr.")
    return _STREAMS[name]


def number_of(query: Mapping[str, str], name: str) -> int:
    """A number of the query; 0 where there is none. Raises Trouble."""
    text = query.get(name, "") or "0"
    if not (text.isascii() and text.isdecimal()) or int(text) > _NUMBER_MAX:
        raise Trouble(Kind.MISSING, f"{name}={text[:40]!r} is no number.")
    return int(text)


def lines_of(look: Look, run: str, job: str, query: Mapping[str, str]) -> Lines:
    """Lines from the position that is asked for on. Raises Trouble."""
    at = number_of(query, "at")
    tail = min(number_of(query, "tail"), TAIL_LINES)
    ask = ReadLog(
        run=run,
        job=job,
        attempt=number_of(query, "attempt"),
        stream=stream_of(query),
        position=at,
        tail_lines=0 if at else tail,
        places=True,
    )
    return read(_pieces(look, ask), at)


def _pieces(look: Look, ask: ReadLog) -> Iterator[LogPiece]:
    for piece in look.master.stream(look.who, ask):
        if isinstance(piece, LogPiece):
            yield piece
        else:
            yield _as_piece(piece)


def _as_piece(piece: LogData) -> LogPiece:
    """Of a master of before, which tells no places."""
    return LogPiece(piece.number, piece.stream, piece.position, piece.data, 0, 0, 0)


# -- pages ----------------------------------------------------------------------------------------


def has_log(job: JobView) -> bool:
    """Whether anything can have been printed."""
    return job.kind is not JobKind.GATE and bool(job.attempt)


def make_pages(marks: Marks) -> dict[str, Page]:
    """The pages that have a log; `marks` is what they share."""

    def job_page(look: Look, args: Mapping[str, str], query: Query) -> dict[str, Any]:
        context = job_context(look, args, query)
        job: JobView = context["job"]
        newest = has_log(job) and context["is_newest"]
        at = _mark(look, marks, job) if newest else -1
        entry = [job.job_id, context["at"]["attempt"], job.worker, at]
        entries = [entry] if has_log(job) else []
        return {**context, "stream": query.get("stream", "both"), "marks": _json(entries)}

    def run_log(look: Look, args: Mapping[str, str], query: Query) -> dict[str, Any]:
        view = look.ask(GetRun(run=args["run"]))
        jobs, _ = jobs_of(look, view)
        shown = [job for job in jobs if has_log(job)][:_RUN_JOBS]
        entries = [[job.job_id, job.attempt, job.worker, _mark(look, marks, job)] for job in shown]
        return {
            "run": view,
            "jobs": jobs,
            "culprits": [],
            "role": look.who.role,
            "waiting": [],
            "shown": shown,
            "left_out": sum(map(has_log, jobs)) - len(shown),
            "stream": query.get("stream", "both"),
            "marks": _json(entries),
        }

    return {
        "job": Page(template="job.html", make=job_page, parts=("job_head", "log_marks")),
        "run_log": Page(template="run_log.html", make=run_log, parts=("run_head", "log_marks")),
    }


def _mark(look: Look, marks: Marks, job: JobView) -> int:
    """A number that changes when there is more to read."""
    is_over = job.state in JOB_TERMINAL and job.kind is not JobKind.SERVICE
    if is_over or job.state in {JobState.QUEUED, JobState.BACKOFF}:
        return -1 - job.stdout_bytes - job.stderr_bytes
    try:
        return marks.position(look, job)
    except Trouble as trouble:
        if trouble.kind is Kind.AWAY:
            raise
        return -1  # it has been placed, and nothing was ever stored of it


def _json(entries: Sequence[Sequence[Any]]) -> str:
    return msgspec.json.encode(entries).decode()


def tail_of(look: Look, run: str, job: str, query: Mapping[str, str]) -> list[Line]:
    """The last lines, cleaned, for a page without a script."""
    ask = {**query, "at": "", "tail": str(_SHOWN_LINES)}
    try:
        found = lines_of(look, run, job, ask)
    except Trouble as trouble:
        if trouble.kind is Kind.AWAY:
            raise
        return []
    lines = [*found.lines, *found.open][-_SHOWN_LINES:]
    return [Line(one.stream, one.seen_at_ms, clean(one.text), one.cut) for one in lines]


# -- routes ---------------------------------------------------------------------------------------


def install(app: Flask, master: Master) -> None:
    """Add the routes of bytes."""

    @app.get("/runs/<run>/jobs/<job>/log.json")
    def log_data(run: str, job: str) -> Response:
        found = lines_of(Look(master, g.session.who), run, job, request.args)
        return Response(msgspec.json.encode(found), mimetype="application/json")

    @app.get("/runs/<run>/jobs/<job>/log")
    def log_download(run: str, job: str) -> Response:
        look = Look(master, g.session.who)
        view = look.ask(GetJob(run=run, job=job))
        ask = ReadLog(
            run=view.run_id,
            job=view.job_id,
            attempt=number_of(request.args, "attempt"),
            stream=stream_of(request.args),
        )
        name = f"{view.run_alias}-{view.job_id.replace(INSTANCE_MARK, '-')}"
        if ask.stream is not LogStream.BOTH:
            name += f".{ask.stream.value}"
        return _download(name, (piece.data for piece in look.master.stream(look.who, ask)))

    @app.get("/runs/<run>/log.txt")
    def run_log_download(run: str) -> Response:
        look = Look(master, g.session.who)
        view = look.ask(GetRun(run=run))
        jobs, _ = jobs_of(look, view)
        stream = stream_of(request.args)
        logs = (_prefixed(look, job, stream) for job in jobs if has_log(job))
        return _download(view.alias, (line for log in logs for line in log))


def _prefixed(look: Look, job: JobView, stream: LogStream) -> Iterator[bytes]:
    """A job's lines, each with the job and its worker before it."""
    head = f"{job.job_id} {job.worker} | ".encode()
    rest = b""
    ask = ReadLog(run=job.run_id, job=job.job_id, attempt=job.attempt, stream=stream)
    for piece in look.master.stream(look.who, ask):
        *ended, rest = (rest + piece.data).split(b"\n")
        if ended:
            yield b"".join(head + line + b"\n" for line in ended)
    if rest:
        yield head + rest + b"\n"


def _download(name: str, data: Iterator[bytes]) -> Response:
    # What cannot be read at all is a page that says so, and not half a file.
    first = next(data, b"")
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name)[:150]

    def body() -> Iterator[bytes]:
        yield first
        yield from data

    return Response(
        body(),
        mimetype="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{safe}.log"'},
    )
