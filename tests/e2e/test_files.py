"""Files by name: dropped, staged and uploaded, and a master that is killed in between."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster


def test_names_and_versions_survive_a_master_that_is_killed(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """What was dropped by hand is never lost, and each run runs what it was submitted with."""
    (cluster.perm_files / "hello.py").write_text("print('dropped')\n", encoding="utf-8")
    mine = tmp_path / "hello.py"
    mine.write_text("print('first')\n", encoding="utf-8")
    said = titan("run", str(mine))
    found = re.search(r"note: hello\.py: .* stays as version (\w{12})", said.stderr)
    assert found is not None, said.stderr
    assert "note:" not in titan("run", str(mine)).stderr
    # By name, from where no such file is.
    titan("run", "hello.py", "--name", "named")

    assert cluster.master is not None
    cluster.master.kill()
    cluster.start_master()
    mine.write_text("print('second')\n", encoding="utf-8")
    assert "note:" not in titan("run", str(mine)).stderr
    cluster.start_worker(8080)
    assert titan("logs", "-f", "hello-1/hello").stdout == "first\n"
    assert titan("logs", "-f", "named-1/hello").stdout == "first\n"
    assert titan("logs", "-f", "hello-3/hello").stdout == "second\n"

    shown = json.loads(titan("files", "hello.py", "-o", "json").stdout)
    assert shown["current"]["origin"] == "STAGED"
    assert [one["origin"] for one in shown["versions"]] == ["STAGED", "DROPPED"]
    for version, text in ((found[1], "dropped"), (shown["current"]["digest"], "second")):
        to = tmp_path / f"{text}.py"
        titan("download", "hello.py", "--version", version, "-o", str(to))
        assert to.read_text(encoding="utf-8") == f"print('{text}')\n"


def test_a_pipeline_s_scripts_are_staged_and_a_file_that_was_uploaded_runs(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """Under the names that they have in the pipeline's folder; commands stage nothing."""
    cluster.start_worker(8080)
    (tmp_path / "flow" / "steps").mkdir(parents=True)
    (tmp_path / "flow" / "steps" / "one.py").write_text("print('one')\n", encoding="utf-8")
    (tmp_path / "flow" / "flow.yaml").write_text(
        "name: flow\njobs:\n  - {id: A, script: steps/one.py}\n  - {id: B, run: 'true'}\n",
        encoding="utf-8",
    )
    titan("run", str(tmp_path / "flow" / "flow.yaml"), "--wait")
    script = tmp_path / "local.sh"
    script.write_text("echo uploaded\n", encoding="utf-8")
    assert titan("upload", str(script), "--as", "tools/said.sh").stdout == "tools/said.sh\n"
    listed = json.loads(titan("files", "-o", "json").stdout)["items"]
    assert [(one["name"], one["current"]["origin"]) for one in listed] == [
        ("steps/one.py", "STAGED"),
        ("tools/said.sh", "UPLOADED"),
    ]
    titan("run", "tools/said.sh", "--wait")
    assert titan("logs", "said").stdout == "uploaded\n"
    missing = titan("download", "tools/sad.sh", code=3)
    assert "Did you mean tools/said.sh?" in missing.stderr
