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
from types import ModuleType

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


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """run.py as a module, its results in a folder of the test's own."""
    monkeypatch.syspath_prepend(str(ROOT))
    found = importlib.import_module("run")
    monkeypatch.setattr(found, "RESULTS", str(tmp_path))
    return found


def test_the_last_line_is_one_and_names_the_tools_that_were_missing(
    run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person, and a machine, reads at the end of `python3 run.py test`."""
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


FAILING = """
import pytest

@pytest.fixture
def slippery():
    yield
    raise RuntimeError("cannot be cleared away")

def test_well(): pass
def test_ill(slippery): assert [] == [1], "one\\ntwo"

@pytest.mark.parametrize("word", ["a b"])
def test_each(word): raise ValueError("x" * 1000)
"""


@pytest.mark.timeout(180)
def test_before_it_each_failed_test_is_named_with_its_session_and_what_it_says(
    run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A test that fails now and then is known by name from the last lines alone."""
    (tmp_path / "test_some.py").write_text(FAILING)
    labels = ("isolated-worker-py312", "integration-3.12-siblings")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-o", "junit_family=xunit1", f"--rootdir={tmp_path}"),
            *(f"--junitxml={tmp_path / labels[0]}.xml", "test_some.py"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    shutil.copy2(tmp_path / f"{labels[0]}.xml", tmp_path / f"{labels[1]}.xml")
    (tmp_path / "seeds.xml").write_text("<testsuites")  # its process was killed
    counts = {"passed": 1, "failed": 4, "skipped": 0, "tools": {}}
    (tmp_path / "all.json").write_text(json.dumps(counts))
    names = ["seeds", "integration-3.12", "isolated(worker_py31)", "isolated(worker_py312)"]
    report = tmp_path / "report.txt"
    sessions = [{"signatures": [name], "result": "failed"} for name in names]
    report.write_text(json.dumps({"sessions": sessions}))

    assert run.summarise(str(report)) == 4

    lines = capsys.readouterr().out.splitlines()
    long = f"test_some.py::test_each[a b]: ValueError: {'x' * 1000}"
    cut = len("ValueError: ") + 1000 - run.MESSAGE_CHARS
    expected = [
        f"{session}: {said}"
        for session in ("integration-3.12", "isolated(worker_py312)")
        for said in ("test_some.py::test_ill: AssertionError: one", long[:-cut])
    ]
    assert lines[:4] == expected
    assert lines[4].startswith("seeds: its results cannot be read: ")
    assert lines[5].startswith("1 passed, 4 failed, 0 skipped; sessions: 0 ok, 4 failed (seeds, ")
    assert len(lines) == 6


def test_thousands_of_failures_leave_the_last_line_in_sight(
    run: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken import fails everything: some of it is named, the rest counted."""
    case = '<testcase classname="a" name="test_{}"><error message="no module"/></testcase>'
    cases = "".join(case.format(number) for number in range(run.FAILURES_SHOWN + 2000))
    (tmp_path / "docs.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")

    run.summarise(str(tmp_path / "report.txt"))

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "docs: a::test_0: no module"
    assert lines[run.FAILURES_SHOWN].startswith("... and 2000 more, in ")
    assert len(lines) == run.FAILURES_SHOWN + 2
