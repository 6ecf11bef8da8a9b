"""Partitions as networks have them: two namespaces, a wire, and packets that are dropped.

    master and a worker (ns A, 10.78.0.1) ── veth ── the other worker (ns B, 10.78.0.2)

The kernel's own retransmissions and timeouts take part here, which no proxy can play.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos import journal
from tests.chaos.audit import check_journal, read_marks
from tests.chaos.load import Promise, job_line
from tests.harness.cluster import Daemon
from tests.harness.processes import jobs_of
from tests.harness.waiting import wait_until

pytestmark = [
    pytest.mark.needs("root"),
    pytest.mark.needs("ip"),
    pytest.mark.needs("iptables"),
    pytest.mark.timeout(120),
]

MASTER = "10.78.0.1"
FAR = "10.78.0.2"
LEASE_S = 2.0
JOB_S = 1.0
CONVERGE_S = 2 * LEASE_S
MARGIN_S = 2.0
"""For the last job itself, and a busy machine."""


def sh(line: str) -> None:
    """Run it; it must succeed."""
    done = subprocess.run(
        line.split(),
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"


class Wire:
    """Two namespaces and what joins them; every drop is made in B, so only its worker suffers."""

    def __init__(self) -> None:
        mark = f"c{os.getpid() % 100000}"
        self.a, self.b = f"{mark}a", f"{mark}b"

    def make(self) -> None:
        """Up, and nothing dropped."""
        for name in (self.a, self.b):
            sh(f"ip netns add {name}")
            sh(f"ip -n {name} link set dev lo up")
        sh(f"ip -n {self.a} link add wa type veth peer name wb netns {self.b}")
        for name, link, address in ((self.a, "wa", MASTER), (self.b, "wb", FAR)):
            sh(f"ip -n {name} addr add {address}/24 dev {link}")
            sh(f"ip -n {name} link set dev {link} up")

    def drop(self, *chains: str) -> None:
        """What comes in (INPUT), what goes out (OUTPUT)."""
        for chain in chains:
            sh(f"ip netns exec {self.b} iptables -A {chain} -p tcp -j DROP")

    def heal(self) -> None:
        """Let everything through."""
        sh(f"ip netns exec {self.b} iptables -F")

    def remove(self) -> None:
        """Both."""
        for name in (self.a, self.b):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class Split:
    """A master and a worker on one side, a worker on the other."""

    def __init__(self, folder: Path, wire: Wire, stack: ExitStack) -> None:
        self.wire = wire
        self.data = folder / "master"
        self.home = folder / "w"
        self.marks = folder / "marks"
        self.marks.touch()
        self._folder = folder
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("TITAN_")}
        self._env["XDG_STATE_HOME"] = str(folder / "state")
        self._stack = stack
        self._start(
            "master",
            wire.a,
            *("titan_master", "start", "--data", str(self.data), "--insecure"),
            *("--listen", f"{MASTER}:9090", "--lost-after", f"{LEASE_S:g}s"),
        )
        self._env["TITAN_TOKEN"] = (self.data / "token").read_text().strip()
        self._env["TITAN_MASTER"] = f"{MASTER}:9090"
        for port, name in ((8080, wire.a), (8081, wire.b)):
            self._start(
                "worker",
                name,
                *("titan_worker", str(port), MASTER, "9090", "--data", str(self.home)),
            )

    def _start(self, what: str, namespace: str, *command: str) -> None:
        daemon = Daemon(
            [sys.executable, "-m", *command],
            ready=re.compile(f"titan-{what} ready"),
            log=self._folder / f"{namespace}-{what}.log",
            env=self._env,
            cwd=self._folder,
            prefix=("ip", "netns", "exec", namespace),
        )
        self._stack.callback(daemon.stop)
        daemon.wait_ready()

    def python(self, program: str) -> str:
        """A program on the master's side, with a `client`; what it prints."""
        head = "from titan_sdk import TitanClient, TitanJob\nclient = TitanClient()\n"
        done = subprocess.run(
            ["ip", "netns", "exec", self.wire.a, sys.executable, "-c", head + program],
            env=self._env,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr + self.logs()
        return done.stdout.strip()

    def submit(self, count: int) -> Promise:
        """A run of equal jobs."""
        line = job_line(self.marks, JOB_S)
        jobs = [f"j{number}" for number in range(count)]
        run_id = self.python(
            f"print(client.submit('split', [TitanJob(id=i, run={line!r}) for i in {jobs!r}]).id)"
        )
        return Promise("split", run_id, dict.fromkeys(jobs, ()), None)

    def has_ended(self, promise: Promise) -> bool:
        """Whether the run is over, by the journal."""
        return any(
            event["run_id"] == promise.run_id for event in journal.of_type(self.data, "RunEnded")
        )

    def faults(self, promise: Promise) -> list[str]:
        """Everything that is wrong with a run that is over, by journal and marks."""
        found = check_journal([promise], (event for _, event in journal.events(self.data))).all()
        ends = {e["job_id"]: e for e in journal.of_type(self.data, "JobEnded")}
        found += [f"{job} is {e['state']}" for job, e in ends.items() if e["state"] != "SUCCEEDED"]
        marks = read_marks(self.marks)
        for job in promise.parents:
            begun = marks.begun[promise.run_id, job]
            if sorted(set(begun)) != sorted(begun):
                found.append(f"{job} began {begun}")
            if (promise.run_id, job, ends[job]["number"]) not in marks.end_at:
                found.append(f"{job} did not finish attempt {ends[job]['number']}")
        return found

    def lost(self) -> int:
        """How often a worker was declared lost."""
        return len(journal.of_type(self.data, "WorkerLost"))

    def online(self) -> int:
        """Workers that the master hears just now."""
        return int(self.python("print(sum(w.state == 'ONLINE' for w in client.stats().workers))"))

    def logs(self) -> str:
        """What the daemons said."""
        return "\n".join(p.read_text(errors="replace") for p in self._folder.glob("*.log"))


@pytest.fixture
def split(tmp_path: Path) -> Iterator[Split]:
    """Ready, both workers joined."""
    wire = Wire()
    try:
        wire.make()
        with ExitStack() as stack:
            yield Split(tmp_path, wire, stack)
        assert jobs_of(tmp_path / "w") == {}
    finally:
        wire.remove()


def both_work(split: Split) -> Callable[[], bool]:
    """Whether jobs have begun on both sides: eight slots are more than one worker has."""
    return lambda: split.marks.read_text().count("begin") >= 8


@pytest.mark.parametrize(
    "chains",
    [("INPUT", "OUTPUT"), ("INPUT",), ("OUTPUT",)],
    ids=["full", "hears nothing", "is not heard"],
)
def test_a_partition_longer_than_the_lease(split: Split, chains: tuple[str, ...]) -> None:
    """The far worker is lost and its jobs are done here; healed, it is back within two leases."""
    promise = split.submit(24)
    wait_until(both_work(split), within_s=20, what="both work")
    split.wire.drop(*chains)
    wait_until(lambda: split.lost() == 1, within_s=2 * LEASE_S + MARGIN_S, what="it is lost")
    split.wire.heal()
    wait_until(lambda: split.online() == 2, within_s=CONVERGE_S + MARGIN_S, what="it is back")
    wait_until(lambda: split.has_ended(promise), within_s=40, what="the run ends")
    assert split.faults(promise) == [], split.logs()
    assert split.lost() == 1


def test_an_outage_shorter_than_the_lease(split: Split) -> None:
    """Ridden out: nothing is lost, nothing runs twice."""
    promise = split.submit(24)
    wait_until(both_work(split), within_s=20, what="both work")
    split.wire.drop("INPUT", "OUTPUT")
    begun = split.marks.read_text().count("begin")
    # A while that the jobs themselves measure: those on this side go on, a second each.
    wait_until(
        lambda: (
            split.marks.read_text().count("begin") > begun
            or journal.of_type(split.data, "WorkerSilent")
        ),
        within_s=LEASE_S,
        what="a moment passes",
    )
    split.wire.heal()
    wait_until(lambda: split.has_ended(promise), within_s=40, what="the run ends")
    assert split.faults(promise) == [], split.logs()
    assert split.lost() == 0
    assert set(map(tuple, read_marks(split.marks).begun.values())) == {(1,)}


def test_a_flapping_wire(split: Split) -> None:
    """Down and up again five times, faster than anybody can settle: one outcome for each job."""
    promise = split.submit(32)
    wait_until(both_work(split), within_s=20, what="both work")
    for _ in range(5):
        split.wire.drop("INPUT", "OUTPUT")
        ended = split.marks.read_text().count("end")
        wait_until(
            lambda ended=ended: (
                split.has_ended(promise) or split.marks.read_text().count("end") >= ended + 2
            ),
            within_s=20,
            what="jobs go on",
        )
        split.wire.heal()
    wait_until(lambda: split.online() == 2, within_s=CONVERGE_S + MARGIN_S, what="it is back")
    wait_until(lambda: split.has_ended(promise), within_s=40, what="the run ends")
    assert split.faults(promise) == [], split.logs()
