"""Scaling: when a sibling is asked for, let in, given up and told to leave; and never twice."""

from __future__ import annotations

import msgspec
import pytest
from core_world import World, events, gate, job, kinds, run

from titan_master.core.core import CoreConfig
from titan_master.core.effects import HangUp, Tell
from titan_master.core.inputs import SpawnsReported
from titan_proto.errors import ErrorCode
from titan_proto.messages import (
    DecideGate,
    Error,
    GetScaling,
    Kin,
    ShutDown,
    SpawnOrdered,
    SpawnReport,
    SpawnSibling,
    SpawnVerdicts,
    SpawnWorker,
    WorkerStatus,
)
from titan_proto.specs import Needs, Terms
from titan_proto.states import ScalingKind, WorkerState

CONFIG = CoreConfig(
    autoscale=True,
    scale_every_ms=1_000,
    sibling_idle_ms=3_000,
    spawn_timeout_ms=8_000,
    spawn_key=b"key",
)


def told(turn, kind):
    """What workers are told of this kind, in order."""
    return [
        effect.message
        for effect in turn.effects
        if isinstance(effect, Tell) and isinstance(effect.message, kind)
    ]


def crowded(jobs=12, *, config=CONFIG, cores=8, slots=4, spec=None, **join):
    """A worker with more jobs than it has slots."""
    w = World(config=config)
    w.join("w1", slots=slots, kin=Kin(cores=cores), **join)
    w.submit(spec or run("r", *(job(f"j{n}") for n in range(jobs))))
    return w


def born(w, order, name="s1", **join):
    """The sibling that an order is for joins."""
    kin = Kin(cores=8, number=order.number, proof=order.proof)
    return w.join(name, port=order.port, slots=order.slots, kin=kin, **join)


# -- asking -----------------------------------------------------------------------------------------
def test_what_waits_for_longer_than_a_moment_makes_a_worker_spawn_another_one():
    w = crowded(5)
    assert told(w.advance(200), SpawnSibling) == []
    turn = w.advance(100)
    (order,) = told(turn, SpawnSibling)
    assert (order.port, order.slots, order.skills) == (8081, 4, ("GENERAL",))
    assert events(turn) == [
        (
            "SpawnAsked(number=5, worker_id=w1, parent=host:8080, host=host, port=8081, slots=4,"
            " skills=[GENERAL], cause='1 job waits for GENERAL, 0 slots are free or to come')"
        )
    ]


def test_only_what_is_missing_is_asked_for():
    """Slots to come count; what was asked for is not asked for again at the next look."""
    w = crowded(4 + 9)
    assert len(told(w.advance(250), SpawnSibling)) == 3  # 9 jobs on 4 slots each
    assert told(w.advance(5_000), SpawnSibling) == []


def test_siblings_go_to_no_host_beyond_its_limits():
    w = crowded(100)
    assert len(told(w.advance(60_000), SpawnSibling)) >= 4
    assert len(w.state.spawns) <= 4
    w = crowded(100, cores=2)  # 8 slots in all
    w.advance(250)
    assert [spawn.slots for spawn in w.state.spawns.values()] == [4]
    w = crowded(100, cores=2, slots=6)
    w.advance(250)
    assert [spawn.slots for spawn in w.state.spawns.values()] == [2]
    w = crowded(100, cores=1)
    assert told(w.advance(5_000), SpawnSibling) == []


def test_there_is_a_limit_for_all_hosts_together():
    w = crowded(100, config=CoreConfig(autoscale=True, siblings_max=2))
    w.advance(15_000)
    assert len(w.state.spawns) == 2


def test_nothing_is_spawned_where_that_is_switched_off_or_cannot_be():
    w = crowded(100, config=CoreConfig())
    assert told(w.advance(60_000), SpawnSibling) == []
    w = crowded(100, cores=0)  # a worker of before says nothing of cores
    assert told(w.advance(60_000), SpawnSibling) == []


def test_a_worker_is_asked_that_has_the_skills():
    w = World(config=CONFIG)
    w.join("w1", slots=1, kin=Kin(cores=8))
    w.join("w2", slots=1, skills=["GENERAL", "GPU"], kin=Kin(cores=8))
    w.submit(run("r", job("a", skills=["GPU"]), job("b", skills=["GPU"])))
    (order,) = told(w.advance(250), SpawnSibling)
    assert order.skills == ("GENERAL", "GPU")
    assert w.state.spawns[order.number].parent_id == "w2"


def test_nothing_is_spawned_for_what_a_sibling_could_not_have_either():
    """No worker of its skills; more slots than the room leaves; a fixed port that a service has."""
    w = crowded(spec=run("r", job("a", skills=["GPU"])))
    assert told(w.advance(5_000), SpawnSibling) == []
    w = crowded(spec=run("r", job("a", slots=5)))
    assert told(w.advance(5_000), SpawnSibling) == []
    w = crowded(spec=run("r", job("a", service=True, port=8500), *(job(f"j{n}") for n in range(3))))
    w.running("r/a", healthy=True, port=8500)
    w.submit(run("s", job("b", service=True, port=8500)))
    assert told(w.advance(5_000), SpawnSibling) == []


def test_a_host_that_is_short_of_memory_is_left_alone():
    w = crowded()
    status = WorkerStatus(running=4, memory_used_bytes=91, memory_total_bytes=100)
    w.core.hear(w.links["w1"], status, w.now_ms)
    assert told(w.advance(5_000), SpawnSibling) == []


def test_a_leaving_worker_is_asked_for_nothing():
    w = crowded()
    w.heartbeat("w1", leaving=True)
    assert told(w.advance(5_000), SpawnSibling) == []


def test_there_is_nothing_to_wake_up_for_where_nothing_waits():
    w = World(config=CONFIG)
    w.join("w1", kin=Kin(cores=8))
    due = w.core.next_deadline_ms()
    assert due == w.now_ms + CONFIG.silent_after_ms


# -- registering ------------------------------------------------------------------------------------
def test_a_sibling_counts_once_it_has_joined_with_its_proof():
    w = crowded(5)
    (order,) = told(w.advance(250), SpawnSibling)
    turn = born(w, order)
    assert kinds(turn) == ["WorkerJoined", "SpawnSettled", "AttemptPlaced"]
    assert told(turn, SpawnVerdicts) == [SpawnVerdicts(term=1, settled=(order.number,))]
    (view,) = w.answer(GetScaling()).siblings
    assert (view.worker, view.parent, view.by_hand) == ("host:8081", "host:8080", False)
    assert view.cause.startswith("1 job waits")


@pytest.mark.parametrize("kin", [Kin(number=5, proof="guessed"), Kin(number=99, proof="x")])
def test_who_cannot_show_that_it_was_asked_for_is_sent_away(kin):
    w = crowded(5)
    w.advance(250)
    (effect,) = w.join("s1", port=8081, kin=kin).effects
    assert isinstance(effect, HangUp)
    assert effect.code is ErrorCode.SUPERSEDED
    assert list(w.state.workers) == ["w1"]


def test_a_second_one_with_the_same_proof_is_sent_away():
    w = crowded(5)
    (order,) = told(w.advance(250), SpawnSibling)
    born(w, order)
    (effect,) = born(w, order, "s2", skills=["GENERAL"]).effects
    assert isinstance(effect, HangUp)


def test_one_that_does_not_come_is_given_up_and_killed_and_may_not_come_later():
    w = crowded(5)
    (order,) = told(w.advance(250), SpawnSibling)
    turn = w.advance(8_000)
    assert "SpawnSettled" in kinds(turn)
    assert told(turn, SpawnVerdicts) == [SpawnVerdicts(term=1, given_up=(order.number,))]
    (effect,) = born(w, order).effects
    assert isinstance(effect, HangUp)
    last = w.answer(GetScaling()).recent[-1]
    assert (last.kind, "SPAWN_TIMEOUT_MS" in last.cause) == (ScalingKind.TIMED_OUT, True)


def test_after_a_failure_a_worker_is_asked_again_only_after_a_pause_that_grows():
    w = crowded(5)
    (order,) = told(w.advance(250), SpawnSibling)
    asked = []
    for _ in range(4):
        report = SpawnReport(number=order.number, ended=True, message="it ended with 1")
        w.turn(SpawnsReported(link_id=w.links["w1"], reports=(report,)))
        began_ms, orders = w.now_ms, []
        while not orders:
            w.heartbeat("w1")
            orders = told(w.advance(100), SpawnSibling)
        (order,) = orders
        asked.append(w.now_ms - began_ms)
    assert asked[0] < asked[1] < asked[2] < asked[3]
    assert asked[0] >= 1_000
    born(w, order)
    assert w.state.workers["w1"].spawns_failed == 0


# -- crashes ----------------------------------------------------------------------------------------
def test_a_master_that_was_killed_asks_again_under_the_same_number_and_with_the_same_proof():
    w = crowded(5)
    (order,) = told(w.advance(250), SpawnSibling)
    w.restart()
    turn = w.join("w1", held=[(f"r/j{n}", "RUNNING") for n in range(4)])
    (again,) = told(turn, SpawnSibling)
    assert (again.number, again.proof) == (order.number, order.proof)
    assert told(w.advance(2_000), SpawnSibling) == []


def test_a_worker_that_says_it_has_spawned_is_not_told_again():
    w = crowded(5)
    (order,) = told(w.advance(250), SpawnSibling)
    w.restart()
    spawned = (SpawnReport(number=order.number),)
    held = [(f"r/j{n}", "RUNNING") for n in range(4)]
    turn = w.join("w1", held=held, kin=Kin(cores=8, spawned=spawned))
    assert told(turn, SpawnSibling) == []
    assert "SpawnSettled" in kinds(born(w, order))


def test_what_a_worker_spawned_and_nobody_waits_for_is_to_be_killed_unless_it_has_joined():
    w = crowded(5)
    (order,) = told(w.advance(250), SpawnSibling)
    born(w, order)
    numbers = (order.number, order.number + 1_000)
    spawned = tuple(SpawnReport(number=number) for number in numbers)
    held = [(f"r/j{n}", "RUNNING") for n in range(4)]
    turn = w.join("w1", held=held, kin=Kin(cores=8, spawned=spawned))
    (verdict,) = told(turn, SpawnVerdicts)
    assert (verdict.settled, verdict.given_up) == (numbers[:1], numbers[1:])


def test_the_time_that_a_sibling_has_begins_anew_with_the_master():
    w = crowded(5)
    (order,) = told(w.advance(250), SpawnSibling)
    w.now_ms += 20_000
    w.restart()
    held = [(f"r/j{n}", "RUNNING") for n in range(4)]
    w.join("w1", held=held, kin=Kin(cores=8, spawned=(SpawnReport(number=order.number),)))
    assert "SpawnSettled" not in kinds(w.advance(7_000))
    assert "SpawnSettled" in kinds(born(w, order))


# -- leaving ----------------------------------------------------------------------------------------
def test_a_sibling_that_is_idle_for_long_is_told_to_leave_and_gets_nothing_new():
    w = crowded(5)
    (order,) = told(w.advance(250), SpawnSibling)
    born(w, order)
    w.ended("r/j4")
    turn = w.advance(3_000)
    assert "SiblingDismissed(worker_id=s1, why='it was idle for 3 s')" in events(turn)
    assert len(told(turn, ShutDown)) == 1
    assert not w.state.workers["s1"].held
    w.submit(run("s", job("a")))
    assert w.job_state("s/a") == "QUEUED"
    assert w.answer(GetScaling()).siblings[0].dismissed
    w.heartbeat("s1", leaving=True)
    w.leave("s1")
    kept = [change.kind for change in w.answer(GetScaling()).recent]
    assert kept == [
        ScalingKind.ASKED,
        ScalingKind.JOINED,
        ScalingKind.DISMISSED,
        ScalingKind.LEFT,
    ]


def test_what_holds_a_service_is_not_idle_and_a_parent_never_leaves():
    w = crowded(4, spec=run("r", *(job(f"j{n}") for n in range(4)), job("s", service=True)))
    (order,) = told(w.advance(250), SpawnSibling)
    born(w, order)
    w.running("r/s", healthy=True, port=9_123)
    for n in range(4):
        w.ended(f"r/j{n}")
    for _ in range(20):
        w.heartbeat("w1", "s1")
        assert told(w.advance(2_000), ShutDown) == []


def test_one_that_may_not_have_heard_that_it_is_to_leave_is_told_again():
    w = crowded(5)
    (order,) = told(w.advance(250), SpawnSibling)
    born(w, order)
    w.ended("r/j4")
    w.advance(3_000)
    w.restart()
    assert len(told(born(w, order, incarnation=1), ShutDown)) == 1


def test_a_sibling_whose_parent_is_gone_lives_on_until_it_is_idle():
    w = crowded(5)
    (order,) = told(w.advance(250), SpawnSibling)
    born(w, order)
    for n in range(4):
        w.ended(f"r/j{n}")
    w.leave("w1")
    for _ in range(10):
        w.heartbeat("s1")
        assert told(w.advance(2_000), ShutDown) == []
    w.ended("r/j4")
    w.heartbeat("s1")
    assert len(told(w.advance(3_000), ShutDown)) == 1


# -- by hand ----------------------------------------------------------------------------------------
def test_a_person_may_have_one_spawned_which_stays():
    w = World(config=CoreConfig(sibling_idle_ms=1_000))
    w.join("w1", kin=Kin(cores=1))
    turn = w.ask(SpawnWorker(port=8085, slots=2, skills=("GPU",)))
    (order,) = told(turn, SpawnSibling)
    assert (order.port, order.exact, order.slots, order.skills) == (8085, True, 2, ("GPU",))
    assert kinds(born(w, order, skills=["GPU"])) == ["WorkerJoined", "SpawnSettled"]
    w.heartbeat("w1", "s1")
    assert told(w.advance(9_000), ShutDown) == []


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (SpawnWorker(port=0), ErrorCode.LIMIT_EXCEEDED, "1 to 65535"),
        (SpawnWorker(port=9000, slots=5_000), ErrorCode.LIMIT_EXCEEDED, "WORKER_SLOTS"),
        (SpawnWorker(port=8080), ErrorCode.CONFLICT, "here already; 8082 is free"),
        (SpawnWorker(port=9000, parent="9999"), ErrorCode.NOT_FOUND, "no worker is called '9999'"),
        (SpawnWorker(port=9000, parent="8081"), ErrorCode.CONFLICT, "cannot spawn another one now"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_with_the_reason(request_, code, said):
    w = World()
    w.join("w1", kin=Kin(cores=2))
    w.join("w2")
    answer = w.answer(request_)
    assert isinstance(answer, Error)
    assert answer.code is code
    assert said in answer.message
    assert not w.state.spawns


def test_one_that_is_on_its_way_is_not_asked_for_twice():
    w = World()
    w.join("w1", kin=Kin(cores=2))
    assert isinstance(w.answer(SpawnWorker(port=9000)), SpawnOrdered)
    answer = w.answer(SpawnWorker(port=9000))
    assert "on its way" in answer.message


def test_where_no_worker_is_there_is_nobody_to_ask():
    answer = World().answer(SpawnWorker(port=9000))
    assert "titan-worker PORT" in answer.message


def test_the_number_of_all_spawned_workers_is_limited():
    w = World(config=CoreConfig(siblings_max=1))
    w.join("w1", kin=Kin(cores=2))
    w.ask(SpawnWorker(port=9000))
    assert "(SIBLINGS)" in w.answer(SpawnWorker(port=9001)).message


def test_what_has_to_be_beside_a_job_of_a_sibling_that_left_goes_to_who_has_its_folder():
    """A spawned worker does not come back; its folder is its parent's."""
    beside = Needs(terms=Terms(near="j4", required=True))
    spec = run("r", *(job(f"j{n}") for n in range(5)), gate("g", "j4"))
    late = msgspec.structs.replace(job("late", "g", "j4"), needs=beside)
    w = crowded(spec=run("r", *spec.jobs, late), workspace="folder")
    (order,) = told(w.advance(250), SpawnSibling)
    born(w, order, workspace="folder")
    assert w.worker_of("r/j4") == "s1"
    for n in range(5):
        w.ended(f"r/j{n}")
    w.advance(3_000)
    w.leave("s1")
    w.heartbeat("w1")
    w.ask(DecideGate(gate="r/g", approve=True))
    assert w.worker_of("r/late") == "w1"


def test_a_lost_sibling_counts_for_no_limit_and_its_port_is_used_again():
    """Its process is gone, or another one takes the next port where its folder is locked."""
    w = crowded(5, config=CoreConfig(autoscale=True, siblings_max=1, spawn_key=b"key"))
    (order,) = told(w.advance(4_000), SpawnSibling)
    born(w, order)
    w.cut("s1")
    orders = []
    for _ in range(10):
        w.heartbeat("w1")
        orders += told(w.advance(9_000), SpawnSibling)
    assert w.state.workers["s1"].state is WorkerState.LOST
    assert {one.port for one in orders} == {order.port}
