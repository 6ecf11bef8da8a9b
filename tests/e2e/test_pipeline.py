"""The main job: the product's pipeline on real data, from the command line to the API's answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.e2e.conftest import ROOT, Titan, change_a_row
from tests.harness.cluster import Cluster

EXAMPLE = ROOT / "examples" / "daily_etl"


def _serve_months(cluster: Cluster, titan: Titan, folder: Path) -> dict[str, dict[str, float]]:
    """Run the pipeline with a free port, ask its API, stop the service."""
    pipeline = folder / "daily_etl.yaml"
    text = pipeline.read_text(encoding="utf-8")
    pipeline.write_text(text.replace("port: 8080", "port: auto"), encoding="utf-8")
    alias = titan("run", str(pipeline), "--wait").stdout.strip().splitlines()[0]
    listed = json.loads(titan("ps", alias, "-o", "json").stdout)
    service = next(job for job in listed["items"] if job["id"] == "DEPLOY_API")
    with urllib.request.urlopen(f"http://127.0.0.1:{service['port']}/", timeout=10) as answer:
        months = json.load(answer)["months"]
    titan("stop", f"{alias}/DEPLOY_API")
    return {figures["month"]: figures for figures in months}


def test_the_pipeline_serves_what_it_read(cluster: Cluster, titan: Titan, tmp_path: Path) -> None:
    """Extract, transform and deploy in that order; a changed row changes its month and no other."""
    cluster.start_worker(8080)
    cluster.start_worker(8081)
    first = shutil.copytree(EXAMPLE, tmp_path / "first")
    before = _serve_months(cluster, titan, first)
    second = shutil.copytree(EXAMPLE, tmp_path / "second")
    change_a_row(second / "data" / "seattle-weather.csv")
    after = _serve_months(cluster, titan, second)
    different = [month for month in before if before[month] != after[month]]
    assert len(before) == 48
    assert different == ["2013-07"]


def test_logs_reach_the_terminal_byte_for_byte(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """What a job printed is what `titan logs` prints into a file, every byte of it."""
    cluster.start_worker(8080)
    script = tmp_path / "bytes.py"
    script.write_text("import os\nos.write(1, bytes(range(256)) * 300)\n", encoding="utf-8")
    titan("run", str(script), "--wait")
    done = titan_bytes(cluster, "logs", "bytes")
    assert done == bytes(range(256)) * 300


def titan_bytes(cluster: Cluster, *words: str) -> bytes:
    """The stdout of `titan`, undecoded."""
    return subprocess.run(
        [sys.executable, "-m", "titan_sdk", *words],
        env=cluster.client_env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=True,
    ).stdout
