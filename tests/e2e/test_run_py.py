"""The README's first command, as a stranger runs it: a fresh copy, an empty HOME, nothing left behind."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT
from tests.harness.processes import processes_of

COMMAND = ["python3", "run.py"]


def _copy_of_the_checkout(target: Path) -> Path:
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place)
    return target


@pytest.mark.timeout(600)
def test_the_first_command(tmp_path: Path) -> None:
    """It exits 0, prints the API's JSON, and leaves no process and no file outside the checkout."""
    checkout = _copy_of_the_checkout(tmp_path / "titan")
    home, temp = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temp.mkdir()
    # One interpreter for all of it, found as `python3`, as on a stranger's machine.
    base = Path(sys.executable).resolve()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(base)
    env = {key: value for key, value in os.environ.items() if not key.startswith("TITAN_")}
    env.pop("VIRTUAL_ENV", None)
    cache = os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))
    env |= {
        "HOME": str(home),
        "TMPDIR": str(temp),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PIP_CACHE_DIR": cache,
    }
    done = subprocess.run(
        COMMAND,
        cwd=checkout,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r'"month":\s*"2012-01"', done.stdout + done.stderr), done.stdout
    assert processes_of(checkout) == []
    assert list(temp.iterdir()) == []
    # What the machine's own `python3` may be: a manager's shim with a folder.
    assert {path.name for path in home.iterdir()} <= {".rustup"}


def test_the_last_line_is_one_and_names_the_tools_that_were_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person, and a machine, reads at the end of `python3 run.py test`."""
    monkeypatch.syspath_prepend(str(ROOT))
    run = importlib.import_module("run")
    monkeypatch.setattr(run, "RESULTS", str(tmp_path))
    for name, tools in (("a", {"java": 1, "root": 2}), ("b", {"java": 2})):
        counts = {"passed": 3, "failed": 0, "skipped": sum(tools.values()), "tools": tools}
        (tmp_path / f"{name}.json").write_text(json.dumps(counts))
    report = tmp_path / "report.txt"
    sessions = [{"signatures": ["e2e"], "result": "success"}]
    report.write_text(json.dumps({"sessions": sessions}))

    assert run.summarise(str(report)) == 0
    assert capsys.readouterr().out == (
        "6 passed, 0 failed, 5 skipped (java: 3, root: 2); sessions: 1 ok, 0 failed\n"
    )
