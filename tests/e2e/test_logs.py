"""What jobs print: all of it, soon, in order, and the part of it that was asked for."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until
from titan_sdk import TitanJob, TitanService

PYTHON = sys.executable
# What is written before anybody has looked has no order but that of its output: each line waits until
# the one before it has been seen.
TALKS = """
import os, sys, time
for n in range(6):
    os.write(1 + n % 2, b"%s %d\\n" % ((b"out", b"err")[n % 2], n // 2))
    while not os.path.exists(f"{sys.argv[1]}/{n}"): time.sleep(0.005)
"""


TRIES = 5
"""How often speed is looked for, before it is not there."""


def said(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_both_outputs_come_in_their_order_each_line_with_its_place_and_its_time(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """And by themselves, and only the part that is asked for, at once or as it comes."""
    seen = tmp_path / "seen"
    seen.mkdir()
    cluster.start_worker(8080)
    with cluster.client() as client:
        begin_s = time.time()
        talks = TitanJob(id="a", command=[PYTHON, "-c", TALKS, str(seen)])
        run = client.submit("talk", [talks])
        live = []
        for line in run.log_lines("a", follow=True):
            (seen / str(len(live))).touch()
            live.append(line)
        assert run.wait(timeout=30) == "SUCCEEDED", cluster.logs()
        in_turn = ["out 0", "err 0", "out 1", "err 1", "out 2", "err 2"]
        for lines in (live, list(run.log_lines()), list(client.log_lines("a"))):
            assert [line.text for line in lines] == in_turn
            assert [line.offset for line in lines] == [0, 0, 6, 6, 12, 12]
            assert [line.stream for line in lines] == ["stdout", "stderr"] * 3
            times = [line.at.timestamp() for line in lines if line.at is not None]
            assert times == sorted(times)
            assert len(times) == 6
            assert begin_s - 1 < times[0]
            assert times[-1] < time.time() + 1
        third = live[2].at
        assert third is not None
        assert [line.text for line in client.log_lines("a", since=third)] == in_turn[2:]
        assert run.logs("a", lines=1, grep="out") == "out 2\n"
        assert list(run.logs("a", follow=True, stream="stderr", grep="[12]")) == ["err 1", "err 2"]
    assert titan("logs", "talk-1/a", "--stderr").stdout == "err 0\nerr 1\nerr 2\n"
    assert titan("logs", "talk-1/a", "-n", "2", "--grep", "out").stdout == "out 1\nout 2\n"
    assert titan("logs", "talk-1/a", "--since", "1h", "-n", "1").stdout == "err 2\n"
    assert titan("logs", "talk-1/a", "--since", third.isoformat()).stdout == "".join(
        f"{line}\n" for line in in_turn[2:]
    )
    timed = titan("logs", "talk-1/a", "--times", "--stdout").stdout.splitlines()
    assert [line[24:] for line in timed] == ["out 0", "out 1", "out 2"]
    followed = said(titan("logs", "talk-1/a", "-f", "-o", "json").stdout)
    assert [one["offset"] for one in followed] == [0, 0, 6, 6, 12, 12]
    assert all(str(one["at"]).endswith("Z") for one in followed)
    assert "10m" in titan("logs", "talk-1/a", "--since", "soon", code=2).stderr
    assert "grep" in titan("logs", "talk-1/a", "--grep", "(", code=2).stderr


def test_of_a_run_each_line_stands_behind_its_jobs_name(cluster: Cluster, titan: Titan) -> None:
    """And what is asked for is asked of each job."""
    cluster.start_worker(8080)
    with cluster.client() as client:
        jobs = [TitanJob(id=name, run=f"echo {name} one; echo {name} two >&2") for name in "ab"]
        run = client.submit("both", jobs)
        assert run.wait(timeout=30) == "SUCCEEDED", cluster.logs()
        assert [line.job for line in run.log_lines(stream="stderr")] == ["a", "b"]
    assert sorted(titan("logs", "both-1").stdout.splitlines()) == [
        "a | a one",
        "a | a two",
        "b | b one",
        "b | b two",
    ]
    assert titan("logs", "both-1", "-n", "1", "--stdout").stdout == "a | a one\nb | b one\n"
    assert titan("logs", "both-1", "--grep", "b t").stdout == "b | b two\n"
    assert sorted(titan("logs", "both-1", "-f", "--stderr").stdout.splitlines()) == [
        "a | a two",
        "b | b two",
    ]


def test_an_earlier_attempt_has_a_log_of_its_own(cluster: Cluster, titan: Titan) -> None:
    cluster.start_worker(8080)
    with cluster.client() as client:
        job = TitanJob(
            id="a",
            run='echo "try $TITAN_ATTEMPT"; test $TITAN_ATTEMPT = 2',
            retries=1,
        )
        assert client.submit("again", [job]).wait(timeout=30) == "SUCCEEDED", cluster.logs()
        assert [line.text for line in client.log_lines("a", attempt=1)] == ["try 1"]
    assert titan("logs", "again-1/a").stdout == "try 2\n"
    assert titan("logs", "again-1/a", "--attempt", "1").stdout == "try 1\n"
    assert titan("logs", "again-1/a", "--attempt", "1", "--grep", "try").stdout == "try 1\n"
    assert "newest is 2" in titan("logs", "again-1/a", "--attempt", "3", code=3).stderr


def test_the_last_line_of_a_job_that_crashed_is_there(cluster: Cluster, titan: Titan) -> None:
    """Without a line's end, too; for who follows, and for who asks when it is over."""
    cluster.start_worker(8080)
    script = "import os\nos.write(1, b'before\\n')\nos.write(2, b'the cause')\nos.abort()"
    with cluster.client() as client:
        run = client.submit("crash", [TitanJob(id="a", command=[PYTHON, "-c", script])])
        assert sorted(run.logs("a", follow=True)) == ["before", "the cause"]
        assert run.wait(timeout=30) == "FAILED", cluster.logs()
    assert titan("logs", "crash-1/a", "--stderr").stdout == "the cause"


def test_a_follower_sees_a_line_within_a_tenth_of_a_second(cluster: Cluster) -> None:
    """Whether the job prints all the time or has been quiet for a while."""
    cluster.start_worker(8080)
    script = (
        "import time\n"
        "for n in range(20):\n"
        "    print(time.time(), flush=True)\n"
        "    time.sleep(0.03 if n % 2 else 0.41)\n"
    )
    tries: list[list[float]] = []
    with cluster.client() as client:
        # A machine that is busy with others may be late; who looks too seldom is so each time.
        while not tries or (sorted(tries[-1])[-3] > 0.1 and len(tries) < TRIES):
            run = client.submit("live", [TitanJob(id="a", command=[PYTHON, "-c", script])])
            tries.append([time.time() - float(line) for line in run.logs("a", follow=True)])
            assert len(tries[-1]) == 20
    # Two of them may have met whatever else this machine was doing.
    assert sorted(tries[-1])[-3] <= 0.1, tries


MIB = 1 << 20
FLOODS = """
import os, sys, time
block = b"".join(b"%015d\\n" % n for n in range(4096))
print("the first line", flush=True)
for _ in range(int(sys.argv[1])):
    os.write(1, block)
    time.sleep(0.002)
print("the last line", flush=True)
"""


def room_of(folder: Path) -> int:
    """What the files of a log take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.glob("std*.log"))


def test_of_a_long_log_the_beginning_and_the_end_are_kept_on_both_sides(
    cluster: Cluster, titan: Titan
) -> None:
    """A follower sees all of it; afterwards a line says how much was dropped; offsets stay true."""
    assert cluster.master is not None
    cluster.master.stop()
    cluster.start_master("--log-cap", "2MiB")
    cluster.start_worker(8080)
    with cluster.client() as client:
        size = 15 + 200 * 65_536 + 14
        run = client.submit("long", [TitanJob(id="a", command=[PYTHON, "-c", FLOODS, "200"])])
        followed = list(run.log_lines("a", follow=True))
        assert run.wait(timeout=30) == "SUCCEEDED", cluster.logs()
        for lines in (followed, list(client.log_lines("a"))):
            assert (lines[0].text, lines[-1].text) == ("the first line", "the last line")
            at = 0
            for line in lines:
                # What was cut in its middle has no end of its own.
                assert line.offset == at or (line.dropped and line.offset == at - 1)
                at = line.offset + (line.dropped or len(line.text) + 1)
            assert at == size
        dropped = [line for line in client.log_lines("a") if line.dropped]
        assert len(dropped) == 1
        assert size - 2 * MIB <= dropped[0].dropped <= size - MIB
        assert client.job("a").stdout_bytes == size
    text = titan("logs", "long-1/a").stdout
    assert f"[titan] {dropped[0].dropped} bytes dropped\n" in text
    assert len(text) < 2 * MIB + 100
    assert titan("logs", "long-1/a", "-n", "1").stdout == "the last line\n"
    for folder in (
        cluster.home / "titan_workspace" / "jobs" / run.id / "a.1",
        cluster.data / "logs" / run.id / "a.1",
    ):
        wait_until(
            lambda folder=folder: room_of(folder) <= 2 * MIB + 8192,
            within_s=10,
            what=f"the log in {folder} takes too much room: {room_of(folder)}",
        )


def test_the_log_of_a_service_that_prints_for_ever_takes_no_more_room(
    cluster: Cluster, titan: Titan
) -> None:
    """Over its restarts too; what it said last is there."""
    assert cluster.master is not None
    cluster.master.stop()
    cluster.start_master("--log-cap", "1MiB")
    cluster.start_worker(8080)
    with cluster.client() as client:
        service = TitanService(
            id="api", command=[PYTHON, "-c", FLOODS, "100"], restart={"max": 100, "delay": "1ms"}
        )
        run = client.submit("talks", [service])
        folders = (
            cluster.home / "titan_workspace" / "jobs" / run.id / "api.1",
            cluster.data / "logs" / run.id / "api.1",
        )

        def has_said_much() -> bool:
            log = folders[1] / "stdout.log"
            return log.exists() and log.stat().st_size > 30 * MIB

        wait_until(has_said_much, within_s=60, what="much is said")
        client.stop("talks-1/api")
        last = list(client.log_lines("talks-1/api", lines=1))
        assert last[0].offset > 29 * MIB
    for folder in folders:
        wait_until(
            lambda folder=folder: room_of(folder) <= MIB + 8192,
            within_s=10,
            what=f"the log in {folder} takes too much room: {room_of(folder)}",
        )
