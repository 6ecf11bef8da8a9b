"""The product document's own examples, word for word, on a cluster that `titan up` makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, change_a_row
from tests.harness.processes import processes_of


class Project:
    """A folder with a cluster of its own, made by `titan up -d`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("TITAN_")}
        self.env["XDG_STATE_HOME"] = str(folder.parent / "state")
        self.env["HOME"] = str(folder.parent)

    def run(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a Python with these arguments in the folder."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert code is None or done.returncode == code, done
        return done

    def titan(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run `titan` in the folder."""
        return self.run("-m", "titan_sdk", *words, code=code)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """`titan up -d` on a free port, `titan down` afterwards; nobody is left."""
    folder = tmp_path / "project"
    folder.mkdir()
    made = Project(folder)
    made.titan("up", "-d", "--port", "0", "--workers", "2", "--no-dashboard")
    try:
        yield made
    finally:
        made.titan("down")
    assert processes_of(folder) == []


def _lines(name: str) -> str:
    text = (ROOT / name).read_text(encoding="utf-8").strip()
    return "\n".join(line.rstrip() for line in text.splitlines())


def test_the_self_healing_loop(project: Project) -> None:
    """The snippet sees the ERROR that the script printed, says so, and the FIX job has run."""
    for path in (ROOT / "examples" / "agent_loop").glob("*.py"):
        shutil.copy2(path, project.folder)
    done = project.run("agent.py")
    assert done.stdout.strip() == "[ERR] Failure detected. Deploying Fix..."
    project.titan("logs", "-f", "FIX")
    job = json.loads(project.titan("show", "FIX", "-o", "json").stdout)
    assert (job["id"], job["state"]) == ("FIX", "SUCCEEDED")


def test_the_readme_shows_the_examples() -> None:
    """The README shows the example file, but for spaces at the ends of lines."""
    assert _lines("examples/agent_loop/agent.py") in _lines("README.md")
    assert _lines("examples/daily_etl/daily_etl.yaml") in _lines("README.md")


def test_up_is_idempotent_and_down_keeps_the_data(project: Project) -> None:
    """Up twice is up once; after down and up the runs of before are still known."""
    script = project.folder / "hello.py"
    script.write_text("print('hello')\n", encoding="utf-8")
    alias = project.titan("run", "hello.py", "--wait").stdout.split()[0]
    again = project.titan("up", "-d", "--port", "0", "--workers", "2", "--no-dashboard")
    assert "already up" in again.stderr.lower()
    project.titan("down")
    assert processes_of(project.folder) == []
    project.titan("up", "-d", "--port", "0", "--workers", "2", "--no-dashboard")
    shown = json.loads(project.titan("show", alias, "-o", "json").stdout)
    assert shown["state"] == "SUCCEEDED"
    assert project.titan("logs", "hello").stdout == "hello\n"


def test_nothing_beside_titan_runs(project: Project) -> None:
    """No database, no broker: the cluster is a master, its workers, and that is all."""
    modules = sorted(
        word
        for line in processes_of(project.folder)
        for word in line.split()
        if word.startswith("titan_")
    )
    assert modules == ["titan_master", "titan_worker", "titan_worker"], processes_of(project.folder)
    assert len(processes_of(project.folder)) == 3
    assert not [path for path in project.folder.iterdir() if path.name != ".titan"]


def test_demo_leaves_nothing(tmp_path: Path) -> None:
    """`titan demo` prints the answer of the API that it deployed, and cleans up after itself."""
    assert len(_months(_demo(tmp_path))) == 48


def test_the_demo_prints_what_is_in_its_data(tmp_path: Path) -> None:
    """One row of the table is changed: its month is printed with other figures, and no other one."""
    example = shutil.copytree(ROOT / "examples" / "daily_etl", tmp_path / "example")
    change_a_row(example / "data" / "seattle-weather.csv")
    before = _months(_demo(tmp_path / "before"))
    told = _demo(tmp_path / "after", "--example", str(example), "-o", "json")
    assert set(told) == {"apiVersion", "kind", "run", "answer", "runSeconds", "totalSeconds"}
    assert (told["kind"], told["run"]) == ("Demo", "nightly-data-pipeline-1")
    assert 0 < told["runSeconds"] <= told["totalSeconds"]
    after = _months(told["answer"])
    assert [month for month in before if before[month] != after[month]] == ["2013-07"]


def _months(answer: dict[str, Any]) -> dict[str, object]:
    return {figures["month"]: figures for figures in answer["months"]}


def _demo(tmp_path: Path, *words: str) -> dict[str, Any]:
    """What a demo prints; it leaves no process and no file."""
    home = tmp_path / "home"
    temp = tmp_path / "tmp"
    home.mkdir(parents=True)
    temp.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith("TITAN_")}
    env |= {"HOME": str(home), "TMPDIR": str(temp)}
    env.pop("XDG_STATE_HOME", None)
    done = subprocess.run(
        [sys.executable, "-m", "titan_sdk", "demo", *words],
        cwd=home,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(temp.iterdir()) == []
    assert list(home.iterdir()) == []
    assert processes_of(temp) == []
    value: dict[str, Any] = json.loads(done.stdout)
    return value
