"""Runs: the list with its timeline, one run as graph, Gantt chart and table, and one job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from titan_dashboard.graph import HEIGHT, WIDTH, Box, Drawing, draw
from titan_dashboard.link import Kind, Trouble
from titan_dashboard.pages import Look, Page, Query
from titan_dashboard.timeline import Bar, Scale, job_bars, ready_times, run_bars, step_of
from titan_dashboard.words import mark
from titan_proto.limits import PAGE_ITEMS
from titan_proto.messages import (
    AttemptView,
    GetJob,
    GetRun,
    GetStats,
    JobView,
    ListAttempts,
    ListJobs,
    ListRuns,
    RunView,
)
from titan_proto.specs import JobSpec, LaunchKind
from titan_proto.states import JOB_TERMINAL, RUN_TERMINAL, ExitReason, JobState, RunState

ROWS: Final = 50
_SCANNED: Final = 5_000
"""Runs that one view of a filtered list looks through; a link goes on from there."""
_SCAN_PAGE: Final = 250
_LANE_JOBS: Final = 200
"""Jobs of a run that its line in the list is drawn from."""
_JOBS: Final = 2_000
"""Jobs of a run that its page shows."""
_TRIES_ASKED: Final = 60
"""Jobs that were tried again whose earlier tries are drawn."""
_SINCE: Final = {"": 0, "1h": 3_600_000, "24h": 86_400_000, "7d": 604_800_000, "30d": 2_592_000_000}
_STATES: Final = (RunState.ACTIVE, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


class Lane(Struct, frozen=True, kw_only=True):
    """A line of a timeline."""

    run: RunView
    bars: Sequence[Bar]


class Row(Struct, frozen=True, kw_only=True):
    """A line of a Gantt chart."""

    job: JobView
    bars: Sequence[Bar]


# -- the list -------------------------------------------------------------------------------------


def runs(look: Look, args: Mapping[str, str], query: Query) -> dict[str, Any]:
    """Executions, newest first, each with its line of time."""
    del args
    state, name = query.get("state", ""), query.get("q", "").strip()
    since = query.get("since", "")
    now_ms = look.kept(GetStats(), 0.5).at_ms
    found, cursor, looked = _filtered(look, query, now_ms)
    lanes, scale = _lanes(look, found, now_ms)
    kept = {"state": state, "q": name, "since": since}
    return {
        "lanes": lanes,
        "scale": scale,
        "older": {**kept, "cursor": cursor} if cursor else None,
        "looked": looked,
        "state": state,
        "name": name,
        "since": since,
        "states": [str(one) for one in _STATES],
        "spans": [one for one in _SINCE if one],
        "is_filtered": bool(state or name or since),
        "is_first": not query.get("cursor"),
    }


def _filtered(look: Look, query: Query, now_ms: int) -> tuple[list[RunView], str, int]:
    """The runs that fit, where the list goes on, and how many were looked at."""
    state, name = query.get("state", ""), query.get("q", "").strip().lower()
    after = now_ms - _SINCE[since] if (since := query.get("since", "")) in _SINCE and since else 0
    cursor = query.get("cursor", "")
    is_plain = not (state or name or after)
    found: list[RunView] = []
    looked = 0
    while True:
        limit = ROWS if is_plain else _SCAN_PAGE
        ask = ListRuns(ended=state != "ACTIVE", cursor=cursor, limit=limit)
        page = look.ask(ask) if not cursor else look.kept(ask, 5.0)
        looked += len(page.runs)
        found += [
            run
            for run in page.runs
            if (not state or str(run.state) == state)
            and (not name or name in run.alias.lower() or name in run.name.lower())
            and run.submitted_at_ms >= after
        ]
        cursor = page.cursor
        # Newest first: once one is too old, all that follow are.
        is_past = bool(page.runs) and page.runs[-1].submitted_at_ms < after
        if is_past and not any(run.state is RunState.ACTIVE for run in page.runs):
            return found, "", looked
        if is_plain or not cursor or len(found) >= ROWS or looked >= _SCANNED:
            return found, cursor, looked


def _lanes(look: Look, found: Sequence[RunView], now_ms: int) -> tuple[list[Lane], Scale]:
    begin = min((run.submitted_at_ms for run in found), default=now_ms)
    is_live = any(run.state is RunState.ACTIVE for run in found)
    end = max((run.ended_at_ms for run in found), default=now_ms)
    if is_live:
        step = step_of(now_ms - begin)
        end = now_ms // step * step + step
    lanes = []
    for run in found:
        jobs = _some_jobs(look, run)
        bars = run_bars(run, jobs, _tries(look, run, jobs, 4), end)
        lanes.append(Lane(run=run, bars=bars))
    return lanes, Scale(begin_ms=begin, end_ms=max(end, begin + 1))


def _some_jobs(look: Look, run: RunView) -> Sequence[JobView]:
    is_over = run.state in RUN_TERMINAL
    ask = ListJobs(run=run.run_id, limit=_LANE_JOBS)
    return look.kept(ask, 60.0 if is_over else 0.8).jobs


def _tries(
    look: Look, run: RunView, jobs: Sequence[JobView], most: int
) -> dict[str, Sequence[AttemptView]]:
    """Every try at those jobs that were tried more than once."""
    again = [job for job in jobs if job.attempt > 1][:most]
    found: dict[str, Sequence[AttemptView]] = {}
    for job in again:
        ask = ListAttempts(run=run.run_id, job=job.job_id)
        found[job.job_id] = look.kept(ask, 60.0 if job.state in JOB_TERMINAL else 0.8).attempts
    return found


# -- one run --------------------------------------------------------------------------------------


class Node(Struct, frozen=True, kw_only=True):
    """A box of the graph, with what is in it."""

    box: Box
    job: JobView
    """The only one, or the one to look at first."""
    counts: Mapping[str, int]
    """By state, of a box that stands for several."""


_WORST_FIRST: Final = (
    JobState.FAILED,
    JobState.RUNNING,
    JobState.BACKOFF,
    JobState.WAITING,
    JobState.PLACED,
    JobState.CANCELLING,
    JobState.QUEUED,
    JobState.SCHEDULED,
    JobState.BLOCKED,
    JobState.CANCELLED,
    JobState.SKIPPED,
    JobState.SUCCEEDED,
)


def run(look: Look, args: Mapping[str, str], query: Query) -> dict[str, Any]:
    """One run."""
    view = look.ask(GetRun(run=args["run"]))
    jobs, has_more = jobs_of(look, view)
    stats = look.kept(GetStats(), 0.5)
    tab = query.get("tab", "graph")
    context: dict[str, Any] = {
        "run": view,
        "jobs": jobs,
        "has_more": has_more,
        "role": look.who.role,
        "culprits": [job for job in jobs if job.state is JobState.FAILED][:3],
        "waiting": [job for job in jobs if job.state is JobState.WAITING][:3],
        "running": [job for job in jobs if job.state is JobState.RUNNING][:3],
    }
    if tab == "gantt":
        context |= _gantt(look, view, jobs, stats.at_ms)
    elif tab not in {"jobs", "log"}:
        context |= _graph(jobs, is_whole=not has_more)
    return context


def jobs_of(look: Look, view: RunView) -> tuple[list[JobView], bool]:
    """A run's jobs, and whether it has more than a page shows."""
    is_over = view.state in RUN_TERMINAL
    jobs: list[JobView] = []
    cursor = ""
    while len(jobs) < _JOBS:
        ask = ListJobs(run=view.run_id, cursor=cursor, limit=PAGE_ITEMS)
        page = look.kept(ask, 5.0) if is_over else look.ask(ask)
        jobs += page.jobs
        cursor = page.cursor
        if not cursor:
            break
    return jobs, bool(cursor)


def _graph(jobs: Sequence[JobView], *, is_whole: bool) -> dict[str, Any]:
    drawing: Drawing | None = None
    if is_whole:
        drawing = draw({job.job_id: job.dependencies for job in jobs})
    if drawing is None:
        return {"drawing": None}
    known = {job.job_id: job for job in jobs}
    nodes = []
    heads: dict[str, str] = {}
    for box in drawing.boxes:
        members = [known[job_id] for job_id in box.jobs]
        first = min(members, key=lambda job: _rank(job.state))
        counts: dict[str, int] = {}
        for job in members:
            counts[str(job.state)] = counts.get(str(job.state), 0) + 1
        heads[box.jobs[0]] = mark(first.state).tone
        nodes.append(Node(box=box, job=first, counts=counts))
    return {"drawing": drawing, "nodes": nodes, "tones": heads, "w": WIDTH, "h": HEIGHT}


def _rank(state: JobState) -> int:
    return _WORST_FIRST.index(state) if state in _WORST_FIRST else 0


def _gantt(look: Look, view: RunView, jobs: Sequence[JobView], now_ms: int) -> dict[str, Any]:
    begin = view.submitted_at_ms
    step = step_of(now_ms - begin)
    end = view.ended_at_ms or now_ms // step * step + step
    tries = _tries(look, view, jobs, _TRIES_ASKED)
    ready = ready_times(view, jobs)
    rows = [
        Row(
            job=job,
            bars=job_bars(job, tries.get(job.job_id, ()), ready.get(job.job_id, 0), end),
        )
        for job in jobs
    ]
    rows.sort(key=lambda row: row.bars[0].begin_ms if row.bars else end + 1)
    return {"rows": rows[:500], "scale": Scale(begin_ms=begin, end_ms=max(end, begin + 1))}


# -- one job --------------------------------------------------------------------------------------


def job(look: Look, args: Mapping[str, str], query: Query) -> dict[str, Any]:
    """One job, and one of its attempts."""
    found = look.ask(ListAttempts(run=args["run"], job=args["job"]))
    wanted = query.get("attempt", "")
    chosen = found.attempts[-1] if found.attempts else None
    if wanted:
        fits = [one for one in found.attempts if str(one.number) == wanted]
        if not fits:
            raise Trouble(
                Kind.MISSING,
                f"{found.job.run_alias}/{found.job.job_id} has no attempt {wanted!r}; "
                f"its newest is {found.job.attempt}.",
            )
        chosen = fits[0]
    return {
        "job": found.job,
        "attempts": found.attempts,
        "role": look.who.role,
        "chosen": chosen,
        "spec": found.spec,
        "command": command_of(found.spec),
        "is_newest": chosen is None or chosen.number == found.job.attempt,
        "at": {
            "run": found.job.run_id,
            "job": found.job.job_id,
            "attempt": chosen.number if chosen else 0,
        },
    }


def command_of(spec: JobSpec | None) -> str:
    """What is executed, in a line."""
    if spec is None:
        return ""
    launch = spec.launch
    words = {
        LaunchKind.SHELL: [launch.shell],
        LaunchKind.COMMAND: list(launch.command),
    }.get(launch.kind, [launch.script])
    return " ".join([*words, *launch.args])


# -- finding --------------------------------------------------------------------------------------


def find(look: Look, text: str) -> str:
    """The path of what is called so: a run, a job of a run, a job, a worker. Raises Trouble."""
    name, _, job_id = text.partition("/")
    if job_id:
        view = look.ask(GetJob(run=name, job=job_id))
        return f"/runs/{view.run_id}/jobs/{view.job_id}"
    for attempt in (_find_run, _find_job, _find_worker):
        path = attempt(look, text)
        if path:
            return path
    raise Trouble(Kind.MISSING, f"No run, job or worker is called {text[:100]!r}.")


def _find_run(look: Look, text: str) -> str:
    try:
        return f"/runs/{look.ask(GetRun(run=text)).run_id}"
    except Trouble as trouble:
        if trouble.kind is Kind.CONFLICT:
            return f"/runs?q={text}"
        if trouble.kind is not Kind.MISSING:
            raise
        return ""


def _find_job(look: Look, text: str) -> str:
    try:
        view = look.ask(GetJob(job=text))
    except Trouble as trouble:
        if trouble.kind is not Kind.MISSING:
            raise
        return ""
    return f"/runs/{view.run_id}/jobs/{view.job_id}"


def _find_worker(look: Look, text: str) -> str:
    workers = look.ask(GetStats()).workers
    names = {str(one.port) for one in workers} | {f"{one.host}:{one.port}" for one in workers}
    return f"/workers/{text}" if text.strip("[]") in names else ""


NEVER_STARTED: Final = frozenset({ExitReason.PARENT_FAILED, ExitReason.TAKEN_OVER})

PAGES: Final = {
    "runs": Page(template="runs.html", make=runs, parts=("runs",)),
    "run": Page(
        template="run.html",
        make=run,
        parts=("run_head",),
        tabs={
            "graph": ("run_graph",),
            "gantt": ("run_gantt",),
            "jobs": ("run_jobs",),
        },
    ),
}
