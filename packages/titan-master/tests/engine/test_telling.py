"""What an operator reads: one line a fact, with the names that people use."""

from __future__ import annotations

import pytest
from core_world import World, job, run

from titan_master.telling import Teller
from titan_proto.states import ExitReason


def told(world, *turns):
    """The lines about these turns, from somebody who knew the state before them."""
    return list(world.teller.lines([event for turn in turns for event in turn.events]))


@pytest.fixture
def world():
    w = World({"w1": 1})
    w.teller = Teller(w.state)
    return w


def test_a_lost_attempt_is_told_with_its_worker_its_run_and_what_becomes_of_it(world):
    accepted = world.submit(run("r", job("a")))
    world.running("r/a")
    (line,) = told(world, accepted)
    assert line.startswith("RunAccepted run=r-1 run_id=r jobs=1 owner=ann")
    second = world.join("w2", slots=1)
    assert told(world, second) == [
        "WorkerJoined worker=host:8081 worker_id=w2 incarnation=1 slots=1 skills=GENERAL"
    ]
    for _ in range(3):
        world.advance(9_999)
        world.heartbeat("w2")
    assert told(world, world.advance(3)) == [
        "WorkerLost worker=host:8080 worker_id=w1",
        (
            "AttemptEnded run=r-1 worker=host:8080 job_id=a number=1 reason=LOST "
            "message='worker host:8080 was silent for 30 s'"
        ),
        "JobQueuedAgain run=r-1 job_id=a",
        "AttemptPlaced run=r-1 worker=host:8081 job_id=a number=2 worker_id=w2",
    ]


def test_what_comes_and_goes_by_the_thousand_is_not_told(world):
    turns = [
        world.submit(run("r", job("a"), job("b", "a"))),
        world.ended("r/a"),
        world.ended("r/b"),
    ]
    kinds = [line.split()[0] for line in told(world, *turns)]
    assert kinds == ["RunAccepted", "RunEnded"]


def test_a_service_keeps_its_runs_name_after_the_run(world):
    turns = [world.submit(run("r", job("api", service=True))), world.running("r/api", healthy=True)]
    told(world, *turns)
    (line,) = told(world, world.ended("r/api", 1))
    assert line == "ServiceEnded run=r-1 job_id=api stopped=False reason=EXITED"


def test_nothing_that_somebody_wrote_makes_a_second_line_or_another_fact(world):
    told(world, world.submit(run("r", job("a"))))
    evil = "gone\nMasterStarted term=9"
    lines = told(world, world.ended("r/a", reason=ExitReason.LOST, message=evil))
    assert not [line for line in lines if "\n" in line]
    assert lines[0].endswith(f"message={evil!r}")


def test_what_has_ended_is_forgotten(world):
    told(world, world.submit(run("r", job("a"))), world.ended("r/a"), world.leave("w1"))
    assert (world.teller._runs, world.teller._services, world.teller._workers) == ({}, {}, {})
