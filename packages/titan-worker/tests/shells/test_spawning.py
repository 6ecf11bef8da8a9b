"""How siblings are started: with which arguments, under which port, and what is said when none is."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal

import pytest

from titan_proto.messages import SpawnSibling
from titan_worker.config import ConfigError, make_settings
from titan_worker.host.identity import ProcessIdentity, is_running, read_stat
from titan_worker.nursery import ELSEWHERE, CannotSpawn, Nursery
from titan_worker.spawning import CommandSpawner, LocalSpawner
from titan_worker.tasks import Tasks

ORDER = SpawnSibling(
    term=1,
    number=7,
    proof="secret",
    port=8081,
    slots=2,
    skills=("GENERAL", "GPU"),
    join_within_ms=9,
)


def settings(folder, *, environ=None, **fields):
    given = {
        "port": 8080, "master_host": "127.0.0.1", "master_port": 1, "port_flag": None,
        "master_flag": None, "slots": 4, "skills": ("GENERAL",), "handlers": (), "resources": (),
        "data": folder, "drain_timeout": "5s", "cgroups": "off", "keep": None, "keep_bytes": None,
        "cache_bytes": None, "spawner": None,
    }  # fmt: skip
    return make_settings(**(given | fields), environ=environ or {}, cwd=folder)


# -- what is said on the command line and by the parent ---------------------------------------------
def test_a_worker_that_was_spawned_knows_it_by_its_environment(tmp_path):
    found = settings(tmp_path, environ={"TITAN_SIBLING": f"7 secret 60000 {tmp_path}/a b"}).birth
    assert (found.number, found.proof, found.join_within_ms) == (7, "secret", 60_000)
    assert settings(tmp_path).birth is None


@pytest.mark.parametrize("text", ["7", "x secret 1", "7 secret", "7  1"])
def test_what_no_worker_says_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="TITAN_SIBLING"):
        settings(tmp_path, environ={"TITAN_SIBLING": text})


def test_an_empty_spawner_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--spawner is empty, expected local, off"):
        settings(tmp_path, spawner=" ")


# -- beside this worker -----------------------------------------------------------------------------
def test_a_sibling_gets_its_parents_settings_and_nothing_of_what_is_counted(tmp_path):
    handler = tmp_path / "convert.sh"
    handler.write_text("")
    own = settings(tmp_path, handlers=(f"pdf={handler}", f"mp3={handler}"), resources=("gpu=2",))
    order = SpawnSibling(term=1, number=7, proof="secret", port=8081, slots=2, skills=("A", "pdf"))
    words = LocalSpawner(own, {})._arguments(order, 8081)
    # They come to the same settings again.
    assert words[:3] == ["8081", "127.0.0.1", "1"]
    pairs = list(zip(words[3::2], words[4::2], strict=True))
    assert ("--slots", "2") in pairs
    assert ("--handler", f"pdf={handler}") in pairs
    assert ("--resource", "cpu=0") in pairs
    assert ("--drain-timeout", "5000ms") in pairs
    assert ("--keep-bytes", "10485760KiB") in pairs
    assert not any("mp3" in word or "gpu" in word or "secret" in word for word in words)


def test_a_port_that_a_worker_has_here_is_passed_over_unless_it_has_to_be_that_one(tmp_path):
    home = tmp_path / ".worker-8081"
    home.mkdir()
    spawner = LocalSpawner(settings(tmp_path), {})
    assert spawner._port(ORDER) == 8081
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert spawner._port(ORDER) == 8082
        exact = SpawnSibling(term=1, number=7, proof="p", port=8081, slots=2, skills=(), exact=True)
        with pytest.raises(CannotSpawn, match=r"another worker has port 8081 in"):
            spawner._port(exact)


class Watch:
    """Who is told."""

    def __init__(self):
        self.began = asyncio.Queue()
        self.gone = asyncio.Queue()


def nursed(spawner, scene):
    """Run a scene with a nursery."""

    async def run():
        watch = Watch()
        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group)
            nursery = Nursery(
                loop=asyncio.get_running_loop(),
                tasks=tasks,
                spawner=spawner,
                own_pids=set(),
                marks=set(),
                on_began=lambda number, who, port: watch.began.put_nowait((number, who, port)),
                on_gone=lambda number, message: watch.gone.put_nowait((number, message)),
            )
            try:
                async with asyncio.timeout(30):
                    return await scene(nursery, watch)
            finally:
                nursery.close()
                tasks.cancel_all()

    return asyncio.run(run())


def test_a_sibling_has_its_own_session_is_found_again_and_killed_when_given_up(tmp_path):
    """No master is there: it dials, and would end by itself after its patience."""
    order = SpawnSibling(
        term=1, number=7, proof="secret", port=8081, slots=1, skills=("A",), join_within_ms=60_000
    )
    environ = {**os.environ, "TITAN_TOKEN": "t" * 40}
    spawner = LocalSpawner(settings(tmp_path), environ)

    async def scene(nursery, watch):
        nursery.bear(order)
        number, who, port = await watch.began.get()
        assert (number, port) == (7, 8081)
        stat = read_stat(who.pid)
        assert stat is not None
        assert stat.session == who.pid
        # As the next process of this worker does, with and without what was written down.
        found = await spawner.find(order, who)
        assert found is not None
        assert found.who == who
        for _ in range(1_000):  # until it has become the program: then it has its mark
            if await spawner.find(order, None) is not None:
                break
        assert await spawner.find(order, ProcessIdentity(who.pid, who.start_ticks + 1)) is None
        nursery.end(7)
        assert await watch.gone.get() == (7, "it ended by signal 9")
        assert not is_running(who)

    nursed(spawner, scene)


def test_what_a_sibling_said_at_its_end_is_told(tmp_path):
    """Here it has no token."""
    environ = {name: value for name, value in os.environ.items() if "TITAN" not in name}
    spawner = LocalSpawner(settings(tmp_path), environ | {"TITAN_SIBLING": "", "HOME": "/nowhere"})
    bad = SpawnSibling(term=1, number=7, proof="p", port=8081, slots=0, skills=("A",))

    async def scene(nursery, watch):
        nursery.bear(bad)
        await watch.began.get()
        return await watch.gone.get()

    number, message = nursed(spawner, scene)
    assert number == 7
    assert message.startswith("it ended with exit code 64: ")
    assert "--slots is 0" in message


# -- by a command -----------------------------------------------------------------------------------
def test_a_command_is_told_what_is_wanted_and_that_it_is_not_any_more(tmp_path):
    told = tmp_path / "told"
    line = f'echo "$TITAN_SPAWN $TITAN_SPAWN_NUMBER $TITAN_SPAWN_SKILLS $TITAN_SIBLING" >>{told}'
    spawner = CommandSpawner(settings(tmp_path, spawner=line), os.environ)

    async def scene(nursery, watch):
        nursery.bear(ORDER)
        assert await watch.began.get() == (7, ELSEWHERE, 0)
        nursery.end(7)
        assert await watch.gone.get() == (7, "it was stopped")

    nursed(spawner, scene)
    assert told.read_text().splitlines() == [
        "start 7 GENERAL GPU 7 secret 9",
        "stop 7 GENERAL GPU 7 secret 9",
    ]


def test_a_command_that_fails_says_why(tmp_path):
    spawner = CommandSpawner(settings(tmp_path, spawner="echo no quota >&2; exit 4"), os.environ)

    async def scene(nursery, watch):
        nursery.bear(ORDER)
        return await watch.gone.get()

    assert nursed(spawner, scene) == (7, "the spawner ended with 4: no quota")


def test_a_command_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("titan_worker.spawning.COMMAND_S", 0.3)
    pid = tmp_path / "pid"
    line = f"echo $$ >{pid}; sleep 600; true"
    spawner = CommandSpawner(settings(tmp_path, spawner=line), os.environ)

    async def scene(nursery, watch):
        nursery.bear(ORDER)
        return await watch.gone.get()

    _, message = nursed(spawner, scene)
    assert "had not ended after 0.3 s" in message
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), signal.SIGCONT)
