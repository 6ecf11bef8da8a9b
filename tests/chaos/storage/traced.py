"""A real master under strace, which fails, delays or kills it at one system call of the store.

strace counts each kind of call in each thread for itself; the store writes on one. It watches from the
side (``-D``), so that the master is our own child with its own exit code.
"""

from __future__ import annotations

import collections
import re
from pathlib import Path

from tests.harness.cluster import _MASTER_READY, Cluster, Daemon

WRITES = ("pwrite64", "fdatasync", "fsync", "ftruncate", "rename", "unlink")
"""What changes files of the data folder, and what makes that durable."""
_ATTACHED = re.compile(r"attached")
_CALL = re.compile(r"^(\d+) +(\w+)\(", re.MULTILINE)


def start(cluster: Cluster, *expressions: str, log: Path | None = None) -> Daemon:
    """A master of this cluster under strace with these expressions; not waited for."""
    options = [word for expression in expressions for word in ("-e", expression)]
    target = str(log) if log is not None else "/dev/null"
    # Without --seccomp-bpf: under it strace 6.1 lets a signal for any but the first call pass.
    cluster.master = Daemon(
        [
            *(cluster.master_python, "-m", "titan_master", "start"),
            *("--data", str(cluster.data), "--perm-files", str(cluster.perm_files)),
            *("--listen", f"127.0.0.1:{cluster.port}", "--lost-after", cluster.lost_after),
        ],
        ready=_MASTER_READY,
        log=cluster.folder / "master.log",
        env=cluster.env,
        cwd=cluster.folder,
        prefix=("strace", "-D", "-f", "-qq", "-o", target, *options),
    )
    return cluster.master


def become_ready(cluster: Cluster, master: Daemon) -> bool:
    """Wait for its door; False if it has ended before."""
    master._found.wait(20)
    if master.match is None:
        return False
    cluster.port = int(master.match.group(2))
    return True


def calls(log: Path) -> dict[str, int]:
    """How often each call was made by the thread that made it most."""
    counted = collections.Counter(_CALL.findall(log.read_text(errors="replace")))
    most: dict[str, int] = {}
    for (_thread, name), count in counted.items():
        most[name] = max(count, most.get(name, 0))
    return most


def attach(cluster: Cluster, pid: int, *expressions: str) -> Daemon:
    """Do this to a master that runs already, until it is stopped; back once it is being done."""
    options = [word for expression in expressions for word in ("-e", expression)]
    tracer = Daemon(
        ["strace", "-f", "-o", "/dev/null", *options, "-p", str(pid)],
        ready=_ATTACHED,
        log=cluster.folder / "strace.log",
        env=cluster.env,
        cwd=cluster.folder,
    )
    tracer.wait_ready()
    return tracer
