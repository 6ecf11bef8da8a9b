"""Running an ended run again: what runs, what is taken over, and that twice is once."""

from __future__ import annotations

import msgspec
import pytest
from core_world import effects, events, job, kinds, run
from repeating import Cluster

from titan_master.core import rerun
from titan_proto.errors import ErrorCode
from titan_proto.messages import Error, GetJob, GetRun, RerunRun, RunReceipt
from titan_proto.specs import Trigger
from titan_proto.states import ExitReason, JobState

SPEC = run("etl", job("a"), job("b", "a"), job("c", "b"), job("d", "a"), job("e", "c", "d"))
OK, BAD, SKIPPED = JobState.SUCCEEDED, JobState.FAILED, JobState.SKIPPED
ENDS = {"a": OK, "b": BAD, "c": SKIPPED, "d": OK, "e": SKIPPED}


def taken(ends=ENDS, **wanted):
    return rerun.taken_over(SPEC, ends, RerunRun(key="k", run="etl-1", **wanted))


def test_without_a_choice_everything_runs_again():
    assert taken() == ()


def test_only_what_did_not_succeed():
    assert taken(failed=True) == ("a", "d")


def test_from_a_job_on_with_all_that_hangs_on_it_and_what_did_not_succeed():
    assert taken(from_job="d") == ("a",)
    assert taken(dict.fromkeys("abcde", OK), from_job="c") == ("a", "b", "d")


def test_what_succeeded_after_a_failure_runs_again_with_it():
    ends = {"a": OK, "b": BAD, "c": OK, "d": OK, "e": OK}
    assert taken(ends, failed=True) == ("a", "d")


def test_what_was_skipped_though_nothing_failed_is_no_reason_to_run_again():
    ends = {"a": OK, "b": OK, "c": SKIPPED, "d": OK, "e": OK}
    with pytest.raises(rerun.NothingToRerun, match="nothing of it failed"):
        taken(ends, failed=True)
    assert taken(ends, from_job="d") == ("a", "b")


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [
        (dict.fromkeys("abcde", OK), {"failed": True}),
        (ENDS, {"from_job": "nobody"}),
    ],
)
def test_what_fits_no_job_is_refused(ends, wanted):
    with pytest.raises(rerun.NothingToRerun):
        taken(ends, **wanted)


# -- in the core, with history beside it ----------------------------------------------------------
@pytest.fixture
def w():
    world = Cluster({"w1": 9})
    world.submit(SPEC, run_id="first")
    world.ended("first/a")
    world.ended("first/d")
    world.ended("first/b", 3)
    assert not world.state.runs
    return world


def test_a_repetition_names_the_old_run_and_begins_where_it_failed(w):
    turn = w.again(failed=True)
    assert kinds(turn) == ["RunAccepted", "AttemptPlaced"]
    assert "rerun_of=first, rerun_alias=etl-1, taken_over=[a, d]" in events(turn)[0]
    assert "takes_over=first" in effects(turn)[-1], "its shared files begin with the old run's"
    assert w.job_states("again") == {
        "a": "SUCCEEDED", "b": "PLACED", "c": "BLOCKED", "d": "SUCCEEDED", "e": "BLOCKED",
    }  # fmt: skip
    assert w.answer(GetRun(run="again")).rerun_of == "etl-1"
    view = w.answer(GetJob(run="again", job="a"))
    assert (view.reason, view.attempt) == (ExitReason.TAKEN_OVER, 0)
    for name in "bce":
        w.ended(f"again/{name}")
    assert not w.state.runs


def test_a_repetition_survives_a_restart(w):
    w.again(failed=True)
    w.restart()
    assert w.job_states("again")["a"] == "SUCCEEDED"


def test_the_same_key_repeats_once(w):
    w.again(failed=True)
    turn = w.again(failed=True)
    assert events(turn) == []
    assert turn.effects[0].message == RunReceipt(run_id="again", alias="etl-2", known=True)
    other = w.again(failed=False)
    assert other.effects[0].message.code is ErrorCode.CONFLICT


def test_a_repetition_is_refused_where_files_that_it_needs_are_gone(w):
    w.gone = 2
    turn = w.again(failed=True)
    assert turn[0].message.code is ErrorCode.CONFLICT
    assert "2 of the files that it needs are gone" in turn[0].message.message
    assert "--keep-artifacts" in turn[0].message.message


def test_a_run_that_has_not_ended_is_not_run_again():
    world = Cluster({"w1": 9})
    world.submit(SPEC, run_id="first")
    refusal = world.again().effects[0].message
    assert isinstance(refusal, Error)
    assert refusal.code is ErrorCode.CONFLICT
    assert "has not ended" in refusal.message


def test_a_service_is_taken_over_while_it_is_up_and_run_again_when_it_is_not():
    spec = run("etl", job("api", service=True), job("b", "api"))
    world = Cluster({"w1": 9})
    world.submit(spec, run_id="first")
    world.running("first/api", healthy=True)
    world.ended("first/b", 1)
    assert "taken_over=[api]" in events(world.again(key="k1", failed=True))[0]
    world.ended("again/b", 1)
    world.ended("first/api", 1)
    assert "taken_over" not in events(world.again(key="k2", failed=True))[0]


def test_the_digest_of_a_repetition_says_what_is_asked_for():
    one = RerunRun(key="k", run="etl-1")
    assert rerun.rerun_digest(one) == rerun.rerun_digest(msgspec.structs.replace(one, key="l"))
    for other in ({"run": "etl-2"}, {"failed": True}, {"from_job": "a"}):
        assert rerun.rerun_digest(one) != rerun.rerun_digest(msgspec.structs.replace(one, **other))


def test_what_has_a_trigger_and_only_what_was_taken_over_above_it_is_decided_about_at_once():
    world = Cluster({"w1": 9})
    jobs = [job("a"), job("mend", "a"), job("after", "mend"), job("tell", "a")]
    world.submit(run("etl", *jobs, mend=Trigger.ANY_FAILED, tell=Trigger.ALL_DONE), run_id="first")
    world.ended("first/a")
    world.ended("first/tell", 1)
    turn = world.again(failed=True)
    assert events(turn)[1:4] == [
        "JobsDropped(run_id=again, job_ids=[mend], state=SKIPPED, reason=TRIGGER_UNMET)",
        "JobsDropped(run_id=again, job_ids=[after], state=SKIPPED, reason=PARENT_SKIPPED)",
        "JobsQueued(run_id=again, job_ids=[tell])",
    ]
