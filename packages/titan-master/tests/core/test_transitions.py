"""Every legal move happens in some story of the pure core, and no other ever does."""

from __future__ import annotations

from core_world import World, gate, job, run

from titan_master.core.core import CoreConfig
from titan_master.core.transitions import TABLES
from titan_proto.messages import CancelRun, DecideGate, StopService
from titan_proto.specs import RetryPolicy, Shape
from titan_proto.states import ExitReason, JobState


def ends():
    w = World({"w1": 9})
    w.submit(run("r", *(job(name) for name in "abcdef"), job("z", "a"), job("y", "b")))
    w.ended("r/a")
    w.ended("r/b", 1)
    for name in "cd":
        w.running(f"r/{name}")
    w.ended("r/c")
    w.ended("r/d", 1)
    w.ended("r/e", reason=ExitReason.LOST)
    w.running("r/f")
    w.ended("r/f", reason=ExitReason.LOST)
    for name in "efz":
        w.ended(f"r/{name}")
    w.submit(run("s", job("a"), job("b", "a", delay_ms=5)))
    w.ended("s/a")
    w.advance(5)
    w.ended("s/b")
    return w


def retries():
    w = World({"w1": 9}, CoreConfig(crash_limit=9))
    again = RetryPolicy(limit=9, delay_ms=1_000, jitter=False)
    short = {"retries": again, "job_timeout_ms": 3_000}
    w.submit(run("r", job("a", retries=again), job("b", **short), job("c", **short)))
    w.ended("r/a", 1)
    w.running("r/b")
    w.ended("r/b", 1)
    w.advance(1_000)
    w.running("r/a")
    w.ended("r/a")
    w.advance(2_000)
    w.ended("r/c", 1)
    w.ended("r/b", reason=ExitReason.TIMED_OUT)
    w.submit(run("s", job("a", retries=RetryPolicy(limit=1, delay_ms=9_000), job_timeout_ms=4_000)))
    w.ended("s/a", 1)
    w.advance(4_000)
    w.submit(run("t", job("a", retries=again)))
    w.ended("t/a", 1)
    w.ask(CancelRun(run="t"))
    w.submit(run("u", job("a", job_timeout_ms=4_000), job("b", "a")))
    w.join("w1", slots=1)
    w.leave("w1")
    w.advance(4_000)
    return w


def conditions():
    w = World({"w1": 9})
    keeps = job("keeps", skills=["NONE"])
    w.submit(run("r", job("a"), job("b", "a"), keeps, b=Shape(when="jobs.a.outputs.n > 0")))
    w.ended("r/a")
    return w


def cancels():
    w = World({"w1": 3})
    jobs = [job(name) for name in "abcd"]
    w.submit(run("r", *jobs, job("e", "a"), job("f", delay_ms=9_000)))
    w.running("r/a")
    w.ask(CancelRun(run="r"))
    w.ended("r/a", reason=ExitReason.CANCELLED)
    w.ended("r/b")
    w.ended("r/c", 1)
    return w


def workers():
    w = World({"w1": 1, "w2": 1, "w3": 1, "w4": 1}, CoreConfig(forget_after_ms=100_000))
    w.leave("w4")
    w.advance(10_000)
    w.leave("w3")
    w.heartbeat("w1")
    w.advance(20_000)
    w.join("w2")
    w.advance(300_000)
    return w


def drains():
    w = World({"w1": 1, "w2": 1})
    w.heartbeat("w1", "w2", leaving=True)
    w.leave("w1")
    w.join("w2", incarnation=2)
    w.heartbeat("w2", leaving=True)
    w.advance(30_000)
    return w


def services():
    w = World({"w1": 2})
    for name in ("r1", "r2"):
        w.submit(run(name, job("api", service=True)))
        w.running(f"{name}/api", healthy=True)
    w.running("r1/api", restarts=1)
    w.running("r1/api", restarts=1, healthy=True)
    w.ended("r1/api", 1)
    w.ask(StopService(service="r2/api"))
    w.ended("r2/api", reason=ExitReason.STOPPED)
    for name in ("r3", "r4"):
        w.submit(run(name, job("api", service=True)))
        w.running(f"{name}/api", healthy=True)
        w.running(f"{name}/api", restarts=1)
    w.ended("r3/api", 1)
    w.ask(StopService(service="r4/api"))
    return w


def moves():
    w = World({"w1": 5})
    for name in ("r1", "r2", "r3", "r4", "r5"):
        w.submit(run(name, job("api", service=True)), run_id=name)
        w.running(f"{name}/api", healthy=True)
    w.running("r1/api", restarts=1)
    w.submit(run("r2", job("api", service=True)), run_id="later", key="later")
    w.leave("w1")
    w.ask(StopService(service="r5/api"))
    w.join("w2", slots=4)
    w.running("r1/api", healthy=True)
    w.running("r2/api", restarts=1)
    w.ask(StopService(service="r3/api"))
    w.ended("r4/api", 1, reason=ExitReason.CRASH_LOOP)
    return w


def moves_with_a_replacement():
    w = World({"w1": 2, "w2": 2})
    for name in ("r1", "r2"):
        w.submit(run(name, job("api", service=True)), run_id=name)
        w.running(f"{name}/api", healthy=True)
    w.running("r2/api", restarts=1)
    w.join("w3")
    w.heartbeat("w1", "w2", leaving=True)
    for name in ("r1", "r2"):
        w.ended(f"{name}/api", reason=ExitReason.WORKER_LEFT)
    return w


def gates():
    w = World({"w1": 1})
    w.submit(run("r", job("a"), gate("yes", "a"), gate("no", delay_ms=5), gate("never")))
    w.ended("r/a")
    w.advance(5)
    w.ask(DecideGate(gate="r/yes", approve=True))
    w.ask(DecideGate(gate="r/no", approve=False))
    w.ask(CancelRun(run="r"))
    return w


def test_every_legal_move_is_made_and_no_other():
    stories = (
        ends,
        retries,
        conditions,
        cancels,
        workers,
        drains,
        services,
        moves,
        moves_with_a_replacement,
        gates,
    )
    made = set().union(*(story().moves for story in stories))
    legal = {(table, str(frm), str(to)) for table, moves in TABLES.items() for frm, to in moves}
    assert sorted(made) == sorted(legal)


def test_nothing_leaves_a_terminal_state():
    terminal = {
        "JOB": {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"},
        "ATTEMPT": {"ENDED"},
        "RUN": {"SUCCEEDED", "FAILED", "CANCELLED"},
        "WORKER": {"RETIRED"},
        "SERVICE": {"STOPPED", "FAILED"},
    }
    for table, moves in TABLES.items():
        assert not {str(frm) for frm, _ in moves} & terminal[table]


def test_every_job_state_can_be_reached_and_left_unless_it_is_an_end():
    states = set(JobState) - {JobState.UNKNOWN}
    moves = TABLES["JOB"]
    assert {to for _, to in moves} | {JobState.BLOCKED} == states
