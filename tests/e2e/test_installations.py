"""Installed as users install it: one wheel per environment, and still one cluster.

As the README has it, in a `dist/` that was carried elsewhere:
`pip install dist/titan_proto-*.whl dist/titan_sdk-*.whl` for an agent, and for a node

    $ python3 -m venv titan
    $ . titan/bin/activate
    $ pip install dist/titan_proto-*.whl dist/titan_worker-*.whl
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT
from tests.harness.cluster import Cluster

DIST = os.environ.get("TITAN_DIST", "")
OLDEST = os.environ.get("TITAN_OLDEST_PYTHON", sys.executable)


OURS = """
import importlib.metadata as m, json
for one in m.distributions():
    if one.name.startswith("titan"):
        print(one.name, json.loads(one.read_text("direct_url.json"))["url"])
"""


def _environment(folder: Path, package: str, python: str) -> str:
    """A virtual environment as the documents make it, beside a `dist/`; its interpreter's path.

    With this wheel, the protocol's, and what they declare; nothing of ours came from elsewhere.
    """
    folder.mkdir()
    dist = folder / "dist"
    # The wheels alone: where they were built is out of reach on another machine.
    dist.mkdir()
    for wheel in Path(DIST).glob("*.whl"):
        shutil.copy2(wheel, dist)
    install = f"pip install -q dist/titan_proto-*.whl dist/titan_{package}-*.whl"
    subprocess.run(
        ["bash", "-ec", f'"$0" -m venv titan; . titan/bin/activate; {install}', python],
        cwd=folder,
        check=True,
        timeout=240,
    )
    program = str(folder / "titan" / "bin" / "python")
    ours = subprocess.run([program, "-c", OURS], capture_output=True, text=True, check=True).stdout
    found = dict(line.split() for line in ours.splitlines())
    assert found.keys() == {"titan-proto", f"titan-{package}"}
    assert all(url.startswith(f"{dist.as_uri()}/") for url in found.values()), found
    return program


@pytest.mark.timeout(600)
@pytest.mark.skipif(not DIST, reason="needs wheels: run it with nox -s e2e")
def test_four_environments_make_one_cluster(tmp_path: Path) -> None:
    """Master, worker, dashboard and, on the oldest Python, the SDK: the snippet runs across them."""
    master = _environment(tmp_path / "env-master", "master", sys.executable)
    worker = _environment(tmp_path / "env-worker", "worker", sys.executable)
    dashboard = _environment(tmp_path / "env-dashboard", "dashboard", sys.executable)
    agent = _environment(tmp_path / "env-sdk", "sdk", OLDEST)
    for program, module in ((master, "master"), (worker, "worker"), (dashboard, "dashboard")):
        foreign = {"master", "worker", "sdk", "dashboard"} - {module}
        for name in foreign:
            probe = subprocess.run(
                [program, "-c", f"import titan_{name}"], capture_output=True, check=False
            )
            assert probe.returncode != 0, f"{module}'s environment has {name}"
    with Cluster(tmp_path / "cluster", master_python=master, worker_python=worker) as cluster:
        cluster.start_master()
        cluster.start_worker(8080)
        cluster.start_worker(8081)
        folder = ROOT / "examples" / "agent_loop"
        done = subprocess.run(
            [agent, "agent.py"],
            cwd=folder,
            env=cluster.client_env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.strip() == "[ERR] Failure detected. Deploying Fix...", done.stderr
        page = subprocess.run(
            [
                dashboard,
                "-c",
                "import titan_dashboard as t; print(t.create_app().test_client().get('/sign-in').status_code)",
            ],
            env=cluster.client_env(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert page.stdout.strip() == "200", page.stderr


@pytest.mark.parametrize("module", ["titan_master", "titan_worker", "titan_sdk", "titan_dashboard"])
def test_modules_run_from_an_ide(module: str) -> None:
    """`python -m` with each package shows the command's help."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
