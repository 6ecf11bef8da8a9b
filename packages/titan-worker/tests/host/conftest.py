"""Real processes, watched from outside."""

import asyncio
import os
import select
import sys

import pytest

from titan_proto.ids import AttemptRef
from titan_worker.host.base import LaunchPlan
from titan_worker.host.cgroups import Cgroups
from titan_worker.host.posix import PosixHost

RUN = "r" * 16
NO_CGROUPS = Cgroups((), "off")
HOME = f"/data/of/{os.getpid()}/lab"


class Lab:
    """A host whose attempts are told apart by name, in a folder of their own."""

    home = HOME

    def __init__(self, folder, cgroups=NO_CGROUPS):
        self.folder = folder
        self.started = {}
        self.exits = {}
        self.told = asyncio.Event()
        self.host = PosixHost(
            loop=asyncio.get_running_loop(),
            home=HOME,
            cgroups=cgroups,
            on_started=self._on_started,
            on_exit=self._on_exit,
        )

    @staticmethod
    def ref(name):
        return AttemptRef(RUN, name, 1)

    def plan(self, name, *argv, env=None):
        work = self.folder / name
        work.mkdir(exist_ok=True)
        return LaunchPlan(
            argv[0],
            argv,
            {"PATH": os.environ["PATH"]} | (env or {}),
            str(work),
            str(self.folder / f"{name}.out"),
            str(self.folder / f"{name}.err"),
        )

    def start(self, name, *argv, env=None, guard=None):
        self.host.spawn(self.ref(name), self.plan(name, *argv, env=env), guard)

    def shell(self, name, line, env=None, guard=None):
        self.start(name, "/bin/sh", "-c", line, env=env, guard=guard)

    def python(self, name, code, env=None, guard=None):
        self.start(name, sys.executable, "-c", code, env=env, guard=guard)

    def out(self, name):
        return (self.folder / f"{name}.out").read_text()

    def err(self, name):
        return (self.folder / f"{name}.err").read_text()

    async def until(self, condition):
        """Wait, at most ten seconds, until something the host told makes it true."""
        async with asyncio.timeout(10):
            while not condition():
                self.told.clear()
                await self.told.wait()

    async def exit_of(self, name):
        await self.until(lambda: name in self.exits)
        return self.exits[name]

    async def pid_of(self, name):
        await self.until(lambda: name in self.started)
        return self.started[name].pid

    async def printed(self, name, word):
        """Until the process has said so: nobody tells us of a file's growth."""
        async with asyncio.timeout(10):
            while word not in self.out(name):  # noqa: ASYNC110 - a file tells nobody that it grew
                await asyncio.sleep(0.005)

    def _on_started(self, ref, identity):
        self.started[ref.job_id] = identity
        self.told.set()

    def _on_exit(self, ref, how):
        self.exits[ref.job_id] = how
        self.told.set()


def gone(pidfd, timeout_s=10):
    """Whether the process of this descriptor ends within the time."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))


@pytest.fixture
async def lab(tmp_path):
    found = Lab(tmp_path)
    yield found
    found.host.close()


@pytest.fixture
def wait_gone():
    return gone
