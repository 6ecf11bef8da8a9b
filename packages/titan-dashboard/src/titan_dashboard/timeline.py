"""When what ran, as bars on one scale of time. Pure: views in, parts of a hundred out.

A bar is waiting (before its process), starting, running, or a try that was not the last. All that
goes on ends at `now_ms`, which callers give in whole steps, so that a drawing changes no more often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from titan_dashboard.words import duration, ended, mark
from titan_proto.messages import AttemptView, JobView, RunView
from titan_proto.states import JOB_TERMINAL, ExitReason, JobState

TICKS: Final = 4
_NEVER_RAN: Final = frozenset({ExitReason.TAKEN_OVER, ExitReason.PARENT_FAILED})


class Bar(Struct, frozen=True, kw_only=True):
    """A stretch of time."""

    kind: str
    """wait, start, run, past (a try before the last)."""
    tone: str
    begin_ms: int
    end_ms: int
    title: str


class Scale(Struct, frozen=True, kw_only=True):
    """From when to when."""

    begin_ms: int
    end_ms: int

    def x(self, ms: int) -> float:
        """Where a moment is, of a hundred."""
        span = max(1, self.end_ms - self.begin_ms)
        return round(100 * (min(max(ms, self.begin_ms), self.end_ms) - self.begin_ms) / span, 3)

    def width(self, bar: Bar) -> float:
        """How wide a bar is, of a hundred; never so narrow that it is not seen."""
        return max(0.25, round(self.x(bar.end_ms) - self.x(bar.begin_ms), 3))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Where a line goes, and how long after the beginning that is."""
        span = self.end_ms - self.begin_ms
        return [(100 * n / TICKS, duration(span * n // TICKS)) for n in range(TICKS + 1)]


def step_of(span_ms: int) -> int:
    """In such steps does the end of what goes on move: a thousandth of it, a second at least."""
    return max(1_000, span_ms // 1_000)


def job_bars(
    job: JobView,
    tries: Sequence[AttemptView],
    ready_ms: int,
    now_ms: int,
) -> list[Bar]:
    """A job's bars, in their order. `ready_ms`: when nothing that it depends on kept it any more."""
    if job.reason in _NEVER_RAN or not ready_ms:
        return []
    bars: list[Bar] = []
    since = ready_ms
    is_over = job.state in JOB_TERMINAL
    for one in tries or _newest(job):
        is_last = one.number == job.attempt
        if one.placed_at_ms > since:
            bars.append(_waiting(since, one.placed_at_ms, one.number))
        started = one.started_at_ms or one.ended_at_ms or now_ms
        end = one.ended_at_ms or (job.ended_at_ms if is_last and is_over else now_ms) or now_ms
        if one.placed_at_ms and started > one.placed_at_ms:
            bars.append(
                Bar(
                    kind="start",
                    tone="wait",
                    begin_ms=one.placed_at_ms,
                    end_ms=started,
                    title=f"started in {duration(started - one.placed_at_ms)}",
                )
            )
        if one.started_at_ms:
            bars.append(_running(job, one, end, is_last=is_last))
        since = end
    if not is_over and job.state in {JobState.QUEUED, JobState.BACKOFF, JobState.SCHEDULED}:
        bars.append(_waiting(since, now_ms, job.attempt + 1))
    return bars


def _newest(job: JobView) -> list[AttemptView]:
    if not job.attempt:
        return []
    return [
        AttemptView(
            number=job.attempt,
            state=job.attempt_state,
            worker=job.worker,
            reason=job.reason,
            exit_code=job.exit_code,
            signal=job.signal,
            placed_at_ms=job.placed_at_ms,
            started_at_ms=job.started_at_ms,
            ended_at_ms=job.ended_at_ms,
        )
    ]


def _waiting(begin_ms: int, end_ms: int, number: int) -> Bar:
    what = "queued" if number < 2 else f"waited for attempt {number}"
    return Bar(
        kind="wait",
        tone="wait",
        begin_ms=begin_ms,
        end_ms=max(begin_ms, end_ms),
        title=f"{what} {duration(end_ms - begin_ms)}",
    )


def _running(job: JobView, one: AttemptView, end: int, *, is_last: bool) -> Bar:
    how = ended(one.reason, one.exit_code, one.signal) if one.ended_at_ms else ""
    took = duration(end - one.started_at_ms)
    title = f"attempt {one.number} on {one.worker}, {took}" + (f": {how}" if how else "")
    return Bar(
        kind="run" if is_last else "past",
        tone=mark(job.state).tone if is_last else "bad",
        begin_ms=one.started_at_ms,
        end_ms=end,
        title=title,
    )


def ready_times(run: RunView, jobs: Sequence[JobView]) -> dict[str, int]:
    """By job, when everything before it had ended well; absent while it waits for something."""
    ends = {
        job.job_id: job.ended_at_ms or job.started_at_ms
        for job in jobs
        if job.state is JobState.SUCCEEDED or job.ended_at_ms
    }
    found = {}
    for job in jobs:
        before = [ends.get(one, 0) for one in job.dependencies]
        if all(before):
            found[job.job_id] = max([run.submitted_at_ms, *before])
    return found


def run_bars(
    run: RunView,
    jobs: Sequence[JobView],
    tries: Mapping[str, Sequence[AttemptView]],
    now_ms: int,
) -> list[Bar]:
    """A whole run on one line: when it waited, when any of its jobs ran, and tries that failed."""
    end_ms = run.ended_at_ms or now_ms
    bars = [
        Bar(
            kind="wait",
            tone="wait",
            begin_ms=run.submitted_at_ms,
            end_ms=end_ms,
            title=f"{run.alias}: {duration(end_ms - run.submitted_at_ms)}",
        )
    ]
    ready = ready_times(run, jobs)
    inner = [
        bar
        for job in jobs
        for bar in job_bars(job, tries.get(job.job_id, ()), ready.get(job.job_id, 0), end_ms)
    ]
    tone = mark(run.state).tone
    for begin, end in _union([(b.begin_ms, b.end_ms) for b in inner if b.kind == "run"]):
        bars.append(
            Bar(kind="run", tone=tone, begin_ms=begin, end_ms=min(end, end_ms), title="running")
        )
    bars += [bar for bar in inner if bar.kind == "past"]
    return bars


def _union(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
