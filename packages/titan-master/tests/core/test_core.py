"""The core's face: turns, deadlines, start, the read-only question."""

from __future__ import annotations

from core_world import START_MS, World, effects, events, job, kinds, run

from titan_master.core.core import Core, CoreConfig
from titan_master.core.inputs import WorkerHeard
from titan_master.core.state import State
from titan_proto.messages import WorkerStatus
from titan_proto.states import ExitReason


def test_the_first_start_of_all_founds_the_cluster_and_later_ones_keep_it():
    w = World()
    assert events(w.started) == [
        "ClusterFounded(cluster_id=c, name=test)",
        "MasterStarted(software=test)",
    ]
    assert kinds(w.restart()) == ["MasterStarted"]
    assert (w.state.cluster_id, w.state.term) == ("c", 2)


def test_logs_of_live_attempts_are_opened_again_after_a_restart():
    w = World({"w1": 2})
    w.submit(run("r", job("a"), job("api", service=True), job("b", "a")))
    w.running("r/api", healthy=True)
    assert effects(w.restart()) == [
        "OpenLog(ref=r/a.1, worker_id=w1)",
        "OpenLog(ref=r/api.1, worker_id=w1)",
    ]


def test_a_turn_is_handed_out_once():
    w = World({"w1": 2})
    w.core.handle(w.submission(run("r", job("a"))), w.now_ms)
    first = w._take()
    assert kinds(first) == ["RunAccepted"]
    again = w.core.drain()
    assert (again.events, again.effects) == ((), ())


def test_without_anything_to_wait_for_there_is_no_deadline():
    core = Core(State(), CoreConfig())
    core.start(START_MS, term=1, software="t", cluster_id="c", cluster_name="n")
    core.settle(START_MS)
    assert core.next_deadline_ms() is None


def test_the_next_deadline_is_the_earliest():
    w = World({"w1": 1})
    assert w.core.next_deadline_ms() == START_MS + 10_000
    w.submit(run("r", job("a", delay_ms=3_000)))
    assert w.core.next_deadline_ms() == START_MS + 3_000


def test_time_never_goes_back_inside_the_core():
    w = World({"w1": 1})
    link_id = w.links["w1"]
    w.core.handle(WorkerHeard(link_id=link_id, status=WorkerStatus(running=0)), START_MS + 500)
    w.core.handle(w.submission(run("r", job("a"))), START_MS)
    assert w._take().events[0].at_ms == START_MS + 500


def test_a_turn_looks_at_a_limited_number_of_deadlines_and_then_goes_on():
    w = World(config=CoreConfig(deadlines_max=2))
    w.submit(run("r", *(job(f"j{n}", delay_ms=10 + n) for n in range(5))))
    w.now_ms += 1_000
    counts = []
    for _ in range(3):
        assert w.core.next_deadline_ms() <= w.now_ms
        counts.append(len(w.turn().events))
    assert counts == [2, 2, 1]


def test_a_worker_may_ship_the_log_of_what_it_holds_or_has_just_ended():
    w = World({"w1": 1, "w2": 1})
    w.submit(run("r", job("a"), job("b", "a")))
    one, two = w.links["w1"], w.links["w2"]
    ref = w.ref("r/a")
    assert w.core.may_log(one, ref)
    assert not w.core.may_log(two, ref), "another worker"
    assert not w.core.may_log(77, ref), "no worker at all"
    assert not w.core.may_log(one, w.ref("r/a.2")), "an attempt that has not been"
    assert not w.core.may_log(one, w.ref("x/y.1")), "a run that nobody knows"
    w.ended("r/a")
    assert w.core.may_log(one, ref)


def test_what_was_given_away_may_not_be_logged_any_more():
    w = World({"w1": 1})
    w.submit(run("r", job("a")))
    old = w.ref("r/a")
    w.ended("r/a", reason=ExitReason.LOST)
    assert not w.core.may_log(w.links["w1"], old)


def test_equal_inputs_make_equal_turns():
    def story():
        w = World({"w1": 2, "w2": 1})
        turns = [
            w.submit(run("r", *(job(f"j{n}", priority=n % 3) for n in range(6)))),
            w.ended("r/j2"),
            w.advance(12_000),
            w.join("w2", held=[]),
            w.restart(),
        ]
        return [(events(turn), effects(turn)) for turn in turns], w.journal

    assert story() == story()
