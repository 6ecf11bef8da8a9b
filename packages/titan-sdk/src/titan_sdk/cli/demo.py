"""What `titan demo` does: a temporary cluster, the sample pipeline, its answer, and nothing left.

Everything it writes lies in one temporary folder. It starts processes, waits for them to be gone
again, and deletes the folder, whatever happened in between.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

from titan_proto.errors import Timeout
from titan_proto.io.address import read_token_file
from titan_proto.specs import JobKind
from titan_proto.states import RunState
from titan_sdk.__about__ import __version__
from titan_sdk.cli import render
from titan_sdk.cli.context import say
from titan_sdk.cli.progress import shown
from titan_sdk.cli.sanitize import clean
from titan_sdk.client import TitanClient
from titan_sdk.local import HOST, LocalCluster, Plan
from titan_sdk.pipeline import load

SAMPLE: Final = Path(__file__).parent.parent / "demo" / "daily-etl"
"""The sample pipeline; the same files as in the checkout's examples/daily_etl."""
_FILE: Final = "daily_etl.yaml"
_RUN_S: Final = 120.0
_HTTP_S: Final = 10.0


def run_demo(example: Path | None, *, stay: bool, color: str, show: Callable[[str], None]) -> bool:
    """The whole demo. Returns whether the pipeline succeeded and its service answered."""
    folder = Path(tempfile.mkdtemp(prefix="titan-demo-"))
    cluster = LocalCluster(folder / "data")
    try:
        return _inside(folder, cluster, example or SAMPLE, stay=stay, color=color, show=show)
    finally:
        # From here on nothing may cut it short: half a cluster must not stay behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        cluster.stop()
        shutil.rmtree(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _inside(
    folder: Path,
    cluster: LocalCluster,
    example: Path,
    *,
    stay: bool,
    color: str,
    show: Callable[[str], None],
) -> bool:
    say(f"Titan {__version__}  demo cluster in {folder}   (nothing outside this folder)")
    perm_files = folder / "perm_files"
    perm_files.mkdir()
    began = time.monotonic()
    plan = Plan(port=0, workers=2, dashboard=False, token_link=False, perm_files=perm_files)
    cluster.start(plan)
    workers = "  ".join(
        f"[{worker.port}] {worker.slots} slots {', '.join(worker.skills)}"
        for worker in cluster.stats().workers
    )
    say(f"  master {cluster.address}   workers {workers}")
    pipeline_file = _copy(example, folder / "daily_etl")
    token = read_token_file(cluster.token_file)
    with TitanClient(str(cluster.address), token) as client:
        answer = _run(client, pipeline_file, color)
        if answer is None:
            return False
        show(answer)
        say(f"Done in {render.duration(time.monotonic() - began)}.")
        if stay:
            _stay(cluster)
    return True


def _copy(example: Path, target: Path) -> Path:
    """The pipeline in a folder of its own, its service on any free port."""
    ignored = shutil.ignore_patterns("__pycache__", ".titan", "titan_workspace")
    shutil.copytree(example, target, ignore=ignored)
    path = target / _FILE
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("port: 8080", "port: auto"), encoding="utf-8")
    return path


def _run(client: TitanClient, path: Path, color: str) -> str | None:
    """Run the pipeline and ask its service; None if either failed, which was said."""
    pipeline = load(path)
    run = client.run_pipeline(pipeline)
    say(f"{pipeline.name}  run {run.alias}")
    try:
        with shown(client, run.id, color=color):
            view = client.wait(run, _RUN_S)
    except Timeout as error:
        say(f"error: {error}")
        return None
    if view.state is not RunState.SUCCEEDED:
        say(f"Result  {view.state}")
        for job in run.jobs():
            if job.attempt and render.outcome(job):
                say(f"{job.job_id}: {render.outcome(job)}")
                lines = clean(run.logs(job.job_id)).splitlines()[-20:]
                say("\n".join(f"  | {line}" for line in lines))
        return None
    spent = render.duration((view.ended_at_ms - view.submitted_at_ms) / 1000)
    say(f"Result  {view.state} in {spent}")
    port = next(job.port for job in run.jobs() if job.kind is JobKind.SERVICE)
    return _ask(f"http://{HOST}:{port}/")


def _ask(url: str) -> str | None:
    """The service's answer, one month a line."""
    # A proxy that the environment names has no business with this machine's own address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_HTTP_S) as response:
            body = json.load(response)
    except (OSError, ValueError) as error:
        say(f"error: {url} did not answer: {error}")
        return None
    say(f"  {url} answers:")
    months = ",\n".join(json.dumps(month) for month in body["months"])
    return '{"months": [\n' + months + "\n]}"


def _stay(cluster: LocalCluster) -> None:
    say(
        f"Look around from another terminal:\n"
        f"  export TITAN_MASTER={cluster.address} TITAN_TOKEN_FILE={cluster.token_file}\n"
        f"  titan stats\n"
        f"Press Ctrl-C to stop."
    )
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
