"""Pipelines: what is taken, and what is refused where, in which words."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from titan_proto.errors import InvalidSpec
from titan_proto.specs import (
    Counted,
    HealthCheck,
    HealthKind,
    JobKind,
    LaunchKind,
    Needs,
    RestartPolicy,
    RestartWhen,
    RetryCause,
    RetryPolicy,
    ServiceSection,
    Terms,
    Trigger,
)
from titan_sdk import TitanJob
from titan_sdk.findings import INFO, PipelineError, errors, in_order, report
from titan_sdk.keys import LATER, READERS
from titan_sdk.pipeline import ROOT_LATER, load, loads
from titan_sdk.staging import file_findings

DAILY_ETL = """name: "Nightly-Data-Pipeline"
jobs:
  - id: "EXTRACT"
    script: "scripts/pull_data.py"
  
  - id: "TRANSFORM"
    script: "scripts/clean_data.py"
    dependencies: ["EXTRACT"]
    
  - id: "DEPLOY_API"
    type: "SERVICE"  # Long running task
    script: "scripts/server.py"
    port: 8080
    dependencies: ["TRANSFORM"]
"""  # noqa: W293 - word for word from the manual


def read(body, path="p.yaml"):
    return loads(body, path=Path(path))


def said(pipeline):
    """Every error as `line:column code`."""
    return [
        f"{f.place.line}:{f.place.column} {f.code}"
        for f in sorted(errors(pipeline.findings), key=lambda f: f.place)
    ]


def one_job(text):
    return read(
        "name: p\njobs:\n  - id: A\n" + "".join(f"    {line}\n" for line in text.splitlines())
    )


# -- what is taken --------------------------------------------------------------------------------


def test_the_manuals_pipeline_is_taken_as_it_stands():
    pipeline = read(DAILY_ETL)
    assert pipeline.findings == []
    assert pipeline.name == "Nightly-Data-Pipeline"
    extract, transform, deploy = pipeline.jobs
    assert extract.launch.script == "scripts/pull_data.py"
    assert (transform.id, transform.dependencies) == ("TRANSFORM", ("EXTRACT",))
    assert deploy.kind is JobKind.SERVICE
    assert deploy.service == ServiceSection(port=8080)
    assert deploy.dependencies == ("TRANSFORM",)


def test_the_originals_keys_are_taken_and_told():
    pipeline = read(
        """
name: old
version: 1.0
project: true
jobs:
  - id: load
    file: load.py
    type: run
    args: "--day 'first of may' 7"
    priority: 1
    delay: 5
    requirement: GPU
    affinity: true
  - id: serve
    filename: serve.py
    depends_on: [load]
    type: service
    port: 5005
  - id: after
    run: echo done
    needs: serve
"""
    )
    assert errors(pipeline.findings) == []
    notes = [f.message for f in pipeline.findings if f.severity == INFO]
    assert len(notes) == len(pipeline.findings) == 7
    assert '"depends_on" is another spelling of "dependencies"' in notes
    load_job, serve, after = pipeline.jobs
    assert load_job.launch.args == ("--day", "first of may", "7")
    assert (load_job.priority, load_job.delay_ms, load_job.affinity) == (1, 5000, True)
    assert load_job.needs == Needs(skills=("GPU",))
    assert serve.kind is JobKind.SERVICE
    assert after.dependencies == ("serve",)


def test_jobs_may_be_a_mapping():
    pipeline = read("name: p\njobs:\n  A: {script: a.py}\n  B: {run: ls, dependencies: A}\n")
    assert pipeline.findings == []
    assert [job.id for job in pipeline.jobs] == ["A", "B"]


def test_environment_and_defaults_reach_every_job_and_give_way():
    pipeline = read(
        """
name: p
env: {STAGE: prod, REGION: eu, VERSION: 1.10}
defaults: {priority: 9, skills: [GPU], env: {REGION: us}}
jobs:
  - {id: A, run: a}
  - {id: B, run: b, priority: 1, requirement: GENERAL, env: {STAGE: test}}
"""
    )
    assert pipeline.findings == []
    a, b = pipeline.jobs
    # 1.10 is what was written, not the number 1.1
    assert a.launch.env == {"STAGE": "prod", "REGION": "us", "VERSION": "1.10"}
    assert (a.priority, a.needs.skills) == (9, ("GPU",))
    assert b.launch.env == {"STAGE": "test", "REGION": "us", "VERSION": "1.10"}
    assert (b.priority, b.needs.skills) == (1, ("GENERAL",))


def test_arguments_as_a_list_are_exact_and_as_text_are_split():
    assert one_job("script: a.py\nargs: ['a b', 7, true, 1.50]").jobs[0].launch.args == (
        "a b",
        "7",
        "true",
        "1.50",
    )
    assert one_job("script: a.py\nargs: \"'a b' c\"").jobs[0].launch.args == ("a b", "c")
    launch = one_job("command: [ls, -l]\nargs: [x]").jobs[0].launch
    assert (launch.kind, launch.command, launch.args) == (LaunchKind.COMMAND, ("ls", "-l", "x"), ())


def test_a_python_is_what_was_written_not_the_number_that_it_makes():
    for written in ("3.12", "3.10", "'3.10'", "3", "/usr/bin/python3"):
        (job,) = one_job(f"script: a.py\npython: {written}").jobs
        assert job.launch.python == written.strip("'")
    assert TitanJob(id="A", script="a.py", python=3.12).spec.launch.python == "3.12"
    assert TitanJob(id="A", script="a.py", python=Path("/bin/py")).spec.launch.python == "/bin/py"
    with pytest.raises(InvalidSpec, match=r'write "3\.10" as text'):
        TitanJob(id="A", script="a.py", python=3.10)
    with pytest.raises(InvalidSpec, match=r"no \.py script"):
        TitanJob(id="A", script="a.sh", python="3.12")


def test_a_python_of_the_defaults_is_for_the_python_scripts():
    pipeline = read(
        "name: p\ndefaults: {python: 3.12}\njobs:\n"
        "  - {id: A, script: a.py}\n  - {id: B, script: b.py, python: 3.11}\n"
        "  - {id: C, script: c.sh}\n  - {id: D, run: d}\n  - {id: E, type: APPROVAL}\n"
    )
    assert pipeline.findings == []
    assert [job.launch.python for job in pipeline.jobs] == ["3.12", "3.11", "", "", ""]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("2", 2000),
        ("0.5", 500),
        ("1d", 86_400_000),
    ],
)
def test_durations(text, expected):
    assert one_job(f"run: a\ndelay: {text}\nstop_grace: 1s").jobs[0].delay_ms == expected


def test_yaml_1_1_surprises_stay_text():
    """No sexagesimals, no `no` that is false, no dates, no octals."""
    env = (
        one_job("run: a\nenv: {AT: 12:30, COUNTRY: NO, DAY: 2026-01-01, MODE: 0755, ON: on}")
        .jobs[0]
        .launch.env
    )
    assert env == {"AT": "12:30", "COUNTRY": "NO", "DAY": "2026-01-01", "MODE": "0755", "ON": "on"}


def test_anchors_merges_and_private_keys_are_taken():
    pipeline = read(
        """
name: p
x-shared: &shared {env: {A: "1"}, priority: 7}
jobs:
  - {<<: *shared, id: A, run: a, x-note: mine}
  - {<<: [*shared], id: B, run: b, priority: 2}
"""
    )
    assert pipeline.findings == []
    assert [job.priority for job in pipeline.jobs] == [7, 2]


def test_an_output_of_another_job_may_be_used_in_four_places():
    pipeline = read(
        """
name: p
jobs:
  - {id: A, run: a}
  - {id: B, run: 'echo "${{ jobs.A.outputs.x }}"', dependencies: A}
  - {id: C, command: "echo ${{ jobs.A.outputs.x }}/y", args: "-n ${{jobs.A.outputs.x}}", dependencies: B}
  - {id: D, run: d, env: {X: "${{ jobs.A.outputs.x }}"}, dependencies: [B]}
"""
    )
    assert pipeline.findings == []
    launch = pipeline.jobs[2].launch
    one = "${{jobs.A.outputs.x}}"
    assert launch.command == ("echo", f"{one}/y", "-n", one)


def test_what_is_said_for_all_jobs_cannot_use_an_output_of_one():
    for head in ('env: {X: "${{ jobs.A.outputs.x }}"}', 'defaults: {env: {X: "${{ jobs.A.x }}"}}'):
        pipeline = read(f"name: p\n{head}\njobs: [{{id: A, run: a}}]")
        assert [finding.code for finding in pipeline.findings] == ["Y104"]


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scrpit: a.py", ["4:5 Y103"]),
        ("script: a.py\nretries: 1000000000", ["5:14 Y107"]),
        ("script: a.py\nretries: {limit: 3, cause: [exit]}", ["5:32 Y107"]),
        ("script: a.py\nretries: {limit: 3, causes: [exit, oops]}", ["5:40 Y107"]),
        ("script: a.py\nretries: {delay: 3s}", ["5:14 Y107"]),
        ("script: a.py\ntimeout: -5", ["5:14 Y107"]),
        ("script: a.py\njob_timeout: 0", ["5:18 Y107"]),
        ("script: a.py\ntype: SERVICE\ntimeout: 5s", ["6:14 Y106"]),
        ("script: a.py\napprovers: [ann]", ["5:5 Y104"]),
        ("script: a.py\napproval: {message: go?, approvers: [ann]}", ["5:15 Y104"]),
        ("script: a.py\napproval: {mesage: go?}", ["5:24 Y107"]),
        ("script: a.py\napproval: {message: go?, timeout: 0}", ["5:39 Y107"]),
        ("script: a.py\napproval: {timeout: 5s}", ["5:15 Y107"]),
        ("script: a.py\nhitl_message: 5", ["5:19 Y107"]),
        ("script: a.py\nhitl_message: go?\napproval: go?", ["6:5 Y106"]),
        ("script: a.py\nmax_wait_seconds: 5", ["5:23 Y106"]),
        ("script: a.py\nhitl_message: go?\nmax_wait_seconds: 0", ["6:23 Y107"]),
        ("script: a.py\napproval: {message: go?, timeout: 5}\nmax_wait_seconds: 5", ["6:23 Y106"]),
        ("script: a.py\nmessage: go?", ["5:14 Y106"]),
        ("script: a.py\non_timeout: reject", ["5:17 Y106"]),
        ("run: a\ntype: APPROVAL", ["4:10 Y106"]),
        ("type: APPROVAL\non_timeout: later", ["5:17 Y107"]),
        ("type: APPROVAL\napproval: go?", ["5:15 Y106"]),
        ("type: GATE\nskills: [GPU]", ["5:13 Y106"]),
        ("run: echo ${{ params.day }}", ["4:10 Y221"]),
        ("run: echo ${{ jobs.B.outputs.day }}", ["4:10 Y221"]),
        ('script: a.py\nargs: [x, "${{ jobs.B.outputs.day }}"]', ["5:15 Y221"]),
        ('run: a\nenv: {X: "1", DAY: "${{ jobs.B.outputs.day }}"}', ["5:24 Y221"]),
        ("script: ${{ jobs.B.outputs.day }}.py", ["4:13 Y104"]),
        ("run: a\naffinity: {with: B}", ["5:22 Y241"]),
        ("run: a\ndependencies: [{id: B, condition: healthy}]", ["5:20 Y104"]),
        ("run: a\naffinity: yes", ["5:15 Y107"]),
        ("run: a\npriority: 11", ["5:15 Y107"]),
        ("run: a\npriority: high", ["5:15 Y107"]),
        ("run: a\ndelay: soon", ["5:12 Y107"]),
        ("run: a\ndelay: -1", ["5:12 Y107"]),
        ("run: a\ntype: SERVIC", ["5:11 Y107"]),
        ("run: a\ntype: SERVICE\nport: 70000", ["6:11 Y107"]),
        ("run: a\nport: 8080", ["5:11 Y106"]),
        ("run: a\nscript: b.py", ["4:10 Y106"]),
        ("run: a\nargs: [b]", ["5:11 Y106"]),
        ("file: a.py\nscript: b.py", ["5:5 Y106"]),
        ("run: a\nenv: [A]", ["5:10 Y107"]),
        ("run: a\nenv: {A: }", ["5:14 Y107"]),
        ("run: a\nskills: [GPU, 'a b']", ["5:19 Y214"]),
        ("run: a\nrequirement: GPU\nskills: [GPU]", ["5:18 Y106"]),
        ("script: ../up.py", ["4:13 Y107"]),
        ("script: /etc/passwd", ["4:13 Y107"]),
        ("script: .", ["4:13 Y107"]),
        ("script: scripts/..", ["4:13 Y107"]),
        ('args: "\'open"\nscript: a.py', ["4:11 Y107"]),
        ("script: a.py\nargs: [a, {b: c}, [d]]", ["5:15 Y107", "5:23 Y107"]),
        ("script: a.py\nargs: {a: b}", ["5:11 Y107"]),
        ("script: a.py\npython: three", ["5:13 Y107"]),
        ("script: a.py\npython: bin/python", ["5:13 Y107"]),
        ("script: a.sh\npython: 3.12", ["5:13 Y106"]),
        ("run: a.py\npython: 3.12", ["5:13 Y106"]),
        ("script: .\npython: 3.12", ["4:13 Y107"]),
        ("script: ../up.py\npython: 3.12", ["4:13 Y107"]),
        ("run: a\nenv_file: [a.env, '', {b: c}]", ["5:23 Y107", "5:27 Y107"]),
        ("type: APPROVAL\nenv_file: a.env", ["5:15 Y106"]),
        ("script: a.py\nscript: b.py", ["5:5 Y101"]),
        ("run: a\ndependencies: [B, A]", ["5:20 Y201", "5:23 Y204"]),
        ("run: !!python/object:os.system a", ["4:10 Y102"]),
        ("", ["3:9 Y106"]),
    ],
)
def test_a_bad_job_is_refused_at_its_place(text, expected):
    assert said(one_job(text)) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", ["1:1 Y105"]),
        ("- a", ["1:1 Y102"]),
        ("name: p", ["1:1 Y105"]),
        ("name: p\njob: []", ["2:1 Y103"]),
        ("name: p\njobs: []", ["2:7 Y105"]),
        ("name: p\njobs: 7", ["2:7 Y102"]),
        ("name: p\njobs: [7]", ["2:8 Y102"]),
        ("name: p\njobs: [{run: a}]", ["2:8 Y105"]),
        ("name: p\nlabels: {}\njobs: [{id: A, run: a}]", ["2:1 Y104"]),
        ("name: p\nschedule: '* * * * *'\njobs: [{id: A, run: a}]", []),
        ("name: p\nschedule: '* * * * * *'\njobs: [{id: A, run: a}]", ["2:11 Y230"]),
        ("name: p\nschedule: 7\njobs: [{id: A, run: a}]", ["2:11 Y230"]),
        ("name: p\nschedule: ['@daily', x]\njobs: [{id: A, run: a}]", ["2:22 Y230"]),
        ("name: p\nschedule: {timezone: UTC}\njobs: [{id: A, run: a}]", ["2:11 Y230"]),
        (
            "name: p\nschedule: {cron: '@daily', timezone: Mars}\njobs: [{id: A, run: a}]",
            ["2:38 Y230"],
        ),
        (
            "name: p\nschedule: {cron: '@daily', overlap: skipp}\njobs: [{id: A, run: a}]",
            ["2:37 Y230"],
        ),
        ("name: p\nschedule: {crons: '@daily'}\njobs: [{id: A, run: a}]", ["2:19 Y230"]),
        (
            "name: p\nschedule: {cron: '@daily', jitter: 48h}\njobs: [{id: A, run: a}]",
            ["2:36 Y230"],
        ),
        (
            "name: p\nschedule: {cron: '@daily', start: 2026-12-01}\njobs: [{id: A, run: a}]",
            ["2:35 Y230"],
        ),
        ("name: p\nversion: 2\njobs: [{id: A, run: a}]", ["2:10 Y107"]),
        ("apiVersion: titan/v2\nname: p\njobs: [{id: A, run: a}]", ["1:13 Y107"]),
        ("name: p\ndefaults: {secrets: 2}\njobs: [{id: A, run: a}]", ["2:12 Y104"]),
        ("name: p\ndefaults: {script: a}\njobs: [{id: A, run: a}]", ["2:12 Y103"]),
        ("name: p\nworkspace: {root: nowhere}\njobs: [{id: A, run: a}]", ["2:19 Y107"]),
        ("name: p\nworkspace: {inclued: []}\njobs: [{id: A, run: a}]", ["2:13 Y103"]),
        ("name: p\njobs: {A: {id: B, run: a}}", ["2:16 Y106"]),
        ("name: p\njobs: [{id: A, run: a}, {id: A, run: a}]", ["2:30 Y203"]),
        ("name: [\n", ["2:1 Y100"]),
        ("name: p\n\tjobs: []", ["2:1 Y100"]),
        ("name: p\x00", ["1:8 Y100"]),
        ("a: 1\n---\nb: 2", ["2:1 Y100"]),
        ("x-a: &a [*a]", ["1:6 Y100"]),
    ],
)
def test_a_bad_file_is_refused_at_its_place(body, expected):
    assert said(read(body)) == expected


def test_a_job_without_a_usable_id_is_called_by_its_number():
    body = """\
name: p
jobs:
  - {script: a.py, secrets: 3}
  - {id: a b, script: b.py}
"""
    pipeline = read(body)
    findings = [*pipeline.findings, *file_findings(pipeline, {})]
    told = [finding.message for finding in in_order(findings)]
    assert told == [
        "job number 1 has no id",
        'script "a.py" of job number 1 is neither beside this file nor in the master\'s perm_files',
        '"secrets" in job number 1 is not supported by this version of Titan',
        '"a b" cannot be a job id',
        'script "b.py" of job number 2 is neither beside this file nor in the master\'s perm_files',
    ]


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("name: p\n\tjobs: []", "indent with spaces"),
        ("name: p\njobs:\n\t- {id: A, run: a}", "indent with spaces"),
        ("name: p\nscheduel: x\njobs: [{id: A, run: a}]", 'did you mean "schedule"?'),
        ("name: p\njobs: [{id: A, run: a, retires: 3}]", 'did you mean "retries"?'),
    ],
)
def test_a_slip_is_told_with_what_was_meant(body, hint):
    (found,) = errors(read(body).findings)
    assert found.hint.startswith(hint)


@pytest.mark.parametrize(
    "bad", ["a/b", "..", "a..b", "a b", "-a", "ü", "a" * 200, "a\\0b"], ids=lambda bad: bad[:8]
)
def test_a_job_id_that_is_no_folder_name_is_refused_with_the_rule(bad):
    pipeline = read(f'name: p\njobs: [{{id: "{bad}", run: a}}]')
    (found,) = errors(pipeline.findings)
    assert found.code == "Y202"
    assert "letters, digits" in found.hint


def test_everything_wrong_is_said_at_once_with_line_and_caret():
    pipeline = read(
        """name: p
jobs:
  - id: EXTRACT
    script: a.py
  - id: TRANSFORM
    scrpit: "scripts/clean_data.py"
  - id: DEPLOY
    run: "x"
    dependencies: ["TRANSFROM"]
    secrets: 5
"""
    )
    assert report(pipeline.source, pipeline.findings) == (
        """\
p.yaml:6:5: error[Y103] unknown key "scrpit" in job TRANSFORM
  6 |     scrpit: "scripts/clean_data.py"
    |     ^^^^^^ did you mean "script"?
p.yaml:9:20: error[Y201] job DEPLOY depends on "TRANSFROM", which is not in this pipeline
  9 |     dependencies: ["TRANSFROM"]
    |                    ^^^^^^^^^^^ did you mean "TRANSFORM"?
p.yaml:10:5: error[Y104] "secrets" in job DEPLOY is not supported by this version of Titan
  10 |     secrets: 5
     |     ^^^^^^^
3 errors in p.yaml"""
    )
    with pytest.raises(PipelineError) as raised:
        pipeline.check()
    assert [problem.code for problem in raised.value.problems] == ["Y103", "Y201", "Y104"]
    assert str(raised.value).endswith("3 errors in p.yaml")


def test_a_cycle_is_shown_as_a_path():
    pipeline = read(
        "name: p\njobs:\n"
        "  - {id: A, run: a, dependencies: [C]}\n"
        "  - {id: B, run: a, dependencies: [A]}\n"
        "  - {id: C, run: a, dependencies: [B]}\n"
    )
    (found,) = errors(pipeline.findings)
    assert "A → C → B → A" in found.message


def test_a_key_that_is_designed_and_not_built_is_refused_by_name():
    for key in LATER:
        (found, *_) = errors(one_job(f"run: a\n{key}: 1").findings)
        assert (found.code, f'"{key}"' in found.message) == ("Y104", True)
        assert "not supported by this version" in found.message
    for key in ROOT_LATER:
        (found, *_) = errors(read(f"name: p\n{key}: 1\njobs: [{{id: A, run: a}}]").findings)
        assert (found.code, f'"{key}"' in found.message) == ("Y104", True)


def test_aliases_that_grow_beyond_the_ceiling_are_refused():
    """Nine lines that would be a thousand million values."""
    lines = ["x-0: &a0 [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]"]
    lines += [f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (found,) = errors(read("\n".join(lines)).findings)
    assert "250,000 values" in found.message


def test_deep_nesting_is_refused():
    (found,) = errors(read("x-a: " + "[" * 60 + "]" * 60).findings)
    assert "nested" in found.message
    assert errors(read("x-a: " + "[" * 200_000).findings)


def test_a_file_over_a_mebibyte_or_not_text_is_refused(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    assert "larger than 1 MiB" in load(path).findings[0].message
    path.write_bytes(b"name: \xff\xfe")
    assert "not UTF-8" in load(path).findings[0].message
    path.write_bytes(b"\xef\xbb\xbf" + DAILY_ETL.encode())
    assert load(path).findings == []


# -- scripts as files -----------------------------------------------------------------------------


def test_missing_scripts_are_errors_once_a_master_was_asked_and_warnings_before(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(DAILY_ETL)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "pull_data.py").write_text("")
    pipeline = load(path)
    without = file_findings(pipeline, None)
    assert [(f.severity, f.place.line) for f in without] == [("warning", 7), ("warning", 12)]
    pipeline.check(without)
    asked = file_findings(pipeline, {})
    assert [(f.severity, f.place.line, f.place.column) for f in asked] == [
        ("error", 7, 13),
        ("error", 12, 13),
    ]
    with pytest.raises(
        PipelineError, match="neither beside this file nor in the master's perm_files"
    ):
        pipeline.check(asked)


# -- the same keys in both ------------------------------------------------------------------------


def test_a_titan_job_takes_every_key_of_the_yaml_under_the_same_name():
    parameters = set(inspect.signature(TitanJob.__init__).parameters) - {"self"}
    assert parameters == {*READERS, "filename", "hitl_message"}


def test_a_titan_job_means_what_the_yaml_means():
    values = {
        "script": "a.py",
        "python": "3.12",
        "args": ["x", "7"],
        "env": {"A": "1"},
        "dependencies": ["B"],
        "type": "SERVICE",
        "port": "auto",
        "healthcheck": {"http": "/health", "interval": "5s", "retries": 2, "start_period": "1m"},
        "replicas": 2,
        "skills": ["GPU", "EU"],
        "slots": 0,
        "priority": 9,
        "delay": "1m",
        "at": "2026-12-01T08:30:00+01:00",
        "affinity": True,
        "restart": {"policy": "on-failure", "max": 9, "within": "1h", "delay": "2s", "backoff": 3},
        "stop_grace": "2s",
        "exclusive": True,
        "resources": {"cpu": 0.5, "memory": "512MiB", "pids": 100, "gpu": 2},
        "worker": "box:8080",
    }
    task = {
        "script": "a.py",
        "retries": {"limit": 3, "delay": "2s", "backoff": 1.5, "causes": ["exit", "signal"]},
        "timeout": "10m",
        "job_timeout": 3600,
        "delivery": "at-least-once",
    }
    gate = {
        "type": "APPROVAL",
        "message": "Go?",
        "timeout": "1h",
        "on_timeout": "approve",
        "dependencies": ["B"],
        "delay": 3,
        "at": "2026-12-01T08:30:00Z",
    }
    task |= {
        "dependencies": ["B"],
        "spread": True,
        "concurrency": {"group": "db", "limit": 3},
        "trigger": "none_failed",
        "when": "jobs.B.state != 'FAILED'",
        "share": "node",
        "artifacts": {"out": ["a/*.csv", "b"], "in": ["B:c/**"]},
    }
    for given in (values, task, gate):
        body = "name: p\njobs:\n  - id: A\n" + "".join(
            f"    {key}: {json.dumps(value)}\n" for key, value in given.items()
        )
        pipeline = read(body + "  - {id: B, run: b, artifacts: {out: [c]}}\n")
        assert pipeline.findings == []
        meant = TitanJob(id="A", **given)
        assert (pipeline.jobs[0], pipeline.shapes.get("A")) == (meant.spec, meant.shape)
    # What asks for an approval becomes a job of its own: see test_approvals; what is said in files
    # comes at submission: see test_envfiles.
    # A matrix becomes several: see test_matrix.
    apart = {
        "id", "run", "command", "handler", "requirement", "approval", "max_wait_seconds", "env_file",
        "matrix",
    }  # fmt: skip
    assert {*values, *task, *gate} | apart == set(READERS)


# -- what comes after all others ------------------------------------------------------------------

AFTERWARDS = """\
name: p
jobs:
  - {id: A, run: a}
  - {id: B, run: b, dependencies: [A]}
  - {id: C, run: c, dependencies: [A], trigger: all_done}
  - {id: D, run: d, dependencies: [C], approval: Go?}
on_failure: [{id: TELL, run: t}]
on_success: {PRAISE: {run: p}}
always:
  - {id: TIDY, run: y}
"""


def test_jobs_that_come_after_all_others_depend_on_every_end_there_is():
    """Where nothing needs the success of A, it is one of them: C may succeed though A failed."""
    pipeline = read(AFTERWARDS)
    assert pipeline.findings == []
    shown = {
        job.id: (job.dependencies, pipeline.shapes[job.id].trigger)
        for job in pipeline.all_jobs()
        if job.id in pipeline.shapes
    }
    ends = ("B", "hitl-gate-D")
    assert shown["TELL"] == (ends, Trigger.ANY_FAILED)
    assert shown["PRAISE"] == (ends, Trigger.NONE_FAILED)
    assert shown["TIDY"] == (ends, Trigger.ALL_DONE)
    alone = read(AFTERWARDS.replace("  - {id: B, run: b, dependencies: [A]}\n", ""))
    assert alone.jobs[-1].dependencies == ("A", "D")


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("on_failure: []", ["4:13 Y102"]),
        ("on_failure: {id: B, run: b}", ["4:13 Y102"]),
        ("always: tidy.sh", ["4:9 Y102"]),
        ("always: [tidy.sh]", ["4:10 Y102"]),
        ("always: [{id: A, run: a}]", ["4:15 Y203"]),
        ("always: [{id: B, run: b, needs: [A]}]", ["4:26 Y106"]),
        ("always: [{id: B, run: b, trigger: all_done}]", ["4:26 Y106"]),
        ("on_failure: [{webhook: {url: x}}]", ["4:15 Y104"]),
        ("on_failure: [{id: B, rum: b}]", ["4:22 Y103"]),
    ],
)
def test_what_is_no_job_after_all_others_is_refused_at_its_place(lines, found):
    assert said(read(f"name: p\njobs:\n  - {{id: A, run: a}}\n{lines}\n")) == found


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("when: true", []),
        ("when: [true]", ["5:11 Y107"]),
        ("when: jobs.B.outputs.rows > 0", ["5:11 Y224"]),
        ("when: true and jobs.Q.state == 'FAILED'", ["5:20 Y224"]),
        ("when: 'true and jobs.Q.state == \"FAILED\"'", ["5:21 Y224"]),
        ("when: params.day > 0 or matrix.size > 1", ["5:11 Y224", "5:29 Y224"]),
        ("when: jobs.B.outputs.rows = 0", ["5:31 Y107"]),
        ("when: >-\n      true or\n      jobs.B.outputs.rows = 0", ["5:11 Y107"]),
        ("trigger: any_failure", ["5:14 Y107"]),
        ("trigger: [all_done]", ["5:14 Y107"]),
        ("trigger: all_done", ["5:14 Y223"]),
        ("share: all", ["5:12 Y107"]),
        ("artifacts: [a]", ["5:16 Y107"]),
        ("artifacts: {to: [a]}", ["5:21 Y107"]),
        ("artifacts: {in: [a]}", ["5:22 Y107"]),
        ("artifacts: {out: [../a]}", ["5:22 Y222"]),
        ("artifacts: {in: ['C:a']}", ["5:16 Y222"]),
        ("artifacts: {in: ['B:a']}", ["5:16 Y222"]),
    ],
)
def test_files_that_cannot_be_shared_so_are_pointed_at(keys, found):
    pipeline = read(f"name: p\njobs:\n  - id: A\n    run: a\n    {keys}\n  - {{id: B, run: b}}\n")
    assert [
        f"{one.place.line}:{one.place.column} {one.code}" for one in in_order(pipeline.findings)
    ] == found


def test_a_default_way_to_share_is_for_every_job_but_gates():
    pipeline = read(
        "name: p\ndefaults: {share: node}\njobs:\n  - {id: A, run: a, approval: ok?}\n"
        "  - {id: B, run: b, share: run, dependencies: [A]}\n  - {id: G, type: GATE}\n"
    )
    assert pipeline.findings == []
    shares = [str(job.launch.share) for job in pipeline.jobs]
    assert shares == ["NODE", "RUN", "RUN"]


@pytest.mark.parametrize(
    ("given", "check"),
    [
        ("/health?full=1", HealthCheck(kind=HealthKind.HTTP, path="/health?full=1")),
        ({"http": "/", "port": 81}, HealthCheck(kind=HealthKind.HTTP, port=81)),
        ({"tcp": True}, HealthCheck()),
        ({"tcp": 5432, "timeout": "1s"}, HealthCheck(port=5432, timeout_ms=1_000)),
        (
            {"command": "redis-cli -p 1 ping", "interval": 2},
            HealthCheck(
                kind=HealthKind.COMMAND,
                command=("redis-cli", "-p", "1", "ping"),
                interval_ms=2_000,
            ),
        ),
    ],
)
def test_a_health_check_in_short_and_in_full(given, check):
    job = TitanJob(id="A", run="a", type="SERVICE", port=80, healthcheck=given)
    assert job.spec.service.health == check


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("health", "no path"),
        ("/a b", "no path"),
        (True, "no health check"),
        ({}, "no way to check"),
        ({"http": "/", "tcp": True}, "exactly one of"),
        ({"tcp": "yes"}, "no port"),
        ({"command": ""}, "empty"),
        ({"http": "/", "interval": "10ms"}, "HEALTH_INTERVAL_MS_MIN"),
        ({"http": "/", "timeout": "25h"}, "at most 24 hours"),
        ({"http": "/", "retries": 0}, "HEALTH_RETRIES"),
        ({"http": "/", "retry": 1}, 'did you mean "retries"'),
    ],
)
def test_a_bad_health_check_is_refused_with_what_is_wrong(given, words):
    with pytest.raises(InvalidSpec, match=words):
        TitanJob(id="A", run="a", type="SERVICE", port=80, healthcheck=given)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"slots": 0}, "a task takes at least 1"),
        ({"slots": 5_000}, "WORKER_SLOTS"),
        ({"replicas": 2}, "no service"),
        ({"healthcheck": "/"}, "no service"),
        ({"type": "SERVICE", "replicas": 0}, "REPLICAS"),
    ],
)
def test_what_only_a_service_has_is_refused_of_a_task(keys, words):
    with pytest.raises(InvalidSpec, match=words):
        TitanJob(id="A", run="a", **keys)


def test_retries_in_short_and_in_full():
    short = TitanJob(id="A", run="a", retries=3).spec.retries
    assert short == RetryPolicy(limit=3)
    full = TitanJob(
        id="A",
        run="a",
        retries={
            "limit": 2,
            "delay": "2s",
            "backoff": 1.5,
            "max_delay": "1m",
            "jitter": False,
            "causes": ["timeout", "START"],
            "not_exit_codes": [2, 64],
        },
    ).spec.retries
    assert full == RetryPolicy(
        limit=2,
        delay_ms=2_000,
        backoff_percent=150,
        max_delay_ms=60_000,
        jitter=False,
        causes=(RetryCause.TIMEOUT, RetryCause.START),
        not_exit_codes=(2, 64),
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("restart", "onfailure", 'did you mean "on-failure"?'),
        ("restart", {"max": -1}, "a number from 0 to 1000 (RESTARTS)"),
        ("restart", {"policy": "always", "maxx": 1}, 'did you mean "max"?'),
        ("retries", -1, "a number from 0 to 100 (RETRIES)"),
        ("retries", 10**9, "a number from 0 to 100 (RETRIES)"),
        ("retries", {"limit": 1, "causes": ["exits"]}, 'did you mean "exit"?'),
        ("retries", {"limit": 1, "maxdelay": 1}, 'did you mean "max_delay"?'),
        ("retries", {"limit": 1, "backoff": 0.5}, "a factor from 1 to 10"),
        ("retries", {"limit": 1, "not_exit_codes": [0]}, "a number from 1 to 255"),
        ("at", "2026-12-01T08:30:00", "or with an offset such as +01:00"),
        ("at", "tomorrow", "write 2026-12-01T08:30:00Z"),
        ("at", 1_800_000_000, "write 2026-12-01T08:30:00Z"),
        ("resources", {}, "any of cpu, memory, pids"),
        ("resources", "2G", "resources: {cpu: 0.5, memory: 512MiB}"),
        ("resources", {"mem": "2G"}, 'did you mean "memory"?'),
        ("resources", {"gpus": 1}, 'did you mean "gpu"?'),
        ("resources", {"GPU": 1}, 'did you mean "gpu"?'),
        ("resources", {"memroy": 1}, 'did you mean "memory"?'),
        ("resources", {"gpu": 0.5}, "a number from 0 to 1000000000 (RESOURCE_AMOUNT)"),
        ("resources", {"a b": 1}, "letters, digits"),
        ("resources", {"disk": 1}, "disk is not counted"),
        ("resources", {f"r{n}": 1 for n in range(17)}, "at most 16 (RESOURCES_PER_JOB)"),
        ("resources", {"cpu": 0}, "from 0.01 to 4096 (CPU_MILLI)"),
        ("resources", {"cpu": float("nan")}, "from 0.01 to 4096 (CPU_MILLI)"),
        ("resources", {"cpu": True}, "from 0.01 to 4096 (CPU_MILLI)"),
        ("resources", {"memory": "1MiB"}, "from 4MiB to 64TiB (MEMORY_BYTES)"),
        ("resources", {"memory": "2 elephants"}, "from 4MiB to 64TiB (MEMORY_BYTES)"),
        ("resources", {"memory": "9" * 15 + "T"}, "from 4MiB to 64TiB (MEMORY_BYTES)"),
        ("resources", {"pids": 0}, "a number from 1 to 4194304 (PIDS)"),
        ("timeout", -5, "at least 0 seconds"),
        ("timeout", "400d", "at most 366 days"),
        ("job_timeout", 0, "more than 0"),
    ],
)
def test_a_wrong_policy_is_refused_with_what_is_allowed(key, value, said):
    with pytest.raises(InvalidSpec) as caught:
        TitanJob(id="A", run="a", **{key: value})
    assert said in caught.value.problems[0].hint


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"cpu": 0.5}, "cpu_milli", 500),
        ({"cpu": "1.5"}, "cpu_milli", 1_500),
        ({"cpu": 2}, "cpu_milli", 2_000),
        ({"memory": "512MiB"}, "memory_bytes", 512 * 1024**2),
        ({"memory": "512Mi"}, "memory_bytes", 512 * 1024**2),
        ({"memory": "1.5G"}, "memory_bytes", 1_500_000_000),
        ({"memory": "5000KB"}, "memory_bytes", 5_000_000),
        ({"memory": 2**30}, "memory_bytes", 2**30),
        ({"pids": 7}, "pids", 7),
    ],
)
def test_limits_are_written_as_people_write_them(given, field, value):
    spec = TitanJob(id="A", run="a", resources=given).spec
    assert getattr(spec.launch.resources, field) == value


def test_what_is_asked_for_is_counted():
    """Limits of processor and memory are claims, too; of all other names there are only claims."""
    given = {"tpu": 1, "cpu": 0.5, "memory": "1GiB", "pids": 7, "gpu": 2, "licence": 0}
    spec = TitanJob(id="A", run="a", resources=given).spec
    assert spec.needs.terms.counted == (
        Counted(name="cpu", amount=500),
        Counted(name="gpu", amount=2),
        Counted(name="memory", amount=2**30),
        Counted(name="tpu", amount=1),
    )
    only = TitanJob(id="A", run="a", resources={"gpu": 1}).spec
    assert only.launch.resources is None, "a claim alone asks for no control group"
    assert TitanJob(id="A", run="a", resources={"pids": 7}).spec.needs.terms is None


def test_where_a_job_is_to_be():
    """Each key, in YAML and in Python alike."""
    pipeline = read(
        "name: p\nconcurrency: nightly\njobs:\n"
        "  - {id: A, run: a, worker: 'box:8081', concurrency: {group: db, limit: 2}}\n"
        "  - {id: B, run: b, dependencies: [A], affinity: {mode: require}}\n"
        "  - {id: G, type: APPROVAL, dependencies: [B]}\n"
        "  - {id: C, run: c, dependencies: [G], affinity: {with: A}}\n"
        "  - {id: D, run: d, spread: true, affinity: true, dependencies: [A]}\n"
    )
    assert pipeline.findings == []
    assert pipeline.spec(None, {}, {}).jobs == tuple(pipeline.jobs)
    everyone = {"run_group": "nightly", "run_limit": 1}
    terms = {job.id: job.needs.terms for job in pipeline.jobs}
    assert terms == {
        "A": Terms(worker="box:8081", group="db", limit=2, **everyone),
        "B": Terms(near="A", required=True, **everyone),
        "G": None,
        "C": Terms(near="A", **everyone),
        "D": Terms(spread=True, **everyone),
    }
    assert [job.id for job in pipeline.jobs if job.affinity] == ["D"]
    job = TitanJob("C", run="c", dependencies=["B"], affinity={"with": "A", "mode": "require"})
    assert job.spec.needs.terms == Terms(near="A", required=True)
    assert TitanJob("C", run="c", concurrency="db").spec.needs.terms == Terms(group="db", limit=1)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("affinity: {with: NOBODY}", ["5:22 Y241"]),
        ("affinity: {with: A, mode: require}", ["5:22 Y241"]),
        ("affinity: {with: A, mode: requier}", ["5:31 Y107"]),
        ("affinity: {mode: require}", ["5:15 Y106"]),
        ("affinity: {near: A}", ["5:22 Y107"]),
        ("affinity: maybe", ["5:15 Y107"]),
        ("worker: ''", ["5:13 Y107"]),
        ("concurrency: {limit: 2}", ["5:18 Y107"]),
        ("concurrency: {group: a, limit: 0}", ["5:36 Y107"]),
        ("concurrency: {group: a, on_conflict: skip}", ["5:42 Y104"]),
        ("concurrency: {group: a, on_conflict: queue}", []),
    ],
)
def test_a_place_that_cannot_be_is_shown_where_it_stands(lines, found):
    """An affinity to a job that is no ancestor, above all."""
    text = f"name: p\njobs:\n  - {{id: A, run: a}}\n  - id: B\n    {lines}\n    run: b\n"
    said = [f"{one.place.line}:{one.place.column} {one.code}" for one in read(text).findings]
    assert said == found


def test_what_is_on_one_worker_is_not_spread():
    text = "name: p\njobs:\n  - {id: B, run: b, worker: w, spread: true}\n"
    (finding,) = read(text).findings
    assert (finding.code, finding.place.line, finding.place.column) == ("Y241", 3, 29)
    assert "is tied to a worker and is to be spread" in finding.message


def test_a_requirement_may_be_a_list():
    assert TitanJob(id="A", run="a", requirement=["GPU", "BIG"]).spec.needs.skills == ("GPU", "BIG")
    assert TitanJob(id="A", run="a", requirement="GPU").spec.needs.skills == ("GPU",)
    assert TitanJob(id="A", run="a", skills=[]).spec.needs.skills == ()
    pipeline = read("name: p\njobs:\n  - {id: A, run: a, requirement: [GPU, BIG]}\n")
    assert pipeline.findings == []
    assert pipeline.jobs[0].needs.skills == ("GPU", "BIG")


def test_a_bad_resource_is_shown_at_its_place():
    pipeline = read("name: p\njobs:\n  - id: A\n    run: a\n    resources: {cpu: 1, gpus: 2}\n")
    (finding,) = pipeline.findings
    assert (finding.place.line, finding.place.column) == (5, 31)


def test_limits_of_all_jobs_are_no_gates_business():
    pipeline = read(
        "name: p\ndefaults: {resources: {pids: 5}}\njobs:\n"
        "  - {id: A, run: a}\n  - {id: B, type: APPROVAL, message: Go?}\n"
    )
    assert pipeline.findings == []
    assert pipeline.jobs[0].launch.resources.pids == 5


def test_what_is_done_at_most_once_is_exclusive_and_not_tried_again():
    spec = TitanJob(id="A", run="a", delivery="at-most-once").spec
    assert (spec.retries.after_loss, spec.exclusive) == (False, True)
    for contrary in ({"retries": 1}, {"exclusive": False}):
        with pytest.raises(InvalidSpec, match="at most once"):
            TitanJob(id="A", run="a", delivery="at-most-once", **contrary)
    with pytest.raises(InvalidSpec, match="at-least-once or at-most-once"):
        TitanJob(id="A", run="a", delivery="exactly-once")


def test_defaults_of_tasks_are_not_a_services_mistake():
    pipeline = read(
        """name: p
defaults: {retries: 2, timeout: 5m}
jobs:
  - {id: A, run: a}
  - {id: B, run: b, type: SERVICE}
"""
    )
    assert pipeline.findings == []
    assert [job.retries.limit for job in pipeline.jobs] == [2, 0]
    assert [job.timeout_ms for job in pipeline.jobs] == [300_000, 0]


def test_a_restart_policy_in_one_word_and_written_out():
    def policy(value):
        return TitanJob(id="A", run="a", type="SERVICE", restart=value).spec.service.restart

    assert policy("never") == RestartPolicy(when=RestartWhen.NEVER)
    assert policy({"policy": "on-failure", "max": 2, "within": "1m", "delay": 0}) == RestartPolicy(
        when=RestartWhen.ON_FAILURE, max=2, within_ms=60_000, delay_ms=0
    )
    with pytest.raises(InvalidSpec, match="a task has retries"):
        TitanJob(id="A", run="a", restart="always")
