"""Params: what they take, where their values stand, and what is refused with its place or option."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from titan_proto.errors import InvalidSpec
from titan_sdk import TitanJob
from titan_sdk.findings import PipelineError, errors
from titan_sdk.params import plain
from titan_sdk.pipeline import loads
from titan_sdk.staging import stage_jobs

BODY = """\
name: p
params:
  day: {type: date, default: 2026-11-26, description: Which day}
  env: {choices: [dev, prod], default: dev}
  rows: {type: integer}
  dry: false
  free: ""
env: {ENV: "${{ params.env }}"}
jobs:
  - id: LOAD
    run: load "${{ params.day }}" --rows=${{ params.rows }}
    skills: ["${{ params.env }}"]
    when: params.rows > 0 and not params.dry
  - id: TELL
    command: [tell, "${{params.day}}:${{ params.rows }}", "${{ matrix.n }}"]
    matrix: {n: [1, 2]}
    dependencies: [LOAD]
"""


def read(body):
    return loads(body, path=Path("p.yaml"))


def said(pipeline):
    found = sorted(errors(pipeline.findings), key=lambda one: one.place)
    return [f"{one.place.line}:{one.place.column} {one.code}" for one in found]


def test_values_stand_where_they_are_named_and_in_shell_lines_variables_that_have_them():
    pipeline = read(BODY)
    assert pipeline.findings == []
    pipeline.bind({"rows": 12, "env": "prod"})
    pipeline.check()
    spec = pipeline.spec(None, {}, {})
    load, first, second = spec.jobs
    assert load.launch.shell == 'load "${TITAN_PARAM_day}" --rows=${TITAN_PARAM_rows}'
    assert load.launch.env == {
        "ENV": "prod", "TITAN_PARAM_day": "2026-11-26", "TITAN_PARAM_rows": "12",
    }  # fmt: skip
    assert load.needs.skills == ("prod",)
    assert first.launch.command == ("tell", "2026-11-26:12", "1")
    assert second.launch.command == ("tell", "2026-11-26:12", "2")
    assert spec.params == {
        "day": "2026-11-26",
        "env": "prod",
        "rows": "12",
        "dry": "false",
        "free": "",
    }


def test_what_must_be_given_and_was_not_is_told_at_its_place_and_validates():
    pipeline = read(BODY)
    with pytest.raises(PipelineError) as caught:
        pipeline.check()
    assert "p.yaml:5:3: error[Y226] param rows has no value" in str(caught.value)
    assert "titan run FILE -p rows=" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rows": "many"}, '-p rows: "many" is no integer (such as 12)'),
        ({"rows": "1.5"}, "is no integer"),
        ({"rows": "1", "day": "2026-13-01"}, '-p day: "2026-13-01" is no date'),
        ({"rows": "1", "day": "20261126"}, "is no date"),
        ({"rows": "1", "env": "prd"}, 'none of its choices (did you mean "prod"?)'),
        ({"rows": "1", "envv": "dev"}, 'no such param (did you mean "env"?)'),
        ({"rows": "1", "zzz": "dev"}, "no such param (it has day, env, rows, dry, free)"),
        ({"rows": "1", "free": "${{ jobs.LOAD.outputs.key }}"}, "read as an expression"),
        ({"rows": [1]}, "-p rows: expected text, not a list"),
        ({"rows": "1", "env": "x" * 9_000}, "none of its choices"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_option(given, words):
    with pytest.raises(InvalidSpec) as caught:
        read(BODY).bind(given)
    assert words in str(caught.value)


def test_every_bad_value_is_told_at_once():
    with pytest.raises(InvalidSpec) as caught:
        read(BODY).bind({"rows": "x", "day": "y", "no": 1})
    assert len(caught.value.problems) == 3


def test_today_is_the_day_of_the_submission():
    pipeline = read("name: p\nparams: {day: {type: date, default: today}}\njobs: [{id: A, run: a}]")
    before = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    pipeline.bind({})
    assert pipeline.values["day"] in (
        before,
        datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    )
    pipeline.bind({"day": "today"})
    assert pipeline.values["day"] >= before


def test_one_that_need_not_be_given_is_empty():
    pipeline = read("name: p\nparams: {a: {required: false}, b: }\njobs: [{id: A, run: a}]")
    assert pipeline.findings == []
    assert pipeline.values == {"a": ""}
    assert [one.message for one in pipeline.unbound()] == ["param b has no value"]


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ("[a]", ["2:9 Y102"]),
        ("{a-b: 1}", ["2:10 Y226"]),
        ("{a: [1]}", ["2:13 Y226"]),
        ("{a: {type: dat}}", ["2:20 Y226"]),
        ("{a: {kind: date}}", ["2:20 Y226"]),
        ("{a: {type: integer, default: x}}", ["2:38 Y226"]),
        ("{a: {default: c, choices: [a, b]}}", ["2:23 Y226"]),
        ("{a: {choices: []}}", ["2:23 Y226"]),
        ("{a: {type: integer, choices: [1, b]}}", ["2:42 Y226"]),
        ("{a: {default: 1, required: true}}", ["2:36 Y226"]),
        ("{a: {type: date, required: false}}", ["2:36 Y226"]),
        ("{a: {required: maybe}}", ["2:24 Y226"]),
        ("{a: '${{ params.b }}'}", ["2:13 Y104"]),
        (f"{{{', '.join(f'a{n}: 1' for n in range(101))}}}", ["2:9 Y226"]),
    ],
)
def test_what_is_no_param_is_told_at_its_place(params, found):
    assert said(read(f"name: p\nparams: {params}\njobs: [{{id: A, run: a}}]")) == found


@pytest.mark.parametrize(
    ("job", "found"),
    [
        ("run: 'x ${{ params.dya }}'", ["5:10 Y221"]),
        ("command: [a, '${{ params.x }}']", ["5:18 Y221"]),
        ("run: x\n    when: params.dya == 'x'", ["6:11 Y224"]),
        ("run: x\n    timeout: ${{ params.day }}", ["6:14 Y104"]),
        ("run: x\n    skills: ['${{ params.q }}']", ["6:14 Y214"]),
    ],
)
def test_a_param_that_there_is_not_is_told_where_it_is_used(job, found):
    assert said(read(f"name: p\nparams: {{day: 1}}\njobs:\n  - id: A\n    {job}\n")) == found


def test_a_pipeline_without_params_says_so():
    (found,) = errors(read("name: p\njobs: [{id: A, run: '${{ params.x }}'}]").findings)
    assert found.hint == "it has no params"


def test_a_program_gives_values_with_its_jobs():
    job = TitanJob("A", command=["x", "${{ params.day }}"], when="params.day != 'none'")

    def staged(params):
        with stage_jobs(
            "p", [job.spec], folder=Path("/nowhere"), workspace=None, find=lambda names: {},
            env_files={}, shapes={"A": job.shape}, params=params,
        ) as made:  # fmt: skip
            return made.spec

    spec = staged({"day": "2026-11-26"})
    assert spec.jobs[0].launch.command == ("x", "2026-11-26")
    assert spec.params == {"day": "2026-11-26"}
    with pytest.raises(InvalidSpec, match="no such param"):
        staged({})
    with pytest.raises(InvalidSpec, match="read as an expression"):
        plain({"day": "${{ jobs.A.outputs.secret }}"})
