"""Given what has happened, when this comes in, then exactly these records and effects."""

from msgspec.msgpack import encode
from msgspec.structs import replace

from titan_proto.limits import FRAME_PAYLOAD_BYTES
from titan_proto.messages import AttemptReports, HeldAttempt, Join, Leave, WorkerStatus
from titan_proto.specs import RestartPolicy, RestartWhen
from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.attempts import RESTARTED, SHUT_DOWN
from titan_worker.core.effects import (
    AbandonPrepare,
    Exit,
    Forget,
    HangUp,
    Prepare,
    Probe,
    Send,
    Spawn,
    Terminate,
)
from titan_worker.core.inputs import (
    LinkDown,
    ProbeAnswered,
    Spawned,
    SpawnFailed,
    Started,
    StopRequested,
    UsageSampled,
    WorkspaceFailed,
)
from titan_worker.core.records import (
    AttemptClosed,
    AttemptForgotten,
    AttemptHeld,
    AttemptSpawned,
    AttemptStopping,
    ClusterBound,
)

NOTHING = ((), ())

NEVER = RestartPolicy(when=RestartWhen.NEVER)


def both(turn):
    return turn.records, turn.effects


def reports(*these):
    return Send(message=AttemptReports(reports=these))


def join(world, *held, incarnation=1, worker_id="w1", leaving=False):
    return Send(
        message=Join(
            worker_id=worker_id,
            host="host",
            port=8080,
            incarnation=incarnation,
            boot_id="boot",
            software="test",
            slots=world.slots,
            skills=("GENERAL",),
            held=tuple(HeldAttempt(ref=world.ref(name), state=state) for name, state in held),
            leaving=leaving,
            takes_shutdown=True,
        )
    )


# -- a job's whole life -----------------------------------------------------------------------------
def test_an_order_is_written_down_before_its_workspace_is_made(world):
    world.begin()
    order = world.order("a")
    assert both(world.turn(world.start(order))) == (
        (AttemptHeld(order=order, at_ms=1_000),),
        (Prepare(order=order),),
    )


def test_a_ready_workspace_gets_a_process_at_once_when_a_slot_is_free(world):
    order = world.order("a")
    world.begin(world.start(order))
    assert both(world.turn(world.ready("a"))) == ((), (Spawn(order=order),))


def test_a_process_is_written_down_and_reported(world):
    world.begin(world.start(world.order("a")), world.ready("a"))
    assert both(world.turn(world.spawned("a", pid=42), after_ms=5)) == (
        (AttemptSpawned(ref=world.ref("a"), pid=42, start_ticks=7, at_ms=1_005),),
        (reports(world.running("a", started_at_ms=1_005)),),
    )


def test_a_start_that_is_told_late_counts_from_when_it_was(world):
    world.begin(world.start(world.order("a")), world.ready("a"))
    late = Spawned(ref=world.ref("a"), pid=42, start_ticks=7, at_ms=1_003)
    assert both(world.turn(late, after_ms=20)) == (
        (AttemptSpawned(ref=world.ref("a"), pid=42, start_ticks=7, at_ms=1_003),),
        (reports(world.running("a", started_at_ms=1_003)),),
    )


def test_an_exit_is_written_down_and_reported(world):
    world.running_jobs(world.order("a"))
    end = world.ended(
        "a",
        ExitReason.EXITED,
        started_at_ms=1_000,
        ended_at_ms=1_250,
        exit_code=3,
        stdout_bytes=3,
        stderr_bytes=4,
    )
    assert both(world.turn(world.exited("a", code=3), after_ms=250)) == (
        (AttemptClosed(report=end),),
        (reports(end),),
    )


def test_a_death_by_signal_is_not_an_exit_code(world):
    world.running_jobs(world.order("a"))
    (record,) = world.turn(world.exited("a", code=99, signal=11)).records
    assert record.report.reason is ExitReason.SIGNALLED
    assert (record.report.exit_code, record.report.signal) == (0, 11)


def test_what_is_acknowledged_is_forgotten_once(world):
    world.running_jobs(world.order("a"))
    world.turn(world.exited("a"))
    assert both(world.turn(world.acks("a"))) == (
        (AttemptForgotten(ref=world.ref("a")),),
        (Forget(ref=world.ref("a")),),
    )
    assert both(world.turn(world.acks("a"))) == NOTHING


def test_a_start_and_an_end_in_one_turn_are_one_report(world):
    """The end says when it started; a second report would only cost."""
    world.begin(world.start(world.order("a"), world.order("b")))
    world.turn(world.ready("a"), world.ready("b"))
    turn = world.turn(world.spawned("a"), world.spawned("b"), world.exited("a"))
    (effect,) = turn.effects
    assert [(r.ref.job_id, r.state) for r in effect.message.reports] == [
        ("b", AttemptState.RUNNING),
        ("a", AttemptState.ENDED),
    ]
    assert effect.message.reports[1].started_at_ms == 1_000
    assert len(turn.records) == 3


def test_many_reports_of_a_turn_leave_in_one_frame_in_their_order(world):
    world.running_jobs(world.order("a"), world.order("b"))
    (effect,) = world.turn(world.exited("b"), world.exited("a")).effects
    assert [r.ref.job_id for r in effect.message.reports] == ["b", "a"]


# -- what arrives twice, late or out of order -------------------------------------------------------
def test_an_order_that_arrives_twice_is_one_attempt(world):
    order = world.order("a")
    world.begin(world.start(order))
    assert both(world.turn(world.start(order))) == NOTHING
    assert both(world.turn(world.start(world.order("b"), world.order("b")))) == (
        (AttemptHeld(order=world.order("b"), at_ms=1_000),),
        (Prepare(order=world.order("b")),),
    )


def test_an_order_for_an_attempt_that_has_ended_is_answered_with_its_report(world):
    world.running_jobs(world.order("a"))
    (record,) = world.turn(world.exited("a")).records
    assert both(world.turn(world.start(world.order("a")))) == ((), (reports(record.report),))


def test_a_second_attempt_of_a_job_is_another_attempt(world):
    world.running_jobs(world.order("a"))
    again = world.order("a", 2, fence=2)
    assert world.turn(world.start(again)).effects == (Prepare(order=again),)


def test_an_exit_may_overtake_the_word_that_the_process_runs(world):
    """The process that was too short to be seen has run: its end counts, the late word does not."""
    world.begin(world.start(world.order("a")), world.ready("a"))
    end = world.ended(
        "a",
        ExitReason.EXITED,
        started_at_ms=1_000,
        ended_at_ms=1_000,
        stdout_bytes=3,
        stderr_bytes=4,
    )
    assert both(world.turn(world.exited("a"))) == ((AttemptClosed(report=end),), (reports(end),))
    assert both(world.turn(world.spawned("a"))) == NOTHING


def test_words_about_attempts_that_are_over_or_unknown_change_nothing(world):
    world.running_jobs(world.order("a"))
    world.turn(world.exited("a"))
    for name in ("a", "never"):
        ref = world.ref(name)
        for item in (
            world.ready(name),
            world.spawned(name),
            world.exited(name),
            world.stop(name),
            WorkspaceFailed(ref=ref, message="late"),
            SpawnFailed(ref=ref, message="late"),
            ProbeAnswered(ref=ref),
        ):
            assert both(world.turn(item)) == NOTHING, item
    assert both(world.turn(world.acks("never"))) == NOTHING


def test_words_that_come_too_early_change_nothing(world):
    """Whatever a shell says about a process that it was not asked for is not believed."""
    world.begin(world.start(world.order("a")))
    assert both(world.turn(world.spawned("a"))) == NOTHING
    assert both(world.turn(world.exited("a"))) == NOTHING
    assert both(world.turn(SpawnFailed(ref=world.ref("a"), message="no"))) == NOTHING


def test_a_workspace_that_is_ready_twice_is_one_process(world):
    order = world.order("a")
    world.begin(world.start(order))
    assert world.turn(world.ready("a"), world.ready("a")).effects == (Spawn(order=order),)
    assert both(world.turn(world.ready("a"))) == NOTHING
    world.turn(world.spawned("a"))
    assert both(world.turn(world.ready("a"))) == NOTHING


def test_an_order_that_arrives_again_after_its_end_was_acknowledged_is_not_run_twice(world):
    """Nothing is remembered of it, but that this link's orders have gone on since."""
    first, second = world.order("a"), world.order("b", fence=2)
    world.running_jobs(first)
    world.turn(world.exited("a"))
    world.turn(world.acks("a"))
    assert both(world.turn(world.start(first))) == NOTHING
    assert world.turn(world.start(second, first)).effects == (Prepare(order=second),)
    # On a new link the master's word counts as it is: it has seen the inventory.
    world.turn(world.link_up())
    world.turn(world.joined())
    assert world.turn(world.start(first)).effects == (Prepare(order=first),)


def test_nothing_of_a_forgotten_attempt_lives_on_in_its_namesake(new_world):
    """No master orders a number again that it has acknowledged; if one does, it starts afresh."""
    world = new_world(slots=1)
    world.running_jobs(world.order("a", grace_ms=2_000))
    world.turn(world.start(world.order("b")), world.ready("b"), world.stop("b"))
    world.turn(world.acks("b"))
    world.turn(world.link_up())
    world.turn(world.joined())
    world.turn(world.start(world.order("b")))
    world.turn(world.stop("a"))
    # Not "b", which was in the queue once: its workspace is not there yet.
    assert not [e for e in world.turn(world.exited("a")).effects if isinstance(e, Spawn)]
    world.turn(world.acks("a"))
    world.turn(world.start(world.order("a")), world.ready("a"))
    world.turn(world.spawned("a"))
    # Not the signal that was meant for the other "a".
    assert both(world.turn(after_ms=2_000)) == NOTHING


def test_an_acknowledgement_of_a_running_attempt_forgets_nothing(world):
    """A master acknowledges a stale report of a start; the end is still to be told."""
    world.running_jobs(world.order("a"))
    assert both(world.turn(world.acks("a"))) == NOTHING
    assert len(world.turn(world.exited("a")).records) == 1


# -- failures ---------------------------------------------------------------------------------------
def test_a_workspace_that_cannot_be_made_ends_the_attempt(world):
    world.begin(world.start(world.order("a")))
    end = world.ended("a", ExitReason.PREPARE_FAILED, ended_at_ms=1_000, message="disk full")
    turn = world.turn(WorkspaceFailed(ref=world.ref("a"), message="disk full"))
    assert both(turn) == ((AttemptClosed(report=end),), (reports(end),))


def test_a_process_that_cannot_be_started_ends_the_attempt_and_frees_its_slot(new_world):
    world = new_world(slots=1)
    waiting = world.order("b")
    world.begin(world.start(world.order("a"), waiting), world.ready("a"), world.ready("b"))
    end = world.ended("a", ExitReason.START_FAILED, ended_at_ms=1_000, message="no such file")
    turn = world.turn(SpawnFailed(ref=world.ref("a"), message="no such file"))
    assert both(turn) == ((AttemptClosed(report=end),), (Spawn(order=waiting), reports(end)))


# -- slots ------------------------------------------------------------------------------------------
def test_attempts_wait_for_a_slot_in_the_order_in_which_they_were_ready(new_world):
    world = new_world(slots=2)
    orders = {name: world.order(name) for name in "abcd"}
    world.begin(world.start(*orders.values()))
    turn = world.turn(*(world.ready(name) for name in "dbca"))
    assert turn.effects == (Spawn(order=orders["d"]), Spawn(order=orders["b"]))
    # Both start; that frees nothing.
    assert not [e for e in world.turn(world.spawned("b")).effects if isinstance(e, Spawn)]
    assert world.turn(world.exited("b")).effects[0] == Spawn(order=orders["c"])
    assert world.turn(world.exited("d")).effects[0] == Spawn(order=orders["a"])


def test_one_that_is_stopped_while_it_waits_gives_its_turn_away(new_world):
    world = new_world(slots=1)
    orders = {name: world.order(name) for name in "abc"}
    world.begin(world.start(*orders.values()))
    world.turn(*(world.ready(name) for name in "abc"))
    end = world.ended("b", ExitReason.CANCELLED, ended_at_ms=1_000)
    # Its workspace is there: there is nothing to abandon.
    assert both(world.turn(world.stop("b"))) == ((AttemptClosed(report=end),), (reports(end),))
    assert world.turn(world.exited("a")).effects[0] == Spawn(order=orders["c"])


def test_a_stopping_attempt_keeps_its_slot_until_it_is_gone(new_world):
    world = new_world(slots=1)
    world.running_jobs(world.order("a"))
    waiting = world.order("b")
    world.turn(world.start(waiting))
    assert world.turn(world.ready("b"), world.stop("a")).effects == (
        Terminate(ref=world.ref("a"), force=False),
    )
    assert world.turn(world.exited("a", signal=15)).effects[0] == Spawn(order=waiting)


# -- stopping ---------------------------------------------------------------------------------------
def test_a_stop_while_the_workspace_is_made_ends_the_attempt_at_once(world):
    world.begin(world.start(world.order("a")))
    end = world.ended("a", ExitReason.CANCELLED, ended_at_ms=1_000)
    assert both(world.turn(world.stop("a"))) == (
        (AttemptClosed(report=end),),
        (AbandonPrepare(ref=world.ref("a")), reports(end)),
    )
    assert both(world.turn(world.ready("a"))) == NOTHING


def test_a_stop_is_term_then_kill_after_the_grace(world):
    world.running_jobs(world.order("a", grace_ms=2_000))
    ref = world.ref("a")
    assert both(world.turn(world.stop("a", reason=ExitReason.STOPPED))) == (
        (AttemptStopping(ref=ref, reason=ExitReason.STOPPED, at_ms=1_000),),
        (Terminate(ref=ref, force=False),),
    )
    assert world.core.next_deadline_ms() == 3_000
    assert both(world.turn(after_ms=1_999)) == NOTHING
    assert both(world.turn(after_ms=1)) == ((), (Terminate(ref=ref, force=True),))
    assert both(world.turn(after_ms=1_000)) == NOTHING
    (record,) = world.turn(world.exited("a", signal=9)).records
    assert record.report.reason is ExitReason.STOPPED
    assert record.report.signal == 9


def test_a_second_stop_changes_neither_reason_nor_deadline(world):
    world.running_jobs(world.order("a", grace_ms=2_000))
    world.turn(world.stop("a"))
    assert both(world.turn(world.stop("a", reason=ExitReason.STOPPED), after_ms=500)) == NOTHING
    assert world.core.next_deadline_ms() == 3_000
    (record,) = world.turn(world.exited("a")).records
    assert record.report.reason is ExitReason.CANCELLED


def test_no_kill_is_due_for_one_that_went_by_itself(world):
    world.running_jobs(world.order("a", grace_ms=2_000))
    world.turn(world.stop("a"))
    world.turn(world.exited("a"))
    assert world.core.next_deadline_ms() == 6_000
    assert both(world.turn(after_ms=4_000)) == NOTHING


def test_a_stop_while_it_is_being_started_waits_for_the_process(world):
    """There is nobody to signal yet; TERM goes out once, and the grace runs from then."""
    world.begin(world.start(world.order("a", grace_ms=2_000)), world.ready("a"))
    ref = world.ref("a")
    assert both(world.turn(world.stop("a"))) == (
        (AttemptStopping(ref=ref, reason=ExitReason.CANCELLED, at_ms=1_000),),
        (),
    )
    assert both(world.turn(world.spawned("a", pid=42), after_ms=100)) == (
        (AttemptSpawned(ref=ref, pid=42, start_ticks=7, at_ms=1_100),),
        (Terminate(ref=ref, force=False),),
    )
    assert world.core.next_deadline_ms() == 3_100
    (record,) = world.turn(world.exited("a", signal=15)).records
    assert record.report.reason is ExitReason.CANCELLED


def test_a_stop_while_it_is_being_started_that_then_fails(world):
    world.begin(world.start(world.order("a")), world.ready("a"), world.stop("a"))
    end = world.ended("a", ExitReason.CANCELLED, ended_at_ms=1_000, message="no such file")
    turn = world.turn(SpawnFailed(ref=world.ref("a"), message="no such file"))
    assert both(turn) == ((AttemptClosed(report=end),), (reports(end),))


def test_a_stop_while_it_is_being_started_that_is_over_before_it_was_seen(world):
    world.begin(world.start(world.order("a")), world.ready("a"), world.stop("a"))
    (record,) = world.turn(world.exited("a")).records
    assert record.report.reason is ExitReason.CANCELLED


def test_a_stop_for_a_reason_of_a_newer_master_is_a_cancellation(world):
    """Nobody may send UNKNOWN, so it must not come back in the report."""
    world.running_jobs(world.order("a"))
    world.turn(world.stop("a", reason=ExitReason.UNKNOWN))
    (record,) = world.turn(world.exited("a")).records
    assert record.report.reason is ExitReason.CANCELLED


# -- services ---------------------------------------------------------------------------------------
def test_a_service_with_a_port_is_healthy_when_the_port_answers(world):
    world.begin(world.start(world.order("a", service=8000)), world.ready("a"))
    ref = world.ref("a")
    assert world.turn(world.spawned("a", port=8000)).effects == (
        Probe(ref=ref, port=8000),
        reports(world.running("a", started_at_ms=1_000, port=8000)),
    )
    healthy = world.running("a", started_at_ms=1_000, port=8000, healthy=True)
    assert both(world.turn(ProbeAnswered(ref=ref), after_ms=50)) == ((), (reports(healthy),))
    assert both(world.turn(ProbeAnswered(ref=ref))) == NOTHING


def test_a_service_without_a_port_is_healthy_once_it_runs(world):
    world.begin(world.start(world.order("a", service=0)), world.ready("a"))
    assert world.turn(world.spawned("a")).effects == (
        reports(world.running("a", started_at_ms=1_000, healthy=True)),
    )


def test_a_service_that_ends_before_its_port_answers_was_never_healthy(world):
    world.begin(world.start(world.order("a", service=8000, restart=NEVER)), world.ready("a"))
    world.turn(world.spawned("a", port=8000))
    (record,) = world.turn(world.exited("a", code=1)).records
    assert record.report.reason is ExitReason.EXITED
    assert both(world.turn(ProbeAnswered(ref=world.ref("a")))) == NOTHING


def test_a_service_that_is_stopping_does_not_become_healthy(world):
    world.begin(world.start(world.order("a", service=8000)), world.ready("a"))
    world.turn(world.spawned("a", port=8000))
    world.turn(world.stop("a"))
    assert both(world.turn(ProbeAnswered(ref=world.ref("a")))) == NOTHING


def test_that_a_service_was_healthy_is_said_even_if_it_ended_in_the_same_turn(world):
    """Its job has succeeded by that: merged into its end, the job would have failed."""
    world.begin(world.start(world.order("a", service=0, restart=NEVER)), world.ready("a"))
    (effect,) = world.turn(world.spawned("a"), world.exited("a", code=1)).effects
    first, second = effect.message.reports
    assert (first.state, first.healthy) == (AttemptState.RUNNING, True)
    assert second.state is AttemptState.ENDED


# -- the link ---------------------------------------------------------------------------------------
def test_the_first_link_binds_the_worker_and_joins(world):
    world.turn(Started(boot_id="boot"))
    assert both(world.turn(world.link_up(term=4))) == (
        (ClusterBound(cluster_id="c1", term=4),),
        (join(world),),
    )
    assert both(world.turn(world.joined(term=4))) == NOTHING


def test_the_inventory_names_every_attempt_and_its_state(new_world):
    world = new_world(slots=3)
    world.running_jobs(world.order("runs"), world.order("stops"), world.order("ended"))
    world.turn(world.stop("stops"), world.exited("ended"))
    world.turn(world.start(world.order("starts"), world.order("waits"), world.order("prepares")))
    world.turn(world.ready("starts"), world.ready("waits"))
    world.turn(LinkDown())
    assert both(world.turn(world.link_up())) == (
        (),
        (
            join(
                world,
                ("runs", AttemptState.RUNNING),
                ("stops", AttemptState.STOPPING),
                ("ended", AttemptState.ENDED),
                ("starts", AttemptState.STARTING),
                ("waits", AttemptState.PREPARING),
                ("prepares", AttemptState.PREPARING),
            ),
        ),
    )


def test_without_a_link_attempts_go_on_and_their_reports_wait(world):
    world.running_jobs(world.order("a"), world.order("b"))
    world.turn(world.start(world.order("c")))
    world.turn(LinkDown())
    assert world.turn(world.exited("a")).effects == ()
    assert world.turn(world.ready("c")).effects == (Spawn(order=world.order("c")),)
    assert world.turn(world.spawned("c")).effects == ()
    world.turn(world.link_up())
    # Nothing but Join goes out before Joined.
    assert world.turn(world.exited("b")).effects == ()
    (effect,) = world.turn(world.joined()).effects
    assert [(r.ref.job_id, r.state) for r in effect.message.reports] == [
        ("a", AttemptState.ENDED),
        ("b", AttemptState.ENDED),
        ("c", AttemptState.RUNNING),
    ]


def test_health_that_showed_without_a_link_is_reported_on_the_next(world):
    world.begin(world.start(world.order("a", service=8000)), world.ready("a"))
    world.turn(world.spawned("a", port=8000))
    world.turn(LinkDown())
    assert world.turn(ProbeAnswered(ref=world.ref("a"))).effects == ()
    world.turn(world.link_up())
    assert world.turn(world.joined()).effects == (
        reports(world.running("a", started_at_ms=1_000, port=8000, healthy=True)),
    )


def test_what_a_dead_link_still_delivers_is_not_obeyed(world):
    world.running_jobs(world.order("a"))
    world.turn(LinkDown())
    for item in (world.start(world.order("b")), world.stop("a"), world.acks("a"), world.joined()):
        assert both(world.turn(item)) == NOTHING


def test_heartbeats_go_out_at_the_masters_pace(world):
    world.turn(Started(boot_id="boot"))
    assert world.core.next_deadline_ms() is None
    world.turn(world.link_up())
    assert world.core.next_deadline_ms() == 31_000  # a master that never answers Join
    world.turn(world.joined(heartbeat_ms=1_000))
    assert world.core.next_deadline_ms() == 2_000
    world.turn(UsageSampled(cpu_permille=7, memory_used_bytes=8, memory_total_bytes=9))
    world.turn(world.start(world.order("a")), world.ready("a"))

    def status(beat):
        load = {"cpu_permille": 7, "memory_used_bytes": 8, "memory_total_bytes": 9}
        return Send(message=WorkerStatus(running=1, beat=beat, **load))

    assert both(world.turn(after_ms=1_000)) == ((), (status(1),))
    # A pause is not made up for.
    assert both(world.turn(after_ms=7_500)) == ((), (status(2),))
    assert world.core.next_deadline_ms() == 10_500
    world.turn(LinkDown())
    assert world.core.next_deadline_ms() is None


def test_a_master_that_asks_for_no_pause_between_heartbeats_gets_some(world):
    """With a deadline that is always due the worker would never sleep."""
    world.turn(Started(boot_id="boot"))
    world.turn(world.link_up())
    world.turn(world.joined(heartbeat_ms=0))
    assert world.core.next_deadline_ms() == 1_100


def test_a_new_link_replaces_one_that_nobody_closed(world):
    world.running_jobs(world.order("a"))
    assert world.turn(world.link_up()).effects == (join(world, ("a", AttemptState.RUNNING)),)
    assert world.turn(world.exited("a")).effects == ()


# -- terms and clusters -----------------------------------------------------------------------------
def test_a_master_of_an_older_term_is_not_joined(world):
    world.turn(Started(boot_id="boot"))
    world.turn(world.link_up(term=5))
    world.turn(LinkDown())
    turn = world.turn(world.link_up(term=4))
    assert turn.records == ()
    (effect,) = turn.effects
    assert isinstance(effect, HangUp)
    assert "term 4" in effect.reason
    assert "term 5" in effect.reason
    assert both(world.turn(world.start(world.order("a"), term=5))) == NOTHING


def test_orders_of_an_older_term_are_refused_and_the_link_ends(world):
    for stale in (
        world.start(world.order("b"), term=1),
        world.stop("a", term=1),
        world.joined(term=1),
    ):
        fresh = type(world)()
        fresh.turn(Started(boot_id="boot"))
        fresh.turn(fresh.link_up(term=2))
        fresh.turn(fresh.joined(term=2))
        fresh.turn(fresh.start(fresh.order("a"), term=2))
        turn = fresh.turn(stale)
        assert turn.records == ()
        assert [type(effect) for effect in turn.effects] == [HangUp]
        # Nothing goes out on that link any more, whatever the shell has closed by now.
        assert fresh.turn(WorkspaceFailed(ref=fresh.ref("a"), message="x")).effects == ()
        assert both(fresh.turn(after_ms=60_000)) == NOTHING


def test_a_newer_term_is_remembered_before_it_is_obeyed(world):
    world.begin()
    order = world.order("a")
    assert world.turn(world.start(order, term=3)).records == (
        ClusterBound(cluster_id="c1", term=3),
        AttemptHeld(order=order, at_ms=1_000),
    )
    assert [type(e) for e in world.turn(world.stop("a", term=2)).effects] == [HangUp]


def test_a_new_term_of_the_same_cluster_keeps_every_attempt(world):
    world.running_jobs(world.order("a"))
    world.turn(LinkDown())
    assert both(world.turn(world.link_up(term=2))) == (
        (ClusterBound(cluster_id="c1", term=2),),
        (join(world, ("a", AttemptState.RUNNING)),),
    )


def test_another_cluster_gets_an_empty_worker(new_world):
    """What the old cluster's attempts left is stopped and forgotten; the new one never hears of it."""
    world = new_world(slots=2)
    world.running_jobs(world.order("runs"), world.order("ended"))
    world.turn(world.exited("ended"), world.start(world.order("starts"), world.order("prepares")))
    world.turn(world.ready("starts"))
    world.turn(world.start(world.order("waits")))
    world.turn(world.ready("waits"))
    world.turn(LinkDown())
    runs, starts = world.ref("runs"), world.ref("starts")
    turn = world.turn(world.link_up(cluster="c2", term=1))
    assert turn.records == (
        ClusterBound(cluster_id="c2", term=1),
        AttemptStopping(ref=runs, reason=ExitReason.CANCELLED, at_ms=1_000),
        AttemptForgotten(ref=world.ref("ended")),
        AttemptStopping(ref=starts, reason=ExitReason.CANCELLED, at_ms=1_000),
        AttemptForgotten(ref=world.ref("prepares")),
        AttemptForgotten(ref=world.ref("waits")),
    )
    assert turn.effects == (
        Terminate(ref=runs, force=False),
        Forget(ref=world.ref("ended")),
        AbandonPrepare(ref=world.ref("prepares")),
        Forget(ref=world.ref("prepares")),
        Forget(ref=world.ref("waits")),
        join(world, worker_id="w1-1"),
    )
    assert both(world.turn(world.joined())) == NOTHING
    # They keep their slots until they are gone.
    order = world.order("new")
    world.turn(world.start(order))
    assert world.turn(world.ready("new")).effects == ()
    assert both(world.turn(world.spawned("starts", pid=77))) == (
        (AttemptSpawned(ref=starts, pid=77, start_ticks=7, at_ms=1_000),),
        (Terminate(ref=starts, force=False),),
    )
    assert both(world.turn(world.exited("runs", signal=15))) == (
        (AttemptForgotten(ref=runs),),
        (Forget(ref=runs), Spawn(order=order)),
    )


def test_who_comes_back_to_a_cluster_comes_as_somebody_else(world):
    """Under its old id it would be told to run again, under the same number, what it dropped."""
    world.begin()
    world.turn(LinkDown())
    ids = [
        world.turn(world.link_up(cluster=cluster, term=1)).effects[-1].message.worker_id
        for cluster in ("c1", "c2", "c1", "c1")
    ]
    assert ids == ["w1", "w1-1", "w1-2", "w1-2"]


def test_a_new_cluster_may_begin_with_a_lower_term(world):
    world.turn(Started(boot_id="boot"))
    world.turn(world.link_up(term=9))
    assert world.turn(world.link_up(cluster="c2", term=1)).records == (
        ClusterBound(cluster_id="c2", term=1),
    )


# -- a process after another ------------------------------------------------------------------------
def test_a_new_process_ends_as_lost_what_the_last_one_left_open(new_world):
    world = new_world(slots=3)
    world.running_jobs(world.order("runs"), world.order("stops"))
    world.turn(world.stop("stops"))
    world.turn(world.start(world.order("starts"), world.order("prepares")))
    world.turn(world.ready("starts"))

    def lost(name, **fields):
        return world.ended(name, ExitReason.LOST, ended_at_ms=1_000, message=RESTARTED, **fields)

    world.crash()
    turn = world.turn(Started(boot_id="boot"))
    assert both(turn) == (
        (
            AttemptClosed(report=lost("runs", started_at_ms=1_000)),
            AttemptClosed(report=lost("stops", started_at_ms=1_000)),
            AttemptClosed(report=lost("starts")),
            AttemptClosed(report=lost("prepares")),
        ),
        (),
    )
    ends = [record.report for record in turn.records]
    names = ("runs", "stops", "starts", "prepares")
    assert world.turn(world.link_up()).effects == (
        join(world, *((name, AttemptState.ENDED) for name in names), incarnation=2),
    )
    assert world.turn(world.joined()).effects == (reports(*ends),)
    # No slot is taken by what is gone.
    orders = [world.order(name) for name in "abc"]
    world.turn(world.start(*orders))
    assert world.turn(*(world.ready(name) for name in "abc")).effects == tuple(
        Spawn(order=order) for order in orders
    )


def test_reports_survive_any_number_of_processes_until_they_are_acknowledged(world):
    world.running_jobs(world.order("a"))
    (record,) = world.turn(world.exited("a")).records
    for _ in range(3):
        world.crash()
        assert both(world.turn(Started(boot_id="boot"))) == NOTHING
        world.turn(world.link_up())
        assert world.turn(world.joined()).effects == (reports(record.report),)
    world.turn(world.acks("a"))
    world.crash()
    world.turn(Started(boot_id="boot"))
    assert world.core.state.held == {}


def test_a_new_process_forgets_what_belonged_to_another_cluster(world):
    world.running_jobs(world.order("a"))
    world.turn(world.link_up(cluster="c2"))
    world.crash()
    assert both(world.turn(Started(boot_id="boot"))) == (
        (AttemptForgotten(ref=world.ref("a")),),
        (Forget(ref=world.ref("a")),),
    )


LEAVING = Send(message=WorkerStatus(running=0, beat=1, leaving=True))


# -- leaving ----------------------------------------------------------------------------------------
def test_an_idle_worker_says_goodbye_and_ends(world):
    world.begin()
    assert both(world.turn(StopRequested())) == ((), (LEAVING, Send(message=Leave()), Exit()))
    assert world.core.next_deadline_ms() is None
    assert both(world.turn(after_ms=60_000)) == NOTHING


def test_a_worker_without_a_link_and_work_ends_at_once(world):
    world.turn(Started(boot_id="boot"))
    assert both(world.turn(StopRequested())) == ((), (Exit(),))


def test_a_leaving_worker_stops_everything_reports_it_and_waits_to_be_heard(world):
    world.running_jobs(world.order("a", grace_ms=2_000))
    world.turn(world.start(world.order("b")))
    a, b = world.ref("a"), world.ref("b")
    end_b = world.ended("b", ExitReason.WORKER_LEFT, ended_at_ms=1_000, message=SHUT_DOWN)
    assert both(world.turn(StopRequested())) == (
        (
            AttemptStopping(ref=a, reason=ExitReason.WORKER_LEFT, at_ms=1_000),
            AttemptClosed(report=end_b),
        ),
        (
            Send(message=WorkerStatus(running=1, beat=1, leaving=True)),
            Terminate(ref=a, force=False),
            AbandonPrepare(ref=b),
            reports(end_b),
        ),
    )
    assert both(world.turn(StopRequested())) == NOTHING
    assert world.turn(after_ms=2_000).effects == (Terminate(ref=a, force=True),)
    (record,) = world.turn(world.exited("a", signal=9)).records
    assert record.report.reason is ExitReason.WORKER_LEFT
    assert record.report.message == SHUT_DOWN
    assert world.turn(world.acks("b")).effects == (Forget(ref=b),)
    assert world.turn(world.acks("a")).effects == (
        Forget(ref=a),
        Send(message=Leave()),
        Exit(),
    )


def test_a_leaving_worker_gives_back_at_once_what_comes_too_late(world):
    """Dropped in silence it would wait until everything else here has been stopped."""
    world.running_jobs(world.order("a"))
    world.turn(StopRequested())
    late = world.order("b")
    end = world.ended("b", ExitReason.WORKER_LEFT, ended_at_ms=1_000, message=SHUT_DOWN)
    assert both(world.turn(world.start(late, late))) == (
        (AttemptHeld(order=late, at_ms=1_000), AttemptClosed(report=end)),
        (reports(end),),
    )


def test_a_worker_that_is_killed_while_it_leaves_still_blames_no_job(world):
    world.running_jobs(world.order("a"))
    world.turn(StopRequested())
    world.crash()
    (record,) = world.turn(Started(boot_id="boot")).records
    assert record.report.reason is ExitReason.WORKER_LEFT


def test_a_leaving_worker_that_nobody_hears_ends_after_its_deadline(world):
    world.running_jobs(world.order("a", grace_ms=2_000))
    world.turn(LinkDown())
    world.turn(StopRequested())
    world.turn(world.exited("a"))
    assert world.core.next_deadline_ms() == 1_000 + 2_000 + 15_000
    # Asked again, it does not begin to wait anew.
    assert both(world.turn(StopRequested(), after_ms=9_999)) == NOTHING
    assert both(world.turn(after_ms=7_000)) == NOTHING
    assert both(world.turn(after_ms=1)) == ((), (Exit(),))


def test_a_worker_that_wakes_up_after_its_deadline_kills_what_it_hears_of_only_then(world):
    """It stood still: the process that it had begun to start is news to it, and its time is over."""
    a = world.ref("a")
    world.begin(world.start(world.order("a", grace_ms=2_000)))
    world.turn(world.ready("a"))
    world.turn(LinkDown())
    world.turn(StopRequested())
    assert world.turn(world.spawned("a"), after_ms=60_000).effects == (
        Terminate(ref=a, force=False),
        Terminate(ref=a, force=True),
        Exit(),
    )


def test_a_worker_that_is_to_leave_at_once_says_so(world):
    world.running_jobs(world.order("a"))
    (said, *_) = world.turn(StopRequested(at_once=True)).effects
    assert said == Send(message=WorkerStatus(running=1, beat=1, leaving=True, at_once=True))


def test_a_leaving_worker_that_is_joining_says_goodbye_first(world):
    """Gone without a word it would be waited for until it is lost."""
    world.turn(Started(boot_id="boot"))
    world.turn(world.link_up())
    assert both(world.turn(StopRequested())) == NOTHING
    assert world.turn(world.joined()).effects == (LEAVING, Send(message=Leave()), Exit())


def test_a_leaving_worker_joins_again_to_be_heard(world):
    world.running_jobs(world.order("a"))
    world.turn(StopRequested())
    world.turn(LinkDown())
    world.turn(world.exited("a"))
    held = ("a", AttemptState.ENDED)
    assert world.turn(world.link_up()).effects == (join(world, held, leaving=True),)
    assert world.turn(world.joined()).effects[0] == LEAVING
    assert world.turn(world.acks("a")).effects[-2:] == (Send(message=Leave()), Exit())


# -- what jobs leave for others -------------------------------------------------------------------


def with_outputs(world, name, code=0, **left):
    return replace(world.exited(name, code), **left)


def ends(turn):
    return [
        report
        for effect in turn.effects
        if isinstance(effect, Send) and isinstance(effect.message, AttemptReports)
        for report in effect.message.reports
        if report.state is AttemptState.ENDED
    ]


def test_outputs_are_told_with_a_success_and_with_nothing_else(new_world):
    world = new_world(3).running_jobs(*map(new_world.order, ("good", "failed", "stopped")))
    world.turn(world.stop("stopped"))
    turn = world.turn(
        *(
            with_outputs(world, name, code, outputs={"rows": "12"})
            for name, code in (("good", 0), ("failed", 1), ("stopped", 0))
        )
    )
    assert [report.outputs for report in ends(turn)] == [{"rows": "12"}, {}, {}]


def test_outputs_that_cannot_be_read_make_a_failure_of_a_clean_exit_alone(new_world):
    world = new_world(3).running_jobs(*map(new_world.order, ("good", "failed", "stopped")))
    world.turn(world.stop("stopped"))
    turn = world.turn(
        *(
            with_outputs(world, name, code, output_problem="line 1")
            for name, code in (("good", 0), ("failed", 1), ("stopped", 0))
        )
    )
    assert [(report.reason, report.message) for report in ends(turn)] == [
        (ExitReason.BAD_OUTPUT, "line 1"),
        (ExitReason.EXITED, ""),
        (ExitReason.CANCELLED, ""),
    ]


def test_outputs_survive_the_workers_process_until_they_are_acknowledged(world):
    world.running_jobs(world.order("a"))
    world.turn(LinkDown())
    world.turn(with_outputs(world, "a", outputs={"rows": "12"}))
    world.crash().turn(Started(boot_id="boot"))
    world.turn(world.link_up())
    (report,) = ends(world.turn(world.joined()))
    assert report.outputs == {"rows": "12"}


def test_reports_that_their_outputs_make_long_go_out_in_several_frames(new_world):
    """Each is as long as it may be: all in one frame would be too much for any peer."""
    names = [f"j{n}" for n in range(300)]
    world = new_world(300).running_jobs(*map(new_world.order, names))
    left = {f"k{n}": "x" * 8_000 for n in range(4)}
    turn = world.turn(*(with_outputs(world, name, outputs=left) for name in names))
    frames = [len(encode(effect.message)) for effect in turn.effects if isinstance(effect, Send)]
    assert len(ends(turn)) == 300
    assert len(frames) > 2
    assert max(frames) <= FRAME_PAYLOAD_BYTES
