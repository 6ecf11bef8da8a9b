"""A real master and real workers as processes, on port 0, in a folder of the test's own.

Nothing here waits by sleeping: every start is awaited by the line that the daemon itself prints
when it is ready, every end by the process's exit.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.harness.waiting import wait_until
from titan_sdk import TitanClient

READY_S = 20.0
STOP_S = 30.0
SOON_S = 45.0
_MASTER_READY = re.compile(r"titan-master ready on ([\d.]+):(\d+)")
_WORKER_READY = re.compile(r"titan-worker ready")


class Daemon:
    """One process whose stderr is kept and searched for the line that says it is ready."""

    def __init__(
        self,
        command: list[str],
        *,
        ready: re.Pattern[str],
        log: Path,
        env: dict[str, str],
        cwd: Path,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.log = log
        self._ready = ready
        self._found = threading.Event()
        self.match: re.Match[str] | None = None
        self.process = subprocess.Popen(
            [*prefix, *command],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        stderr = self.process.stderr
        assert stderr is not None
        self._reader = threading.Thread(target=self._read, args=(stderr,), daemon=True)
        self._reader.start()

    def _read(self, stderr: IO[bytes]) -> None:
        with stderr, self.log.open("ab") as log:
            for line in stderr:
                log.write(line)
                log.flush()
                if self.match is None:
                    self.match = self._ready.search(line.decode("utf-8", "replace"))
                    if self.match is not None:
                        self._found.set()
        self._found.set()  # ended: whoever waits must not wait on

    def wait_ready(self) -> re.Match[str]:
        """The match of the ready line; fails with the log when it does not come."""
        self._found.wait(READY_S)
        if self.match is None:
            raise AssertionError(f"not ready:\n{self.log.read_text(errors='replace')}")
        return self.match

    @property
    def pid(self) -> int:
        """Of the daemon's process."""
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(STOP_S)
        self._reader.join(STOP_S)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_S)
                raise AssertionError(
                    f"did not stop:\n{self.log.read_text(errors='replace')}"
                ) from None
        self._reader.join(STOP_S)
        return self.process.returncode


class Cluster:
    """One master and any number of workers under `folder`."""

    def __init__(
        self,
        folder: Path,
        *,
        lost_after: str = "30s",
        master_python: str = sys.executable,
        worker_python: str = sys.executable,
        environ: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.data = folder / "master"
        self.perm_files = folder / "perm_files"
        self.perm_files.mkdir(parents=True, exist_ok=True)
        self.lost_after = lost_after
        self.master_python = master_python
        self.worker_python = worker_python
        self.port = 0
        self.master: Daemon | None = None
        self.workers: dict[int, Daemon] = {}
        self._all_workers: list[Daemon] = []
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("TITAN_")}
        self.env["XDG_STATE_HOME"] = str(folder / "state")
        # Many folders of many tests are kept for a while: each need not hold 64 MiB.
        self.env["TITAN_DISK_RESERVE"] = "1MiB"
        # Who counts workers, or measures, does not want more of them; what is about them says so.
        self.env["TITAN_AUTOSCALE"] = "off"
        self.env.update(environ or {})

    # -- the master ---------------------------------------------------------------------------
    def start_master(self, *extra: str, ready: bool = True) -> Daemon:
        """Start it, or start it again on the same data folder and port; wait until it is ready."""
        self.master = Daemon(
            [
                self.master_python,
                "-m",
                "titan_master",
                "start",
                "--data",
                str(self.data),
                "--perm-files",
                str(self.perm_files),
                "--listen",
                f"127.0.0.1:{self.port}",
                "--lost-after",
                self.lost_after,
                *extra,
            ],
            ready=_MASTER_READY,
            log=self.folder / "master.log",
            env=self.env,
            cwd=self.folder,
        )
        if ready:
            self.port = int(self.master.wait_ready().group(2))
        return self.master

    @property
    def address(self) -> str:
        """Where the master listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        """The local token, as the master wrote it."""
        return (self.data / "token").read_text(encoding="ascii").strip()

    # -- workers ------------------------------------------------------------------------------
    def start_worker(
        self,
        port: int = 8080,
        *extra: str,
        ready: bool = True,
        slots: int = 4,
        drain: str = "0s",
        home: Path | None = None,
        prefix: tuple[str, ...] = (),
        through: int | None = None,
    ) -> Daemon:
        """Start a worker named `port`; as on one machine, all share one data folder.

        `drain`: most tests are about what a stop does, and not about waiting for it.
        `home` and `prefix`: a folder of its own, and what starts it, for one on another host.
        `through` is the port of a proxy that it dials instead of the master's.
        """
        home = home or self.home
        home.mkdir(parents=True, exist_ok=True)
        worker = Daemon(
            [
                self.worker_python,
                "-m",
                "titan_worker",
                str(port),
                "127.0.0.1",
                str(self.port if through is None else through),
                "--data",
                str(home),
                "--slots",
                str(slots),
                "--drain-timeout",
                drain,
                *extra,
            ],
            ready=_WORKER_READY,
            log=self.folder / f"worker-{port}.log",
            env={**self.env, "TITAN_TOKEN": self.token},
            cwd=self.folder,
            prefix=prefix,
        )
        self._all_workers.append(worker)
        self.workers[port] = worker
        if ready:
            worker.wait_ready()
        return worker

    @property
    def home(self) -> Path:
        """The workers' data folder."""
        return self.folder / "workers"

    def attempt_folders(self, run_id: str) -> list[str]:
        """The folders `<job>.<n>` that any worker made for this run: what was started, and how often."""
        runs = self.home / "titan_workspace" / "jobs" / run_id
        return sorted(path.name for path in runs.iterdir()) if runs.is_dir() else []

    def client(self) -> TitanClient:
        """A client of this cluster."""
        return TitanClient(master=self.address, token=self.token)

    def client_env(self) -> dict[str, str]:
        """The environment for a command that shall find this cluster."""
        return {**self.env, "TITAN_MASTER": self.address, "TITAN_TOKEN": self.token}

    def logs(self) -> str:
        """What all daemons said, for a failing test's message."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Until it is so, within SOON_S; with what all daemons said where it is not."""
        try:
            wait_until(condition, within_s=SOON_S, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    # -- the end ------------------------------------------------------------------------------
    def stop(self) -> None:
        """Workers first, then the master; whatever refuses is killed, and said."""
        with contextlib.ExitStack() as stack:
            if self.master is not None:
                stack.callback(self.master.stop)
            for worker in self._all_workers:
                stack.callback(worker.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
