"""Workers that workers spawn: because of the queue, once each, and gone when they are idle."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until
from titan_proto.messages import Scaling
from titan_proto.states import ScalingKind, WorkerState
from titan_sdk import TitanClient, TitanJob

ON = ("--autoscale", "on", "--scale-every", "1s", "--sibling-idle", "3s")
_MARK = b"TITAN_SIBLING="


def until(look: Callable[[], object], within_s: float) -> None:
    """Wait for what nobody tells of."""
    wait_until(look, within_s=within_s, what="see the test")


def siblings_of(cluster: Cluster) -> dict[int, bytes]:
    """Living workers that those of the cluster have spawned: what marks each of them."""
    mine = os.fsencode(str(cluster.home))
    marks: dict[int, bytes] = {}
    parents: dict[int, int] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            environ = (process / "environ").read_bytes().split(b"\0")
            stat = (process / "stat").read_text()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # it has ended meanwhile, or is somebody else's
        found = [one for one in environ if one.startswith(_MARK) and mine in one]
        if found:
            marks[int(process.name)] = found[0]
            parents[int(process.name)] = int(stat.rpartition(")")[2].split()[1])
    # What a sibling has just forked has its mark until it is what it is to be.
    return {pid: mark for pid, mark in marks.items() if parents[pid] not in marks}


def executes(pid: int) -> bool:
    """Whether it is there, and more than a dead process that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def scaling_of(client: TitanClient) -> Scaling:
    """What the master says of them."""
    found = client.scaling()
    assert found is not None
    return found


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Cluster]:
    """A master that has workers spawn others, and one worker. Nothing that was spawned stays."""
    with Cluster(tmp_path / "cluster", lost_after="4s") as cluster:
        cluster.start_master(*ON)
        cluster.start_worker(8080)
        try:
            yield cluster
        finally:
            for pid in siblings_of(cluster):
                os.kill(pid, signal.SIGKILL)


def test_forty_jobs_on_one_worker_are_done_by_siblings_too_which_then_retire(
    growing: Cluster,
) -> None:
    """20 s of work for one worker with 4 slots; fewer with those that it spawns."""
    with growing.client() as client:
        began = time.monotonic()
        jobs = [TitanJob(id=f"j{number}", run="sleep 2") for number in range(40)]
        run = client.submit("crowd", jobs)
        until(lambda: len(client.stats().workers) > 1, 5)
        appeared_s = time.monotonic() - began
        assert run.wait(timeout=60) == "SUCCEEDED", growing.logs()
        took_s = time.monotonic() - began
        (view, *_) = scaling_of(client).siblings
        assert view.parent.endswith(":8080")
        assert "jobs wait for GENERAL" in view.cause
        until(lambda: len(client.stats().workers) == 1, 20)
        changes = scaling_of(client).recent
        until(lambda: not siblings_of(growing), 10)
    assert appeared_s < 3, growing.logs()
    assert took_s < 14, growing.logs()
    kinds = [change.kind for change in changes]
    assert kinds.count(ScalingKind.JOINED) == kinds.count(ScalingKind.LEFT) >= 1
    assert all("idle" in change.cause for change in changes if change.kind is ScalingKind.DISMISSED)


def test_a_master_killed_in_the_middle_spawns_nothing_twice_and_leaves_no_orphan(
    growing: Cluster,
) -> None:
    """Whenever it dies: as the first sibling is being asked for, and while they work."""
    seen: dict[bytes, set[int]] = {}
    with TitanClient(master=growing.address, token=growing.token, timeout=90) as client:
        jobs = [TitanJob(id=f"j{number}", run="sleep 1") for number in range(40)]
        run = client.submit("crowd", jobs)
        for pause_s in (0.6, 0.8, 1.5):
            deadline = time.monotonic() + pause_s
            while time.monotonic() < deadline:
                for pid, mark in siblings_of(growing).items():
                    seen.setdefault(mark, set()).add(pid)
                time.sleep(0.02)  # a look, as often as can be; what is waited for is the moment
            assert growing.master is not None
            growing.master.kill()
            growing.start_master(*ON)
        assert run.wait(timeout=60) == "SUCCEEDED", growing.logs()
        for pid, mark in siblings_of(growing).items():
            seen.setdefault(mark, set()).add(pid)
        until(lambda: len(client.stats().workers) == 1, 30)
        until(lambda: not siblings_of(growing), 10)
        assert not scaling_of(client).asked
    assert seen, growing.logs()
    assert all(len(pids) == 1 for pids in seen.values()), seen
    for job in jobs:
        assert growing.attempt_folders(run.id).count(f"{job.id}.1") == 1


def test_a_sibling_outlives_its_parent_is_known_to_its_next_process_and_goes_when_idle(
    growing: Cluster,
) -> None:
    """Its jobs go on; the parent that is started again clears up behind it."""
    with growing.client() as client:
        jobs = [TitanJob(id=f"j{number}", run="sleep 4") for number in range(8)]
        run = client.submit("crowd", jobs)
        until(lambda: len(client.stats().workers) > 1, 10)
        growing.workers[8080].kill()
        (pid, *_) = siblings_of(growing)
        growing.start_worker(8080)
        assert run.wait(timeout=60) == "SUCCEEDED", growing.logs()
        assert pid in siblings_of(growing)
        until(lambda: not siblings_of(growing), 20)
        log = growing.folder / "worker-8080.log"
        until(lambda: "sibling_ended number=" in log.read_text(), 10)


def test_one_that_is_killed_leaves_nothing_and_its_jobs_run_again(growing: Cluster) -> None:
    with growing.client() as client:
        line = "sleep 3 & wait; echo $TITAN_WORKER"
        jobs = [TitanJob(id=f"j{number}", run=line) for number in range(8)]
        run = client.submit("crowd", jobs)
        until(lambda: any(one.used for one in client.stats().workers[1:]), 10)
        (pid, *_) = siblings_of(growing)
        os.kill(pid, signal.SIGKILL)
        until(lambda: pid not in siblings_of(growing), 10)
        assert run.wait(timeout=60) == "SUCCEEDED", growing.logs()
        until(lambda: not siblings_of(growing), 20)


def test_one_that_never_registers_is_given_up_and_the_parent_asked_again_later(
    tmp_path: Path,
) -> None:
    """Here a command that only says that it has started a worker."""
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.start_master(*ON)
        told = tmp_path / "told"
        line = f'echo "$TITAN_SPAWN $TITAN_SPAWN_PORT $TITAN_SPAWN_SLOTS $TITAN_SPAWN_SKILLS" >>{told}; exit 3'
        cluster.start_worker(8080, "--spawner", line)
        with cluster.client() as client:
            run = client.submit("crowd", [TitanJob(id=f"j{n}", run="sleep 2") for n in range(12)])
            until(told.exists, 10)
            until(
                lambda: any(one.kind is ScalingKind.FAILED for one in scaling_of(client).recent), 5
            )
            assert run.wait(timeout=60) == "SUCCEEDED", cluster.logs()
            failed = [one for one in scaling_of(client).recent if one.kind is ScalingKind.FAILED]
        assert told.read_text().splitlines()[0] == "start 8081 4 GENERAL"
        assert "the spawner ended with 3" in failed[0].cause
        pauses = [b.at_ms - a.at_ms for a, b in itertools.pairwise(failed)]
        assert all(pause >= 1_000 for pause in pauses), pauses


def test_a_command_may_start_the_worker_wherever_it_likes(tmp_path: Path) -> None:
    """It hands the mark on, and that worker is let in as the one that was asked for."""
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.start_master(*ON)
        away = tmp_path / "away"
        away.mkdir()
        line = (
            f'[ "$TITAN_SPAWN" = start ] || exit 0; {cluster.worker_python} -m titan_worker '
            f'"$TITAN_SPAWN_PORT" --data {away} --slots "$TITAN_SPAWN_SLOTS" --spawner off '
            f">{tmp_path}/away.log 2>&1 & echo $! >{tmp_path}/pid"
        )
        cluster.start_worker(8080, "--spawner", line)
        with cluster.client() as client:
            client.submit("crowd", [TitanJob(id=f"j{n}", run="sleep 1") for n in range(40)])
            until(lambda: len(scaling_of(client).siblings) == 1, 15)
            until(lambda: len(client.stats().workers) == 1, 40)
        pid = int((tmp_path / "pid").read_text())
        until(lambda: not executes(pid), 10)


def test_a_person_may_have_a_worker_spawned_which_stays_until_it_is_told_to_go(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.start_master("--autoscale", "off", "--sibling-idle", "500ms")
        cluster.start_worker(8080)
        with cluster.client() as client:
            ordered = client.spawn(8085, slots=2)
            assert ordered.port == 8085
            until(lambda: len(client.stats().workers) == 2, 15)
            (_, spawned) = sorted(client.stats().workers, key=lambda one: one.port)
            assert (spawned.port, spawned.slots) == (8085, 2)
            (view,) = scaling_of(client).siblings
            assert view.by_hand
            run = client.submit("a", [TitanJob(id="a", run="sleep 2")])
            assert run.wait(30) == "SUCCEEDED"
            assert len(client.stats().workers) == 2
            client.shutdown("8085")
            until(lambda: not siblings_of(cluster), 15)
            states = {one.state for one in client.stats().workers}
            assert states <= {WorkerState.ONLINE, WorkerState.DRAINING}


def test_titan_deploy_worker_spawns_one_by_hand_and_stats_shows_it_under_its_parent(
    tmp_path: Path,
) -> None:
    """Both spellings; a port that is taken is refused with a free one; `titan shutdown` ends it."""
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.start_master("--autoscale", "off")
        cluster.start_worker(8080)

        def titan(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
            done = subprocess.run(
                [sys.executable, "-m", "titan_sdk", *words],
                cwd=tmp_path,
                env=cluster.client_env(),
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == code, f"{done}\n{cluster.logs()}"
            return done

        assert ":8080 has spawned it" in titan("deploy", "worker", "8085").stderr
        body = json.loads(titan("deploy", "Worker.jar", "8086", "GPU", "-o", "json").stdout)
        assert (body["kind"], body["port"], body["hasJoined"]) == ("WorkerSpawned", 8086, True)
        lines = titan("stats").stdout.splitlines()
        assert [
            line.split("|")[0].split("]")[0].split("[")[1] for line in lines if "[80" in line
        ] == [
            "8080",
            "8085",
            "8086",
        ]
        assert lines[-1].endswith("Skills: [GPU] | spawned: asked for by hand")
        told = json.loads(titan("stats", "-o", "json").stdout)["scaling"]
        assert [one["what"] for one in told["recent"]] == ["ASKED", "JOINED", "ASKED", "JOINED"]
        refused = titan("deploy", "worker", "8085", code=7)
        assert "is here already; 8081 is free" in refused.stderr
        assert "a worker's port is a number" in titan("deploy", "worker", "auto", code=2).stderr
        (tmp_path / "worker").write_text("exit 0")
        (tmp_path / "worker").chmod(0o755)
        assert "has spawned it" not in titan("deploy", "worker", "8087", "-d").stderr
        titan("shutdown", "8085", "--wait")
        titan("shutdown", "8086", "--wait")
        until(lambda: not siblings_of(cluster), 10)


def test_titan_down_stops_what_was_spawned(tmp_path: Path) -> None:
    """Under `titan up`, whose own workers come first."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("TITAN_")}
    env["XDG_STATE_HOME"] = str(tmp_path / "state")

    def titan(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "titan_sdk", *words],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        return done.stdout + done.stderr

    titan("up", "-d", "--port", "0", "--no-dashboard", "--autoscale", "off")
    try:
        titan("deploy", "worker", "8085")
        locks = list((tmp_path / ".titan").glob(".worker-*/lock"))
        pids = [int(lock.read_text()) for lock in locks]
        assert len(pids) == 2
        assert all(executes(pid) for pid in pids)
    finally:
        titan("down")
    assert not any(executes(pid) for pid in pids)
