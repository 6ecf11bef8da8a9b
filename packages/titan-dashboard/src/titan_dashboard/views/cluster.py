"""The overview, the workers, and one worker: how the cluster stands now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from titan_dashboard.charts import Spark, spark
from titan_dashboard.link import Kind, Trouble
from titan_dashboard.pages import Look, Page, Query
from titan_dashboard.words import percent
from titan_proto.limits import PAGE_ITEMS, USAGE_HISTORY_MS
from titan_proto.messages import (
    AttemptUsage,
    GetStats,
    GetUsage,
    JobView,
    ListDead,
    ListJobs,
    ListRuns,
    ListServices,
    RunView,
    ServiceView,
    Stats,
    UsagePoint,
    WorkerUsageView,
    WorkerView,
)
from titan_proto.states import RUN_TERMINAL, RunState, WorkerState

_GONE: Final = frozenset({WorkerState.LOST, WorkerState.RETIRED})
_BOXES: Final = 64
"""More slots than this are told as a number."""
_SPARKS: Final = 40
"""Workers beyond so many on one page have numbers and no lines."""
_RECENT_RUNS: Final = 12
_RECENT_JOBS: Final = 200
_DAY_MS: Final = 24 * 3600 * 1000


class Running(Struct, frozen=True, kw_only=True):
    """One attempt on a worker."""

    run_id: str
    alias: str
    job_id: str
    number: int
    usage: AttemptUsage


class Card(Struct, frozen=True, kw_only=True):
    """A worker, as it is drawn."""

    view: WorkerView
    name: str
    """What people call it: its port, with its host where that is not unique."""
    usage: WorkerUsageView | None
    running: Sequence[Running]
    services: Sequence[ServiceView]
    uses: Mapping[tuple[str, str], AttemptUsage]
    """By run and job: of what runs on it."""
    boxes: Sequence[Running | None]
    """Of each taken slot what takes it, as far as that is known."""
    cpu: Spark
    memory: Spark
    disk_percent: int
    is_gone: bool
    last: Sequence[JobView] = ()

    @property
    def free(self) -> int:
        """Slots."""
        return max(0, self.view.slots - self.view.used)

    @property
    def cpu_now(self) -> str:
        """Of all its host's cores."""
        found = self.usage.usage.cpu_permille if self.usage else self.view.cpu_permille
        return percent(found)

    @property
    def memory_used(self) -> int:
        """In bytes."""
        return self.usage.usage.memory_used_bytes if self.usage else self.view.memory_used_bytes

    @property
    def memory_total(self) -> int:
        """In bytes."""
        return self.usage.usage.memory_total_bytes if self.usage else self.view.memory_total_bytes


def names(workers: Sequence[WorkerView]) -> dict[str, str]:
    """By worker's id what it is called: `[8080]`, or `[host:8080]` where the port is not unique."""
    ports: dict[int, int] = {}
    for worker in workers:
        ports[worker.port] = ports.get(worker.port, 0) + 1
    return {
        worker.worker_id: str(worker.port)
        if ports[worker.port] == 1
        else f"{worker.host}:{worker.port}"
        for worker in workers
    }


def overview(look: Look, args: Mapping[str, str], query: Query) -> dict[str, Any]:
    """Four numbers, what is active, the workers, what failed last."""
    del args, query
    stats = look.ask(GetStats())
    active = look.ask(ListRuns(limit=8)).runs if stats.runs_active else ()
    newest = look.kept(ListRuns(ended=True, limit=200), 1.0).runs
    ended = [run for run in newest if run.state in RUN_TERMINAL]
    day = [run for run in ended if stats.at_ms - run.ended_at_ms < _DAY_MS]
    failed = sum(run.state is RunState.FAILED for run in day)
    return {
        "stats": stats,
        "slots": sum(one.slots for one in stats.workers if one.state not in _GONE),
        "used": sum(one.used for one in stats.workers if one.state not in _GONE),
        "online": sum(one.state is WorkerState.ONLINE for one in stats.workers),
        "active": active,
        "ended": ended[:8],
        "failed": failed,
        "failed_more": len(day) == len(newest) == 200,
        "dead": look.kept(ListDead(limit=5), 1.0).jobs,
        "cards": cards(look, stats, most=12),
    }


def workers(look: Look, args: Mapping[str, str], query: Query) -> dict[str, Any]:
    """Every worker."""
    del args, query
    stats = look.ask(GetStats())
    made = cards(look, stats, most=_SPARKS)
    return {
        "stats": stats,
        "cards": [card for card in made if not card.is_gone],
        "gone": [card for card in made if card.is_gone],
        "address": str(look.master.address()),
        "role": look.who.role,
    }


def worker(look: Look, args: Mapping[str, str], query: Query) -> dict[str, Any]:
    """One worker, with what ran on it last. Raises Trouble if there is none of that name."""
    del query
    stats = look.ask(GetStats())
    known = names(stats.workers)
    wanted = args["worker"]
    fits = [
        one
        for one in stats.workers
        if wanted in {one.worker_id, known[one.worker_id], f"{one.host}:{one.port}"}
    ]
    if not fits:
        up = ", ".join(known.values()) or "none has joined yet"
        raise Trouble(Kind.MISSING, f"There is no worker {wanted!r}; known are: {up}.")
    card = cards(look, stats, most=1, only=fits[-1].worker_id)[0]
    return {"stats": stats, "card": card, "last": last_jobs(look, card.view), "role": look.who.role}


def cards(look: Look, stats: Stats, *, most: int, only: str = "") -> list[Card]:
    """The workers as they are drawn; lines for the first `most` of them."""
    usage = {one.worker_id: one for one in look.kept(GetUsage(), 0.5).workers}
    services: dict[str, list[ServiceView]] = {}
    if any(one.services for one in stats.workers):
        for service in look.kept(ListServices(), 0.5).services:
            services.setdefault(service.worker, []).append(service)
    aliases = _aliases(look) if any(one.usage.attempts for one in usage.values()) else {}
    called = names(stats.workers)
    made: list[Card] = []
    for view in stats.workers:
        if only and view.worker_id != only:
            continue
        gone = view.state in _GONE
        has_lines = not gone and len(made) < most
        known = usage.get(view.worker_id)
        running = [] if gone or known is None else _running(known, aliases)
        up = services.get(f"{view.host}:{view.port}", [])
        serving = {(one.run_id, one.job_id) for one in up}
        made.append(
            Card(
                view=view,
                name=called[view.worker_id],
                usage=known,
                running=[one for one in running if (one.run_id, one.job_id) not in serving],
                services=up,
                uses={(one.run_id, one.job_id): one.usage for one in running},
                boxes=_boxes(view, running),
                cpu=_line(look, view, "cpu") if has_lines else Spark("", "", 0),
                memory=_line(look, view, "memory") if has_lines else Spark("", "", 0),
                disk_percent=_disk(known),
                is_gone=gone,
            )
        )
    return made


def last_jobs(look: Look, view: WorkerView) -> list[JobView]:
    """What ended on that worker last, among the newest runs."""
    found = [
        job
        for run in look.kept(ListRuns(ended=True, limit=_RECENT_RUNS), 2.0).runs
        for job in _jobs(look, run)
        if job.worker == f"{view.host}:{view.port}" and job.ended_at_ms
    ]
    return sorted(found, key=lambda job: -job.ended_at_ms)[:12]


def _jobs(look: Look, run: RunView) -> Sequence[JobView]:
    for_s = 60.0 if run.state in RUN_TERMINAL else 1.0
    return look.kept(ListJobs(run=run.run_id, limit=_RECENT_JOBS), for_s).jobs


def _aliases(look: Look) -> dict[str, str]:
    live = look.kept(ListRuns(limit=PAGE_ITEMS), 1.0).runs
    return {run.run_id: run.alias for run in live}


def _running(known: WorkerUsageView, aliases: Mapping[str, str]) -> list[Running]:
    return sorted(
        (
            Running(
                run_id=one.ref.run_id,
                alias=aliases.get(one.ref.run_id, one.ref.run_id),
                job_id=one.ref.job_id,
                number=one.ref.number,
                usage=one,
            )
            for one in known.usage.attempts
        ),
        key=lambda one: (one.alias, one.job_id),
    )


def _boxes(view: WorkerView, running: Sequence[Running]) -> list[Running | None]:
    if view.slots > _BOXES:
        return []
    taken: list[Running | None] = list(running[: view.used])
    return taken + [None] * (view.used - len(taken))


def _line(look: Look, view: WorkerView, what: str) -> Spark:
    points = look.kept(GetUsage(history_of=view.worker_id), 2.0).history
    if not points:
        return Spark("", "", 0)
    values = [(point.at_ms, _value(point, what)) for point in points]
    # Up to the newest point, not up to now: a line that only moves sideways is no news.
    return spark(values, points[-1].at_ms, USAGE_HISTORY_MS, 1.0)


def _value(point: UsagePoint, what: str) -> float:
    if what == "cpu":
        return point.usage.cpu_permille / 1000
    return point.usage.memory_used_bytes / max(1, point.usage.memory_total_bytes)


def _disk(known: WorkerUsageView | None) -> int:
    if known is None or not known.usage.disk_total_bytes:
        return 0
    return round(100 * known.usage.disk_used_bytes / known.usage.disk_total_bytes)


PAGES: Final = {
    "overview": Page(
        template="overview.html",
        make=overview,
        parts=("numbers", "active", "overview_workers", "recent"),
    ),
    "workers": Page(template="workers.html", make=workers, parts=("workers",)),
    "worker": Page(template="worker.html", make=worker, parts=("worker",)),
}
