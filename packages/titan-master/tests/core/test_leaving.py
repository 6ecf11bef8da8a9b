"""Telling a worker to leave: who is meant, who can be told, and what becomes of the order."""

from __future__ import annotations

import pytest
from core_world import World, job, run

from titan_master.core.effects import Tell
from titan_proto.errors import ErrorCode
from titan_proto.limits import DRAIN_TIMEOUT_MS
from titan_proto.messages import (
    Join,
    ShutDown,
    ShutdownOrdered,
    ShutDownWorker,
)
from titan_proto.states import WorkerState


def elsewhere(w, name, *, host, port):
    """Another worker, on another host."""
    w.joins[name] = Join(
        worker_id=name,
        host=host,
        port=port,
        incarnation=1,
        boot_id="boot",
        software="test",
        slots=1,
        skills=("GENERAL",),
    )
    w.join(name)


def told(turn):
    return [
        (effect.link_id, effect.message)
        for effect in turn.effects
        if isinstance(effect, Tell) and isinstance(effect.message, ShutDown)
    ]


@pytest.mark.parametrize("selector", ["8080", "host:8080", "w1"])
@pytest.mark.parametrize("drain_ms", [None, 0, 5_000])
def test_a_worker_is_told_by_its_port_its_name_or_its_id(selector, drain_ms):
    w = World({"w1": 1, "w2": 1})
    turn = w.ask(ShutDownWorker(worker=selector, drain_ms=drain_ms))
    assert told(turn) == [(w.links["w1"], ShutDown(term=w.state.term, drain_ms=drain_ms))]
    assert turn.events == (), "nothing is true yet but that it was told"


def test_the_answer_says_what_is_on_it():
    w = World({"w1": 4})
    w.submit(run("r", job("api", service=True), job("a")))
    w.running("r/api", healthy=True, port=4000)
    w.running("r/a")
    answer = w.answer(ShutDownWorker(worker="8080"))
    assert isinstance(answer, ShutdownOrdered)
    assert (answer.worker.used, answer.worker.services) == (2, ("r/api",))


def test_a_port_that_workers_on_two_hosts_share_is_refused_with_both_names():
    w = World({"w1": 1})
    elsewhere(w, "w2", host="other", port=8080)
    error = w.answer(ShutDownWorker(worker="8080"))
    assert error.code is ErrorCode.CONFLICT
    assert "host:8080, other:8080" in error.message
    turn = w.ask(ShutDownWorker(worker="other:8080"))
    assert [link for link, _ in told(turn)] == [w.links["w2"]]


def test_an_unknown_one_is_refused_with_those_that_there_are():
    w = World({"w1": 1, "w2": 1})
    error = w.answer(ShutDownWorker(worker="8088"))
    assert error.code is ErrorCode.NOT_FOUND
    assert error.details == {"candidates": "host:8080, host:8081"}
    assert "none has joined" in World({}).answer(ShutDownWorker(worker="8080")).message


def test_many_workers_are_not_all_named():
    w = World({f"w{number}": 1 for number in range(25)})
    assert w.answer(ShutDownWorker(worker="1")).message.endswith(" and 5 more")


def test_one_without_a_link_cannot_be_told_and_what_to_do_is_said():
    w = World({"w1": 1})
    w.cut("w1")
    error = w.answer(ShutDownWorker(worker="8080"))
    assert error.code is ErrorCode.CONFLICT, "a client would try again by itself otherwise"
    assert "no link" in error.message
    assert "SIGTERM" in error.message
    w.advance(30_000)
    assert w.state.workers["w1"].state is WorkerState.LOST
    assert "is lost" in w.answer(ShutDownWorker(worker="8080")).message


def test_a_lost_one_gives_way_to_the_one_in_its_place():
    w = World({"w1": 1})
    w.cut("w1")
    w.advance(30_000)
    elsewhere(w, "w2", host="other", port=8080)
    turn = w.ask(ShutDownWorker(worker="8080"))
    assert [link for link, _ in told(turn)] == [w.links["w2"]]


def test_a_worker_of_before_cannot_be_told():
    w = World({})
    w.join("w1", takes_shutdown=False)
    error = w.answer(ShutDownWorker(worker="8080"))
    assert error.code is ErrorCode.CONFLICT
    assert "cannot be told to leave" in error.message


@pytest.mark.parametrize("drain_ms", [-1, DRAIN_TIMEOUT_MS + 1])
def test_a_drain_that_cannot_be_is_refused_with_the_limit(drain_ms):
    w = World({"w1": 1})
    error = w.answer(ShutDownWorker(worker="8080", drain_ms=drain_ms))
    assert error.code is ErrorCode.LIMIT_EXCEEDED
    assert "DRAIN_TIMEOUT_MS" in error.message


def test_an_order_that_a_cut_link_may_have_swallowed_is_sent_again_until_it_shows():
    w = World({"w1": 1})
    w.ask(ShutDownWorker(worker="8080", drain_ms=7))
    w.cut("w1")
    turn = w.join("w1")
    assert [message.drain_ms for _, message in told(turn)] == [7]
    w.heartbeat("w1", leaving=True)
    assert w.state.workers["w1"].state is WorkerState.DRAINING
    w.cut("w1")
    assert told(w.join("w1", leaving=True)) == []


def test_an_order_is_for_the_process_that_was_there():
    w = World({"w1": 1})
    w.ask(ShutDownWorker(worker="8080"))
    w.cut("w1")
    assert told(w.join("w1", incarnation=2)) == []


def test_one_that_drains_may_be_told_to_be_quicker():
    w = World({"w1": 1})
    w.heartbeat("w1", leaving=True)
    assert len(told(w.ask(ShutDownWorker(worker="8080", drain_ms=0)))) == 1
    w.cut("w1")
    assert told(w.join("w1", leaving=True)) == []
