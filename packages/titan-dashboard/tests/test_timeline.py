"""The timeline tells waiting, starting, running and tries that failed apart, on one scale."""

from __future__ import annotations

from typing import Any

from titan_dashboard.timeline import Bar, Scale, job_bars, ready_times, run_bars, step_of
from titan_proto.messages import AttemptView, JobView, RunView
from titan_proto.specs import JobKind
from titan_proto.states import AttemptState, ExitReason, JobState, RunState


def job(job_id: str = "a", state: JobState = JobState.SUCCEEDED, **more: Any) -> JobView:
    return JobView(
        run_id="r", run_alias="r-1", job_id=job_id, kind=JobKind.TASK, state=state, **more
    )


def run(state: RunState = RunState.SUCCEEDED, ended_at_ms: int = 1_000) -> RunView:
    return RunView(
        run_id="r", alias="r-1", name="r", state=state, submitted_at_ms=100, ended_at_ms=ended_at_ms
    )


def shape(bars: list[Bar]) -> list[tuple[str, str, int, int]]:
    return [(bar.kind, bar.tone, bar.begin_ms, bar.end_ms) for bar in bars]


def test_a_job_waits_starts_and_runs() -> None:
    one = job(attempt=1, placed_at_ms=200, started_at_ms=250, ended_at_ms=900, worker="h:1")
    assert shape(job_bars(one, (), 100, 5_000)) == [
        ("wait", "wait", 100, 200),
        ("start", "wait", 200, 250),
        ("run", "ok", 250, 900),
    ]


def test_a_try_that_failed_is_told_apart_from_the_one_that_did_not() -> None:
    tries = [
        AttemptView(
            number=1, state=AttemptState.ENDED, reason=ExitReason.EXITED, exit_code=3,
            placed_at_ms=100, started_at_ms=110, ended_at_ms=200,
        ),
        AttemptView(
            number=2, state=AttemptState.ENDED, reason=ExitReason.EXITED,
            placed_at_ms=300, started_at_ms=310, ended_at_ms=400,
        ),
    ]  # fmt: skip
    bars = job_bars(job(attempt=2, ended_at_ms=400), tries, 100, 5_000)
    assert [(kind, begin, end) for kind, _, begin, end in shape(bars)] == [
        ("start", 100, 110),
        ("past", 110, 200),
        ("wait", 200, 300),
        ("start", 300, 310),
        ("run", 310, 400),
    ]
    assert "exit 3" in bars[1].title


def test_what_goes_on_ends_now() -> None:
    running = job(state=JobState.RUNNING, attempt=1, placed_at_ms=100, started_at_ms=100)
    assert shape(job_bars(running, (), 100, 700)) == [("run", "busy", 100, 700)]
    queued = job(state=JobState.QUEUED)
    assert shape(job_bars(queued, (), 100, 700)) == [("wait", "wait", 100, 700)]


def test_what_never_ran_or_waits_for_others_has_no_bar() -> None:
    skipped = job(state=JobState.SKIPPED, reason=ExitReason.PARENT_FAILED, ended_at_ms=300)
    assert job_bars(skipped, (), 100, 700) == []
    assert job_bars(job(state=JobState.BLOCKED), (), 0, 700) == []


def test_a_job_is_ready_when_the_last_before_it_has_ended() -> None:
    jobs = [
        job("a", ended_at_ms=300, started_at_ms=150),
        job("b", ended_at_ms=200),
        job("c", JobState.QUEUED, dependencies=("a", "b")),
        job("d", JobState.BLOCKED, dependencies=("c",)),
    ]
    assert ready_times(run(), jobs) == {"a": 100, "b": 100, "c": 300}


def test_a_runs_line_has_one_bar_for_what_ran_at_once() -> None:
    jobs = [
        job("a", attempt=1, placed_at_ms=100, started_at_ms=200, ended_at_ms=500),
        job("b", attempt=1, placed_at_ms=100, started_at_ms=300, ended_at_ms=600),
        job("c", attempt=1, placed_at_ms=700, started_at_ms=800, ended_at_ms=1_000),
    ]
    assert shape(run_bars(run(), jobs, {}, 9_000)) == [
        ("wait", "wait", 100, 1_000),
        ("run", "ok", 200, 600),
        ("run", "ok", 800, 1_000),
    ]


def test_the_scale_holds_everything_inside_itself() -> None:
    scale = Scale(begin_ms=100, end_ms=300)
    assert [scale.x(ms) for ms in (0, 100, 200, 300, 999)] == [0, 0, 50, 100, 100]
    assert scale.ticks[-1] == (100, "200 ms")
    narrow = Bar(kind="run", tone="ok", begin_ms=150, end_ms=150, title="")
    assert scale.width(narrow) > 0


def test_a_drawing_moves_in_steps() -> None:
    assert step_of(5_000) == 1_000
    assert step_of(10_000_000) == 10_000
