"""Schedules: each slot is decided about once, whatever happens to the master meanwhile."""

from __future__ import annotations

import pytest
from core_world import START_MS, World, effects, events, job, kinds, order_of, run

from titan_master.core import apply as core_apply
from titan_master.core import schedules
from titan_master.core.core import CoreConfig
from titan_master.core.events import PoisonRemembered
from titan_master.core.inputs import StorageChanged
from titan_master.core.state import InvariantViolation
from titan_proto.errors import ErrorCode
from titan_proto.limits import CATCHUP_SLOTS, SLOT_GRACE_MS, SLOTS_WAITING
from titan_proto.messages import (
    CancelRun,
    Error,
    GetRun,
    GetSchedule,
    ListSchedules,
    PauseSchedule,
    RemoveSchedule,
    RunReceipt,
    ScheduleList,
    ScheduleView,
    TriggerSchedule,
)
from titan_proto.specs import Catchup, Overlap
from titan_proto.states import ExitReason, RunState

MINUTE = 60_000


def slots(turn):
    """The slots that became runs in this turn, in seconds after the start."""
    return [
        (event.fired.slot_at_ms - START_MS) // 1000
        for event in turn.events
        if type(event).__name__ == "RunAccepted" and not event.fired.triggered
    ]


def passed(turn):
    """What passed: until when, how many, and whether nobody was there."""
    return [
        ((event.until_ms - START_MS) // 1000, event.count, event.missed)
        for event in turn.events
        if type(event).__name__ == "SlotsPassed"
    ]


def news(turn):
    """What became of schedules in this turn."""
    return [
        kind
        for kind in kinds(turn)
        if "Slot" in kind or "Schedule" in kind or kind == "RunAccepted"
    ]


def finish(w, name="s", code=0):
    """End every run of the schedule that goes on."""
    for run_id in list(w.state.schedules[name].live):
        w.ended(f"{run_id}/a", code)


def view(w, name="s"):
    return w.answer(GetSchedule(schedule=name))


def test_a_slot_becomes_a_run_at_its_time_and_its_job_learns_it():
    w = World({"w1": 4})
    turn = w.schedule("s", "@every 5s")
    assert kinds(turn) == ["SchedulePut"]
    assert kinds(w.advance(4_999)) == []
    turn = w.advance(1)
    assert kinds(turn) == ["RunAccepted", "AttemptPlaced"]
    assert order_of(turn, "a").scheduled_for_ms == START_MS + 5_000
    (run_id,) = w.state.runs
    assert w.state.runs[run_id].alias == "s-1"
    told = w.answer(GetRun(run="s-1")).fired
    assert (told.schedule, told.version, told.slot_at_ms) == ("s", 1, START_MS + 5_000)
    finish(w)
    assert slots(w.advance(10_000)) == [10]
    assert view(w).last.alias == "s-2"


def test_a_calendars_slots_are_those_of_its_zone():
    w = World({"w1": 9})
    # START_MS is 00:16:40 of the first day of all: in Kolkata 05:46:40.
    w.schedule("s", "0,48 5,6 * * *", zone="Asia/Kolkata", overlap=Overlap.ALLOW)
    assert slots(w.advance(90 * MINUTE)) == [80, 800, 3_680]
    assert "05:00" in view(w).words


def test_slots_come_at_the_times_of_all_lines_each_once():
    w = World({"w1": 9})
    w.schedule("s", ("@every 10s", "@every 15s"), overlap=Overlap.ALLOW)
    assert slots(w.advance(30_000)) == [10, 15, 20, 30]


# -- overlap --------------------------------------------------------------------------------------
def test_skip_lets_a_slot_pass_while_a_run_goes_on():
    w = World({"w1": 4})
    w.schedule("s", "@every 5s")
    assert slots(w.advance(5_000)) == [5]
    turn = w.advance(10_000)
    assert slots(turn) == []
    assert passed(turn) == [(10, 1, False), (15, 1, False)]
    finish(w)
    assert slots(w.advance(5_000)) == [20]
    assert (view(w).fired, view(w).skipped, view(w).missed) == (2, 2, 0)


def test_queue_begins_slot_after_slot_once_a_run_has_ended():
    w = World({"w1": 4})
    w.schedule("s", "@every 5s", overlap=Overlap.QUEUE)
    assert slots(w.advance(17_000)) == [5]
    assert view(w).waiting == (START_MS + 10_000, START_MS + 15_000)
    w.restart()
    w.join("w1", held=[(f"{next(iter(w.state.runs))}/a", "RUNNING")])
    turn = w.ended(f"{next(iter(w.state.runs))}/a")
    assert slots(turn) == [10]
    finish(w)
    assert slots(w.last) == [15]
    assert view(w).waiting == ()


def test_no_more_than_so_many_slots_wait():
    w = World({"w1": 4})
    w.schedule("s", "@every 1s", overlap=Overlap.QUEUE)
    w.advance((SLOTS_WAITING + 4) * 1_000)
    assert len(w.state.schedules["s"].waiting) == SLOTS_WAITING
    assert view(w).skipped == 3


def test_allow_begins_beside_what_goes_on():
    w = World({"w1": 4})
    w.schedule("s", "@every 5s", overlap=Overlap.ALLOW)
    assert slots(w.advance(15_000)) == [5, 10, 15]
    assert view(w).live == ("s-1", "s-2", "s-3")


def test_replace_cancels_what_goes_on_and_begins_once_that_has_ended():
    w = World({"w1": 4})
    w.schedule("s", "@every 5s", overlap=Overlap.REPLACE)
    w.advance(5_000)
    (first,) = w.state.runs
    turn = w.advance(5_000)
    assert kinds(turn)[-3:] == ["RunCancelRequested", "JobCancelling", "SlotQueued"]
    assert w.state.runs[first].cancelled
    turn = w.advance(5_000)  # the next one comes before that is over, and takes its place
    assert view(w).waiting == (START_MS + 15_000,)
    turn = w.ended(f"{first}/a", reason=ExitReason.CANCELLED)
    assert slots(turn) == [15]
    assert view(w).skipped == 1


def test_replace_of_what_had_not_begun_begins_at_once():
    w = World()
    w.schedule("s", "@every 5s", overlap=Overlap.REPLACE)
    assert slots(w.advance(15_000)) == [5, 10, 15]
    assert len(w.state.runs) == 1


# -- what was missed ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("catchup", "expected", "missed"),
    [
        (Catchup.NONE, [], 12),
        (Catchup.LATEST, [60], 11),
        (Catchup.ALL, [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60], 0),
    ],
)
def test_after_a_pause_of_the_master_it_is_as_the_policy_says(catchup, expected, missed):
    w = World({"w1": 99})
    w.schedule("s", "@every 5s", catchup=catchup, overlap=Overlap.ALLOW, end_ms=START_MS + 60_000)
    w.now_ms += 10 * MINUTE
    w.restart()
    turn = w.turn()
    assert slots(turn) == expected
    assert view(w).missed == missed
    assert news(w.advance(10 * MINUTE)) == []


@pytest.mark.parametrize(
    ("catchup", "expected"), [(Catchup.NONE, []), (Catchup.LATEST, [8 * 3_600])]
)
def test_a_jump_of_the_wall_is_as_if_no_master_had_been_there(catchup, expected):
    w = World({"w1": 9})
    w.schedule("s", "0 * * * *", zone="UTC", catchup=catchup, overlap=Overlap.ALLOW)
    w.now_ms += 8 * 3_600_000 + MINUTE
    w.core.time_jumped(w.now_ms)
    assert [slot + START_MS // 1000 for slot in slots(w.turn())] == expected
    # START_MS is 00:16:40; from now on the hours are the wall's again.
    assert [slot + START_MS // 1000 for slot in slots(w.advance(60 * MINUTE))] == [9 * 3_600]


def test_what_is_only_late_is_not_missed():
    w = World({"w1": 99})
    w.schedule("s", "@every 5s", overlap=Overlap.ALLOW)
    w.now_ms += 15_000 + SLOT_GRACE_MS
    w.restart()
    assert slots(w.turn()) == [15, 20, 25]
    assert view(w).missed == 2


def test_nothing_older_than_the_window_is_caught_up_with():
    w = World({"w1": 99})
    options = {"catchup": Catchup.ALL, "catchup_window_ms": 60_000, "overlap": Overlap.ALLOW}
    w.schedule("s", "@every 20s", **options)
    w.now_ms += 10 * MINUTE
    w.restart()
    turn = w.turn()
    assert slots(turn) == [540, 560, 580, 600]
    assert passed(turn) == [(520, 26, True)]


def test_of_very_many_only_the_newest_are_caught_up_with():
    w = World({"w1": 1})
    options = {"catchup": Catchup.ALL, "overlap": Overlap.ALLOW}
    w.schedule("s", "@every 1s", **options)
    w.now_ms += 12 * 3_600_000
    w.restart()
    turn = w.turn()
    assert len(slots(turn)) == CATCHUP_SLOTS
    assert slots(turn)[-1] == 12 * 3_600
    assert view(w).missed == 1_000  # of so many no more are counted
    assert slots(w.advance(1_000)) == [12 * 3_600 + 1]


def test_each_slot_once_through_restarts_at_any_moment():
    w = World({"w1": 99})
    w.schedule("s", "@every 5s", catchup=Catchup.ALL, overlap=Overlap.ALLOW)
    found = []
    for step in (1_000, 4_000, 7_000, 5_000, 1, 12_345, 60_000, 5_000):
        found += slots(w.advance(step))
        w.restart()
        found += slots(w.turn())
    assert found == [5 * n for n in range(1, len(found) + 1)]
    assert found[-1] == (w.now_ms - START_MS) // 5_000 * 5


# -- bounds ---------------------------------------------------------------------------------------
def test_it_starts_and_ends_when_it_was_told_to():
    w = World({"w1": 99})
    start, end = START_MS + 7_000, START_MS + 20_000
    w.schedule("s", "@every 5s", start_ms=start, end_ms=end, overlap=Overlap.ALLOW)
    assert slots(w.advance(60_000)) == [12, 17]
    assert view(w).next_at_ms == ()
    assert w.core.next_deadline_ms() is None or w.core.next_deadline_ms() > w.now_ms


def test_jitter_shifts_a_slot_always_by_as_much_and_never_past_an_older_one():
    w = World({"w1": 99})
    w.schedule("s", "@every 10s", jitter_ms=60_000, overlap=Overlap.ALLOW)
    begun = []
    for _ in range(40 * 60):
        begun += [(slot, (w.now_ms - START_MS) // 1000) for slot in slots(w.advance(1_000))]
    assert [slot for slot, _ in begun] == [10 * n for n in range(1, len(begun) + 1)]
    assert len(begun) > 200
    late = [at - slot for slot, at in begun]
    assert min(late) >= 0
    assert max(late) <= 61
    assert len(set(late)) > 20


def test_a_slot_for_which_there_is_no_room_is_tried_again_until_it_is_missed():
    w = World({}, CoreConfig(live_runs_max=1))
    w.schedule("s", "@every 1h")
    w.submit(run("r", job("b")))
    assert news(w.advance(3_600_000 + 3_000)) == []
    w.ask(CancelRun(run="r"))
    assert slots(w.advance(1_000)) == [3_600]
    w.ask(CancelRun(run="s-1"))
    w.submit(run("r2", job("b")))
    turn = w.advance(3_600_000 + SLOT_GRACE_MS)
    assert passed(turn) == [(7_200, 1, True)]


def test_nothing_begins_on_a_full_disk():
    w = World({"w1": 4})
    w.schedule("s", "@every 5s")
    w.turn(StorageChanged(room_bytes=0, free_bytes=0, wanted_bytes=1))
    assert slots(w.advance(8_000)) == []
    w.turn(StorageChanged(room_bytes=2**40, free_bytes=2**40, wanted_bytes=1))
    assert slots(w.advance(1_500)) == [5]
    w.turn(StorageChanged(room_bytes=0, free_bytes=0, wanted_bytes=1))
    refused = w.schedule("t", "@every 5s")
    assert "STORAGE_FULL" in effects(refused)[0]


def test_who_finds_no_room_asks_less_and_less_often_and_reads_no_spec_for_it(monkeypatch):
    class Unread:
        def decode(self, body):
            raise AssertionError("a spec is decoded without room for it")

    w = World({}, CoreConfig(live_runs_max=1))
    w.schedule("s", "@every 1h", catchup=Catchup.ALL)
    w.submit(run("r", job("b")))
    w.advance(3_600_000 - 1)
    with monkeypatch.context() as patch:
        patch.setattr(schedules, "_SPEC", Unread())
        w.advance(2)
        refused = w.answer(TriggerSchedule(key="k", schedule="s"))
        assert refused.code is ErrorCode.LIMIT_EXCEEDED
        waits = []
        for _ in range(30):
            waits.append(w.core.next_deadline_ms() - w.now_ms)
            w.advance(waits[-1])
    assert waits[1:9] == [schedules.AGAIN_MS] * 8
    assert waits[-8:] == [schedules.AGAIN_MS_MAX] * 8
    w.ask(CancelRun(run="r"))
    assert slots(w.advance(schedules.AGAIN_MS_MAX)) == [3_600]


def test_a_turn_begins_only_so_many_jobs_and_the_next_ones_the_rest_in_order():
    w = World({}, CoreConfig(slot_jobs_max=4))
    names = [f"s{number}" for number in (3, 1, 2, 0)]
    for name in names:
        w.schedule(name, "@every 1m", job("a"), job("b"), job("c"), start_ms=START_MS)
    w.schedule(
        "t", "@every 30s", catchup=Catchup.ALL, overlap=Overlap.ALLOW, end_ms=START_MS + MINUTE
    )
    w.now_ms = START_MS + MINUTE
    begun = []
    while w.core.next_deadline_ms() <= w.now_ms:
        turn = w.turn()
        jobs = [event.jobs for event in turn.events if hasattr(event, "fired")]
        assert sum(jobs) <= 4 - 1 + 3
        begun += [event.fired.schedule for event in turn.events if hasattr(event, "fired")]
        w.now_ms += SLOT_GRACE_MS  # each turn takes long: nobody is late for that
    assert begun == ["t", "t", *names]
    assert [view(w, name).missed for name in ("t", *names)] == [0] * 5


def test_a_slot_leaves_no_key():
    w = World({"w1": 4})
    w.schedule("s", "@every 5s", overlap=Overlap.ALLOW)
    assert slots(w.advance(20_000)) == [5, 10, 15, 20]
    w.restart()
    assert not w.state.keys
    w.ask(TriggerSchedule(key="k", schedule="s"))
    assert list(w.state.keys) == ["k"]


# -- what breaks the master -----------------------------------------------------------------------
def breaks(monkeypatch, name):
    """From now on the acceptance of this run breaks an invariant."""
    real = core_apply._run_accepted

    def broken(state, event, spec):
        if event.name == name:
            raise InvariantViolation("planted")
        real(state, event, spec)

    monkeypatch.setattr(core_apply, "_run_accepted", broken)


def remember(w):
    """What the engine does about a core that broke, and another start."""
    culprit = w.core.culprit
    w.kept.commit(
        (PoisonRemembered(at_ms=w.now_ms, digest=culprit, what="Schedule"),), w._kept_term
    )
    w._shadow = w.kept.open().state
    found = w.kept.open()
    w._kept_term = found.term
    w._boot(found.state)
    return culprit


def test_a_schedule_whose_run_breaks_the_master_does_so_once(monkeypatch):
    w = World({"w1": 4})
    w.schedule("s", "@every 5s", spec=run("bad", job("a")))
    w.schedule("t", "@every 5s")
    breaks(monkeypatch, "bad")
    with pytest.raises(InvariantViolation):
        w.advance(5_000)
    assert remember(w) == w.state.schedules["s"].digest
    turn = w.turn()
    assert news(turn) == ["SchedulePaused", "RunAccepted"]
    told = view(w)
    assert "broke the master once" in told.paused_why
    assert w.core.culprit == ""
    # Nobody can have it do so again, and a mended version goes on.
    for request in (
        TriggerSchedule(key="k", schedule="s"),
        PauseSchedule(schedule="s", resume=True),
    ):
        assert w.answer(request).code is ErrorCode.INTERNAL
    w.schedule("s", "@every 5s", spec=run("good", job("a")))
    assert view(w).paused_at_ms
    w.ask(PauseSchedule(schedule="s", resume=True))
    assert len(slots(w.advance(5_000))) == 1


def test_whoever_asks_for_its_run_the_schedule_is_to_blame(monkeypatch):
    w = World({"w1": 4})
    w.schedule("s", "@hourly", spec=run("bad", job("a")))
    breaks(monkeypatch, "bad")
    with pytest.raises(InvariantViolation):
        w.ask(TriggerSchedule(key="k", schedule="s"))
    assert w.core.culprit == w.state.schedules["s"].digest


def test_there_may_be_so_many_schedules():
    w = World({}, CoreConfig(schedules_max=2))
    w.schedule("a", "@hourly")
    w.schedule("b", "@hourly")
    refused = w.schedule("c", "@hourly")
    assert "2 (schedules_max) schedules" in effects(refused)[0]
    assert kinds(w.schedule("b", "@daily")) == ["SchedulePut"]


# -- pausing --------------------------------------------------------------------------------------
def test_nothing_fires_while_it_is_paused_and_nothing_is_caught_up_with():
    w = World()
    w.schedule("s", "@every 5s", catchup=Catchup.ALL, overlap=Overlap.QUEUE)
    w.advance(12_000)
    told = w.answer(PauseSchedule(schedule="s", why="the data is wrong"))
    assert (told.paused_by, told.paused_why, told.next_at_ms) == ("ann", "the data is wrong", ())
    assert told.waiting == ()
    assert news(w.advance(60_000)) == []
    w.restart()
    assert news(w.advance(60_000)) == []
    again = w.answer(PauseSchedule(schedule="s"))
    assert again.paused_why == "the data is wrong"
    resumed = w.answer(PauseSchedule(schedule="s", resume=True))
    assert resumed.paused_at_ms == 0
    assert slots(w.last) == []
    w.ask(CancelRun(run="s-1"))
    assert slots(w.advance(5_000)) == [135]


def test_a_slot_that_had_come_is_not_lost_by_a_pause():
    w = World({"w1": 9})
    w.schedule("s", "@every 5s")
    w.now_ms += 5_000
    turn = w.ask(PauseSchedule(schedule="s"))
    assert kinds(turn)[:2] == ["RunAccepted", "SchedulePaused"]


def test_it_pauses_itself_once_a_run_has_failed():
    w = World({"w1": 4})
    w.schedule("s", "@every 5s", pause_on_failure=True)
    w.schedule("t", "@every 5s")
    w.advance(5_000)
    for name in ("s", "t"):
        finish(w, name, 1)
    told = view(w)
    assert told.paused_why == "s-1 has FAILED (pause_on_failure)"
    assert (told.paused_by, told.last.state) == ("", RunState.FAILED)
    assert view(w, "t").paused_at_ms == 0
    assert [
        event.fired.schedule for event in w.advance(5_000).events if hasattr(event, "fired")
    ] == ["t"]
    w.ask(PauseSchedule(schedule="s", resume=True))
    w.turn()
    assert view(w).paused_at_ms == 0  # that failure has been dealt with


def test_a_cancelled_run_is_no_failure():
    w = World({"w1": 4})
    w.schedule("s", "@every 5s", pause_on_failure=True)
    w.advance(5_000)
    w.ask(CancelRun(run="s-1"))
    (run_id,) = w.state.runs
    w.ended(f"{run_id}/a", reason=ExitReason.CANCELLED)
    assert view(w).paused_at_ms == 0


# -- versions -------------------------------------------------------------------------------------
def test_runs_keep_the_version_that_they_began_with():
    w = World({"w1": 9})
    w.schedule("s", "@every 5s", job("a"), overlap=Overlap.ALLOW)
    w.advance(5_000)
    turn = w.schedule("s", "@every 5s", job("b"), overlap=Overlap.ALLOW)
    assert kinds(turn) == ["SchedulePut"]
    assert view(w).version == 2
    w.advance(5_000)
    first, second = w.state.runs.values()
    assert (first.fired.version, list(first.jobs)) == (1, ["a"])
    assert (second.fired.version, list(second.jobs)) == (2, ["b"])


def test_the_same_again_is_no_new_version():
    w = World()
    w.schedule("s", "@hourly")
    turn = w.schedule("s", "@hourly")
    assert kinds(turn) == []
    assert "known=True" in effects(turn)[0]


def test_a_slot_that_had_come_is_the_old_versions():
    w = World({"w1": 9})
    w.schedule("s", "@every 5s", job("a"))
    w.now_ms += 5_000
    turn = w.schedule("s", "@every 5s", job("b"))
    assert kinds(turn)[:2] == ["RunAccepted", "SchedulePut"]
    assert slots(w.advance(4_000)) == []


@pytest.mark.parametrize("how", ["put", "pause"])
@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE])
def test_a_slot_whose_jitter_still_runs_begins_before_its_version_goes(how, overlap):
    w = World({"w1": 9})
    w.schedule("s", "@every 1h", jitter_ms=3_000_000, overlap=overlap)
    calendar = w.core._draft.calendars.of(w.state.schedules["s"])
    assert calendar.due_ms(START_MS + 3_600_000) > START_MS + 3_601_000
    assert slots(w.advance(3_601_000)) == []
    if how == "put":
        turn = w.schedule("s", "@every 1h", job("b"), overlap=overlap)
    else:
        turn = w.ask(PauseSchedule(schedule="s"))
    assert slots(turn) == [3_600]
    assert (view(w).fired, view(w).missed) == (1, 0)
    (begun,) = w.state.runs.values()
    assert (begun.fired.version, list(begun.jobs)) == (1, ["a"])
    w.ask(CancelRun(run="s-1"))
    if how == "pause":
        w.ask(PauseSchedule(schedule="s", resume=True))
    assert slots(w.advance(3_000_000)) == []  # nor once more


def test_an_old_failure_pauses_no_later_version():
    w = World({"w1": 9})
    w.schedule("s", "@every 5s")
    w.advance(5_000)
    finish(w, code=1)
    w.advance(5_000)
    finish(w)
    w.schedule("s", "@every 5s", pause_on_failure=True)
    assert slots(w.advance(5_000)) == [15]
    # What fails while it stands still is dealt with by whoever puts another version, too.
    w.ask(PauseSchedule(schedule="s"))
    finish(w, code=1)
    w.schedule("s", "@every 5s", job("b"), pause_on_failure=True)
    w.ask(PauseSchedule(schedule="s", resume=True))
    assert slots(w.advance(5_000)) == [20]
    assert view(w).paused_at_ms == 0


def test_replacing_keeps_the_pause_and_the_steps():
    w = World({"w1": 9})
    w.schedule("s", "@every 5s")
    w.now_ms += 3_000
    w.ask(PauseSchedule(schedule="s"))
    w.schedule("s", "@every 5s", job("b"))
    assert view(w).paused_at_ms
    assert news(w.advance(10_000)) == []
    w.ask(PauseSchedule(schedule="s", resume=True))
    assert slots(w.advance(5_000)) == [15]


def test_what_waited_fits_any_later_policy():
    w = World({"w1": 9})
    w.schedule("s", "@every 5s", overlap=Overlap.QUEUE)
    w.advance(12_000)
    w.schedule("s", "@every 5s", overlap=Overlap.ALLOW)
    assert slots(w.advance(5_000)) == [15]
    finish(w)
    assert view(w).waiting == ()
    assert view(w).fired == 3


# -- triggering and removing ----------------------------------------------------------------------
def test_triggering_runs_it_now_and_moves_nothing():
    w = World({"w1": 9})
    w.schedule("s", "@every 5s")
    w.ask(PauseSchedule(schedule="s"))
    w.now_ms += 1_234
    receipt = w.answer(TriggerSchedule(key="k", schedule="s"), who="bob")
    assert isinstance(receipt, RunReceipt)
    assert receipt.alias == "s-1"
    run_ = w.state.runs[receipt.run_id]
    assert (run_.owner, run_.fired.triggered, run_.fired.slot_at_ms) == ("bob", True, w.now_ms)
    again = w.answer(TriggerSchedule(key="k", schedule="s"), who="bob")
    assert (again.run_id, again.known) == (receipt.run_id, True)
    other = w.answer(TriggerSchedule(key="k", schedule="other"))
    assert other.code is ErrorCode.CONFLICT
    assert (view(w).fired, view(w).last.triggered) == (0, True)


def test_a_removed_schedule_fires_no_more_and_its_runs_go_on():
    w = World({"w1": 9})
    w.schedule("s", "@every 5s")
    w.advance(5_000)
    gone = w.answer(RemoveSchedule(schedule="s"))
    assert gone.fired == 1
    assert news(w.advance(20_000)) == []
    (run_id,) = w.state.runs
    assert kinds(w.ended(f"{run_id}/a"))[-1] == "RunEnded"
    w.restart()
    assert isinstance(view(w), Error)
    # One of the same name is another one.
    w.schedule("s", "@every 7s")
    assert view(w).fired == 0


@pytest.mark.parametrize(
    "request_",
    [
        GetSchedule(schedule="x"),
        PauseSchedule(schedule="x"),
        TriggerSchedule(key="k", schedule="x"),
        RemoveSchedule(schedule="x"),
    ],
)
def test_what_is_not_there_is_not_found(request_):
    w = World()
    told = w.answer(request_)
    assert told.code is ErrorCode.NOT_FOUND
    assert "titan schedule ls" in told.message


def test_they_are_listed_by_name_page_by_page():
    w = World()
    for name in ("c", "a", "b"):
        w.schedule(name, "@hourly")
    first = w.answer(ListSchedules(limit=2))
    assert isinstance(first, ScheduleList)
    assert [one.name for one in first.schedules] == ["a", "b"]
    second = w.answer(ListSchedules(limit=2, cursor=first.cursor))
    assert ([one.name for one in second.schedules], second.cursor) == (["c"], "")
    assert isinstance(second.schedules[0], ScheduleView)
    assert len(second.schedules[0].next_at_ms) == 5


def test_a_thousand_of_one_moment_fire_in_one_turn():
    w = World({"w1": 4}, CoreConfig(placements_max=10))
    for number in range(300):
        w.schedule(f"s{number}", "@every 1m", start_ms=START_MS)
    w.now_ms = START_MS + MINUTE
    turn = w.turn()
    assert len(slots(turn)) == 300
    assert len(w.state.runs) == 300
    assert events(turn)[0].startswith("RunAccepted")
