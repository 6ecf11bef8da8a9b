"""Commands of the manual that nothing else covers: `submit`, `dag`, `json`."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster


def test_data_goes_to_the_handler_that_a_worker_registered(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """`titan submit SKILL DATA`: on that worker, not on the one beside it."""
    program = tmp_path / "convert.sh"
    program.write_text('echo "converted $1 for $TITAN_JOB_ID"\n')
    cluster.start_worker(8080)
    cluster.start_worker(8081, "--handler", f"pdf_convert={program}")

    said = titan("submit", "pdf_convert", "final", "report.html", "--follow").stdout

    assert "converted final report.html for pdf_convert" in said
    job = json.loads(titan("show", "pdf_convert", "-o", "json").stdout)
    assert job["worker"].endswith(":8081")
    assert "[GENERAL, pdf_convert]" in titan("stats").stdout


def test_a_raw_dag_string_runs_in_its_order(cluster: Cluster, titan: Titan) -> None:
    """What it carries, what it only names, and a handler's place in the graph."""
    cluster.start_worker(8080)
    content = base64.b64encode(b"import sys\nprint('calculated', *sys.argv[1:])\n").decode()
    text = (
        f"DAG-CALC|RUN_PAYLOAD|calc.py|a\\;b|{content}|GENERAL|2|0|[] ; "
        f"AFTER|GENERAL|RUN_PAYLOAD|calc.py|{content}|1|0|[CALC]|AFFINITY"
    )

    alias = titan("dag", text, "--wait").stdout.strip()

    assert alias == "dag-1"
    assert titan("logs", "dag-1/CALC").stdout == "calculated a;b\n"
    assert titan("logs", "dag-1/AFTER").stdout == "calculated\n"
    assert titan("logs", "DAG-AFTER").stdout == "calculated\n"  # as the manual's screens name it
    assert json.loads(titan("show", "dag-1/DAG-CALC", "-o", "json").stdout)["id"] == "CALC"
    jobs = json.loads(titan("ps", "dag-1", "-o", "json").stdout)["items"]
    by_id = {job["id"]: job for job in jobs}
    assert by_id["AFTER"]["dependencies"] == ["CALC"]
    assert by_id["AFTER"]["startedAt"] >= by_id["CALC"]["endedAt"]


def test_a_dag_string_that_is_wrong_points_at_its_column_and_runs_nothing(titan: Titan) -> None:
    """Exit 2, the string, a caret; the original answers that it was accepted."""
    said = titan("dag", "A|GENERAL|RUN_PAYLOAD|a.py||5|0|[B]", code=2).stderr

    assert 'dag:1:34: error[D100] no job of this string is called "B"' in said
    assert json.loads(titan("ps", "-o", "json").stdout)["runs"] == []


def test_json_is_stats_for_programs(cluster: Cluster, titan: Titan) -> None:
    """The document's word for it."""
    cluster.start_worker(8080)
    named, asked = (
        json.loads(titan(*words).stdout) for words in (("json",), ("stats", "-o", "json"))
    )
    assert named["kind"] == asked["kind"] == "Stats"
    assert named.keys() == asked.keys()


def test_watching_a_run_shows_its_tree_and_leaves_with_its_result(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """Line by line where there is no terminal; the run's own exit code; JSON to the last change."""
    cluster.start_worker(8080)
    pipeline = tmp_path / "fan.yaml"
    pipeline.write_text(
        "name: fan\njobs:\n"
        "  - {id: first, run: 'sleep 0.2'}\n"
        "  - {id: good, run: 'true', dependencies: [first]}\n"
        "  - {id: bad, run: 'echo no; exit 3', dependencies: [first]}\n"
    )
    titan("run", str(pipeline))

    said = titan("watch", "fan-1", code=1).stderr

    assert "└─ bad" in said or "├─ bad" in said
    assert "bad failed" in said
    changes = titan("watch", "-o", "json", code=1).stdout.splitlines()
    last = json.loads(changes[-1])
    assert (last["kind"], last["runState"]) == ("JobChange", "FAILED")
    assert {json.loads(line)["id"] for line in changes} >= {"first", "good", "bad"}
    assert "no run is called nonsense" in titan("watch", "nonsense", code=3).stderr
