"""One graph of three languages, and what a task may say of its Python and its variables."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Titan
from tests.harness.cluster import Cluster

EXAMPLE = ROOT / "examples" / "hybrid"


def build(folder: Path) -> None:
    """Make the jar with the commands that the example's README gives."""
    readme = (folder / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ (javac .*|jar .*)$", readme, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(
            shlex.split(command), cwd=folder, check=True, capture_output=True, timeout=120
        )


@pytest.mark.needs("java", "javac", "jar", "curl")
def test_python_then_a_java_service_then_a_shell_clean_up(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """The example as its README tells it; the service stays up behind its run until it is stopped."""
    cluster.start_worker(8080)
    folder = tmp_path / "hybrid"
    shutil.copytree(EXAMPLE, folder)
    build(folder)
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"^\$ titan logs CLEAN_UP\n((?:[^$\n].*\n)+)", readme, re.MULTILINE)
    assert shown is not None

    titan("run", "hybrid.yaml", "--wait", cwd=folder)
    assert titan("logs", "CLEAN_UP").stdout == shown[1]
    assert titan("logs", "PREPARE").stdout == "counted 22 words, 14 different ones\n"

    (shared,) = cluster.home.rglob("words.port")
    assert not shared.with_name("words.tsv").exists()
    port = int(shared.read_text(encoding="utf-8"))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/sea", timeout=10) as answer:
        assert answer.read() == b"sea 3\n"
    titan("stop", "Hybrid/SERVE")
    with cluster.client() as client:
        while client.services():
            assert cluster.master is not None
            assert cluster.master.process.poll() is None


def test_a_task_runs_under_the_python_that_it_asks_for_with_the_variables_of_its_files(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """A path here, because which versions a machine has is its own affair."""
    cluster.start_worker(8080)
    folder = tmp_path / "typed"
    folder.mkdir()
    python = folder / "my-python"
    python.write_text(f'#!/bin/sh\necho "by mine: $STAGE $TOKEN"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (folder / "a.py").write_text("import sys; print(sys.argv[1:])\n", encoding="utf-8")
    (folder / "p.env").write_text("STAGE=file\nexport TOKEN='s e # c'\n", encoding="utf-8")
    (folder / "p.yaml").write_text(
        "name: typed\nenv_file: p.env\nenv: {STAGE: test}\njobs:\n"
        f"  - {{id: A, script: a.py, python: {python}, args: \"x 'y z'\"}}\n",
        encoding="utf-8",
    )
    titan("run", str(folder / "p.yaml"), "--wait")
    assert titan("logs", "A").stdout == "by mine: test s e # c\n['x', 'y z']\n"

    (folder / "env.py").write_text("import os; print(os.environ['STAGE'], os.environ['TOKEN'])\n")
    titan("run", "env.py", "--env-file", "p.env", "--env", "STAGE=typed", "--wait", cwd=folder)
    assert titan("logs", "env").stdout == "typed s e # c\n"
    titan("run", "p.yaml", "--env-file", "p.env", "--wait", cwd=folder)
    assert titan("logs", "A").stdout.startswith("by mine: file s e # c\n")


def test_a_python_that_no_worker_has_is_one_clear_reason_and_no_storm(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """Not the worker's own instead, and no second try that nobody asked for, of a service neither."""
    cluster.start_worker(8080)
    (tmp_path / "a.py").write_text("", encoding="utf-8")
    (tmp_path / "p.yaml").write_text(
        "name: none\ndefaults: {python: 3.99}\n"
        "jobs: [{id: A, script: a.py}, {id: B, type: SERVICE, script: a.py}]\n",
        encoding="utf-8",
    )
    said = titan("run", str(tmp_path / "p.yaml"), "--wait", code=1)
    assert "needs python3.99, which was not found on this worker" in said.stderr
    with cluster.client() as client:
        ends = [(job.reason, job.attempt) for job in client.jobs("@last")]
        assert ends == [("START_FAILED", 1), ("START_FAILED", 1)]


def test_bad_files_of_variables_stop_the_submission_with_their_places(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """By `run` as by `validate`, and no run is made."""
    (tmp_path / "p.env").write_text("A=1\nB 2\nC='3\n", encoding="utf-8")
    (tmp_path / "p.yaml").write_text(
        "name: bad\njobs: [{id: A, run: env, env_file: [p.env, none.env]}]\n", encoding="utf-8"
    )
    for command in ("run", "validate"):
        done = titan(command, "p.yaml", code=2, cwd=tmp_path)
        said = done.stdout + done.stderr
        for place in ("p.env:2:1:", "p.env:3:3:", "none.env: there is no such file"):
            assert place in said
        assert "3 errors in p.yaml" in said
    done = titan("run", "p.env", "--env-file", "p.env", code=2, cwd=tmp_path)
    assert "p.env:2:1:" in done.stderr
    assert "p.env:3:3:" in done.stderr
    with cluster.client() as client:
        assert client.runs(ended=True) == []
