"""What the end-to-end tests share: a cluster per test, and the commands of the environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
Titan = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A master that runs; workers are the test's to start. Ends without a survivor."""
    with Cluster(tmp_path / "cluster") as made:
        made.start_master()
        yield made


@pytest.fixture
def titan(cluster: Cluster, tmp_path: Path) -> Titan:
    """Run `titan` against the cluster, in a folder of its own, and give back what it said."""
    folder = tmp_path / "here"
    folder.mkdir()

    def run(
        *words: str, code: int = 0, cwd: Path = folder, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "titan_sdk", *words],
            cwd=cwd,
            env={**cluster.client_env(), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"titan {words}: {done}\n{cluster.logs()}"
        return done

    return run


def change_a_row(table: Path) -> None:
    """Let it rain on the fourth of July 2013."""
    rows = table.read_text(encoding="utf-8").splitlines(keepends=True)
    changed = next(n for n, row in enumerate(rows) if row.startswith("2013/07/04,"))
    date, _, rest = rows[changed].partition(",")
    rows[changed] = f"{date},99.5,{rest.partition(',')[2]}"
    table.write_text("".join(rows), encoding="utf-8")
