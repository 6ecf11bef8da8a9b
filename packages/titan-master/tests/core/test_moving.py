"""Services of a worker that leaves: replaced elsewhere first, stopped there then; or why not."""

from __future__ import annotations

from core_world import World, events, job, kinds, placements, run
from msgspec.structs import replace

from titan_master.core.effects import Tell
from titan_proto.messages import ListServices, RestartService, StopAttempts, StopService
from titan_proto.specs import Launch, LaunchKind
from titan_proto.states import ExitReason

OTHER = Launch(kind=LaunchKind.SHELL, shell="other")
ADDED = (
    "ServiceAdded(run_id=r, job_id=api~2, of=api, number=2, replaces=api,"
    " why='worker host:8080 is leaving')"
)


def up(w, *, port=0, **options):
    """The service `web/api` of run r is healthy on w1."""
    w.submit(run("web", job("api", service=True, port=port, **options)), run_id="r")
    assert w.worker_of("r/api") == "w1"
    return w.running("r/api", healthy=True, port=port or 4000)


def told_to_stop(turn):
    """Whom, and why."""
    return [
        (str(ref), effect.message.reason)
        for effect in turn.effects
        if isinstance(effect, Tell) and isinstance(effect.message, StopAttempts)
        for ref in effect.message.refs
    ]


def left(w, name):
    """Its worker says that it went with it."""
    return w.ended(name, reason=ExitReason.WORKER_LEFT)


def instances(w):
    return {one.job_id: str(one.state) for one in w.answer(ListServices()).services}


def why_queued(turn):
    return [event.why for event in turn.events if type(event).__name__ == "ServiceQueued"]


# -- it can be moved --------------------------------------------------------------------------------
def test_a_service_of_a_worker_that_leaves_is_stopped_once_its_replacement_is_healthy():
    w = World({"w1": 2, "w2": 2})
    up(w)
    turn = w.heartbeat("w1", leaving=True)
    assert ADDED in events(turn)
    assert placements(turn) == [("api~2", "w2")]
    assert told_to_stop(turn) == []
    assert told_to_stop(w.running("r/api~2")) == []
    turn = w.running("r/api~2", healthy=True)
    assert told_to_stop(turn) == [("r/api.1", ExitReason.STOPPED)]
    assert "why='replaced by web-1/api~2'" in events(turn)[-1]
    assert "ServiceEnded" in kinds(w.ended("r/api", reason=ExitReason.STOPPED))
    assert kinds(w.leave("w1")) == ["WorkerRetired"]
    assert instances(w) == {"api~2": "HEALTHY"}


def test_every_instance_is_moved_and_a_fixed_port_too():
    w = World({"w1": 9})
    spec = job("api", service=True, port=8080)
    w.submit(run("web", spec, job("b", service=True)), run_id="r")
    w.running("r/api", healthy=True, port=8080)
    w.running("r/b", healthy=True, port=4000)
    w.join("w2", slots=9)
    turn = w.heartbeat("w1", leaving=True)
    assert placements(turn) == [("api~2", "w2"), ("b~2", "w2")]
    assert told_to_stop(turn) == []


def test_the_move_survives_a_restart_of_the_master():
    w = World({"w1": 1, "w2": 1})
    up(w)
    w.heartbeat("w1", leaving=True)
    w.restart()
    w.join("w2", held=[("r/api~2", "RUNNING")])
    turn = w.join("w1", held=[("r/api", "RUNNING")], leaving=True)
    assert told_to_stop(turn) == []
    assert "ServiceAdded" not in kinds(turn)
    assert told_to_stop(w.running("r/api~2", healthy=True)) == [("r/api.1", ExitReason.STOPPED)]


def test_where_the_time_for_leaving_is_over_the_replacement_goes_on_alone():
    """It is not healthy yet, but it is under way: the old one does not come up a second time."""
    w = World({"w1": 1, "w2": 1})
    up(w)
    w.heartbeat("w1", leaving=True)
    turn = left(w, "r/api")
    assert "ServiceQueued" not in kinds(turn)
    assert (
        "ServiceEnded(run_id=r, job_id=api, number=1, stopped=True, reason=WORKER_LEFT)"
        in events(turn)
    )
    assert instances(w) == {"api~2": "STARTING"}


def test_a_replacement_that_never_had_room_gives_way_to_what_it_was_to_replace():
    w = World({"w1": 1, "w2": 1})
    up(w)
    w.submit(run("busy", job("a")))
    turn = w.heartbeat("w1", leaving=True)
    assert (ADDED in events(turn), placements(turn)) == (True, [])
    turn = left(w, "r/api")
    assert why_queued(turn) == ["no worker had room for its replacement in time"]
    assert instances(w) == {"api": "STARTING"}
    assert placements(w.ended("busy/a")) == [("api", "w2")]


def test_a_replacement_that_fails_leaves_the_service_where_it_is_until_its_worker_goes():
    w = World({"w1": 1, "w2": 1})
    up(w)
    w.heartbeat("w1", leaving=True)
    w.running("r/api~2")
    turn = w.ended("r/api~2", 1, reason=ExitReason.CRASH_LOOP)
    assert told_to_stop(turn) == [("r/api.1", ExitReason.WORKER_LEFT)], "no further try"
    assert "ServiceAdded" not in kinds(turn)
    assert placements(left(w, "r/api")) == [("api", "w2")]


def test_a_service_that_comes_up_while_its_worker_leaves_goes_on_from_there():
    w = World({"w1": 2})
    w.submit(run("web", job("api", service=True), job("task")), run_id="r")
    w.running("r/task")
    w.running("r/api")
    w.join("w2", slots=2)
    assert told_to_stop(w.heartbeat("w1", leaving=True)) == [], "a task is waited for"
    turn = w.running("r/api", healthy=True, port=4000)
    assert ADDED in events(turn)
    assert placements(turn) == [("api~2", "w2")]


def test_a_service_that_is_still_starting_is_not_waited_for():
    w = World({"w1": 1, "w2": 1})
    w.submit(run("web", job("api", service=True)), run_id="r")
    w.running("r/api")
    turn = w.heartbeat("w1", leaving=True)
    assert told_to_stop(turn) == [("r/api.1", ExitReason.WORKER_LEFT)]
    assert placements(left(w, "r/api")) == [("api", "w2")]


def test_one_that_is_being_stopped_or_replaced_already_is_not_moved():
    w = World({"w1": 2, "w2": 2})
    up(w)
    w.ask(RestartService(service="api"))
    assert "ServiceAdded" not in kinds(w.heartbeat("w1", leaving=True))
    w.ask(StopService(service="api"))
    assert told_to_stop(w.heartbeat("w1", leaving=True)) == []


def test_a_moved_service_avoids_the_workers_on_which_it_has_failed():
    w = World({"w1": 1, "w2": 1})
    up(w)
    w.ended("r/api", 1, reason=ExitReason.CRASH_LOOP)
    w.running("r/api", healthy=True)
    assert w.worker_of("r/api") == "w2"
    turn = w.heartbeat("w2", leaving=True)
    assert told_to_stop(turn) == [("r/api.2", ExitReason.WORKER_LEFT)]
    assert why_queued(left(w, "r/api")) == [
        "it has failed on every other worker that could have it"
    ]


# -- it cannot --------------------------------------------------------------------------------------
def test_without_another_worker_it_stays_up_while_a_task_is_waited_for_and_is_stopped_then():
    w = World({"w1": 2})
    up(w)
    w.submit(run("t", job("a")))
    w.running("t/a")
    turn = w.heartbeat("w1", leaving=True)
    assert ("ServiceAdded" in kinds(turn), told_to_stop(turn)) == (False, [])
    assert told_to_stop(w.ended("t/a")) == [("r/api.1", ExitReason.WORKER_LEFT)]
    assert why_queued(left(w, "r/api")) == ["no other worker could have it"]
    w.leave("w1")
    assert placements(w.join("w3", slots=1)) == [("api", "w3")]


def test_what_is_pinned_by_a_skill_a_port_or_by_being_exclusive_says_so():
    for options, skills, why in (
        ({"skills": ("GPU",)}, ("GENERAL", "GPU"), "no other worker could have it"),
        ({"exclusive": True}, ("GENERAL",), "it is exclusive, and never beside its replacement"),
    ):
        w = World()
        w.join("w1", skills=skills)
        up(w, **options)
        w.join("w2")
        turn = w.heartbeat("w1", leaving=True)
        assert "ServiceAdded" not in kinds(turn)
        assert told_to_stop(turn) == [("r/api.1", ExitReason.WORKER_LEFT)]
        assert why_queued(left(w, "r/api")) == [why]
    w = World({"w1": 4})
    up(w, port=8080)
    w.join("w2")
    w.submit(run("other", job("api", service=True, port=8080)), run_id="o")
    w.running("o/api", healthy=True, port=8080)
    assert told_to_stop(w.heartbeat("w1", leaving=True)) == [("r/api.1", ExitReason.WORKER_LEFT)]
    assert why_queued(left(w, "r/api")) == [
        "no other worker can have port 8080 for its replacement"
    ]


def test_a_fixed_port_is_not_given_to_another_worker_of_the_same_host_while_it_answers():
    w = World()
    for name in ("w1", "w2"):
        w.join(name, network="shared")
    up(w, port=8080)
    other = "w2" if w.worker_of("r/api") == "w1" else "w1"
    turn = w.heartbeat("w1", leaving=True)
    assert "ServiceAdded" not in kinds(turn)
    assert told_to_stop(turn) == [("r/api.1", ExitReason.WORKER_LEFT)]
    turn = left(w, "r/api")
    assert why_queued(turn) == ["no other worker can have port 8080 for its replacement"]
    assert placements(turn) == [("api", other)]


def test_what_has_failed_wherever_it_might_go_is_not_waited_for():
    """The replacement of one that leaves has failed on the only other worker."""
    w = World({"w1": 2, "w2": 2})
    up(w, port=8080)
    assert placements(w.heartbeat("w1", leaving=True)) == [("api~2", "w2")]
    turn = w.ended("r/api~2", reason=ExitReason.START_FAILED)
    assert told_to_stop(turn) == [("r/api.1", ExitReason.WORKER_LEFT)]


def test_where_the_whole_cluster_goes_down_a_service_stays_what_it_is():
    """Each worker says that it waits for nothing: no replacement is begun on one that goes a moment later."""
    w = World({"w1": 1, "w2": 1})
    up(w)
    assert "ServiceAdded" not in kinds(w.heartbeat("w1", leaving=True, at_once=True))
    assert kinds(w.heartbeat("w2", leaving=True, at_once=True)) == ["WorkerDraining"]
    left(w, "r/api")
    assert instances(w) == {"api": "STARTING"}
    assert placements(w.join("w1", incarnation=2)) == [("api", "w1")]


def test_an_order_to_stop_that_was_lost_with_a_link_goes_out_again():
    w = World({"w1": 1})
    up(w)
    w.heartbeat("w1", leaving=True)
    w.cut("w1")
    turn = w.join("w1", held=[("r/api", "RUNNING")], leaving=True)
    assert told_to_stop(turn) == [("r/api.1", ExitReason.WORKER_LEFT)]
    w.restart()
    turn = w.join("w1", held=[("r/api", "RUNNING")], leaving=True)
    assert told_to_stop(turn) == [("r/api.1", ExitReason.WORKER_LEFT)]


def test_where_all_workers_leave_nobody_waits_for_the_others():
    w = World({"w1": 1, "w2": 1})
    up(w)
    w.heartbeat("w1", leaving=True)
    turn = w.heartbeat("w2", leaving=True)
    assert told_to_stop(turn) == [("r/api~2.1", ExitReason.WORKER_LEFT)]
    turn = left(w, "r/api~2")
    assert told_to_stop(turn) == [("r/api.1", ExitReason.WORKER_LEFT)]
    left(w, "r/api")
    assert instances(w) == {"api~2": "STARTING"}
    assert placements(w.join("w3", slots=1)) == [("api~2", "w3")]


# -- what a rolling replacement looks at again ---------------------------------------------------------
def waiting(w):
    """`api` has port 8080 on w1, and a replacement that waits for w2, where nothing is free."""
    up(w, port=8080)
    w.submit(run("busy", job("a")))
    turn = w.ask(RestartService(service="api"))
    assert (placements(turn), "ServiceStopping" in kinds(turn)) == ([], False)


def assert_way_is_made(turn):
    assert (
        "ServiceStopping(run_id=r, job_id=api, why='no other worker can have port 8080 for its"
        " replacement')"
    ) in events(turn)


def test_the_only_other_worker_for_a_fixed_port_goes_and_the_old_one_is_stopped_first():
    for how in ("leaves", "drains", "is lost"):
        w = World({"w1": 1, "w2": 1})
        waiting(w)
        if how == "leaves":
            turn = w.leave("w2")
        elif how == "drains":
            turn = w.heartbeat("w2", leaving=True)
        else:
            w.cut("w2")
            w.advance(20_000)
            w.heartbeat("w1")
            turn = w.advance(10_000)
        assert_way_is_made(turn)
        assert ("api~2", "w1") in placements(w.ended("r/api", reason=ExitReason.STOPPED))


def test_so_it_is_for_a_later_run_that_replaces_a_fixed_port():
    w = World({"w1": 1, "w2": 1})
    up(w, port=8080)
    w.submit(run("busy", job("a")))
    changed = replace(job("api", service=True, port=8080), launch=OTHER)
    assert "ServiceStopping" not in kinds(w.submit(run("web", changed), run_id="s"))
    assert_way_is_made(w.leave("w2"))
    assert w.worker_of("r/api") == "w1"


def test_the_departure_of_a_worker_that_was_no_place_for_it_stops_nothing():
    w = World({"w1": 1, "w2": 1, "w3": 1})
    up(w, port=8080)
    for name in ("a", "b"):
        w.submit(run(name, job("x")))
    w.ask(RestartService(service="api"))
    assert "ServiceStopping" not in kinds(w.leave("w3")), "w2 could have it"
