"""Which processes belong to something: by what their command line, folder or program names."""

from __future__ import annotations

import os
from pathlib import Path


def processes_of(place: Path) -> list[str]:
    """The command lines of all processes that run in, from, or with a mention of `place`."""
    wanted = os.fsencode(place)
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            line = (process / "cmdline").read_bytes()
            links = [os.fsencode((process / name).readlink()) for name in ("cwd", "exe")]
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # it has ended meanwhile, or is somebody else's
        if wanted in line or any(link.startswith(wanted) for link in links):
            found.append(line.replace(b"\0", b" ").decode("utf-8", "replace").strip())
    return sorted(found)


def jobs_of(home: Path) -> dict[int, str]:
    """Living processes that a worker under `home` started for jobs, and what they descended to.

    Found by the mark that a worker gives to its jobs and they to their children: a process that has
    left its group, its session and its folder is found as well.
    """
    mark = b"TITAN_WORKER_HOME=" + os.fsencode(home)
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            environ = (process / "environ").read_bytes()
            line = (process / "cmdline").read_bytes()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # it has ended meanwhile, or is somebody else's
        # A zombie has neither; whoever waits for it has been told.
        if any(part.startswith(mark) for part in environ.split(b"\0")):
            found[int(process.name)] = line.replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return found
