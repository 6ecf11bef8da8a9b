"""`python -m tests.chaos crashes --cycles N --seed S --report FILE.json`: kill -9, again and again.

One cluster (a master, two workers) under a steady load; each cycle kills the master (7 of 10) or a
worker (3 of 10) at a random moment and starts it again; of the masters one in eight is killed once
more while it is still starting. Every so many cycles, and at the end, the load is drained and
everything that was acknowledged since is audited: each run is there once, each job has one terminal
state and one accepted result, each attempt began once, no child began before its parents had
succeeded, a key asked again is the same run; once every worker has been started again no process of
a job is left. Exits 1 if anything was found.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from msgspec import Struct, field

from tests.chaos import journal
from tests.chaos.audit import Faults, check_journal, check_marks, check_views, read_marks
from tests.chaos.load import Load, Promise
from tests.chaos.results import Result, percentile, write
from tests.harness.cluster import Cluster
from tests.harness.processes import jobs_of
from titan_proto.io.address import parse_address
from titan_proto.io.blocking import BlockingLink
from titan_proto.messages import GetStats, Role
from titan_sdk import TitanClient, TitanJob

MASTER_SHARE = 0.7
TWICE_SHARE = 0.125
LIFE_S = (0.02, 0.5)
"""How long everything lives between two kills."""
CHECK_EVERY = 50
STARTS_MEASURED = 3


class Tally(Struct, kw_only=True):
    """What a campaign comes to."""

    masters: int = 0
    masters_while_starting: int = 0
    workers: int = 0
    runs: int = 0
    jobs: int = 0
    attempts_lost: int = 0
    quarantined: int = 0
    keys_asked_again: int = 0
    faults: Faults = field(default_factory=Faults)
    left: list[str] = []
    recovery_ms: list[float] = []
    start_ms: list[float] = []


class Campaign:
    """One cluster, one load, one pair of dice."""

    def __init__(self, folder: Path, seed: int, backlog: int = 0) -> None:
        self._folder = folder
        self._backlog = backlog
        self._dice = random.Random(seed)
        self._cluster = Cluster(folder / "cluster", lost_after="5s")
        self._marks = folder / "marks"
        self._marks.touch()
        self._load = Load(self._client, self._marks, seed=seed)
        self._journal_seq = 0
        self.tally = Tally()

    def run(self, cycles: int, check_every: int = CHECK_EVERY) -> Tally:
        """So many kills, audited every `check_every`."""
        self.tally.start_ms = [self._own_start_ms(number) for number in range(STARTS_MEASURED)]
        with self._cluster:
            self._cluster.start_master()
            self._cluster.start_worker(8080)
            self._cluster.start_worker(8081)
            if self._backlog:
                self._submit_backlog()
            self._load.start()
            for cycle in range(1, cycles + 1):
                self._cycle()
                if cycle % check_every == 0 or cycle == cycles:
                    self._audit()
                    _say(cycle, cycles, self.tally)
                    if self.tally.faults.all() or self.tally.left:
                        break  # the rest would bury what was found
                    if cycle < cycles:
                        self._load.resume()
            self._load.finish()
        return self.tally

    def logs(self) -> str:
        """What the daemons said."""
        return self._cluster.logs()

    def _client(self) -> TitanClient:
        return TitanClient(master=self._cluster.address, token=self._cluster.token, timeout=60.0)

    def _submit_backlog(self) -> None:
        """One run that is live all the time: every recovery has to bring its jobs back."""
        jobs = [
            TitanJob(id=f"j{number}", command=["true"], skills=["NOBODY-HAS-THIS"])
            for number in range(self._backlog)
        ]
        with self._client() as client:
            client.submit("backlog", jobs)

    # -- killing ------------------------------------------------------------------------------

    def _cycle(self) -> None:
        self._load.go_on(self._dice.uniform(*LIFE_S))
        if self._dice.random() < MASTER_SHARE:
            self._kill_master(twice=self._dice.random() < TWICE_SHARE)
        else:
            self._kill_worker(self._dice.choice((8080, 8081)))

    def _kill_master(self, *, twice: bool) -> None:
        master = self._cluster.master
        assert master is not None
        master.kill()
        if twice:
            started = self._cluster.start_master(ready=False)
            self._load.go_on(self._dice.uniform(0.05, 0.4))
            started.kill()
            self.tally.masters_while_starting += 1
        began = time.monotonic()
        self._cluster.start_master()
        self._ask()
        self.tally.recovery_ms.append((time.monotonic() - began) * 1000)
        self.tally.masters += 1

    def _kill_worker(self, port: int) -> None:
        self._cluster.workers[port].kill()
        self._cluster.start_worker(port)
        self.tally.workers += 1

    def _ask(self) -> None:
        """A stranger's question, answered."""
        address = parse_address(self._cluster.address)
        with BlockingLink.connect(
            address, self._cluster.token, role=Role.CLIENT, software="chaos", timeout_s=20
        ) as link:
            link.call(GetStats(), timeout_s=20)

    def _own_start_ms(self, number: int) -> float:
        """How long a master takes that has nothing to recover, from its start to its first answer."""
        with Cluster(self._folder / f"empty-{number}") as empty:
            began = time.monotonic()
            empty.start_master()
            address = parse_address(empty.address)
            with BlockingLink.connect(
                address, empty.token, role=Role.CLIENT, software="chaos", timeout_s=20
            ) as link:
                link.call(GetStats(), timeout_s=20)
            return (time.monotonic() - began) * 1000

    # -- auditing -----------------------------------------------------------------------------

    def _audit(self) -> None:
        promises = self._load.drain()
        tally = self.tally
        marks = read_marks(self._marks)
        with self._client() as client:
            for promise in promises:
                jobs = client.jobs(promise.run_id)
                tally.faults.add(check_views(promise, client.view(promise.run_id), jobs))
                tally.faults.add(check_marks(promise, jobs, marks))
                self._ask_again(client, promise)
                tally.jobs += len(jobs)
                tally.attempts_lost += sum(job.lost for job in jobs)
                tally.quarantined += sum(job.reason == "QUARANTINED" for job in jobs)
            stats = client.stats()
            if stats.runs_active != (1 if self._backlog else 0):
                tally.faults.stuck.append(f"{stats.runs_active} runs are active")
            if self._backlog and stats.queued != self._backlog:
                tally.faults.lost.append(f"of {self._backlog} waiting jobs {stats.queued} are left")
        events = list(journal.events(self._cluster.data, self._journal_seq))
        tally.faults.add(check_journal(promises, (event for _, event in events)))
        if events:
            self._journal_seq = events[-1][0]
        tally.runs += len(promises)
        self._marks.write_text("")
        # Whoever was killed has been started again; what it left behind must be gone by now.
        tally.left += [f"{pid} {line}" for pid, line in jobs_of(self._cluster.home).items()]

    def _ask_again(self, client: TitanClient, promise: Promise) -> None:
        if promise.request is None:
            return
        again = client.ask(promise.request)
        self.tally.keys_asked_again += 1
        if (again.run_id, again.known) != (promise.run_id, True):
            self.tally.faults.double.append(f"{promise.name}: its key is now {again}")


def _say(cycle: int, cycles: int, tally: Tally) -> None:
    print(
        f"cycle {cycle}/{cycles}: {tally.runs} runs, {tally.jobs} jobs, {tally.masters} masters and "
        f"{tally.workers} workers killed, recovery p50 {percentile(tally.recovery_ms, 50):.0f} ms "
        f"p99 {percentile(tally.recovery_ms, 99):.0f} ms, faults {len(tally.faults.all())}, "
        f"processes left {len(tally.left)}",
        flush=True,
    )


def result(tally: Tally, *, cycles: int, seed: int, backlog: int) -> Result:
    """For the report."""
    own_ms = percentile(tally.start_ms, 50)
    faults = tally.faults
    return Result(
        name="crashes",
        what="kill -9 of master and workers under load, real processes",
        command=(
            f"nox -s chaos-full -- crashes --cycles {cycles} --seed {seed} --backlog {backlog}"
        ),
        seeds=str(seed),
        figures={
            "cycles": str(tally.masters + tally.workers),
            "masters killed": f"{tally.masters}, {tally.masters_while_starting} of them again while starting",
            "workers killed": str(tally.workers),
            "jobs that were live all the time": str(backlog),
            "runs acknowledged": str(tally.runs),
            "jobs": str(tally.jobs),
            "attempts lost with their workers": str(tally.attempts_lost),
            "jobs quarantined (three workers killed under them)": str(tally.quarantined),
            "keys asked again": str(tally.keys_asked_again),
            "acknowledged and lost": str(len(faults.lost)),
            "double runs, results or starts": str(len(faults.double)),
            "jobs stuck": str(len(faults.stuck)),
            "children begun too early": str(len(faults.order)),
            "processes left": str(len(tally.left)),
            "restart to first answer, p50": f"{percentile(tally.recovery_ms, 50):.0f} ms",
            "restart to first answer, p99": f"{percentile(tally.recovery_ms, 99):.0f} ms",
            "of which a start with nothing to recover takes": f"{own_ms:.0f} ms",
            "recovery alone, p50": f"{max(0.0, percentile(tally.recovery_ms, 50) - own_ms):.0f} ms",
            "recovery alone, p99": f"{max(0.0, percentile(tally.recovery_ms, 99) - own_ms):.0f} ms",
        },
        passed=not faults.all() and not tally.left,
        found=(faults.all() + [f"left: {line}" for line in tally.left])[:50],
    )


def main(arguments: list[str]) -> int:
    """The campaign from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos crashes")
    parser.add_argument("--cycles", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backlog", type=int, default=10_000, help="jobs that are always live")
    parser.add_argument("--check-every", type=int, default=CHECK_EVERY)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="titan-crashes-") as made:
        campaign = Campaign(options.keep or Path(made), options.seed, options.backlog)
        tally = campaign.run(options.cycles, options.check_every)
    found = result(tally, cycles=options.cycles, seed=options.seed, backlog=options.backlog)
    for fault in found.found:
        print(fault)
    if options.report is not None:
        write(options.report, found)
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
