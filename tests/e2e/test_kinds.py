"""What a job may be: a script, a jar, a program, a line for the shell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster
from titan_sdk import TitanJob

JAVA = """
public class Greet {
    public static void main(String[] words) {
        System.out.println("from java: " + String.join(" ", words));
        System.exit(words.length);
    }
}
"""


@pytest.mark.needs("java")
@pytest.mark.needs("javac")
def test_a_jar(cluster: Cluster, titan: Titan, tmp_path: Path) -> None:
    """A jar built from a few lines runs with its arguments, and its exit code is the job's."""
    cluster.start_worker(8080)
    (tmp_path / "Greet.java").write_text(JAVA, encoding="utf-8")
    for build in ("javac Greet.java", "jar cfe greet.jar Greet Greet.class"):
        subprocess.run(build.split(), cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (tmp_path / "greet.jar").chmod(0o644)

    titan("run", str(tmp_path / "greet.jar"), "--wait")
    assert titan("logs", "greet").stdout == "from java: \n"
    titan("run", str(tmp_path / "greet.jar"), "a b", "c", "--wait", code=1)
    assert titan("logs", "greet").stdout == "from java: a b c\n"
    assert "exit 2" in titan("show", "greet").stdout.lower().replace("exit code", "exit")


def test_every_other_kind_in_one_pipeline(cluster: Cluster, titan: Titan, tmp_path: Path) -> None:
    """Python, shell, a program with a shebang, an argument vector, a line: in order, data shared."""
    cluster.start_worker(8080)
    (tmp_path / "one.py").write_text(
        "import os, pathlib, sys\n"
        "place = pathlib.Path(os.environ['TITAN_SHARED']) / 'said'\n"
        "place.write_text(f'py {sys.argv[1:]}\\n')\n",
        encoding="utf-8",
    )
    (tmp_path / "two.sh").write_text('echo "sh $1" >> "$TITAN_SHARED/said"\n', encoding="utf-8")
    program = tmp_path / "three"
    program.write_text('#!/bin/sh\necho "program" >> "$TITAN_SHARED/said"\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "kinds.yaml").write_text(
        "name: kinds\n"
        "jobs:\n"
        "  - {id: PY, script: one.py, args: [a b, c]}\n"
        "  - {id: SH, script: two.sh, args: 'x y', dependencies: [PY]}\n"
        "  - {id: PROGRAM, script: three, dependencies: [SH]}\n"
        "  - id: VECTOR\n"
        "    command: [sh, -c, 'echo \"vector $0\" >> $TITAN_SHARED/said', '$HOME']\n"
        "    dependencies: [PROGRAM]\n"
        "  - {id: LINE, run: 'cat \"$TITAN_SHARED/said\"; pwd', dependencies: [VECTOR]}\n",
        encoding="utf-8",
    )
    titan("run", str(tmp_path / "kinds.yaml"), "--wait")
    lines = titan("logs", "LINE").stdout.splitlines()
    assert lines[:4] == ["py ['a b', 'c']", "sh x", "program", "vector $HOME"]
    assert lines[4].endswith("/LINE.1/work")


def test_a_file_dropped_into_perm_files(cluster: Cluster, titan: Titan) -> None:
    """Found by its name from anywhere; a run keeps the content that it was submitted with."""
    dropped = cluster.perm_files / "tools" / "report.py"
    dropped.parent.mkdir()
    dropped.write_text("print('first edition')\n", encoding="utf-8")
    titan("run", "tools/report.py")
    dropped.write_text("print('second edition')\n", encoding="utf-8")
    titan("run", "tools/report.py")
    cluster.start_worker(8080)

    assert titan("logs", "-f", "report-1/report").stdout == "first edition\n"
    assert titan("logs", "-f", "report-2/report").stdout == "second edition\n"


def test_a_service_that_came_up_and_failed_is_shown_with_its_end(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """Long after its run, and across a restart of the master."""
    cluster.start_worker(8080)
    end = tmp_path / "end"
    line = f'while [ ! -e "{end}" ]; do sleep 0.05; done; echo bye >&2; exit 7'
    with cluster.client() as client:
        run = client.submit("web", [TitanJob(id="api", type="service", run=line, restart="never")])
        assert run.wait(timeout=30) == "SUCCEEDED"
        assert client.services()[0].state == "HEALTHY"
        end.touch()
        while client.services():
            assert cluster.master is not None
            assert cluster.master.process.poll() is None
        assert cluster.master is not None
        cluster.master.kill()
        cluster.start_master()
        (service,) = client.services(ended=True)
        assert (service.state, service.reason, service.exit_code) == ("FAILED", "EXITED", 7)
    assert re.search(r"web/api\s+\S+ FAILED .*exit 7", titan("ps", "-a").stdout)
    assert re.search(r"Service: +\S+ FAILED, web/api, exit 7", titan("show", "web-1/api").stdout)
