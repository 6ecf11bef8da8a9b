"""Where a job wants to be, or has to be: beside another, on one worker, apart, one of a few."""

from __future__ import annotations

import pytest
from core_world import World, gate, job, order_of, placements, run
from msgspec.structs import replace

from titan_master.core import placement
from titan_proto.messages import CancelRun, RestartService
from titan_proto.states import JobState


def beside(name, *after, near, required=True, **options):
    return job(name, *after, terms={"near": near, "required": required}, **options)


def where(w, name):
    run_id, _, job_id = name.partition("/")
    attempt = w.state.runs[run_id].jobs[job_id].attempt
    return attempt.worker_id if attempt is not None else None


# -- beside another -------------------------------------------------------------------------------
def four():
    """Four workers, of which the first is the least loaded one, always."""
    w = World()
    for n in range(4):
        w.join(f"w{n}", slots=4)
    return w


@pytest.mark.parametrize("required", [True, False])
def test_a_job_goes_where_another_one_ran_that_is_no_parent_of_it(required):
    w = four()
    w.submit(run("busy", *(job(f"b{n}") for n in range(2))))
    w.submit(run("r", job("a"), job("b", "a"), beside("c", "b", near="a", required=required)))
    home = where(w, "r/a")
    assert home == "w2"
    w.ended("r/a")
    w.ended("r/b")
    assert where(w, "r/c") == home


def test_one_that_only_prefers_it_goes_elsewhere_when_there_is_no_room():
    w = World({"w1": 1, "w2": 1})
    w.submit(run("r", job("a"), job("x"), beside("c", "a", near="a", required=False)))
    w.submit(run("s", job("fills", priority=10)))
    assert where(w, "r/a") == "w1"
    w.ended("r/a")
    assert where(w, "s/fills") == "w1"
    w.ended("r/x")
    assert where(w, "r/c") == "w2"


def one_away(w):
    """`r/c` has to be beside `r/a`, which ran on w1; that has no room, and w2 has some."""
    c = beside("c", "a", near="a", delay_ms=1_000, priority=10)
    w.submit(run("r", job("a"), c))
    assert where(w, "r/a") == "w1"
    w.ended("r/a")
    w.submit(run("s", job("fills")))
    assert where(w, "s/fills") == "w1"
    w.advance(1_000)
    assert w.job_state("r/c") is JobState.QUEUED


def test_one_that_requires_it_waits_and_holds_up_nobody():
    w = World({"w1": 1, "w2": 2})
    one_away(w)
    w.submit(run("t", job("x"), job("y"), job("z")))
    assert [worker for _, worker in placements(w.last)] == ["w2", "w2"]
    w.ended("t/x")
    assert where(w, "r/c") is None
    w.ended("s/fills")
    assert where(w, "r/c") == "w1"


def test_the_same_machine_under_a_new_id_is_the_same_place():
    """A worker that lost its ledger: what lay on its disk may be there yet."""
    w = World({"w1": 1, "w2": 2})
    one_away(w)
    port = w.state.workers["w1"].port
    w.leave("w1")
    assert where(w, "r/c") is None
    w.join("new", port=port, slots=1)
    assert where(w, "r/c") == "new"


def test_in_place_of_a_lost_worker_another_one_with_its_folder_will_do():
    w = World()
    w.join("w1", slots=1, workspace="disk")
    w.join("w2", slots=4, workspace="other")
    one_away(w)
    w.cut("w1")
    w.advance(w.config.lost_after_ms // 2)
    w.join("w3", slots=1, workspace="disk")
    assert where(w, "r/c") is None, "it may be back yet"
    w.heartbeat("w2", "w3")
    for _ in range(12):
        w.advance(w.config.lost_after_ms // 12)
        w.heartbeat("w2", "w3")
    assert where(w, "r/c") == "w3"


def test_it_waits_while_that_worker_is_away_and_starts_when_it_is_back():
    w = World({"w1": 1, "w2": 4})
    w.submit(run("r", job("a", skills=["GENERAL"]), beside("c", "a", near="a", delay_ms=1_000)))
    assert where(w, "r/a") == "w1"
    w.ended("r/a")
    w.cut("w1")
    w.advance(1_000)
    assert w.job_state("r/c") is JobState.QUEUED
    w.join("w1")
    assert where(w, "r/c") == "w1"


def test_what_was_taken_over_was_nowhere_so_any_place_will_do():
    w = World({"w1": 1})
    item = w.submission(run("r", job("a"), beside("c", "a", near="a")))
    w.turn(replace(item, rerun_of="old", rerun_alias="old-1", taken_over=("a",)))
    assert where(w, "r/c") == "w1"


def test_jobs_that_wait_beside_different_jobs_do_not_wait_for_each_other():
    w = World({"w1": 1, "w2": 1})
    w.submit(run("r", job("a"), job("b"), beside("a2", "a", near="a"), beside("b2", "b", near="b")))
    assert {where(w, "r/a"), where(w, "r/b")} == {"w1", "w2"}
    w.submit(run("s", job("fills", priority=10)))
    w.ended("r/a")
    assert w.job_state("r/a2") is JobState.QUEUED
    w.ended("r/b")
    assert where(w, "r/b2") == where(w, "r/b")


# -- where the job runs that asks for them -----------------------------------------------------------
def test_what_a_running_job_submits_prefers_its_worker():
    w = four()
    w.submit(run("r", job("x"), job("parent")))
    assert where(w, "r/parent") == "w1"
    w.running("r/parent")
    w.submit(run("s", job("child"), job("second", "child")), parent="r/parent")
    assert where(w, "s/child") == "w1", "though others are less loaded"
    w.ended("s/child")
    assert where(w, "s/second") == "w1"


def test_it_goes_elsewhere_when_there_is_no_room_there():
    w = World({"w1": 1, "w2": 1})
    w.submit(run("r", job("parent")))
    assert where(w, "r/parent") == "w1"
    w.submit(run("s", job("child")), parent="r/parent")
    assert where(w, "s/child") == "w2"


def test_an_attempt_that_has_ended_is_nobodys_parent():
    w = four()
    w.submit(run("r", job("x"), job("parent")))
    ref = w.ref("r/parent")
    w.submit(run("keeps", job("y", slots=4, priority=10)))
    item = w.submission(run("s", job("child")), parent="r/parent")
    w.ended("r/parent")
    w.turn(item)
    assert w.state.runs["s"].near == ""
    assert ref.job_id == "parent"


def test_whose_child_a_run_is_survives_a_restart():
    w = four()
    w.submit(run("r", job("x"), job("parent")))
    w.submit(run("s", job("child", delay_ms=5_000)), parent="r/parent")
    w.restart()
    assert w.state.runs["s"].near == "w1"


# -- on one worker --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["host:8081", "w2"])
def test_a_pinned_job_goes_to_its_worker_and_nowhere_else(name):
    w = World({"w1": 4, "w2": 1, "w3": 4})
    w.submit(run("r", job("p", terms={"worker": name}), job("q", terms={"worker": name})))
    assert placements(w.last) == [("p", "w2")]
    assert placements(w.ended("r/p")) == [("q", "w2")]


def test_a_job_pinned_to_a_host_goes_to_the_least_loaded_of_its_workers():
    w = World({"w1": 4, "w2": 4})
    w.submit(run("x", job("x")))
    w.submit(run("r", job("p", terms={"worker": "host"})))
    assert placements(w.last) == [("p", "w2")]


def test_a_pinned_job_waits_for_its_worker_and_holds_up_nobody():
    w = World({"w1": 2})
    pinned = [job(f"p{n}", priority=10, terms={"worker": "host:9999"}) for n in range(5)]
    w.submit(run("r", *pinned, job("a")))
    assert placements(w.last) == [("a", "w1")]
    assert [name for name, _ in placements(w.join("w9", port=9999, slots=2))] == ["p0", "p1"]


def test_a_pinned_service_is_moved_nowhere():
    w = World({"w1": 2, "w2": 2})
    w.submit(run("r", job("api", service=True, terms={"worker": "w1"})))
    w.running("r/api", healthy=True)
    w.ask(RestartService(service="r/api"))
    assert {worker for _, worker in placements(w.last)} == {"w1"}
    w.cut("w1")
    w.advance(w.config.lost_after_ms)
    assert {one.attempt.worker_id for one in w.state.services.values()} <= {"w1", ""}
    assert not w.state.workers["w2"].held


# -- apart ----------------------------------------------------------------------------------------
def test_what_is_to_be_spread_goes_where_the_fewest_of_its_run_are():
    w = World({"w1": 4, "w2": 4, "w3": 4})
    w.submit(run("busy", *(job(f"b{n}", slots=3) for n in range(2))))
    spread = [job(f"s{n}", terms={"spread": True}) for n in range(4)]
    w.submit(run("r", *spread))
    assert [worker for _, worker in placements(w.last)] == ["w3", "w1", "w2", "w3"]


def test_jobs_without_a_wish_fill_the_least_loaded_instead():
    w = World({"w1": 4, "w2": 4, "w3": 4})
    w.submit(run("busy", *(job(f"b{n}", slots=3) for n in range(2))))
    w.submit(run("r", *(job(f"s{n}") for n in range(3))))
    assert [worker for _, worker in placements(w.last)] == ["w3", "w3", "w3"]


# -- one of a few ---------------------------------------------------------------------------------
def in_group(name, *after, limit=1, group="db", **options):
    return job(name, *after, terms={"group": group, "limit": limit}, **options)


def test_of_a_group_so_many_run_at_once_in_all_runs():
    w = World({"w1": 4, "w2": 4})
    w.submit(run("r", in_group("a", limit=2), in_group("b", limit=2), in_group("c", limit=2)))
    w.submit(run("s", in_group("d", limit=2), job("free")))
    assert [name for name, _ in placements(w.last)] == ["free"]
    assert w.state.groups == {"db": 2}
    assert [name for name, _ in placements(w.ended("r/a"))] == ["c"]
    assert [name for name, _ in placements(w.ended("r/b"))] == ["d"]
    w.ended("r/c")
    w.ended("s/d")
    assert w.state.groups == {}


def test_jobs_of_one_group_may_have_different_limits():
    w = World({"w1": 4})
    w.submit(run("r", in_group("a", limit=3), in_group("b", limit=1), in_group("c", limit=3)))
    assert [name for name, _ in placements(w.last)] == ["a", "c"]
    w.ended("r/a")
    assert w.job_state("r/b") is JobState.QUEUED
    w.ended("r/c")
    assert w.job_state("r/b") is JobState.PLACED


def test_who_is_in_a_group_is_known_again_after_a_restart():
    w = World({"w1": 4})
    w.submit(run("r", in_group("a"), in_group("b")))
    w.restart()
    assert w.state.groups == {"db": 1}
    w.join("w1", held=[("r/a", "RUNNING")])
    assert w.job_state("r/b") is JobState.QUEUED
    assert [name for name, _ in placements(w.ended("r/a"))] == ["b"]


def of_run(name, *after, limit=1, group="etl", **options):
    return job(name, *after, terms={"run_group": group, "run_limit": limit}, **options)


def test_of_a_group_of_runs_one_has_begun_and_the_next_begins_at_its_end():
    w = World({"w1": 4})
    w.submit(run("r", of_run("a"), gate("g", "a"), of_run("b", "g")))
    w.submit(run("s", of_run("a"), of_run("b", "a")))
    w.submit(run("t", of_run("a")))
    assert w.state.seats == {"etl": {"r": None}}
    w.ended("r/a")
    assert w.job_state("s/a") is JobState.QUEUED, "a run has its seat until it ends"
    w.ask(CancelRun(run="r"))
    assert placements(w.last) == [("a", "w1")]
    assert w.state.seats == {"etl": {"s": None}}
    w.restart()
    assert w.state.seats == {"etl": {"s": None}}
    w.join("w1", held=[("s/a", "RUNNING")])
    w.ended("s/a")
    assert w.job_state("s/b") is JobState.PLACED
    assert w.job_state("t/a") is JobState.QUEUED
    w.ended("s/b")
    assert w.job_state("t/a") is JobState.PLACED


def test_a_run_that_has_not_begun_keeps_no_seat():
    w = World()
    w.submit(run("r", of_run("a")))
    w.submit(run("s", of_run("a")))
    assert w.state.seats == {}
    w.ask(CancelRun(run="r"))
    w.join("w1")
    assert w.job_state("s/a") is JobState.PLACED


def test_a_thousand_runs_that_wait_for_their_group_are_not_looked_at_one_by_one(monkeypatch):
    w = World({"w1": 4})
    for n in range(300):
        w.submit(run(f"r{n}", of_run("a")), run_id=f"r{n}")
    looks = []
    choose = placement._choose
    monkeypatch.setattr(placement, "_choose", lambda *args: looks.append(1) or choose(*args))
    w.submit(run("free", job("a")))
    assert len(looks) == 1


def test_an_order_says_nothing_of_where_it_might_have_gone():
    """What the worker executes is the same, whatever the terms were."""
    w = World({"w1": 1})
    turn = w.submit(run("r", in_group("a")))
    assert order_of(turn, "a").spec.needs.terms.group == "db"
