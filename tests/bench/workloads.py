"""W1 to W8, L1 and L2 of logs, C1 to C3 of the clock, V1 and V2 of services, V3 of projects: each runs Titan and its floor in turn, in fresh folders, and returns the figures."""

from __future__ import annotations

import contextlib
import datetime
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, NamedTuple

from tests.bench import floor
from tests.harness.cluster import Cluster
from titan_proto.io.address import Address
from titan_proto.io.blocking import BlockingLink
from titan_proto.limits import BULK_CHUNK_BYTES
from titan_proto.messages import GetStats, PutSchedule, Role, SubmitRun, WaitJob
from titan_proto.specs import ArtifactRef, JobSpec, Launch, LaunchKind, RunSpec, ScheduleSpec
from titan_sdk import TitanClient, TitanJob
from titan_sdk.packaging import pack_folder


class Figure(NamedTuple):
    """One line of the report."""

    name: str
    what: str
    floor: str
    titan: str
    measured: float
    bar: float
    unit: str

    @property
    def reached(self) -> bool:
        """Whether the figure is within its bar."""
        return self.measured <= self.bar


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def true_job(name: str, parents: tuple[str, ...] = ()) -> TitanJob:
    """The smallest job there is."""
    return TitanJob(id=name, command=["true"], dependencies=list(parents))


def _run(client: TitanClient, name: str, jobs: list[TitanJob]) -> float:
    begin = time.perf_counter()
    run = client.submit(name, jobs)
    state = run.wait(timeout=300)
    took = time.perf_counter() - begin
    if state != "SUCCEEDED":
        raise AssertionError(f"{name}: {state}")
    return took


def _compare(
    root: Path, repeats: int, titan: list[TitanJob], floor_jobs: int, slots: int
) -> tuple[float, float, float]:
    """Median floor, median Titan, median of the ratios pair by pair, in turn."""
    floors, titans = [], []
    for turn in range(repeats):
        folder = root / str(turn)
        folder.mkdir(parents=True)
        floors.append(floor.makespan(folder / "floor", floor_jobs, slots, ["true"]))
        with Cluster(folder / "titan") as cluster:
            cluster.start_master()
            cluster.start_worker(8080)
            client = cluster.client()
            _run(client, "warm-up", [true_job("a")])
            titans.append(_run(client, "measured", titan))
            client.close()
    ratios = [t / f for t, f in zip(titans, floors, strict=True)]
    return statistics.median(floors), statistics.median(titans), statistics.median(ratios)


def w1(root: Path, repeats: int) -> list[Figure]:
    """One run of 1,000 independent jobs."""
    jobs = [true_job(f"j{n}") for n in range(1000)]
    base, titan, ratio = _compare(root, repeats, jobs, 1000, 4)
    return [
        Figure(
            "W1",
            "1,000 × `true`, 4 slots: submit → last end known",
            f"{base * 1000:.0f} ms",
            f"{titan * 1000:.0f} ms ({1000 / titan:.0f} jobs/s)",
            ratio,
            2.3,
            "× floor",
        )
    ]


def w2(root: Path, repeats: int) -> list[Figure]:
    """Submit → the process's own first time stamp, on an idle cluster."""
    root.mkdir(parents=True)
    floors, titans = [], []
    with Cluster(root / "titan") as cluster:
        cluster.start_master()
        cluster.start_worker(8080)
        client = cluster.client()
        for turn in range(repeats):
            floors += floor.start_latencies(root / f"floor{turn}", 40)
            for number in range(40):
                job = TitanJob(id="stamp", command=floor.STAMP)
                begin = time.time()
                run = client.submit(f"w2-{turn}-{number}", [job])
                run.wait(timeout=60)
                titans.append(float(client.fetch_logs("stamp", run=run)) - begin)
        client.close()
    p50, p99 = statistics.median(titans), quantile(titans, 0.99)
    base = statistics.median(floors)
    return [
        Figure(
            "W2 p50",
            "one job, idle: submit → process start",
            f"{base * 1000:.2f} ms",
            f"{p50 * 1000:.2f} ms",
            p50 / base,
            2.8,
            "× floor",
        ),
        Figure(
            "W2 p99",
            "the slowest of a hundred",
            f"{quantile(floors, 0.99) * 1000:.2f} ms",
            f"{p99 * 1000:.2f} ms",
            p99 / p50,
            6.0,
            "× its p50",
        ),
    ]


def w3(root: Path, repeats: int) -> list[Figure]:
    """A chain of 200."""
    jobs = [true_job(f"j{n}", (f"j{n - 1}",) if n else ()) for n in range(200)]
    base, titan, ratio = _compare(root, repeats, jobs, 200, 1)
    return [
        Figure(
            "W3",
            "chain of 200: one hop",
            f"{base / 200 * 1000:.2f} ms",
            f"{titan / 200 * 1000:.2f} ms",
            ratio,
            2.8,
            "× floor",
        )
    ]


def _diamond() -> list[TitanJob]:
    middle = [f"m{n}" for n in range(500)]
    return [
        true_job("first"),
        *(true_job(name, ("first",)) for name in middle),
        true_job("last", tuple(middle)),
    ]


def w4(root: Path, repeats: int) -> list[Figure]:
    """1 → 500 → 1: speed, and that it is complete a hundred times of a hundred."""
    base, titan, ratio = _compare(root, repeats, _diamond(), 502, 4)
    complete = 0
    with Cluster(root / "complete") as cluster:
        cluster.start_master()
        cluster.start_worker(8080)
        client = cluster.client()
        for number in range(100):
            run = client.submit(f"diamond-{number}", _diamond())
            if run.wait(timeout=300) == "SUCCEEDED" and all(
                job.attempt == 1 and job.state == "SUCCEEDED" for job in run.jobs()
            ):
                complete += 1
        client.close()
    return [
        Figure(
            "W4",
            "1 → 500 → 1",
            f"{base * 1000:.0f} ms",
            f"{titan * 1000:.0f} ms",
            ratio,
            2.3,
            "× floor",
        ),
        Figure(
            "W4 complete",
            "every job once, of 100 runs",
            "–",
            f"{complete} of 100",
            100 - complete,
            0,
            "incomplete",
        ),
    ]


_PROBER = """
import sys, time
from titan_proto.io.address import Address
from titan_proto.io.blocking import BlockingLink
from titan_proto.messages import GetStats, Role
link = BlockingLink.connect(Address("127.0.0.1", int(sys.argv[1])), sys.argv[2], role=Role.VIEWER,
                            software="bench", timeout_s=10)
print("ready", flush=True)
limit = float(sys.argv[3])
end = time.perf_counter() + limit
while time.perf_counter() < end:
    begin = time.perf_counter()
    link.call(GetStats(), timeout_s=30)
    took = time.perf_counter() - begin
    print(f"{time.time():.4f} {took:.6f}", flush=True)
    time.sleep(0.01)
link.close()
"""


def rss_bytes(pid: int) -> int:
    """Resident memory of a process, as the kernel counts it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def w6(root: Path, repeats: int) -> list[Figure]:
    """100,000 queued jobs in one submission."""
    accepts, memories, during, waiting = [], [], [], []
    for turn in range(max(1, min(repeats, 3))):
        with Cluster(root / str(turn)) as cluster:
            master = cluster.start_master()
            client = cluster.client()
            client.stats()
            jobs = [true_job(f"j{n}") for n in range(100_000)]
            with subprocess.Popen(
                [sys.executable, "-c", _PROBER, str(cluster.port), cluster.token, "12"],
                stdout=subprocess.PIPE,
                text=True,
            ) as prober:
                assert prober.stdout is not None
                prober.stdout.readline()
                began = time.time()
                begin = time.perf_counter()
                client.submit("big", jobs)
                accepts.append(time.perf_counter() - begin)
                ended = time.time()
                samples = [tuple(map(float, line.split())) for line in prober.stdout]
            during += [took for at, took in samples if began <= at <= ended + 0.1]
            waiting += [took for at, took in samples if at > ended + 0.5]
            memories.append(rss_bytes(master.pid))
            client.close()
    return [
        Figure(
            "W6 accepted",
            "100,000 jobs in one submission: durable, run id known",
            "–",
            f"{statistics.median(accepts):.2f} s",
            statistics.median(accepts),
            3.0,
            "s",
        ),
        Figure(
            "W6 memory",
            "the master's RSS while they wait",
            "–",
            f"{statistics.median(memories) / 1e6:.0f} MB",
            statistics.median(memories) / 1e6,
            300,
            "MB",
        ),
        Figure(
            "W6 stats, waiting",
            "a stats query, p99, while they wait",
            "–",
            f"{quantile(waiting, 0.99) * 1000:.1f} ms",
            quantile(waiting, 0.99) * 1000,
            50,
            "ms",
        ),
        Figure(
            "W6 stats, accepting",
            "a stats query, p99, during the acceptance",
            "–",
            f"{quantile(during, 0.99) * 1000:.1f} ms",
            quantile(during, 0.99) * 1000,
            250,
            "ms",
        ),
    ]


def w7(root: Path, repeats: int) -> list[Figure]:
    """Idle: two workers connected, one ended run of 1,000 jobs in history."""
    del repeats
    with Cluster(root) as cluster:
        master = cluster.start_master()
        workers = [cluster.start_worker(8080), cluster.start_worker(8081)]
        client = cluster.client()
        _run(client, "history", [true_job(f"j{n}") for n in range(1000)])
        client.close()
        daemons = {"master": [master.pid], "worker": [worker.pid for worker in workers]}
        before = {pid: cpu_seconds(pid) for pids in daemons.values() for pid in pids}
        begin = time.perf_counter()
        time.sleep(20)  # the measured idleness itself
        span = time.perf_counter() - begin
        figures = []
        for name, bar in (("master", 45), ("worker", 40)):
            memory = max(rss_bytes(pid) for pid in daemons[name]) / 1e6
            cpu = max((cpu_seconds(pid) - before[pid]) / span * 100 for pid in daemons[name])
            figures += [
                Figure(
                    f"W7 {name} RSS",
                    "idle, two workers, 1,000 ended jobs",
                    "–",
                    f"{memory:.1f} MB",
                    memory,
                    bar,
                    "MB",
                ),
                Figure(
                    f"W7 {name} CPU",
                    "of one core, over 20 s",
                    "–",
                    f"{cpu:.2f} %",
                    cpu,
                    0.3,
                    "%",
                ),
            ]
        return figures


def w8(root: Path, repeats: int) -> list[Figure]:
    """A job that prints 100 MB: complete at the master, and byte for byte at the client."""
    script = (
        "import os,sys\n"
        "block = b''.join(b'%07d line of a rather long log\\n' % n for n in range(2560))\n"
        "left = 100_000_000\n"
        "while left:\n"
        "    left -= os.write(1, block[:left])\n"
    )
    lags = []
    same = True
    for turn in range(max(1, min(repeats, 3))):
        folder = root / str(turn)
        with Cluster(folder) as cluster:
            cluster.start_master()
            cluster.start_worker(8080)
            client = cluster.client()
            job = TitanJob(id="print", command=[sys.executable, "-c", script])
            run = client.submit("w8", [job])
            link = BlockingLink.connect(
                Address("127.0.0.1", cluster.port),
                cluster.token,
                role=Role.VIEWER,
                software="bench",
                timeout_s=10,
            )
            view = link.call(WaitJob(run=run.id, job="print"), timeout_s=120)
            stored = cluster.data / "logs" / run.id / "print.1" / "stdout.log"
            deadline = time.time() + 60
            while stored.stat().st_size < 100_000_000 and time.time() < deadline:
                time.sleep(0.002)  # the sampling interval of the figure
            lags.append(time.time() - view.ended_at_ms / 1000)
            link.call(GetStats())
            link.close()
            target = folder / "copy.log"
            with target.open("wb") as out:
                subprocess.run(
                    [sys.executable, "-m", "titan_sdk", "logs", f"{run.id}/print"],
                    stdout=out,
                    env=cluster.client_env(),
                    check=True,
                )
            printed = cluster.home / "titan_workspace" / "jobs" / run.id / "print.1" / "stdout.log"
            same = same and target.read_bytes() == printed.read_bytes()
            client.close()
    lag = statistics.median(lags)
    return [
        Figure(
            "W8",
            "100 MB printed: process's end → all of it at the master",
            "–",
            f"{lag:.2f} s",
            lag,
            1.0,
            "s",
        ),
        Figure(
            "W8 bytes",
            "`titan logs JOB > file` against what the process wrote",
            "–",
            "identical" if same else "different",
            0 if same else 1,
            0,
            "differences",
        ),
    ]


LOG_BYTES = 100_000_000
_PRINTS = f"""
import os
block = b"".join(b"%07d line of a rather long log\\n" % n for n in range(2560))
left = {LOG_BYTES}
while left:
    left -= os.write(1, block[:left])
"""
PRINT = [sys.executable, "-c", _PRINTS]
_BLOCK = b"".join(b"%07d line of a rather long log\n" % n for n in range(2560))
_PRINTED = _BLOCK * (2 + BULK_CHUNK_BYTES // len(_BLOCK))
"""As much of it as a piece of the log can be, from any place of a block on."""


def l1(root: Path, repeats: int) -> list[Figure]:
    """A job that prints 100 MB: from its submission to the last byte at a follower, who compares them all."""
    floors, titans = [], []
    for turn in range(repeats):
        folder = root / str(turn)
        folder.mkdir(parents=True)
        floors.append(floor.log_copy(folder / "floor", PRINT))
        with Cluster(folder / "titan") as cluster:
            cluster.start_master()
            cluster.start_worker(8080)
            client = cluster.client()
            _run(client, "warm-up", [true_job("a")])
            begin = time.perf_counter()
            run = client.submit("l1", [TitanJob(id="print", command=PRINT)])
            size = 0
            for piece in client.read_log(run.id, "print", follow=True):
                place = size % len(_BLOCK)
                if not _PRINTED.startswith(piece.data, place):
                    raise AssertionError(f"other bytes than were printed, after {size}")
                size += len(piece.data)
            titans.append(time.perf_counter() - begin)
            client.close()
            if size != LOG_BYTES:
                raise AssertionError(f"{size} bytes of {LOG_BYTES} came")
    rates = [
        LOG_BYTES / 1e6 / took for took in (statistics.median(floors), statistics.median(titans))
    ]
    return [
        Figure(
            "L1",
            "100 MB printed: submission → the last byte at a follower (150 MB/s is 0.67 s)",
            f"{rates[0]:.0f} MB/s",
            f"{rates[1]:.0f} MB/s",
            statistics.median(titans),
            0.67,
            "s",
        )
    ]


def l2(root: Path, repeats: int) -> list[Figure]:
    """Another job's start while one job floods its log, beside the same on a quiet worker."""
    root.mkdir(parents=True)
    flood = [sys.executable, "-c", "import os\nb = b'y' * 65536\nwhile True: os.write(1, b)"]
    floors: dict[bool, list[float]] = {False: [], True: []}
    titans: dict[bool, list[float]] = {False: [], True: []}
    with Cluster(root / "titan") as cluster:
        cluster.start_master("--log-cap", "16MiB")  # so that the flood is cut all the time
        cluster.start_worker(8080)
        client = cluster.client()

        def start_jobs(name: str, into: list[float]) -> None:
            for number in range(20):
                begin = time.time()
                run = client.submit(f"{name}-{number}", [TitanJob(id="stamp", command=floor.STAMP)])
                run.wait(timeout=60)
                into.append(float(client.fetch_logs("stamp", run=run)) - begin)

        for turn in range(repeats):
            floors[False] += floor.start_latencies(root / f"quiet{turn}", 20)
            start_jobs(f"quiet-{turn}", titans[False])
            with (root / f"flood{turn}.log").open("wb") as log:
                noise = subprocess.Popen(flood, stdout=log)
                try:
                    floors[True] += floor.start_latencies(root / f"noisy{turn}", 20)
                finally:
                    noise.kill()
                    noise.wait()
            (root / f"flood{turn}.log").unlink()
            run = client.submit(f"flood-{turn}", [TitanJob(id="flood", command=flood)])
            next(iter(client.read_log(run.id, "flood", follow=True)))
            start_jobs(f"noisy-{turn}", titans[True])
            run.cancel()
            run.wait(timeout=60)
        client.close()
    delay = {
        name: (statistics.median(found[True]) - statistics.median(found[False])) * 1000
        for name, found in (("floor", floors), ("titan", titans))
    }
    return [
        Figure(
            "L2",
            "a job floods its log: how much later another one starts",
            f"{delay['floor']:.1f} ms",
            f"{delay['titan']:.1f} ms",
            delay["titan"],
            20,
            "ms",
        )
    ]


def v1(root: Path, repeats: int) -> list[Figure]:
    """50 services without slots in one run → all of them up."""
    took = []
    services = [
        TitanJob(id=f"s{n}", type="SERVICE", command=["sleep", "1000"], slots=0)
        for n in range(SERVICES)
    ]
    for number in range(repeats):
        with Cluster(root / f"titan-{number}") as cluster:
            cluster.start_master()
            cluster.start_worker(8080)
            client = cluster.client()
            begun = time.perf_counter()
            run = client.submit("many", services)
            assert run.wait(60) == "SUCCEEDED"
            took.append(time.perf_counter() - begun)
            up = [one for one in client.services() if str(one.state) == "HEALTHY"]
            assert len(up) == SERVICES
            client.close()
    one_s = statistics.median(floor.start_latencies(root / "floor", 40))
    median = statistics.median(took)
    return [
        Figure(
            "V1",
            f"{SERVICES} services, one run → all of them up",
            f"{one_s * SERVICES:.2f} s to start as many",
            f"{median:.2f} s",
            median,
            0.4,
            "s",
        )
    ]


def v2(root: Path, repeats: int) -> list[Figure]:
    """A service killed with -9 → its next process's own first time stamp."""
    root.mkdir(parents=True)
    gaps = []
    kills = 20 * repeats
    # Each process of the service says through it that it is there: reading it waits for no clock.
    said = root / "said"
    os.mkfifo(said)
    # Also open for writing: between two processes it has no other writer, and would be at its end.
    with said.open("r+b", buffering=0) as said_by, Cluster(root / "titan") as cluster:
        cluster.start_master()
        cluster.start_worker(8080)
        client = cluster.client()
        restart = {"max": kills, "delay": 0}
        line = f'exec 3>"{said}"; echo "$$ $(date +%s.%N)" >&3; exec sleep 1000'
        client.submit("up", [TitanJob(id="s", type="SERVICE", run=line, restart=restart)])
        pid, _ = _next_process(said_by)
        for _ in range(kills):
            killed = time.time()
            os.kill(pid, signal.SIGKILL)
            pid, started = _next_process(said_by)
            gaps.append(started - killed)
        client.stop("s")
        client.close()
    floors = [took * 1000 for took in floor.start_latencies(root / "floor", 40)]
    base = f"{statistics.median(floors):.2f} ms to start one"
    p50, p99 = statistics.median(gaps) * 1000, quantile(gaps, 0.99) * 1000
    return [
        Figure(
            "V2 p50", "a service killed → its next process", base, f"{p50:.2f} ms", p50, 8, "ms"
        ),
        Figure("V2 p99", "the slowest of a hundred", "–", f"{p99:.2f} ms", p99, 16, "ms"),
    ]


def _on_cpu_s(pid: int) -> float:
    """What a process's threads have had of processors, to the nanosecond."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((one / "schedstat").read_text().split()[0]) for one in threads) / 1e9


def c1(root: Path, repeats: int) -> list[Figure]:
    """A master with 100,000 jobs that wait for their time, and one worker: what it takes of a core."""
    shares, bare = [], []
    with Cluster(root / "titan") as cluster:
        cluster.start_master()
        cluster.start_worker(8080)
        client = cluster.client()
        assert cluster.master is not None
        pid = cluster.master.pid

        def share() -> float:
            before, begin = _on_cpu_s(pid), time.perf_counter()
            time.sleep(IDLE_S)
            return 100 * (_on_cpu_s(pid) - before) / (time.perf_counter() - begin)

        time.sleep(SETTLE_S)
        bare += [share() for _ in range(repeats)]
        jobs = [
            TitanJob(id=f"j{n}", command=["true"], delay=3_600 + n / 1_000)
            for n in range(DEADLINES)
        ]
        client.submit("waiting", jobs)
        time.sleep(SETTLE_S)
        shares += [share() for _ in range(repeats)]
        delayed = client.stats().delayed
        client.close()
    if delayed != DEADLINES:
        raise AssertionError(f"{delayed} jobs wait, not {DEADLINES}")
    return [
        Figure(
            "C1",
            f"a master with {DEADLINES:,} deadlines ahead, one worker, nothing to do",
            f"{statistics.median(bare):.3f} % without them",
            f"{statistics.median(shares):.3f} %",
            statistics.median(shares),
            0.1,
            "% of a core",
        )
    ]


def c2(root: Path, repeats: int) -> list[Figure]:
    """A job that is due at a moment, on an idle cluster: how long after that its process starts."""
    late = []
    with Cluster(root / "titan") as cluster:
        cluster.start_master()
        cluster.start_worker(8080)
        client = cluster.client()
        for turn in range(repeats):
            begin = time.time() + 1.0
            moments = [begin + number * 0.1 for number in range(40)]
            jobs = [
                TitanJob(
                    id=f"j{number}",
                    command=floor.STAMP,
                    at=datetime.datetime.fromtimestamp(at_s, datetime.timezone.utc),
                )
                for number, at_s in enumerate(moments)
            ]
            run = client.submit(f"c2-{turn}", jobs)
            run.wait(timeout=120)
            for number, at_s in enumerate(moments):
                due_s = int(at_s * 1000) / 1000  # what is said in milliseconds
                late.append((float(client.fetch_logs(f"j{number}", run=run)) - due_s) * 1000)
        client.close()
    floors = [took * 1000 for took in floor.moment_latencies(100)]
    base = f"{statistics.median(floors):.2f} ms"
    p50, p99 = statistics.median(late), quantile(late, 0.99)
    if min(late) < -1:
        raise AssertionError(f"a process started {-min(late):.1f} ms before its time")
    return [
        Figure("C2 p50", "a job's moment → its process", base, f"{p50:.2f} ms", p50, 5, "ms"),
        Figure(
            "C2 p99",
            "the slowest of a hundred",
            f"{quantile(floors, 0.99):.2f} ms",
            f"{p99:.2f} ms",
            p99,
            10,
            "ms",
        ),
    ]


def c3(root: Path, repeats: int) -> list[Figure]:
    """1,000 schedules of one moment: from that until the last run is accepted."""
    took = []
    for turn in range(repeats):
        with Cluster(root / f"titan{turn}") as cluster, contextlib.ExitStack() as stack:
            cluster.start_master()
            cluster.start_worker(8080)
            client = stack.enter_context(contextlib.closing(cluster.client()))
            link = stack.enter_context(
                BlockingLink.connect(
                    Address("127.0.0.1", cluster.port),
                    cluster.token,
                    role=Role.CLIENT,
                    software="bench",
                    timeout_s=10,
                )
            )
            launch = Launch(kind=LaunchKind.COMMAND, command=("true",))
            due_ms = int(time.time() * 1000) + SCHEDULES_SET_UP_MS
            # Its first step after an hour is the moment meant.
            spec = ScheduleSpec(crons=("@every 1h",), start_ms=due_ms - 3_600_000)
            for number in range(SCHEDULES):
                run = RunSpec(name=f"s{number}", jobs=(JobSpec(id="s", launch=launch),))
                link.call(PutSchedule(name=f"s{number}", spec=spec, run=run), timeout_s=30)
            if time.time() * 1000 >= due_ms:
                raise AssertionError("the schedules were not there in time")
            # What is counted is seen from outside: it is on the disk by then.
            time.sleep(max(0.0, due_ms / 1000 - time.time() - 0.05))
            while (seen := len(client.runs(ended=True))) < SCHEDULES:
                if time.time() * 1000 > due_ms + 60_000:
                    raise AssertionError(f"{seen} of {SCHEDULES} schedules fired")
                time.sleep(0.02)
            took.append(time.time() - due_ms / 1000)
    last_s = statistics.median(took)
    return [
        Figure(
            "C3",
            f"{SCHEDULES:,} schedules due in one second: the moment → the last run",
            "–",
            f"{last_s:.2f} s",
            last_s,
            2,
            "s",
        )
    ]


def _next_process(said_by: IO[bytes]) -> tuple[int, float]:
    """The next process of the service: its pid, and when it began."""
    ready, _, _ = select.select([said_by], [], [], 30)
    if not ready:
        raise AssertionError("the service was not started again within 30 s")
    pid, at_s = said_by.readline().split()
    return int(pid), float(at_s)


def v3(root: Path, repeats: int) -> list[Figure]:
    """A project of 5 MB in 50 files, in a job's working folder: what that adds to submit → process start."""
    project = root / "project"
    project.mkdir(parents=True)
    for number in range(FILES):
        # Bytes that no packing makes fewer: as many as there are have to be brought.
        (project / f"{number}.bin").write_bytes(os.urandom(PROJECT_BYTES // FILES))
    copies, bare, cached, uncached = [], [], [], []
    with Cluster(root / "titan") as cluster, contextlib.ExitStack() as stack:
        cluster.start_master()
        cluster.start_worker(8080)
        client = stack.enter_context(contextlib.closing(cluster.client()))
        link = stack.enter_context(
            BlockingLink.connect(
                Address("127.0.0.1", cluster.port),
                cluster.token,
                role=Role.CLIENT,
                software="bench",
                timeout_s=10,
            )
        )

        def start_s(name: str, workspace: ArtifactRef | None) -> float:
            launch = Launch(kind=LaunchKind.COMMAND, command=tuple(floor.STAMP))
            spec = RunSpec(name=name, jobs=(JobSpec(id="s", launch=launch),), workspace=workspace)
            begin = time.time()
            receipt = link.call(SubmitRun(key=f"v3-{name}", spec=spec), timeout_s=30)
            link.call(WaitJob(run=receipt.run_id, job="s"), timeout_s=60)
            return float(client.fetch_logs("s", run=receipt.run_id)) - begin

        for turn in range(repeats):
            (project / "0.bin").write_bytes(os.urandom(PROJECT_BYTES // FILES))
            with pack_folder(project) as package:
                link.upload(package.digest, package.size, package.chunks, timeout_s=30)
                uncached.append(start_s(f"uncached-{turn}", package.ref))
                for number in range(20):
                    begin = time.perf_counter()
                    shutil.copytree(project, root / "copies" / f"{turn}-{number}")
                    copies.append(time.perf_counter() - begin)
                    bare.append(start_s(f"bare-{turn}-{number}", None))
                    cached.append(start_s(f"cached-{turn}-{number}", package.ref))
    base, without = statistics.median(copies), statistics.median(bare)
    took, first = statistics.median(cached) - without, statistics.median(uncached) - without
    return [
        Figure(
            "V3 cached",
            "a project of 5 MB in 50 files that is in the cache: added to a start",
            f"{base * 1000:.1f} ms to `copytree` it",
            f"{took * 1000:.1f} ms",
            took / base,
            2.0,
            "× floor",
        ),
        Figure(
            "V3 uncached",
            "… and that is not, on loopback",
            "–",
            f"{first * 1000:.0f} ms",
            first * 1000,
            150,
            "ms",
        ),
    ]


SERVICES = 50
DEADLINES = 100_000
IDLE_S = 20.0
SETTLE_S = 5.0
"""Until a store has done what it had put off."""
SCHEDULES = 1_000
SCHEDULES_SET_UP_MS = 60_000
PROJECT_BYTES = 5_000_000
FILES = 50

ALL = {
    "w1": w1,
    "w2": w2,
    "w3": w3,
    "w4": w4,
    "w6": w6,
    "w7": w7,
    "w8": w8,
    "l1": l1,
    "l2": l2,
    "c1": c1,
    "c2": c2,
    "c3": c3,
    "v1": v1,
    "v2": v2,
    "v3": v3,
}
