"""Calendars: the times of schedules, worked out once a version and kept for as long as it stands.

What a line of times means is `titan_proto.cron`'s to say, whose zones come with Titan; the shells have
had each of them read before a schedule comes here. Nothing here asks what time it is. Called by
``schedules`` and ``queries``.
"""

from __future__ import annotations

import hashlib

from titan_master.core.state import Schedule
from titan_proto.cron import BadCron, Times
from titan_proto.schedules import times_of


class Calendar:
    """The slots of one version of a schedule, between its start and its end."""

    def __init__(self, schedule: Schedule) -> None:
        self.version = (schedule.schedule_id, schedule.version)
        self._schedule_id = schedule.schedule_id
        self._jitter_ms = schedule.spec.jitter_ms
        self._start_ms = schedule.spec.start_ms
        self._end_ms = schedule.spec.end_ms
        self.fault = ""
        """Why there are no times at all; it was sound when it was put there."""
        self._times: Times | None = None
        try:
            self._times = times_of(schedule.spec, schedule.created_at_ms)
        except BadCron as error:
            self.fault = error.message

    def next_ms(self, after_ms: int) -> int | None:
        """The first slot after that moment."""
        if self._times is None:
            return None
        slot_ms = self._times.next_ms(max(after_ms, self._start_ms - 1))
        return None if slot_ms is None or 0 < self._end_ms < slot_ms else slot_ms

    def last_ms(self, until_ms: int, after_ms: int) -> int | None:
        """The last slot up to `until_ms` and after `after_ms`."""
        if self._times is None:
            return None
        until_ms = min(until_ms, self._end_ms or until_ms)
        return self._times.last_ms(until_ms, max(after_ms, self._start_ms - 1))

    def due_ms(self, slot_ms: int) -> int:
        """When a slot begins: at its time, or as much later as its jitter says."""
        if not self._jitter_ms:
            return slot_ms
        dice = hashlib.sha256(f"{self._schedule_id}/{slot_ms}".encode()).digest()
        return slot_ms + int.from_bytes(dice[:6], "big") % (self._jitter_ms + 1)

    def words(self) -> str:
        """Its times in English."""
        return self.fault if self._times is None else self._times.words()


class Calendars:
    """Those of all schedules; a schedule that is gone leaves nothing here."""

    def __init__(self) -> None:
        self._known: dict[str, Calendar] = {}

    def of(self, schedule: Schedule) -> Calendar:
        """That of the present version."""
        found = self._known.get(schedule.name)
        if found is None or found.version != (schedule.schedule_id, schedule.version):
            found = self._known[schedule.name] = Calendar(schedule)
        return found

    def forget(self, name: str) -> None:
        """The schedule is gone."""
        self._known.pop(name, None)
