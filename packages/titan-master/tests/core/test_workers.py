"""Workers: arriving, reconciling, silence, loss, leaving. Names follow the failure matrix."""

from __future__ import annotations

import pytest
from core_world import START_MS, World, effects, events, job, kinds, run

from titan_master.core.core import CoreConfig
from titan_master.core.inputs import Heard, LinkClosed, ReportsArrived, WorkerArrived, WorkerHeard
from titan_proto.errors import ErrorCode
from titan_proto.messages import CancelRun, GetJob, GetStats, WorkerStatus
from titan_proto.specs import RetryPolicy
from titan_proto.states import ExitReason, JobState, WorkerState


def placed(workers=None, *, start=True):
    """A world where r/a is on w1, running or not confirmed yet."""
    w = World(workers or {"w1": 2})
    w.submit(run("r", job("a")))
    if start:
        w.running("r/a")
    return w


# -- arriving -------------------------------------------------------------------------------------
def test_a_new_worker_is_let_in_and_told_its_lease():
    w = World()
    turn = w.join("w1", slots=4, skills=("GENERAL", "GPU"))
    assert events(turn) == [
        (
            "WorkerJoined(worker_id=w1, host=host, port=8080, incarnation=1, boot_id=boot, slots=4,"
            " skills=[GENERAL, GPU], software=test, network=net-w1)"
        )
    ]
    assert effects(turn) == [
        (
            "Tell(link_id=101, message=Joined(heartbeat_ms=5000, lost_after_ms=30000,"
            " moves_services=True))"
        )
    ]


def test_queued_jobs_are_placed_in_the_turn_in_which_a_worker_arrives():
    w = World()
    w.submit(run("r", job("a")))
    turn = w.join("w1")
    assert kinds(turn) == ["WorkerJoined", "AttemptPlaced"]
    assert [effect.split("(")[0] for effect in effects(turn)] == ["Tell", "OpenLog", "Tell"]


def test_the_same_process_on_a_new_link_is_no_news_and_replaces_the_old_link():
    w = placed()
    turn = w.join("w1", held=[("r/a", "RUNNING")])
    assert events(turn) == []
    assert effects(turn) == [
        "HangUp(link_id=101, code=SUPERSEDED, reason='this worker has joined on a newer link')",
        (
            "Tell(link_id=102, message=Joined(heartbeat_ms=5000, lost_after_ms=30000,"
            " moves_services=True))"
        ),
    ]
    # The old link's end comes late, and must not cut off the new one.
    w.turn(LinkClosed(link_id=101))
    assert kinds(w.submit(run("s", job("a")))) == ["RunAccepted", "AttemptPlaced"]


def test_an_older_process_of_a_worker_is_hung_up_on():
    w = World({"w1": 1})
    w.join("w1", incarnation=3)
    turn = w.join("w1", incarnation=2)
    assert events(turn) == []
    assert turn.effects[0].code is ErrorCode.SUPERSEDED
    assert w.state.workers["w1"].incarnation == 3


def test_a_second_worker_under_a_live_name_is_refused_with_a_free_port():
    w = World({"w1": 1, "w2": 1})
    turn = w.join("w3", port=8080)
    assert events(turn) == []
    assert effects(turn) == [
        (
            "HangUp(link_id=103, code=DUPLICATE_WORKER, reason='worker host:8080 is here already;"
            " start this one under another port, such as 8082')"
        )
    ]


def test_a_second_worker_under_a_name_whose_holder_has_no_link_is_told_to_come_again():
    """The holder may be back in a moment, or be a worker of another time, in a folder restored."""
    w = World({"w1": 1})
    w.restart()
    (effect,) = w.join("w2", port=8080).effects
    assert effect.code is ErrorCode.UNAVAILABLE
    assert "8081" in effect.reason
    w.join("w1")
    (effect,) = w.join("w2", port=8080).effects
    assert effect.code is ErrorCode.DUPLICATE_WORKER


def test_a_lost_workers_name_may_be_taken_over():
    w = World({"w1": 1})
    w.advance(30_000)
    turn = w.join("w2", port=8080)
    assert kinds(turn) == ["WorkerRetired", "WorkerJoined"]
    assert list(w.state.workers) == ["w2"]


@pytest.mark.parametrize("slots", [0, -1, 5_000])
def test_a_worker_with_an_impossible_number_of_slots_is_hung_up_on(slots):
    w = World()
    turn = w.join("w1", slots=slots)
    assert events(turn) == []
    assert turn.effects[0].code is ErrorCode.PROTOCOL


def test_a_new_process_may_offer_other_slots_and_skills():
    w = World({"w1": 1})
    w.submit(run("r", job("a", skills=["GPU"])))
    turn = w.join("w1", incarnation=2, slots=2, skills=["GPU"])
    assert kinds(turn) == ["WorkerJoined", "AttemptPlaced"]


# -- reconciling ----------------------------------------------------------------------------------
@pytest.mark.parametrize("incarnation", [1, 2])
def test_an_order_that_never_arrived_is_sent_again_under_the_same_number(incarnation):
    w = placed(start=False)
    turn = w.join("w1", incarnation=incarnation)
    assert kinds(turn) == ([] if incarnation == 1 else ["WorkerJoined"])
    assert effects(turn)[-1] == (
        "Tell(link_id=102, message=StartAttempts("
        "orders=[AttemptOrder(ref=r/a.1, fence=1, spec=a, run_name=r)]))"
    )
    # And the report of that attempt counts, though it was placed on the earlier process.
    assert kinds(w.ended("r/a")) == ["AttemptEnded", "JobEnded", "RunEnded"]


def test_an_order_that_may_have_been_forgotten_by_a_crashed_machine_is_lost():
    w = placed(start=False)
    w.cut("w1")
    turn = w.join("w1", incarnation=2, boot="other boot")
    assert kinds(turn) == ["WorkerJoined", "AttemptEnded", "JobsQueued", "AttemptPlaced"]
    assert turn.events[1].reason is ExitReason.LOST
    assert turn.events[-1].number == 2


def test_what_a_crashed_machine_still_holds_is_stopped_or_forgotten():
    w = World({"w1": 2})
    w.submit(run("r", job("a"), job("b")))
    held = [("r/a.1", "RUNNING"), ("r/b.1", "ENDED")]
    w.cut("w1")
    turn = w.join("w1", incarnation=2, boot="other boot", held=held)
    assert [event.number for event in turn.events if hasattr(event, "fence")] == [2, 2]
    assert (
        "Tell(link_id=102, message=Joined(heartbeat_ms=5000, lost_after_ms=30000,"
        " stop=[r/a.1], forget=[r/b.1], moves_services=True))"
    ) in effects(turn)


@pytest.mark.parametrize("incarnation", [1, 2])
def test_a_running_attempt_that_its_worker_does_not_hold_is_lost(incarnation):
    w = placed()
    turn = w.join("w1", incarnation=incarnation)
    assert kinds(turn)[-3:] == ["AttemptEnded", "JobsQueued", "AttemptPlaced"]
    assert w.state.runs["r"].jobs["a"].lost == 1


@pytest.mark.parametrize("state", ["PREPARING", "RUNNING", "ENDED"])
def test_what_both_sides_know_goes_on(state):
    w = placed(start=False)
    turn = w.join("w1", held=[("r/a", state)])
    assert events(turn) == []
    assert effects(turn)[1:] == [
        (
            "Tell(link_id=102, message=Joined(heartbeat_ms=5000, lost_after_ms=30000,"
            " moves_services=True))"
        )
    ]


def test_what_only_the_worker_knows_is_stopped_or_forgotten():
    w = World({"w1": 2})
    turn = w.join("w1", held=[("x/y.1", "RUNNING"), ("x/z.4", "ENDED"), ("x/p.1", "PREPARING")])
    assert effects(turn)[-1] == (
        "Tell(link_id=102, message=Joined(heartbeat_ms=5000, lost_after_ms=30000,"
        " stop=[x/y.1, x/p.1], forget=[x/z.4], moves_services=True))"
    )


def test_a_stop_order_is_repeated_when_the_worker_comes_back():
    w = placed()
    w.cut("w1")
    w.ask(CancelRun(run="r"))
    turn = w.join("w1", held=[("r/a", "RUNNING")])
    assert events(turn) == []
    assert effects(turn)[1:] == [
        "Tell(link_id=102, message=StopAttempts(refs=[r/a.1], reason=CANCELLED))"
    ]


def test_an_attempt_cancelled_before_its_worker_heard_of_it_is_cancelled_and_never_sent():
    w = placed(start=False)
    w.cut("w1")
    w.ask(CancelRun(run="r"))
    turn = w.join("w1")
    assert events(turn)[1:] == [
        (
            "JobEnded(run_id=r, job_id=a, state=CANCELLED, reason=CANCELLED, number=1,"
            " message='stopped before its worker had heard of it')"
        ),
        "RunEnded(run_id=r, state=CANCELLED)",
    ]
    assert not any("StartAttempts" in effect for effect in effects(turn))


# -- silence --------------------------------------------------------------------------------------
def test_a_worker_that_falls_silent_gets_nothing_new_and_keeps_what_it_has():
    w = placed()
    assert events(w.advance(9_999)) == []
    assert events(w.advance(1)) == ["WorkerSilent(worker_id=w1)"]
    assert kinds(w.submit(run("s", job("a")))) == ["RunAccepted"]
    assert w.job_state("r/a") is JobState.RUNNING


def test_a_silent_worker_that_is_heard_again_goes_on_and_gets_work():
    w = placed()
    w.advance(10_000)
    w.submit(run("s", job("a")))
    turn = w.heartbeat("w1")
    assert kinds(turn) == ["WorkerReturned", "AttemptPlaced"]


def test_heartbeats_keep_a_worker_online_and_are_no_events():
    w = World({"w1": 1})
    for _ in range(20):
        w.advance(5_000)
        turn = w.heartbeat("w1")
        assert (events(turn), effects(turn)) == ([], [])


def test_reports_are_signs_of_life_too():
    w = placed(start=False)
    w.advance(9_000)
    w.running("r/a")
    assert events(w.advance(9_999)) == []


def test_a_lost_worker_frees_its_jobs_once():
    w = placed({"w1": 1, "w2": 1})
    w.advance(9_000)
    w.heartbeat("w2")
    w.advance(9_000)
    w.heartbeat("w2")
    w.advance(9_000)
    w.heartbeat("w2")
    turn = w.advance(3_000)
    assert kinds(turn) == ["WorkerLost", "AttemptEnded", "JobsQueued", "AttemptPlaced"]
    assert turn.events[1].message == "worker host:8080 was silent for 30 s"
    assert turn.events[-1].worker_id == "w2"
    assert effects(turn)[0] == (
        "HangUp(link_id=101, code=UNAVAILABLE, reason='nothing was heard for 30 s: join again')"
    )


def test_nothing_from_the_link_of_a_lost_worker_is_heard_any_more():
    w = placed()
    w.advance(30_000)
    link_id = w.links["w1"]
    turn = w.turn(
        WorkerHeard(link_id=link_id, status=WorkerStatus(running=1)),
        ReportsArrived(link_id=link_id, reports=(w.ended_report("r/a"),)),
    )
    assert (events(turn), effects(turn)) == ([], [])


def test_a_lost_worker_that_returns_is_told_to_stop_what_was_given_away():
    w = placed()
    w.advance(30_000)
    turn = w.join("w1", held=[("r/a.1", "RUNNING")])
    assert kinds(turn) == ["WorkerReturned", "AttemptPlaced"]
    assert effects(turn)[0] == (
        "Tell(link_id=102, message=Joined(heartbeat_ms=5000, lost_after_ms=30000,"
        " stop=[r/a.1], moves_services=True))"
    )
    turn = w.report("w1", w.ended_report("r/a.1"))
    assert events(turn) == []
    assert w.job_state("r/a") is JobState.PLACED


def test_a_master_that_stood_still_gives_everyone_a_fresh_lease():
    """It could hear nobody: an hour of its own sleep is no silence of its workers."""
    w = placed()
    w.now_ms += 3_600_000
    assert kinds(w.turn()) == []
    assert kinds(w.advance(9_999)) == []
    assert kinds(w.advance(20_001)) == ["WorkerSilent", "WorkerLost", "AttemptEnded", "JobsQueued"]


def test_a_jump_of_time_is_no_silence_of_anybody():
    """Somebody set the clock: of the lease that its worker counts nothing has passed."""
    w = placed()
    w.advance(9_000)
    for ms in (15_000, 1_001, 8 * 3_600_000):
        w.now_ms += ms
        w.core.time_jumped(w.now_ms)
        assert kinds(w.advance(9_999)) == []
    assert kinds(w.advance(20_001)) == ["WorkerSilent", "WorkerLost", "AttemptEnded", "JobsQueued"]


@pytest.mark.parametrize("kind", ["task", "service"])
def test_what_may_run_on_unheard_is_held_back_though_time_jumps(kind):
    w = World({"w1": 1, "w2": 1})
    w.submit(run("r", job("a", exclusive=True, service=kind == "service")))
    w.running("r/a")
    w.advance(20_000)
    w.heartbeat("w2")
    assert "AttemptEnded" in kinds(w.advance(10_000))
    w.now_ms += 3_600_000
    w.core.time_jumped(w.now_ms)
    w.heartbeat("w2")
    placed_at_ms = 0
    for _ in range(50):
        if "AttemptPlaced" in kinds(w.advance(1_000)):
            placed_at_ms = w.now_ms
            break
        w.heartbeat("w2")
    assert placed_at_ms - 3_600_000 - w.config.old_lease_ms == START_MS + 30_000


def test_a_master_that_was_only_a_little_late_goes_by_what_it_heard():
    w = placed()
    w.advance(9_999)
    w.now_ms += 10_000
    assert kinds(w.turn()) == ["WorkerSilent"]


def test_a_heartbeat_counts_from_the_moment_it_is_received_not_from_the_next_turn():
    """A commit may take long; meanwhile nobody is silent whose heartbeats arrive."""
    w = placed()
    w.advance(9_000)
    status = WorkerStatus(running=1)
    assert w.core.hear(w.links["w1"], status, w.now_ms) is Heard.KNOWN
    assert kinds(w.advance(9_999)) == []
    assert kinds(w.advance(1)) == ["WorkerSilent"]


def test_a_silent_worker_that_is_heard_returns_by_an_input():
    w = placed()
    w.advance(10_000)
    assert w.core.hear(w.links["w1"], WorkerStatus(running=1), w.now_ms) is Heard.CHANGING
    assert kinds(w.heartbeat("w1")) == ["WorkerReturned"]


def test_a_worker_given_up_is_not_acknowledged_though_nobody_has_heard_of_it_yet():
    """Its lease must not go on: what was its own is being given away."""
    w = placed()
    link = w.links["w1"]
    w.advance(30_000)
    assert w.core.hear(link, WorkerStatus(running=1), w.now_ms) is Heard.STRANGER


def test_a_shorter_lease_begins_when_the_workers_have_been_told():
    w = placed()
    w.config = CoreConfig(lost_after_ms=3_000)
    w.restart()
    assert kinds(w.advance(27_000)) == []
    assert "WorkerLost" in kinds(w.advance(3_000))


def test_an_attempt_out_of_time_before_its_worker_heard_of_it_timed_out_and_was_not_cancelled():
    """Found by the simulator, seed 144."""
    w = World({"w1": 1})
    w.submit(run("r", job("a", job_timeout_ms=5_000)))
    w.cut("w1")
    w.advance(5_000)
    turn = w.join("w1")
    assert "reason=TIMED_OUT" in events(turn)[0]
    assert "state=FAILED, reason=TIMED_OUT" in events(turn)[1]


def test_an_exclusive_job_of_a_lost_worker_waits_until_its_old_attempt_is_surely_over():
    w = World({"w1": 1, "w2": 1})
    w.submit(run("r", job("a", exclusive=True)))
    w.running("r/a")
    w.advance(5_000)
    w.heartbeat("w2")
    w.advance(15_000)
    w.heartbeat("w2")
    assert kinds(w.advance(10_000)) == ["WorkerLost", "AttemptEnded", "JobBackoff"]
    w.heartbeat("w2")
    assert kinds(w.advance(2_999)) == []
    assert kinds(w.advance(1)) == ["JobsQueued", "AttemptPlaced"]


@pytest.mark.parametrize("boot", ["boot", "another"])
def test_an_exclusive_job_waits_out_the_lease_of_a_process_that_may_live_still(boot):
    """Found by the simulator, seed 101: a copy of the data folder was started elsewhere."""
    w = World({"w1": 1, "w2": 1})
    w.submit(run("r", job("a", exclusive=True)))
    w.running("r/a")
    w.cut("w1")
    turn = w.join("w1", incarnation=2, boot=boot, held=[("r/a", "ENDED")])
    if boot == "boot":
        turn = w.ended("r/a", reason=ExitReason.LOST)
    assert "JobBackoff(run_id=r, job_id=a, until_ms=1033000, failures=0)" in events(turn)


def test_an_exclusive_job_goes_on_at_once_where_its_own_process_says_that_it_is_over():
    w = World({"w1": 1, "w2": 1})
    w.submit(run("r", job("a", exclusive=True)))
    w.running("r/a")
    assert "AttemptPlaced" in kinds(w.ended("r/a", reason=ExitReason.LOST))


def test_a_report_on_what_was_never_placed_there_closes_the_link():
    w = World({"w1": 1, "w2": 1})
    w.submit(run("r", job("a")))
    assert w.worker_of("r/a") == "w1"
    for name in ("r/a", "r/a.2", "r/b.1"):
        link = w.links["w2"]
        turn = w.report("w2", w.ended_report(name))
        assert events(turn) == []
        assert effects(turn) == [
            (
                f"HangUp(link_id={link}, code=PERMISSION_DENIED, reason='worker w2 reports on"
                f" {w.ref(name)}, which was never placed on it')"
            )
        ]
        w.join("w2")
    assert w.job_states("r") == {"a": "PLACED"}


def test_a_lost_worker_is_forgotten_after_a_day():
    w = World({"w1": 1}, CoreConfig(forget_after_ms=100_000))
    w.advance(30_000)
    assert w.state.workers["w1"].state is WorkerState.LOST
    assert events(w.advance(99_999)) == []
    assert events(w.advance(1)) == ["WorkerRetired(worker_id=w1)"]
    assert w.core.next_deadline_ms() is None


# -- links and leaving ----------------------------------------------------------------------------
def test_a_cut_link_is_no_change_of_state_but_nothing_is_placed_without_one():
    w = World({"w1": 1})
    turn = w.cut("w1")
    assert (events(turn), effects(turn)) == ([], [])
    assert kinds(w.submit(run("r", job("a")))) == ["RunAccepted"]
    assert w.answer(GetJob(job="a", run="r")).message == (
        "waits for a worker with GENERAL: 1 known, none connected"
    )
    assert kinds(w.join("w1")) == ["AttemptPlaced"]


def test_a_worker_that_leaves_is_forgotten_and_what_it_did_not_report_is_lost():
    w = placed({"w1": 1, "w2": 1})
    turn = w.leave("w1")
    assert kinds(turn) == ["AttemptEnded", "JobsQueued", "WorkerRetired", "AttemptPlaced"]
    assert list(w.state.workers) == ["w2"]


def test_what_a_worker_that_left_did_not_report_is_not_the_jobs_fault():
    w = placed({"w1": 1, "w2": 1})
    turn = w.leave("w1")
    assert turn.events[0].reason is ExitReason.WORKER_LEFT
    assert w.state.runs["r"].jobs["a"].lost == 0


def test_nothing_is_placed_on_a_worker_that_is_leaving():
    """It says so first: what it stops then is queued again, and goes to somebody who stays."""
    w = placed({"w1": 2})
    assert events(w.heartbeat("w1", leaving=True)) == ["WorkerDraining(worker_id=w1)"]
    assert events(w.heartbeat("w1", leaving=True)) == []
    assert kinds(w.ended("r/a", reason=ExitReason.WORKER_LEFT)) == ["AttemptEnded", "JobsQueued"]
    assert w.state.workers["w1"].state is WorkerState.DRAINING
    assert w.answer(GetJob(job="a", run="r")).message == (
        "waits for a worker with GENERAL: 1 known, none connected"
    )
    assert kinds(w.leave("w1")) == ["WorkerRetired"]
    assert kinds(w.join("w2")) == ["WorkerJoined", "AttemptPlaced"]


def test_a_worker_that_is_leaving_already_when_it_joins_gets_nothing():
    w = World()
    w.submit(run("r", job("a")))
    assert kinds(w.join("w1", leaving=True)) == ["WorkerJoined", "WorkerDraining"]
    assert kinds(w.cut("w1")) == []
    assert kinds(w.join("w1", leaving=True)) == []
    assert kinds(w.join("w1", incarnation=2)) == ["WorkerJoined", "AttemptPlaced"]


def test_a_silent_worker_may_be_heard_again_to_say_that_it_goes():
    w = World({"w1": 1})
    w.advance(10_000)
    assert kinds(w.heartbeat("w1", leaving=True)) == ["WorkerReturned", "WorkerDraining"]


def test_however_often_workers_are_shut_down_a_job_is_not_quarantined():
    """A rolling restart of all machines is not what a job did."""
    w = World()
    w.submit(run("r", job("a")))
    for start in range(1, 3 * w.config.crash_limit):
        w.join("w1", incarnation=start)
        w.heartbeat("w1", leaving=True)
        w.ended("r/a", reason=ExitReason.WORKER_LEFT)
        w.leave("w1")
    assert w.job_state("r/a") is JobState.QUEUED
    assert w.state.runs["r"].jobs["a"].lost == 0


@pytest.mark.parametrize("started_at_ms", [0, 5])
def test_what_is_to_be_done_at_most_once_outlives_a_shutdown_only_if_it_never_began(started_at_ms):
    w = World({"w1": 1})
    w.submit(run("r", job("a", retries=RetryPolicy(after_loss=False)), job("b")))
    w.heartbeat("w1", leaving=True)
    w.ended("r/a", reason=ExitReason.WORKER_LEFT, started_at_ms=started_at_ms)
    assert w.job_state("r/a") is (JobState.FAILED if started_at_ms else JobState.QUEUED)
    assert w.state.runs["r"].jobs["a"].reason is (
        ExitReason.WORKER_LEFT if started_at_ms else ExitReason.UNKNOWN
    )


def test_a_leaving_worker_that_falls_silent_is_lost_and_its_jobs_are_not_blamed():
    w = placed({"w1": 1})
    w.heartbeat("w1", leaving=True)
    assert events(w.advance(29_999)) == []
    turn = w.advance(1)
    assert kinds(turn) == ["WorkerLost", "AttemptEnded", "JobsQueued"]
    assert turn.events[1].reason is ExitReason.WORKER_LEFT


def test_a_leaving_worker_is_still_leaving_for_the_next_master():
    w = placed({"w1": 1})
    w.heartbeat("w1", leaving=True)
    w.restart()
    assert kinds(w.join("w1", held=[("r/a", "STOPPING")], leaving=True)) == []
    assert w.state.workers["w1"].state is WorkerState.DRAINING


def test_a_machine_that_is_shut_down_and_comes_up_again_blames_no_job():
    """The worker said that it goes; then the machine went, and with it what the ledger says."""
    w = placed({"w1": 1})
    w.heartbeat("w1", leaving=True)
    turn = w.join("w1", incarnation=2, boot="second")
    assert turn.events[1].reason is ExitReason.WORKER_LEFT


def test_a_worker_that_has_left_may_come_again():
    w = World({"w1": 1})
    w.leave("w1")
    assert kinds(w.join("w1", incarnation=2)) == ["WorkerJoined"]


def test_what_comes_on_a_link_without_a_worker_is_not_heard():
    w = placed()
    turn = w.turn(
        WorkerHeard(link_id=7, status=WorkerStatus(running=0)),
        ReportsArrived(link_id=7, reports=(w.ended_report("r/a"),)),
    )
    assert (events(turn), effects(turn)) == ([], [])


def test_a_broken_link_is_seen_at_once_though_the_state_waits_for_the_lease():
    w = World({"w1": 1})
    w.advance(1_000)
    assert w.answer(GetStats()).workers[0].link_down_ms == 0
    w.cut("w1")
    w.advance(3_000)
    (view,) = w.answer(GetStats()).workers
    assert (view.state, view.link_down_ms) == (WorkerState.ONLINE, 3_000)
    w.restart()
    w.advance(500)
    assert w.answer(GetStats()).workers[0].link_down_ms == 500
    w.join("w1")
    assert w.answer(GetStats()).workers[0].link_down_ms == 0


def test_a_second_worker_on_one_link_takes_the_link():
    w = World({"w1": 1, "w2": 1})
    w.turn(WorkerArrived(link_id=w.links["w2"], join=w.joins["w1"]))
    turn = w.submit(run("r", job("a"), job("b")))
    assert [event.worker_id for event in turn.events[1:]] == ["w1"]


def test_every_worker_gets_a_fresh_lease_when_a_master_starts():
    w = placed()
    w.advance(20_000)
    w.restart()
    assert events(w.advance(9_999)) == []
    turn = w.join("w1", held=[("r/a", "RUNNING")])
    assert kinds(turn) == ["WorkerReturned"]


def test_a_silent_worker_is_lost_after_a_restart_only_when_the_new_lease_ends():
    w = placed()
    w.advance(29_999)
    w.restart()
    assert events(w.advance(29_999)) == []
    assert kinds(w.advance(1))[0] == "WorkerLost"


# -- copies and crowds ----------------------------------------------------------------------------
def test_one_start_of_a_ledger_is_not_on_two_machines():
    """A data folder that was copied: the second process would take over, and lose, what runs."""
    w = placed()
    turn = w.join("w1", boot="another machine's", held=[])
    assert events(turn) == []
    assert "code=DUPLICATE_WORKER" in effects(turn)[0]
    assert w.job_state("r/a") is JobState.RUNNING


def test_a_copied_folder_is_kept_out_while_the_first_one_is_here():
    """Its start counts on by itself: it would seem to be the newer process, and take over."""
    w = placed()
    turn = w.join("w1", incarnation=2, boot="another machine's")
    assert events(turn) == []
    assert "code=DUPLICATE_WORKER" in effects(turn)[0]
    assert w.job_state("r/a") is JobState.RUNNING
    # A machine that was started again is not: once its old link is given up, or is silent.
    w.advance(10_000)
    turn = w.join("w1", incarnation=3, boot="another machine's")
    assert kinds(turn)[:2] == ["WorkerJoined", "AttemptEnded"]


# -- what arrives late or twice -------------------------------------------------------------------
@pytest.mark.parametrize("place", ["this link", "an older link"])
def test_an_inventory_that_arrives_late_or_twice_loses_nothing(place):
    """A worker that has dialled again has taken orders since: the old list lacks them."""
    w = World({"w1": 2})
    late = WorkerArrived(link_id=w.links["w1"], join=w.joins["w1"])
    if place == "an older link":
        w.join("w1")
    w.submit(run("r", job("a")))
    w.running("r/a")
    turn = w.turn(late)
    assert events(turn) == []
    assert "HangUp(link_id=101, code=UNAVAILABLE" in effects(turn)[0]
    assert w.job_state("r/a") is JobState.RUNNING
    assert kinds(w.join("w1", held=[("r/a", "RUNNING")])) == []


def test_reports_that_arrive_twice_change_nothing_and_are_acknowledged_twice():
    w = World({"w1": 2})
    w.submit(run("r", job("a"), job("b", "a")))
    running, ended = w.running_report("r/a"), w.ended_report("r/a")
    link_id = w.links["w1"]
    w.report("w1", running)
    assert kinds(w.report("w1", running)) == []
    assert kinds(w.report("w1", ended))[:2] == ["AttemptEnded", "JobEnded"]
    for report in (ended, running):
        assert kinds(w.turn(ReportsArrived(link_id=link_id, reports=(report,)))) == []
    assert "ReportAcks(refs=[r/a.1])" in effects(w.report("w1", ended))[0]


def test_orders_of_one_turn_go_out_by_their_fences():
    """A worker takes one that comes behind a newer one for a repetition."""
    w = World({"w1": 3})
    w.submit(run("r", job("a"), job("b"), job("c")))
    w.cut("w1")
    held = w.state.workers["w1"].held
    # As after a recovery that does not keep the order of such things.
    for key in sorted(held, reverse=True):
        held[key] = held.pop(key)
    turn = w.join("w1")
    fences = [o.fence for e in turn.effects for o in getattr(e.message, "orders", ())]
    assert fences == sorted(fences)
    assert len(fences) == 3


def test_there_is_an_end_to_how_many_workers_are_known(monkeypatch):
    """Those that are known may come back."""
    monkeypatch.setattr("titan_master.core.workers.WORKERS_KNOWN_MAX", 2)
    w = World({"w1": 1, "w2": 1})
    turn = w.join("w3")
    assert events(turn) == []
    assert "code=LIMIT_EXCEEDED" in effects(turn)[0]
    assert "Joined" in effects(w.join("w1"))[-1]
