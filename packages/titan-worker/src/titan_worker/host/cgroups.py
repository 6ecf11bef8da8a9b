"""Control groups: an attempt in one of its own can be held to limits, and ended to the last process.

Finds out what this machine lets us have (version 2, version 1, both at once), makes and removes
groups, says whether the kernel has ended something in one for want of memory. Decides nothing
about attempts. Every worker has one folder of its own in each hierarchy, named after its private
folder: what lies in it is its own, and nothing else is ever touched. Called by the process host.

A hierarchy is used for what it can do: in a hybrid tree the limits are version 1's and the
reliable kill is version 2's.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from titan_proto.ids import AttemptRef
from titan_worker.host.base import Limits

# Some files for every attempt that has a group: no pathlib.
# ruff: noqa: PTH102, PTH103, PTH106, PTH110, PTH119, PTH123

_LOG: Final = logging.getLogger(__name__)

_ALL: Final = "all"
_OFF: Final = "off"

CPU: Final = "cpu"
MEMORY: Final = "memory"
PIDS: Final = "pids"
CONTROLLERS: Final = (CPU, MEMORY, PIDS)

_PERIOD_US: Final = 100_000
_PROCS: Final = "cgroup.procs"
_SELF: Final = "worker"
"""Where the worker itself goes if version 2 wants its folder free of processes."""
_PASSES: Final = 200
_PASS_S: Final = 0.005
_NAME_CHARS: Final = 200


class Hierarchy(NamedTuple):
    """One tree of groups, and the folder in it that is this worker's."""

    version: int
    folder: str
    controllers: frozenset[str]
    """Of ``CONTROLLERS``: the limits that can be set here."""


class Mount(NamedTuple):
    """Where a hierarchy is mounted, and what part of it shows there."""

    version: int
    root: str
    at: str
    names: frozenset[str]
    """Version 1: its controllers."""


class Cgroup:
    """The group of one process tree: in each hierarchy that is of use, one folder."""

    def __init__(self, folders: dict[str, Hierarchy], memory: str) -> None:
        self._folders = folders
        self._memory = memory
        self._is_killed = False

    @property
    def born_in(self) -> str:
        """Its folder of version 2, in which a process can be started; empty if it has none."""
        return next((path for path, one in self._folders.items() if one.version == 2), "")

    @property
    def joins(self) -> tuple[str, ...]:
        """Files of its other folders: who writes 0 into each is in it from then on, with all it starts."""
        return tuple(f"{path}/{_PROCS}" for path, one in self._folders.items() if one.version != 2)

    def kill(self) -> None:
        """SIGKILL to everything in it."""
        self._is_killed = True
        for folder in self._folders:
            _kill(folder)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in it; dead processes that nobody waited for do not count."""
        return not any(_members(folder) for folder in self._folders)

    @property
    def members(self) -> list[int]:
        """The pids in it now."""
        return _members(next(iter(self._folders)))

    def oom_kills(self) -> int:
        """How many of its processes the kernel has ended for want of memory."""
        if not self._memory:
            return 0
        version = self._folders[self._memory].version
        name = "memory.events" if version == 2 else "memory.oom_control"
        for line in _read(f"{self._memory}/{name}").splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill" and value.isdecimal():
                return int(value)
        return 0

    def remove(self) -> bool:
        """Take it away; False while something is still in it."""
        left = [folder for folder in self._folders if not _remove(folder)]
        return not left


class Cgroups:
    """The groups of one worker."""

    def __init__(self, hierarchies: Iterable[Hierarchy], mode: str) -> None:
        self._hierarchies = tuple(hierarchies)
        self._mode = mode
        self._made = 0
        self._by_controller = {name: one for one in self._hierarchies for name in one.controllers}
        # In version 2 the kernel itself ends all that is in a group; any other lists what is in it.
        self._killer = max(self._hierarchies, key=lambda one: one.version, default=None)
        self._ready: set[Hierarchy] = set()

    @property
    def limits(self) -> tuple[str, ...]:
        """What can be limited here."""
        return tuple(name for name in CONTROLLERS if name in self._by_controller)

    @property
    def has_any(self) -> bool:
        """Whether there are groups here at all."""
        return self._killer is not None

    def describe(self) -> str:
        """For people: what attempts are held by on this worker."""
        if not self.has_any:
            return "rlimits" if self._mode != _OFF else "rlimits (--cgroups off)"
        versions = "+".join(f"v{n}" for n in sorted({one.version for one in self._hierarchies}))
        limits = ", ".join(self.limits) or "no limits"
        return f"cgroups {versions} ({self._mode}): {limits}"

    def make(self, ref: AttemptRef, limits: Limits, *, is_service: bool) -> Cgroup | None:
        """A group for one process of this attempt, if it is to have one. Raises OSError.

        What of `limits` no hierarchy can hold it to is left to others.
        """
        if self._killer is None or not (self._mode == _ALL or is_service or any(limits)):
            return None
        self._made += 1
        name = f"{ref.run_id}.{ref.job_id}"[:_NAME_CHARS] + f".{ref.number}.{self._made}"
        wanted: dict[Hierarchy, dict[str, int]] = {self._killer: {}}
        for controller, value in zip(CONTROLLERS, limits, strict=True):
            hierarchy = self._by_controller.get(controller)
            if value and hierarchy is not None:
                wanted.setdefault(hierarchy, {})[controller] = value
        folders: dict[str, Hierarchy] = {}
        memory = ""
        try:
            for hierarchy, values in wanted.items():
                self._prepare(hierarchy)
                folder = f"{hierarchy.folder}/{name}"
                os.mkdir(folder)
                folders[folder] = hierarchy
                for controller, value in values.items():
                    _limit(folder, hierarchy.version, controller, value)
                if MEMORY in values:
                    memory = folder
        except OSError:
            for folder in folders:
                _remove(folder)
            raise
        return Cgroup(folders, memory)

    def _prepare(self, hierarchy: Hierarchy) -> None:
        """Make the worker's own folder when it is needed first: most workers never come to that."""
        if hierarchy in self._ready:
            return
        os.makedirs(hierarchy.folder, exist_ok=True)
        if hierarchy.version == 2 and hierarchy.controllers:
            _write(f"{hierarchy.folder}/cgroup.subtree_control", _plus(hierarchy.controllers))
        self._ready.add(hierarchy)

    def close(self) -> None:
        """Remove this worker's folders and whatever is left in them."""
        for hierarchy in self._hierarchies:
            clear(hierarchy.folder)


def find(mode: str, private: Path) -> Cgroups:
    """What this worker may use; ends and removes what an earlier life of it left.

    `private`: the worker's own folder. In it is noted where its groups are: the next life may be
    started from elsewhere, and is then given groups elsewhere.
    """
    name = f"titan-{hashlib.sha256(os.fsencode(str(private))).hexdigest()[:16]}"
    note = private / "cgroups"
    for line in _read(str(note)).splitlines():
        # Somebody else's text as far as the kernel's tree is concerned: only what is surely ours.
        if os.path.basename(line) == name and os.path.exists(f"{line}/{_PROCS}"):
            clear(line)
    mounts = mounted(_read("/proc/self/mountinfo"))
    own = memberships(_read("/proc/self/cgroup"))
    hierarchies = [] if mode == _OFF else list(_usable(mounts, own, name))
    if hierarchies:
        note.write_text("".join(f"{one.folder}\n" for one in hierarchies), encoding="utf-8")
    else:
        note.unlink(missing_ok=True)
    return Cgroups(hierarchies, mode)


def mounted(mountinfo: str) -> list[Mount]:
    """The hierarchies that are mounted, the first of each."""
    found: list[Mount] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(), right.split()
        if len(fields) < 5 or len(kinds) < 3 or kinds[0] not in {"cgroup", "cgroup2"}:
            continue
        version = 2 if kinds[0] == "cgroup2" else 1
        names = frozenset() if version == 2 else frozenset(kinds[2].split(","))
        found.append(Mount(version, _plain(fields[3]), _plain(fields[4]), names))
    return found


def memberships(text: str) -> dict[str, str]:
    """In which group this process is, by controller; version 2 is the empty name."""
    own: dict[str, str] = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            own[name] = path
    return own


def clear(folder: str) -> None:
    """End everything in the groups below `folder`, and remove them and it."""
    for _ in range(_PASSES):
        below = [entry.path for entry in _subfolders(folder) if entry.name != _SELF]
        for group in below:
            _kill(group)
            _remove(group)
        _remove(f"{folder}/{_SELF}")
        if _remove(folder):
            return
        if not below:
            return  # only the worker itself is left, where it must not leave
        time.sleep(_PASS_S)
    _LOG.warning("cgroups_left folder=%s why=something in it does not end", folder)


def _usable(mounts: list[Mount], own: dict[str, str], name: str) -> Iterator[Hierarchy]:
    taken: set[str] = set()
    for mount in mounts:
        wanted = mount.names & {*CONTROLLERS} if mount.version == 1 else {""}
        fresh = wanted - taken
        if not fresh:
            continue
        base = _own_folder(mount, own.get(next(iter(sorted(fresh))), "/"))
        if base is None or not os.access(base, os.W_OK):
            continue
        controllers = frozenset(fresh) if mount.version == 1 else _hand_down(base, name)
        taken |= fresh
        yield Hierarchy(mount.version, f"{base}/{name}", controllers)


def _own_folder(mount: Mount, path: str) -> str | None:
    """The folder of the group that this process is in, if it can be seen here."""
    if path == mount.root or path.startswith(f"{mount.root.rstrip('/')}/"):
        folder = f"{mount.at}{path[len(mount.root.rstrip('/')) :]}".rstrip("/")
    else:
        folder = mount.at
    return folder if os.path.exists(f"{folder}/{_PROCS}") else None


def _hand_down(base: str, name: str) -> frozenset[str]:
    """Version 2: have `base` give its limits to groups below it; which of them it does.

    It does so only while no process is in `base` itself. If only this one is, it makes room.
    """
    offered = frozenset(_read(f"{base}/cgroup.controllers").split()) & {*CONTROLLERS}
    if not offered:
        return frozenset()
    try:
        _write(f"{base}/cgroup.subtree_control", _plus(offered))
    except OSError:
        if _members(base) != [os.getpid()]:
            return frozenset()
        try:
            os.makedirs(f"{base}/{name}/{_SELF}", exist_ok=True)
            _write(f"{base}/{name}/{_SELF}/{_PROCS}", "0")
            _write(f"{base}/cgroup.subtree_control", _plus(offered))
        except OSError:
            return frozenset()
    return offered


def _limit(folder: str, version: int, controller: str, value: int) -> None:
    """Hold a group to this. Raises OSError."""
    if controller == CPU:
        quota_us = value * _PERIOD_US // 1000
        if version == 2:
            _write(f"{folder}/cpu.max", f"{quota_us} {_PERIOD_US}")
        else:
            _write(f"{folder}/cpu.cfs_period_us", str(_PERIOD_US))
            _write(f"{folder}/cpu.cfs_quota_us", str(quota_us))
    elif controller == PIDS:
        _write(f"{folder}/pids.max", str(value))
    elif version == 2:
        _write(f"{folder}/memory.max", str(value))
        # Neither is everywhere: a kernel without swap accounting, an older one.
        _try_write(f"{folder}/memory.swap.max", "0")
        _try_write(f"{folder}/memory.oom.group", "1")
    else:
        _write(f"{folder}/memory.limit_in_bytes", str(value))
        # With swap, where it is counted: else a job would only become slow.
        _try_write(f"{folder}/memory.memsw.limit_in_bytes", str(value))


def _kill(folder: str) -> None:
    """SIGKILL to everything in one group: by the kernel, or one by one until it holds no more."""
    if _try_write(f"{folder}/cgroup.kill", "1"):
        return
    _try_write(f"{folder}/pids.max", "0")  # where it can be said: nobody forks any more
    for pid in _members(folder):
        _kill_member(pid, folder)


def _kill_member(pid: int, folder: str) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # Looked at after opening: the descriptor cannot come to mean a later owner of the number.
        if pid in _members(folder):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # gone meanwhile, or it has changed its user
    finally:
        os.close(pidfd)


def _members(folder: str) -> list[int]:
    return [int(word) for word in _read(f"{folder}/{_PROCS}").split() if word != "0"]


def _remove(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:  # something is in it, or dying in it
        return False
    return True


def _subfolders(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _plus(controllers: Iterable[str]) -> str:
    return " ".join(f"+{name}" for name in sorted(controllers))


def _plain(field: str) -> str:
    """A path of mountinfo, which writes spaces and the like in octal."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field


def _read(path: str) -> str:
    """A small file's text; empty where there is none to be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    # Not made if it is missing: a kernel without this file has no such limit.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _try_write(path: str, text: str) -> bool:
    with contextlib.suppress(OSError):
        _write(path, text)
        return True
    return False
