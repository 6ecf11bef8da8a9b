"""A service stays wanted, whatever is lost: it comes up where there is room, until a person stops it."""

from __future__ import annotations

import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster
from titan_sdk import TitanClient, TitanJob, TitanService

SERVER = """
import http.server, os, sys

def is_ill():
    try:
        with open(sys.argv[1] + "-ill") as file:
            return file.read() in ("", str(os.getpid()))
    except FileNotFoundError:
        return False

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if self.path == "/health" and is_ill() else 200)
        self.end_headers()
        self.wfile.write(f"{os.environ['TITAN_WORKER']} {os.getpid()}".encode())

    def log_message(self, *_):
        pass

http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def api(mark: Path, **keys: object) -> TitanService:
    """A web service that says on which worker it is, and is ill while `mark`-ill names it, or nobody."""
    return TitanService(
        id="api",
        command=[sys.executable, "-c", SERVER, str(mark)],
        **{"port": "auto", **keys},  # type: ignore[arg-type]
    )


def services(client: TitanClient) -> list[dict[str, object]]:
    """Those that are wanted."""
    return [
        {"state": str(one.state), "worker": one.worker, "port": one.port, "restarts": one.restarts}
        for one in client.services()
    ]


def says(client: TitanClient) -> str:
    """On which worker the one service answers; empty if it does not."""
    return _said(client).partition(" ")[0]


def pid_of(client: TitanClient) -> int:
    """The process that answers; 0 if none does."""
    return int(_said(client).partition(" ")[2] or 0)


def _said(client: TitanClient) -> str:
    up = [one for one in client.services() if str(one.state) == "HEALTHY"]
    if not up:
        return ""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{up[0].port}/", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def gone(pid: int) -> bool:
    """Whether no process has this number and is alive."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


@pytest.mark.timeout(240)
def test_a_service_moves_when_its_machine_is_lost_and_its_old_process_goes_when_that_is_back(
    tmp_path: Path,
) -> None:
    """Another worker, in a folder of its own, has it soon; the first one ends what it left behind."""
    with Cluster(tmp_path / "cluster", lost_after="2s") as cluster:
        cluster.start_master()
        first_home = tmp_path / "first"
        first = cluster.start_worker(8080, home=first_home)
        with cluster.client() as client:
            run = client.submit("web", [api(tmp_path / "mark")])
            assert run.wait(timeout=60) == "SUCCEEDED"
            assert says(client).endswith(":8080")
            old = pid_of(client)
            first.kill()
            assert not gone(old), "nobody is there to end it"
            cluster.start_worker(8081, home=tmp_path / "second")
            cluster.wait(lambda: says(client).endswith(":8081"), "it answers on the other worker")
            cluster.start_worker(8080, home=first_home)
            cluster.wait(lambda: gone(old), "its old process is swept")
            assert says(client).endswith(":8081"), "and it is left where it is"


@pytest.mark.timeout(240)
def test_kill_9_of_a_worker_leaves_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """Tasks and services were running: started again, it has no leftover process; both are back."""
    with Cluster(tmp_path / "cluster", lost_after="2s") as cluster:
        cluster.start_master()
        worker = cluster.start_worker()
        flag = tmp_path / "second-try"
        line = f'echo $$; if [ -e "{flag}" ]; then exit 0; fi; touch "{flag}"; sleep 600 & wait'
        with cluster.client() as client:
            web = client.submit("web", [api(tmp_path / "mark")])
            assert web.wait(timeout=60) == "SUCCEEDED"
            work = client.submit("work", [TitanJob(id="task", run=line)])
            task = int(next(iter(work.logs("task", follow=True))))
            service = pid_of(client)
            worker.kill()
            assert not gone(service)
            assert not gone(task)
            cluster.start_worker()
            assert work.wait(timeout=60) == "SUCCEEDED", cluster.logs()
            cluster.wait(lambda: bool(says(client)), "the service answers again")
            assert gone(service)
            assert gone(task)
            (job,) = work.jobs()
            assert (job.attempt, job.lost) == (2, 1)


@pytest.mark.timeout(240)
def test_a_service_is_back_after_everything_was_shut_down_and_what_was_stopped_is_not(
    cluster: Cluster, tmp_path: Path
) -> None:
    """In good order or not, as after a reboot of both machines."""
    with cluster.client() as client:
        cluster.start_worker()
        run = client.submit("web", [api(tmp_path / "mark")])
        assert run.wait(timeout=60) == "SUCCEEDED"
        assert cluster.workers[8080].stop() == 0
        assert cluster.master is not None
        assert cluster.master.stop() == 0
        cluster.start_master()
        cluster.wait(
            lambda: [one["state"] for one in services(client)] == ["STARTING"],
            "it is known to be wanted, with no worker there",
        )
        cluster.start_worker()
        cluster.wait(lambda: bool(says(client)), "it answers again")
        client.stop("api")
        cluster.wait(lambda: services(client) == [], "it is stopped")
        cluster.workers[8080].kill()
        cluster.master.kill()
        cluster.start_master()
        cluster.start_worker()
        assert client.submit("after", [TitanJob(id="a", run="true")]).wait(60) == "SUCCEEDED"
        assert services(client) == [], "and stays so"


@pytest.mark.timeout(240)
def test_an_ill_service_is_started_again_and_one_that_stays_ill_has_failed_with_the_reason(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.start_worker()
    mark = tmp_path / "mark"
    ill = Path(f"{mark}-ill")
    check = {"http": "/health", "interval": "200ms", "timeout": "5s", "retries": 2}
    with cluster.client() as client:
        restart = {"max": 2, "within": "10m", "delay": "1ms"}
        run = client.submit("web", [api(mark, healthcheck=check, restart=restart)])
        assert run.wait(timeout=60) == "SUCCEEDED"
        first = pid_of(client)
        ill.write_text(str(first), encoding="ascii")
        cluster.wait(lambda: gone(first), "it is ended")
        cluster.wait(
            lambda: (
                services(client)[0]["state"] == "HEALTHY" and services(client)[0]["restarts"] == 1
            ),
            "it is well, and everybody can see what happened",
        )
        ill.write_text("", encoding="ascii")
        cluster.wait(lambda: services(client) == [], "its budget is spent")
        (ended,) = client.services(ended=True)
        assert (str(ended.state), str(ended.reason)) == ("FAILED", "CRASH_LOOP")
        assert "GET /health on port" in ended.message
        assert "came to status 503" in ended.message


@pytest.mark.timeout(240)
def test_a_port_that_somebody_else_has_is_one_clear_reason_and_another_worker_gets_the_service(
    tmp_path: Path,
) -> None:
    """Both workers are on one host here, so the second cannot have it either: it has failed, once."""
    with Cluster(tmp_path / "cluster") as cluster:
        cluster.start_master()
        cluster.start_worker(8080, home=tmp_path / "a")
        with cluster.client() as client:
            holder = client.submit("holder", [api(tmp_path / "mark")])
            assert holder.wait(timeout=60) == "SUCCEEDED"
            port = client.services()[0].port
            run = client.submit("web", [api(tmp_path / "mark", port=port)])
            assert run.wait(timeout=60) == "FAILED"
            (job,) = run.jobs()
            assert (job.reason, job.attempt) == ("START_FAILED", 1)
            assert f"port {port}" in job.message


@pytest.mark.timeout(240)
def test_fifty_services_without_slots_are_up_on_one_worker(cluster: Cluster) -> None:
    """They take no room: a task runs beside them."""
    cluster.start_worker(slots=1)
    jobs = [TitanService(id=f"s{n}", command=["sleep", "600"], slots=0) for n in range(50)]
    with cluster.client() as client:
        assert client.submit("many", jobs).wait(timeout=120) == "SUCCEEDED", cluster.logs()
        assert client.submit("beside", [TitanJob(id="a", run="true")]).wait(60) == "SUCCEEDED"
        (worker,) = client.stats().workers
        assert (worker.used, len(worker.services)) == (0, 50)
        (one, *_) = client.services()
        os.kill(int(_pid_of(cluster, one.run_id, one.job_id)), signal.SIGKILL)
        cluster.wait(lambda: client.services()[0].restarts == 1, "one is started again")


def _pid_of(cluster: Cluster, run_id: str, job_id: str) -> str:
    mark = f"TITAN_RUN_ID={run_id}".encode(), f"TITAN_JOB_ID={job_id}".encode()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                variables = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if all(one in variables for one in mark):
                return process.name
    raise AssertionError(f"no process of {job_id}: {cluster.logs()}")
