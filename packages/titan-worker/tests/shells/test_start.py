"""The command line, and a worker as a process of its own."""

import asyncio
import os
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from titan_proto.io.address import Address
from titan_proto.specs import JobSpec, Launch, Needs, RunSpec
from titan_proto.states import ExitReason
from titan_proto.validation import BAD_SKILL, problems
from titan_worker.config import ConfigError, make_settings
from titan_worker.host.identity import read_stat
from titan_worker.host.resources import detected


def settings(cwd=Path("/nowhere"), environ=None, **fields):
    given = {
        "port": None,
        "master_host": None,
        "master_port": None,
        "port_flag": None,
        "master_flag": None,
        "slots": None,
        "skills": (),
        "handlers": (),
        "resources": (),
        "data": Path(),
        "drain_timeout": None,
        "cgroups": "asked",
        "keep": None,
        "keep_bytes": None,
        "cache_bytes": None,
        "spawner": None,
    }
    return make_settings(**(given | fields), environ=environ or {}, cwd=cwd)


def test_defaults_are_those_of_the_document():
    found = settings()

    assert (found.port, found.master, found.slots) == (8080, Address("127.0.0.1", 9090), 4)
    assert found.skills == ("GENERAL",)
    assert found.private == Path("/nowhere/.worker-8080")
    assert found.workspace == Path("/nowhere/titan_workspace")


def test_a_handler_is_a_skill_beside_the_others(tmp_path):
    program = tmp_path / "convert.sh"
    program.write_text("")

    found = settings(cwd=tmp_path, handlers=("pdf_convert=./convert.sh",))

    assert found.handlers == {"pdf_convert": str(program)}
    assert found.skills == ("GENERAL", "pdf_convert")
    assert settings(cwd=tmp_path, skills=("GPU",), handlers=("x=convert.sh",)).skills == (
        "GPU",
        "x",
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("pdf_convert", "expected NAME=PATH"),
        ("pdf_convert=", "expected NAME=PATH"),
        ("=convert.sh", "NAME is a skill"),
        ("p d f=convert.sh", "NAME is a skill"),
        ("pdf_convert=absent.sh", "there is no file"),
        ("pdf_convert=.", "there is no file"),
        ("pdf_convert=plain", "is not executable; chmod"),
    ],
)
def test_a_handler_that_could_never_run_is_refused_at_once(tmp_path, given, message):
    (tmp_path / "convert.sh").write_text("")
    (tmp_path / "plain").write_text("")

    with pytest.raises(ConfigError, match=message):
        settings(cwd=tmp_path, handlers=(given,))


def test_a_handler_has_one_program(tmp_path):
    (tmp_path / "convert.sh").write_text("")

    with pytest.raises(ConfigError, match="given twice"):
        settings(cwd=tmp_path, handlers=("x=convert.sh", "x=convert.sh"))


def test_what_is_kept_can_be_chosen():
    found = settings(keep="2h", keep_bytes="512MiB", cache_bytes="1 GiB")

    assert (found.keep_ms, found.workspace_bytes, found.cache_bytes) == (
        7_200_000,
        512 * 1024**2,
        1024**3,
    )
    usual = settings()
    assert (usual.keep_ms, usual.workspace_bytes) == (24 * 3_600_000, 10 * 1024**3)


def test_resources_are_counted_in_their_units():
    given = ("gpu=2", "cpu=3.5", "memory=12GiB", "licence=1", "tape.a-1=0")

    assert settings(resources=given).resources == {
        "gpu": 2, "cpu": 3_500, "memory": 12 * 1024**3, "licence": 1, "tape.a-1": 0,
    }  # fmt: skip
    assert settings().resources == {}
    found = detected()
    assert found["cpu"] >= 1_000
    assert found["memory"] > 2**26


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("gpu",), "an amount behind it"),
        (("gpu=",), "whole number"),
        (("gpu=1.5",), "whole number"),
        (("gpu=-1",), "whole number"),
        (("gpu=9999999999",), r"RESOURCE_AMOUNT"),
        (("gpu=1", "gpu=2"), "given twice"),
        (("cpu=many",), "such as 3.5"),
        (("cpu=5000",), "up to 4096"),
        (("memory=12",), "KiB, MiB, GiB or TiB"),
        (("pids=12",), "pids is not counted"),
        (("a b=1",), "letters, digits"),
        (tuple(f"r{n}=1" for n in range(65)), r"RESOURCES_PER_WORKER \(64\)"),
    ],
)
def test_a_resource_that_cannot_be_is_refused_with_what_could(given, said):
    with pytest.raises(ConfigError, match=said):
        settings(resources=given)


def test_arguments_and_flags_say_the_same():
    by_arguments = settings(port=8081, master_host="10.0.0.1", master_port=9191)

    assert by_arguments == settings(port_flag=8081, master_flag="10.0.0.1:9191")
    assert settings(master_host="10.0.0.1").master == Address("10.0.0.1", 9090)
    assert settings(skills=("GPU", "HIGH_MEM", "GPU")).skills == ("GPU", "HIGH_MEM")


def test_a_worker_may_offer_exactly_what_a_job_may_ask_for():
    """Or a job could be accepted that no worker can ever be started for."""

    def may_be_asked_for(skill):
        asking = JobSpec(id="a", launch=Launch(script="a"), needs=Needs(skills=(skill,)))
        return not any(
            problem.code == BAD_SKILL for problem in problems(RunSpec(name="a", jobs=(asking,)))
        )

    def may_be_offered(skill):
        try:
            return settings(skills=(skill,)).skills == (skill,)
        except ConfigError:
            return False

    tried = ["C++", "", "x" * 64, "x" * 65, "ü", *map(chr, range(128))]
    tried += [f"a{chr(number)}" for number in range(128)]
    for skill in tried:
        assert may_be_offered(skill) == may_be_asked_for(skill), skill
    assert may_be_offered("C++")


def test_the_environment_names_the_master_where_no_argument_does():
    environ = {"TITAN_MASTER": "titan://10.0.0.2:7000"}

    assert settings(environ=environ).master == Address("10.0.0.2", 7000)
    assert settings(environ=environ, master_host="10.0.0.1").master.host == "10.0.0.1"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"port": 1, "port_flag": 2}, "given twice"),
        ({"master_host": "a", "master_flag": "b"}, "given twice"),
        ({"port": 0}, "expected 1 to 65535"),
        ({"master_host": "a", "master_port": 70_000}, "expected 1 to 65535"),
        ({"master_host": "a b"}, "no address"),
        ({"slots": 0}, "expected 1 to 4096"),
        ({"skills": ("two words",)}, "'two words'"),
        ({"skills": ("x" * 65,)}, "at most 64"),
        ({"keep": "soon"}, "--keep"),
        ({"keep": "9000h"}, "expected 0s to 8784h"),
        ({"keep_bytes": "10"}, "a number and KiB, MiB, GiB or TiB"),
        ({"keep_bytes": "10GB"}, "a number and KiB, MiB, GiB or TiB"),
        ({"cache_bytes": "2000TiB"}, "--cache-bytes is 2000TiB, expected at most 1024TiB"),
    ],
)
def test_what_cannot_be_is_refused_with_what_could(fields, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        settings(**fields)


# Nobody listens on this port of loopback: privileged, and unassigned.
NOBODY = ("127.0.0.1", "3")


def test_the_first_line_says_where_things_lie_and_sigterm_ends_it(command, tmp_path):
    worker = command("8099", *NOBODY)

    first = worker.line_with("")
    assert str(tmp_path / ".worker-8099") in first
    assert str(tmp_path / "titan_workspace") in first
    worker.line_with("no_master")
    # It dials and is never dialled: not one listening socket.
    folder = Path(f"/proc/{worker.process.pid}")
    own = {str(fd.readlink()) for fd in (folder / "fd").iterdir()}
    tables = [(folder / "net" / name).read_text().splitlines() for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table]
    assert not [row for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]
    worker.process.send_signal(signal.SIGTERM)

    assert worker.end()[0] == 0


def test_a_second_one_of_the_same_port_here_is_told_a_free_port(command):
    first = command("8099", *NOBODY)
    first.line_with("no_master")
    neighbour = command("8100", *NOBODY)
    neighbour.line_with("no_master")

    code, words = command("8099", *NOBODY).end()

    assert code == 75
    assert f"pid {first.process.pid}" in words
    assert "titan-worker 8101" in words


def test_wrong_usage_is_64(command):
    code, words = command("--slots", "0").end()

    assert code == 64
    assert "expected 1 to 4096" in words


def test_help_and_version_are_there(command):
    assert command("--version").end()[0] == 0
    assert command("--help").end()[0] == 0


async def test_after_kill_9_the_next_life_kills_what_was_left_and_reports_it_lost(
    command, peer, token, wait_gone
):
    """Also what had left its group."""
    address = (peer.address.host, str(peer.address.port))
    first = command("8099", *address, token=token)
    await peer.joined()
    peer.order("a", shell="setsid sleep 1000 & echo $! $$; exec sleep 1000")
    pids = [int(word) for word in (await peer.log_of("a", b"\n")).split()]
    await peer.running("a")
    descriptors = [os.pidfd_open(pid) for pid in pids]

    first.process.kill()
    first.process.wait()
    assert all(read_stat(pid).is_alive for pid in pids)
    command("8099", *address, token=token)
    end = await peer.end_of("a")

    assert end.reason is ExitReason.LOST
    assert all(wait_gone(fd) for fd in descriptors)
    for fd in descriptors:
        os.close(fd)


@pytest.mark.parametrize(
    ("given", "found"),
    [(None, 30_000), ("0s", 0), ("500ms", 500), ("10m", 600_000), ("24h", 86_400_000)],
)
def test_a_drain_timeout_is_a_duration_or_the_default(given, found):
    assert settings(drain_timeout=given).drain_ms == found


@pytest.mark.parametrize("given", ["soon", "10", "-1s", "25h"])
def test_a_drain_timeout_that_cannot_be_is_refused_with_what_can(given):
    with pytest.raises(ConfigError, match="--drain-timeout"):
        settings(drain_timeout=given)


async def test_sigusr1_makes_it_leave_at_once_and_in_good_order(command, peer, token):
    worker = command("8099", peer.address.host, str(peer.address.port), token=token)
    await peer.joined()
    peer.order("long", shell="echo up; exec sleep 1000")
    await peer.log_of("long", b"up\n")
    for _ in range(3):
        worker.process.send_signal(signal.SIGUSR1)
    assert (await peer.end_of("long")).reason is ExitReason.WORKER_LEFT
    assert worker.end()[0] == 0


async def test_three_signals_end_it_at_once_with_its_jobs(command, peer, token):
    worker = command("8099", peer.address.host, str(peer.address.port), token=token)
    await peer.joined()
    peer.order("deaf", shell="trap '' TERM; echo $$; while :; do sleep 0.01; done")
    pid = int(await peer.log_of("deaf", b"\n"))

    for words in ("a second signal", "at once", "ending now"):
        worker.process.send_signal(signal.SIGINT)
        worker.line_with(words)

    assert worker.end()[0] == 0
    assert read_stat(pid) is None or not read_stat(pid).is_alive


def test_a_folder_that_cannot_be_written_is_said(command, tmp_path):
    (tmp_path / "file").write_text("")

    code, words = command("--data", "file/below").end()

    assert code == 78
    assert "--data must name a folder" in words


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("titan_workspace", 78),
        (".worker-8080", 78),
        ("titan_workspace/jobs", 74),
        (".worker-8080/lock/", 78),
        (".worker-8080/ledger.sqlite/", 74),
        (".worker-8080/cache", 74),
        (".worker-8080/cache/boot/", 74),
        (".worker-8080/endings", 74),
        (".worker-8080/endings/7/", 74),
    ],
)
def test_something_in_the_way_is_said_in_a_sentence(command, tmp_path, place, code):
    """A file where a folder should be (with a slash: the other way round)."""
    path = tmp_path / "data" / place
    path.parent.mkdir(parents=True)
    path.mkdir() if place.endswith("/") else path.write_text("")

    ended, words = command("--data", "data").end()

    assert ended == code
    assert str(tmp_path) in words
    assert "Traceback" not in words


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("needs mount: not on this machine")  # root alone is not enough in some boxes
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.needs("root")
def test_a_full_disk_and_one_that_may_only_be_read_are_said(command, small_disk):
    (small_disk / "filler").write_bytes(b"x" * 1_048_576)
    code, words = command("--data", "disk/data").end()
    assert code == 74
    assert "No space left on device" in words
    assert "Traceback" not in words

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, words = command("--data", "disk/data").end()
    assert code == 78
    assert "Read-only file system" in words
    assert "Traceback" not in words


@pytest.mark.needs("root")
async def test_a_job_that_fills_the_disk_ends_the_worker_in_words_at_worst(
    command, peer, token, small_disk
):
    """What a worker cannot write down it must not do. With room again it goes on."""
    address = (peer.address.host, str(peer.address.port))
    command("8099", *address, "--data", "disk", token=token)
    await peer.joined()
    peer.order("fills", shell="cat /dev/zero > big; echo full >&2")
    await peer.until(lambda: peer.ends or peer.link.connection.is_closed)
    (small_disk / "titan_workspace/jobs" / ("r" * 16) / "fills.1/work/big").unlink()
    if not peer.ends:
        command("8099", *address, "--data", "disk", token=token)

    await peer.end_of("fills")
    peer.order("after", shell="echo fine")
    assert (await peer.end_of("after")).exit_code == 0


@pytest.fixture
def few_files():
    """Children may have 200 open files, and may ask for 400."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 400))

    yield limit
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_slots_that_could_not_be_watched_are_refused(command, few_files):
    code, words = command("--slots", "200", before=few_files).end()

    assert code == 78
    assert "--slots 90 would do" in words

    worker = command("8099", *NOBODY, "--slots", "90", before=few_files)
    worker.line_with("no_master")
    assert resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE) == (398, 400)


async def test_it_lives_on_when_nobody_reads_what_it_says(command, peer, token):
    """As in ``titan-worker 2>&1 | head -1``."""
    worker = command("8099", peer.address.host, str(peer.address.port), token=token)
    worker.process.stderr.close()
    await peer.joined()
    peer.order("a", shell="exit 3")

    assert (await peer.end_of("a")).exit_code == 3
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.process.wait, 20) == 0


async def test_a_terminal_that_is_closed_ends_it_in_good_order(command, peer, token):
    """Not with jobs that nobody looks after any more."""
    address = (peer.address.host, str(peer.address.port))
    worker = command("8099", *address, "--drain-timeout", "0s", token=token)
    await peer.joined()
    peer.order("a", shell="echo on; exec sleep 1000")
    await peer.log_of("a", b"on\n")

    worker.process.send_signal(signal.SIGHUP)

    assert (await asyncio.to_thread(worker.end))[0] == 0
    assert peer.ends


async def test_it_leaves_nothing_behind_when_it_ends(command, peer, token, wait_gone, tmp_path):
    """Also not what left its job's group, and of a job that is over."""
    address = (peer.address.host, str(peer.address.port))
    worker = command("8099", *address, "--drain-timeout", "0s", token=token)
    await peer.joined()
    held = tmp_path / "held"
    escapes = "setsid sh -c 'echo $$; exec sleep 1000'"
    peer.order("over", shell=f'{escapes} & while [ ! -e "{held}" ]; do sleep 0.01; done')
    peer.order("runs", shell=f"{escapes} & exec sleep 1000")
    pids = [int(await peer.log_of(name, b"\n")) for name in ("over", "runs")]
    descriptors = [os.pidfd_open(pid) for pid in pids]
    held.touch()
    await peer.end_of("over")

    worker.process.send_signal(signal.SIGTERM)

    assert (await asyncio.to_thread(worker.end))[0] == 0
    assert all(wait_gone(fd, 0) for fd in descriptors)
    for fd in descriptors:
        os.close(fd)


async def test_without_a_token_a_listening_master_is_not_asked_again_and_again(
    command, peer, tmp_path
):
    code, words = command("8099", peer.address.host, str(peer.address.port)).end()

    assert code == 77
    assert "no token" in words


async def test_what_a_worker_keeps_is_for_its_owner_alone(command, peer, token, tmp_path):
    data = tmp_path / "data"
    address = (peer.address.host, str(peer.address.port))
    command("8099", *address, "--data", str(data), token=token)
    await peer.joined()

    for folder in (data, data / ".worker-8099"):
        assert folder.stat().st_mode & 0o077 == 0
