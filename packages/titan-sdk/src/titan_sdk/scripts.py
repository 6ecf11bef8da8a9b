"""What lies where a script is named, and why it is none that could be run.

Decides whether a name can be that of a file at all, what stands there instead of one, and who needs
the execute bit. Looks at files and reads none; `keys` asks it about names, `staging` about what is
there, both before anything is sent.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

INTERPRETED: Final = (".py", ".sh", ".jar")
"""Scripts that a worker starts with a program of its own: they need no execute bit."""

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_NOWHERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL})


def names_a_folder(script: str) -> bool:
    """Whether no file can have this name: `.`, `..`, `scripts/`, `scripts/..`."""
    # As a name, before anything is looked at: what is written must mean the same on the worker.
    return script.rpartition("/")[2] in {"", os.curdir, os.pardir}


def is_absent(path: Path) -> bool:
    """Whether nothing lies there. A link that leads nowhere is something."""
    try:
        path.lstat()
    except (OSError, ValueError) as error:
        return not isinstance(error, OSError) or error.errno in _NOWHERE
    return False


def what_instead(path: Path) -> str:
    """What lies there that is no file, in words; empty for a file."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads in a circle"
        if error.errno in _NOWHERE and path.is_symlink():
            return f"a link that leads nowhere ({path.readlink()})"
        return f"out of reach ({error.strerror})"
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no file")


def needs_execute_bit(path: Path) -> bool:
    """Whether the worker would refuse to start it: nothing interprets it, and it may not be run."""
    return not path.name.endswith(INTERPRETED) and not path.stat().st_mode & 0o111
