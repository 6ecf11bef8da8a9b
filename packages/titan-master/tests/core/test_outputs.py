"""Small values from job to job: recorded with a success, filled in where they are used, never as code."""

from __future__ import annotations

import subprocess

import core_world
import pytest
from core_world import World, job, run
from msgspec.structs import replace
from repeating import Cluster

from titan_master.core import filling, lifecycle
from titan_master.net.link import reports_complaint
from titan_proto.limits import OUTPUT_VALUE_BYTES, OUTPUTS_PER_JOB
from titan_proto.messages import GetJob
from titan_proto.specs import Launch, LaunchKind, RetryPolicy
from titan_proto.states import ExitReason, JobState

ROWS = "${{ jobs.a.outputs.rows }}"
HOSTILE = "$(touch hacked); `touch hacked`; touch hacked; \" ' \\ * \t${IFS}é"


def shell(line, *args, **env):
    return Launch(kind=LaunchKind.SHELL, shell=line, args=args, env=env)


def with_launch(spec, launch):
    return replace(spec, launch=launch)


def two(launch, **options):
    """a, and b after it, which is launched so."""
    return run("etl", job("a"), with_launch(job("b", "a"), launch), **options)


def order_of(turn, name):
    """What a worker is told about the job."""
    return core_world.order_of(turn, name).spec.launch


@pytest.fixture
def w():
    return Cluster({"w1": 9})


def test_a_child_is_started_with_what_its_parent_left(w):
    w.submit(two(shell("true", f"--rows={ROWS}/{ROWS}", DAY=ROWS)), run_id="r")
    launch = order_of(w.ended("r/a", outputs={"rows": "12", "more": "x"}), "b")
    assert launch.args == ("--rows=12/12",)
    assert launch.env == {"DAY": "12"}


def test_a_line_for_the_shell_gets_a_variable_and_never_the_value(w, tmp_path):
    """Whatever the value is, a shell prints it and does nothing else."""
    w.submit(two(shell(f'printf %s "{ROWS}"; printf :%s "{ROWS}x"')), run_id="r")
    launch = order_of(w.ended("r/a", outputs={"rows": HOSTILE}), "b")
    assert launch.shell == 'printf %s "${TITAN_VALUE_1}"; printf :%s "${TITAN_VALUE_1}x"'
    said = subprocess.run(
        ["/bin/sh", "-c", launch.shell],
        env=launch.env,
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert said.stdout.decode() == f"{HOSTILE}:{HOSTILE}x"
    assert list(tmp_path.iterdir()) == []


def test_an_order_that_goes_out_again_after_a_restart_says_the_same(w):
    w.submit(two(shell("true", ROWS)), run_id="r")
    first = order_of(w.ended("r/a", outputs={"rows": "12"}), "b")
    w.restart()
    again = w.join("w1", held=())
    assert order_of(again, "b") == first


def test_a_value_that_was_not_written_ends_the_job_before_it_is_placed(w):
    """Once: what is missing is missing for every try."""
    spec = two(shell("true", ROWS))
    b, c = replace(spec.jobs[1], retries=RetryPolicy(limit=3)), job("c", "b")
    w.submit(replace(spec, jobs=(spec.jobs[0], b, c, job("d"))), run_id="r")
    w.ended("r/a", outputs={"row": "12", "day": "2"})
    assert w.job_states("r") == {"a": "SUCCEEDED", "b": "FAILED", "c": "SKIPPED", "d": "PLACED"}
    view = w.answer(GetJob(run="r", job="b"))
    assert (view.reason, view.attempt) == (ExitReason.MISSING_OUTPUT, 0)
    assert view.message == f"it uses {ROWS}, and a wrote only day, row to its $TITAN_OUTPUT"


def test_the_run_is_over_when_its_last_job_misses_something(w):
    w.submit(two(shell("true", ROWS)), run_id="r")
    w.ended("r/a")
    assert not w.state.runs


def test_values_that_make_a_job_too_large_end_it(w):
    w.submit(two(shell("true", *[ROWS * 10] * 10)), run_id="r")
    w.submit(run("other", job("x")), run_id="s")
    w.ended("r/a", outputs={"rows": "x" * OUTPUT_VALUE_BYTES})
    assert not w.state.runs.get("r")


def test_the_size_is_quoted_with_its_limit(w):
    spec = two(shell("true", *[ROWS * 10] * 10))
    w.submit(replace(spec, jobs=(*spec.jobs, job("d"))), run_id="r")
    w.ended("r/a", outputs={"rows": "x" * OUTPUT_VALUE_BYTES})
    assert "more than ARGS_BYTES (262144)" in w.answer(GetJob(run="r", job="b")).message


def test_what_was_written_without_success_is_recorded_nowhere(w):
    retried = replace(job("a"), retries=RetryPolicy(limit=1, delay_ms=0))
    spec = two(shell("true", ROWS))
    w.submit(replace(spec, jobs=(retried, spec.jobs[1])), run_id="r")
    w.ended("r/a", 1, outputs={"rows": "first"})
    assert w.state.runs["r"].jobs["a"].outputs is None
    w.advance(1)
    assert order_of(w.ended("r/a", outputs={"rows": "second"}), "b").args == ("second",)
    assert w.answer(GetJob(run="r", job="a")).outputs == {"rows": "second"}


def test_an_output_that_cannot_be_read_is_a_failure_of_the_attempt_and_may_be_tried_again(w):
    w.submit(run("etl", job("a", retries=RetryPolicy(limit=1, delay_ms=0)), job("d")), run_id="r")
    w.ended("r/a", 0, ExitReason.BAD_OUTPUT, message="line 1")
    assert w.state.runs["r"].jobs["a"].number == 2
    w.ended("r/a", 0, ExitReason.BAD_OUTPUT, message="line 1")
    view = w.answer(GetJob(run="r", job="a"))
    assert (view.state, view.reason, view.message) == (
        JobState.FAILED,
        ExitReason.BAD_OUTPUT,
        "line 1",
    )


def test_a_repetition_takes_over_the_outputs_of_what_does_not_run_again(w):
    w.submit(two(shell("true", ROWS)), run_id="first")
    w.ended("first/a", outputs={"rows": "12"})
    w.ended("first/b", 1)
    assert order_of(w.again(failed=True), "b").args == ("12",)
    assert w.answer(GetJob(run="again", job="a")).outputs == {"rows": "12"}
    w.restart()
    assert w.answer(GetJob(run="again", job="a")).outputs == {"rows": "12"}


def test_text_of_an_earlier_version_that_only_looks_like_an_expression_is_left_alone():
    """It was let in when nothing was filled in."""
    world = World({"w1": 9})
    launch = order_of(world.submit(run("old", with_launch(job("a"), shell("echo ${{ x }}")))), "a")
    assert launch.shell == "echo ${{ x }}"


def test_a_launch_without_expressions_is_not_copied():
    spec = run("etl", job("a"))
    world = World({"w1": 9})
    world.submit(spec, run_id="r")
    live = world.state.runs["r"]
    assert filling.filled_in(live, live.jobs["a"]) is live.jobs["a"].spec.launch


@pytest.mark.parametrize(
    "outputs",
    [
        {"a b": "1"},
        {"": "1"},
        {"a": "\0"},
        {"a": "x" * (OUTPUT_VALUE_BYTES + 1)},
        {f"k{n}": "" for n in range(OUTPUTS_PER_JOB + 1)},
        {f"k{n}": "x" * OUTPUT_VALUE_BYTES for n in range(5)},
    ],
)
def test_a_report_with_outputs_that_no_worker_makes_is_refused(outputs):
    world = World({"w1": 9})
    world.submit(run("etl", job("a")), run_id="aaaaaaaaaaaaaaaa")
    report = world.ended_report("aaaaaaaaaaaaaaaa/a")
    assert not reports_complaint((report,))
    assert "outputs that cannot be" in reports_complaint((replace(report, outputs=outputs),))


def test_what_the_jobs_of_a_run_leave_together_is_bounded(monkeypatch):
    """The run's own fault fails it, and not another run's jobs; still so after a restart."""
    monkeypatch.setattr(lifecycle, "OUTPUTS_PER_RUN_BYTES", 10)
    world = World({"w1": 9})
    world.submit(run("etl", job("a"), job("b"), job("c")), run_id="r")
    world.submit(run("other", job("a")), run_id="s")
    world.ended("r/a", outputs={"k": "x" * 9})
    world.ended("s/a", outputs={"k": "x" * 9})
    world.ended("r/b", outputs={"k": ""})
    jobs = world.state.runs["r"].jobs
    assert jobs["b"].state is JobState.FAILED
    assert jobs["b"].reason is ExitReason.BAD_OUTPUT
    assert jobs["b"].message.endswith("together more than OUTPUTS_PER_RUN_BYTES (10)")
    assert jobs["b"].outputs is None
    assert world.state.runs["r"].outputs_bytes == 10
    world.restart()
    assert world.state.runs["r"].outputs_bytes == 10
