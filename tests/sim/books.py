"""The auditor's book of schedules: what became of each slot, and whether it may have.

It works the times out by itself: the schedules that are drawn have steps or whole minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.sim.poison import NAME as POISON
from titan_master.core import events as e
from titan_proto.messages import Fired
from titan_proto.specs import Catchup, Overlap, ScheduleSpec

GRACE_MS: Final = 10_000
PUT_OFF_MS: Final = 20_000
"""Other schedules of one moment may keep a slot waiting for so long."""
CAUGHT_UP_WITH: Final = 100
"""So many slots at most at once."""
_UNITS: Final = {"s": 1_000, "m": 60_000}
_MINUTES: Final = {"* * * * *": 60_000, "*/2 * * * *": 120_000}


class ScheduleBook:
    """What the journal has said of one schedule."""

    def __init__(self, event: e.SchedulePut) -> None:
        self.schedule_id = event.schedule_id
        self.created_ms = self.cursor_ms = event.at_ms
        self.version = 0
        self.spec = event.spec
        self.run = event.run
        self.paused = False
        self.live: dict[str, None] = {}
        self.waiting: list[int] = []
        self.hasty_ms = 0
        """When slots were let go before their time, because nobody would ask for them any more."""
        self.failed = False
        """A run of it has failed since it was last put, paused or resumed."""

    def next_ms(self, after_ms: int) -> int:
        """The first slot after that moment, worked out here."""
        found = []
        after_ms = max(after_ms, self.spec.start_ms - 1)
        for text in self.spec.crons:
            step_ms, anchor_ms = _MINUTES.get(text, 0), 0
            if not step_ms:
                number, unit = text.removeprefix("@every ")[:-1], text[-1]
                step_ms, anchor_ms = (
                    int(number) * _UNITS[unit],
                    self.spec.start_ms or self.created_ms,
                )
            steps = max(0, (after_ms - anchor_ms) // step_ms)
            found.append(anchor_ms + (steps + 1) * step_ms)
        return min(found)


class ScheduleBooks:
    """Those of all schedules."""

    def __init__(self, check: Callable[[object, str], None]) -> None:
        self._check = check
        self.books: dict[str, ScheduleBook] = {}
        self.fired: set[tuple[str, int]] = set()
        """Slots that became runs, of schedules by their ids, for ever."""

    def put(self, event: e.SchedulePut) -> None:
        """A new schedule, or a new version."""
        book = self.books.get(event.schedule)
        if book is None:
            book = self.books[event.schedule] = ScheduleBook(event)
        self._check(
            (event.schedule_id, event.version) == (book.schedule_id, book.version + 1),
            f"schedule {event.schedule}: version {event.version} follows {book.version}",
        )
        self._nothing_came(event.schedule, book, event.at_ms)
        book.hasty_ms = 0
        book.version, book.spec, book.run = event.version, event.spec, event.run
        book.cursor_ms = max(book.cursor_ms, event.at_ms)

    def paused(self, event: e.SchedulePaused) -> None:
        """It stands still."""
        book = self.books[event.schedule]
        self._check(not book.paused, f"schedule {event.schedule} is paused twice")
        if event.by:
            self._closed(event.schedule, book, event.at_ms)
        if not event.by:
            self._check(
                (book.spec.pause_on_failure and book.failed) or event.schedule.startswith(POISON),
                f"schedule {event.schedule} pauses itself: {event.why}",
            )
        book.paused, book.waiting, book.failed, book.hasty_ms = True, [], False, 0

    def resumed(self, event: e.ScheduleResumed) -> None:
        """It goes on."""
        book = self.books[event.schedule]
        self._check(book.paused, f"schedule {event.schedule} goes on and was not paused")
        book.paused, book.failed = False, False
        book.cursor_ms = max(book.cursor_ms, event.at_ms)

    def removed(self, event: e.ScheduleRemoved) -> None:
        """It is gone."""
        del self.books[event.schedule]

    def passed(self, event: e.SlotsPassed) -> None:
        """Slots that became nothing: somebody's run went on, or they lie too far back."""
        book = self.books[event.schedule]
        name = f"schedule {event.schedule}: {event}"
        self._check(not book.paused, f"{name}, and it is paused")
        self._check(not book.hasty_ms, f"{name}, after slots were missed that were hardly late")
        self._check(event.until_ms > book.cursor_ms, f"{name}, and that was decided")
        if event.missed:
            behind_ms = event.at_ms - event.until_ms
            if behind_ms <= GRACE_MS:
                book.hasty_ms = event.at_ms
            if book.spec.catchup is Catchup.ALL and behind_ms <= book.spec.catchup_window_ms:
                newer, at_ms = 0, book.next_ms(event.until_ms)
                while at_ms <= event.at_ms and newer < CAUGHT_UP_WITH:
                    newer, at_ms = newer + 1, book.next_ms(at_ms)
                if newer < CAUGHT_UP_WITH:
                    book.hasty_ms = event.at_ms
        else:
            self._check(book.live, f"{name}, and no run went on")
            self._is_next(event.schedule, book, event.until_ms)
        book.cursor_ms = event.until_ms

    def queued(self, event: e.SlotQueued) -> None:
        """A slot waits."""
        book = self.books[event.schedule]
        self._check(not book.paused, f"schedule {event.schedule} is paused, and {event} waits")
        self._check(not book.hasty_ms, f"schedule {event.schedule}: {event}, missed others")
        policy = book.spec.overlap
        self._check(
            policy is Overlap.REPLACE if event.instead else policy is Overlap.QUEUE,
            f"schedule {event.schedule}: {event}, where it should {policy}",
        )
        self._is_next(event.schedule, book, event.slot_at_ms)
        book.waiting = [*([] if event.instead else book.waiting), event.slot_at_ms]
        book.cursor_ms = event.slot_at_ms

    def began(self, event: e.RunAccepted, fired: Fired, *, wanted: bool) -> None:
        """A slot became a run; or somebody wanted one."""
        book = self.books.get(fired.schedule)
        name = f"schedule {fired.schedule}, slot {fired.slot_at_ms}"
        if book is None or book.schedule_id != fired.schedule_id:
            self._check(event.rerun_of, f"{name}: a run of no schedule")
            return
        if fired.triggered:
            self._check(wanted or event.rerun_of, f"{name}: begun, and nobody wanted it")
            book.live[event.run_id] = None
            return
        slot = (fired.schedule_id, fired.slot_at_ms)
        self._check(slot not in self.fired, f"{name}: fired a second time")
        self.fired.add(slot)
        self._check(not book.paused, f"{name}: fired while it is paused")
        self._check(not book.hasty_ms, f"{name}: fired after others were missed before their time")
        self._check(
            not (book.failed and book.spec.pause_on_failure),
            f"{name}: fired, though a run of it has failed",
        )
        self._check(fired.version == book.version, f"{name}: of version {fired.version}")
        self._check(event.spec == book.run, f"{name}: runs what its version does not say")
        self._check(event.at_ms >= fired.slot_at_ms, f"{name}: fired at {event.at_ms}, too early")
        is_alone = not book.live
        self._check(is_alone or book.spec.overlap is Overlap.ALLOW, f"{name}: beside {book.live}")
        if fired.slot_at_ms in book.waiting:
            self._check(fired.slot_at_ms == book.waiting[0], f"{name}: out of turn")
            book.waiting.pop(0)
        else:
            self._is_in_time(name, book.spec, event.at_ms - fired.slot_at_ms)
            self._is_next(fired.schedule, book, fired.slot_at_ms)
            book.cursor_ms = fired.slot_at_ms
        book.live[event.run_id] = None

    def ended(self, run_id: str, schedule: str, *, failed: bool) -> None:
        """A run is over."""
        book = self.books.get(schedule)
        if book is not None and run_id in book.live:
            del book.live[run_id]
            book.failed |= failed and book.spec.pause_on_failure

    def _is_in_time(self, name: str, spec: ScheduleSpec, late_ms: int) -> None:
        reach_ms = GRACE_MS
        if spec.catchup is not Catchup.NONE:
            reach_ms = max(reach_ms, spec.catchup_window_ms)
        # With jitter each may wait for an older one.
        reach_ms += spec.jitter_ms + PUT_OFF_MS
        self._check(late_ms <= reach_ms, f"{name}: fired {late_ms} ms late")

    def _is_next(self, schedule: str, book: ScheduleBook, slot_ms: int) -> None:
        """It is a slot, in its bounds, and none lies between it and the last one decided about."""
        expected = book.next_ms(book.cursor_ms)
        name = f"schedule {schedule} {book.spec}"
        self._check(slot_ms == expected, f"{name}: slot {slot_ms} follows, not {expected}")
        if book.spec.end_ms:
            self._check(slot_ms <= book.spec.end_ms, f"{name}: slot {slot_ms} after its end")

    def _nothing_came(self, schedule: str, book: ScheduleBook, at_ms: int) -> None:
        """Before a new version: what was due has been decided about."""
        if not book.paused and book.version:
            self._closed(schedule, book, at_ms)

    def _closed(self, schedule: str, book: ScheduleBook, at_ms: int) -> None:
        if book.hasty_ms:
            self._check(
                book.hasty_ms == at_ms, f"schedule {schedule} missed slots that were hardly late"
            )
        slot_ms = book.next_ms(book.cursor_ms)
        if 0 < book.spec.end_ms < slot_ms:
            return
        self._check(slot_ms > at_ms, f"schedule {schedule}: slot {slot_ms} was not decided about")
