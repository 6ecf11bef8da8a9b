"""Random graphs, random news, random trouble: the promises hold after every turn.

World checks the invariants and the equality with a state folded from encoded events each turn;
these tests add what only the whole story shows.
"""

from __future__ import annotations

from core_world import START_MS, World, job, run
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_proto.messages import CancelRun, StartAttempts, StopService
from titan_proto.states import AttemptState, ExitReason, JobState

NAMES = ("w0", "w1", "w2")

OPTIONS = st.fixed_dictionaries(
    {
        "priority": st.integers(0, 10),
        "delay_ms": st.sampled_from([0, 0, 0, 3_000]),
        "at_ms": st.sampled_from([0, 0, 0, 0, START_MS + 2_000]),
        "affinity": st.booleans(),
        "service": st.sampled_from([False, False, False, True]),
        "skills": st.sampled_from([("GENERAL",), ("GENERAL",), ("GPU",)]),
    }
)


@st.composite
def specs(draw, name):
    size = draw(st.integers(1, 7))
    jobs = []
    for n in range(size):
        parents = draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else set()
        jobs.append(job(f"j{n}", *(f"j{p}" for p in sorted(parents)), **draw(OPTIONS)))
    return run(name, *jobs)


class Cluster:
    """A world whose workers do what they are told, when the test lets them."""

    def __init__(self):
        self.w = World()
        self.held = {name: {} for name in NAMES}
        self.ended: dict[str, list] = {name: [] for name in NAMES}
        self.ever: dict[str, list[int]] = {}
        for name in NAMES:
            skills = ("GENERAL", "GPU") if name == "w2" else ("GENERAL",)
            self.see(self.w.join(name, slots=2, skills=skills))

    def see(self, turn):
        """Let orders arrive; remember which attempts were ever placed, and how jobs ended."""
        links = {link_id: name for name, link_id in self.w.links.items()}
        for effect in turn.effects:
            message = getattr(effect, "message", None)
            if isinstance(message, StartAttempts) and effect.link_id in links:
                for order in message.orders:
                    self.held[links[effect.link_id]].setdefault(order.ref, "PREPARING")
        for event in turn.events:
            if type(event).__name__ == "AttemptPlaced":
                numbers = self.ever.setdefault(f"{event.run_id}/{event.job_id}", [])
                numbers.append(event.number)

    def report(self, name, position, kind):
        live = [ref for ref, state in self.held[name].items() if state != "ENDED"]
        if not live or name not in self.w.links:
            return
        ref = live[position % len(live)]
        if kind == "running":
            report = self.w.running_report(str(ref), healthy=True)
            self.held[name][ref] = "RUNNING"
        else:
            code = 0 if kind == "done" else 1
            reason = ExitReason.LOST if kind == "lost" else ExitReason.EXITED
            report = self.w.ended_report(str(ref), code, reason)
            del self.held[name][ref]
        self.see(self.w.report(name, report))
        if kind != "running":
            self.see(self.w.report(name, report))  # and again: the acknowledgement was lost

    def rejoin(self, name, *, restarted):
        join = self.w.joins[name]
        if restarted:
            # Its processes are gone; its ledger says so.
            for ref in self.held[name]:
                self.held[name][ref] = "ENDED"
        held = [(str(ref), state) for ref, state in self.held[name].items()]
        self.see(self.w.join(name, incarnation=join.incarnation + restarted, held=held))
        for ref, state in list(self.held[name].items()):
            if state == "ENDED":
                del self.held[name][ref]
                report = self.w.ended_report(str(ref), 0, ExitReason.LOST)
                self.see(self.w.report(name, report))
            elif self.w.state.workers[name].held.get((ref.run_id, ref.job_id)) != ref.number:
                del self.held[name][ref]

    def do(self, what, number):
        w, name = self.w, NAMES[number % 3]
        if what in ("running", "done", "failed", "lost"):
            self.report(name, number // 3, what)
        elif what == "cut" and name in w.links:
            self.see(w.cut(name))
        elif what in ("rejoin", "restarted"):
            self.rejoin(name, restarted=what == "restarted")
        elif what == "wait":
            self.see(w.advance(number * 1_500))
        elif what == "beat" and name in w.links:
            self.see(w.heartbeat(name))
        elif what == "cancel":
            self.see(w.ask(CancelRun(run=f"r{number % 2}")))
        elif what == "stop":
            self.see(w.ask(StopService(service=f"r{number % 2}/j{number // 3}")))
        elif what == "master":
            self.see(w.restart())

    def finish(self):
        """Trouble is over: everybody joins and does as told."""
        for _ in range(200):
            for name in NAMES:
                if name in self.w.links:
                    self.see(self.w.heartbeat(name))
                if name not in self.w.links or not self.w.core._draft.roster.link_of(name):
                    self.rejoin(name, restarted=False)
            for name in NAMES:
                services = self.w.state.services
                for position, ref in enumerate(list(self.held[name])):
                    is_up = (ref.run_id, ref.job_id) in services
                    spec_kind = self.held[name][ref]
                    if is_up and spec_kind == "RUNNING":
                        self.see(self.w.ask(StopService(service=f"{ref.run_id}/{ref.job_id}")))
                    self.report(name, position, "done")
            self.see(self.w.advance(3_000))
            if not self.w.state.runs:
                return
        raise AssertionError(f"still live: {self.w.state.runs}")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "running",
                "done",
                "done",
                "done",
                "failed",
                "lost",
                "cut",
                "rejoin",
                "restarted",
                "wait",
                "beat",
                "cancel",
                "stop",
                "master",
            ]
        ),
        st.integers(0, 12),
    ),
    max_size=30,
)


@settings(max_examples=120, deadline=None)
@given(first=specs("r0"), second=specs("r1"), steps=STEPS)
def test_whatever_happens_every_run_ends_and_every_promise_is_kept(first, second, steps):
    cluster = Cluster()
    cluster.see(cluster.w.submit(first))
    cluster.see(cluster.w.submit(second))
    for what, number in steps:
        cluster.do(what, number)
        cluster.w.recovered()
    cluster.finish()
    cluster.w.recovered()
    for numbers in cluster.ever.values():
        assert numbers == list(range(1, len(numbers) + 1)), "a number was given twice or skipped"
    for worker in cluster.w.state.workers.values():
        assert len(worker.held) == len(
            [
                one
                for one in cluster.w.state.services.values()
                if one.attempt.worker_id == worker.worker_id
            ]
        )


@settings(max_examples=60, deadline=None)
@given(spec=specs("r0"), data=st.data())
def test_no_job_starts_before_its_parents_and_terminal_states_stay(spec, data):
    w = World({"w1": 3})
    w.join("w2", slots=2, skills=("GENERAL", "GPU"))
    parents = {one.id: set(one.dependencies) for one in spec.jobs}
    done: dict[str, JobState] = {}

    def see(turn):
        for event in turn.events:
            kind = type(event).__name__
            if kind == "AttemptPlaced":
                assert all(done.get(p) is JobState.SUCCEEDED for p in parents[event.job_id])
            ended = event.job_ids if kind == "JobsDropped" else ()
            if kind == "JobEnded":
                ended = (event.job_id,)
            for job_id in ended:
                assert job_id not in done, "a terminal state changed"
                done[job_id] = event.state

    see(w.submit(spec))
    for _ in range(60):
        live = [key for worker in w.state.workers.values() for key in worker.held]
        live = [key for key in live if key not in w.state.services]
        if live and data.draw(st.integers(0, 3)):
            name = "/".join(data.draw(st.sampled_from(live)))
            attempt = w.state.find_attempt(*name.split("/"))
            if attempt.state is AttemptState.PREPARING and data.draw(st.booleans()):
                see(w.running(name, healthy=True))
            else:
                see(w.ended(name, data.draw(st.sampled_from([0, 0, 1]))))
        else:
            see(w.advance(3_000))
            for worker in ("w1", "w2"):
                see(w.heartbeat(worker))
        if "r0" not in w.state.runs:
            break
