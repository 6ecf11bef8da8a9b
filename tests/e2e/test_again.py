"""What was done is not done again: a run repeated by its name, and a job that has had its time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.conftest import Titan
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
