"""check: each promise, broken on purpose, is found and named."""

from __future__ import annotations

import re

import pytest
from core_world import World, job, run

from titan_master.core.check import check, problems
from titan_master.core.state import ClassKey, InvariantViolation, State
from titan_proto.states import AttemptState, JobState, ServiceState, WorkerState


def world():
    """Everything at once: blocked, queued, placed, running, a service with and without its run."""
    w = World()
    w.join("w1", slots=2, resources={"gpu": 1})
    w.join("w2", slots=2)
    w.submit(run("old", job("api", service=True)))
    w.running("old/api", healthy=True)
    w.submit(
        run(
            "r",
            job("a", takes={"gpu": 1}),
            job("b", "a"),
            job("c"),
            job("api", service=True),
            job("q"),
        )
    )
    w.running("r/a")
    w.running("r/api", healthy=True)
    return w


def test_a_sound_state_has_no_problems():
    w = world()
    assert list(problems(w.state)) == []
    assert list(problems(State())) == []
    check(w.state)


def jobs(state):
    return state.runs["r"].jobs


DAMAGE = {
    "counts .* has": lambda s: s.runs["r"].counts.update({JobState.FAILED: 1}),
    "jobs left": lambda s: setattr(s.runs["r"], "remaining", 9),
    "order differ": lambda s: s.runs["r"].order.reverse(),
    "its alias": lambda s: s.aliases.update({"r-1": "old"}),
    "number may be given again": lambda s: s.slugs.clear(),
    "serial was never given": lambda s: setattr(s, "runs_accepted", 0),
    "in a cancelled run": lambda s: setattr(s.runs["r"], "cancelled", True),
    "unmet dependencies": lambda s: setattr(jobs(s)["b"], "waiting", 0),
    "before its dependencies": lambda s: setattr(jobs(s)["b"], "state", JobState.QUEUED),
    "blocked by nothing": lambda s: setattr(jobs(s)["c"], "state", JobState.BLOCKED),
    "can never succeed": lambda s: setattr(jobs(s)["a"], "state", JobState.FAILED),
    "without a live attempt": lambda s: setattr(jobs(s)["q"], "state", JobState.RUNNING),
    "with a live attempt": lambda s: setattr(jobs(s)["a"], "state", JobState.SUCCEEDED),
    "with an attempt": lambda s: setattr(jobs(s)["a"].attempt, "state", AttemptState.PREPARING),
    "lost and 0 failed": lambda s: setattr(jobs(s)["a"], "lost", 2),
    "fence was never given": lambda s: setattr(s, "fence", 1),
    "which is not live": lambda s: s.workers["w2"].held.update({("x", "y"): 1}),
    "placed on w": lambda s: setattr(jobs(s)["a"].attempt, "worker_id", "w9"),
    "process that has not been": lambda s: setattr(jobs(s)["a"].attempt, "incarnation", 5),
    "slots$": lambda s: setattr(s.workers["w1"], "slots", 1),
    "lost, and holds": lambda s: setattr(s.workers["w1"], "state", WorkerState.LOST),
    "of which workers hold": lambda s: s.workers["w1"].held.clear(),
    "is filed under": lambda s: s.services.update({("x", "y"): s.services["r", "api"]}),
    "with an attempt ENDED": lambda s: setattr(
        s.services["old", "api"].attempt, "state", AttemptState.ENDED
    ),
    "is not placed as what it is": lambda s: s.instances.pop(("old", "api")),
    "are placed as": lambda s: s.instances.update({("x", "y"): s.instances["old", "api"]}),
    "is held back": lambda s: setattr(s.services["old", "api"], "not_before_ms", 1),
    "slots taken": lambda s: setattr(s.workers["w1"], "used", 9),
    "of its resources taken": lambda s: s.workers["w1"].taken.update({"gpu": 9}),
    "of 0 gpu are taken": lambda s: s.workers["w1"].resources.pop("gpu"),
    "without slots": lambda s: setattr(s.queue, "slotless", 9),
    "and still there": lambda s: setattr(s.services["r", "api"], "state", ServiceState.STOPPED),
    "its job is": lambda s: setattr(jobs(s)["api"], "state", JobState.RUNNING),
    "have 2 aliases": lambda s: s.aliases.update({"x": "y"}),
    "have 1 names": lambda s: s.names.pop("host:8080"),
    "is not called so": lambda s: s.names.update({"host:8080": "w2"}),
    "jobs are counted as": lambda s: s.counts.update({JobState.BLOCKED: 7}),
    "dead entries": lambda s: setattr(jobs(s)["q"], "state", JobState.CANCELLED),
    "wrong line": lambda s: (
        s.queue.push(s.queue.classes[ClassKey(("GENERAL",), 1)].lines[5].jobs[0])
        or s.queue.classes[ClassKey(("GENERAL",), 1)].lines.reverse()
        or s.queue.classes[ClassKey(("GENERAL",), 1)].lines.insert(0, None)
    ),
    "out of order": lambda s: s.queue.push(jobs(s)["q"]),
    "in the queue": lambda s: s.queue.classes.clear(),
}


@pytest.mark.parametrize("complaint", list(DAMAGE))
def test_a_broken_promise_is_named(complaint):
    w = world()
    DAMAGE[complaint](w.state)
    found = list(problems(w.state))
    assert any(re.search(complaint, one) for one in found), found
    with pytest.raises(InvariantViolation, match=r"\[state [0-9a-f]{64}\]"):
        check(w.state)


def test_a_run_with_nothing_left_must_have_ended():
    w = World()
    w.submit(run("r", job("a")))
    live = w.state.runs["r"]
    live.jobs["a"].state = JobState.CANCELLED
    live.remaining = 0
    assert any("has not ended" in one for one in problems(w.state))
