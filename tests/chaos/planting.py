"""Bugs planted on purpose into a copy of the tree, each of which one named test must catch.

`python -m tests.chaos planted`. A plant is a file of ``planted/``: exact text to
replace, and the test that must fail then and pass otherwise. Nothing in the product knows of it. A
plant whose text is not there any more is an error: somebody has moved what it takes away, and has to
say where it is now. Only the copy is changed, and only its code is imported.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import tomllib

from tests.chaos.results import Result, write

ROOT = Path(__file__).resolve().parents[2]
PLANTED = Path(__file__).with_name("planted")
COPIED = ("packages", "tests", "examples", "conftest.py", "pyproject.toml")
TEST_S = 20
"""One named test may take so long; a plant may make it hang."""


class DoesNotApply(Exception):
    """The text that a plant replaces is not there, or not only once."""


class Replace(NamedTuple):
    """In one file of the tree."""

    file: str
    old: str
    new: str


class Plant(NamedTuple):
    """One bug."""

    name: str
    why: str
    """What it would cost a user."""
    test: str
    replaces: tuple[Replace, ...]
    needs: tuple[str, ...] = ()
    """Tools without which the test is skipped, and catches nothing."""


class Outcome(NamedTuple):
    """What the named test said."""

    failed: bool
    output: str


def plants() -> list[Plant]:
    """All of them, by name."""
    found = []
    for path in sorted(PLANTED.glob("*.toml")):
        read = tomllib.loads(path.read_text(encoding="utf-8"))
        replaces = tuple(Replace(**replace) for replace in read["replace"])
        needs = tuple(read.get("needs", ()))
        found.append(Plant(path.stem, read["why"], read["test"], replaces, needs))
    return found


def changed(plant: Plant, root: Path) -> dict[Path, str]:
    """The files of the tree at `root` as the plant makes them. Raises DoesNotApply."""
    texts: dict[Path, str] = {}
    for replace in plant.replaces:
        path = root / replace.file
        text = texts.get(path)
        if text is None:
            if not path.is_file():
                raise DoesNotApply(f"{plant.name}: {replace.file} is not there any more")
            text = path.read_text(encoding="utf-8")
        count = text.count(replace.old)
        if count != 1:
            raise DoesNotApply(
                f"{plant.name}: its text stands {count} times in {replace.file}, expected once; "
                f"say in tests/chaos/planted/{plant.name}.toml where it is now:\n{replace.old}"
            )
        texts[path] = text.replace(replace.old, replace.new)
    return texts


class Copy:
    """A copy of the tree, to be spoilt."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self._base = folder / "t"
        self.root.mkdir()
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "titan_workspace")
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.root / name, ignore=ignored, symlinks=True)
            else:
                shutil.copy2(source, self.root / name)
        sources = sorted(str(path) for path in self.root.glob("packages/*/src"))
        self._env = {
            **{k: v for k, v in os.environ.items() if k != "TITAN_RESULTS"},
            # In front of what is installed, in every process that a test may start.
            "PYTHONPATH": os.pathsep.join(sources),
            # Two texts of one length within a second would share their compiled form.
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def origins(self) -> list[str]:
        """Where the packages are imported from, seen from inside."""
        names = "titan_proto, titan_master, titan_worker, titan_sdk"
        program = f"import {names}\nfor m in ({names}): print(m.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=self._env,
            cwd=self.root,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.split()

    def run(self, tests: Sequence[str]) -> tuple[int, str]:
        """These tests, and nothing else; pytest's exit code and what it said."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-rA", "--tb=short"),
                *("-p", "no:cacheprovider", f"--rootdir={self.root}", f"--basetemp={self._base}"),
                *("--config-file", str(self.root / "pyproject.toml"), f"--timeout={TEST_S}"),
                *tests,
            ],
            env=self._env,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60 + TEST_S * len(tests),
        )
        return done.returncode, done.stdout + done.stderr

    @contextmanager
    def planted(self, plant: Plant) -> Iterator[None]:
        """With this bug."""
        texts = changed(plant, self.root)
        before = {path: path.read_text(encoding="utf-8") for path in texts}
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
        try:
            yield
        finally:
            for path, text in before.items():
                path.write_text(text, encoding="utf-8")

    def judge(self, plant: Plant) -> Outcome:
        """Whether the named test itself fails with this bug; an error on the way to it is none."""
        with self.planted(plant):
            code, output = self.run([plant.test])
        return Outcome(code == 1 and f"FAILED {plant.test}" in output, output)


def main(arguments: list[str]) -> int:
    """All plants, and the report's figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos planted")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args(arguments)
    found = plants()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="titan-planted-") as folder:
        copy = Copy(Path(folder))
        code, output = copy.run([plant.test for plant in found])
        if code != 0:
            print(output)
            print("the named tests must pass without a plant")
            return 1
        caught = {plant.name: copy.judge(plant).failed for plant in found}
    for plant in found:
        print(f"{'caught' if caught[plant.name] else 'SURVIVED':8} {plant.name}: {plant.test}")
    survived = [name for name, is_caught in caught.items() if not is_caught]
    if options.report is not None:
        named = {plant.name: plant.test.rpartition("::")[2] for plant in found}
        result = Result(
            name="planted",
            what="bugs planted into a copy of the tree, each with the test that must catch it",
            command="nox -s chaos-full -- planted",
            seeds="none",
            figures={
                "planted": str(len(found)),
                "caught": str(len(found) - len(survived)),
                "took": f"{time.monotonic() - began:.0f} s",
                **{
                    name.replace(
                        "_", " "
                    ): f"{'caught' if caught[name] else 'SURVIVED'} by `{test}`"
                    for name, test in named.items()
                },
            },
            passed=not survived,
            found=[f"{name} survived {named[name]}" for name in survived],
        )
        write(options.report, result)
    return 1 if survived else 0
