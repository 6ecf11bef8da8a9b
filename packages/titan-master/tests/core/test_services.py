"""Services: settling, staying up, being stopped, going down."""

from __future__ import annotations

import pytest
from core_world import World, effects, events, job, kinds, order_of, placements, run
from msgspec.structs import replace

from titan_proto.errors import ErrorCode
from titan_proto.limits import SERVICE_MOVES
from titan_proto.messages import CancelRun, GetJob, GetStats, ListServices, StopService
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
    up(w, "r2", name="Depot")
    error = w.answer(StopService(service="api"))
    assert error.code is ErrorCode.CONFLICT
    assert error.details == {"candidates": "shop-1/api, depot-1/api"}
    assert w.answer(StopService(service="depot-1/api")).run_id == "r2"


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


# -- coming up again elsewhere ---------------------------------------------------------------------
def test_a_service_whose_worker_is_lost_comes_up_on_another_unless_it_was_to_stop():
    w = World({"w1": 2, "w2": 2})
    up(w, "r1")
    up(w, "r2")  # on w2, the less loaded
    up(w, "r3")
    w.ask(StopService(service="r3/api"))
    turn = w.advance(29_000)
    w.heartbeat("w2")
    turn = w.advance(1_000)
    assert [event for event in events(turn) if "Service" in event or "Placed" in event] == [
        "ServiceQueued(run_id=r1, job_id=api, reason=LOST)",
        "ServiceEnded(run_id=r3, job_id=api, number=1, stopped=True, reason=LOST)",
        "AttemptPlaced(run_id=r1, job_id=api, number=2, worker_id=w2, incarnation=1, fence=4)",
    ]
    (view,) = w.answer(ListServices(run="r1")).services
    assert (view.state, view.worker, view.attempt) == (ServiceState.STARTING, "host:8081", 2)
    turn = w.running("r1/api", healthy=True, port=4000)
    assert kinds(turn) == ["AttemptStarted", "ServiceChanged"]
    (view,) = w.answer(ListServices(run="r1")).services
    assert (view.state, view.port, view.healthy_at_ms) == (ServiceState.HEALTHY, 4000, w.now_ms)


def test_with_no_worker_left_it_waits_for_one_through_a_restart_of_the_master():
    w = World({"w1": 2})
    up(w)
    turn = w.leave("w1")
    assert kinds(turn) == ["AttemptEnded", "ServiceQueued", "WorkerRetired"]
    (view,) = w.answer(ListServices()).services
    assert (view.state, view.worker) == (ServiceState.STARTING, "")
    assert w.answer(GetStats()).queued == 1
    w.restart()
    turn = w.join("w2")
    assert placements(turn) == [("api", "w2")]
    order = order_of(turn, "api")
    assert (order.run_name, order.ref.number) == ("r", 2)
    assert order.spec.launch == run("r", job("api", service=True)).jobs[0].launch


def test_what_waits_for_a_worker_is_stopped_at_once_and_stays_stopped():
    w = World({"w1": 2})
    up(w)
    w.leave("w1")
    turn = w.ask(StopService(service="api"))
    assert events(turn) == [
        "ServiceEnded(run_id=r, job_id=api, number=1, stopped=True, reason=STOPPED)"
    ]
    w.restart()
    assert placements(w.join("w2")) == []
    assert not w.state.services


def test_where_its_budget_is_spent_it_is_given_to_a_worker_that_it_has_not_failed_on():
    w = World({"w1": 1, "w2": 1, "w3": 1})
    up(w)
    turn = w.ended("r/api", 1, reason=ExitReason.CRASH_LOOP)
    assert events(turn)[1:] == [
        "ServiceQueued(run_id=r, job_id=api, reason=CRASH_LOOP, moves=1, avoid=[w1])",
        "AttemptPlaced(run_id=r, job_id=api, number=2, worker_id=w2, incarnation=1, fence=2)",
    ]
    w.running("r/api")
    turn = w.ended("r/api", reason=ExitReason.START_FAILED)
    assert placements(turn) == [("api", "w3")]
    turn = w.ended("r/api", 1, reason=ExitReason.CRASH_LOOP)
    assert events(turn)[1:] == [
        "ServiceEnded(run_id=r, job_id=api, number=3, stopped=False, reason=CRASH_LOOP)"
    ]


def test_a_service_moves_only_so_often():
    w = World({f"w{n}": 1 for n in range(SERVICE_MOVES + 2)})
    up(w)
    for _ in range(SERVICE_MOVES):
        assert placements(w.ended("r/api", 1, reason=ExitReason.CRASH_LOOP))
    assert kinds(w.ended("r/api", 1, reason=ExitReason.CRASH_LOOP))[-1] == "ServiceEnded"


def test_one_that_was_well_for_long_has_all_its_moves_again():
    w = World({"w1": 1, "w2": 1})
    up(w)
    w.ended("r/api", 1, reason=ExitReason.CRASH_LOOP)
    w.running("r/api", healthy=True)
    for _ in range(800):
        w.heartbeat("w1", "w2")
        w.advance(1_000)
    turn = w.ended("r/api", 1, reason=ExitReason.CRASH_LOOP)
    assert events(turn)[1] == (
        "ServiceQueued(run_id=r, job_id=api, reason=CRASH_LOOP, moves=1, avoid=[w2])"
    )
    assert placements(turn) == [("api", "w1")]


def test_an_exclusive_service_is_held_back_until_it_is_surely_over():
    w = World({"w1": 1, "w2": 1})
    w.submit(run("r", replace(job("api", service=True), exclusive=True)), run_id="r")
    w.running("r/api", healthy=True)
    w.advance(29_000)
    w.heartbeat("w2")
    turn = w.advance(1_000)
    assert "ServiceQueued" in kinds(turn)
    assert placements(turn) == []
    w.heartbeat("w2")
    w.restart()
    w.join("w2")
    turn = w.advance(3_000)
    assert placements(turn) == [("api", "w2")]


def test_a_late_end_of_a_service_that_moved_and_was_stopped_is_acknowledged():
    """Its run is live, and its number is above that by which its job settled."""
    w = World({"w1": 1, "w2": 2})
    up(w, others=(job("slow"),))
    w.ended("r/api", 1, reason=ExitReason.CRASH_LOOP)
    w.ask(StopService(service="api"))
    w.ended("r/api", reason=ExitReason.STOPPED)
    turn = w.report("w2", w.ended_report("r/api.2", reason=ExitReason.STOPPED))
    assert effects(turn) == ["Tell(link_id=102, message=ReportAcks(refs=[r/api.2]))"]


# -- slots and ports -------------------------------------------------------------------------------
def test_a_service_without_slots_comes_to_a_full_worker_and_leaves_its_load_alone():
    w = World({"w1": 1})
    w.submit(run("busy", job("a")))
    w.submit(run("r", job("api", service=True, slots=0)), run_id="r")
    w.running("r/api", healthy=True)
    (view,) = w.answer(GetStats()).workers
    assert (view.used, view.slots, view.services) == (1, 1, ("r/api",))


def test_a_job_of_several_slots_waits_for_as_many_on_one_worker():
    w = World({"w1": 2, "w2": 2})
    w.submit(run("r1", job("a"), job("b")), run_id="r1")  # one on each
    w.submit(run("r2", job("big", slots=2)), run_id="r2")
    assert w.job_states("r2") == {"big": "QUEUED"}
    assert "2 free slots" in w.answer(GetJob(run="r2", job="big")).message
    assert placements(w.ended("r1/b")) == [("big", "w2")]


def test_two_services_of_one_fixed_port_are_never_placed_on_one_worker():
    w = World({"w1": 4, "w2": 4})
    for name in ("r1", "r2", "r3"):
        w.submit(run(name, job("api", service=True, port=8080)), run_id=name)
    assert [w.state.find_attempt(name, "api").worker_id for name in ("r1", "r2")] == ["w1", "w2"]
    (ended,) = [e for e in w.last.events if type(e).__name__ == "JobEnded"]
    assert (ended.run_id, ended.reason) == ("r3", ExitReason.START_FAILED)
    assert ended.message == "port 8080 is that of r1/api, r2/api on every worker that could have it"


def test_a_service_waits_for_its_port_where_that_is_about_to_be_free():
    w = World({"w1": 4})
    w.submit(run("r1", job("api", service=True, port=8080)), run_id="r1")
    w.running("r1/api", healthy=True)
    w.ask(StopService(service="r1/api"))
    w.submit(run("r2", job("api", service=True, port=8080)), run_id="r2")
    assert w.job_states("r2") == {"api": "QUEUED"}
    assert "port 8080" in w.answer(GetJob(run="r2", job="api")).message
    assert placements(w.ended("r1/api", reason=ExitReason.STOPPED)) == [("api", "w1")]
