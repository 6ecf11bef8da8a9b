"""State: its digest, and the ready queue."""

from __future__ import annotations

import subprocess
import sys

import pytest
from core_world import World, job, run

from titan_master.core.state import InvariantViolation, Job, ReadyQueue, State, digest
from titan_proto.messages import GetStats, WaitRun
from titan_proto.states import JobState, WorkerState


def busy():
    w = World({"w1": 2, "w2": 1})
    w.submit(run("r", job("a"), job("b", "a"), job("api", service=True)))
    w.running("r/api", healthy=True)
    return w


def test_what_is_volatile_is_not_in_the_digest():
    w = busy()
    before = digest(w.state)
    w.ask(WaitRun(run="r"))
    w.ask(GetStats())
    w.heartbeat("w1")
    w.cut("w2")
    assert digest(w.state) == before


def changes():
    yield lambda s: setattr(s, "fence", 99)
    yield lambda s: setattr(s, "last_run_id", "x")
    yield lambda s: s.slugs.update(r=9)
    yield lambda s: s.poison.update(x="y")
    yield lambda s: s.keys.clear()
    yield lambda s: setattr(s.runs["r"], "cancelled", True)
    yield lambda s: setattr(s.runs["r"].jobs["a"], "state", JobState.RUNNING)
    yield lambda s: setattr(s.runs["r"].jobs["a"], "lost", 1)
    yield lambda s: setattr(s.runs["r"].jobs["a"].attempt, "port", 1)
    yield lambda s: setattr(s.runs["r"].jobs["b"], "queued_seq", 50)
    yield lambda s: setattr(s.workers["w1"], "state", WorkerState.SILENT)
    yield lambda s: s.workers["w2"].held.update({("x", "y"): 1})
    yield lambda s: s.services.clear()


@pytest.mark.parametrize("change", list(changes()))
def test_everything_durable_is_in_the_digest(change):
    w = busy()
    before = digest(w.state)
    change(w.state)
    assert digest(w.state) != before


STORY = """
import sys
sys.path[:0] = {path!r}
from core_world import World, job, run
from titan_master.core.state import digest
w = World({{"w1": 2, "w2": 3}})
w.submit(run("r", *(job(f"j{{n}}", skills=["B", "A"][n % 2:] + ["C"]) for n in range(20))))
w.join("w3", skills=["C", "A", "B"], slots=7)
w.ended("r/j1"); w.advance(31_000)
print(digest(w.state))
"""


def test_the_digest_does_not_depend_on_the_hash_seed():
    digests = {
        subprocess.run(
            [sys.executable, "-c", STORY.format(path=sys.path)],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "4711")
    }
    assert len(digests) == 1


# -- the ready queue ------------------------------------------------------------------------------
def queued(name, seq, priority=5, skills=("GENERAL",)):
    return Job(job(name, priority=priority, skills=skills), "r", seq, JobState.QUEUED, 0, 0, seq)


def heads(queue):
    return [one.spec.id for ready in queue.classes.values() for one in ready.heads()]


def test_a_class_leaves_the_queue_with_its_last_job():
    queue = ReadyQueue()
    one = queued("a", 1)
    queue.push(one)
    assert (queue.size, heads(queue)) == (1, ["a"])
    one.state = JobState.PLACED
    queue.remove(one)
    assert (queue.size, queue.classes) == (0, {})


def test_a_job_that_was_taken_out_of_the_middle_can_be_queued_again():
    queue = ReadyQueue()
    first, second, third = (queued(name, n) for n, name in enumerate("abc"))
    for one in (first, second, third):
        queue.push(one)
    second.state = JobState.PLACED
    queue.remove(second)
    second.state = JobState.QUEUED
    queue.push(second)
    order = []
    while queue.size:
        (ready,) = queue.classes.values()
        (head,) = ready.heads()
        order.append(head.spec.id)
        head.state = JobState.PLACED
        queue.remove(head)
    assert order == ["a", "c", "b"]


def test_the_memory_of_spellings_of_skills_is_bounded():
    queue = ReadyQueue()
    for n in range(20_000):
        queue.key(queued("a", 1, skills=(f"S{n}",)))
    assert len(queue._keys) <= 10_001


def test_removing_what_stands_in_no_line_is_a_bug():
    queue = ReadyQueue()
    queue.push(queued("a", 1, priority=1))
    with pytest.raises(InvariantViolation):
        queue.remove(queued("b", 2, priority=2))


def test_an_attempt_is_found_in_its_run_and_behind_its_service():
    w = busy()
    assert w.state.find_attempt("r", "a") is w.state.runs["r"].jobs["a"].attempt
    service = w.state.services["r", "api"]
    assert w.state.find_attempt("r", "api") is service.attempt
    w.ended("r/a", 1)
    assert "r" not in w.state.runs
    assert w.state.find_attempt("r", "api") is service.attempt
    assert w.state.find_attempt("r", "a") is None
    assert State().find_attempt("x", "y") is None
