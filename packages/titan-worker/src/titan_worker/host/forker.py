"""Starts processes that must be held before they do anything: in a group, under limits, then the program.

A program of its own, run by the worker's interpreter without anything installed (``-I -S``):
single-threaded, so that it may run code between fork and exec, which the worker must not, and small,
so that a fork is quick. What it starts becomes the worker's child: the process between the two
ends at once, and the worker is the next subreaper. It decides nothing, and ends with its worker.

To move a process into a group the kernel waits until every processor has taken notice, some 10 ms
where nobody did so a moment ago. A group of version 2 a process can be born in: that waits for nobody.

    forker.py FD

    in:   a length, then a marshalled (program, argv, env, folder, born_in, joins, rlimits); with it
          two descriptors, stdout and stderr
    out:  one line for each, in their order:
          P PID               it runs
          F PID ERRNO STAGE   it could not be held (STAGE 0) or executed (1); PID is to be waited for
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import marshal
import os
import resource
import signal
import socket
import sys
from typing import Any, Final, NoReturn

_SYS_CLONE3: Final = 435
"""On every machine that Linux runs on."""
_CLONE_PARENT: Final = 0x8000
_CLONE_INTO_CGROUP: Final = 0x2_0000_0000
_LENGTH_BYTES: Final = 8
_ANSWER_BYTES: Final = 256
_READY: Final = b"!"
_SIGNALS_IGNORED: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)
"""A terminal's or an operator's signal is for the worker, which then lets go of us."""
_SIGNALS_DEFAULT: Final = (signal.SIGPIPE, signal.SIGXFSZ, *_SIGNALS_IGNORED)
# Between fork and exec every page that is touched is copied: as little as can be is done there.
_NOTHING: Final = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


# Python must keep its lock in it: there is no other thread, in the child least of all.
_CALL: Final = ctypes.PyDLL(None).syscall
_CALL.restype = ctypes.c_long


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


def main() -> None:
    """Serve until the worker lets go."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    for number in _SIGNALS_IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # A reset is an end too: of a worker that went before it had read our answers.
    with contextlib.suppress(ConnectionResetError):
        _serve(channel)


def _serve(channel: socket.socket) -> None:
    while True:
        head, fds, _flags, _address = socket.recv_fds(channel, _LENGTH_BYTES, 2)
        for fd in fds:
            os.set_inheritable(fd, False)  # it does not heed the flag for that, up to Python 3.11
        if not head:
            return
        request = _receive(channel, int.from_bytes(head, "big"))
        if request is None:
            return
        answer = _start(marshal.loads(request), fds)  # noqa: S302 - it is our worker's
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(OSError):  # it is gone: the next read says so
            channel.send(answer)


def _receive(channel: socket.socket, size: int) -> bytes | None:
    body = bytearray()
    while len(body) < size:
        piece = channel.recv(size - len(body))
        if not piece:
            return None
        body += piece
    return bytes(body)


def _start(request: Any, fds: list[int]) -> bytes:
    program, argv, env, folder, born_in, joins, rlimits = request
    reading, writing = os.pipe()
    pid = _fork_into(born_in) if born_in else -1
    if pid < 0:
        if born_in:
            joins = (f"{born_in}/cgroup.procs", *joins)
        pid = _fork_through()
    if pid == 0:
        _become((program, argv, env, folder, joins, rlimits), fds, writing)
    os.close(writing)
    # Until it has become the program, or has said why it could not: either closes the other end.
    said = b""
    while piece := os.read(reading, _ANSWER_BYTES):
        said += piece
    os.close(reading)
    said = said.removeprefix(_READY)
    return b"F %d %s\n" % (pid, said) if said else b"P %d\n" % pid


def _fork_through() -> int:
    """As fork, but the child is our worker's: who comes between ends, and leaves it to its subreaper."""
    reading, writing = os.pipe()
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid == 0:
            return 0
        os.write(writing, b"%d" % pid)
        os._exit(0)
    os.close(writing)
    os.waitpid(between, 0)
    pid = int(os.read(reading, _ANSWER_BYTES))
    os.close(reading)
    return pid


def _fork_into(folder: str) -> int:
    """As `_fork_through`, with the child in this group from its first moment.

    -1 where that cannot be had: an old kernel, a filter of system calls.
    """
    try:
        group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    wanted = _CloneArgs(flags=_CLONE_INTO_CGROUP | _CLONE_PARENT, cgroup=group)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    pid = int(_CALL(ctypes.c_long(_SYS_CLONE3), ctypes.byref(wanted), size))
    os.close(group)
    return pid


def _become(request: Any, fds: list[int], writing: int) -> NoReturn:
    program, argv, env, folder, joins, rlimits = request
    stage = 0
    try:
        os.setsid()
        for number in _SIGNALS_DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        for path in joins:
            _join(path)
        for which, value in rlimits:
            resource.setrlimit(which, (value, value))
        stage = 1
        os.chdir(folder)
        os.dup2(_NOTHING, 0)
        os.dup2(fds[0], 1)
        os.dup2(fds[1], 2)
        # Should we have ended there is nobody who tells of it: then SIGPIPE ends it here.
        os.write(writing, _READY)
        os.execve(program, argv, env)  # noqa: S606 - a shell is not what was asked for
    except OSError as error:
        os.write(writing, b"%d %d" % (error.errno or 1, stage))
    except ValueError:
        os.write(writing, b"%d %d" % (errno.EINVAL, stage))
    finally:
        os._exit(1)


def _join(path: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"0")
    os.close(fd)


if __name__ == "__main__":
    main()
