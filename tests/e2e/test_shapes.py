"""Which jobs of a pipeline begin, with real processes: what comes after failures, and after all others."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]

MENDED = """name: Mended
project: false
jobs:
  - {{id: LOAD, run: "echo $TITAN_JOB_ID >> {ran}; test -e {repaired}"}}
  - {{id: NEEDS, run: "echo $TITAN_JOB_ID >> {ran}", dependencies: [LOAD]}}
  - {{id: MEND, run: "echo $TITAN_JOB_ID >> {ran}", dependencies: [LOAD], trigger: any_failed}}
  - {{id: REPORT, run: "echo $TITAN_JOB_ID >> {ran}", dependencies: [LOAD, MEND], trigger: all_done}}
on_failure: [{{id: TELL, run: "echo $TITAN_JOB_ID >> {ran}"}}]
on_success: [{{id: PRAISE, run: "echo $TITAN_JOB_ID >> {ran}"}}]
always: [{{id: TIDY, run: "echo $TITAN_JOB_ID >> {ran}"}}]
"""


def test_a_failure_is_handled_told_and_tidied_up_and_its_run_has_failed(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """And the repetition that goes well begins what it did not, and skips what it began."""
    cluster.start_worker()
    ran, repaired = tmp_path / "ran", tmp_path / "repaired"
    pipeline = tmp_path / "mended.yaml"
    pipeline.write_text(MENDED.format(ran=ran, repaired=repaired), encoding="utf-8")

    titan("run", str(pipeline), "--wait", code=1)
    assert sorted(ran.read_text().split()) == ["LOAD", "MEND", "REPORT", "TELL", "TIDY"]
    shown = titan("ps", "mended-1").stdout
    assert "a job before it did not succeed" in shown

    repaired.touch()
    ran.unlink()
    titan("retry", "mended-1", "--failed", "--wait")
    assert sorted(ran.read_text().split()) == ["LOAD", "NEEDS", "PRAISE", "REPORT", "TIDY"]
    items = json.loads(titan("ps", "mended-2", "-o", "json").stdout)["items"]
    skipped = {job["id"]: job["reason"] for job in items if job["state"] == "SKIPPED"}
    assert skipped == {"MEND": "TRIGGER_UNMET", "TELL": "TRIGGER_UNMET"}
    assert "nothing before it failed" in titan("show", "mended-2/MEND").stdout


TRAINED = """name: Trained
project: false
jobs:
  - id: TRAIN
    run: echo "${{{{ matrix.region }}}}/${{{{matrix.size}}}}" >> {ran}; echo n=1 >> "$TITAN_OUTPUT"
    when: matrix.size != 'l' or matrix.region == 'eu'
    matrix: {{region: [eu, "u s; $(touch hacked)"], size: [s, l]}}
  - {{id: REPORT, run: "echo ${{{{ jobs.TRAIN.2.outputs.n }}}} >> {ran}", dependencies: [TRAIN], trigger: none_failed}}
"""


def test_the_cells_of_a_matrix_run_with_their_values_and_are_shown_with_them(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    cluster.start_worker()
    ran = tmp_path / "ran"
    pipeline = tmp_path / "trained.yaml"
    pipeline.write_text(TRAINED.format(ran=ran), encoding="utf-8")
    titan("run", str(pipeline), "--wait")
    lines = ran.read_text().splitlines()
    assert sorted(lines[:3]) == ["eu/l", "eu/s", "u s; $(touch hacked)/s"]
    assert lines[3:] == ["1"]
    shown = titan("ps", "trained-1").stdout
    assert "TRAIN.1 (region=eu, size=s)" in shown
    assert "TRAIN.3 (region=u s; $(touch hacked), size=s)" in shown
    assert "TRAIN: region=eu, size=l" in titan("show", "trained-1/TRAIN.2").stdout
    cell = json.loads(titan("show", "trained-1/TRAIN.4", "-o", "json").stdout)
    assert (cell["matrix"], cell["cellOf"], cell["reason"]) == (
        {"region": "u s; $(touch hacked)", "size": "l"},
        "TRAIN",
        "WHEN_FALSE",
    )


ASKED = """name: Asked
project: false
params:
  day: {{type: date}}
  stage: {{choices: [dev, prod], default: dev}}
jobs:
  - {{id: LOAD, run: 'echo "${{{{ params.day }}}} ${{{{ params.stage }}}}" >> {ran}', when: params.stage == 'prod'}}
"""


def test_a_run_has_the_values_it_was_submitted_with_and_its_repetition_too(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    cluster.start_worker()
    ran = tmp_path / "ran"
    pipeline = tmp_path / "asked.yaml"
    pipeline.write_text(ASKED.format(ran=ran), encoding="utf-8")
    titan("validate", str(pipeline))
    refused = titan("run", str(pipeline), code=2)
    assert "asked.yaml:4:3: error[Y226] param day has no value" in refused.stderr
    refused = titan("run", str(pipeline), "-p", "day=tomorrow", "-p", "satge=dev", code=2)
    assert '-p day: "tomorrow" is no date' in refused.stderr
    assert 'did you mean "stage"?' in refused.stderr
    titan("run", str(pipeline), "--wait", "-p", "day=2026-11-26")
    assert not ran.exists()
    titan("run", str(pipeline), "--wait", "-p", "day=2026-11-27", "--param", "stage=prod")
    titan("retry", "asked-2", "--wait")
    assert ran.read_text() == "2026-11-27 prod\n" * 2


WEIGHED = """name: Weighed
project: false
jobs:
  - {{id: COUNT, run: 'echo rows={rows} >> "$TITAN_OUTPUT"'}}
  - {{id: LOAD, run: "true", dependencies: [COUNT], when: jobs.COUNT.outputs.rows > 0}}
  - id: TELL
    run: "true"
    dependencies: [LOAD]
    trigger: all_done
    when: jobs.LOAD.state == 'SKIPPED'
"""


def test_a_condition_decides_by_what_was_written_and_says_what_it_read(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    cluster.start_worker()
    pipeline = tmp_path / "weighed.yaml"
    ends = {}
    for number, rows in enumerate(("12", "0", "many"), 1):
        pipeline.write_text(WEIGHED.format(rows=rows), encoding="utf-8")
        titan("run", str(pipeline), "--wait", code=1 if rows == "many" else 0)
        items = json.loads(titan("ps", f"weighed-{number}", "-o", "json").stdout)["items"]
        ends[rows] = [job["reason"] for job in items]
    assert ends == {
        "12": ["EXITED", "EXITED", "WHEN_FALSE"],
        "0": ["EXITED", "WHEN_FALSE", "EXITED"],
        "many": ["EXITED", "BAD_WHEN", "WHEN_FALSE"],
    }
    shown = titan("show", "weighed-2/LOAD").stdout
    assert "its when is false: jobs.COUNT.outputs.rows > 0; jobs.COUNT.outputs.rows is '0'" in shown
    assert "is 'many', which is no number" in titan("show", "weighed-3/LOAD").stdout
    assert "weighed-3  LOAD" in titan("dead").stdout


def test_the_example_chooses_publishes_keeps_and_tells(cluster: Cluster, titan: Titan) -> None:
    """As its README says: the same pipeline three times, with other values."""
    cluster.start_worker()
    example = str(ROOT / "examples" / "model_choice" / "model_choice.yaml")
    ran = {}
    for number, (given, code) in enumerate(
        (((), 0), (("-p", "worst=0.001"), 0), (("-p", "source=broken"), 1)), 1
    ):
        titan("run", example, "--wait", *given, code=code)
        items = json.loads(titan("ps", f"model-choice-{number}", "-o", "json").stdout)["items"]
        ran[number] = [job["id"] for job in items if job["state"] == "SUCCEEDED"]
    fits = ["DATA", "FIT.1", "FIT.2", "FIT.3", "CHOOSE"]
    assert ran == {
        1: [*fits, "PUBLISH", "REPORT", "TIDY"],
        2: [*fits, "KEEP_OLD", "REPORT", "TIDY"],
        3: ["TELL", "TIDY"],
    }
    assert "degree 3" in titan("logs", "model-choice-1/CHOOSE").stdout


def test_the_schema_is_printed_and_written_where_editors_look(titan: Titan, tmp_path: Path) -> None:
    printed = json.loads(titan("schema").stdout)
    assert "matrix" in printed["definitions"]["job"]["properties"]
    said = titan("schema", "--write", cwd=tmp_path)
    assert json.loads((tmp_path / said.stdout.strip()).read_text(encoding="utf-8")) == printed
    assert "# yaml-language-server: $schema=./.titan/titan-pipeline.schema.json" in said.stderr
