"""What was done is not done again: a run repeated by its name, and a job that has had its time."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.conftest import Titan
from tests.e2e.little_server import SERVER, said
from tests.harness.cluster import Cluster
from titan_sdk import TitanJob

PIPELINE = """name: Nightly
project: false
jobs:
  - id: EXTRACT
    run: 'echo rain > "$TITAN_SHARED/rows"; echo ran >> "{ran}"'
  - id: LOAD
    run: 'test -e "{repaired}" && cat "$TITAN_SHARED/rows"'
    depends_on: [EXTRACT]
"""


def test_a_failed_run_is_run_again_from_where_it_failed_with_the_files_of_what_succeeded(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    cluster.start_worker()
    ran, repaired = tmp_path / "ran", tmp_path / "repaired"
    pipeline = tmp_path / "nightly.yaml"
    pipeline.write_text(PIPELINE.format(ran=ran, repaired=repaired), encoding="utf-8")
    titan("run", str(pipeline), "--wait", code=1)
    (old,) = json.loads(titan("ps", "-a", "-o", "json").stdout)["runs"]
    (dead,) = json.loads(titan("dead", "-o", "json").stdout)["items"]
    assert (dead["run"], dead["id"]) == (old["id"], "LOAD"), dead

    repaired.touch()
    titan("retry", old["id"], "--failed", "--wait")

    runs = json.loads(titan("ps", "-a", "-o", "json").stdout)["runs"]
    (new,) = [run for run in runs if run["id"] != old["id"]]
    assert ran.read_text() == "ran\n"
    assert titan("logs", f"{new['id']}/LOAD").stdout == "rain\n"
    assert {run["id"]: run["state"] for run in runs} == {
        old["id"]: "FAILED",
        new["id"]: "SUCCEEDED",
    }


def test_files_that_nobody_has_wanted_for_long_are_gone_and_running_it_again_says_so(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """Of an ended run; not of a service that is wanted. Submitted anew, it runs as ever."""
    cluster.start_worker()
    for name, text in (("once.py", "print('done')"), ("server.py", SERVER)):
        (tmp_path / "here" / name).write_text(text, encoding="utf-8")
    titan("run", "once.py", "--wait")
    titan("deploy", "server.py", "auto", "--health", "/")
    assert "done" in titan("logs", "once-1").stdout
    assert cluster.master is not None
    cluster.master.stop()
    stored = [path for path in (cluster.data / "artifacts").glob("??/*") if path.is_file()]
    for path in stored:
        long_ago = path.stat().st_mtime - 31 * 24 * 3600
        os.utime(path, (long_ago, long_ago))
    cluster.start_master()
    cluster.wait(lambda: "artifacts swept" in cluster.logs(), "there was a look at them")
    assert 1 <= sum(path.exists() for path in stored) < len(stored)

    refused = titan("retry", "once-1", code=7).stderr
    assert "run once-1 cannot be run again: 1 of the files that it needs are gone" in refused
    assert "submit it anew" in refused
    titan("run", "once.py", "--wait")
    assert "done" in titan("logs", "once-2").stdout
    titan("retry", "once-1", "--wait")  # its file is there again
    cluster.workers[8080].stop()
    cluster.start_worker(8081, home=tmp_path / "elsewhere")  # which has no copy of the server yet

    def answers() -> bool:
        services = json.loads(titan("service", "ls", "-o", "json").stdout)["items"]
        return any(said(one["port"]).endswith(":8081") for one in services)

    cluster.wait(answers, "the service came up where it was not before")


def test_a_job_is_stopped_when_all_its_attempts_together_have_had_their_time(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The second try is stopped in the middle, and a third one is not begun."""
    tries = tmp_path / "tries"
    line = f'echo try >> "{tries}"; if [ $TITAN_ATTEMPT = 1 ]; then exit 1; fi; exec sleep 1000'
    cluster.start_worker()
    with cluster.client() as client:
        job = TitanJob(id="slow", run=line, retries=5, job_timeout="3s", stop_grace="1s")
        run = client.submit("late", [job])
        assert run.wait(timeout=60) == "FAILED", cluster.logs()
        (view,) = run.jobs()
    assert (view.reason, view.attempt) == ("TIMED_OUT", 2)
    assert tries.read_text() == "try\ntry\n"


def test_a_submission_outlives_a_restart_of_the_master(cluster: Cluster) -> None:
    """One client, its link cut by the master's death: it asks again by itself, and gets one run."""
    cluster.start_worker()
    with cluster.client() as client, ThreadPoolExecutor() as pool:
        assert client.submit("warm", [TitanJob(id="a", run="true")]).wait(timeout=60) == "SUCCEEDED"
        assert cluster.master is not None
        cluster.master.kill()
        asking = [
            pool.submit(client.submit, f"late-{n}", [TitanJob(id="a", run="true")])
            for n in range(4)
        ]
        cluster.start_master()
        runs = [one.result(60) for one in asking]
        assert [run.wait(timeout=60) for run in runs] == ["SUCCEEDED"] * 4
        assert len(client.runs(ended=True)) == 5
