"""Instances of services: several of them, replaced one for one, taken over by a later run."""

from __future__ import annotations

import pytest
from core_world import World, events, job, kinds, placements, run
from msgspec.structs import replace

from titan_master.core.queries import SERVICES_EXPLAINED
from titan_proto.errors import ErrorCode
from titan_proto.limits import REPLICAS
from titan_proto.messages import (
    GetJob,
    ListServices,
    ReadLog,
    RestartService,
    ScaleService,
    StopJob,
    StopService,
)
from titan_proto.specs import ArtifactRef, Launch, LaunchKind, RunSpec
from titan_proto.states import ExitReason, ServiceState

NO_OTHER_PORT = "no other worker can have port 8080 for its replacement"
KEPT = "state=SUCCEEDED, reason=TAKEN_OVER, number=0, message='kept from web-1'"
FOLDER = ArtifactRef(digest="0" * 64, size_bytes=1)
OTHER = Launch(kind=LaunchKind.SHELL, shell="other")


def service(*after, replicas=1, port=0, **options):
    spec = job("api", *after, service=True, port=port, **options)
    return replace(spec, service=replace(spec.service, replicas=replicas))


def up(w, *, port=0, **options):
    """The service `web/api` of run r is healthy; the turn in which it became so."""
    w.submit(run("web", service(port=port, **options)), run_id="r")
    return w.running("r/api", healthy=True, port=port or 4000)


def instances(w):
    """Those that are wanted, and how they are."""
    return {one.job_id: str(one.state) for one in w.answer(ListServices()).services}


# -- several --------------------------------------------------------------------------------------
def test_replicas_follow_once_the_first_one_is_healthy():
    """A service that never comes up is started once, and not in every instance."""
    w = World({"w1": 2, "w2": 2})
    turn = up(w, replicas=3)
    assert [event for event in events(turn) if event.startswith("ServiceAdded")] == [
        "ServiceAdded(run_id=r, job_id=api~2, of=api, number=2)",
        "ServiceAdded(run_id=r, job_id=api~3, of=api, number=3)",
    ]
    assert placements(turn) == [("api~2", "w2"), ("api~3", "w1")]
    assert "RunEnded" in kinds(turn)
    w.running("r/api~2", healthy=True)
    assert instances(w) == {"api": "HEALTHY", "api~2": "HEALTHY", "api~3": "STARTING"}
    assert {one.name for one in w.answer(ListServices()).services} == {"web/api"}


def test_an_instance_comes_up_elsewhere_and_survives_a_restart_like_the_first_one():
    w = World({"w1": 1, "w2": 1})
    up(w, replicas=2)
    w.running("r/api~2", healthy=True)
    w.leave("w2")
    w.restart()
    w.join("w1", held=[("r/api", "RUNNING")])
    assert placements(w.join("w3", slots=1)) == [("api~2", "w3")]
    assert w.state.find_attempt("r", "api~2").number == 2


def test_stopping_a_service_stops_all_of_it_and_an_instance_only_that():
    w = World({"w1": 4})
    up(w, replicas=3)
    for name in ("r/api~2", "r/api~3"):
        w.running(name, healthy=True)
    assert events(w.ask(StopService(service="web-1/api~2"))) == [
        "ServiceStopping(run_id=r, job_id=api~2)"
    ]
    turn = w.ask(StopService(service="api"))
    assert [event for event in events(turn) if "Stopping" in event] == [
        "ServiceStopping(run_id=r, job_id=api)",
        "ServiceStopping(run_id=r, job_id=api~3)",
    ]
    for name in ("r/api", "r/api~2", "r/api~3"):
        w.ended(name, reason=ExitReason.STOPPED)
    assert instances(w) == {}


def test_scaling_adds_instances_and_takes_the_newest_away():
    w = World({"w1": 9})
    up(w, replicas=2)
    w.running("r/api~2", healthy=True)
    reply = w.answer(ScaleService(service="api", replicas=4))
    assert [one.job_id for one in reply.services] == ["api", "api~2", "api~3", "api~4"]
    w.running("r/api~3", healthy=True)
    w.running("r/api~4", healthy=True)
    turn = w.ask(ScaleService(service="api", replicas=1))
    assert [event for event in events(turn) if "Stopping" in event] == [
        f"ServiceStopping(run_id=r, job_id=api~{n}, why='scaled to 1')" for n in (2, 3, 4)
    ]
    for n in (2, 3, 4):
        w.ended(f"r/api~{n}", reason=ExitReason.STOPPED)
    w.restart()
    w.join("w1", held=[("r/api", "RUNNING")])
    turn = w.ask(ScaleService(service="api", replicas=2))
    assert placements(turn) == [("api~5", "w1")], "a number is never given again"


@pytest.mark.parametrize("replicas", [0, -1, REPLICAS + 1])
def test_a_number_of_instances_that_cannot_be_is_refused(replicas):
    w = World({"w1": 4})
    up(w)
    error = w.answer(ScaleService(service="api", replicas=replicas))
    assert (error.code, "REPLICAS" in error.message) == (ErrorCode.LIMIT_EXCEEDED, True)
    assert w.answer(ScaleService(service="web", replicas=2)).code is ErrorCode.NOT_FOUND


def test_a_service_that_is_being_stopped_is_neither_scaled_nor_restarted():
    w = World({"w1": 4})
    up(w)
    w.ask(StopService(service="api"))
    assert w.answer(ScaleService(service="api", replicas=2)).code is ErrorCode.CONFLICT
    turn = w.ask(RestartService(service="api"))
    assert kinds(turn) == []
    assert len(turn.effects) == 1, "it is answered"


def test_an_instance_is_shown_and_its_log_is_read_under_its_own_name():
    w = World({"w1": 1})
    up(w, replicas=2)
    view = w.answer(GetJob(run="web-1", job="api~2"))
    assert (str(view.state), view.attempt) == ("QUEUED", 0)
    assert "waits for a slot" in view.message
    w.join("w2")
    assert w.answer(GetJob(run="", job="api~2")).worker == "host:8081"
    turn = w.ask(ReadLog(run="r", job="api~2"))
    assert [type(effect).__name__ for effect in turn.effects] == ["ServeLog"]


def test_a_late_word_about_an_instance_that_has_ended_is_no_reason_to_hang_up():
    w = World({"w1": 4})
    w.submit(run("web", service(replicas=2), job("slow")), run_id="r")
    w.running("r/api", healthy=True)
    w.running("r/api~2", healthy=True)
    w.ask(StopService(service="r/api~2"))
    late = w.ended_report("r/api~2", reason=ExitReason.STOPPED)
    w.report("w1", late)
    assert kinds(w.report("w1", late)) == []
    assert "w1" in w.links
    assert w.core._draft.roster.link_of("w1") is not None


# -- one for one ----------------------------------------------------------------------------------
def test_a_restart_stops_an_instance_once_its_replacement_is_healthy_and_not_before():
    w = World({"w1": 4})
    up(w)
    turn = w.ask(RestartService(service="api"))
    assert events(turn)[0] == (
        "ServiceAdded(run_id=r, job_id=api~2, of=api, number=2, replaces=api)"
    )
    assert placements(turn) == [("api~2", "w1")]
    assert kinds(w.running("r/api~2")) == ["AttemptStarted"]
    turn = w.running("r/api~2", healthy=True)
    assert events(turn)[1:] == [
        "ServiceStopping(run_id=r, job_id=api, why='replaced by web-1/api~2')"
    ]
    w.ended("r/api", reason=ExitReason.STOPPED)
    assert instances(w) == {"api~2": "HEALTHY"}
    assert w.answer(StopService(service="web-1/api")).job_id == "api~2", "its name is as before"


def test_a_replacement_that_never_comes_up_leaves_what_it_was_to_replace():
    w = World({"w1": 4})
    up(w)
    w.ask(RestartService(service="api"))
    w.running("r/api~2")
    w.ended("r/api~2", 1, reason=ExitReason.CRASH_LOOP)
    assert instances(w) == {"api": "HEALTHY"}


def test_a_restart_asked_for_twice_is_one():
    w = World({"w1": 4})
    up(w)
    w.ask(RestartService(service="api"))
    assert kinds(w.ask(RestartService(service="api"))) == []


def test_a_replacement_is_replaced_in_its_turn():
    w = World({"w1": 4})
    up(w)
    for old, new in (("api", "api~2"), ("api~2", "api~3")):
        assert placements(w.ask(RestartService(service="api"))) == [(new, "w1")]
        w.running(f"r/{new}", healthy=True)
        w.ended(f"r/{old}", reason=ExitReason.STOPPED)
    assert instances(w) == {"api~3": "HEALTHY"}


def test_a_replacement_that_was_started_again_before_it_was_well_takes_its_place_all_the_same():
    w = World({"w1": 4})
    up(w)
    w.ask(RestartService(service="api"))
    w.running("r/api~2")
    w.running("r/api~2", restarts=1)
    turn = w.running("r/api~2", restarts=1, healthy=True)
    assert kinds(turn) == ["ServiceChanged", "ServiceStopping"]


def test_a_replacement_without_room_waits_and_says_why_and_what_can_be_done():
    """A healthy instance is never stopped first for want of a slot: somebody has to make room."""
    w = World({"w1": 1})
    up(w)
    reply = w.answer(RestartService(service="api"))
    assert instances(w) == {"api": "HEALTHY", "api~2": "STARTING"}
    listed = w.answer(ListServices())
    for found in (reply, listed):
        old, new = found.services
        assert old.message == ""
        assert "waits for a slot" in new.message
        assert "web/api stays up until this one is healthy" in new.message
        assert "`titan stop web/api`" in new.message
    assert w.answer(GetJob(run="web-1", job="api~2")).message == new.message
    assert placements(w.join("w2", slots=1)) == [("api~2", "w2")]
    assert all(one.message == "" for one in w.answer(ListServices()).services)


def test_a_replacement_that_is_made_way_for_waits_for_the_end_of_the_old_one_and_says_so():
    """Nobody is to think that the old one stays, or that a slot would help."""
    w = World({"w1": 4})
    up(w, port=8080)
    reply = w.answer(RestartService(service="api"))
    assert instances(w) == {"api": "STOPPING", "api~2": "STARTING"}
    for found in (reply, w.answer(ListServices())):
        assert found.services[1].message == "waits for the end of web/api, which makes way for it"


def test_a_long_list_explains_only_the_first_that_wait():
    w = World({"w1": 1})
    up(w, replicas=SERVICES_EXPLAINED + 5)
    services = w.answer(ListServices()).services
    assert sum(bool(one.message) for one in services) == SERVICES_EXPLAINED


def test_a_fixed_port_that_only_one_worker_could_have_is_given_up_first_and_the_event_says_so():
    w = World({"w1": 1})
    up(w, port=8080)
    turn = w.ask(RestartService(service="api"))
    assert [event for event in events(turn) if "Stopping" in event] == [
        f"ServiceStopping(run_id=r, job_id=api, why={NO_OTHER_PORT!r})"
    ]
    turn = w.ended("r/api", reason=ExitReason.STOPPED)
    assert placements(turn) == [("api~2", "w1")]


def test_an_exclusive_service_is_never_beside_its_replacement():
    """Neither of a restart nor of a later run: the old one goes first, and the event says so."""
    w = World({"w1": 4, "w2": 4})
    up(w, exclusive=True)
    turn = w.ask(RestartService(service="api"))
    assert "it is exclusive" in next(event for event in events(turn) if "Stopping" in event)
    assert placements(turn) == []
    assert placements(w.ended("r/api", reason=ExitReason.STOPPED)) == [("api~2", "w1")]
    w.running("r/api~2", healthy=True)
    turn = w.submit(run("web", replace(service(exclusive=True), launch=OTHER)), run_id="s")
    assert placements(turn) == []
    assert placements(w.ended("r/api~2", reason=ExitReason.STOPPED)) == [("api", "w1")]


def test_with_another_worker_for_the_port_nothing_is_stopped_first():
    w = World({"w1": 1, "w2": 1})
    up(w, port=8080)
    turn = w.ask(RestartService(service="api"))
    assert placements(turn) == [("api~2", "w2")]
    assert "ServiceStopping" not in kinds(turn)


def test_workers_of_one_host_share_their_ports():
    """Whether they say that they share a network, or say nothing and have one host and boot."""
    for network in ("shared", ""):
        w = World()
        for name in ("w1", "w2"):
            w.join(name, slots=2, network=network)
        up(w, port=8080)
        turn = w.ask(RestartService(service="api"))
        assert [event for event in events(turn) if "Stopping" in event] == [
            f"ServiceStopping(run_id=r, job_id=api, why={NO_OTHER_PORT!r})"
        ]
        assert placements(turn) == []
        assert len(placements(w.ended("r/api", reason=ExitReason.STOPPED))) == 1


def test_a_port_is_free_again_once_its_holder_has_ended_on_another_worker_of_the_host():
    w = World()
    w.join("w1", slots=1, network="shared")
    up(w, port=8080)
    w.join("w2", slots=1, network="shared")
    w.submit(run("busy", job("a")))  # on w2
    w.ask(RestartService(service="api"))
    w.ended("r/api", reason=ExitReason.STOPPED)
    w.running("r/api~2", healthy=True, port=8080)
    w.ended("busy/a")
    assert w.worker_of("r/api~2") == "w1"


def failed_elsewhere(reason):
    """`api` has port 8080 on w1; its replacement has failed on w2, the only other place."""
    w = World({"w1": 2, "w2": 2})
    up(w, port=8080)
    assert placements(w.ask(RestartService(service="api"))) == [("api~2", "w2")]
    return w, w.ended("r/api~2", reason=reason)


def test_a_replacement_that_could_not_start_elsewhere_has_its_fixed_port_after_the_old_one():
    """Somebody else has the port there, or the machine lacks something: only one worker is left."""
    for reason in (ExitReason.START_FAILED, ExitReason.PREPARE_FAILED):
        w, turn = failed_elsewhere(reason)
        assert [event for event in events(turn) if "Stopping" in event] == [
            f"ServiceStopping(run_id=r, job_id=api, why={NO_OTHER_PORT!r})"
        ]
        turn = w.ended("r/api", reason=ExitReason.STOPPED)
        assert placements(turn) == [("api~2", "w1")]


def test_a_replacement_that_crashed_elsewhere_does_not_end_what_answers():
    """It was executed and did not come up: in the place of the old one it might not either."""
    w, turn = failed_elsewhere(ExitReason.CRASH_LOOP)
    assert [event for event in events(turn) if "Service" in event] == [
        "ServiceEnded(run_id=r, job_id=api~2, number=1, stopped=False, reason=CRASH_LOOP)"
    ]
    assert instances(w) == {"api": "HEALTHY"}


def test_an_instance_that_is_nowhere_is_not_replaced_when_all_are_restarted():
    """It comes up anew anyway. Beside a replacement of its own, each of them might wait for the other."""
    w = World({"w1": 2})
    up(w, port=8080, replicas=2)
    assert instances(w) == {"api": "HEALTHY", "api~2": "STARTING"}
    turn = w.ask(RestartService(service="api"))
    assert [event for event in events(turn) if "Added" in event] == [
        "ServiceAdded(run_id=r, job_id=api~3, of=api, number=3, replaces=api)"
    ]


def test_what_fails_while_its_replacement_is_there_is_not_moved_besides():
    w = World({"w1": 1, "w2": 1})
    up(w)
    w.submit(run("busy", job("a")))
    assert placements(w.ask(RestartService(service="api"))) == []
    turn = w.ended("r/api", reason=ExitReason.CRASH_LOOP)
    assert "ServiceQueued" not in kinds(turn)
    assert placements(turn) == [("api~2", "w1")]


def test_a_replacement_that_left_with_its_worker_is_made_way_for():
    """It had begun elsewhere; that worker has gone, and the port is to be had here only."""
    w = World({"w1": 1, "w2": 1})
    up(w, port=8080)
    assert placements(w.ask(RestartService(service="api"))) == [("api~2", "w2")]
    assert "ServiceStopping" not in kinds(w.heartbeat("w2", leaving=True))
    turn = w.ended("r/api~2", reason=ExitReason.WORKER_LEFT)
    assert [event for event in events(turn) if "Stopping" in event] == [
        f"ServiceStopping(run_id=r, job_id=api, why={NO_OTHER_PORT!r})"
    ]


def test_a_worker_that_comes_back_on_the_same_host_is_no_place_for_the_port_any_more():
    w = World({"w1": 1, "w2": 1})
    up(w, port=8080)
    w.submit(run("busy", job("a")))
    assert "ServiceStopping" not in kinds(w.ask(RestartService(service="api")))
    w.cut("w2")
    turn = w.join("w2", incarnation=2, network="net-w1")
    assert [event for event in events(turn) if "Stopping" in event] == [
        f"ServiceStopping(run_id=r, job_id=api, why={NO_OTHER_PORT!r})"
    ]


def test_with_a_third_worker_a_replacement_that_failed_on_the_second_goes_there():
    for reason in (ExitReason.START_FAILED, ExitReason.CRASH_LOOP):
        w = World({"w1": 2, "w2": 2, "w3": 2})
        up(w, port=8080)
        w.ask(RestartService(service="api"))
        turn = w.ended("r/api~2", reason=reason)
        assert placements(turn) == [("api~2", "w3")]
        assert "ServiceStopping" not in kinds(turn)


# -- a later run of the same name ------------------------------------------------------------------
def test_a_later_run_keeps_a_service_that_is_defined_alike():
    w = World({"w1": 1})
    up(w)
    spec = run("web", job("a"), service("a"), job("b", "api"))
    w.submit(spec, run_id="s")
    w.leave("w1")
    w.join("w2", slots=2)  # the service comes up there first
    w.running("r/api", healthy=True)
    turn = w.ended("s/a")
    assert [event for event in events(turn) if "JobEnded" in event] == [
        "JobEnded(run_id=s, job_id=a, state=SUCCEEDED, reason=EXITED, number=1)",
        f"JobEnded(run_id=s, job_id=api, {KEPT})",
    ]
    assert placements(turn) == [("b", "w2")]
    assert instances(w) == {"api": "HEALTHY"}


def test_a_run_whose_last_task_is_followed_by_a_kept_service_ends_once():
    w = World({"w1": 2})
    up(w)
    w.submit(run("web", job("a"), service("a")), run_id="s")
    assert kinds(w.ended("s/a")) == [
        "AttemptEnded",
        "JobEnded",
        "JobsQueued",
        "JobEnded",
        "RunEnded",
    ]


def test_a_run_of_nothing_else_ends_at_once():
    w = World({"w1": 1})
    up(w)
    assert kinds(w.submit(run("web", service()), run_id="s")) == [
        "RunAccepted",
        "JobEnded",
        "RunEnded",
    ]
    w.restart()
    assert list(w.state.services) == [("r", "api")]


def test_a_later_run_replaces_a_service_that_is_defined_otherwise():
    w = World({"w1": 2})
    up(w)
    turn = w.submit(run("web", replace(service(), launch=OTHER)), run_id="s")
    assert placements(turn) == [("api", "w1")]
    assert instances(w) == {"api": "HEALTHY"}
    turn = w.running("s/api", healthy=True)
    assert "ServiceStopping(run_id=r, job_id=api, why='replaced by web-2/api')" in events(turn)
    w.ended("r/api", reason=ExitReason.STOPPED)
    (one,) = w.answer(ListServices()).services
    assert (one.run_id, one.name, str(one.state)) == ("s", "web/api", "HEALTHY")


def test_a_replacement_of_a_later_run_has_its_fixed_port_after_the_old_one():
    w = World({"w1": 2})
    up(w, port=8080)
    spec = run("web", replace(service(port=8080), launch=OTHER))
    turn = w.submit(spec, run_id="s")
    assert any(f"why={NO_OTHER_PORT!r}" in event for event in events(turn))
    assert placements(w.ended("r/api", reason=ExitReason.STOPPED)) == [("api", "w1")]


@pytest.mark.parametrize("change", ["unwell", "folder", "name"])
def test_only_what_is_healthy_and_the_same_in_everything_is_kept(change):
    w = World({"w1": 2})
    up(w)
    spec = run("other" if change == "name" else "web", service())
    if change == "unwell":
        w.running("r/api", restarts=1)
    if change == "folder":
        folder = RunSpec(name="web", jobs=spec.jobs, workspace=FOLDER)
        spec = folder
    assert placements(w.submit(spec, run_id="s")) == [("api", "w1")]


def test_a_service_that_was_to_begin_later_is_the_same_service():
    w = World({"w1": 2})
    up(w)
    spec = replace(service(), launch=replace(service().launch, at_ms=w.now_ms + 5_000))
    w.submit(run("web", replace(spec, delay_ms=1_000)), run_id="s")
    assert placements(w.advance(5_999)) == []
    turn = w.advance(1)
    assert KEPT in " ".join(events(turn))


def test_all_instances_of_an_earlier_run_go_once_the_new_one_is_healthy():
    w = World({"w1": 9})
    up(w, replicas=2)
    w.running("r/api~2", healthy=True)
    w.submit(run("web", replace(service(replicas=2), launch=OTHER)), run_id="s")
    turn = w.running("s/api", healthy=True)
    assert sum("ServiceStopping" in kind for kind in kinds(turn)) == 2
    assert ("api~2", "w1") in placements(turn)


# -- stopping a job ---------------------------------------------------------------------------------
def test_a_running_job_that_is_stopped_is_cancelled_and_so_is_what_depends_on_it():
    w = World({"w1": 2})
    w.submit(run("r", job("a"), job("b", "a"), job("other")), run_id="r")
    w.running("r/a")
    turn = w.ask(StopJob(run="r", job="a"))
    assert events(turn) == ["JobCancelling(run_id=r, job_id=a)"]
    w.ended("r/a", reason=ExitReason.CANCELLED)
    assert w.job_states("r") == {"a": "CANCELLED", "b": "CANCELLED", "other": "PLACED"}
    w.ended("r/other")
    assert not w.state.runs


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_has_ended_is_not():
    w = World({"w1": 1})
    w.submit(run("r", job("a"), job("b"), job("c", "b")), run_id="r")
    assert str(w.answer(StopJob(run="r", job="b")).state) == "CANCELLED"
    assert w.job_states("r") == {"a": "PLACED", "b": "CANCELLED", "c": "CANCELLED"}
    assert w.answer(StopJob(run="r", job="b")).code is ErrorCode.ALREADY_DONE
    assert w.answer(StopJob(run="r", job="x")).code is ErrorCode.NOT_FOUND


def test_a_service_that_is_still_starting_is_stopped_as_a_job():
    w = World({"w1": 1})
    w.submit(run("web", service()), run_id="r")
    assert kinds(w.ask(StopJob(run="r", job="api"))) == ["JobCancelling"]
    w.ended("r/api", reason=ExitReason.CANCELLED)
    assert not w.state.runs
    assert ServiceState.HEALTHY not in instances(w).values()
