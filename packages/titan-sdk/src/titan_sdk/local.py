"""A cluster of processes on this machine: started, known again later, and stopped whole.

Decides which processes a local cluster has and where their files lie: all in one data folder.
What was started is written to `up.json` there before anybody relies on it, so that `titan down`
finds it after this process is gone. Used by `titan up`, `titan down` and `titan demo`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from titan_proto.errors import LinkError, RequestError, TitanError
from titan_proto.io.address import Address, parse_address, read_token_file, token_link
from titan_proto.io.blocking import BlockingLink
from titan_proto.limits import DEFAULT_PORT, DEFAULT_WORKER_PORT
from titan_proto.messages import GetStats, IssueTicket, Request, Role, Stats
from titan_proto.states import WorkerState
from titan_sdk.__about__ import __version__
from titan_sdk.identity import ProcessIdentity, children, identify, is_alive, send

ReplyT = TypeVar("ReplyT")

HOST: Final = "127.0.0.1"
DASHBOARD_PORT: Final = 5000
MASTER: Final = "master"
WORKER: Final = "worker"
DASHBOARD: Final = "dashboard"
READY_S: Final = 60.0
"""On a loaded machine an interpreter alone may take seconds to start."""

_STATE: Final = "up.json"
_LOGS: Final = "up"
_LOCK: Final = "up.lock"
_STOP_ORDER: Final = (WORKER, DASHBOARD, MASTER)
"""Workers first: they report what they stop to a master that still listens."""
_STOP_S: Final = {WORKER: 40.0, DASHBOARD: 5.0, MASTER: 20.0}
_STOP_SIGNAL: Final = {WORKER: signal.SIGUSR1}
"""For a worker: leave at once. When the whole cluster goes down it waits for none of its tasks: they
are queued, and begin again with the next `titan up`."""
_POLL_S: Final = 0.03
_ALREADY_RUNNING: Final = 75
_SPAWNED: Final = b"TITAN_SIBLING="
"""In the environment of a worker that another one has started, with the folder of that one."""
_ROUNDS: Final = 3
"""One may be just being started while the others are stopped."""
_OURS: Final = ("token", "address", "lock", _STATE)
"""What a data folder of Titan has at least one of."""
_READY_URL: Final = re.compile(r"ready on (http://\S+)")


class LocalError(TitanError):
    """A local cluster could not be started or stopped; `conflict`: because something is there."""

    def __init__(self, message: str, *, hint: str = "", conflict: bool = False) -> None:
        super().__init__(message)
        self.hint = hint
        self.conflict = conflict


class Member(NamedTuple):
    """One process of the cluster."""

    role: str
    name: str
    who: ProcessIdentity


class Plan(NamedTuple):
    """What to start."""

    port: int = DEFAULT_PORT
    """0: any free one."""
    workers: int = 1
    slots: int | None = None
    skills: tuple[str, ...] = ()
    dashboard: bool = True
    token_link: bool = True
    perm_files: Path | None = None
    autoscale: str | None = None
    """`on` or `off`; None: what the master does by itself."""


class LocalCluster:
    """The cluster whose data lies in one folder."""

    def __init__(self, data: Path) -> None:
        self.data = data.absolute()
        self.members: list[Member] = self._read()
        self._popen: dict[int, subprocess.Popen[bytes]] = {}

    # -- looking ------------------------------------------------------------------------------

    @property
    def address(self) -> Address | None:
        """Where its master listens, if it has said so."""
        try:
            return parse_address((self.data / "address").read_text(encoding="ascii"))
        except (OSError, TitanError, UnicodeDecodeError):
            return None

    @property
    def token_file(self) -> Path:
        """Where its master keeps the token."""
        return self.data / "token"

    def alive(self, role: str | None = None) -> list[Member]:
        """Its processes that run."""
        return [
            member
            for member in self.members
            if (role is None or member.role == role) and self._is_alive(member)
        ]

    def log(self, name: str) -> Path:
        """What a process of it has said."""
        return self.data / _LOGS / f"{name}.log"

    def stats(self) -> Stats:
        """Ask its master; it must know this folder's token. Raises LinkError."""
        return self._ask(GetStats())

    def _ask(self, request: Request[ReplyT]) -> ReplyT:
        address, token = self.address, read_token_file(self.token_file)
        if address is None or token is None:
            raise LinkError("no master has started here yet")
        link = BlockingLink.connect(
            address, token, role=Role.ADMIN, software=f"titan-sdk/{__version__}", timeout_s=5
        )
        with link:
            return link.call(request, 5)

    def ticket(self) -> str:
        """A word that its dashboard lets in once. Raises LinkError."""
        return self._ask(IssueTicket()).ticket

    def dashboard_url(self) -> str:
        """Where its dashboard is; empty if it has none."""
        for member in self.alive(DASHBOARD):
            found = _READY_URL.search(_tail(self.log(member.name), lines=50))
            if found:
                return found.group(1)
        return ""

    # -- starting -----------------------------------------------------------------------------

    def start(self, plan: Plan) -> list[Member]:
        """Start what of the plan does not run yet, and wait until it is ready. What was started."""
        _require_installed()
        self._refuse_stranger()
        if plan.port and not self.data.exists():
            self._refuse_taken_port(plan.port)  # before there is a folder that nothing lies in
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.data / _LOGS).mkdir(exist_ok=True)
        with self._locked():
            self.members = [member for member in self._read() if self._is_alive(member)]
            started: list[Member] = []
            with contextlib.ExitStack() as undo:
                undo.callback(self._stop_new)  # whatever goes wrong: not half a cluster
                self._bring_up(plan, started)
                undo.pop_all()
        return started

    def _bring_up(self, plan: Plan, started: list[Member]) -> None:
        if not self.alive(MASTER):
            started.append(self._start_master(plan))
        self._wait_for(lambda: self.address is not None and bool(self.stats()), started)
        started += self._start_workers(plan)
        if plan.dashboard and not self.alive(DASHBOARD):
            started += self._start_dashboard()
        count = len(self.alive(WORKER))
        self._wait_for(lambda: _online(self.stats()) >= count, started)
        if any(member.role == DASHBOARD for member in started):
            self._wait_for(lambda: bool(self.dashboard_url()), started)

    def _start_master(self, plan: Plan) -> Member:
        # The workers of a master that was killed dial on, at the place where it was.
        before = self.address if self.alive(WORKER) else None
        port = plan.port if before is None else before.port
        if port:
            self._refuse_taken_port(port)
        # A master that was killed leaves its address behind; only the new one's counts.
        (self.data / "address").unlink(missing_ok=True)
        arguments = ["start", "--data", str(self.data), "--listen", f"{HOST}:{port}"]
        if plan.perm_files is not None:
            arguments += ["--perm-files", str(plan.perm_files)]
        if plan.autoscale is not None:
            arguments += ["--autoscale", plan.autoscale]
        if not plan.token_link:
            arguments.append("--no-token-link")
        return self._spawn(MASTER, MASTER, "titan_master", arguments)

    def _start_workers(self, plan: Plan) -> list[Member]:
        address = self.address
        assert address is not None  # the master has just answered there
        taken = {member.name for member in self.alive(WORKER)}
        spawned = {port for port, _ in self.spawned()}
        started: list[Member] = []
        port = DEFAULT_WORKER_PORT
        while len(taken) < plan.workers:
            name = f"{WORKER}-{port}"
            if name not in taken and port not in spawned:
                arguments = [str(port), address.host, str(address.port), "--data", str(self.data)]
                if plan.slots is not None:
                    arguments += ["--slots", str(plan.slots)]
                for skill in plan.skills:
                    arguments += ["--skill", skill]
                started.append(self._spawn(WORKER, name, "titan_worker", arguments))
                taken.add(name)
            port += 1
        return started

    def _start_dashboard(self) -> list[Member]:
        if importlib.util.find_spec("titan_dashboard") is None:
            return []
        port = 0 if _is_taken(DASHBOARD_PORT) else DASHBOARD_PORT
        arguments = ["--port", str(port), "--master", str(self.address)]
        return [self._spawn(DASHBOARD, DASHBOARD, "titan_dashboard", arguments)]

    def _spawn(self, role: str, name: str, module: str, arguments: Sequence[str]) -> Member:
        environ = {
            key: value
            for key, value in os.environ.items()
            if key not in {"TITAN_TOKEN", "TITAN_MASTER", "TITAN_DATA"}
        }
        environ["TITAN_TOKEN_FILE"] = str(self.token_file)
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                # -P: a file of the user's called like one of our modules must not be taken for it.
                [sys.executable, "-P", "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environ,
                # A Ctrl-C is for `titan up`, which then stops them in their order.
                start_new_session=True,
            )
        self._popen[process.pid] = process
        who = identify(process.pid)
        if who is None:
            process.wait()
            raise LocalError(f"{name} ended at once:\n{_tail(self.log(name))}")
        member = Member(role, name, who)
        self.members.append(member)
        self._write()
        return member

    def _wait_for(self, is_ready: Callable[[], bool], started: Sequence[Member]) -> None:
        """Until it is; a process that ends meanwhile, or takes too long, is an error."""
        deadline = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(LinkError, RequestError):
                if is_ready():
                    return
            for member in started:
                if not self._is_alive(member):
                    raise self._ended_early(member)
            if time.monotonic() > deadline:
                tails = "\n".join(f"{m.name}:\n{_tail(self.log(m.name))}" for m in started)
                raise LocalError(f"the cluster was not ready after {READY_S:g} s\n{tails}")
            time.sleep(_POLL_S)

    def _ended_early(self, member: Member) -> LocalError:
        process = self._popen.get(member.who.pid)
        code = process.poll() if process is not None else None
        said = _tail(self.log(member.name)) or "  (it said nothing)"
        message = f"{member.name} ended with exit code {code}:\n{said}"
        return LocalError(message, conflict=code == _ALREADY_RUNNING)

    def _refuse_taken_port(self, port: int) -> None:
        if not _is_taken(port):
            return
        raise LocalError(
            f"port {port} is taken by {holder_of(port)}",
            hint=f"titan up --port {port + 1}",
            conflict=True,
        )

    def _refuse_stranger(self) -> None:
        """A master of this folder that was started by hand is up, and can be up only once."""
        if self.alive(MASTER):
            return
        try:
            self.stats()
        except TitanError:
            return
        pid = ""
        with contextlib.suppress(OSError):
            pid = (self.data / "lock").read_text(encoding="utf-8", errors="replace").strip()
        raise LocalError(
            f"it is up already: a master that titan up did not start listens on {self.address} "
            f"for {self.data} ({pid or 'an unknown process'})",
            hint=f"titan --master {self.address} stats   Stop it where it was started, by Ctrl-C"
            + (f", or:  kill {pid.split()[-1]}" if pid else ""),
            conflict=True,
        )

    # -- stopping -----------------------------------------------------------------------------

    def stop(self) -> list[Member]:
        """Stop everything that was started here and runs; returns what that was."""
        if not self.data.is_dir():
            return []
        with self._locked():
            self.members = self._read()
            return self._stop(self.alive())

    def _stop(self, members: Sequence[Member]) -> list[Member]:
        for role in _STOP_ORDER:
            group = [member for member in members if member.role == role]
            for member in group:
                send(member.who, _STOP_SIGNAL.get(role, signal.SIGTERM))
            self._wait_until_gone(group, _STOP_S[role])
            if role == WORKER:
                self._stop_spawned()
        gone = {member.who for member in members}
        self.members = [member for member in self.members if member.who not in gone]
        self._write()
        return sorted(members, key=lambda member: _STOP_ORDER.index(member.role))

    def _stop_spawned(self) -> None:
        """Workers that those of this cluster have spawned: they outlive them, and nobody else stops them."""
        for _ in range(_ROUNDS):
            spawned = [Member(WORKER, f"{WORKER}-{port}", who) for port, who in self.spawned()]
            if not spawned:
                return
            for member in spawned:
                send(member.who, _STOP_SIGNAL[WORKER])
            self._wait_until_gone(spawned, _STOP_S[WORKER])

    def spawned(self) -> list[tuple[int, ProcessIdentity]]:
        """Living workers in this folder that other workers have started: their ports, and who they are."""
        found = []
        for lock in self.data.glob(".worker-*/lock"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(lock.read_text(encoding="ascii"))
                who = identify(pid)
                # The lock of one that has gone still says its number, which may be anybody's by now.
                if who is not None and self._is_spawned(pid, lock):
                    found.append((int(lock.parent.name.rpartition("-")[2]), who))
        return found

    def _is_spawned(self, pid: int, lock: Path) -> bool:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        own = os.fsencode(f"{self.data}/.worker-")
        if not any(one.startswith(_SPAWNED) and own in one for one in environ):
            return False
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _wait_until_gone(self, group: Sequence[Member], patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while any(self._is_alive(member) for member in group):
            if time.monotonic() > deadline:
                for member in group:
                    self._kill(member)
                deadline += patience_s
            time.sleep(_POLL_S)

    def _kill(self, member: Member) -> None:
        """What does not go by itself goes by force, and takes the jobs it leaves with it."""
        orphans = children(member.who)
        send(member.who, signal.SIGKILL)
        for orphan in orphans:
            # A job leads a process group of its own.
            if is_alive(orphan):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(orphan.pid, signal.SIGKILL)

    def _stop_new(self) -> None:
        """Everything that this object has started, even if it was cut short right after."""
        self._stop([m for m in self.members if m.who.pid in self._popen and self._is_alive(m)])
        for process in self._popen.values():
            if process.poll() is None:
                process.kill()
                process.wait()

    def purge(self) -> None:
        """Delete the data folder. Refused for a folder that is none, and while it is in use."""
        if not any((self.data / name).exists() for name in _OURS):
            raise LocalError(f"{self.data} is not a data folder of Titan; nothing was deleted")
        shutil.rmtree(self.data)

    # -- memory -------------------------------------------------------------------------------

    def _is_alive(self, member: Member) -> bool:
        process = self._popen.get(member.who.pid)
        if process is not None and process.poll() is not None:
            return False
        return is_alive(member.who)

    def _read(self) -> list[Member]:
        try:
            text = (self.data / _STATE).read_text(encoding="utf-8")
            return [
                Member(one["role"], one["name"], ProcessIdentity(one["pid"], one["started"]))
                for one in json.loads(text)["members"]
            ]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise LocalError(
                f"{self.data / _STATE} cannot be read: {error}", hint="look at it, then delete it"
            ) from error

    def _write(self) -> None:
        path = self.data / _STATE
        if not self.members:
            path.unlink(missing_ok=True)
            return
        members = [
            {"role": m.role, "name": m.name, "pid": m.who.pid, "started": m.who.started}
            for m in self.members
        ]
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"members": members}, indent=1), encoding="utf-8")
        part.replace(path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One `titan up` or `titan down` at a time in this folder."""
        path = self.data / _LOCK
        with path.open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in {errno.EAGAIN, errno.EACCES}:
                    raise
                raise LocalError(
                    f"another titan up or titan down is at work in {self.data}", conflict=True
                ) from error
            yield


def holder_of(port: int) -> str:
    """Who listens there, as well as it can be found out."""
    link = token_link(Address(HOST, port), os.environ)
    with contextlib.suppress(OSError):
        return f"the master of {link.readlink().parent}"
    pid = _listener_pid(port)
    if pid is None:
        return "another program"
    command = where = ""
    with contextlib.suppress(OSError):  # it may go while we look
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        command = b" ".join(words).decode("utf-8", "replace").strip()
        where = f" in {Path(f'/proc/{pid}/cwd').readlink()}"
    return f"process {pid}{where}: {command[:120]}"


def _listener_pid(port: int) -> int | None:
    """The process that has the listening socket, if it is this account's and this is Linux."""
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for entry in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            for descriptor in entry.iterdir():
                if str(descriptor.readlink()) in inodes:
                    return int(entry.parent.name)
    return None


def _is_taken(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=2).close()
    except OSError:
        return False
    return True


def _online(stats: Stats) -> int:
    # One that was here before the master was killed is ONLINE still, and not here yet.
    return sum(
        worker.state is WorkerState.ONLINE and not worker.link_down_ms for worker in stats.workers
    )


def _require_installed() -> None:
    missing = [
        name
        for name in ("titan-master", "titan-worker")
        if importlib.util.find_spec(name.replace("-", "_")) is None
    ]
    if missing:
        raise LocalError(
            f"{' and '.join(missing)} not installed in this Python ({sys.executable})",
            hint="install all five from the checkout:  python3 run.py",
        )


def _tail(path: Path, lines: int = 12) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])
