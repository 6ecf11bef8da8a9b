"""Events as the core makes them, for those who only keep them."""

from __future__ import annotations

from core_world import EVENTS, World, gate, job, run

from titan_master.core.events import AnyEvent
from titan_proto.messages import DecideGate, Kin, SpawnWorker, TriggerSchedule
from titan_proto.states import ExitReason


def a_day() -> World:
    """Three runs that have ended, each in its own way, and one that has not.

    ``etl-1``: all well, one attempt lost on the way; its service is still up.
    ``etl-2``: the first job fails, the second is skipped.
    ``nightly-1``: cancelled before it began.
    ``open-1``: still running.
    And a worker has been asked for that has not joined.
    """
    world = World({"w1": 2})
    world.join("w2", slots=2, kin=Kin(cores=8))
    world.submit(run("ETL", job("PULL"), job("API", "PULL", service=True)), run_id="run1")
    world.advance(1_000)
    world.running("run1/PULL")
    first = world.worker_of("run1/PULL")
    world.ended("run1/PULL", reason=ExitReason.LOST)
    world.running("run1/PULL")
    world.advance(500)
    world.ended("run1/PULL", stdout_bytes=7, stderr_bytes=3)
    world.running("run1/API", healthy=True, port=8123)
    assert first in {"w1", "w2"}
    world.submit(run("ETL", job("PULL"), job("CLEAN", "PULL")), run_id="run2")
    world.running("run2/PULL")
    world.ended("run2/PULL", 3, message="no such file", stderr_bytes=12)
    world.submit(run("Nightly", job("ONE", skills=("GPU",)), job("TWO", "ONE")), run_id="run3")
    world.ask(_cancel("run3"))
    world.submit(run("Open", job("PULL")), run_id="run4")
    world.running("run4/PULL")
    world.ask(SpawnWorker(port=9000, slots=1))
    return world


def a_decision() -> World:
    """A run with one gate of each end: approved, rejected, expired, cancelled before it opened."""
    world = World({"w1": 1})
    jobs = (
        gate("YES", message="Rows look right?"),
        gate("NO", "YES", timeout_ms=60_000),
        gate("LATE", timeout_ms=5_000, message="Anybody?"),
        gate("BELOW", "NO"),
    )
    world.submit(run("Ask", *jobs), run_id="asks")
    world.advance(1_000)
    world.ask(DecideGate(gate="asks/YES", approve=True, comment="they do"), who="bob")
    world.advance(4_000)
    world.ask(DecideGate(gate="asks/NO", approve=False), who="eve")
    return world


def a_schedule() -> World:
    """Two slots of one schedule, and a run that somebody wanted between them."""
    world = World({"w1": 1})
    world.schedule("nightly", "@every 5s")
    for trigger in (False, True, False):
        if trigger:
            world.ask(TriggerSchedule(key="now", schedule="nightly"), who="bob")
        else:
            world.advance(5_000)
        (run_id,) = world.state.runs
        world.ended(f"{run_id}/a")
    return world


def events(world: World) -> list[AnyEvent]:
    """Everything that became true in it."""
    return [EVENTS.decode(body) for body in world.journal]


def _cancel(run_id: str):
    from titan_proto.messages import CancelRun

    return CancelRun(run=run_id)
