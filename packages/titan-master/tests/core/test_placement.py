"""Placement: order, fairness between classes, choice of worker, bounds."""

from __future__ import annotations

import pytest
from core_world import World, effects, job, kinds, placements, run
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_master.core import placement
from titan_master.core.core import CoreConfig
from titan_master.core.state import ClassKey
from titan_proto.messages import CancelRun
from titan_proto.messages.worker import Left
from titan_proto.states import JobState


def order(turn):
    return [job_id for job_id, _ in placements(turn)]


def drain_in_order(w, run_id="r"):
    """End whatever runs until nothing is left; the order in which jobs were placed after."""
    seen = []
    while run_id in w.state.runs:
        worker = next(one for one in w.state.workers.values() if one.held)
        held = next(iter(worker.held))
        seen += order(w.ended("/".join(held)))
    return seen


def test_first_come_first_served_inside_one_priority():
    w = World({"w1": 1})
    turn = w.submit(run("r", *(job(name) for name in "cab")))
    assert order(turn) + drain_in_order(w) == ["c", "a", "b"]


def test_ten_is_served_first_and_nought_last():
    w = World()
    w.submit(run("r", job("p0", priority=0), job("p10", priority=10), job("p5")))
    assert order(w.join("w1", slots=1)) + drain_in_order(w) == ["p10", "p5", "p0"]


def test_a_waiting_job_gains_a_step_a_minute():
    w = World()
    w.submit(run("r", job("old", priority=4)))
    w.advance(60_000)
    w.submit(run("s", job("young", priority=5)))
    # Both count 5 now, and the one that has waited longer goes first.
    assert order(w.join("w1", slots=1)) == ["old"]


def test_one_second_short_of_the_minute_is_no_step():
    w = World()
    w.submit(run("r", job("old", priority=4)))
    w.advance(59_000)
    w.submit(run("s", job("young", priority=5)))
    assert order(w.join("w1", slots=1)) == ["young"]


def test_ageing_never_overtakes_priority_ten():
    w = World()
    w.submit(run("r", job("old", priority=0)))
    w.advance(60_000 * 60)
    w.submit(run("s", job("urgent", priority=10), job("nine", priority=9)))
    assert order(w.join("w1", slots=3)) == ["urgent", "old", "nine"]


def test_a_class_without_a_worker_never_delays_another():
    w = World({"w1": 4})
    jobs = [job(f"gpu{n}", skills=["GPU"], priority=10) for n in range(50)]
    turn = w.submit(run("r", *jobs, job("plain", priority=0)))
    assert placements(turn) == [("plain", "w1")]


def test_classes_compete_by_urgency_for_a_worker_that_can_serve_both():
    w = World()
    w.submit(run("r", job("plain"), job("gpu", skills=["GPU"]), job("first", priority=6)))
    turn = w.join("w1", slots=2, skills=["GENERAL", "GPU"])
    assert order(turn) == ["first", "plain"]


def test_order_and_repetition_of_skills_mean_nothing():
    w = World()
    w.submit(run("r", job("a", skills=["X", "Y"]), job("b", skills=["Y", "X", "X"])))
    assert len(w.state.queue.classes) == 1
    assert order(w.join("w1", skills=["Y", "X", "Z"])) == ["a", "b"]


def test_a_worker_must_offer_every_skill_needed():
    w = World()
    w.join("w1", skills=["GPU"])
    turn = w.submit(run("r", job("a", skills=["GPU", "BIG"])))
    assert placements(turn) == []


def test_the_least_loaded_by_share_is_preferred_then_the_name():
    w = World({"w1": 2, "w2": 4})
    turn = w.submit(run("r", *(job(name) for name in "abcdef")))
    assert placements(turn) == [
        ("a", "w1"),  # 0/2 and 0/4 are equal: the name decides
        ("b", "w2"),
        ("c", "w2"),  # 1/2 against 1/4
        ("d", "w1"),  # 1/2 against 2/4: the name
        ("e", "w2"),
        ("f", "w2"),
    ]


def test_the_least_loaded_is_found_among_workers_of_different_skills():
    w = World()
    for name, skills in (("w1", ["A"]), ("w2", ["A", "B"]), ("w3", ["A", "C"])):
        w.join(name, slots=2, skills=skills)
    turn = w.submit(run("r", *(job(f"j{n}", skills=["A"]) for n in range(6))))
    assert [worker for _, worker in placements(turn)] == ["w1", "w2", "w3"] * 2


def test_affinity_prefers_the_parents_worker_even_if_it_is_busier():
    w = World({"w1": 4, "w2": 4})
    w.submit(run("r", job("a"), job("x"), job("y"), job("b", "a", affinity=True)))
    home = w.worker_of("r/a")
    assert w.worker_of("r/y") == home
    assert placements(w.ended("r/a")) == [("b", home)]


def test_without_affinity_the_same_job_goes_to_the_least_loaded():
    w = World({"w1": 4, "w2": 4})
    w.submit(run("r", job("a"), job("x"), job("y"), job("z"), job("b", "a")))
    w.ended("r/x")
    w.ended("r/z")
    assert placements(w.ended("r/a")) == [("b", "w2")]


def test_affinity_is_a_preference_a_full_or_absent_home_is_no_obstacle():
    w = World({"w1": 1, "w2": 1})
    w.submit(run("r", job("a"), job("b", "a", affinity=True)))
    w.turn(*(w.submission(run("s", job("s", priority=10))),))
    w.submit(run("t", job("t", priority=10)))
    turn = w.ended("r/a")
    assert placements(turn) == [("t", "w1")]
    assert placements(w.ended("s/s")) == [("b", "w2")]


def test_slots_are_never_exceeded_and_free_ones_are_filled():
    w = World({"w1": 2, "w2": 1})
    turn = w.submit(run("r", *(job(f"j{n}") for n in range(10))))
    assert len(placements(turn)) == 3
    assert [len(worker.held) for worker in w.state.workers.values()] == [2, 1]


def test_a_turn_places_a_limited_number_and_asks_to_be_called_again():
    w = World({"w1": 100}, CoreConfig(placements_max=3))
    turn = w.submit(run("r", *(job(f"j{n}") for n in range(7))))
    assert len(placements(turn)) == 3
    assert w.core.next_deadline_ms() == w.now_ms
    assert len(placements(w.turn())) == 3
    assert len(placements(w.turn())) == 1
    assert w.core.next_deadline_ms() > w.now_ms


def test_fences_grow_with_every_placement_of_the_cluster():
    w = World({"w1": 2})
    w.submit(run("r", job("a")))
    w.submit(run("s", job("a")))
    w.restart()
    w.join("w1", held=[("r/a", "RUNNING"), ("s/a", "RUNNING")])
    w.ended("r/a")
    turn = w.submit(run("t", job("a")))
    assert turn.events[-1].fence == 3


def test_a_turn_in_which_nothing_changed_looks_at_no_queue():
    w = World({"w1": 1})
    w.submit(run("r", job("a"), job("b")))
    assert kinds(w.heartbeat("w1")) == []
    assert w.core.next_deadline_ms() > w.now_ms


def test_cancelled_jobs_in_the_middle_of_a_line_are_passed_over():
    w = World()
    for n in range(300):
        w.submit(run(f"r{n}", job("a")))
    for n in range(1, 299):
        w.ask(CancelRun(run=f"r{n}"))
    line = next(
        line for line in w.state.queue.classes[ClassKey(("GENERAL",), 1)].lines if line is not None
    )
    assert len(line.jobs) < 150, "dead entries are swept once they outnumber the living"
    turn = w.join("w1", slots=4)
    assert [event.run_id for event in turn.events[1:]] == ["r0", "r299"]


@settings(max_examples=60, deadline=None)
@given(
    workers=st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["A", "B", "AB"])), min_size=1, max_size=4
    ),
    jobs=st.lists(
        st.tuples(st.sampled_from(["", "A", "B", "AB"]), st.integers(0, 10)), max_size=30
    ),
)
def test_placement_is_greedy_legal_and_leaves_no_useful_slot_free(workers, jobs):
    """No worker is over-filled or given what it cannot do, and no placeable job is left waiting."""
    w = World()
    for number, (slots, skills) in enumerate(workers):
        w.join(f"w{number}", slots=slots, skills=tuple(skills))
    specs = [job(f"j{n}", skills=tuple(s), priority=p) for n, (s, p) in enumerate(jobs)]
    w.submit(run("r", *specs, job("keeps-the-run", skills=("NONE",))))
    for worker in w.state.workers.values():
        assert len(worker.held) <= worker.slots
    live = w.state.runs["r"].jobs.values()
    for one in live:
        needs = set(one.spec.needs.skills)
        if one.state is JobState.PLACED:
            assert needs <= set(w.state.workers[one.attempt.worker_id].skills)
        for worker in w.state.workers.values():
            if one.state is JobState.QUEUED and needs <= set(worker.skills):
                assert len(worker.held) == worker.slots
    queued = [one for one in live if one.state is JobState.QUEUED]
    for one in live:
        for other in queued:
            same = set(one.spec.needs.skills) == set(other.spec.needs.skills)
            if one.state is JobState.PLACED and same:
                first = (-one.spec.priority, one.index)
                assert first < (-other.spec.priority, other.index)


@pytest.mark.parametrize("count", [1, 2_000])
def test_many_workers_of_one_kind_are_served_evenly(count):
    w = World()
    for n in range(count // 100 or 1):
        w.join(f"w{n:04}", slots=2)
    w.submit(run("r", *(job(f"j{n}") for n in range(count // 100 or 1))))
    assert {len(worker.held) for worker in w.state.workers.values()} == {1}


def test_classes_that_no_worker_fits_are_not_looked_at(monkeypatch):
    """A turn's work does not grow with jobs that wait for skills nobody has."""
    looked_at = []
    look = placement._most_urgent

    def count(ready, *rest):
        looked_at.append(ready.key.skills)
        return look(ready, *rest)

    monkeypatch.setattr(placement, "_most_urgent", count)
    w = World({"w1": 1})
    w.submit(run("s", *(job(f"j{number}", skills=[f"S{number}"]) for number in range(500))))
    w.submit(run("r", job("a"), job("b")))
    assert order(w.ended("r/a")) == ["b"]
    assert set(looked_at) == {("GENERAL",)}


def test_a_worker_with_other_skills_finds_what_waited_for_them():
    """Also when the class came after a worker of such skills had been here, and left."""
    w = World({"w1": 1})
    w.submit(run("r", job("a", skills=["GPU"])))
    assert placements(w.join("w2", skills=["GENERAL", "GPU"], slots=1)) == [("a", "w2")]
    w.leave("w2")
    w.submit(run("s", job("b", skills=["GPU", "GENERAL"]), job("c", skills=["TPU"])))
    assert order(w.join("w3", skills=["GPU", "GENERAL"], slots=4)) == ["a", "b"]


# -- counted resources ----------------------------------------------------------------------------
def test_what_is_counted_is_never_given_away_twice():
    """Four slots and two GPUs: the third job that takes one waits, and others do not wait with it."""
    w = World()
    w.join("w1", resources={"gpu": 2})
    w.submit(run("r", *(job(f"g{n}", takes={"gpu": 1}, priority=10) for n in range(3)), job("a")))
    assert sorted(order(w.last)) == ["a", "g0", "g1"]
    assert w.state.workers["w1"].taken == {"gpu": 2}
    assert order(w.ended("r/a")) == []
    assert order(w.ended("r/g0")) == ["g2"]
    w.ended("r/g1")
    w.ended("r/g2")
    assert w.state.workers["w1"].taken == {}


def test_a_job_goes_where_enough_is_left_though_another_is_less_loaded():
    w = World()
    w.join("w1", resources={"licence": 1}, slots=4)
    w.join("w2", resources={"licence": 2}, slots=4)
    w.submit(run("r", job("a", takes={"licence": 1})))
    w.submit(run("s", job("b", takes={"licence": 2})))
    assert placements(w.last) == [("b", "w2")]


def test_of_a_resource_that_a_worker_does_not_name_it_has_none():
    w = World({"w1": 4})
    w.submit(run("r", job("a", takes={"gpu": 1})))
    assert placements(w.last) == []
    assert placements(w.join("w2", resources={"gpu": 1})) == [("a", "w2")]


def test_processor_and_memory_of_a_worker_that_says_nothing_of_them_are_not_counted():
    """Workers of before say nothing: what ran on them still does."""
    w = World({"w1": 2})
    w.submit(run("r", job("a", takes={"cpu": 4_000, "memory": 2**40}), job("b", takes={"cpu": 1})))
    assert order(w.last) == ["a", "b"]


def test_the_order_in_which_resources_are_named_makes_no_class_of_its_own():
    w = World()
    w.submit(run("r", job("a", takes={"gpu": 1, "cpu": 5}), job("b", takes={"cpu": 5, "gpu": 1})))
    assert len(w.state.queue.classes) == 1


def test_what_is_taken_is_known_again_after_a_restart():
    w = World()
    w.join("w1", resources={"gpu": 1})
    w.submit(run("r", job("a", takes={"gpu": 1}), job("b", takes={"gpu": 1})))
    w.restart()
    assert w.state.workers["w1"].taken == {"gpu": 1}
    w.join("w1", held=[("r/a", "RUNNING")])
    assert order(w.ended("r/a")) == ["b"]


def test_a_worker_that_comes_back_with_less_gets_nothing_until_that_is_free():
    w = World()
    w.join("w1", resources={"gpu": 2})
    w.submit(run("r", *(job(f"g{n}", takes={"gpu": 1}) for n in range(3))))
    w.join(
        "w1", resources={"gpu": 1}, incarnation=2, held=[("r/g0", "RUNNING"), ("r/g1", "RUNNING")]
    )
    assert order(w.ended("r/g0")) == []
    assert order(w.ended("r/g1")) == ["g2"]


def test_too_many_resources_are_refused_with_the_limit():
    w = World()
    w.join("w1", resources={f"r{n}": 1 for n in range(65)})
    assert w.state.workers == {}
    (refused,) = [text for text in effects(w.last) if "RESOURCES_PER_WORKER" in text]
    assert "at most 64" in refused


@given(
    workers=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=5),
    asked=st.lists(st.integers(0, 3), min_size=1, max_size=14),
)
@settings(max_examples=60, deadline=None)
def test_no_job_waits_for_what_some_worker_has_left(workers, asked):
    w = World()
    for number, (slots, gpus) in enumerate(workers):
        w.join(f"w{number}", slots=slots, resources={"gpu": gpus})
    jobs = [job(f"j{n}", takes={"gpu": gpus} if gpus else None) for n, gpus in enumerate(asked)]
    w.submit(run("r", *jobs))
    for worker in w.state.workers.values():
        assert worker.taken.get("gpu", 0) <= worker.resources["gpu"]
        for one in w.state.runs["r"].jobs.values():
            if one.state is JobState.QUEUED and worker.used < worker.slots:
                wanted = asked[one.index]
                assert wanted > worker.resources["gpu"] - worker.taken.get("gpu", 0)


def test_whether_a_worker_could_ever_have_a_job_is_a_question_of_what_it_is():
    """Full, silent or not: who asks wants to know whether one like it would be of use."""
    w = World()
    w.join("w1", slots=2, skills=["GENERAL", "GPU"], resources={"gpu": 1})
    w.submit(
        run(
            "r",
            job("fits", skills=["GPU"], slots=2, takes={"gpu": 1}),
            job("skill", skills=["TPU"]),
            job("slots", slots=3),
            job("gpus", takes={"gpu": 2}),
            job("waits", skills=["GPU"]),
        )
    )
    worker, jobs = w.state.workers["w1"], w.state.runs["r"].jobs
    could = [name for name, one in jobs.items() if placement.could_have(w.state, worker, one)]
    assert could == ["fits", "waits"]
    assert worker.used == worker.slots


# -- what waits for something of its own ------------------------------------------------------------
def test_a_job_that_waits_for_its_files_holds_up_nobody_of_its_class():
    """Jobs before it left files on a worker that is full; others of equal needs go elsewhere, in order."""
    w = World()
    w.join("w1", slots=1, workspace="A")
    w.submit(run("r", job("a"), job("b", "a", delay_ms=1_000, priority=10)))
    w.ended("r/a", left=Left(digest="", size_bytes=0, kept=True))
    assert w.state.runs["r"].homes == ("A",)
    w.submit(run("s", job("fills")))
    w.join("w2", slots=2, workspace="B")
    w.advance(1_000)
    w.submit(run("t", job("x"), job("y"), job("z")))
    assert placements(w.last) == [("x", "w2"), ("y", "w2")]
    assert placements(w.ended("t/x")) == [("z", "w2")]
    assert placements(w.ended("s/fills")) == [("b", "w1")]


def test_so_many_are_passed_over_in_a_turn_and_no_more(monkeypatch):
    monkeypatch.setattr(placement, "PASSED_OVER", 2)
    w = World()
    w.join("w1", slots=1, workspace="A")
    waiting = [job(f"b{n}", "a", priority=10) for n in range(3)]
    w.submit(run("r", job("a"), *waiting))
    w.submit(run("s", job("fills", priority=10)))
    w.ended("r/a", left=Left(digest="", size_bytes=0, kept=True))
    w.join("w2", slots=4, workspace="B")
    w.submit(run("t", job("x")))
    assert placements(w.last) == [], "the third of them is looked at, and the turn goes on"
