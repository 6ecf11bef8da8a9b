"""The example pipeline's scripts, run as a worker runs them: own folder, own environment."""

import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "daily_etl"


class Pipeline:
    """A packed copy of the example with its shared folder."""

    def __init__(self, tmp_path):
        self.folder = tmp_path / "packed"
        shutil.copytree(EXAMPLE, self.folder)
        self.shared = tmp_path / "shared"
        self.shared.mkdir()
        self.csv = self.folder / "data" / "seattle-weather.csv"

    def environment(self, **more):
        return {"TITAN_SHARED": str(self.shared), "PATH": "/usr/bin:/bin", **more}

    def run(self, script, env=None):
        return subprocess.run(
            [sys.executable, f"scripts/{script}"],
            cwd=self.folder,
            env=self.environment() if env is None else env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def months(self):
        for script in ("pull_data.py", "clean_data.py"):
            done = self.run(script)
            assert done.returncode == 0, done.stderr
        return json.loads((self.shared / "monthly.json").read_text(encoding="utf-8"))

    def edit(self, before, after):
        text = self.csv.read_text(encoding="utf-8")
        assert text.count(before) == 1
        self.csv.write_text(text.replace(before, after), encoding="utf-8")


@pytest.fixture
def pipeline(tmp_path):
    return Pipeline(tmp_path)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_every_day_counts_in_its_month(pipeline):
    months = pipeline.months()
    assert len(months) == 48
    assert sum(month["days"] for month in months.values()) == 1461
    assert min(months) == "2012-01"
    assert max(months) == "2015-12"
    assert list(months) == sorted(months)
    # added up by hand from the file
    assert months["2012-01"] == {
        "month": "2012-01",
        "days": 31,
        "temp_max_mean": 7.05,
        "temp_min_mean": 1.54,
        "precipitation_total": 173.3,
        "rainy_days": 22,
    }


def test_it_says_how_many_rows_it_pulled(pipeline):
    assert "pulled 1461 rows, 2012-01-01 to 2015-12-31" in pipeline.run("pull_data.py").stdout


def test_one_changed_row_changes_its_month_and_no_other(pipeline):
    before = pipeline.months()
    pipeline.edit("2012/01/01,0.0,12.8,", "2012/01/01,31.0,12.8,")
    after = pipeline.months()
    changed = {month for month in before if before[month] != after[month]}
    assert changed == {"2012-01"}
    assert after["2012-01"]["precipitation_total"] == pytest.approx(
        before["2012-01"]["precipitation_total"] + 31
    )
    assert after["2012-01"]["rainy_days"] == before["2012-01"]["rainy_days"] + 1


@pytest.mark.parametrize(
    "row",
    [
        "2012/01/01,-1.0,12.8,5.0",
        "2012/01/01,,12.8,5.0",
        "2012/01/01,0.0,4.0,5.0",
        "2012/01/01,nan,12.8,5.0",
    ],
)
def test_an_impossible_row_is_left_out(pipeline, row):
    pipeline.edit("2012/01/01,0.0,12.8,5.0", row)
    assert pipeline.months()["2012-01"]["days"] == 30


@pytest.mark.parametrize(
    ("before", "after", "where"),
    [
        ("date,precipitation", "day,precipitation", ":1: expected the columns"),
        ("2012/01/02,10.9,", "2012/01/02,", ":3: expected 6 fields, found 5"),
        ("2012/01/03,", "yesterday,", ":4: 'yesterday' is no date"),
    ],
)
def test_a_broken_file_stops_the_run_and_names_the_line(pipeline, before, after, where):
    pipeline.edit(before, after)
    done = pipeline.run("pull_data.py")
    assert done.returncode == 1
    assert where in done.stderr
    assert "Traceback" not in done.stderr
    assert list(pipeline.shared.iterdir()) == []


@pytest.mark.parametrize("script", ["pull_data.py", "clean_data.py", "server.py"])
def test_without_a_shared_folder_a_script_says_so(pipeline, script):
    done = pipeline.run(script, env={"PATH": "/usr/bin:/bin", "PORT": "1"})
    assert done.returncode == 1
    assert "TITAN_SHARED is not set" in done.stderr


@pytest.mark.parametrize("port", [None, "", "http", "0", "65536", "-1"])
def test_the_server_refuses_a_port_that_is_none(pipeline, port):
    env = pipeline.environment() if port is None else pipeline.environment(PORT=port)
    done = pipeline.run("server.py", env=env)
    assert done.returncode == 1
    assert "PORT is" in done.stderr


def test_the_server_says_that_its_port_is_taken(pipeline):
    pipeline.months()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = pipeline.run("server.py", env=pipeline.environment(PORT=str(port)))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_the_server_answers_and_ends_when_told(pipeline):
    months = pipeline.months()
    port = free_port()

    def get(path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            assert answer.headers["Content-Type"] == "application/json"
            return json.load(answer)

    with subprocess.Popen(
        [sys.executable, "scripts/server.py"],
        cwd=pipeline.folder,
        env=pipeline.environment(PORT=str(port)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        try:
            assert server.stdout.readline() == f"serving 48 months on http://127.0.0.1:{port}/\n"
            assert get("/health") == {"status": "ok", "months": 48}
            assert get("/months/2012-01") == months["2012-01"]
            assert get("/")["months"] == list(months.values())
            with pytest.raises(urllib.error.HTTPError) as missing:
                get("/months/1999-01")
            assert missing.value.code == 404
            missing.value.close()
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=10) == 0
            assert server.stdout.read() == "stopped\n"
        finally:
            server.kill()


def test_the_sample_registry_runs_the_same_scripts():
    for script in EXAMPLE.glob("scripts/*.py"):
        assert (ROOT / "perm_files" / "scripts" / script.name).read_bytes() == script.read_bytes()
    copy = ROOT / "perm_files" / "pipelines"
    assert (copy / "daily_etl.yaml").read_bytes() == (EXAMPLE / "daily_etl.yaml").read_bytes()
    year = (copy / "data" / "seattle-weather.csv").read_bytes()
    assert (EXAMPLE / "data" / "seattle-weather.csv").read_bytes().startswith(year)


def test_the_small_samples_run(tmp_path):
    samples = ROOT / "perm_files"
    env = {"PATH": "/usr/bin:/bin", "TITAN_JOB_ID": "SAMPLE"}
    for command in (
        [sys.executable, str(samples / "hello.py")],
        ["sh", str(samples / "scripts" / "disk_report.sh")],
        [sys.executable, str(ROOT / "examples" / "agent_loop" / "healer.py")],
    ):
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        (None, "No such file"),
        ("no json", "is no trace"),
        ("[]", "is no trace"),
        ('{"jobs": [{"id": "a"}]}', "is no trace"),
        ('{"jobs": [{"id": "a", "runtime_s": 1, "parents": []}]}', "No Titan master"),
    ],
)
def test_the_replay_says_what_is_wrong_in_a_sentence(tmp_path, trace, words):
    path = tmp_path / "trace.json"
    if trace is not None:
        path.write_text(trace)
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "trace_replay" / "replay.py", path],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TITAN_MASTER": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
