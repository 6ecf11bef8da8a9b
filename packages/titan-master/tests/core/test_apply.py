"""apply: what cannot be is refused, and encoded events make the state that live ones made."""

from __future__ import annotations

import msgspec
import pytest
from core_world import EVENTS, World, job, run

from titan_master.core.apply import apply, fold
from titan_master.core.events import (
    AttemptEnded,
    AttemptPlaced,
    AttemptStarted,
    JobCancelling,
    JobEnded,
    JobsDropped,
    JobsQueued,
    RunAccepted,
    RunEnded,
    WorkerLost,
    WorkerRetired,
)
from titan_master.core.state import InvariantViolation, State, digest
from titan_proto.specs import RunSpec
from titan_proto.states import ExitReason, JobState, RunState


def world():
    w = World({"w1": 2})
    w.submit(run("r", job("a"), job("b", "a")))
    return w


def impossible():
    at = {"at_ms": 1}
    a = {**at, "run_id": "r", "job_id": "a"}
    placed = {**a, "worker_id": "w1", "incarnation": 1, "fence": 9}
    yield JobsQueued(**at, run_id="r", job_ids=("a",))
    yield JobsQueued(**at, run_id="gone", job_ids=("a",))
    yield JobsDropped(
        **at, run_id="r", job_ids=("a",), state=JobState.SKIPPED, reason=ExitReason.UNKNOWN
    )
    yield JobCancelling(**at, run_id="r", job_id="b")
    yield JobEnded(
        **at, run_id="r", job_id="b", state=JobState.SUCCEEDED, reason=ExitReason.EXITED, number=1
    )
    yield AttemptPlaced(**placed, number=2)
    yield AttemptPlaced(**placed, number=3)
    yield AttemptStarted(**a, number=2)
    yield AttemptEnded(**a, number=2, worker_id="w1", worker="", reason=ExitReason.EXITED)
    yield AttemptEnded(
        **at, run_id="x", job_id="y", number=1, worker_id="w1", worker="", reason=ExitReason.LOST
    )
    yield RunEnded(**at, run_id="r", state=RunState.SUCCEEDED)
    yield RunEnded(**at, run_id="r", state=RunState.ACTIVE)
    yield WorkerLost(**at, worker_id="w1")
    yield WorkerRetired(**at, worker_id="w1")


@pytest.mark.parametrize("event", list(impossible()), ids=lambda event: type(event).__name__)
def test_what_cannot_be_is_refused(event):
    with pytest.raises(InvariantViolation):
        apply(world().state, event)


def accepted(spec):
    return RunAccepted(
        at_ms=1,
        run_id="r",
        key="k",
        digest="d",
        name=spec.name,
        slug="r",
        number=1,
        owner="ann",
        jobs=len(spec.jobs),
        spec=msgspec.msgpack.encode(spec),
    )


def test_a_spec_handed_over_decoded_makes_the_same_state_as_its_bytes():
    spec = run("r", job("a", delay_ms=5), job("b", "a"), job("c"))
    decoded, handed = State(), State()
    apply(decoded, accepted(spec))
    apply(handed, accepted(spec), spec)
    assert digest(decoded) == digest(handed)
    assert handed.runs["r"].jobs["a"].spec is spec.jobs[0], "it must not be decoded again"


def test_a_run_id_is_accepted_once():
    state = fold([accepted(run("r", job("a")))])
    with pytest.raises(InvariantViolation):
        apply(state, accepted(run("r", job("a"))))


def test_a_run_has_each_job_once():
    with pytest.raises(InvariantViolation):
        fold([accepted(RunSpec(name="r", jobs=(job("a"), job("a"))))])


def test_folding_the_journal_makes_the_state_that_live_events_made():
    w = world()
    w.running("r/a")
    w.ended("r/a")
    w.advance(15_000)
    folded = fold(EVENTS.decode(body) for body in w.journal)
    assert digest(folded) == digest(w.state)


def test_every_event_survives_its_encoding():
    w = world()
    w.ended("r/a", 1)
    w.advance(31_000)
    for body in w.journal:
        assert msgspec.msgpack.encode(EVENTS.decode(body)) == body
