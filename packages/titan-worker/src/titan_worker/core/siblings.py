"""Siblings: workers that this one was told to spawn, each once, and what has become of them.

An order is written down before anything is done about it, and its number is remembered until the process
is gone and the master has said that it knows enough. A sibling that has joined is a worker like any other:
here it is only watched, so that what it leaves behind when it dies can be cleared away. One that the master
gives up is killed. Where one really starts is the shell's business. Called by ``core``.
"""

from __future__ import annotations

from titan_proto.limits import REPORT_MESSAGE_CHARS
from titan_proto.messages import SpawnReport, SpawnSibling, SpawnVerdicts
from titan_worker.core.effects import BearSibling, EndSibling, FindSibling
from titan_worker.core.inputs import SiblingBegan, SiblingGone
from titan_worker.core.records import (
    SiblingEnded,
    SiblingForgotten,
    SiblingSettled,
    SiblingSpawned,
    SiblingTaken,
)
from titan_worker.core.turn import Draft


class Siblings:
    """The siblings of one worker's process."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._held = draft.state.siblings
        self._boot_id = ""
        self._newest = 0
        """The highest number that was ordered on this link."""
        self._owed: dict[int, str] = {}
        """Ends that the master is to be told on this link, and why they were."""

    def recover(self, boot_id: str) -> None:
        """First thing in a process: earlier ones may have spawned some, which live on without them."""
        self._boot_id = boot_id
        for number, sibling in list(self._held.items()):
            if sibling.ended:
                continue
            if sibling.boot_id != boot_id:
                self._end(number, "its machine has been started again")
                continue
            self._draft.ask(
                FindSibling(
                    order=sibling.order,
                    pid=sibling.pid,
                    start_ticks=sibling.start_ticks,
                    port=sibling.port,
                )
            )
            if sibling.given_up and sibling.pid:
                self._draft.ask(EndSibling(number=number))

    # -- what the master says -------------------------------------------------------------------
    def take(self, order: SpawnSibling, *, is_leaving: bool) -> None:
        """Spawn it, unless this has been said before."""
        number, is_behind = order.number, order.number <= self._newest
        self._newest = max(self._newest, number)
        if number in self._held or is_behind:
            return
        if is_leaving:
            self._owed[number] = "the worker that was to spawn it is leaving"
            return
        self._draft.emit(SiblingTaken(order=order, boot_id=self._boot_id))
        self._draft.ask(BearSibling(order=order))

    def hear(self, verdicts: SpawnVerdicts) -> None:
        """They have joined, or nobody waits for them any more."""
        for number in verdicts.settled:
            self._settle(number, given_up=False)
        for number in verdicts.given_up:
            self._settle(number, given_up=True)

    def _settle(self, number: int, *, given_up: bool) -> None:
        self._owed.pop(number, None)
        sibling = self._held.get(number)
        if sibling is None:
            return
        if sibling.ended:
            self._draft.emit(SiblingForgotten(number=number))
        elif not sibling.settled or (given_up and not sibling.given_up):
            self._draft.emit(SiblingSettled(number=number, given_up=given_up))
            if self._is_out_of_sight(number):
                self._end(number, "")
                return
            if given_up and sibling.pid:
                self._draft.ask(EndSibling(number=number))

    def disown(self) -> None:
        """The worker went over to another cluster: who has not joined the old one is wanted by nobody."""
        for number, sibling in list(self._held.items()):
            if not sibling.settled or sibling.ended:
                self._settle(number, given_up=True)

    # -- what becomes of them -------------------------------------------------------------------
    def began(self, item: SiblingBegan) -> None:
        """Its process is there."""
        sibling = self._held.get(item.number)
        if sibling is None or sibling.ended or sibling.pid:
            return
        self._draft.emit(
            SiblingSpawned(
                number=item.number,
                pid=item.pid,
                start_ticks=item.start_ticks,
                port=item.port,
            )
        )
        if sibling.given_up:
            self._draft.ask(EndSibling(number=item.number))
        elif self._is_out_of_sight(item.number):
            self._end(item.number, "")

    def _is_out_of_sight(self, number: int) -> bool:
        """One that runs elsewhere and has joined: nobody here would ever see its end."""
        sibling = self._held[number]
        return sibling.pid < 0 and sibling.settled and not sibling.given_up

    def gone(self, item: SiblingGone) -> None:
        """Its process has ended, or never came to be."""
        sibling = self._held.get(item.number)
        if sibling is not None and not sibling.ended:
            self._end(item.number, item.message)

    def _end(self, number: int, message: str) -> None:
        sibling = self._held[number]
        self._draft.emit(SiblingEnded(number=number, message=message[:REPORT_MESSAGE_CHARS]))
        if sibling.settled:
            self._draft.emit(SiblingForgotten(number=number))
        else:
            self._owed[number] = sibling.message

    # -- what the master is told ----------------------------------------------------------------
    def link_up(self) -> tuple[SpawnReport, ...]:
        """For Join: all of which no verdict has been heard."""
        self._newest = 0
        self._owed.clear()
        return tuple(
            SpawnReport(number=number, ended=sibling.ended, message=sibling.message)
            for number, sibling in self._held.items()
            if not sibling.settled
        )

    def take_reports(self) -> tuple[SpawnReport, ...]:
        """What has ended since it was said last."""
        reports = tuple(
            SpawnReport(number=number, ended=True, message=message)
            for number, message in self._owed.items()
        )
        self._owed.clear()
        return reports
