"""Schedules: which slots become runs, and what becomes of all others.

A slot is decided about once: an event moves the schedule's cursor past it, and the one that begins a run is
the run's own acceptance, so that there is no moment between the two. Nothing is remembered but the cursor,
what waits and what goes on: after a restart the same questions come to the same answers. Called by ``core``
for a deadline, and by ``asking``.
"""

from __future__ import annotations

import hashlib
from itertools import accumulate
from typing import Final

import msgspec

from titan_master.core import admission, lifecycle, queries
from titan_master.core.cron import Calendar
from titan_master.core.events import (
    RunAccepted,
    SchedulePaused,
    SchedulePut,
    ScheduleRemoved,
    ScheduleResumed,
    SlotQueued,
    SlotsPassed,
)
from titan_master.core.inputs import Origin, ScheduleSubmitted
from titan_master.core.state import Schedule
from titan_master.core.storage import room_of_run
from titan_master.core.turn import Draft
from titan_proto.errors import ErrorCode
from titan_proto.ids import made_id, slug
from titan_proto.limits import (
    CATCHUP_SLOTS,
    DECISION_CHARS,
    NAME_CHARS,
    PAGE_ITEMS,
    SLOT_GRACE_MS,
    SLOTS_WAITING,
    SUBMIT_KEY_CHARS,
)
from titan_proto.messages import (
    Fired,
    GetSchedule,
    ListSchedules,
    PauseSchedule,
    RemoveSchedule,
    RunReceipt,
    ScheduleList,
    TriggerSchedule,
)
from titan_proto.specs import Catchup, Overlap, RunSpec

COUNTED: Final = 1_000
"""Of slots that have passed so many are counted."""
AGAIN_MS: Final = 1_000
"""A slot for which there is no room is looked at again after so long, while it is only late; ..."""
AGAIN_MS_MAX: Final = 60_000
"""... later after as long as it has waited, up to this."""
_SPEC: Final = msgspec.msgpack.Decoder(RunSpec)


# -- what people ask ------------------------------------------------------------------------------
def put(draft: Draft, item: ScheduleSubmitted) -> None:
    """A new schedule, a new version of one, or nothing new."""
    state = draft.state
    old = state.schedules.get(item.name)
    if old is not None and old.digest == item.digest:
        view = queries.schedule_view(old, draft.calendars.of(old), known=True)
        draft.reply(item.origin, view)
        return
    most = draft.config.schedules_max
    if old is None and len(state.schedules) >= most:
        text = f"{most} (schedules_max) schedules are there already: remove one"
        details = {"limit": "schedules_max"}
        draft.refuse(item.origin, ErrorCode.LIMIT_EXCEEDED, text, details=details)
        return
    wanted_bytes = room_of_run(len(item.run.jobs), len(item.run_bytes))
    if not draft.storage.has_room(wanted_bytes):
        words, details = draft.storage.refusal(wanted_bytes)
        draft.refuse(item.origin, ErrorCode.STORAGE_FULL, words, details=details)
        return
    if old is not None:
        _close(draft, old)
    draft.storage.begin(wanted_bytes)
    draft.emit(
        SchedulePut(
            at_ms=draft.now_ms,
            schedule=item.name,
            schedule_id=item.schedule_id if old is None else old.schedule_id,
            version=1 if old is None else old.version + 1,
            spec=item.spec,
            run=item.run_bytes,
            digest=item.digest,
            owner=item.owner,
            jobs=len(item.run.jobs),
        )
    )
    schedule = state.schedules[item.name]
    draft.reply(item.origin, queries.schedule_view(schedule, draft.calendars.of(schedule)))


def list_all(draft: Draft, origin: Origin, request: ListSchedules) -> None:
    """A page of them, by name."""
    limit = max(1, min(request.limit, PAGE_ITEMS))
    names = sorted(name for name in draft.state.schedules if name > request.cursor)
    page = names[:limit]
    views = tuple(
        queries.schedule_view(schedule, draft.calendars.of(schedule))
        for schedule in (draft.state.schedules[name] for name in page)
    )
    more = page[-1] if len(names) > limit else ""
    draft.reply(origin, ScheduleList(schedules=views, cursor=more))


def get(draft: Draft, origin: Origin, request: GetSchedule) -> None:
    """One of them."""
    schedule = _find(draft, origin, request.schedule)
    if schedule is not None:
        _reply(draft, origin, schedule)


def pause(draft: Draft, origin: Origin, request: PauseSchedule, by: str) -> None:
    """Have it stand still, or go on."""
    if len(request.why) > DECISION_CHARS:
        text = f"a reason of {len(request.why)} characters is more than DECISION_CHARS ({DECISION_CHARS})"
        draft.refuse(origin, ErrorCode.LIMIT_EXCEEDED, text, details={"limit": "DECISION_CHARS"})
        return
    schedule = _find(draft, origin, request.schedule)
    if schedule is None:
        return
    if request.resume and schedule.digest in draft.state.poison:
        draft.refuse(origin, ErrorCode.INTERNAL, _poisoned(schedule))
        return
    if request.resume and schedule.paused_at_ms:
        draft.emit(ScheduleResumed(at_ms=draft.now_ms, schedule=schedule.name))
    elif not request.resume and not schedule.paused_at_ms:
        _close(draft, schedule)
        if not schedule.paused_at_ms:
            draft.emit(
                SchedulePaused(at_ms=draft.now_ms, schedule=schedule.name, by=by, why=request.why)
            )
    _reply(draft, origin, schedule)


def trigger(draft: Draft, origin: Origin, request: TriggerSchedule, by: str) -> None:
    """Run it now, whatever its times and its pause say."""
    if not 0 < len(request.key) <= SUBMIT_KEY_CHARS:
        message = f"a submit key has 1 to {SUBMIT_KEY_CHARS} (SUBMIT_KEY_CHARS) characters"
        draft.refuse(origin, ErrorCode.INVALID_SPEC, message)
        return
    digest = hashlib.sha256(f"trigger {request.schedule}".encode()).hexdigest()
    if admission.known_before(draft, origin, request.key, digest):
        return
    schedule = _find(draft, origin, request.schedule)
    if schedule is None:
        return
    if schedule.digest in draft.state.poison:
        draft.refuse(origin, ErrorCode.INTERNAL, _poisoned(schedule))
        return
    refusal = admission.obstacle(draft, schedule.jobs, _room(schedule))
    if refusal is not None:
        code, words, details = refusal
        draft.refuse(origin, code, words, details=details)
        return
    draft.culprit = schedule.digest
    if schedule.spec.overlap is Overlap.REPLACE:
        _cancel_live(draft, schedule)
    run_id = _begin(draft, schedule, draft.now_ms, key=request.key, digest=digest, triggered_by=by)
    draft.culprit = ""
    fired = schedule.last
    alias = fired.alias if fired is not None and fired.run_id == run_id else ""
    draft.reply(origin, RunReceipt(run_id=run_id, alias=alias))


def remove(draft: Draft, origin: Origin, request: RemoveSchedule) -> None:
    """Take it away; what goes on of it does so."""
    schedule = _find(draft, origin, request.schedule)
    if schedule is None:
        return
    view = queries.schedule_view(schedule, draft.calendars.of(schedule))
    draft.emit(ScheduleRemoved(at_ms=draft.now_ms, schedule=schedule.name))
    draft.reply(origin, view)


def _close(draft: Draft, schedule: Schedule) -> None:
    """Decide about all that has come, its jitter over or not: behind this nobody will ask any more."""
    draft.slots.jobs = 0  # nor in a later turn
    look_at(draft, schedule.name, is_last=True)
    if not schedule.paused_at_ms:
        # For want of room.
        _pass_until(draft, schedule, draft.calendars.of(schedule), draft.now_ms)


def _find(draft: Draft, origin: Origin, name: str) -> Schedule | None:
    schedule = draft.state.schedules.get(name)
    if schedule is None:
        text = f"no schedule is called {name[:NAME_CHARS]!r}; `titan schedule ls` lists them"
        draft.refuse(origin, ErrorCode.NOT_FOUND, text)
    return schedule


def _reply(draft: Draft, origin: Origin, schedule: Schedule) -> None:
    draft.reply(origin, queries.schedule_view(schedule, draft.calendars.of(schedule)))


# -- what time asks -------------------------------------------------------------------------------
def look_at(draft: Draft, name: str, *, is_last: bool = False) -> bool:
    """Decide about every slot whose time has come; ask to be called again for the next one.

    Where nobody will look again, no slot's jitter is waited for. False: this turn has begun as much as it may, and the schedule wants to be looked at in the next one.
    """
    schedule = draft.state.schedules.get(name)
    if schedule is None or schedule.paused_at_ms:
        return True
    if _is_turn_full(draft):
        draft.slots.put_off.setdefault(name, draft.now_ms)
        return False
    draft.culprit = schedule.digest
    is_decided = _look_at(draft, schedule, draft.calendars.of(schedule), is_last=is_last)
    draft.culprit = ""
    return is_decided


def _look_at(draft: Draft, schedule: Schedule, calendar: Calendar, *, is_last: bool) -> bool:
    _pause_itself(draft, schedule, calendar)
    if schedule.paused_at_ms:
        return True
    name, now_ms, slots = schedule.name, draft.now_ms, draft.slots
    if _begin_waiting(draft, schedule) and _decide(draft, schedule, calendar, is_last=is_last):
        slots.forget(name)
        slot_ms = calendar.next_ms(schedule.cursor_ms)
        if slot_ms is not None:
            # What was left over of very many is looked at in the next turn.
            draft.timers.watch_schedule(name, max(calendar.due_ms(slot_ms), now_ms + 1))
        return True
    if _is_turn_full(draft):
        slots.put_off.setdefault(name, now_ms)
        return False
    slots.put_off.pop(name, None)
    waited_ms = now_ms - slots.no_room_ms.setdefault(name, now_ms)
    # For as long as a slot is only late it must not miss the moment in which there is room.
    again_ms = AGAIN_MS if waited_ms <= SLOT_GRACE_MS else min(waited_ms, AGAIN_MS_MAX)
    draft.timers.watch_schedule(name, now_ms + again_ms)
    return True


def _is_turn_full(draft: Draft) -> bool:
    return draft.slots.jobs >= draft.config.slot_jobs_max


def _pause_itself(draft: Draft, schedule: Schedule, calendar: Calendar) -> None:
    why = calendar.fault
    if schedule.digest in draft.state.poison:
        why = _poisoned(schedule)
    elif schedule.failed and schedule.spec.pause_on_failure:
        why = f"{schedule.failed} has FAILED (pause_on_failure)"
    if why:
        draft.emit(SchedulePaused(at_ms=draft.now_ms, schedule=schedule.name, why=why))


def _poisoned(schedule: Schedule) -> str:
    return (
        f"version {schedule.version} of {schedule.name!r} broke the master once and fires no more; "
        f"the log has the cause beside its digest {schedule.digest[:12]}: put another version, then resume"
    )


def _begin_waiting(draft: Draft, schedule: Schedule) -> bool:
    """The slot that has waited longest, once no run goes on. False: there is no room for it."""
    if not schedule.waiting or schedule.live:
        return True
    return _fire(draft, schedule, schedule.waiting[0])


def _decide(draft: Draft, schedule: Schedule, calendar: Calendar, *, is_last: bool) -> bool:
    """All slots that have come. False: there was no room for one, which stays undecided."""
    spec, now_ms = schedule.spec, draft.now_ms
    # Who was kept waiting by other schedules of the same moment is not late for that.
    grace_ms = SLOT_GRACE_MS + now_ms - draft.slots.put_off.get(schedule.name, now_ms)
    reach_ms = grace_ms
    if spec.catchup is not Catchup.NONE:
        reach_ms = max(reach_ms, spec.catchup_window_ms)
    slots = _come(calendar, schedule, now_ms, 0 if is_last else spec.jitter_ms)
    chosen = [slot for slot, begins_ms in slots if begins_ms >= now_ms - reach_ms]
    late = [slot for slot, begins_ms in slots if begins_ms < now_ms - grace_ms]
    late = late[len(slots) - len(chosen) :]
    if spec.catchup is Catchup.LATEST and late:
        is_alone = len(late) == len(chosen)
        chosen = late[-1:] if is_alone else chosen[len(late) :]
    for slot_ms in chosen:
        _pass_until(draft, schedule, calendar, slot_ms - 1)
        if not _offer(draft, schedule, slot_ms):
            return False
    if slots and not chosen:
        _pass_until(draft, schedule, calendar, slots[-1][0])
    return True


def _come(
    calendar: Calendar, schedule: Schedule, now_ms: int, jitter_ms: int
) -> list[tuple[int, int]]:
    """The undecided slots whose time has come, the oldest first, with their times; of many the newest.

    None comes before an older one, whatever its jitter: it waits for that, and is not late meanwhile.
    """
    found: list[int] = []
    sure_ms = until_ms = now_ms - jitter_ms
    while len(found) < CATCHUP_SLOTS:
        slot = calendar.last_ms(until_ms, schedule.cursor_ms)
        if slot is None:
            break
        found.append(slot)
        until_ms = slot - 1
    found.reverse()
    slot = calendar.next_ms(max(sure_ms, schedule.cursor_ms))
    while slot is not None and calendar.due_ms(slot) <= now_ms and len(found) < 2 * CATCHUP_SLOTS:
        found.append(slot)
        slot = calendar.next_ms(slot)
    return list(zip(found, accumulate(map(calendar.due_ms, found), max), strict=True))


def _pass_until(draft: Draft, schedule: Schedule, calendar: Calendar, until_ms: int) -> None:
    """Undecided slots up to then are missed: they lie too far back, or the policy wants none."""
    last_ms = calendar.last_ms(until_ms, schedule.cursor_ms)
    if last_ms is None:
        return
    count, at_ms = 0, calendar.next_ms(schedule.cursor_ms)
    while at_ms is not None and at_ms <= last_ms and count < COUNTED:
        count += 1
        at_ms = calendar.next_ms(at_ms)
    draft.emit(
        SlotsPassed(
            at_ms=draft.now_ms,
            schedule=schedule.name,
            until_ms=last_ms,
            count=count,
            missed=True,
        )
    )


def _offer(draft: Draft, schedule: Schedule, slot_ms: int) -> bool:
    """A slot's turn has come. False: there is no room for it."""
    overlap = schedule.spec.overlap
    if overlap is Overlap.ALLOW or not (schedule.live or schedule.waiting):
        return _fire(draft, schedule, slot_ms)
    if overlap is Overlap.REPLACE:
        _cancel_live(draft, schedule)
    elif overlap is not Overlap.QUEUE or len(schedule.waiting) >= SLOTS_WAITING:
        draft.emit(
            SlotsPassed(at_ms=draft.now_ms, schedule=schedule.name, until_ms=slot_ms, count=1)
        )
        return True
    draft.emit(
        SlotQueued(
            at_ms=draft.now_ms,
            schedule=schedule.name,
            slot_at_ms=slot_ms,
            instead=overlap is Overlap.REPLACE,
        )
    )
    # What was cancelled may be over already: nothing of it had begun.
    return _begin_waiting(draft, schedule)


def _cancel_live(draft: Draft, schedule: Schedule) -> None:
    for run_id in list(schedule.live):
        run = draft.state.runs.get(run_id)
        if run is not None and not run.cancelled:
            lifecycle.cancel_run(draft, run)


def _fire(draft: Draft, schedule: Schedule, slot_ms: int) -> bool:
    """The slot becomes a run. False: there is no room for one, or none in this turn."""
    if _is_turn_full(draft):
        return False
    if admission.obstacle(draft, schedule.jobs, _room(schedule)) is not None:
        return False
    draft.slots.jobs += max(1, schedule.jobs)
    # No key: nobody submits it again, and each would be remembered for a week.
    _begin(draft, schedule, slot_ms, key="", digest=schedule.digest)
    return True


def _begin(
    draft: Draft,
    schedule: Schedule,
    slot_ms: int,
    *,
    key: str,
    digest: str,
    triggered_by: str | None = None,
) -> str:
    """Begin a run for a slot, or for a person, who is named then; its id."""
    state, now_ms = draft.state, draft.now_ms
    spec = _SPEC.decode(schedule.run)
    # No two acceptances of a millisecond have the same place.
    dice = f"{key} {schedule.schedule_id} {slot_ms} {state.fence}"
    run_id = made_id(now_ms, state.runs_accepted, dice)
    short = slug(spec.name)
    draft.storage.begin(_room(schedule))
    admission.begin(
        draft,
        RunAccepted(
            at_ms=now_ms,
            run_id=run_id,
            key=key,
            digest=digest,
            name=spec.name,
            slug=short,
            number=state.slugs.get(short, 0) + 1,
            owner=triggered_by or schedule.owner,
            jobs=len(spec.jobs),
            spec=schedule.run,
            fired=Fired(
                schedule=schedule.name,
                schedule_id=schedule.schedule_id,
                version=schedule.version,
                slot_at_ms=slot_ms,
                triggered=triggered_by is not None,
            ),
        ),
        spec,
    )
    return run_id


def _room(schedule: Schedule) -> int:
    return room_of_run(schedule.jobs, len(schedule.run))
