"""Whatever happens, in whatever order: the promises hold, and the ledger tells the whole story.

A host that dawdles and fails, a master that changes and repeats itself, a process that dies, played
by hypothesis. World.turn compares the live state with the one folded from the encoded records and
runs every check after each turn; Play adds what only the outside can see.
"""

import collections
import random

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from titan_proto.messages import (
    AttemptReports,
    HeartbeatAck,
    Join,
    Joined,
    Leave,
    ReportAcks,
    ShutDown,
    StartAttempts,
    StopAttempts,
    WorkerStatus,
)
from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.effects import (
    AbandonPrepare,
    Exit,
    Forget,
    HangUp,
    Prepare,
    Probe,
    RenewLease,
    Send,
    Spawn,
    Terminate,
)
from titan_worker.core.inputs import (
    Exited,
    FromMaster,
    LinkDown,
    LinkUp,
    ProbeAnswered,
    Spawned,
    SpawnFailed,
    Started,
    StopRequested,
    WorkspaceFailed,
    WorkspaceReady,
)
from titan_worker.core.records import AnyRecord, AttemptSpared
from titan_worker.core.transitions import ATTEMPT

decode = msgspec.msgpack.Decoder(AnyRecord).decode
DOWN, JOINING, UP = "down", "joining", "up"


class Play:
    """Master, host and clock round one worker. `choose(n)` picks one of n; it alone is random."""

    def __init__(self, world, choose):
        self.world = world
        self.choose = choose
        self.did = collections.Counter()
        self.cluster, self.term = 1, 1
        self.link = DOWN
        self.orders = []
        self.preparing, self.starting, self.living, self.probed = {}, {}, {}, {}
        self.spawned_ever = set()
        self.ends = {}
        self.unheard = {}
        self.guards = {}
        self.beat = 0
        self.take(Started(boot_id="boot"))

    # -- one turn, and what the outside sees of it ----------------------------------------------
    def take(self, *items, after_ms=0):
        for effect in self.world.turn(*items, after_ms=after_ms).effects:
            self.did[type(effect).__name__] += 1
            getattr(self, f"_on_{type(effect).__name__.lower()}", lambda effect: None)(effect)

    def _on_prepare(self, effect):
        assert effect.order.ref not in self.spawned_ever
        self.preparing[effect.order.ref] = effect.order

    def _on_abandonprepare(self, effect):
        # The host may have been ready just now; then its word is on the way and must not matter.
        if self.choose(2):
            self.preparing.pop(effect.ref, None)

    def _on_spawn(self, effect):
        ref = effect.order.ref
        if ref in self.spawned_ever:
            assert effect.order.spec.service is not None, "executed twice"
            assert ref not in self.starting, "started beside itself"
            assert ref not in self.living, "started beside itself"
            assert ref not in self.ends, "started after its end"
            self.did["restarted"] += 1
        self.spawned_ever.add(ref)
        self.starting[ref] = effect.order
        assert (effect.lease_end is not None) == effect.order.spec.exclusive
        if effect.lease_end is not None:
            assert effect.lease_end.term_at_ms > self.world.now_ms, "begun to be stopped at once"
            self.guards[ref] = effect.lease_end.kill_at_ms
        taken = [*self.starting.values(), *self.living.values()]
        slots = sum(order.spec.needs.slots for order in taken)
        assert slots <= self.world.slots, "slots exceeded"

    def _on_terminate(self, effect):
        assert effect.ref in self.spawned_ever, "a signal for nobody"

    def _on_renewlease(self, effect):
        assert effect.ref in self.guards, "a renewal for nobody"
        self.guards[effect.ref] = effect.lease_end.kill_at_ms

    def _on_probe(self, effect):
        self.probed[effect.ref] = effect.port

    def _on_hangup(self, effect):
        assert effect.reason
        self.link = DOWN

    def _on_send(self, effect):
        if isinstance(effect.message, Join):
            assert self.link == JOINING
            return
        assert self.link == UP, f"said before Joined: {effect.message}"
        self.did[type(effect.message).__name__] += 1
        if isinstance(effect.message, WorkerStatus):
            self.beat = effect.message.beat
        if isinstance(effect.message, AttemptReports):
            for report in effect.message.reports:
                self._hear(report)

    def _hear(self, report):
        ref = report.ref
        if report.state is AttemptState.RUNNING:
            assert ref in self.spawned_ever
            return
        assert report.reason is not ExitReason.UNKNOWN
        assert self.ends.setdefault(ref, report) == report, "an end that changed"
        assert ref not in self.living, "said to have ended, and lives"
        self.unheard[ref] = report

    def _on_exit(self, effect):
        self.crash()

    def crash(self):
        """The process dies; the sweep of the next one kills what it left."""
        self.world.crash()
        for what in (
            self.preparing,
            self.starting,
            self.living,
            self.probed,
            self.unheard,
            self.guards,
        ):
            what.clear()
        self.link = DOWN
        self.take(Started(boot_id="boot"))

    # -- what may happen ------------------------------------------------------------------------
    def possible(self):
        """Names of what could happen now; the everyday ones more often."""
        can = ["order", "tick", "junk", "crash", "link_down", "new_term", "stranger", "shutdown"]
        if self.link != UP:
            return can + ["connect"] * 12 + ["host"] * 6
        return (
            can + ["order"] * 5 + ["host"] * 14 + ["ack"] * 3 + ["stop"] * 2 + ["tick", "heard"] * 2
        )

    def happen(self, what):
        self.did[what] += 1
        getattr(self, what)()

    def pick(self, things):
        things = list(things)
        return things[self.choose(len(things))] if things else None

    def said(self, message):
        return FromMaster(message=message)

    def connect(self):
        if self.link == DOWN:
            self.link = JOINING
            term = self.term - (self.choose(6) == 0)
            self.take(LinkUp(cluster_id=f"c{self.cluster}", term=term))
            return
        held = self.world.core.state.held
        stop = [ref for ref in held if self.choose(5) == 0]
        forget = [ref for ref in held if self.choose(5) == 0]
        self.link = UP
        self.take(self.joined(stop=tuple(stop), forget=tuple(forget)))

    def joined(self, **verdict):
        return self.said(
            Joined(
                term=self.term,
                heartbeat_ms=5_000,
                lost_after_ms=30_000,
                moves_services=self.term % 2 == 0,
                **verdict,
            )
        )

    def heard(self):
        if self.beat:
            self.take(self.said(HeartbeatAck(beat=self.beat - self.choose(2))))

    def order(self):
        number = len(self.orders)
        service = (None, None, 0, 8000)[self.choose(4)]
        new = self.world.order(
            f"j{number}",
            service=service,
            grace_ms=self.choose(3) * 1_000,
            timeout_ms=(0, 0, 1, 3_000)[self.choose(4)],
            exclusive=self.choose(3) == 0,
        )
        self.orders.append(new)
        batch = [new] + [o for o in self.orders[-3:] if self.choose(3) == 0]
        # An acknowledged attempt is never ordered again: its end is durable at the master.
        batch = [o for o in batch if o is new or o.ref in self.world.core.state.held]
        self.take(self.said(StartAttempts(term=self.term, orders=tuple(batch))))

    def stop(self):
        ref = self.pick([o.ref for o in self.orders[-6:]])
        if ref is not None:
            reason = self.pick([ExitReason.CANCELLED, ExitReason.STOPPED, ExitReason.UNKNOWN])
            self.take(self.said(StopAttempts(term=self.term, refs=(ref,), reason=reason)))

    def ack(self):
        refs = tuple(self.unheard)[: 1 + self.choose(3)]
        for ref in refs:
            del self.unheard[ref]
        self.take(self.said(ReportAcks(refs=refs)))

    def host(self):
        """The machine gets on with something, well or badly."""
        work = [(self._prepared, ref) for ref in self.preparing]
        work += [(self._started, ref) for ref in self.starting]
        work += [(self._gone, ref) for ref in self.living]
        work += [(self._answered, ref) for ref in self.probed]
        chosen = self.pick(work)
        if chosen is not None:
            chosen[0](chosen[1])

    def _prepared(self, ref):
        del self.preparing[ref]
        bad = self.choose(8) == 0
        self.take(WorkspaceFailed(ref=ref, message="full") if bad else WorkspaceReady(ref=ref))

    def _started(self, ref):
        order = self.starting.pop(ref)
        how = self.choose(8)
        if how == 0:
            self.take(SpawnFailed(ref=ref, message="none"))
        elif how == 1:  # too short to be seen: its end comes first
            self.take(self._exit(ref))
            self.take(Spawned(ref=ref, pid=9, start_ticks=1))
        elif how == 2:  # all of it in one turn
            self.take(Spawned(ref=ref, pid=9, start_ticks=1), self._exit(ref))
        else:
            self.living[ref] = order
            self.take(Spawned(ref=ref, pid=9, start_ticks=1), after_ms=1)

    def _gone(self, ref):
        del self.living[ref]
        self.take(self._exit(ref))

    def _exit(self, ref):
        signal = 9 * (self.choose(4) == 0)
        gone_ms = self.guards.pop(ref, None)
        return Exited(
            ref=ref,
            exit_code=0,
            signal=signal,
            stdout_bytes=1,
            stderr_bytes=0,
            lease_ended=gone_ms is not None and self.world.now_ms >= gone_ms,
        )

    def _answered(self, ref):
        del self.probed[ref]
        self.take(ProbeAnswered(ref=ref))

    def tick(self):
        self.take(after_ms=(1, 500, 2_000, 6_000)[self.choose(4)])

    def link_down(self):
        self.link = DOWN
        self.take(LinkDown())

    def new_term(self):
        self.link_down()
        self.term += 1

    def stranger(self):
        """The master's data is gone: another cluster at the same address. Seldom."""
        if self.choose(3) == 0:
            self.link_down()
            self.cluster, self.term = self.cluster + 1, 1 + self.choose(2)
            self.unheard.clear()

    def shutdown(self):
        """By a signal, or by the master; seldom, because a drain lasts and little happens in it."""
        how = self.choose(6)
        if how == 0:
            self.take(StopRequested())
        elif how == 1 and self.link == UP:
            drain_ms = (None, 0, 500, 20_000)[self.choose(4)]
            self.take(self.said(ShutDown(term=self.term, drain_ms=drain_ms)))

    def junk(self):
        """What makes no sense, or no more: it must change nothing that was promised."""
        ref = self.pick([o.ref for o in self.orders[-8:]]) or self.world.ref("never")
        idle = ref not in self.starting and ref not in self.living
        things = [ReportAcks(refs=(self.world.ref("never"),)), self.joined().message]
        if self.link == UP:
            things.append(StartAttempts(term=self.term - 1, orders=()))
            self.take(self.said(self.pick(things)))
        if idle:
            self.take(
                self.pick(
                    [
                        SpawnFailed(ref=ref, message="late"),
                        Spawned(ref=ref, pid=1, start_ticks=1),
                        self._exit(ref),
                        ProbeAnswered(ref=ref),
                    ]
                )
            )

    # -- the end ----------------------------------------------------------------------------------
    def calm_down(self):
        """Faults stop: a good link, a diligent host, a master that acknowledges. It must settle."""
        self.choose = lambda n: n - 1
        for _ in range(1_000):
            if self.link != UP:
                self.connect()
            elif self.unheard:
                self.ack()
            elif self.preparing or self.starting or self.living:
                self.probed.clear()
                self.host()
            elif self.world.core.state.held:
                # An exclusive one waits for its lease, which a diligent master renews.
                self.take(after_ms=5_000)
                self.heard()
            else:
                break
        assert self.world.core.state.held == {}
        before = self.did["Exit"]
        self.take(StopRequested())
        assert self.did["Exit"] == before + 1


def play(world, choose, steps=80):
    acting = Play(world, choose)
    for _ in range(steps):
        acting.happen(acting.pick(acting.possible()))
    acting.calm_down()
    return acting


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chance=st.randoms(use_true_random=False), slots=st.integers(1, 3))
def test_any_interleaving_keeps_the_promises(new_world, chance, slots):
    play(new_world(slots, drain_ms=3_000), chance.randrange)


def test_the_interleavings_go_everywhere(new_world):
    """A play in which something never happens would prove nothing about it."""
    did, moves, spared = collections.Counter(), set(), 0
    for seed in range(60):
        world = new_world(1 + seed % 3, drain_ms=(0, 3_000)[seed % 2])
        did += play(world, random.Random(seed).randrange).did
        moves |= world.moves
        spared += sum(isinstance(decode(body), AttemptSpared) for body in world.ledger)
    assert moves == ATTEMPT
    assert spared > 10
    effects = (AbandonPrepare, Exit, Forget, HangUp, Prepare, Probe, RenewLease, Send)
    effects += (Spawn, Terminate)
    messages = (AttemptReports, Leave, WorkerStatus)
    missing = [kind.__name__ for kind in effects + messages if did[kind.__name__] < 10]
    assert missing == [], did
    assert did["restarted"] >= 10
