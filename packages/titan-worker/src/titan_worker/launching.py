"""From an order to the process: which program, which arguments, which environment.

Knows the rules for scripts (``.py`` this interpreter or the one that the job asks for, ``.sh`` bash
or sh, ``.jar`` java, anything else itself), which handlers this worker has, and what a job finds in its environment: an allow-list of
the worker's own, what Titan tells it, then what its spec sets. Starts nothing. Called by the engine.
"""

from __future__ import annotations

import datetime
import errno
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from typing import Final

from titan_proto.ids import AttemptRef
from titan_proto.messages.worker import AttemptOrder
from titan_proto.specs import JobKind, Launch, LaunchKind, Resources
from titan_worker.archives import path_problem
from titan_worker.host.base import LaunchPlan, Limits, SpawnError
from titan_worker.host.listeners import who_listens
from titan_worker.host.orphans import MARK, MARKS
from titan_worker.workspace import Folders

# Looks at files for every job: no pathlib.
# ruff: noqa: PTH112, PTH113, PTH208

_ALLOWED: Final = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL")
_ALLOWED_PREFIX: Final = "LC_"
_PATH_DEFAULT: Final = "/usr/local/bin:/usr/bin:/bin"
_LOOPBACK: Final = "127.0.0.1"
_AUTO: Final = "`port: auto` picks a free one"
_LISTED: Final = 8
"""So many names of a workspace are told when a script is not among them."""


class Launcher:
    """Makes plans for one worker."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        worker: str,
        home: str,
        handlers: Mapping[str, str] | None = None,
    ) -> None:
        self._handlers = dict(handlers or {})
        inherited = {
            name: value
            for name, value in environ.items()
            if name in _ALLOWED or name.startswith(_ALLOWED_PREFIX)
        }
        self._base = {
            "PATH": _PATH_DEFAULT,
            **inherited,
            "PYTHONUNBUFFERED": "1",
            "TITAN_WORKER": worker,
            MARK: home,
        }
        self._programs: dict[tuple[str, str], str | None] = {}

    def plan(self, order: AttemptOrder, folders: Folders, port: int) -> LaunchPlan:
        """The process of this order. Raises SpawnError with a text for people."""
        env = self.environment(order, folders, port)
        launch = order.spec.launch
        if launch.kind is LaunchKind.SCRIPT and launch.script.endswith(".py"):
            # Python itself looks beside the script only, and that may be in a folder of the project.
            own = env.get("PYTHONPATH", "")
            env["PYTHONPATH"] = f"{folders.work}:{own}" if own else folders.work
        path = env["PATH"]
        argv = self._argv(launch, folders.work, path)
        program = argv[0] if "/" in argv[0] else self._find(argv[0], path)
        if program is None:
            raise SpawnError(f"command {argv[0]!r} was not found on this worker (PATH is {path})")
        return LaunchPlan(
            program,
            argv,
            env,
            folders.work,
            folders.stdout,
            folders.stderr,
            _limits(launch.resources),
            is_service=order.spec.kind is JobKind.SERVICE,
        )

    def environment(self, order: AttemptOrder, folders: Folders, port: int) -> dict[str, str]:
        """The variables of the order's process, and of whatever checks it."""
        ref = order.ref
        env = {
            **self._base,
            "TITAN_RUN_ID": ref.run_id,
            "TITAN_JOB_ID": ref.job_id,
            "TITAN_ATTEMPT": str(ref.number),
            "TITAN_FENCE": str(order.fence),
            # The same for every attempt: what another system takes as the name of one deed.
            "TITAN_IDEMPOTENCY_KEY": f"{ref.run_id}/{ref.job_id}",
            "TITAN_RUN_NAME": order.run_name,
            "TITAN_SHARED": folders.shared,
            "TITAN_OUTPUT": folders.outputs,
        }
        if order.scheduled_for_ms:
            env["TITAN_SCHEDULED_FOR"] = _rfc3339(order.scheduled_for_ms)
        if port:
            env["PORT"] = str(port)
        if order.spec.launch.env:
            # What leftovers are recognised by is not the job's to set: it could be another's.
            env |= dict(order.spec.launch.env) | {name: env[name] for name in MARKS}
        return env

    def _argv(self, launch: Launch, work: str, path: str) -> tuple[str, ...]:
        if launch.kind is LaunchKind.SHELL:
            return ("/bin/sh", "-c", launch.shell, "sh", *launch.args)
        if launch.kind is LaunchKind.COMMAND and launch.command:
            return (*launch.command, *launch.args)
        if launch.kind is LaunchKind.SCRIPT:
            return (*self._script(launch.script, launch.python, work, path), *launch.args)
        if launch.kind is LaunchKind.HANDLER:
            return (*self._handler(launch.handler, path), *launch.args)
        raise SpawnError(f"this worker does not know how to launch {launch.kind}: is it too old?")

    def _handler(self, name: str, path: str) -> tuple[str, ...]:
        """How a handler of this worker is executed."""
        file = self._handlers.get(name)
        if file is None:
            raise SpawnError(
                f"this worker has no handler {name!r}; start it with --handler {name}=PATH"
            )
        if not os.path.isfile(file):
            raise SpawnError(f"handler {name!r} of this worker is gone: {file}")
        return self._interpreted(file, f"handler {name!r}", "", path)

    def _script(self, script: str, python: str, work: str, path: str) -> tuple[str, ...]:
        """How a script of the workspace is executed."""
        problem = path_problem(script)
        if problem:
            raise SpawnError(f"script {script[:200]!r} is refused: {problem}")
        file = f"{work}/{script}"
        if not os.path.isfile(file):
            if os.path.isdir(file):
                raise SpawnError(f"script {script!r} is a folder")
            raise SpawnError(
                f"script {script!r} is not in the workspace, which holds {_listed(work)}"
            )
        return self._interpreted(file, f"script {script!r}", python, path)

    def _interpreted(self, file: str, called: str, python: str, path: str) -> tuple[str, ...]:
        """A file that is there, with whatever program its suffix asks for."""
        if not os.access(file, os.R_OK):
            raise SpawnError(f"{called} is not readable")
        name = file[file.rfind("/") + 1 :]
        suffix = name[name.rfind(".") :] if "." in name else ""
        if suffix == ".py":
            return (self._python(python, called, path) if python else sys.executable, file)
        if suffix == ".sh":
            return (self._find("bash", path) or "/bin/sh", file)
        if suffix == ".jar":
            java = self._find("java", path)
            if java is None:
                raise SpawnError(f"{called} needs java, which is not on this worker's PATH")
            return (java, "-jar", file)
        if not os.access(file, os.X_OK):
            raise SpawnError(
                f"{called} is not executable: chmod +x it before it is submitted, or give it a name that ends in .py, .sh or .jar"
            )
        return (file,)

    def _python(self, python: str, called: str, path: str) -> str:
        """The interpreter that a job asks for: a path as it stands, a version looked for by name."""
        if "/" in python:
            if not os.path.isfile(python):
                raise SpawnError(f"{called} needs {python}, which is not on this worker")
            if not os.access(python, os.X_OK):
                raise SpawnError(f"{called} needs {python}, which is not executable")
            return python
        name = f"python{python}"
        program = self._find(name, path)
        if program is None:
            raise SpawnError(
                f"{called} needs {name}, which was not found on this worker (PATH is {path})"
            )
        return program

    def _find(self, name: str, path: str) -> str | None:
        """The program `name` on `path`; found ones are remembered."""
        program = self._programs.get((name, path))
        if program is None:
            program = shutil.which(name, path=path)
            # A path of the job's own is looked through each time: there may be no end of them.
            if program is not None and path == self._base["PATH"]:
                self._programs[name, path] = program
        return program


def _rfc3339(at_ms: int) -> str:
    """A moment in UTC; with milliseconds only where it has any."""
    at = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.timezone.utc)
    digits = "milliseconds" if at_ms % 1000 else "seconds"
    return at.isoformat(timespec=digits).replace("+00:00", "Z")


def _limits(asked: Resources | None) -> Limits:
    return Limits(asked.cpu_milli, asked.memory_bytes, asked.pids) if asked else Limits()


def _listed(work: str) -> str:
    try:
        names = sorted(os.listdir(work))
    except OSError as error:  # another job may have removed it
        raise SpawnError(f"the workspace is gone: {error.strerror} ({work})") from error
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "nothing") + more


class Ports:
    """The ports of this worker's services, each promised to one attempt from its start to its end.

    A port that nobody listens on yet looks free to the next one who asks, and whoever is second
    would pass for healthy by the first one's answer.
    """

    def __init__(self) -> None:
        self._promised: dict[int, AttemptRef] = {}

    def take(self, order: AttemptOrder) -> int:
        """The port that this order's process will listen on; 0 if it has none. Raises SpawnError."""
        service = order.spec.service
        if service is None or not (service.port or service.port_auto):
            return 0
        for port, holder in self._promised.items():
            if holder == order.ref:
                return port  # it is started again: whoever knows it knows it by this one
        if service.port_auto:
            port = _bindable(0)
            while port in self._promised:
                port = _bindable(0)
        else:
            port = _bindable(service.port)
        holder = self._promised.setdefault(port, order.ref)
        if holder != order.ref:
            raise SpawnError(f"port {port} is that of {holder} on this worker; {_AUTO}")
        return port

    def give_back(self, ref: AttemptRef) -> None:
        """The attempt is over."""
        for port in [port for port, holder in self._promised.items() if holder == ref]:
            del self._promised[port]


def _bindable(wanted: int) -> int:
    """A port that can be bound now: `wanted`, or with 0 one of the system's choice."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # Somebody else's answer on that port would otherwise pass for the service's health.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((_LOOPBACK, wanted))
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        who = who_listens(wanted) if error.errno == errno.EADDRINUSE else ""
        why = f"{who} has it" if who else error.strerror
        raise SpawnError(f"port {wanted} cannot be used on this worker ({why}); {_AUTO}") from error
