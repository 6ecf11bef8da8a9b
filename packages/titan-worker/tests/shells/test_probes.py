"""Whether a service is well is asked of the real thing: a port, a web server, a command."""

import asyncio
import os
import sys
import time

import pytest

from titan_proto.ids import AttemptRef
from titan_proto.specs import HealthCheck, HealthKind
from titan_worker.probes import Place, Probes
from titan_worker.tasks import Tasks

REF = AttemptRef("r" * 16, "api", 1)
QUICK = {"interval_ms": 100, "timeout_ms": 2_000}


class Heard:
    """What probes have said, and a way to wait for the next word."""

    def __init__(self, group):
        self.words = asyncio.Queue()
        self.tasks = Tasks(group)
        self.probes = Probes(
            tasks=self.tasks,
            on_answer=lambda ref: self.words.put_nowait((ref, "")),
            on_failure=lambda ref, message: self.words.put_nowait((ref, message)),
        )

    async def next(self):
        async with asyncio.timeout(20):
            ref, message = await self.words.get()
        assert ref == REF
        return message


@pytest.fixture
async def heard():
    async with asyncio.TaskGroup() as group:
        heard = Heard(group)
        yield heard
        heard.tasks.cancel_all()


class Web:
    """A server that answers whatever it is told to."""

    def __init__(self):
        self.answer = b"HTTP/1.1 200 OK\r\n\r\n"
        self.asked = []

    async def start(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        self.asked.append(await reader.readline())
        if self.answer is None:
            await reader.read()  # until whoever asked gives up
        else:
            writer.write(self.answer)
        writer.close()

    async def close(self):
        self.server.close()
        await self.server.wait_closed()


@pytest.fixture
async def web():
    web = Web()
    web.port = await web.start()
    yield web
    await web.close()


async def pid_in(file):
    """What is written there, once it is."""
    async with asyncio.timeout(20):
        while not file.exists() or not file.read_text():  # noqa: ASYNC110 - the system tells nobody
            await asyncio.sleep(0.01)
    return int(file.read_text())


async def gone(pidfd):
    """Until that process is."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, event.set)
    async with asyncio.timeout(20):
        await event.wait()
    loop.remove_reader(pidfd)
    os.close(pidfd)


def place(tmp_path, port=0, **env):
    return Place(port, str(tmp_path), {"PATH": os.environ["PATH"], **env})


async def test_without_a_check_it_is_asked_until_its_port_answers_and_then_no_more(
    heard, web, tmp_path
):
    heard.probes.start(REF, place(tmp_path, web.port), None)
    assert await heard.next() == ""
    assert not heard.probes._running


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.0 302 Found\r\n\r\n", ""),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "GET /health on port PORT came to status 503"),
        (b"HTTP/1.1 404\r\n\r\n", "came to status 404"),
        (b"SSH-2.0-x\r\n", "was answered, and not in HTTP"),
        (b"", "was answered, and not in HTTP"),
        (b"HTTP/1.1 " + b"x" * 100_000, "GET /health on port PORT: "),
        (None, "was not answered within 0.2 s"),
    ],
)
async def test_a_service_is_well_by_http_if_the_status_says_so(heard, web, tmp_path, answer, words):
    web.answer = answer
    check = HealthCheck(
        kind=HealthKind.HTTP,
        path="/health",
        interval_ms=100,
        timeout_ms=200 if answer is None else 20_000,
        retries=1,
    )
    heard.probes.start(REF, place(tmp_path, web.port), check)
    said = await heard.next()
    assert words.replace("PORT", str(web.port)) in said
    assert bool(said) == bool(words)
    assert web.asked[0] == b"GET /health HTTP/1.1\r\n"


async def test_what_was_well_is_asked_again_and_its_failure_is_told(heard, web, tmp_path):
    check = HealthCheck(**QUICK)
    heard.probes.start(REF, place(tmp_path, web.port), check)
    assert await heard.next() == ""
    assert await heard.next() == ""
    await web.close()
    while not (said := await heard.next()):
        pass
    assert f"port {web.port}" in said


async def test_before_it_is_well_a_failure_is_told_once_an_interval_and_a_success_at_once(
    heard, web, tmp_path
):
    await web.close()
    check = HealthCheck(interval_ms=60_000, timeout_ms=1_000)
    heard.probes.start(REF, place(tmp_path, web.port), check)
    server = await asyncio.start_server(web._serve, "127.0.0.1", web.port)
    assert await heard.next() == ""
    assert heard.words.empty()
    server.close()


async def test_a_check_may_be_at_another_port(heard, web, tmp_path):
    heard.probes.start(REF, place(tmp_path, 1), HealthCheck(port=web.port, **QUICK))
    assert await heard.next() == ""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('[ "$PORT$NAME" = 81x ] && [ "$PWD" = "$1" ]', ""),
        ("echo none of it; exit 3", "the check 'sh' ended with 3: none of it"),
        ("exec sleep 1000", "the check 'sh' did not end within 0.3 s"),
    ],
)
async def test_a_command_is_run_beside_it(heard, tmp_path, line, words):
    check = HealthCheck(
        kind=HealthKind.COMMAND,
        command=("sh", "-c", line, "sh", str(tmp_path.resolve())),
        interval_ms=100,
        timeout_ms=300 if words.endswith("0.3 s") else 20_000,
    )
    heard.probes.start(REF, place(tmp_path, 81, NAME="x"), check)
    assert await heard.next() == words


async def test_a_command_that_is_not_there_is_a_failure(heard, tmp_path):
    check = HealthCheck(kind=HealthKind.COMMAND, command=("no-such-check",), **QUICK)
    heard.probes.start(REF, place(tmp_path), check)
    assert "the check 'no-such-check' cannot be started" in await heard.next()


async def test_nothing_of_a_command_outlives_its_check(heard, tmp_path):
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    open('pid', 'w').write(str(os.getpid())); time.sleep(1000)\n"
        "while not os.path.exists('pid') or not os.path.getsize('pid'): time.sleep(0.01)\n"
        "os.close(1); os.close(2); os._exit(0)\n"
    )
    check = HealthCheck(
        kind=HealthKind.COMMAND,
        command=(sys.executable, "-c", code),
        interval_ms=60_000,
        timeout_ms=3_000,
    )
    heard.probes.start(REF, place(tmp_path), check)
    # Its child holds the output open, so it has not ended: that is a failure, and all of it goes.
    await gone(os.pidfd_open(await pid_in(tmp_path / "pid")))


async def test_stopping_ends_a_check_that_is_just_being_started_with_all_that_it_started(
    heard, tmp_path
):
    """Its processes are there before this loop has heard of them."""
    line = "sleep 1000 & echo $! > new; mv new pid; wait"
    check = HealthCheck(
        kind=HealthKind.COMMAND, command=("sh", "-c", line), interval_ms=100, timeout_ms=60_000
    )
    heard.probes.start(REF, place(tmp_path), check)
    for _ in range(2):  # so many passes until it has been forked
        await asyncio.sleep(0)
    file = tmp_path / "pid"
    deadline_s = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)  # noqa: ASYNC251 - the loop must not get on
    process = os.pidfd_open(int(file.read_text()))
    heard.probes.stop(REF)
    await gone(process)


async def test_stopping_ends_a_check_that_is_under_way(heard, tmp_path):
    check = HealthCheck(
        kind=HealthKind.COMMAND,
        command=("sh", "-c", "echo $$ > pid; exec sleep 1000"),
        interval_ms=100,
        timeout_ms=60_000,
    )
    heard.probes.start(REF, place(tmp_path), check)
    process = os.pidfd_open(await pid_in(tmp_path / "pid"))
    heard.probes.stop(REF)
    await gone(process)
