"""Cordoned workers: nothing new for them, and all that was there goes on."""

from __future__ import annotations

from core_world import World, events, job, kinds, placements, run

from titan_proto.errors import ErrorCode
from titan_proto.messages import CordonWorker, Error, ListWorkers, WorkerList
from titan_proto.messages.placing import Room
from titan_proto.states import ServiceState


def two():
    w = World()
    w.join("w1", slots=2, resources={"gpu": 1})
    w.join("w2", slots=1)
    return w


def test_a_cordoned_worker_is_given_nothing_new_and_what_is_there_goes_on():
    w = two()
    w.submit(run("r", job("a", takes={"gpu": 1})))
    assert placements(w.last) == [("a", "w1")]
    answer = w.answer(CordonWorker(worker="w1"))
    assert events(w.last) == ["WorkerCordoned(worker_id=w1, cordoned=True, by=ann)"]
    assert isinstance(answer, WorkerList)
    (detail,) = answer.workers
    assert (detail.cordoned, detail.attempts, detail.resources) == (
        True, 1, {"gpu": Room(total=1, taken=1)},
    )  # fmt: skip
    w.submit(run("s", job("b"), job("c")))
    assert placements(w.last) == [("b", "w2")]
    assert w.ended("r/a").events, "its report is heard"
    w.answer(CordonWorker(worker="host:8080", cordoned=False))
    assert placements(w.last) == [("c", "w1")]


def test_twice_is_once():
    w = two()
    w.answer(CordonWorker(worker="w1"))
    assert kinds(w.ask(CordonWorker(worker="8080"))) == []
    w.answer(CordonWorker(worker="w2", cordoned=False))
    assert kinds(w.last) == []


def test_it_lasts_through_restarts_of_both():
    w = two()
    w.answer(CordonWorker(worker="w1"))
    w.restart()
    w.join("w1", incarnation=2)
    w.submit(run("r", job("a")))
    assert placements(w.last) == []
    w.cut("w1")
    w.advance(w.config.lost_after_ms * 2)
    w.join("w1")
    assert placements(w.last) == []
    assert placements(w.ask(CordonWorker(worker="w1", cordoned=False))) == [("a", "w1")]


def test_one_that_left_in_good_order_and_comes_back_is_given_jobs():
    w = World({"w1": 1})
    w.answer(CordonWorker(worker="w1"))
    w.leave("w1")
    w.submit(run("r", job("a")))
    assert placements(w.join("w1", incarnation=2)) == [("a", "w1")]


def test_one_that_nobody_knows_is_refused_with_those_that_there_are():
    w = two()
    answer = w.answer(CordonWorker(worker="nobody"))
    assert isinstance(answer, Error)
    assert answer.code is ErrorCode.NOT_FOUND
    assert "host:8080, host:8081" in answer.message
    assert isinstance(w.answer(ListWorkers(worker="nobody")), Error)


def test_all_workers_are_listed_by_host_and_port():
    w = two()
    w.answer(CordonWorker(worker="w2"))
    found = w.answer(ListWorkers()).workers
    assert [(one.worker.worker_id, one.cordoned) for one in found] == [("w1", False), ("w2", True)]
    (one,) = w.answer(ListWorkers(worker="8081")).workers
    assert one.worker.worker_id == "w2"


def test_a_drain_moves_services_and_leaves_tasks_alone():
    w = two()
    w.submit(run("r", job("api", service=True), job("task", delay_ms=1)))
    w.running("r/api", healthy=True)
    w.advance(1)
    assert {w.worker_of("r/api"), w.worker_of("r/task")} == {"w1", "w2"}
    home = w.worker_of("r/api")
    w.ended("r/task")
    w.answer(CordonWorker(worker=home, drain=True))
    assert kinds(w.last)[:2] == ["WorkerCordoned", "ServiceAdded"]
    (replacement,) = [one for one in w.state.services.values() if one.replaces == "api"]
    assert replacement.attempt.worker_id not in ("", home)
    w.running(f"r/{replacement.job_id}", healthy=True)
    assert w.state.services["r", "api"].state is ServiceState.STOPPING


def test_a_service_that_nobody_else_can_have_stays():
    w = World({"w1": 2})
    w.submit(run("r", job("api", service=True)))
    w.running("r/api", healthy=True)
    w.answer(CordonWorker(worker="w1", drain=True))
    assert kinds(w.last) == ["WorkerCordoned"]
    assert w.state.services["r", "api"].state is ServiceState.HEALTHY


def test_a_service_is_not_moved_to_a_cordoned_worker():
    w = World({"w1": 2, "w2": 2, "w3": 2})
    w.submit(run("r", job("api", service=True)))
    w.running("r/api", healthy=True)
    assert w.worker_of("r/api") == "w1"
    w.answer(CordonWorker(worker="w2"))
    w.heartbeat("w1", leaving=True)
    (replacement,) = [one for one in w.state.services.values() if one.replaces == "api"]
    assert replacement.attempt.worker_id == "w3"
