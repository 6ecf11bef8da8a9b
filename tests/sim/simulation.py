"""One seed: a cluster is drawn, used, hurt, healed, and must come to rest with every promise kept."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from tests.sim import workload
from tests.sim.checkers import Auditor
from tests.sim.clients import Client
from tests.sim.coverage import Coverage
from tests.sim.faults import Faults
from tests.sim.master import Master
from tests.sim.network import Network
from tests.sim.processes import Host
from tests.sim.worker import Machine
from tests.sim.world import Violation, World
from titan_master.core.state import State
from titan_master.core.state import digest as master_digest_of
from titan_proto.states import RunState

WORKERS_MIN, WORKERS_MAX = 2, 5
RUNS_MIN, RUNS_MAX = 3, 8
JOBS_MIN, JOBS_MAX = 20, 60
FAULTS_MIN, FAULTS_MAX = 3, 18
SUBMITTED_WITHIN_MS = 18_000
HEALED_WITHIN_MS = 600_000
LOOK_EVERY_MS = 500
STEPS_MAX = 400_000


class Failure(AssertionError):
    """A seed failed; the text says where, and how to see it again."""


class Result(Struct, frozen=True):
    """What one seed came to."""

    seed: int
    digest: str
    steps: int
    lasted_ms: int
    drawn: str
    counts: dict[str, Counter[str]]


class Simulation:
    """The cluster of one seed."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.world = world = World(seed, tracing=tracing)
        self.coverage = Coverage()
        self.network = Network(world)
        self.auditor = Auditor(world, self.coverage)
        self.master = Master(world, self.network, self.auditor, self.coverage)
        # Workers of one data folder, and perhaps others that have each their own.
        self.together = world.between(2, WORKERS_MAX) if world.chance(30) else 0
        # Few hosts: machines that are one share its ports, whoever their folders belong to.
        self.hosts = [Host(world, f"sim{n}") for n in range(world.between(1, WORKERS_MAX))]
        self.machines = [self._machine(n) for n in range(world.between(WORKERS_MIN, WORKERS_MAX))]
        self.clients = [
            Client(world, self.network, self.coverage, f"client{n}", stranger=False)
            for n in range(world.between(1, 3))
        ]
        self.stranger: Client | None = None
        self.jobs = world.between(JOBS_MIN, JOBS_MAX)
        self.runs = world.between(RUNS_MIN, RUNS_MAX)
        self.resting = False
        self._started_ms = world.now_ms

    def run(self) -> Result:
        """Let it happen. Raises Failure."""
        world = self.world
        try:
            self._begin()
            while not self.resting:
                if not world.advance():
                    raise Violation("nothing is due any more, and nothing is finished")
                if world.step > STEPS_MAX:
                    raise Violation(f"no rest after {STEPS_MAX} steps: {self._restless()}")
            self._finish()
        # A core may fail in any way here: whatever it is, it must say how to see it again.
        except Exception as error:
            raise Failure(
                f"seed {world.seed} failed at step {world.step}: {type(error).__name__}: {error}\n"
                f"replay: nox -s sim -- --seed {world.seed} --trace\n"
                f"    or: python -m tests.sim --seed {world.seed} --trace"
            ) from error
        return Result(
            seed=world.seed,
            digest=world.digest(),
            steps=world.step,
            lasted_ms=world.now_ms - self._started_ms,
            drawn=f"{sum(one.parent is None for one in self.machines)} workers, {self.runs} runs, {self.jobs} jobs, "
            f"{len(self.faults.plan)} faults",
            counts=self.coverage.counts,
        )

    # -- the beginning ----------------------------------------------------------------------------

    def _machine(self, number: int) -> Machine:
        world = self.world
        # The first has every skill, so that every job can run somewhere.
        skills = workload.SKILLS if number == 0 or world.chance(20) else workload.SKILLS[:1]
        slots = world.between(1, workload.SLOTS_MAX)
        machine = Machine(
            world,
            self.network,
            self.auditor,
            self.coverage,
            number=number,
            slots=slots,
            skills=skills,
            host=self.hosts[0]
            if number < max(1, self.together)
            else world.random.choice(self.hosts),
            resources=workload.draw_resources(world, all_of_it=number == 0),
            folder="folder" if number < self.together else "",
        )
        self.auditor.machine(machine.name, slots)
        machine.nursery.made = self._folder_made
        return machine

    def _folder_made(self, child: Machine) -> None:
        """A worker that was spawned suffers what all suffer, and may spawn others."""
        child.nursery.made = self._folder_made
        self.machines.append(child)

    def _begin(self) -> None:
        world = self.world
        self.master.start()
        for machine in self.machines:
            world.after(world.between(0, 1_500), machine.start)
        self._ask()
        self.faults = Faults(
            world,
            self.network,
            self.master,
            self.machines,
            self.clients,
            self.coverage,
            world.between(FAULTS_MIN, FAULTS_MAX),
        )
        world.trace("SEED", [kind.value for _at, _place, kind in self.faults.plan])
        world.after(LOOK_EVERY_MS, self._look)

    def _ask_nightly(self) -> None:
        """The same pipeline every night, or nearly, which finds its service there."""
        world, at_ms = self.world, 0
        spec = workload.draw_nightly(world)
        for night in range(world.between(2, 4)):
            at_ms += world.between(1_000, 15_000)
            if world.chance(20):
                spec = workload.draw_nightly(world)
            key = f"night{night}"
            client = world.random.choice(self.clients)
            client.add(key, workload.submit(world, self.auditor, spec, key), at_ms)

    def _ask(self) -> None:
        world = self.world
        left = self.jobs
        for number in range(self.runs):
            more = self.runs - number - 1
            jobs = left if not more else world.between(1, max(1, left - more))
            left -= jobs
            key = f"key{number}"
            spec = workload.draw_run(world, jobs, workload.SKILLS)
            client = world.random.choice(self.clients)
            after_ms = world.between(0, SUBMITTED_WITHIN_MS)
            client.add(key, workload.submit(world, self.auditor, spec, key), after_ms)
            if world.chance(15):
                other = world.random.choice(self.clients)
                other.add(f"rival {key}", workload.rival(world, self.auditor, spec, key), after_ms)
            if world.chance(25):
                other = world.random.choice(self.clients)
                other.add(f"cancel {key}", workload.cancel(world, self.auditor, key), after_ms)
        if world.chance(40):
            self._ask_nightly()
        for number in range(world.between(1, 2) if world.chance(50) else 0):
            client = world.random.choice(self.clients)
            name = f"schedule{number}"
            errand = workload.keep_schedule(world, self.auditor, name)
            client.add(name, errand, world.between(0, SUBMITTED_WITHIN_MS))
        for client in self.clients:
            client.add("look", workload.look(world, self.auditor, world.between(2, 10)), 500)
        self.clients[0].add("house", workload.keep_house(world, self._over), 5_000)
        keeper = world.random.choice(self.clients)
        keeper.add("gates", workload.keep_gates(world, self.auditor, self._over), 1_000)
        if world.chance(10):
            self.stranger = Client(world, self.network, self.coverage, "stranger", stranger=True)
            self.stranger.add("knock", workload.knock(), 1_000)

    # -- the end ----------------------------------------------------------------------------------

    def _over(self) -> bool:
        return self.faults.over and not self._errands() and not self.auditor.unfinished()

    def _errands(self) -> list[str]:
        return [
            f"{client.life.name} {task.name}"
            for client in self.clients
            for task in client.tasks
            if task.name not in {"house", "gates"}
        ]

    def _restless(self) -> list[str]:
        """What stands between this cluster and its rest."""
        found = [] if self.faults.over else ["faults still strike"]
        found += self._errands() + self.auditor.unfinished()
        if self.master.process is None:
            found.append("the master is down")
        for machine in self.machines:
            process = machine.process
            if machine.parent is not None:
                if process is None:
                    found += [f"{machine.name} left {ref}" for ref in machine.processes.live]
                    continue
                if not self.auditor.expected(machine.ledger.worker_id):
                    found.append(f"{machine.name} was spawned, and has nothing to do")
            if process is None or not process.joined:
                found.append(f"{machine.name} is not joined")
                continue
            found += [f"{machine.name} holds {ref}" for ref in process.core.state.held]
            found += [f"{machine.name} runs {ref}" for ref in machine.processes.live]
        return found

    def _look(self) -> None:
        """Now and then: is it over, or should it be?"""
        if self.stranger is not None and self.stranger.refusals >= 2:
            self.stranger.life.end()
        if self.master.process is not None:
            self.auditor.look()
        if self.faults.over:
            restless = self._restless()
            if not restless:
                self.resting = True
                return
            if self.world.now_ms - self._started_ms > HEALED_WITHIN_MS:
                raise Violation(f"no rest within {HEALED_WITHIN_MS} ms: {restless[:12]}")
        self.world.after(LOOK_EVERY_MS, self._look)

    def _finish(self) -> None:
        auditor = self.auditor
        auditor.finish()
        assert self.master.process is not None
        state = self.master.process.core.state
        auditor.check(not state.spawns, f"is waited for at the end: {state.spawns}")
        auditor.check(not state.runs, f"ended runs stay in memory: {list(state.runs)}")
        auditor.check(not state.gates, f"closed gates stay open in memory: {list(state.gates)}")
        auditor.check(not state.services, f"ended services stay in memory: {state.services}")
        for worker in state.workers.values():
            auditor.check(not worker.held, f"{worker.name} holds {worker.held} and nothing runs")
        self._check_history(state)

    def _check_history(self, state: State) -> None:
        """History says what the journal says, and a new process would know what this one knows."""
        store = self.master.store
        for book in self.auditor.runs.values():
            view = store.run(book.run_id)
            jobs = store.jobs(book.run_id, "", 1_000)
            self.auditor.check(
                view is not None and jobs is not None, f"{book.run_id} is no history"
            )
            assert view is not None
            assert jobs is not None
            self.auditor.check(view.state is book.state, f"history says {view}, not {book.state}")
            self.auditor.check(view.state is not RunState.ACTIVE, f"{view} is history and active")
            for job in jobs.jobs:
                end = book.jobs[job.job_id].end
                self.auditor.check(job.state is end, f"history says {job}, the journal {end}")
                self.auditor.told_job(job)
        recovered = store.open().state
        self.auditor.check(
            master_digest_of(recovered) == master_digest_of(state),
            "the journal folds into another state than the last",
        )
        self.world.remember(master_digest_of(recovered).encode())


def simulate(seed: int, *, tracing: bool = False) -> Result:
    """Run one seed. Raises Failure."""
    return Simulation(seed, tracing=tracing).run()
