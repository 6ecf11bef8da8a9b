"""Files from job to job: recorded with a success, named to whoever needs them, once on each link."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from core_world import gate, job, placements, run
from msgspec.structs import replace
from repeating import Cluster

from titan_master.core import sharing
from titan_master.net.link import reports_complaint
from titan_proto.ids import AttemptRef
from titan_proto.messages import CancelRun, DecideGate, GetJob, StopService
from titan_proto.messages.worker import AttemptReport, Left
from titan_proto.specs import Artifacts, Intake, RetryPolicy, Share
from titan_proto.states import AttemptState, ExitReason


def left(name, shared=1, artifacts=0):
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Left(digest=digest, size_bytes=100, shared=shared, artifacts=artifacts)


def orders(turn):
    return {
        order.ref.job_id: order
        for effect in turn.effects
        for order in getattr(getattr(effect, "message", None), "orders", ())
    }


def named(order):
    """(place, digest) of the layers that an order names."""
    return [(layer.index, layer.left.digest) for layer in order.layers]


def one(index, name):
    return (index, left(name).digest)


def shared_by(spec, scope=Share.NODE, **artifacts):
    launch = replace(spec.launch, share=scope)
    return replace(
        spec, launch=replace(launch, artifacts=Artifacts(**artifacts)) if artifacts else launch
    )


@pytest.fixture
def w():
    """Two workers of two folders; the first is always the better one, until it is full."""
    world = Cluster()
    world.join("w1", slots=9, workspace="here")
    world.join("w2", slots=9, workspace="there")
    return world


def test_what_a_job_left_is_named_to_its_child(w):
    w.submit(run("etl", job("a"), job("b", "a")), run_id="r")
    order = orders(w.ended("r/a", left=left("a")))["b"]
    assert named(order) == [one(1, "a")]


def test_a_child_is_told_of_everything_above_it_and_of_nothing_beside_it(w):
    spec = run("etl", job("a"), job("x"), job("b", "a"), job("c", "b"))
    w.submit(spec, run_id="r")
    w.ended("r/x", left=left("x"))
    w.ended("r/a", left=left("a"))
    w.cut("w2")
    w.join("w2")
    w.heartbeat("w1", "w2")
    turn = w.ended("r/b", left=left("b"))
    seen = {one_of for order in orders(turn).values() for one_of in named(order)}
    assert one(1, "x") not in seen
    assert one(3, "b") in seen


def test_a_layer_is_named_once_on_each_link(w):
    """A thousand children of one parent cost a thousand orders, not a thousand lists."""
    children = [job(f"c{number}", "a") for number in range(12)]
    w.submit(run("etl", job("a"), *children), run_id="r")
    told = orders(w.ended("r/a", left=left("a")))
    assert len(told) == 12
    by_worker = {}
    for name, order in told.items():
        by_worker.setdefault(w.worker_of(f"r/{name}"), []).append(named(order))
    assert set(by_worker) == {"w1", "w2"}
    for lists in by_worker.values():
        assert lists == [[one(1, "a")]] + [[]] * (len(lists) - 1)


def test_on_a_new_link_it_is_named_again(w):
    w.submit(run("etl", job("a"), job("b", "a")), run_id="r")
    w.ended("r/a", left=left("a"))
    worker = w.worker_of("r/b")
    w.cut(worker)
    again = orders(w.join(worker))["b"]
    assert named(again) == [one(1, "a")]


def test_an_order_that_goes_out_again_after_a_restart_says_the_same(w):
    w.submit(run("etl", job("a"), job("b", "a")), run_id="r")
    first = orders(w.ended("r/a", left=left("a")))["b"]
    worker = w.worker_of("r/b")
    w.restart()
    other = ({"w1", "w2"} - {worker}).pop()
    w.join(other)
    assert orders(w.join(worker))["b"] == first


def test_only_what_was_accepted_is_ever_named(w):
    """A parent that failed, and one whose worker was lost, left nothing; its next try did."""
    spec = run("etl", job("a", retries=RetryPolicy(limit=1, delay_ms=0)), job("b", "a"))
    w.submit(spec, run_id="r")
    w.ended("r/a", 1, left=left("wrong"))
    w.advance(1_000)
    order = orders(w.ended("r/a", left=left("right")))["b"]
    assert named(order) == [one(1, "right")]


def test_a_late_report_of_a_lost_attempt_changes_nothing(w):
    w.submit(run("etl", job("a"), job("b", "a")), run_id="r")
    first = w.worker_of("r/a")
    stale = w.ended_report("r/a", left=left("stale"))
    for _ in range(7):
        w.advance(5_000)
        w.heartbeat(*({"w1", "w2"} - {first}))
    assert w.ref("r/a").number == 2
    w.join(first)
    w.report(first, stale)
    order = orders(w.ended("r/a", left=left("a")))["b"]
    assert named(order) == [one(1, "a")]


def test_layers_are_numbered_in_the_order_of_acceptance(w):
    w.submit(run("etl", job("a"), job("b"), job("c", "a", "b")), run_id="r")
    w.ended("r/b", left=left("b"))
    order = orders(w.ended("r/a", left=left("a")))["c"]
    assert named(order) == [one(1, "b"), one(2, "a")]


def test_nothing_is_recorded_where_nobody_could_miss_it(w):
    """The last job of a run, one that keeps it to itself, and all while there is one folder."""
    spec = run("etl", job("a"), shared_by(job("n")), job("b", "a", "n"))
    first = orders(w.submit(spec, run_id="r"))
    assert first["a"].publishes
    assert not first["n"].publishes
    w.ended("r/n")
    assert not orders(w.ended("r/a"))["b"].publishes

    alone = Cluster()
    alone.join("w1", workspace="here")
    alone.join("w2", workspace="here")
    assert not orders(alone.submit(spec, run_id="r"))["a"].publishes


def test_a_worker_that_comes_from_another_folder_counts_from_then_on():
    world = Cluster()
    world.join("w1", workspace="here")
    spec = run("etl", job("a"), job("b", "a"), job("c", "b"))
    assert not orders(world.submit(spec, run_id="r"))["a"].publishes
    world.join("w2", workspace="there")
    assert orders(world.ended("r/a"))["b"].publishes
    world.leave("w2")
    assert list(world.state.workspaces) == ["here"]


def test_a_service_leaves_its_files_when_it_turns_healthy(w):
    w.submit(run("etl", job("s", service=True), job("b", "s")), run_id="r")
    w.running("r/s", port=1)
    order = orders(w.running("r/s", port=1, healthy=True, left=left("s")))["b"]
    assert named(order) == [one(1, "s")]


def test_a_gate_between_hides_nothing(w):
    w.submit(run("etl", job("a"), gate("g", "a"), job("b", "g")), run_id="r")
    w.ended("r/a", left=left("a"))
    turn = w.ask(DecideGate(gate="r/g", approve=True))
    assert named(orders(turn)["b"]) == [one(1, "a")]


def test_files_that_a_job_takes_in_are_named_by_their_job(w):
    taking = shared_by(
        job("b", "a"), Share.RUN, take=(Intake(job="a", files="x"), Intake(job="a", files="y"))
    )
    w.submit(run("etl", job("a"), taking), run_id="r")
    order = orders(w.ended("r/a", left=left("a", shared=0, artifacts=2)))["b"]
    assert order.intake == {"a": left("a", shared=0, artifacts=2)}
    assert order.layers == ()


def test_a_run_that_repeats_another_names_what_was_left_there(w):
    spec = run("etl", job("a"), job("x"), job("b", "a", "x"), job("c", "b"))
    w.submit(spec, run_id="r")
    w.ended("r/x", left=left("x"))
    w.ended("r/a", left=left("a"))
    w.ended("r/b", 1)
    assert not w.state.runs
    turn = w.again(failed=True)
    assert named(orders(turn)["b"]) == [one(1, "x"), one(2, "a")]
    last = orders(w.ended("again/b", left=left("b")))["c"]
    assert one(3, "b") in named(last)
    w.ended("again/c", 1)


def test_a_run_has_a_limited_number_of_layers(w, monkeypatch):
    monkeypatch.setattr(sharing, "LAYERS_PER_RUN", 1)
    w.submit(run("etl", job("a"), job("b", "a"), job("c", "b"), job("d")), run_id="r")
    w.ended("r/a", left=left("a"))
    w.ended("r/b", left=left("b"))
    view = w.answer(GetJob(run="r", job="b"))
    assert view.reason is ExitReason.BAD_FILES
    assert "LAYERS_PER_RUN (1)" in view.message


@pytest.mark.parametrize(
    "bad",
    [
        replace(left("a"), digest="../etc"),
        replace(left("a"), size_bytes=0),
        replace(left("a"), shared=-1),
        replace(left("a"), shared=10_000, artifacts=1),
    ],
)
def test_a_list_that_cannot_be_is_refused_at_the_door(bad):
    ref = AttemptRef("a" * 16, "a", 1)
    report = AttemptReport(ref=ref, state=AttemptState.ENDED, left=left("a"))
    assert not reports_complaint((report,))
    assert "files that cannot be" in reports_complaint((replace(report, left=bad),))


def test_many_layers_of_a_deep_graph_are_found_again_after_a_restart(w):
    """What stands above a job is derived: a checkpoint does not hold it."""
    names = [f"j{number}" for number in range(30)]
    spec = run("etl", job("j0"), *(job(b, a) for a, b in pairwise(names)))
    w.submit(spec, run_id="r")
    for name in names[:20]:
        w.ended(f"r/{name}", left=left(name))
    before = [one_job.layers for one_job in w.state.runs["r"].order]
    assert [one_job.layers for one_job in w.recovered().runs["r"].order] == before
    assert before[19] == (1 << 20) - 1


def test_a_service_that_moves_after_its_run_finds_the_files_where_it_lands(w):
    """Its run has left memory by then; what stood above it is kept with the service."""
    serving = shared_by(job("s", "a", service=True), Share.RUN, take=(Intake(job="a", files="x"),))
    w.submit(run("etl", job("a"), serving), run_id="r")
    w.ended("r/a", left=left("a", artifacts=1))
    w.running("r/s", port=1)
    w.running("r/s", port=1, healthy=True)
    assert not w.state.runs
    first = w.worker_of("r/s")
    again = orders(w.leave(first))["s"]
    assert w.worker_of("r/s") != first
    assert named(again) == [one(1, "a")]
    assert again.intake == {"a": left("a", artifacts=1)}


def test_what_is_above_a_job_is_found_through_one_that_runs_again():
    """A service that is not up any more runs again, and what came after it was taken over."""
    world = Cluster()
    world.join("w1", slots=9, workspace="here")
    world.join("w2", slots=9, workspace="there")
    spec = run("etl", job("a"), job("s", "a", service=True), job("b", "s"), job("c", "b"))
    world.submit(spec, run_id="r")
    world.ended("r/a", left=left("a"))
    world.running("r/s", healthy=True)
    world.ended("r/b")
    world.ended("r/c", 1)
    world.ask(StopService(service="s"))
    world.ended("r/s", reason=ExitReason.STOPPED)
    turn = world.again(failed=True)
    assert named(orders(turn)["c"]) == [one(1, "a")]
    world.restart()
    assert [str(j.state) for j in world.state.runs["again"].order][:1] == ["SUCCEEDED"]
    assert world.state.runs["again"].jobs["b"].layers == 1


# -- what nobody has stored ------------------------------------------------------------------------
def test_files_that_nobody_has_stored_keep_the_jobs_after_them_where_they_are():
    """A worker with a folder of its own joined while the run was under way, and has more room."""
    world = Cluster()
    world.join("w1", slots=1, workspace="here")
    world.submit(run("r", job("a"), job("b", "a"), job("c"), job("beside")), run_id="r")
    assert not orders(world.join("w1", held=()))["a"].publishes
    world.join("w2", slots=9, workspace="there")
    turn = world.ended("r/a", left=Left(digest="", size_bytes=0, kept=True))
    assert placements(turn) == [("b", "w1")]
    world.ended("r/b", left=Left(digest="", size_bytes=0, kept=True))
    world.restart()
    assert world.state.runs["r"].homes == ("here",)


def test_a_job_whose_files_are_on_a_worker_that_is_away_waits_and_says_so():
    world = Cluster()
    world.join("w1", slots=1, workspace="here")
    world.submit(run("r", job("a"), gate("ok", "a"), job("b", "ok"), job("c")), run_id="r")
    world.ended("r/a", left=Left(digest="", size_bytes=0, kept=True))
    world.ended("r/c", left=Left(digest="", size_bytes=0, kept=True))
    world.leave("w1")
    world.join("w2", slots=9, workspace="there")
    world.ask(DecideGate(gate="r/ok", approve=True))
    assert world.job_states("r")["b"] == "QUEUED"
    assert "left files ($TITAN_SHARED)" in world.answer(GetJob(run="r", job="b")).message
    assert placements(world.join("w3", slots=1, workspace="here")) == [("b", "w3")]


def test_a_repetition_knows_where_the_files_lie_that_nobody_has_stored():
    """Its jobs go where they are, also when that is the repetition of a repetition, and after a restart."""
    world = Cluster()
    world.join("w1", slots=1, workspace="here")
    world.submit(run("etl", job("a"), job("b", "a"), job("c", "b")), run_id="r")
    world.ended("r/a", left=Left(digest="", size_bytes=0, kept=True))
    world.ended("r/b", 1)
    world.leave("w1")
    world.join("w2", slots=9, workspace="there")

    assert placements(world.again(failed=True)) == []

    assert world.state.runs["again"].homes == ("here",)
    assert "left files ($TITAN_SHARED)" in world.answer(GetJob(run="again", job="b")).message
    world.restart()
    world.ask(CancelRun(run="again"))
    turn = world.again(key="once more", run="etl-2", run_id="third", failed=True)
    assert placements(turn) == []
    turn = world.join("w1", slots=1, workspace="here")
    assert placements(turn) == [("b", "w1")]
    order = orders(turn)["b"]
    # Nothing of the second was executed: it has no folder anywhere, and the first's stands in for it.
    assert (order.takes_over, order.ancestors) == ("again", ("r",))


def test_a_repetition_from_the_start_is_bound_to_no_place():
    world = Cluster()
    world.join("w1", slots=1, workspace="here")
    world.submit(run("etl", job("a"), job("b", "a")), run_id="r")
    world.ended("r/a", left=Left(digest="", size_bytes=0, kept=True))
    world.ended("r/b", 1)
    world.leave("w1")
    world.join("w2", slots=9, workspace="there")

    assert placements(world.again()) == [("a", "w2")]


def test_without_files_a_worker_that_joins_later_gets_whatever_comes_next():
    world = Cluster()
    world.join("w1", slots=1, workspace="here")
    world.submit(run("r", job("a"), job("b", "a", slots=2)), run_id="r")
    world.join("w2", slots=9, workspace="there")
    assert placements(world.ended("r/a")) == [("b", "w2")]


def test_what_a_later_job_needs_of_a_worker_that_is_not_there_yet_is_stored_at_once():
    """Whoever comes for it will have a folder of its own, and must find what was left before."""
    world = Cluster()
    world.join("w1", slots=1, workspace="here")
    turn = world.submit(run("r", job("a"), job("b", "a", skills=["GPU"])), run_id="r")
    assert orders(turn)["a"].publishes


@pytest.mark.parametrize("scope", [Share.NODE, Share.RUN])
def test_only_what_is_meant_for_others_and_has_others_after_it_binds_them(scope):
    world = Cluster()
    world.join("w1", slots=2, workspace="here")
    spec = run("r", shared_by(job("a"), scope), job("b", "a"), job("alone"))
    world.submit(spec, run_id="r")
    world.ended("r/alone", left=Left(digest="", size_bytes=0, kept=True))
    assert world.state.runs["r"].homes == ()
    world.ended("r/a", left=Left(digest="", size_bytes=0, kept=True))
    assert world.state.runs["r"].homes == (("here",) if scope is Share.RUN else ())
