"""Views → what people read and what programs read.

Decides looks only: symbols, tables, the stats screen, JSON objects. Never asks a master anything.
JSON: every object has `kind` and `apiVersion` where it stands alone; times are RFC 3339 in UTC,
durations seconds as numbers, what is absent is null.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from titan_proto.messages import (
    FileOrigin,
    FileVersion,
    FileView,
    GateView,
    JobChange,
    JobView,
    Room,
    RunView,
    Scaling,
    ScheduleView,
    ServiceView,
    SiblingView,
    Stats,
    Traffic,
    UsagePoint,
    UsageView,
    WorkerDetail,
    WorkerUsageView,
    WorkerView,
)
from titan_proto.specs import JobKind, Resources, Shape
from titan_proto.states import ExitReason, JobState, OpenEnum, ServiceState, WorkerState
from titan_sdk.cli.sanitize import clean
from titan_sdk.reasons import how_ended

SYMBOLS: Final = {
    "ACTIVE": ("▶", ">", "yellow"),
    "RUNNING": ("▶", ">", "yellow"),
    "STARTING": ("▶", ">", "yellow"),
    "UNHEALTHY": ("▶", ">", "yellow"),
    "PLACED": ("▶", ">", "yellow"),
    "SUCCEEDED": ("✓", "+", "green"),
    "HEALTHY": ("✓", "+", "green"),
    "ONLINE": ("✓", "+", "green"),
    "FAILED": ("✕", "x", "red"),
    "LOST": ("?", "?", "red"),
    "SILENT": ("?", "?", "red"),
    "DRAINING": ("⊘", "-", None),
    "SKIPPED": ("⊘", "-", None),
    "CANCELLED": ("⊘", "-", None),
    "CANCELLING": ("⊘", "-", None),
    "STOPPING": ("⊘", "-", None),
    "STOPPED": ("⊘", "-", None),
    "RETIRED": ("⊘", "-", None),
    "QUEUED": ("…", ".", None),
    "BLOCKED": ("…", ".", None),
    "SCHEDULED": ("…", ".", None),
    "BACKOFF": ("↻", "~", "yellow"),
    "WAITING": ("⏸", "=", "magenta"),
}

_CAME: Final = {
    FileOrigin.DROPPED: "dropped by hand",
    FileOrigin.UPLOADED: "uploaded",
    FileOrigin.STAGED: "staged by a run",
}
_GAP: Final = "  "
_QUESTION_CHARS: Final = 60
_ATTEMPTS_SHOWN: Final = 8
"""So many of a worker's attempts are shown with their use, the largest first; JSON has all."""
"""So much of a gate's question stands in a line; `titan show` has all of it."""


class Look:
    """How to draw on one stream: with symbols or ASCII, with colours or none."""

    def __init__(self, *, symbols: bool, color: bool) -> None:
        self.symbols = symbols
        self.color = color

    def state(self, state: OpenEnum | str) -> str:
        """A state as symbol and word."""
        word = str(state)
        symbol, plain, color = SYMBOLS.get(word, ("?", "?", None))
        text = f"{symbol if self.symbols else plain} {word}"
        return click.style(text, fg=color) if self.color and color else text

    def bold(self, text: str) -> str:
        """A heading."""
        return click.style(text, bold=True) if self.color else text


class Table:
    """Rows under headings. Where it would not fit, columns go in the order of `droppable`."""

    def __init__(self, headings: Sequence[str], droppable: Sequence[str] = ()) -> None:
        self.headings = list(headings)
        self.droppable = list(droppable)
        self.rows: list[list[str]] = []

    def add(self, *cells: str) -> None:
        """One row: of what says more (a service's last words), its first line."""
        self.rows.append([first_line(cell) for cell in cells])

    def text(self, look: Look, width: int | None) -> tuple[str, list[str]]:
        """The table, and the columns left out to fit `width` (None: all that there is)."""
        kept = list(range(len(self.headings)))
        dropped: list[str] = []
        sizes = [
            max([len(self.headings[n]), *(len(click.unstyle(row[n])) for row in self.rows)])
            for n in kept
        ]
        for name in self.droppable:
            if width is None or sum(sizes[n] for n in kept) + len(_GAP) * (len(kept) - 1) <= width:
                break
            kept.remove(self.headings.index(name))
            dropped.append(name)
        lines = [_GAP.join(self.headings[n].ljust(sizes[n]) for n in kept).rstrip()]
        lines[0] = look.bold(lines[0])
        for row in self.rows:
            cells = (row[n] + " " * (sizes[n] - len(click.unstyle(row[n]))) for n in kept)
            lines.append(_GAP.join(cells).rstrip())
        return "\n".join(lines), dropped


# -- words ----------------------------------------------------------------------------------------


def first_line(text: str) -> str:
    """All of it, nearly always."""
    return text.partition("\n")[0]


def duration(seconds: float) -> str:
    """`0.8s`, `14.0s`, `1m 04s`, `2h 05m`, `3d 04h`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole // 60 % 60:02}m"
    return f"{whole // 86_400}d {whole // 3600 % 24:02}h"


def rfc3339(at_ms: int) -> str | None:
    """A time in UTC; None for "not yet"."""
    if not at_ms:
        return None
    at = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local_time(at_ms: int) -> str:
    """A time as the reader's clock shows it."""
    if not at_ms:
        return "-"
    return datetime.datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def took(start_ms: int, end_ms: int, now_ms: int) -> str:
    """How long something took, or has been going on."""
    if not start_ms:
        return "-"
    return duration(max(0, (end_ms or now_ms) - start_ms) / 1000)


def memory(worker: WorkerView) -> str:
    """How much of its machine's memory is in use."""
    used, total = (size / 1024**3 for size in (worker.memory_used_bytes, worker.memory_total_bytes))
    return f"{used:.1f} of {total:.1f} GiB"


def outcome(view: JobView) -> str:
    """How a job ended, in words; empty while it has not."""
    if view.reason is ExitReason.UNKNOWN:
        return clean(view.message)
    good = view.reason is ExitReason.EXITED and not view.exit_code
    return "" if good and view.state is not JobState.FAILED else clean(how_ended(view))


def job_notes(view: JobView) -> str:
    """What a row says about a job besides its state."""
    if view.gate is not None and view.state is JobState.WAITING:
        return asks(view.run_alias, view.job_id, view.gate.message)
    if view.waits_for:
        return f"waits for {', '.join(view.waits_for)}"
    if view.kind is JobKind.SERVICE and view.port and not outcome(view):
        return f"port {view.port}"
    return "; ".join(part for part in (outcome(view), tries(view)) if part)


def tries(view: JobView) -> str:
    """How often a job has been tried in vain; empty where nobody would ask."""
    said = []
    if view.failures and (view.retries or view.state is JobState.BACKOFF):
        said.append(f"failed {view.failures} of {view.retries + 1} times")
    if view.lost:
        said.append(f"{view.lost} lost")
    if view.state is JobState.BACKOFF:
        said.append(f"next try {local_time(view.ready_at_ms)}")
    return ", ".join(said)


def asks(run: str, job: str, question: str) -> str:
    """The command that an open gate waits for, and its question, which a narrow line may cut."""
    short = " ".join(clean(question).split())
    if len(short) > _QUESTION_CHARS:
        short = short[: _QUESTION_CHARS - 1] + "…"
    return f"approval: titan approve {run}/{job}  {short}".rstrip()


def decision(view: GateView) -> str:
    """What became of a gate: `approved by 5f3a`."""
    by = f" by {clean(view.decided_by)}" if view.decided_by else ""
    return f"{view.reason.value.lower()}{by}"


# -- tables ---------------------------------------------------------------------------------------


def runs_table(runs: Sequence[RunView], look: Look, now_ms: int) -> Table:
    """One line a run."""
    table = Table(
        ("RUN", "STATE", "JOBS", "TIME", "SUBMITTED", "NAME"), ("SUBMITTED", "NAME", "TIME")
    )
    for run in runs:
        table.add(
            run.alias,
            look.state(run.state),
            f"{done_jobs(run)}/{run.jobs}",
            took(run.submitted_at_ms, run.ended_at_ms, now_ms),
            local_time(run.submitted_at_ms),
            clean(run.name),
        )
    return table


def jobs_table(jobs: Sequence[JobView], look: Look, now_ms: int) -> Table:
    """One line a job."""
    table = Table(
        ("JOB", "STATE", "ATTEMPT", "WORKER", "TIME", "NOTE"), ("ATTEMPT", "WORKER", "TIME")
    )
    for job in jobs:
        table.add(
            cell_named(job),
            look.state(job.state),
            str(job.attempt or "-"),
            job.worker or "-",
            took(job.started_at_ms, job.ended_at_ms, now_ms),
            job_notes(job),
        )
    return table


def cell_named(job: JobView) -> str:
    """A job's name, and of a cell of a matrix its values."""
    values = cell_values(job)
    return f"{job.job_id} ({values})" if values else job.job_id


def cell_values(job: JobView) -> str:
    """Of a cell of a matrix its values, in words; empty for other jobs."""
    cell = {} if job.shape is None else job.shape.cell
    text = ", ".join(f"{key}={value}" for key, value in cell.items())
    return clean(text if len(text) <= CELL_CHARS else text[: CELL_CHARS - 1] + "…")


CELL_CHARS: Final = 60
"""Of the values of a cell so much is shown where there are others beside it."""


def dead_table(jobs: Sequence[JobView], look: Look) -> Table:
    """One line a job that failed for good."""
    table = Table(
        ("RUN", "JOB", "STATE", "ATTEMPTS", "ENDED", "WHY"), ("ENDED", "STATE", "ATTEMPTS")
    )
    for job in jobs:
        table.add(
            job.run_alias,
            job.job_id,
            look.state(job.state),
            str(job.attempt or "-"),
            local_time(job.ended_at_ms),
            outcome(job),
        )
    return table


def gates_table(gates: Sequence[GateView], now_ms: int) -> Table:
    """One line an open gate."""
    table = Table(("GATE", "WAITS", "LEFT", "QUESTION"), ("LEFT", "WAITS"))
    for gate in gates:
        left = duration(max(0, gate.expires_at_ms - now_ms) / 1000) if gate.expires_at_ms else "-"
        table.add(
            f"{gate.run_alias}/{gate.job_id}",
            took(gate.opened_at_ms, 0, now_ms),
            left,
            " ".join(clean(gate.message).split()),
        )
    return table


def files_table(files: Sequence[FileView]) -> Table:
    """Names with what they stand for now."""
    table = Table(["NAME", "SIZE", "HASH", "WHEN", "CAME", "VERSIONS"], ["WHEN", "HASH"])
    for view in files:
        now = view.current
        cells = ("-", "-", "-", "removed") if now is None else _version_cells(now)
        table.add(clean(view.name), *cells, str(len(view.versions)))
    return table


def versions_table(view: FileView) -> Table:
    """All that is kept of a name, newest first."""
    table = Table(["VERSION", "SIZE", "HASH", "WHEN", "CAME"], ["WHEN"])
    if view.current is not None:
        table.add("now", *_version_cells(view.current))
    for number, one in enumerate(view.versions, 1):
        table.add(f"-{number}", *_version_cells(one))
    return table


def _version_cells(one: FileVersion) -> tuple[str, str, str, str]:
    came = _CAME.get(one.origin, str(one.origin).lower())
    return f"{one.size_bytes:,}", one.digest[:12] or "-", local_time(one.at_ms), came


def services_table(services: Sequence[ServiceView], look: Look, now_ms: int) -> Table:
    """One line a service; its restarts, and why it ended or what it waits for, where one has any."""
    again = ("RESTARTS",) if any(one.restarts for one in services) else ()
    why = ("OUTCOME",) if any(service_outcome(one) for one in services) else ()
    head = ("SERVICE", "STATE", "PORT", "WORKER", "UP", "RUN", *again, *why)
    table = Table(head, ("RUN", "UP", "WORKER"))
    for one in services:
        table.add(
            clean(instance_name(one)),
            look.state(one.state),
            str(one.port or "-"),
            one.worker or "-",
            took(one.healthy_at_ms, one.ended_at_ms, now_ms) if one.healthy_at_ms else "-",
            one.run_alias,
            *(str(one.restarts) for _ in again),
            *(service_outcome(one) or "-" for _ in why),
        )
    return table


def instance_name(service: ServiceView) -> str:
    """A service's name; of an instance beside the first, its own."""
    return f"{service.name.rpartition('/')[0]}/{service.job_id}"


def service_outcome(service: ServiceView) -> str:
    """How it ended, or what it waits for; empty while it is up."""
    if service.state is ServiceState.STARTING and service.message:
        return clean(service.message)
    return clean(how_ended(service)) if service.ended_at_ms else ""


def done_jobs(run: RunView) -> int:
    """Jobs of a run that have come to their end."""
    ended = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED")
    return sum(run.counts.get(state, 0) for state in ended)


def fields(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values below each other; what has no value is left out."""
    size = max(len(name) for name, _ in pairs) + 2
    return "\n".join(f"{name + ':':<{size}}{value}" for name, value in pairs if value)


# -- the stats screen -----------------------------------------------------------------------------


def stats_screen(stats: Stats, *, symbols: bool, scaling: Scaling | None = None) -> str:
    """The cluster at a glance, line for line as the manual shows it.

    A worker that another one has spawned stands under that one.
    """
    shown = [worker for worker in stats.workers if worker.state is not WorkerState.RETIRED]
    active = sum(worker.state is WorkerState.ONLINE for worker in shown)
    lines = [
        "--- TITAN SYSTEM MONITOR ---",
        f"{'Active Workers:':<19}{active}",
        f"{'Execution Queue:':<19}{stats.queued} jobs",
    ]
    # Lines that the manual does not have stay away while they would say nothing.
    if stats.running:
        lines.append(f"{'Running:':<19}{stats.running} jobs")
    if stats.delayed:
        lines.append(f"{'Delayed:':<19}{stats.delayed} jobs")
    if stats.backoff:
        lines.append(f"{'Retrying:':<19}{stats.backoff} jobs")
    if stats.waiting:
        lines.append(f"{'Waiting (approval):':<19} {stats.waiting} gates")
    lines += [
        f"{'Blocked (DAG):':<19}{stats.blocked} jobs",
        "-------------------------------",
        "Worker Status:",
    ]
    return "\n".join([*lines, *_worker_tree(shown, scaling, symbols=symbols)])


def _worker_tree(shown: list[WorkerView], scaling: Scaling | None, *, symbols: bool) -> list[str]:
    """Every worker, with those that it has spawned under it; who has no parent here stands by itself."""
    ports = [worker.port for worker in shown]
    known = {worker.worker_id for worker in shown}
    siblings = {one.worker_id: one for one in (() if scaling is None else scaling.siblings)}
    children: dict[str, list[WorkerView]] = {}
    for worker in sorted(shown, key=lambda one: (one.port, one.host)):
        sibling = siblings.get(worker.worker_id)
        parent = sibling.parent_id if sibling is not None and sibling.parent_id in known else ""
        children.setdefault(parent, []).append(worker)
    asked = () if scaling is None else scaling.asked
    lines: list[str] = []
    todo = [(worker, 0) for worker in reversed(children.get("", []))]
    while todo:
        worker, depth = todo.pop()
        sibling = siblings.get(worker.worker_id)
        alone = ports.count(worker.port) == 1
        head, *services = _worker_lines(worker, alone=alone, symbols=symbols)
        if sibling is not None:
            head += f" | {_born(sibling, under_parent=depth > 0)}"
        own = [head, *services]
        own += [
            f"    {'└──' if symbols else '`--'} [{one.port}] is being spawned: {clean(one.cause)}"
            for one in asked
            if one.parent == f"{worker.host}:{worker.port}"
        ]
        lines += [f"{'    ' * depth}{line}" for line in own]
        todo += [(child, depth + 1) for child in reversed(children.get(worker.worker_id, []))]
    return lines


def _born(sibling: SiblingView, *, under_parent: bool) -> str:
    """Why a spawned worker is there, and whether it is about to go."""
    by = "" if under_parent else f" by {clean(sibling.parent)}"
    leaving = ", told to leave: it was idle" if sibling.dismissed else ""
    return f"spawned{by}: {clean(sibling.cause)}{leaving}"


def _worker_lines(worker: WorkerView, *, alone: bool, symbols: bool) -> list[str]:
    name = str(worker.port) if alone else f"{worker.host}:{worker.port}"
    share = round(100 * worker.used / worker.slots) if worker.slots else 0
    load = f"{worker.used}/{worker.slots} ({share}%)"
    state = ""
    if worker.state is not WorkerState.ONLINE or worker.link_down_ms:
        state = f" | {worker_state(worker)}"
    bullet, branch = (" •", "└── ⚙️ ") if symbols else (" *", "`-- ")
    skills = ", ".join(worker.skills)
    head = f"{bullet} [{name}] Load: {load:<13}| Skills: [{skills}]{state}"
    return [head, *(f"    {branch}Service ID: {clean(service)}" for service in worker.services)]


def worker_state(worker: WorkerView) -> str:
    """A worker's state, and what a person asks next: since when it has not been there."""
    if worker.state in (WorkerState.ONLINE, WorkerState.DRAINING):
        if worker.state is WorkerState.DRAINING and not worker.link_down_ms:
            left = what_is_left(worker)
            return f"{worker.state}, {left} left" if left else str(worker.state)
        if not worker.link_down_ms:
            return str(worker.state)
        return f"{worker.state}, link down {duration(worker.link_down_ms / 1000)}"
    return f"{worker.state}, last seen {duration(worker.seen_ms_ago / 1000)} ago"


def what_is_left(worker: WorkerView) -> str:
    """What is still on a worker, in numbers; empty if nothing is."""
    services = len(worker.services)
    tasks = max(0, worker.used - services)
    counts = ((tasks, "task"), (services, "service"))
    return ", ".join(f"{n} {what}{'s' if n > 1 else ''}" for n, what in counts if n)


# -- JSON -----------------------------------------------------------------------------------------


def run_json(run: RunView) -> dict[str, Any]:
    """A run as an object."""
    return {
        "id": run.run_id,
        "alias": run.alias,
        "name": run.name,
        "state": run.state.value,
        "submittedAt": rfc3339(run.submitted_at_ms),
        "endedAt": rfc3339(run.ended_at_ms),
        "jobs": run.jobs,
        "jobsByState": dict(sorted(run.counts.items())),
        "rerunOf": run.rerun_of or None,
        "schedule": None if run.fired is None else run.fired.schedule,
        "scheduledFor": None if run.fired is None else rfc3339(run.fired.slot_at_ms),
    }


_USUAL_SHAPE: Final = Shape()


def job_json(job: JobView) -> dict[str, Any]:
    """A job as an object."""
    ended = job.reason is not ExitReason.UNKNOWN
    return {
        "run": job.run_id,
        "runAlias": job.run_alias,
        "id": job.job_id,
        "type": job.kind.value,
        "state": job.state.value,
        "attempt": job.attempt or None,
        "attemptState": job.attempt_state.value if job.attempt else None,
        "worker": job.worker or None,
        "reason": job.reason.value if ended else None,
        "exitCode": job.exit_code if job.reason is ExitReason.EXITED else None,
        "signal": job.signal or None,
        "message": job.message or None,
        "lostAttempts": job.lost,
        "failedAttempts": job.failures,
        "retries": job.retries,
        "port": job.port or None,
        "dependencies": list(job.dependencies),
        "waitsFor": list(job.waits_for),
        "readyAt": rfc3339(job.ready_at_ms),
        "placedAt": rfc3339(job.placed_at_ms),
        "startedAt": rfc3339(job.started_at_ms),
        "endedAt": rfc3339(job.ended_at_ms),
        "stdoutBytes": job.stdout_bytes,
        "stderrBytes": job.stderr_bytes,
        "gate": None if job.gate is None else gate_json(job.gate),
        "outputs": dict(job.outputs),
        "resources": resources_json(job.resources),
        **_shape_json(job.shape or _USUAL_SHAPE),
    }


def _shape_json(shape: Shape) -> dict[str, Any]:
    """What a run says of a job beside its definition, as keys of the job."""
    return {
        "trigger": shape.trigger.value.lower(),
        "when": shape.when or None,
        "matrix": dict(shape.cell) or None,
        "cellOf": shape.cell_of or None,
    }


def change_json(change: JobChange) -> dict[str, Any]:
    """A change of a job's state as an object; the last one of a run has the run's state."""
    ended = change.reason is not ExitReason.UNKNOWN
    return {
        "run": change.run_id,
        "at": rfc3339(change.at_ms),
        "id": change.job_id or None,
        "state": change.state.value if change.job_id else None,
        "attempt": change.attempt or None,
        "worker": change.worker or None,
        "reason": change.reason.value if ended else None,
        "exitCode": change.exit_code if change.reason is ExitReason.EXITED else None,
        "signal": change.signal or None,
        "message": change.message or None,
        "port": change.port or None,
        "runState": change.run_state.value,
    }


def resources_json(asked: Resources | None) -> dict[str, Any] | None:
    """The limits that were asked for as an object; null where there are none."""
    if asked is None:
        return None
    return {
        "cpuCores": asked.cpu_milli / 1000 if asked.cpu_milli else None,
        "memoryBytes": asked.memory_bytes or None,
        "pids": asked.pids or None,
    }


def limits_asked(asked: Resources | None) -> str:
    """For people; empty where nothing was asked for."""
    if asked is None:
        return ""
    parts = (
        (asked.cpu_milli, f"cpu {asked.cpu_milli / 1000:g}"),
        (asked.memory_bytes, f"memory {asked.memory_bytes / 1024**2:.5g} MiB"),
        (asked.pids, f"pids {asked.pids}"),
    )
    return ", ".join(text for value, text in parts if value)


def limits_held(asked: Resources | None, worker_limits: str) -> str:
    """What a worker that says this of itself makes of such limits, in words; empty where none are."""
    wanted = limits_asked(asked)
    if not wanted or not worker_limits:
        return ""
    if not worker_limits.startswith("cgroups"):
        return (
            f"{worker_limits}: memory is of each process by itself, and too much is an error in the "
            "program and no OOM_KILLED; pids are of the worker's user, and not of root; cpu is not limited"
        )
    has = worker_limits.rpartition(": ")[2].split(", ")
    lacks = [name for name in (part.split()[0] for part in wanted.split(", ")) if name not in has]
    text = f"{worker_limits}; the kernel holds all that it starts to them, together"
    return f"{text}, but for {', '.join(lacks)}" if lacks else text


def gate_json(gate: GateView) -> dict[str, Any]:
    """A gate as an object."""
    decided = gate.reason is not ExitReason.UNKNOWN
    return {
        "run": gate.run_id,
        "runAlias": gate.run_alias,
        "job": gate.job_id,
        "state": gate.state.value,
        "message": gate.message or None,
        "openedAt": rfc3339(gate.opened_at_ms),
        "expiresAt": rfc3339(gate.expires_at_ms),
        "decidedAt": rfc3339(gate.decided_at_ms),
        "decidedBy": gate.decided_by or None,
        "decision": gate.reason.value if decided else None,
        "comment": gate.comment or None,
    }


def file_json(view: FileView) -> dict[str, Any]:
    """A name of perm_files."""
    return {
        "name": view.name,
        "current": None if view.current is None else _version_json(view.current),
        "versions": [_version_json(one) for one in view.versions],
    }


def _version_json(one: FileVersion) -> dict[str, Any]:
    return {
        "digest": one.digest or None,
        "sizeBytes": one.size_bytes,
        "at": rfc3339(one.at_ms),
        "origin": one.origin.value,
    }


def service_json(service: ServiceView) -> dict[str, Any]:
    """A service as an object."""
    return {
        "name": service.name,
        "run": service.run_id,
        "runAlias": service.run_alias,
        "job": service.job_id,
        "attempt": service.attempt,
        "state": service.state.value,
        "worker": service.worker or None,
        "port": service.port or None,
        "restarts": service.restarts,
        "healthyAt": rfc3339(service.healthy_at_ms),
        "endedAt": rfc3339(service.ended_at_ms),
        "reason": None if service.reason is ExitReason.UNKNOWN else service.reason.value,
        "exitCode": service.exit_code if service.reason is ExitReason.EXITED else None,
        "signal": service.signal or None,
        "message": service.message or None,
    }


def worker_json(worker: WorkerView) -> dict[str, Any]:
    """A worker as an object."""
    return {
        "id": worker.worker_id,
        "host": worker.host,
        "port": worker.port,
        "state": worker.state.value,
        "slots": worker.slots,
        "used": worker.used,
        "skills": list(worker.skills),
        "incarnation": worker.incarnation,
        "silentSeconds": worker.seen_ms_ago / 1000,
        "linkDownSeconds": worker.link_down_ms / 1000,
        "cpuShare": worker.cpu_permille / 1000,
        "memoryUsedBytes": worker.memory_used_bytes,
        "memoryTotalBytes": worker.memory_total_bytes,
        "software": worker.software or None,
        "services": list(worker.services),
    }


def worker_detail_json(detail: WorkerDetail) -> dict[str, Any]:
    """A worker with what jobs can take of it."""
    return {
        **worker_json(detail.worker),
        "cordoned": detail.cordoned,
        "attempts": detail.attempts,
        "resources": {
            name: {"total": amount(name, room.total), "taken": amount(name, room.taken)}
            for name, room in sorted(detail.resources.items())
        },
    }


def amount(name: str, counted: int) -> int | float:
    """Of a counted resource in the unit that people use: cores, bytes, pieces."""
    return counted / 1000 if name == "cpu" else counted


def amount_text(name: str, counted: int) -> str:
    """The same in words."""
    if name == "memory":
        return f"{counted / 1024**3:.1f} GiB"
    return f"{amount(name, counted):g}"


def rooms(resources: Mapping[str, Room]) -> str:
    """What is taken of what there is: `cpu 0.5 of 4, gpu 1 of 2`."""
    return ", ".join(
        f"{name} {amount_text(name, room.taken)} of {amount_text(name, room.total)}"
        for name, room in sorted(resources.items())
    )


def workers_table(workers: Sequence[WorkerDetail], look: Look) -> Table:
    """One line a worker."""
    table = Table(("WORKER", "STATE", "SLOTS", "SKILLS", "RESOURCES", "ON IT"), ("RESOURCES",))
    for one in workers:
        worker = one.worker
        state = worker_state(worker)
        state = state.replace(str(worker.state), look.state(worker.state), 1)
        table.add(
            f"{worker.host}:{worker.port}",
            f"{state}, CORDONED" if one.cordoned else state,
            f"{worker.used} of {worker.slots}",
            ", ".join(worker.skills),
            rooms(one.resources) or "-",
            what_is_left(worker) or "-",
        )
    return table


def usage_json(seen: WorkerUsageView | UsagePoint) -> dict[str, Any]:
    """What a worker's host was seen to be doing, and what its attempts used."""
    usage = seen.usage
    return {
        "at": rfc3339(seen.at_ms),
        "cpuShare": usage.cpu_permille / 1000,
        "load": usage.load_milli / 1000,
        "memoryUsedBytes": usage.memory_used_bytes,
        "memoryTotalBytes": usage.memory_total_bytes,
        "diskUsedBytes": usage.disk_used_bytes,
        "diskTotalBytes": usage.disk_total_bytes,
        "receivedBytesPerSecond": usage.received_bytes_per_s,
        "sentBytesPerSecond": usage.sent_bytes_per_s,
        "attempts": [
            {
                "run": attempt.ref.run_id,
                "job": attempt.ref.job_id,
                "attempt": attempt.ref.number,
                "cpuCores": attempt.cpu_milli / 1000,
                "memoryBytes": attempt.memory_bytes,
                "processes": attempt.processes,
            }
            for attempt in usage.attempts
        ],
    }


def usage_of(view: UsageView, worker: WorkerView) -> WorkerUsageView | None:
    """What is known of this worker's use, if anything is."""
    return next((one for one in view.workers if one.worker_id == worker.worker_id), None)


def _with_usage(worker: WorkerView, view: UsageView) -> dict[str, Any]:
    seen = usage_of(view, worker)
    return {
        **worker_json(worker),
        "limits": seen.limits if seen is not None else None,
        "usage": usage_json(seen) if seen is not None else None,
    }


def busy_worker_json(worker: WorkerView, view: UsageView) -> dict[str, Any]:
    """A worker as an object, with how busy it is and has been."""
    history = [usage_json(point) for point in view.history]
    return {**_with_usage(worker, view), "history": history}


def usage_fields(seen: WorkerUsageView | None) -> list[tuple[str, str]]:
    """How busy a worker's host is, for people, beside what its heartbeats tell."""
    if seen is None:
        return []
    usage = seen.usage
    used, total = (size / 1024**3 for size in (usage.disk_used_bytes, usage.disk_total_bytes))
    received, sent = (
        per_s / 1024**2 for per_s in (usage.received_bytes_per_s, usage.sent_bytes_per_s)
    )
    lines = [
        f"{attempt.ref.job_id}.{attempt.ref.number}: {attempt.cpu_milli / 1000:.2f} cores, "
        f"{attempt.memory_bytes / 1024**2:.1f} MiB, {attempt.processes} "
        + ("process" if attempt.processes == 1 else "processes")
        for attempt in usage.attempts[:_ATTEMPTS_SHOWN]
    ]
    more = len(usage.attempts) - len(lines)
    return [
        ("Load", f"{usage.load_milli / 1000:.2f}"),
        ("Disk", f"{used:.1f} of {total:.1f} GiB"),
        ("Network", f"{received:.2f} MiB/s in, {sent:.2f} MiB/s out"),
        ("Limits", seen.limits),
        ("Attempts", "; ".join(lines) + (f"; and {more} more" if more else "")),
    ]


def scaling_json(scaling: Scaling) -> dict[str, Any]:
    """Which workers were spawned, and why, as an object."""
    return {
        "autoscale": scaling.on,
        "everySeconds": scaling.every_ms / 1000,
        "idleSeconds": scaling.idle_ms / 1000,
        "perHost": scaling.per_host,
        "max": scaling.total,
        "slotsPerCore": scaling.slots_per_core,
        "spawned": [
            {
                "id": one.worker_id,
                "worker": one.worker,
                "number": one.number,
                "parent": one.parent,
                "parentId": one.parent_id,
                "byHand": one.by_hand,
                "cause": one.cause,
                "dismissed": one.dismissed,
            }
            for one in scaling.siblings
        ],
        "asked": [
            {
                "number": one.number,
                "parent": one.parent,
                "port": one.port,
                "askedAt": rfc3339(one.asked_at_ms),
                "byHand": one.by_hand,
                "cause": one.cause,
            }
            for one in scaling.asked
        ],
        "recent": [
            {
                "at": rfc3339(one.at_ms),
                "number": one.number,
                "what": one.kind.value,
                "parent": one.parent,
                "worker": one.worker,
                "cause": one.cause,
            }
            for one in scaling.recent
        ],
    }


def stats_json(
    stats: Stats, traffic: Traffic | None, usage: UsageView, scaling: Scaling | None = None
) -> dict[str, Any]:
    """The cluster as an object, with how busy its workers are."""
    return {
        "cluster": {"id": stats.cluster_id, "name": stats.cluster_name, "term": stats.term},
        "at": rfc3339(stats.at_ms),
        "masterStartedAt": rfc3339(stats.started_at_ms),
        "software": stats.software or None,
        "runsActive": stats.runs_active,
        "queued": stats.queued,
        "blocked": stats.blocked,
        "delayed": stats.delayed,
        "backoff": stats.backoff,
        "running": stats.running,
        "services": stats.services,
        "logDatagrams": None if traffic is None else traffic.log_datagrams,
        "workers": [_with_usage(worker, usage) for worker in stats.workers],
        "scaling": None if scaling is None else scaling_json(scaling),
    }


# -- schedules --------------------------------------------------------------------------------------


def schedule_json(view: ScheduleView) -> dict[str, Any]:
    """A schedule as an object."""
    spec, last = view.spec, view.last
    return {
        "name": view.name,
        "id": view.schedule_id,
        "version": view.version,
        "cron": list(spec.crons),
        "timezone": spec.zone,
        "words": view.words,
        "overlap": spec.overlap.value.lower(),
        "catchup": spec.catchup.value.lower(),
        "catchupWindowSeconds": spec.catchup_window_ms / 1000,
        "jitterSeconds": spec.jitter_ms / 1000,
        "start": rfc3339(spec.start_ms),
        "end": rfc3339(spec.end_ms),
        "pauseOnFailure": spec.pause_on_failure,
        "jobs": view.jobs,
        "owner": view.owner or None,
        "createdAt": rfc3339(view.created_at_ms),
        "putAt": rfc3339(view.put_at_ms),
        "pausedAt": rfc3339(view.paused_at_ms),
        "pausedBy": view.paused_by or None,
        "pausedWhy": view.paused_why or None,
        "next": [rfc3339(at_ms) for at_ms in view.next_at_ms],
        "live": list(view.live),
        "waiting": [rfc3339(at_ms) for at_ms in view.waiting],
        "last": None
        if last is None
        else {
            "run": last.run_id,
            "runAlias": last.alias,
            "slot": rfc3339(last.slot_at_ms),
            "at": rfc3339(last.at_ms),
            "state": last.state.value,
            "triggered": last.triggered,
        },
        "fired": view.fired,
        "skipped": view.skipped,
        "missed": view.missed,
    }


def schedules_table(views: Sequence[ScheduleView], look: Look, now_ms: int) -> Table:
    """A schedule a line."""
    table = Table(("NAME", "WHEN", "ZONE", "NEXT", "IN", "LAST"), ("IN", "ZONE"))
    for view in views:
        upcoming = view.next_at_ms[0] if view.next_at_ms else 0
        left = duration(max(0, upcoming - now_ms) / 1000) if upcoming else "-"
        last = "-"
        if view.last is not None:
            last = f"{look.state(view.last.state)} {clean(view.last.alias)}"
        table.add(
            clean(view.name),
            clean(", ".join(view.spec.crons)),
            clean(view.spec.zone),
            "paused" if view.paused_at_ms else local_time(upcoming),
            left,
            last,
        )
    return table


def schedule_text(view: ScheduleView) -> str:
    """All about one schedule."""
    from titan_proto.cron import find_zone

    spec = view.spec
    zone = find_zone(spec.zone)
    lines = [
        f"Schedule {view.name}, version {view.version}, {view.jobs} jobs",
        f"  when      {', '.join(spec.crons)}  ({view.words}, {spec.zone})",
        f"  policy    overlap {spec.overlap.value.lower()}, catchup {spec.catchup.value.lower()}"
        + ("" if spec.catchup.value == "NONE" else f" ({duration(spec.catchup_window_ms / 1000)})")
        + (f", jitter {duration(spec.jitter_ms / 1000)}" if spec.jitter_ms else "")
        + (", pauses on failure" if spec.pause_on_failure else ""),
    ]
    if spec.start_ms or spec.end_ms:
        lines.append(f"  from      {local_time(spec.start_ms)} to {local_time(spec.end_ms)} here")
    if view.paused_at_ms:
        who = f" by {view.paused_by}" if view.paused_by else ""
        why = f": {view.paused_why}" if view.paused_why else ""
        lines.append(f"  paused    since {local_time(view.paused_at_ms)}{who}{why}")
    for at_ms in view.next_at_ms:
        there = datetime.datetime.fromtimestamp(at_ms / 1000, zone)
        lines.append(f"  next      {there:%Y-%m-%d %H:%M:%S %Z}  here {local_time(at_ms)}")
    if view.live:
        lines.append(f"  goes on   {', '.join(view.live)}")
    if view.waiting:
        lines.append(f"  waiting   {', '.join(map(local_time, view.waiting))}")
    if view.last is not None:
        asked = ", triggered" if view.last.triggered else ""
        lines.append(f"  last      {view.last.alias} {view.last.state}{asked}")
    lines.append(f"  so far    {view.fired} fired, {view.skipped} skipped, {view.missed} missed")
    return "\n".join(lines)
