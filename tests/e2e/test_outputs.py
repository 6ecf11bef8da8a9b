"""Small values from job to job, through a real cluster: from a file to another job's arguments."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster
from titan_sdk import TitanJob

HOSTILE = "$(touch hacked) `touch hacked`; touch hacked; \" ' * å"
PIPELINE = """name: Nightly
project: false
jobs:
  - id: EXTRACT
    run: |
      echo ran >> "{ran}"
      echo rows=11 >> "$TITAN_OUTPUT"
      echo rows=12 >> "$TITAN_OUTPUT"
  - id: BETWEEN
    run: "true"
    depends_on: [EXTRACT]
  - id: LOAD
    run: test -e "{repaired}" && echo "$ROWS ${{{{ jobs.EXTRACT.outputs.rows }}}}"
    env: {{ROWS: "<${{{{ jobs.EXTRACT.outputs.rows }}}}>"}}
    depends_on: [BETWEEN]
"""


def test_a_value_is_handed_on_shown_and_taken_over_by_a_repetition(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    cluster.start_worker()
    ran, repaired = tmp_path / "ran", tmp_path / "repaired"
    pipeline = tmp_path / "nightly.yaml"
    pipeline.write_text(PIPELINE.format(ran=ran, repaired=repaired), encoding="utf-8")
    titan("run", str(pipeline), "--wait", code=1)
    shown = json.loads(titan("show", "nightly-1/EXTRACT", "-o", "json").stdout)
    assert shown["outputs"] == {"rows": "12"}
    assert "rows=12" in titan("show", "nightly-1/EXTRACT").stdout

    repaired.touch()
    titan("retry", "nightly-1", "--failed", "--wait")

    assert titan("logs", "nightly-2/LOAD").stdout == "<12> 12\n"
    assert ran.read_text() == "ran\n"
    items = json.loads(titan("ps", "nightly-2", "-o", "json").stdout)["items"]
    assert {job["id"]: job["outputs"] for job in items} == {
        "EXTRACT": {"rows": "12"},
        "BETWEEN": {},
        "LOAD": {},
    }


def test_a_hostile_value_is_printed_and_never_executed(cluster: Cluster) -> None:
    """In a line for the shell, quoted or not, as in an argument."""
    cluster.start_worker()
    write = TitanJob(
        id="write",
        command=[
            "python3",
            "-c",
            "import os; open(os.environ['TITAN_OUTPUT'], 'a').write(os.environ['LINE'])",
        ],
        env={"LINE": f"said={HOSTILE}"},
    )
    value = "${{ jobs.write.outputs.said }}"
    tell = TitanJob(
        id="tell",
        run=f'printf "%s\\n" "{value}" "$VALUE"; echo {value} > /dev/null; ls',
        env={"VALUE": value},
        dependencies=[write],
    )
    exact = TitanJob(
        id="exact", command=["printf", "%s|", value, f"<{value}>"], dependencies=[write]
    )
    with cluster.client() as client:
        run = client.submit("hostile", [write, tell, exact])
        assert run.wait(timeout=60) == "SUCCEEDED", cluster.logs()
        assert run.outputs("write") == {"said": HOSTILE}
        assert run.logs("tell") == f"{HOSTILE}\n{HOSTILE}\n"
        assert run.logs("exact") == f"{HOSTILE}|<{HOSTILE}>|"


def test_what_was_not_written_or_cannot_be_read_fails_the_job_once_with_the_reason(
    cluster: Cluster,
) -> None:
    cluster.start_worker()
    jobs = [
        TitanJob(id="quiet", run="true"),
        TitanJob(id="bad", run='echo rows >> "$TITAN_OUTPUT"'),
        TitanJob(id="use", command=["true", "${{ jobs.quiet.outputs.x }}"], dependencies=["quiet"]),
    ]
    with cluster.client() as client:
        run = client.submit("missing", jobs)
        assert run.wait(timeout=60) == "FAILED", cluster.logs()
        seen = {job.job_id: job for job in run.jobs()}
    assert (seen["bad"].reason, seen["bad"].attempt) == ("BAD_OUTPUT", 1)
    assert "'rows' is not of the form key=value" in seen["bad"].message
    assert (seen["use"].reason, seen["use"].attempt) == ("MISSING_OUTPUT", 0)
    assert "quiet wrote no outputs" in seen["use"].message
