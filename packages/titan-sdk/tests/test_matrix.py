"""A matrix: which cells there are, what stands in them, and what is refused before any is made."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from titan_proto.errors import InvalidSpec
from titan_proto.limits import MATRIX_CELLS, MATRIX_EDGES
from titan_proto.validation import problems
from titan_sdk import TitanJob
from titan_sdk.findings import errors
from titan_sdk.pipeline import loads
from titan_sdk.staging import stage_jobs

TRAINED = """\
name: p
jobs:
  - id: TRAIN
    run: train --region ${{ matrix.region }} "${{ matrix.size }}"
    env: {REGION: "<${{matrix.region}}>"}
    skills: [GENERAL, "${{ matrix.size }}"]
    matrix: {region: [eu, us], size: [1, 10]}
  - id: SUM
    command: [sum, "${{ jobs.TRAIN.2.outputs.n }}"]
    dependencies: [TRAIN]
"""


def read(body):
    return loads(body, path=Path("p.yaml"))


def said(pipeline):
    found = sorted(errors(pipeline.findings), key=lambda one: one.place)
    return [f"{one.place.line}:{one.place.column} {one.code}" for one in found]


def whole(pipeline):
    assert said(pipeline) == []
    return pipeline.spec(None, {}, {})


def test_cells_are_jobs_in_the_order_in_which_they_are_written():
    spec = whole(read(TRAINED))
    assert [job.id for job in spec.jobs] == ["TRAIN.1", "TRAIN.2", "TRAIN.3", "TRAIN.4", "SUM"]
    assert [spec.shapes[f"TRAIN.{n}"].cell for n in (1, 2, 3, 4)] == [
        {"region": "eu", "size": "1"},
        {"region": "eu", "size": "10"},
        {"region": "us", "size": "1"},
        {"region": "us", "size": "10"},
    ]
    assert {shape.cell_of for shape in spec.shapes.values()} == {"TRAIN"}
    assert spec.jobs[4].dependencies == ("TRAIN.1", "TRAIN.2", "TRAIN.3", "TRAIN.4")


def test_its_values_stand_in_a_cell_and_in_a_line_for_the_shell_variables_that_have_them():
    second = whole(read(TRAINED)).jobs[1]
    assert second.launch.shell == ('train --region ${TITAN_MATRIX_region} "${TITAN_MATRIX_size}"')
    assert second.launch.env == {
        "REGION": "<eu>",
        "TITAN_MATRIX_region": "eu",
        "TITAN_MATRIX_size": "10",
    }
    assert second.needs.skills == ("GENERAL", "10")


def test_what_reads_a_cell_by_its_condition_is_told_its_values():
    body = TRAINED.replace("    matrix:", "    when: matrix.size > 5\n    matrix:")
    assert whole(read(body)).shapes["TRAIN.3"].when == "matrix.size > 5"


def test_everything_that_names_the_job_means_all_of_its_cells():
    spec = whole(
        read(
            "name: p\njobs:\n"
            "  - {id: A, run: a, matrix: {n: [1, 2]}, artifacts: {out: [x]}, approval: Go?}\n"
            "  - {id: B, run: b, matrix: {n: [1, 2]}, artifacts: {in: ['A:x']}, dependencies: [A]}\n"
            "  - {id: C, run: c, dependencies: [A.2]}\n"
            "always: [{id: T, run: t, matrix: {m: [x]}}]\n"
        )
    )
    parents = {job.id: job.dependencies for job in spec.jobs}
    assert parents["hitl-gate-A"] == ("A.1", "A.2")
    assert parents["B.1"] == parents["B.2"] == ("hitl-gate-A",)
    assert parents["C"] == ("A.2",)
    assert parents["T.1"] == ("B.1", "B.2", "C")
    taken = next(job for job in spec.jobs if job.id == "B.1").launch.artifacts.take
    assert [one.job for one in taken] == ["A.1", "A.2"]


@pytest.mark.parametrize(
    ("more", "cells"),
    [
        ("exclude: [{region: us, size: 10}]", ["eu 1", "eu 10", "us 1"]),
        ("exclude: [{region: us}]", ["eu 1", "eu 10"]),
        ("include: [{region: ap, size: 1}]", ["eu 1", "eu 10", "us 1", "us 10", "ap 1"]),
        (
            "exclude: [{size: 1}], include: [{size: 1, region: us}, {region: us, size: 10}]",
            ["eu 10", "us 10", "us 1"],
        ),
    ],
)
def test_cells_are_left_out_and_added(more, cells):
    body = TRAINED.replace("size: [1, 10]}", f"size: [1, 10], {more}}}")
    shapes = whole(read(body)).shapes.values()
    assert [f"{one.cell['region']} {one.cell['size']}" for one in shapes] == cells


@pytest.mark.parametrize(
    ("matrix", "found"),
    [
        ("[a, b]", ["5:13 Y107"]),
        ("{}", ["5:13 Y107"]),
        ("{n: 3}", ["5:17 Y107"]),
        ("{n: []}", ["5:17 Y107"]),
        ("{n: [a, b, a]}", ["5:24 Y107"]),
        ("{n: [[a]]}", ["5:18 Y107"]),
        ("{a-b: [1]}", ["5:19 Y107"]),
        ("{n: [1], max_parallel: 2}", ["5:36 Y104"]),
        ("{n: [1], fail_fast: true}", ["5:33 Y104"]),
        ("{n: [1], exclude: [{m: 1}]}", ["5:36 Y107"]),
        ("{n: [1], exclude: [{n: 2}]}", ["5:32 Y107"]),
        ("{n: [1], exclude: [{n: 1}]}", ["5:31 Y107"]),
        ("{n: [1], include: [{}]}", ["5:32 Y107"]),
        ("{n: [1], m: [1], include: [{n: 2}]}", ["5:40 Y107"]),
    ],
)
def test_what_is_no_matrix_is_told_at_its_place(matrix, found):
    body = f"name: p\njobs:\n  - id: A\n    run: a\n    matrix: {matrix}\n"
    assert said(read(body)) == found


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("  - {id: A.2, run: b}", ["5:10 Y225"]),
        ("  - {id: A.7, run: b}", ["5:10 Y225"]),
        ("  - {id: B, run: 'x ${{ matrix.n }}'}", ["5:18 Y221"]),
        ("  - {id: B, run: x, when: matrix.n > 1}", ["5:27 Y224"]),
        ("  - {id: B, run: '${{ jobs.A.outputs.x }}', needs: [A]}", ["5:18 Y221"]),
        ("  - {id: B, run: x, when: jobs.A.state == 'FAILED', needs: [A]}", ["5:27 Y224"]),
        ("  - {id: B, run: x, needs: [A.3]}", ["5:29 Y201"]),
        ("  - {id: B, run: x, matrix: {m: [1]}, args: a}", ["5:45 Y106"]),
        ("  - {id: B, run: '${{ matrix.m }} ${{ matrix.n }}', matrix: {n: [1, 2]}}", ["5:18 Y221"]),
        ("  - {id: B, type: APPROVAL, matrix: {m: [1]}}", ["5:37 Y106"]),
        ("  - {id: " + "B" * 127 + ", run: b, matrix: {n: [1]}}", ["5:10 Y225"]),
    ],
)
def test_what_does_not_go_with_a_matrix_is_told_once_at_its_place(lines, found):
    body = f"name: p\njobs:\n  - {{id: A, run: a, matrix: {{n: [1, 2]}}}}\n  # more\n{lines}\n"
    assert said(read(body)) == found


def test_a_million_cells_are_refused_before_any_is_made():
    axis = ", ".join(map(str, range(100)))
    body = f"name: p\njobs:\n  - id: A\n    run: a\n    matrix: {{a: [{axis}], b: [{axis}], c: [{axis}]}}\n"
    began = time.perf_counter()
    pipeline = read(body)
    assert time.perf_counter() - began < 1
    (found,) = errors(pipeline.findings)
    assert found.message == "matrix of job A: a matrix of 1,000,000 cells"
    assert (found.place.line, found.hint) == (5, f"at most {MATRIX_CELLS:,} (MATRIX_CELLS)")


def test_matrices_after_each_other_are_refused_before_their_dependencies_are_made():
    axis = ", ".join(map(str, range(1_100)))
    jobs = "".join(
        f"  - {{id: J{n}, run: a, matrix: {{a: [{axis}]}}, needs: [{f'J{n - 1}' if n else ''}]}}\n"
        for n in range(2)
    )
    (found,) = errors(read(f"name: p\njobs:\n{jobs}").findings)
    assert f"MATRIX_EDGES ({MATRIX_EDGES:,})" in found.message
    assert found.place.line == 4


def test_the_largest_matrix_is_taken():
    axis = ", ".join(map(str, range(100)))
    body = f"name: p\njobs:\n  - {{id: A, run: a, matrix: {{a: [{axis}], b: [{axis}]}}}}\n"
    spec = whole(read(body + "  - {id: B, run: b, needs: [A]}\n"))
    assert len(spec.jobs) == MATRIX_CELLS + 1
    assert len(spec.jobs[-1].dependencies) == MATRIX_CELLS


# -- from a program -------------------------------------------------------------------------------
def staged(*jobs):
    with stage_jobs(
        "p",
        [job.spec for job in jobs],
        folder=Path("/nowhere"),
        workspace=None,
        find=lambda names: {},
        env_files={},
        shapes={job.id: job.shape for job in jobs if job.shape is not None},
        matrices={job.id: job.matrix for job in jobs if job.matrix is not None},
    ) as made:
        return made.spec


def test_a_program_means_what_the_yaml_means():
    train = TitanJob(
        "TRAIN",
        run='train --region ${{ matrix.region }} "${{ matrix.size }}"',
        env={"REGION": "<${{matrix.region}}>"},
        skills=["GENERAL", "${{ matrix.size }}"],
        matrix={"region": ["eu", "us"], "size": [1, 10]},
    )
    total = TitanJob("SUM", command=["sum", "${{ jobs.TRAIN.2.outputs.n }}"], dependencies=[train])
    spec = staged(train, total)
    assert spec == whole(read(TRAINED))
    assert problems(spec) == ()


def test_a_program_is_told_what_is_wrong():
    with pytest.raises(InvalidSpec, match="expected a list of values"):
        TitanJob("A", run="a", matrix={"n": 1})
    with pytest.raises(InvalidSpec, match="read as an expression"):
        TitanJob("A", run="a", matrix={"n": ["${{ jobs.B.outputs.x }}"]})
    with pytest.raises(InvalidSpec, match="called like a cell of A"):
        staged(TitanJob("A", run="a", matrix={"n": [1]}), TitanJob("A.1", run="b"))
