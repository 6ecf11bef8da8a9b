"""The import contracts hold, and each of them bites when it is broken."""

import os
import pathlib
import shutil
import subprocess
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINT_IMPORTS = pathlib.Path(sysconfig.get_path("scripts")) / "lint-imports"
SOURCES = ["packages/titan-proto", "packages/titan-master", "packages/titan-worker"]
SOURCES += ["packages/titan-sdk", "packages/titan-dashboard"]

pytestmark = pytest.mark.skipif(
    not LINT_IMPORTS.exists(), reason="import-linter is not installed; `nox -s arch` has it"
)


def lint_imports(tree):
    """Run import-linter on a tree, with the tree's own sources first on the path."""
    path = os.pathsep.join(str(tree / source / "src") for source in SOURCES)
    return subprocess.run(
        [str(LINT_IMPORTS), "--config", "pyproject.toml", "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.fixture
def tree(tmp_path):
    """A copy that a test may spoil."""
    without_bytecode = shutil.ignore_patterns("__pycache__")
    for source in SOURCES:
        shutil.copytree(ROOT / source / "src", tmp_path / source / "src", ignore=without_bytecode)
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=without_bytecode)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_tree_keeps_every_contract():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


# (where a line is planted, the line, what the report must name)
PLANTS = [
    ("titan-master", "titan_master/core", "import socket", "titan_master.core.planted is not allowed to import socket"),
    ("titan-master", "titan_master/core", "from time import time", "titan_master.core.planted is not allowed to import time"),
    ("titan-master", "titan_master/core", "from titan_master.store import base", "titan_master.core.planted is not allowed to import titan_master.store"),
    ("titan-master", "titan_master/core", "from titan_proto import connection", "titan_master.core.planted is not allowed to import titan_proto.connection"),
    ("titan-worker", "titan_worker/core", "import random", "titan_worker.core.planted is not allowed to import random"),
    ("titan-worker", "titan_worker/core", "import logging", "titan_worker.core.planted is not allowed to import logging"),
    ("titan-proto", "titan_proto", "import asyncio", "titan_proto.planted is not allowed to import asyncio"),
    ("titan-proto", "titan_proto/messages", "import socket", "titan_proto.messages.planted is not allowed to import socket"),
    ("titan-proto", "titan_proto", "from titan_proto import io", "titan_proto.planted is not allowed to import titan_proto.io"),
    ("titan-master", "titan_master/data", "from titan_master.core import state", "titan_master.data.planted is not allowed to import titan_master.core"),
    ("titan-master", "titan_master/store", "from titan_master import engine", "titan_master.store.planted is not allowed to import titan_master.engine"),
    ("titan-master", "titan_master/net", "from titan_master.store import sqlite", "titan_master.net.planted is not allowed to import titan_master.store.sqlite"),
    ("titan-proto", "titan_proto", "import titan_master", "titan_proto imports nothing of ours BROKEN"),
    ("titan-sdk", "titan_sdk", "import titan_master", "titan_sdk is not allowed to import titan_master"),
    ("titan-dashboard", "titan_dashboard", "import titan_sdk", "titan_dashboard is not allowed to import titan_sdk"),
    ("titan-worker", "titan_worker", "import titan_master", "titan_worker is not allowed to import titan_master"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("package", "folder", "line", "named"), PLANTS, ids=[f"{p[1]}: {p[2]}" for p in PLANTS]
)
def test_a_contract_bites(tree, package, folder, line, named):
    target = tree / "packages" / package / "src" / folder
    assert target.is_dir(), f"{folder} is gone; plant this line where its contract applies now"
    (target / "planted.py").write_text(f'"""Planted by a test."""\n\n{line}\n', encoding="utf-8")
    done = lint_imports(tree)
    assert done.returncode == 1, done.stdout + done.stderr
    assert named in " ".join(done.stdout.split())


def test_a_contract_on_a_folder_that_is_gone_is_an_error(tree):
    config = tree / "pyproject.toml"
    text = config.read_text(encoding="utf-8")
    assert 'modules = ["titan_worker.core"]' in text
    config.write_text(
        text.replace('modules = ["titan_worker.core"]', 'modules = ["titan_worker.kernel"]'),
        encoding="utf-8",
    )
    done = lint_imports(tree)
    assert done.returncode == 1
    assert "titan_worker.kernel: no such module" in done.stdout
