"""Jobs, masters and archives that mean ill, or are merely careless: the worker lives on."""

import asyncio
import os
import shutil
import socket
import sys
import time
import types

import msgspec
import pytest

from titan_proto.errors import ErrorCode, LinkLost
from titan_proto.ids import AttemptRef
from titan_proto.messages import StartAttempts, WorkerStatus
from titan_proto.specs import JobKind, Launch, LaunchKind, ServiceSection
from titan_proto.states import ExitReason
from titan_worker.host.identity import read_stat
from titan_worker.link import MasterLink


def script(name, **fields):
    return Launch(kind=LaunchKind.SCRIPT, script=name, **fields)


async def lives_on(peer, name="after"):
    """The worker still runs jobs and still ships their logs."""
    peer.order(name, shell="echo fine")
    assert (await peer.end_of(name)).exit_code == 0
    assert await peer.log_of(name, b"\n") == b"fine\n"


@pytest.mark.parametrize(
    "harm",
    [
        "rm -f ../stdout.log ../stderr.log",
        "rm -f ../stdout.log; mkdir ../stdout.log",
        "rm -f ../stdout.log; mkfifo ../stdout.log",
        "rm -f ../stdout.log; ln -s stdout.log ../stdout.log",
        "rm -f ../stdout.log; ln -s /dev/zero ../stdout.log",
        ": > ../stdout.log",
        'f="$PWD"; cd /; rm -rf "${f%/work}"',
        'f="$PWD"; cd /; rm -rf "${f%/work}"; echo x > "${f%/work}"',
        'cd ..; cd ..; rm -rf "$OLDPWD"; cd ..; rm -rf "$OLDPWD"',
    ],
)
async def test_a_job_that_harms_its_own_log_harms_nobody_else(nest, peer, harm):
    peer.takes_logs = False  # what is read again later must not block or break either
    await nest.start()
    peer.order(
        "evil", shell=f"i=0; while [ $i -lt 9999 ]; do echo line $i; i=$((i+1)); done; {harm}"
    )
    assert (await peer.end_of("evil")).reason is ExitReason.EXITED

    peer.takes_logs = True
    peer.cut()
    await peer.joined(2)
    await lives_on(peer)
    assert await nest.leave() == 0


async def test_the_workspace_may_vanish_under_a_job_that_waits_for_its_slot(nest, peer, make_order):
    await nest.start()
    artifact = peer.offer(b"echo never\n", "n.sh")
    peer.order("first", shell="echo on; exec sleep 1000")
    peer.order("second", shell="echo on; exec sleep 1000")
    await peer.log_of("first", b"on\n")
    await peer.log_of("second", b"on\n")
    peer.order("waits", launch=script("n.sh", artifact=artifact))
    async with asyncio.timeout(10):
        while not (nest.jobs / "waits.1/work/n.sh").exists():  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.005)
    shutil.rmtree(nest.jobs / "waits.1")
    peer.stop("first", "second")

    end = await peer.end_of("waits")
    assert end.reason is ExitReason.START_FAILED
    assert "the workspace is gone" in end.message
    await lives_on(peer)


async def test_an_artifact_of_the_cache_is_not_copied_to_another_name_than_may_be(nest, peer):
    await nest.start()
    good = peer.offer(b"echo mine\n", "ok.sh")
    peer.order("good", launch=script("ok.sh", artifact=good))
    await peer.end_of("good")

    evil = msgspec.structs.replace(good, name="../../../../evil.sh")
    peer.order("evil", launch=script("ok.sh", artifact=evil))
    end = await peer.end_of("evil")

    assert end.reason is ExitReason.PREPARE_FAILED
    assert "refused" in end.message
    assert not list(nest.settings.data.rglob("evil.sh"))


async def test_an_order_and_a_goodbye_in_one_breath_do_not_hang_the_worker(nest, peer, make_order):
    """The link is closed already and its end not told yet: nobody may ask it again and again."""
    await nest.start()
    artifact = peer.offer(b"echo got it\n", "g.sh")
    order = make_order("a", launch=script("g.sh", artifact=artifact))
    peer.link.send(StartAttempts(term=peer.term, orders=(order,)))
    peer.link.close(ErrorCode.SHUTTING_DOWN, "the master ends")

    assert (await peer.end_of("a")).exit_code == 0


async def test_two_services_of_one_port_are_not_both_healthy(nest, peer, make_order):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    await nest.start()
    listen = (
        "import os, socket, time\n"
        "s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
        "time.sleep(1000)\n"
    )
    service = {
        "launch": Launch(kind=LaunchKind.COMMAND, command=(sys.executable, "-c", listen)),
        "kind": JobKind.SERVICE,
        "service": ServiceSection(port=port),
    }
    peer.order("one", make_order("two", **service), **service)

    end = await peer.end_of("two")
    assert end.reason is ExitReason.START_FAILED
    assert "one" in end.message
    await peer.until(lambda: any(r.healthy for r in peer.starts.values()))
    peer.stop("one")
    await peer.end_of("one")
    # Free again.
    peer.order("three", **service)
    await peer.until(
        lambda: any(r.healthy and r.ref.job_id == "three" for r in peer.starts.values())
    )


async def test_what_a_job_left_outside_its_group_goes_after_its_end(
    nest, peer, wait_gone, monkeypatch, tmp_path
):
    monkeypatch.setattr("titan_worker.engine.HUNT_EVERY_S", 0.05)
    await nest.start()
    held = tmp_path / "held"
    escapes = "setsid sh -c 'echo $$; exec sleep 1000'"
    peer.order("daemon", shell=f'{escapes} & while [ ! -e "{held}" ]; do sleep 0.01; done')
    pid = int(await peer.log_of("daemon", b"\n"))
    pidfd = os.pidfd_open(pid)
    held.touch()
    assert (await peer.end_of("daemon")).exit_code == 0

    assert await asyncio.to_thread(wait_gone, pidfd)
    os.close(pidfd)


@pytest.mark.parametrize("number", [1, 2, 3, 6, 8, 9, 11, 13, 14, 15, 24, 31])
async def test_ends_by_each_signal_are_told(nest, peer, number):
    await nest.start()
    peer.order("shot", shell=f"ulimit -c 0; kill -{number} $$; sleep 1000")
    end = await peer.end_of("shot")
    assert (end.reason, end.signal) == (ExitReason.SIGNALLED, number)


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"#!/bin/sh\r\necho x\n", "crlf", "line"),
        (b"#!/no/such/interpreter\n", "shebang", "interpreter in its first line"),
        (b"\x7fELF garbage", "elf", "no program of this machine"),
        (b"", "empty", "no program of this machine"),
    ],
)
async def test_scripts_that_cannot_be_executed_say_why(nest, peer, content, name, words):
    await nest.start()
    artifact = peer.offer(content, name)
    peer.order("a", launch=script(name, artifact=artifact))
    end = await peer.end_of("a")
    assert end.reason is ExitReason.START_FAILED
    assert words in end.message


async def test_what_is_too_long_for_the_kernel_is_said(nest, peer):
    await nest.start()
    peer.order(
        "args", launch=Launch(kind=LaunchKind.COMMAND, command=("true",), args=("x" * 200_000,))
    )
    peer.order(
        "env", launch=Launch(kind=LaunchKind.COMMAND, command=("true",), env={"X": "x" * 200_000})
    )
    for name in ("args", "env"):
        end = await peer.end_of(name)
        assert end.reason is ExitReason.START_FAILED
        assert "too long" in end.message


async def test_a_folder_is_no_script(nest, peer):
    await nest.start()
    artifact = peer.offer(b"x", "d/x")
    peer.order("a", launch=script("d", artifact=artifact))
    end = await peer.end_of("a")
    assert end.reason is ExitReason.START_FAILED
    assert "folder" in end.message


async def test_the_longest_job_id_has_its_folder(nest, peer):
    await nest.start()
    name = "j" * 128
    peer.order(name, shell="pwd")
    assert (await peer.end_of(name)).exit_code == 0
    assert name.encode() in await peer.log_of(name, b"\n")


async def test_input_is_empty_and_names_may_be_any_bytes(nest, peer):
    await nest.start()
    code = (
        b"import os, sys\n"
        b"print(repr(sys.stdin.read()))\n"
        b"open(b'\\xff\\xfe', 'wb').write(b'x')\n"
        b"os.write(1, b'\\xff no line end')\n"
    )
    artifact = peer.offer(code, "a.py")
    peer.order("a", launch=script("a.py", artifact=artifact))
    assert (await peer.end_of("a")).exit_code == 0
    assert await peer.log_of("a", b"end") == b"''\n\xff no line end"


async def test_killing_its_own_group_ends_the_job_alone(nest, peer):
    await nest.start()
    peer.order("a", shell="kill -9 0")
    assert (await peer.end_of("a")).signal == 9
    await lives_on(peer)
    assert read_stat(os.getpid()).is_alive


async def test_an_order_under_an_evil_name_fails_and_does_not_stop_the_next_start(
    nest, peer, make_order
):
    """Its record stays in the ledger until its end is acknowledged."""
    peer.answers_reports = False
    await nest.start()
    name = AttemptRef("../../../evil run", "a/b", 1)
    peer.link.send(
        StartAttempts(
            term=peer.term,
            orders=(msgspec.structs.replace(make_order("a", shell="echo x"), ref=name),),
        )
    )
    await peer.until(lambda: name in peer.ends)
    assert peer.ends[name].reason is ExitReason.PREPARE_FAILED
    await nest.crash()

    peer.answers_reports = True
    await nest.start()
    await lives_on(peer)


@pytest.mark.parametrize(
    "line",
    [
        b"ended ../../x y 1 owes\n",
        b"ended rrrrrrrrrrrrrrrr a \xc2\xb2 owes\n",
        b"ended rrrrrrrrrrrrrrrr a 0 owes\n",
        b"\0" * 4096,
        b"\xff\xfe\n ended\n",
    ],
)
async def test_a_spoilt_list_of_endings_does_not_stop_the_next_start(nest, peer, line):
    folder = nest.settings.private / "endings"
    folder.mkdir(parents=True)
    for hour in (1, int(time.time()) // 3600):  # one that is due, one that is not
        (folder / str(hour)).write_bytes(line)

    await nest.start()
    await lives_on(peer)


async def test_a_spoilt_cache_does_not_stop_the_next_start(nest, peer):
    cache = nest.settings.private / "cache"
    cache.mkdir(parents=True)
    (cache / "boot").write_bytes(b"\xff\0garbage")
    (cache / "entry").mkdir()
    (cache / "entry" / "manifest").write_bytes(b"\xff")

    await nest.start()
    await lives_on(peer)


@pytest.mark.parametrize("size", [20, 2_000_000], ids=["copied at once", "copied in a thread"])
@pytest.mark.parametrize("harm", ["other bytes", "other bytes, same time", "gone", "all gone"])
async def test_what_was_done_to_the_cache_never_reaches_a_job(nest, peer, harm, size):
    await nest.start()
    text = b"echo right\n".ljust(size, b"#")
    launch = script("a.sh", artifact=peer.offer(text, "a.sh"))
    peer.order("first", launch=launch)
    await peer.end_of("first")
    (content,) = (nest.settings.private / "cache").rglob("content")
    if harm.startswith("other"):
        before = content.stat()
        content.write_bytes(b"echo wrong\n".ljust(size, b"#"))
        if "same time" in harm:
            os.utime(content, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif harm == "gone":
        content.unlink()
    else:
        shutil.rmtree(nest.settings.private / "cache")

    peer.order("second", launch=launch)

    assert (await peer.end_of("second")).exit_code == 0
    assert await peer.log_of("second", b"\n") == b"right\n"
    assert len(peer.fetches) == 2


async def test_coming_back_to_a_cluster_is_not_taken_for_a_second_worker(nest, peer, monkeypatch):
    """There the worker lives on under the id it had before, until the lease is over."""
    monkeypatch.setattr("titan_worker.link.BACKOFF_MAX_S", 0.05)
    await nest.start()
    peer.cluster_id = "cluster-2"
    peer.cut()
    await peer.joined(2)
    peer.cluster_id = "cluster-1"
    peer.refuses_join = (ErrorCode.DUPLICATE_WORKER, "vm:8080 is here already")
    peer.cut()
    await peer.joined(5)
    assert not nest.life.done()
    peer.refuses_join = None
    await peer.joined(len(peer.joins) + 1)

    assert len({join.worker_id for join in peer.joins[:3]}) == 3
    await lives_on(peer)


async def test_a_namesake_that_outlives_the_lease_is_one(nest, peer, monkeypatch, capsys):
    monkeypatch.setattr("titan_worker.link.BACKOFF_MAX_S", 0.05)
    peer.heartbeat_ms = 1
    await nest.start()
    await peer.until(lambda: peer.got(WorkerStatus))  # it knows the lease by now
    peer.cluster_id = "cluster-2"
    peer.cut()
    await peer.joined(2)
    peer.refuses_join = (ErrorCode.DUPLICATE_WORKER, "vm:8080 is here; ask for 8081")
    peer.cut()

    assert await nest.end() == 75
    assert "ask for 8081" in capsys.readouterr().err


async def test_a_link_that_is_still_writing_its_last_words_is_not_asked_again_and_again():
    """Who asks at once again, and is refused at once, would never let its end be told."""

    class Closing:
        connection = types.SimpleNamespace(is_closed=True)

        async def stream(self, _request):
            raise LinkLost("closed")
            yield

    link = MasterLink(address=None, find_token=str, software="", user=None)
    link._link = Closing()
    link._up.set()

    asked = asyncio.ensure_future(anext(link.fetch("0" * 64, 0)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not asked.done()

    link._on_close(link._link, None)
    with pytest.raises(LinkLost):
        await asked
