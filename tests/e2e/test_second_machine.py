"""A second machine behind NAT, played by network namespaces.

    master (ns A, 10.77.0.1) ── router (ns R, NAT, lets nothing in) ── worker (ns B, 192.168.77.x)

The commands are those of docs/howto/add-a-machine.md:
`titan-master start --listen 10.77.0.1:9090 --insecure` and
`TITAN_TOKEN=titan_local_… titan-worker 8081 10.77.0.1 9090`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.cluster import Daemon
from tests.harness.waiting import wait_until

pytestmark = [
    pytest.mark.needs("root"),
    pytest.mark.needs("ip"),
    pytest.mark.needs("iptables"),
    pytest.mark.timeout(180),
]

MASTER = "10.77.0.1"


def _sh(line: str) -> None:
    done = subprocess.run(
        line.split(),
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"


class Net:
    """Three namespaces with names of their own, and what joins them."""

    def __init__(self) -> None:
        mark = f"t{os.getpid() % 100000}"
        self.a, self.r, self.b = f"{mark}a", f"{mark}r", f"{mark}b"

    def make(self) -> None:
        """Two wires, one router that hides B's side and forwards nothing that B did not ask for."""
        for name in (self.a, self.r, self.b):
            _sh(f"ip netns add {name}")
            _sh(f"ip -n {name} link set dev lo up")
        _sh(f"ip -n {self.r} link add ra type veth peer name ma netns {self.a}")
        _sh(f"ip -n {self.r} link add rb type veth peer name wb netns {self.b}")
        for name, link, address in (
            (self.a, "ma", f"{MASTER}/24"),
            (self.r, "ra", "10.77.0.2/24"),
            (self.r, "rb", "192.168.77.1/24"),
            (self.b, "wb", "192.168.77.10/24"),
        ):
            _sh(f"ip -n {name} addr add {address} dev {link}")
            _sh(f"ip -n {name} link set dev {link} up")
        _sh(f"ip -n {self.b} route add default via 192.168.77.1")
        inside = f"ip netns exec {self.r}"
        _sh(f"{inside} sysctl -qw net.ipv4.ip_forward=1")
        _sh(f"{inside} iptables -t nat -A POSTROUTING -o ra -j MASQUERADE")
        _sh(f"{inside} iptables -P FORWARD DROP")
        _sh(f"{inside} iptables -A FORWARD -i rb -j ACCEPT")
        _sh(
            f"{inside} iptables -A FORWARD -i ra -m conntrack --ctstate ESTABLISHED,RELATED "
            "-j ACCEPT"
        )

    def move_worker(self) -> None:
        """The worker's machine gets another address; its old one is no more."""
        # The old one first: a second address of one network goes with the first.
        _sh(f"ip -n {self.b} addr del 192.168.77.10/24 dev wb")
        _sh(f"ip -n {self.b} addr add 192.168.77.20/24 dev wb")
        _sh(f"ip -n {self.b} route replace default via 192.168.77.1")

    def remove(self) -> None:
        """All three."""
        for name in (self.a, self.r, self.b):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture
def net() -> Iterator[Net]:
    """A network for one test."""
    made = Net()
    try:
        made.make()
        yield made
    finally:
        made.remove()


def write_pipeline(folder: Path) -> None:
    """Three jobs in a row with a workspace of scripts and data, and results that they hand on."""
    folder.mkdir()
    (folder / "words.txt").write_text("pear\napple\napple\n")
    (folder / "sort.sh").write_text('sort words.txt > "$TITAN_SHARED/sorted" && echo sorted\n')
    (folder / "count.py").write_text(
        "import collections, os, pathlib\n"
        "words = pathlib.Path(os.environ['TITAN_SHARED'], 'sorted').read_text().split()\n"
        "for word, number in collections.Counter(words).items():\n"
        "    print(word, number)\n"
    )
    (folder / "words.yaml").write_text(
        "name: words\n"
        "jobs:\n"
        "  - {id: SORT, script: sort.sh}\n"
        "  - {id: WAIT, run: sleep 3, dependencies: [SORT]}\n"
        "  - {id: COUNT, script: count.py, dependencies: [WAIT]}\n"
    )


Titan = Callable[..., str]


@contextlib.contextmanager
def two_machines(net: Net, tmp_path: Path) -> Iterator[Titan]:
    """A master in one namespace, its only worker in another one; `titan` is called beside the master."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TITAN_")}
    env["XDG_STATE_HOME"] = str(tmp_path / "state")
    python = sys.executable
    master = Daemon(
        [
            *(python, "-m", "titan_master", "start", "--data", str(tmp_path / "master")),
            *("--listen", f"{MASTER}:9090", "--insecure"),
            # Two thirds of it are waited for below, until the worker gives its dead link up.
            *("--lost-after", "15s"),
        ],
        ready=re.compile("titan-master ready"),
        log=tmp_path / "master.log",
        env=env,
        cwd=tmp_path,
        prefix=("ip", "netns", "exec", net.a),
    )
    worker = None
    try:
        master.wait_ready()
        token = (tmp_path / "master" / "token").read_text().strip()
        worker = Daemon(
            [python, "-m", "titan_worker", "8081", MASTER, "9090", "--data", str(tmp_path / "w")],
            ready=re.compile("titan-worker ready"),
            log=tmp_path / "worker.log",
            env={**env, "TITAN_TOKEN": token},
            cwd=tmp_path,
            prefix=("ip", "netns", "exec", net.b),
        )
        worker.wait_ready()

        def titan(*words: str) -> str:
            return subprocess.run(
                ["ip", "netns", "exec", net.a, python, "-m", "titan_sdk", *words],
                env={**env, "TITAN_MASTER": f"{MASTER}:9090", "TITAN_TOKEN": token},
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=90,
                check=True,
            ).stdout

        yield titan
    finally:
        if worker is not None:
            worker.stop()
        master.stop()


def test_a_worker_behind_nat(net: Net, tmp_path: Path) -> None:
    """It joins and runs a pipeline before, while and after its own address changes, and listens on no port."""
    with two_machines(net, tmp_path) as titan:
        write_pipeline(tmp_path / "pipeline")
        before = titan("run", "pipeline/words.yaml", "--wait").split()[0]
        during = titan("run", "pipeline/words.yaml").split()[0]
        # Its first job is done, its second one runs, its third one waits: now the address changes.
        assert titan("logs", "-f", f"{during}/SORT") == "sorted\n"
        net.move_worker()
        after = titan("run", "pipeline/words.yaml", "--wait").split()[0]
        for run in (before, during, after):
            assert titan("logs", "-f", f"{run}/COUNT") == "apple 2\npear 1\n"
            jobs = json.loads(titan("ps", run, "-o", "json"))["items"]
            told = [(job["id"], job["state"], job["attempt"]) for job in jobs]
            # Noticed within the lease, so nothing is run again.
            assert told == [(name, "SUCCEEDED", 1) for name in ("SORT", "WAIT", "COUNT")]
        listening = subprocess.run(
            ["ip", "netns", "exec", net.b, "ss", "-Hltn"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout
        assert listening == ""


def test_a_schedule_whose_only_worker_is_on_another_machine(net: Net, tmp_path: Path) -> None:
    """The first level of all: a script on a remote machine, again and again; three fires, three logs."""
    (tmp_path / "hello.py").write_text(
        "import os, socket\nprint('hello', os.environ['TITAN_SCHEDULED_FOR'])\n"
        "names = sorted(name for _, name in socket.if_nameindex())\nprint(*names)\n"
    )
    with two_machines(net, tmp_path) as titan:
        assert titan("schedule", "add", "@every 5s", "hello.py") == "hello\n"
        wait_until(
            lambda: json.loads(titan("schedule", "show", "hello", "-o", "json"))["fired"] >= 3,
            within_s=60,
            what="three fires",
        )
        titan("schedule", "rm", "hello")
        logs = [titan("logs", "-f", f"hello-{number}/hello") for number in (1, 2, 3)]
    slots = [log.splitlines()[0].removeprefix("hello ") for log in logs]
    moments = [datetime.datetime.fromisoformat(slot.replace("Z", "+00:00")) for slot in slots]
    five = datetime.timedelta(seconds=5)
    assert (moments[1] - moments[0], moments[2] - moments[1]) == (five, five)
    # The other machine's interfaces, and none of the master's.
    assert all("wb" in log.splitlines()[1].split() for log in logs)
