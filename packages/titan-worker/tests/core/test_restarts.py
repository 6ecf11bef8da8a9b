"""A service is kept alive by its worker, within its budget; then its attempt ends, and says why."""

import pytest

from titan_proto.ids import AttemptRef
from titan_proto.limits import RESTART_WELL_MS
from titan_proto.messages import AttemptReports
from titan_proto.specs import RestartPolicy, RestartWhen
from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.effects import Send, Spawn, Terminate
from titan_worker.core.inputs import ProbeAnswered
from titan_worker.core.records import AttemptRestarting
from titan_worker.core.restarts import Restarts, is_wanted

REF = AttemptRef("r" * 16, "api", 1)


def told(turn):
    return [
        report
        for effect in turn.effects
        if isinstance(effect, Send) and isinstance(effect.message, AttemptReports)
        for report in effect.message.reports
    ]


def spawns(turn):
    return [effect.order.ref.job_id for effect in turn.effects if isinstance(effect, Spawn)]


def up(world, **fields):
    world.begin(world.start(world.order("api", service=8000, **fields)), world.ready("api"))
    world.turn(world.spawned("api", port=8000), ProbeAnswered(ref=world.ref("api")))


def until_spawn(world):
    """The services that are started next, however long that takes."""
    for _ in range(100):
        found = spawns(world.turn(after_ms=500))
        if found:
            return found
    raise AssertionError("nothing is started any more")


def delays(policy, count, *, apart_ms=0):
    """From each end to the next start, one end right after the other."""
    past, now_ms, found = Restarts(), 0, []
    for _ in range(count):
        past.ended(now_ms)
        at_ms = past.next_ms(policy, REF, now_ms)
        found.append(None if at_ms is None else at_ms - now_ms)
        now_ms += (found[-1] or 0) + apart_ms
    return found


def test_the_first_restart_is_at_once_and_each_next_one_waits_longer_up_to_a_limit():
    policy = RestartPolicy(max=8, delay_ms=1_000, max_delay_ms=8_000)
    first, *rest = delays(policy, 8)
    assert first == 0
    for waited, usual in zip(rest, (1_000, 2_000, 4_000, 8_000, 8_000, 8_000, 8_000), strict=True):
        assert usual * 0.75 <= waited <= min(usual * 1.25, 8_000)


def test_services_that_end_together_do_not_come_back_together():
    policy = RestartPolicy(delay_ms=60_000, max_delay_ms=600_000)
    times = set()
    for name in "abcdefgh":
        past, ref = Restarts(), AttemptRef("r" * 16, name, 1)
        past.next_ms(policy, ref, 0)
        times.add(past.next_ms(policy, ref, 0))
    assert len(times) > 6


def test_the_budget_is_so_many_in_so_much_time():
    policy = RestartPolicy(max=2, within_ms=10_000, delay_ms=0)
    assert delays(policy, 3) == [0, 0, None]
    assert delays(policy, 6, apart_ms=5_000) == [0] * 6


def test_long_health_forgives_what_was_before():
    policy = RestartPolicy(max=1, within_ms=10**9)
    past = Restarts()
    assert past.next_ms(policy, REF, 0) == 0
    for well_ms, forgiven in ((RESTART_WELL_MS - 1, False), (RESTART_WELL_MS, True)):
        past.healthy(100)
        past.ended(100 + well_ms)
        again = past.next_ms(policy, REF, 100 + well_ms)
        assert (again is not None) == forgiven


@pytest.mark.parametrize(
    ("when", "failed", "again"),
    [
        (RestartWhen.ALWAYS, False, True),
        (RestartWhen.ALWAYS, True, True),
        (RestartWhen.ON_FAILURE, False, False),
        (RestartWhen.ON_FAILURE, True, True),
        (RestartWhen.NEVER, True, False),
    ],
)
def test_after_which_ends_it_is_started_again(when, failed, again):
    assert is_wanted(RestartPolicy(when=when), failed=failed) == again


def test_a_service_that_ends_is_started_again_under_its_number_and_the_master_hears_of_both(world):
    up(world)
    turn = world.turn(world.exited("api", signal=9))
    assert [type(record) for record in turn.records] == [AttemptRestarting]
    assert spawns(turn) == ["api"]
    (report,) = told(turn)
    assert (report.state, report.healthy, report.restarts) == (AttemptState.RUNNING, False, 1)

    world.turn(world.spawned("api", pid=101, port=8000))
    (report,) = told(world.turn(ProbeAnswered(ref=world.ref("api"))))
    assert (report.state, report.healthy, report.restarts) == (AttemptState.RUNNING, True, 1)
    assert world.core.state.held[world.ref("api")].pid == 101


def test_a_crash_loop_ends_the_attempt_and_tells_its_last_words(world):
    up(world, restart=RestartPolicy(max=2, delay_ms=1_000))
    assert spawns(world.turn(world.exited("api", code=3))) == ["api"]
    world.turn(world.spawned("api", port=8000))
    assert spawns(world.turn(world.exited("api", code=3))) == []
    assert until_spawn(world) == ["api"]
    world.turn(world.spawned("api", port=8000))

    turn = world.turn(world.exited("api", code=3, last_words="no such table"))
    (record,) = turn.records
    report = record.report
    assert (report.reason, report.exit_code, report.restarts) == (ExitReason.CRASH_LOOP, 3, 2)
    assert "exit code 3" in report.message
    assert "2 in 600 s" in report.message
    assert report.message.endswith("no such table")
    assert spawns(turn) == []


def test_one_that_is_not_to_be_started_again_ends_as_it_ended(world):
    up(world, restart=RestartPolicy(when=RestartWhen.ON_FAILURE))
    (record,) = world.turn(world.exited("api", code=0)).records
    assert record.report.reason is ExitReason.EXITED


def between_two_processes(world, **fields):
    """Its second restart waits for its delay."""
    up(world, **fields)
    world.turn(world.exited("api", code=1))
    world.turn(world.spawned("api", port=8000))
    assert spawns(world.turn(world.exited("api", code=1))) == []


def test_a_stop_between_two_processes_ends_it_at_once(world):
    between_two_processes(world)
    (report,) = told(world.turn(world.stop("api", reason=ExitReason.STOPPED)))
    assert (report.state, report.reason) == (AttemptState.ENDED, ExitReason.STOPPED)
    assert report.started_at_ms
    for _ in range(10):
        assert spawns(world.turn(after_ms=1_000)) == []


def test_a_stop_while_it_is_started_again_reaches_the_new_process(world):
    up(world)
    world.turn(world.exited("api", code=1))
    world.turn(world.stop("api", reason=ExitReason.STOPPED))
    turn = world.turn(world.spawned("api", pid=101))
    assert any(isinstance(effect, Terminate) for effect in turn.effects)
    (report,) = told(world.turn(world.exited("api", signal=15)))
    assert (report.reason, report.signal) == (ExitReason.STOPPED, 15)


def test_between_two_processes_it_keeps_its_slot(new_world):
    world = new_world(slots=1)
    between_two_processes(world)
    assert spawns(world.turn(world.start(world.order("next")), world.ready("next"))) == []
    assert until_spawn(world) == ["api"]


def test_a_process_that_cannot_be_started_again_ends_it_with_the_reason(world):
    up(world)
    world.turn(world.exited("api", code=1))
    (record,) = world.turn(world.spawn_failed("api", "no java")).records
    assert (record.report.reason, record.report.message) == (ExitReason.START_FAILED, "no java")


def test_the_death_of_the_worker_between_two_processes_is_a_loss(world):
    between_two_processes(world)
    world.crash()
    world.begin()
    report = world.core.state.held[world.ref("api")].report
    assert report.reason is ExitReason.LOST


def test_an_exclusive_service_is_not_started_again_without_a_lease(world):
    between_two_processes(world, exclusive=True)
    assert all(spawns(world.turn(after_ms=60_000)) == [] for _ in range(20))


def test_one_that_ends_well_after_a_restart_has_not_crashed(world):
    """Its budget is not spent: it is just not to be started again after this."""
    up(world, restart=RestartPolicy(when=RestartWhen.ON_FAILURE))
    world.turn(world.exited("api", code=1))
    world.turn(world.spawned("api", port=8000))
    (record,) = world.turn(world.exited("api", code=0)).records
    assert (record.report.reason, record.report.message) == (ExitReason.EXITED, "")
    assert record.report.restarts == 1


@pytest.mark.parametrize("how", ["stopped", "cannot be started"])
def test_what_its_processes_wrote_counts_though_no_further_one_comes(world, how):
    """Or whoever reads its log would be told that there is none."""
    between_two_processes(world)
    if how == "stopped":
        (record,) = world.turn(world.stop("api")).records[-1:]
    else:
        assert until_spawn(world) == ["api"]
        (record,) = world.turn(world.spawn_failed("api", "no java")).records
    assert (record.report.stdout_bytes, record.report.stderr_bytes) == (3, 4)
