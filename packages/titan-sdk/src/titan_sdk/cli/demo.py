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
from typing import Any, Final, NamedTuple

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


class Told(NamedTuple):
    """What a demo that went well has to tell."""

    answer: dict[str, Any]
    """What the pipeline's service answered."""
    run: str
    """The run's alias."""
    run_s: float
    """From the submission to the run's end."""
    total_s: float = 0.0
    """From the first process to the answer."""

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "run": self.run,
            "answer": self.answer,
            "runSeconds": round(self.run_s, 3),
            "totalSeconds": round(self.total_s, 3),
        }


_FILE: Final = "daily_etl.yaml"
_RUN_S: Final = 120.0
_HTTP_S: Final = 10.0


def run_demo(example: Path | None, *, stay: bool, color: str, show: Callable[[Told], None]) -> bool:
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
    show: Callable[[Told], None],
) -> bool:
    say(f"Titan {__version__}  demo cluster in {folder}   (nothing outside this folder)")
    perm_files = folder / "perm_files"
    perm_files.mkdir()
    began = time.monotonic()
    plan = Plan(
        port=0,
        workers=2,
        dashboard=False,
        token_link=False,
        perm_files=perm_files,
        autoscale="off",  # it says what it started, and leaves nothing behind
    )
    cluster.start(plan)
    workers = "  ".join(
        f"[{worker.port}] {worker.slots} slots {', '.join(worker.skills)}"
        for worker in cluster.stats().workers
    )
    say(f"  master {cluster.address}   workers {workers}")
    pipeline_file = _copy(example, folder / "daily_etl")
    token = read_token_file(cluster.token_file)
    with TitanClient(str(cluster.address), token) as client:
        told = _run(client, pipeline_file, color)
        if told is None:
            return False
        told = told._replace(total_s=time.monotonic() - began)
        show(told)
        say(f"Done in {render.duration(told.total_s)}.")
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


def _run(client: TitanClient, path: Path, color: str) -> Told | None:
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
    spent_s = (view.ended_at_ms - view.submitted_at_ms) / 1000
    say(f"Result  {view.state} in {render.duration(spent_s)}")
    port = next(job.port for job in run.jobs() if job.kind is JobKind.SERVICE)
    answer = _ask(f"http://{HOST}:{port}/")
    return None if answer is None else Told(answer=answer, run=run.alias, run_s=spent_s)


def _ask(url: str) -> dict[str, Any] | None:
    """The service's answer; None if there is none, which was said."""
    # A proxy that the environment names has no business with this machine's own address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_HTTP_S) as response:
            body: dict[str, Any] = json.load(response)
    except (OSError, ValueError) as error:
        say(f"error: {url} did not answer: {error}")
        return None
    say(f"  {url} answers:")
    return body


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
