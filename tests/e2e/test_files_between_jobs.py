"""Files from job to job, through a real cluster of workers that share nothing but their master."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Titan
from tests.harness.cluster import Cluster
from titan_sdk import TitanJob

PARTS = 12


@pytest.fixture
def apart(cluster: Cluster, tmp_path: Path) -> Cluster:
    """Two workers in two folders; one that has both of this skill alone is named by it."""
    cluster.start_worker(8080, "--skill", "GENERAL", "--skill", "LEFT", home=tmp_path / "left")
    cluster.start_worker(8081, "--skill", "GENERAL", "--skill", "RIGHT", home=tmp_path / "right")
    return cluster


def worker_of(titan: Titan, run: str) -> dict[str, str]:
    items = json.loads(titan("ps", run, "-o", "json").stdout)["items"]
    return {job["id"]: (job["worker"] or "").rpartition(":")[2] for job in items}


def test_a_reducer_sees_all_parts_wherever_they_were_made(
    apart: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """By the shared folder and by artifacts, some of them large."""
    parts = [
        {
            "id": f"part-{number}",
            "run": f'test "$(cat "$TITAN_SHARED/seed")" = 7 && mkdir -p out "$TITAN_SHARED/parts" && '
            f'echo {number} > "$TITAN_SHARED/parts/{number}" && '
            f"head -c {number * 50_000} /dev/zero > out/{number}.bin",
            "dependencies": ["seed"],
            "artifacts": {"out": ["out/*.bin"]},
        }
        for number in range(PARTS)
    ]
    reduce = {
        "id": "reduce",
        "run": 'cat "$TITAN_SHARED"/parts/* | sort -n | tr "\\n" " " && cat out/*.bin | wc -c',
        "dependencies": [part["id"] for part in parts],
        "artifacts": {"in": [f"{part['id']}:out" for part in parts]},
    }
    seed = {"id": "seed", "run": 'echo 7 > "$TITAN_SHARED/seed"'}
    pipeline = tmp_path / "fan.yaml"
    pipeline.write_text(
        json.dumps({"name": "Fan", "project": False, "jobs": [seed, *parts, reduce]}), "utf-8"
    )

    titan("run", str(pipeline), "--wait")

    assert set(worker_of(titan, "fan-1").values()) == {"8080", "8081"}
    numbers = " ".join(map(str, range(PARTS)))
    total = sum(number * 50_000 for number in range(PARTS))
    assert titan("logs", "fan-1/reduce").stdout == f"{numbers} {total}\n"


def test_what_was_left_on_one_machine_is_found_on_the_other_and_by_a_repetition(
    apart: Cluster, titan: Titan, tmp_path: Path
) -> None:
    repaired, ran = tmp_path / "repaired", tmp_path / "ran"
    jobs = [
        TitanJob(
            id="make",
            run=f'echo ran >> "{ran}"; echo 1 > "$TITAN_SHARED/a"; echo 2 > "$TITAN_SHARED/b"',
            skills=["LEFT"],
        ),
        TitanJob(
            id="change",
            run='cat "$TITAN_SHARED/a" && echo 3 > "$TITAN_SHARED/a"',
            skills=["RIGHT"],
            dependencies="make",
        ),
        TitanJob(
            id="tell",
            run=f'test -e "{repaired}" && cat "$TITAN_SHARED/a" "$TITAN_SHARED/b"',
            skills=["LEFT"],
            dependencies="change",
        ),
    ]
    with apart.client() as client:
        run = client.submit("pass", jobs)
        assert run.wait(timeout=60) == "FAILED", apart.logs()
        assert run.logs("change") == "1\n"
    repaired.touch()
    titan("retry", "pass-1", "--failed", "--wait")
    assert titan("logs", "pass-2/tell").stdout == "3\n2\n"
    assert ran.read_text() == "ran\n"


def test_what_a_job_keeps_on_its_node_is_found_there_and_nowhere_else(
    apart: Cluster, titan: Titan, tmp_path: Path
) -> None:
    pipeline = tmp_path / "keep.yaml"
    pipeline.write_text(
        "name: Keep\nproject: false\njobs:\n"
        "  - {id: make, run: echo 1 > $TITAN_SHARED/a, skills: [LEFT], share: node}\n"
        "  - {id: here, run: test -e $TITAN_SHARED/a, skills: [LEFT], dependencies: [make]}\n"
        "  - {id: there, run: test ! -e $TITAN_SHARED/a, skills: [RIGHT], dependencies: [make]}\n",
        encoding="utf-8",
    )
    titan("run", str(pipeline), "--wait")


def test_a_file_that_was_to_be_handed_out_is_named_when_it_is_missing(
    apart: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """One clear reason, and no further try that nobody asked for."""
    pipeline = tmp_path / "missing.yaml"
    pipeline.write_text(
        "name: Missing\nproject: false\njobs:\n"
        "  - {id: make, run: touch a.txt, artifacts: {out: ['*.csv']}}\n"
        "  - {id: use, run: cat a.csv, artifacts: {in: ['make:a.csv']}, dependencies: [make]}\n",
        encoding="utf-8",
    )
    titan("run", str(pipeline), "--wait", code=1)
    shown = json.loads(titan("show", "missing-1/make", "-o", "json").stdout)
    assert (shown["reason"], shown["attempt"]) == ("BAD_FILES", 1)
    assert "'*.csv'" in shown["message"]
    assert "a.txt" in shown["message"]


@pytest.mark.timeout(180)
def test_a_machine_that_joins_while_a_run_is_under_way_is_given_no_job_that_would_miss_files(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """It would be preferred, and the files are on the other one."""
    cluster.start_worker(8081, slots=1, home=tmp_path / "first")
    pipeline = tmp_path / "later.yaml"
    flag = tmp_path / "flag"
    jobs = [
        {"id": "make", "run": 'echo 7 > "$TITAN_SHARED/seed"'},
        {
            "id": "pause",
            "run": f"echo waiting; while [ ! -e {flag} ]; do sleep 0.05; done",
            "dependencies": ["make"],
        },
        {"id": "use", "run": 'cat "$TITAN_SHARED/seed"', "dependencies": ["pause"]},
    ]
    pipeline.write_text(json.dumps({"name": "Later", "project": False, "jobs": jobs}), "utf-8")
    titan("run", str(pipeline))
    titan("logs", "later-1/make")
    while "waiting" not in titan("logs", "later-1/pause").stdout:
        pass  # each try is a command with its own time
    cluster.start_worker(8080, slots=8, home=tmp_path / "second")
    flag.touch()
    while json.loads(titan("show", "later-1", "-o", "json").stdout)["state"] == "ACTIVE":
        pass
    assert titan("logs", "later-1/use").stdout == "7\n"
    where = worker_of(titan, "later-1")
    assert (where["make"], where["use"]) == ("8081", "8081")
    free = tmp_path / "free.sh"
    free.write_text("echo free\n", encoding="utf-8")
    titan("run", str(free), "--wait")
    assert worker_of(titan, "free-1") == {"free": "8080"}, "as any other job"


@pytest.mark.timeout(180)
def test_a_repetition_goes_where_the_files_lie_that_nobody_stored(
    cluster: Cluster, titan: Titan, tmp_path: Path
) -> None:
    """Alone, the first machine had nobody to store them for; the second has more room, and not the files."""
    cluster.start_worker(8081, slots=1, home=tmp_path / "first")
    repaired = tmp_path / "repaired"
    make = TitanJob(id="make", run='echo 1 > "$TITAN_SHARED/a"')
    tell = TitanJob(
        id="tell", run=f'test -e "{repaired}" && cat "$TITAN_SHARED/a"', dependencies="make"
    )
    with cluster.client() as client:
        assert client.submit("late", [make, tell]).wait(timeout=60) == "FAILED", cluster.logs()
    cluster.start_worker(8080, slots=8, home=tmp_path / "second")
    repaired.touch()
    titan("retry", "late-1", "--failed", "--wait")
    assert titan("logs", "late-2/tell").stdout == "1\n"
    assert worker_of(titan, "late-2")["tell"] == "8081"
