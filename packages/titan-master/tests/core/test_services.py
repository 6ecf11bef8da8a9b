"""Services: settling, staying up, being stopped, going down."""

from __future__ import annotations

import pytest
from core_world import World, effects, events, job, kinds, run

from titan_proto.errors import ErrorCode
from titan_proto.messages import CancelRun, ListServices, StopService
from titan_proto.states import ExitReason, ServiceState


def up(w, run_id="r", *, name="", port=4000, others=()):
    w.submit(run(name or run_id, job("api", service=True), *others), run_id=run_id)
    return w.running(f"{run_id}/api", healthy=True, port=port)


def test_a_healthy_service_settles_its_job_and_stays_on_its_slot():
    w = World({"w1": 2})
    turn = up(w, others=(job("after", "api"),))
    assert events(turn) == [
        "AttemptStarted(run_id=r, job_id=api, number=1, port=4000)",
        "ServiceUp(name=r/api, run_id=r, job_id=api, number=1, worker_id=w1, port=4000)",
        "JobEnded(run_id=r, job_id=api, state=SUCCEEDED, reason=UNKNOWN, number=1)",
        "JobsQueued(run_id=r, job_ids=[after])",
        "AttemptPlaced(run_id=r, job_id=after, number=1, worker_id=w1, incarnation=1, fence=2)",
    ]
    assert w.state.workers["w1"].held == {("r", "api"): 1, ("r", "after"): 1}


def test_a_service_that_has_started_but_does_not_answer_yet_only_runs():
    w = World({"w1": 2})
    w.submit(run("r", job("api", service=True)))
    assert kinds(w.running("r/api")) == ["AttemptStarted"]
    assert kinds(w.running("r/api", healthy=True)) == ["ServiceUp", "JobEnded", "RunEnded"]


def test_its_run_ends_and_the_service_goes_on():
    w = World({"w1": 2})
    assert kinds(up(w))[-1] == "RunEnded"
    assert not w.state.runs
    assert w.answer(ListServices()).services[0].state is ServiceState.HEALTHY
    turn = w.running("r/api", healthy=True)
    assert (events(turn), effects(turn)) == ([], [])


def test_its_worker_starts_it_again_and_everybody_can_see_that():
    w = World({"w1": 2})
    up(w)
    assert events(w.running("r/api", restarts=1)) == [
        "ServiceChanged(run_id=r, job_id=api, healthy=False, restarts=1)"
    ]
    (view,) = w.answer(ListServices()).services
    assert (view.state, view.restarts) == (ServiceState.UNHEALTHY, 1)
    w.advance(500)
    w.running("r/api", restarts=1, healthy=True)
    (view,) = w.answer(ListServices()).services
    assert (view.state, view.restarts, view.healthy_at_ms) == (ServiceState.HEALTHY, 1, w.now_ms)


def test_what_is_said_of_a_service_twice_or_late_changes_nothing():
    w = World({"w1": 2})
    up(w)
    w.running("r/api", restarts=2)
    for late in ({"healthy": True}, {"restarts": 1, "healthy": True}, {"restarts": 2}):
        assert events(w.running("r/api", **late)) == []
    assert kinds(w.running("r/api", restarts=2, healthy=True)) == ["ServiceChanged"]
    assert events(w.running("r/api", restarts=2)) == []


def test_one_that_is_being_started_again_can_be_stopped():
    w = World({"w1": 2})
    up(w)
    w.running("r/api", restarts=1)
    assert kinds(w.ask(StopService(service="r/api"))) == ["ServiceStopping"]
    assert events(w.running("r/api", restarts=1, healthy=True)) == []
    assert kinds(w.ended("r/api", reason=ExitReason.STOPPED))[-1] == "ServiceEnded"


@pytest.mark.parametrize("code", [0, 1])
def test_a_service_that_ends_before_it_was_healthy_fails_its_job(code):
    w = World({"w1": 2})
    w.submit(run("r", job("api", service=True)))
    w.running("r/api")
    turn = w.ended("r/api", code)
    assert [event for event in events(turn) if "JobEnded" in event] == [
        "JobEnded(run_id=r, job_id=api, state=FAILED, reason=EXITED, number=1"
        + (", failures=1, exit_code=1)" if code else ")")
    ]


def test_a_stopped_service_ends_as_ordered_and_frees_its_slot():
    w = World({"w1": 2})
    up(w)
    turn = w.ask(StopService(service="r/api"))
    assert events(turn) == ["ServiceStopping(run_id=r, job_id=api)"]
    assert effects(turn) == [
        (
            "Reply(origin=1.2, message=ServiceView(name=r/api, run_id=r, run_alias=r-1, job_id=api,"
            " attempt=1, state=STOPPING, worker=host:8080, port=4000, healthy_at_ms=1000000))"
        ),
        "Tell(link_id=101, message=StopAttempts(refs=[r/api.1], reason=STOPPED))",
    ]
    turn = w.ended("r/api", reason=ExitReason.STOPPED)
    assert events(turn)[1:] == [
        "ServiceEnded(run_id=r, job_id=api, number=1, stopped=True, reason=STOPPED)"
    ]
    assert effects(turn)[-1] == "Tell(link_id=101, message=ReportAcks(refs=[r/api.1]))"
    assert not w.state.services
    assert not w.state.workers["w1"].held


def test_a_service_that_crashes_after_it_was_up_ends_as_failed_and_is_not_started_again():
    w = World({"w1": 2})
    up(w, others=(job("slow"),))
    turn = w.ended("r/api", 1)
    assert events(turn)[1:] == [
        "ServiceEnded(run_id=r, job_id=api, number=1, stopped=False, reason=EXITED)"
    ]
    assert w.job_states("r")["api"] == "SUCCEEDED"


def test_stopping_twice_repeats_the_order_and_nothing_else():
    w = World({"w1": 2})
    up(w)
    w.ask(StopService(service="api"))
    turn = w.ask(StopService(service="api"))
    assert events(turn) == []
    assert effects(turn)[1:] == [
        "Tell(link_id=101, message=StopAttempts(refs=[r/api.1], reason=STOPPED))"
    ]


def test_cancelling_a_run_leaves_its_settled_services_alone():
    w = World({"w1": 2})
    up(w, others=(job("slow"),))
    turn = w.ask(CancelRun(run="r"))
    assert kinds(turn) == ["RunCancelRequested", "JobCancelling"]
    assert w.state.services["r", "api"].state is ServiceState.HEALTHY


@pytest.mark.parametrize("selector", ["Shop/api", "shop-1/api", "r/api"])
def test_a_service_is_found_by_its_name_and_by_either_name_of_its_run(selector):
    w = World({"w1": 2})
    up(w, "r", name="Shop")
    assert w.answer(StopService(service=selector)).state is ServiceState.STOPPING


def test_a_bare_job_id_that_two_services_have_is_a_conflict_that_lists_them():
    w = World({"w1": 4})
    up(w, "r1", name="Shop")
    up(w, "r2", name="Shop")
    for selector in ("api", "Shop/api"):
        error = w.answer(StopService(service=selector))
        assert error.code is ErrorCode.CONFLICT
        assert error.details == {"candidates": "shop-1/api, shop-2/api"}
    assert w.answer(StopService(service="shop-2/api")).run_id == "r2"


def test_nobody_is_called_that():
    w = World({"w1": 4})
    assert w.answer(StopService(service="api")).code is ErrorCode.NOT_FOUND


def test_the_stop_order_is_repeated_when_the_worker_comes_back_without_having_obeyed():
    w = World({"w1": 2})
    up(w)
    w.cut("w1")
    turn = w.ask(StopService(service="api"))
    assert not any("StopAttempts" in effect for effect in effects(turn))
    turn = w.join("w1", held=[("r/api", "RUNNING")])
    assert effects(turn)[1:] == [
        "Tell(link_id=102, message=StopAttempts(refs=[r/api.1], reason=STOPPED))"
    ]


def test_a_service_lost_with_its_worker_has_failed_unless_it_was_to_stop():
    w = World({"w1": 2, "w2": 2})
    up(w, "r1")
    up(w, "r2")
    w.ask(StopService(service="r2/api"))
    turn = w.advance(30_000)
    ended = [event for event in events(turn) if event.startswith("ServiceEnded")]
    assert ended == [
        "ServiceEnded(run_id=r1, job_id=api, number=1, stopped=False, reason=LOST)",
        "ServiceEnded(run_id=r2, job_id=api, number=1, stopped=True, reason=LOST)",
    ]
