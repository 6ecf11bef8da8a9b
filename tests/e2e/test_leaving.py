"""Workers that leave while their tasks run: who finishes where, who tells whom, and what is left."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster
from tests.harness.waiting import wait_until
from titan_proto.limits import DRAIN_TIMEOUT_MS_DEFAULT
from titan_sdk import Run, TitanClient, TitanJob

SOON_S = 30.0
LONG = "10m"


def gated(flag: Path, *, deaf: bool = False) -> TitanJob:
    """A task that says where it is and waits for a file."""
    trap = "trap : TERM; " if deaf else ""
    line = f'{trap}echo "on $TITAN_WORKER"; while [ ! -e "{flag}" ]; do sleep 0.05; done'
    return TitanJob(id="a", run=line)


def start(client: TitanClient, job: TitanJob) -> Run:
    """Its first line is there: it runs."""
    run = client.submit("leaving", [job])
    next(iter(run.logs("a", follow=True)))
    return run


def wait_draining(client: TitanClient, port: int) -> None:
    wait_until(
        lambda: any(w.port == port and w.state == "DRAINING" for w in client.stats().workers),
        within_s=SOON_S,
        what=f"{port} says that it leaves",
    )


@pytest.mark.parametrize("how", ["signal", "order"])
def test_a_task_that_ends_in_time_ends_there_and_is_not_run_again(
    cluster: Cluster, titan: Titan, tmp_path: Path, how: str
) -> None:
    flag = tmp_path / "go"
    leaving = cluster.start_worker(8080, drain=LONG)
    with cluster.client() as client:
        run = start(client, gated(flag))
        cluster.start_worker(8081)
        if how == "signal":
            leaving.process.send_signal(signal.SIGTERM)
        else:
            assert "on it: 1 task" in titan("shutdown", "8080").stderr
        wait_draining(client, 8080)
        assert "DRAINING, 1 task left" in titan("stats").stdout
        late = client.submit("late", [TitanJob(id="a", run="echo $TITAN_WORKER")])
        assert late.wait(timeout=SOON_S) == "SUCCEEDED"
        assert late.logs("a").strip().endswith(":8081")
        flag.touch()
        assert leaving.process.wait(60) == 0
        assert run.wait(timeout=SOON_S) == "SUCCEEDED"
        (job,) = run.jobs()
        assert (job.attempt, job.lost) == (1, 0)
        assert job.worker.endswith(":8080")
        assert run.logs("a").count("on ") == 1
        assert [worker.port for worker in client.stats().workers] == [8081]


def test_a_task_that_does_not_end_in_time_is_run_elsewhere(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    flag = tmp_path / "go"
    leaving = cluster.start_worker(8080, drain=LONG)
    with cluster.client() as client:
        run = start(client, gated(flag))
        cluster.start_worker(8081)
        done = titan("shutdown", "8080", "--drain-timeout", "300ms", "--wait", "-o", "json")
        assert json.loads(done.stdout)["hasLeft"] is True
        assert leaving.process.wait(60) == 0
        wait_until(
            lambda: run.jobs()[0].attempt == 2, within_s=SOON_S, what="it begins again elsewhere"
        )
        flag.touch()
        assert run.wait(timeout=SOON_S) == "SUCCEEDED"
        (job,) = run.jobs()
        assert job.worker.endswith(":8081")
        assert job.lost == 0


def test_a_second_signal_means_now_with_reports_and_goodbye(
    cluster: Cluster, tmp_path: Path
) -> None:
    leaving = cluster.start_worker(8080, drain=LONG)
    with cluster.client() as client:
        run = start(client, gated(tmp_path / "never"))
        leaving.process.send_signal(signal.SIGINT)
        wait_draining(client, 8080)
        assert leaving.process.poll() is None
        leaving.process.send_signal(signal.SIGINT)
        assert leaving.process.wait(60) == 0
        (job,) = run.jobs()
        assert (job.state, job.lost) == ("QUEUED", 0)
        assert client.stats().workers == ()


def test_now_means_now_and_services_go_with_the_rest(cluster: Cluster, titan: Titan) -> None:
    leaving = cluster.start_worker(8080, drain=LONG)
    with cluster.client() as client:
        api = TitanJob(id="API", run="exec sleep 600", type="SERVICE")
        up = client.submit("up", [api])
        assert up.wait(timeout=SOON_S) == "SUCCEEDED"
        line = titan("shutdown", "8080", "--now", "--wait").stderr
        assert "has left" in line
        assert leaving.process.wait(60) == 0


def test_services_answer_while_a_task_is_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    leaving = cluster.start_worker(8080, drain=LONG)
    with cluster.client() as client:
        api = TitanJob(id="API", run="echo serving; exec sleep 600", type="SERVICE")
        assert client.submit("up", [api]).wait(timeout=SOON_S) == "SUCCEEDED"
        start(client, gated(flag))
        leaving.process.send_signal(signal.SIGTERM)
        wait_draining(client, 8080)
        (service,) = client.services()
        assert service.state == "HEALTHY"
        flag.touch()
        assert leaving.process.wait(60) == 0


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "--uts", "true"], check=False, capture_output=True).returncode,
    reason="another host name needs a namespace that this account may not make",
)
def test_a_port_on_two_hosts_is_refused_with_both_names_and_a_name_is_not(
    cluster: Cluster, titan: Titan
) -> None:
    here = cluster.start_worker(8080)
    home = cluster.home
    there = cluster.start_worker(
        8080,
        home=home.with_name("elsewhere"),
        prefix=("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"),
    )
    with cluster.client() as client:
        names = {f"{worker.host}:{worker.port}" for worker in client.stats().workers}
        assert len(names) == 2
        refused = titan("shutdown", "8080", code=7).stderr
        assert all(name in refused for name in names)
        assert "did you mean elsewhere:8080?" in titan("shutdown", "elsewher:8080", code=3).stderr
        titan("shutdown", "elsewhere:8080", "--wait")
        assert there.process.wait(60) == 0
        assert here.process.poll() is None
        assert [worker.host for worker in client.stats().workers] != ["elsewhere"]


def test_a_worker_without_a_link_cannot_be_told(cluster: Cluster, titan: Titan) -> None:
    worker = cluster.start_worker(8080)
    worker.kill()
    with cluster.client() as client:
        wait_until(
            lambda: client.stats().workers[0].link_down_ms, within_s=SOON_S, what="its link is gone"
        )
    refused = titan("shutdown", "8080", code=7).stderr
    assert "has no link" in refused
    assert "SIGTERM" in refused


def test_a_member_of_titan_up_that_is_shut_down_stays_away_until_it_is_asked_for(
    titan: Titan, tmp_path: Path
) -> None:
    here = tmp_path / "local"
    here.mkdir()
    up = ("up", "-d", "--port", "0", "--no-dashboard", "--workers", "2")
    try:
        address = json.loads(titan(*up, "-o", "json", cwd=here).stdout)["address"]
        own = ("--master", address)
        token = str(here / ".titan" / "token")
        env = {"TITAN_TOKEN": Path(token).read_text(encoding="ascii").strip()}
        titan(*own, "shutdown", "8081", "--wait", cwd=here, env=env)
        shown = json.loads(titan(*own, "stats", "-o", "json", cwd=here, env=env).stdout)
        assert [worker["port"] for worker in shown["workers"]] == [8080]

        # And `titan down`, with which all of the cluster goes, waits for no task.
        (here / "long.sh").write_text("echo up; exec sleep 600\n", encoding="utf-8")
        titan(*own, "run", "long.sh", cwd=here, env=env)
        wait_until(
            lambda: "up" in titan(*own, "logs", "long", cwd=here, env=env).stdout,
            within_s=SOON_S,
            what="it runs",
        )
        began = time.monotonic()
        assert "worker-8081" not in titan("down", cwd=here).stderr
        assert time.monotonic() - began < DRAIN_TIMEOUT_MS_DEFAULT / 1000
    finally:
        titan("down", cwd=here)


def test_a_master_that_is_stopped_says_goodbye_and_everybody_comes_back_to_the_next(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Who waits is told why, once; the worker too; the task goes on and is counted once."""
    flag = tmp_path / "go"
    worker = cluster.start_worker(8080)
    with cluster.client() as client:
        run = start(client, gated(flag))
        waiting = subprocess.Popen(
            [sys.executable, "-m", "titan_sdk", "logs", f"{run.alias}/a", "-f"],
            env=cluster.client_env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stdout is not None
        assert waiting.stdout.readline().startswith("on ")
        assert cluster.master is not None
        assert cluster.master.stop() == 0
        said = "SHUTTING_DOWN: the master is being stopped"
        wait_until(
            lambda: said in worker.log.read_text(), within_s=SOON_S, what="the worker shows why"
        )
        cluster.start_master()
        flag.touch()
        out, err = waiting.communicate(timeout=60)
        assert (waiting.returncode, out) == (0, "")
        assert err.count(said) == 1
        assert run.wait(timeout=SOON_S) == "SUCCEEDED"
        assert run.jobs()[0].attempt == 1
