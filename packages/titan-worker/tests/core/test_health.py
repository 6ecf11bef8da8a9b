"""A service that runs and is not well is started again; one that starts up has time to."""

import pytest

from titan_proto.messages import AttemptReports
from titan_proto.specs import HealthCheck, RestartPolicy, RestartWhen
from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.effects import Probe, Send, Spawn, Terminate
from titan_worker.core.health import Health
from titan_worker.core.inputs import ProbeAnswered, ProbeFailed

CHECK = HealthCheck(retries=3, start_period_ms=10_000)


def told(turn):
    return [
        report
        for effect in turn.effects
        if isinstance(effect, Send) and isinstance(effect.message, AttemptReports)
        for report in effect.message.reports
    ]


def spawns(turn):
    return [effect.order.ref.job_id for effect in turn.effects if isinstance(effect, Spawn)]


def begin(world, check=CHECK, **fields):
    """A service with this check has been started; what was asked for then."""
    world.begin(world.start(world.order("api", service=8000, health=check, **fields)))
    world.turn(world.ready("api"))
    return world.turn(world.spawned("api", port=8000)).effects


def failed(world, times=1, *, after_ms=1_000):
    """The signals that come of so many failures, one a second."""
    failure = ProbeFailed(ref=world.ref("api"), message="status 500")
    turns = [world.turn(failure, after_ms=after_ms) for _ in range(times)]
    return [signal for turn in turns for signal in signals(turn)]


def signals(turn):
    return [effect for effect in turn.effects if isinstance(effect, Terminate)]


def answered(world):
    return world.turn(ProbeAnswered(ref=world.ref("api")))


def term(world, *, force=False):
    return Terminate(ref=world.ref("api"), force=force)


def test_failures_in_a_row_are_counted_and_a_success_forgets_them():
    health = Health(HealthCheck(retries=3), 0)
    assert [health.failed(1), health.failed(2)] == [False, False]
    health.passed()
    assert [health.failed(3), health.failed(4), health.failed(5)] == [False, False, True]


def test_before_its_first_success_failures_do_not_count_until_the_start_period_is_over():
    health = Health(CHECK, 0)
    assert not any(health.failed(now_ms) for now_ms in range(0, 10_000, 100))
    assert [health.failed(10_000 + n) for n in range(3)] == [False, False, True]
    health = Health(CHECK, 0)
    health.passed()
    assert [health.failed(n) for n in range(3)] == [False, False, True]


def test_the_shell_is_told_what_to_check(world):
    assert Probe(ref=world.ref("api"), port=8000, check=CHECK) in begin(world)


def test_it_is_healthy_once_a_check_passed_and_that_is_told_once(world):
    begin(world)
    (report,) = told(answered(world))
    assert report.healthy
    assert told(answered(world)) == []


def test_an_unhealthy_one_is_stopped_and_started_again_like_one_that_crashed(world):
    begin(world)
    answered(world)
    assert failed(world, 2) == []
    assert failed(world) == [term(world)]
    assert failed(world) == [], "it is on its way"
    assert told(answered(world)) == [], "a last answer makes it no better"
    turn = world.turn(world.exited("api", 0))
    assert spawns(turn) == ["api"]
    (report,) = told(turn)
    assert (report.state, report.healthy, report.restarts) == (AttemptState.RUNNING, False, 1)
    world.turn(world.spawned("api", port=8000))
    assert failed(world, 9, after_ms=100) == [], "the new process has its start period"
    assert told(answered(world))[0].healthy


def test_one_that_does_not_go_is_killed_after_its_grace_and_its_successor_is_left_alone(world):
    begin(world, grace_ms=5_000)
    answered(world)
    failed(world, 3)
    assert signals(world.turn(after_ms=5_000)) == [term(world, force=True)]
    world.turn(world.exited("api", signal=9))
    world.turn(world.spawned("api", port=8000))
    answered(world)
    assert failed(world, 3) == [term(world)]
    world.turn(world.exited("api", signal=15), after_ms=1_000)
    # The first grace would end now; it was of another process.
    assert signals(world.turn(after_ms=4_500)) == []


def test_a_stop_that_comes_while_it_is_being_ended_has_the_last_word(world):
    begin(world)
    answered(world)
    failed(world, 3)
    world.turn(world.stop("api", reason=ExitReason.STOPPED))
    (report,) = told(world.turn(world.exited("api", signal=15)))
    assert (report.state, report.reason) == (AttemptState.ENDED, ExitReason.STOPPED)


@pytest.mark.parametrize(
    ("policy", "reason", "words"),
    [
        (RestartPolicy(when=RestartWhen.NEVER), ExitReason.UNHEALTHY, "its health check failed"),
        (RestartPolicy(max=0), ExitReason.UNHEALTHY, "its health check failed"),
        (RestartPolicy(max=1), ExitReason.CRASH_LOOP, "budget is 1"),
    ],
)
def test_with_no_restart_left_it_ends_and_says_what_the_last_check_said(
    world, policy, reason, words
):
    begin(world, CHECK, restart=policy)
    for _ in range(2):
        answered(world)
        failed(world, 3)
        turn = world.turn(world.exited("api", signal=15))
        if told(turn)[-1].state is AttemptState.ENDED:
            break
        world.turn(world.spawned("api", port=8000))
    (report,) = told(turn)
    assert report.reason is reason
    assert "status 500" in report.message
    assert words in report.message


def test_on_failure_counts_an_unhealthy_one_as_failed_whatever_it_exits_with(world):
    begin(world, restart=RestartPolicy(when=RestartWhen.ON_FAILURE))
    answered(world)
    failed(world, 3)
    assert spawns(world.turn(world.exited("api", 0))) == ["api"]


def test_words_about_a_check_that_is_over_mean_nothing(world):
    begin(world)
    world.turn(world.stop("api", reason=ExitReason.STOPPED))
    assert failed(world, 5) == []
    world.turn(world.exited("api", signal=15))
    assert failed(world, 5) == []


def test_what_takes_no_slot_begins_on_a_full_worker(world):
    world.running_jobs(world.order("busy"), world.order("beside"))
    turn = world.turn(
        world.start(world.order("next"), world.order("light", service=0, slots=0)),
        world.ready("next"),
        world.ready("light"),
    )
    assert spawns(turn) == ["light"]
    world.turn(world.spawned("light"))
    assert spawns(world.turn(world.exited("light", signal=9))) == ["light"]
    assert spawns(world.turn(world.exited("busy"))) == ["next"]


def test_a_job_of_several_slots_waits_for_them_and_nothing_passes_it(world):
    world.running_jobs(world.order("a"), world.order("b"))
    turn = world.turn(
        world.start(world.order("big", slots=world.slots), world.order("small")),
        world.ready("big"),
        world.ready("small"),
    )
    assert spawns(turn) == []
    assert spawns(world.turn(world.exited("a"))) == []
    assert spawns(world.turn(world.exited("b"))) == ["big"]
    world.turn(world.spawned("big"))
    assert spawns(world.turn(world.exited("big"))) == ["small"]
