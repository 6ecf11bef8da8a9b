"""Bad input gets what, why and what next, the right exit code, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster
from titan_proto.errors import Refused
from titan_sdk import TitanClient, TitanJob


def test_no_master(tmp_path: Path) -> None:
    """Exit 5 and the command that starts one."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TITAN_")}
    env |= {"TITAN_MASTER": "127.0.0.1:1", "TITAN_TOKEN": "titan_local_x_" + "0" * 64}
    done = subprocess.run(
        [sys.executable, "-m", "titan_sdk", "stats"],
        cwd=tmp_path,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5
    assert "titan up" in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_wrong_token_is_refused_with_a_reason(cluster: Cluster) -> None:
    """The master says why, and the client does not try for ever."""
    wrong = cluster.token[:-64] + "0" * 64
    with pytest.raises(Refused) as refusal:
        TitanClient(master=cluster.address, token=wrong).stats()
    assert "token" in str(refusal.value)


def test_a_worker_with_a_wrong_token_ends_with_the_reason(cluster: Cluster) -> None:
    """Exit 77; nothing is retried for ever."""
    cluster.env["TITAN_WORKER_TEST"] = "1"
    (cluster.data / "token").rename(cluster.data / "token.kept")
    (cluster.data / "token").write_text("titan_local_x_" + "0" * 64)
    (cluster.data / "token").chmod(0o600)
    worker = cluster.start_worker(8080, ready=False)
    assert worker.process.wait(20) == 77
    assert "token" in worker.log.read_text()


def test_scripts_that_cannot_run(cluster: Cluster, titan: Titan, tmp_path: Path) -> None:
    """Missing, no file, not executable: refused with a sentence before anything is sent."""
    cluster.start_worker(8080)
    missing = titan("run", "nowhere.py", code=2)
    assert "nowhere.py" in missing.stderr
    plain = tmp_path / "notes.txt"
    plain.write_text("just text\n", encoding="utf-8")
    assert f"chmod +x {plain}" in titan("run", str(plain), "--wait", code=2).stderr
    os.mkfifo(tmp_path / "pipe.py")
    assert "is a FIFO, not a file" in titan("run", str(tmp_path / "pipe.py"), code=2).stderr
    assert titan("ps", "-a").stdout == ""
    for name, body in (("one.py", "print(1)"), ("two.sh", "echo 2")):
        script = tmp_path / name
        script.write_text(body + "\n", encoding="utf-8")
        script.chmod(0o644)
        titan("run", str(script), "--wait")


@pytest.mark.parametrize("name", ["a/b", "..", "a..b", "a\0b", "a b", "x" * 200, "", "-x"])
def test_job_ids_with_other_characters(cluster: Cluster, name: str) -> None:
    """Refused with the rule, by the client before sending."""
    with cluster.client() as client, pytest.raises(Exception, match="letters, digits"):
        client.submit("bad", [TitanJob(id=name, command=["true"])])


def test_a_large_script(cluster: Cluster, titan: Titan, tmp_path: Path) -> None:
    """65 MiB are fine."""
    cluster.start_worker(8080)
    script = tmp_path / "large.py"
    filler = b"# " + b"x" * 1021 + b"\n"
    script.write_bytes(filler * (65 * 1024) + b"print('large enough')\n")
    titan("run", str(script), "--wait")
    assert titan("logs", "large").stdout == "large enough\n"


def test_what_packs_well_is_not_taken_for_a_bomb(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """A script of 65 MiB that is nearly one repeated byte, and 70 MB of zeros as data."""
    cluster.start_worker(8080)
    script = tmp_path / "padded.py"
    script.write_bytes(b"#" * (65 * 1024 * 1024) + b"\nprint('large enough')\n")
    titan("run", str(script), "--wait")
    assert titan("logs", "padded").stdout == "large enough\n"
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "zeros.bin").write_bytes(bytes(70_000_000))
    (folder / "p.yaml").write_text("name: zeros\njobs: [{id: COUNT, run: wc -c < zeros.bin}]\n")
    titan("run", str(folder / "p.yaml"), "--wait")
    assert titan("logs", "COUNT").stdout.strip() == "70000000"


def test_another_address_must_be_asked_for(tmp_path: Path) -> None:
    """Without TLS the master listens on loopback alone, unless somebody insists."""
    done = subprocess.run(
        [sys.executable, "-m", "titan_master", "start", "--listen", "0.0.0.0:0"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    assert "--insecure" in done.stderr


def test_the_master_listens_on_loopback_and_workers_nowhere(cluster: Cluster) -> None:
    """By what the kernel says, not by what the configuration says."""
    cluster.start_worker(8080)
    master = cluster.master
    assert master is not None
    assert _listening(master.pid) == [f"0100007F:{cluster.port:04X}"]
    assert _listening(cluster.workers[8080].pid) == []


def _listening(pid: int) -> list[str]:
    """The local addresses (as the kernel prints them) on which a process listens for TCP."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = str(entry.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.append(fields[1])
    return found
