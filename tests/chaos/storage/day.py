"""A cluster's day for a store: the real core over it, its turns committed as the engine does.

Clients submit, a worker joins and reports, runs end: everything that a journal and history hold.
Called by the campaigns; which disk lies below is theirs.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import msgspec

from titan_master.core.check import check
from titan_master.core.core import Core, CoreConfig
from titan_master.core.effects import Tell
from titan_master.core.inputs import Origin, ReportsArrived, RunSubmitted, WorkerArrived
from titan_master.core.state import digest
from titan_master.store.base import Recovered, Store
from titan_proto.messages import AttemptReport, Join, StartAttempts
from titan_proto.specs import JobSpec, Launch, LaunchKind, RunSpec
from titan_proto.states import AttemptState, ExitReason

_LAUNCH = Launch(kind=LaunchKind.SHELL, shell="true")
_ENCODER = msgspec.msgpack.Encoder()


class Day:
    """One process's life of a master, over a store that has just been opened.

    `attempted` is told of each turn, before its commit: its last record, and the state's digest.
    """

    def __init__(
        self,
        store: Store,
        found: Recovered,
        dice: random.Random,
        attempted: Callable[[int, str], None],
    ) -> None:
        self._store = store
        self._attempted = attempted
        self._term = found.term
        self._dice = dice
        self._now_ms = found.last_at_ms + 1
        self._link = 0
        self._orders: list = []
        self.seq = found.last_seq
        """The last record that is known to be durable."""
        check(found.state)
        self._core = Core(found.state, CoreConfig())
        self._core.start(
            self._now_ms, term=found.term, software="t", cluster_id="c", cluster_name="n"
        )
        self._commit()
        self._join()

    def turn(self) -> None:
        """Let something happen, and make it durable."""
        self._now_ms += self._dice.randrange(1, 2_000)
        if self._orders and self._dice.random() < 0.6:
            self._report()
        else:
            self._submit()
        self._commit()

    def _commit(self) -> None:
        self._core.settle(self._now_ms)
        turn = self._core.drain()
        if turn.events:
            # Before it is known to be durable: after a cut it may be there, but then whole.
            self._attempted(self.seq + len(turn.events), digest(self._core.state))
            self.seq = self._store.commit(turn.events, self._term)
        for effect in turn.effects:
            if isinstance(effect, Tell) and isinstance(effect.message, StartAttempts):
                self._orders += [order.ref for order in effect.message.orders]

    def _join(self) -> None:
        self._link += 1
        join = Join(
            worker_id="w", host="h", port=1, incarnation=self._term, boot_id="b", software="t",
            slots=3, skills=("GENERAL",),
        )  # fmt: skip
        self._core.handle(WorkerArrived(link_id=self._link, join=join), self._now_ms)
        self._commit()

    def _submit(self) -> None:
        names = [f"j{number}" for number in range(self._dice.randrange(1, 4))]
        jobs = tuple(
            JobSpec(
                id=name,
                launch=_LAUNCH,
                dependencies=tuple(names[:at]) if self._dice.random() < 0.5 else (),
            )
            for at, name in enumerate(names)
        )
        # Now and then one that fills several pages.
        name = "n" * (6_000 if self._dice.random() < 0.1 else 5)
        spec = RunSpec(name=name, jobs=jobs)
        body = _ENCODER.encode(spec)
        run_id = f"{self._dice.getrandbits(80):016x}"[:16]
        item = RunSubmitted(
            origin=Origin(900, 1),
            run_id=run_id,
            key=run_id,
            digest=hashlib.sha256(body).hexdigest(),
            spec=spec,
            spec_bytes=body,
            owner="o",
        )
        self._core.handle(item, self._now_ms)

    def _report(self) -> None:
        ref = self._orders.pop(self._dice.randrange(len(self._orders)))
        report = AttemptReport(
            ref=ref,
            state=AttemptState.ENDED,
            reason=ExitReason.EXITED,
            exit_code=self._dice.choice((0, 0, 0, 3)),
        )
        self._core.handle(ReportsArrived(link_id=self._link, reports=(report,)), self._now_ms)
