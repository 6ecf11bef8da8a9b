"""The JSON Schema of a pipeline: it knows every key there is, and says of files what the reader says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from titan_sdk import keys, pipeline, schema, yamltree
from titan_sdk.findings import errors
from titan_sdk.pipeline import loads

jsonschema = pytest.importorskip(
    "jsonschema", reason="jsonschema is not installed; tests/requirements.txt has it"
)

ROOT = Path(__file__).parents[3]
VALIDATOR = jsonschema.Draft7Validator(schema.pipeline_schema())


def plain(node):
    if isinstance(node, yamltree.Scalar):
        return node.value
    if isinstance(node, yamltree.Listing):
        return [plain(item) for item in node.items]
    return {key: plain(entry) for key, entry in node.entries.items()}


def complaints(body):
    tree, findings = yamltree.parse(body)
    assert not findings
    return [error.message for error in VALIDATOR.iter_errors(plain(tree))]


def examples():
    """Every pipeline of the repository: the files, and what stands in its documents."""
    for path in sorted((ROOT / "examples").rglob("*.y*ml")):
        yield pytest.param(path.read_text(encoding="utf-8"), id=str(path.relative_to(ROOT)))
    for path in sorted((ROOT / "docs").rglob("*.md")):
        blocks = re.findall(
            r"^```yaml\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        for number, block in enumerate(blocks, 1):
            if re.search(r"^jobs:", block, re.MULTILINE):
                yield pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")


def test_it_is_a_schema():
    jsonschema.Draft7Validator.check_schema(schema.pipeline_schema())


@pytest.mark.parametrize("body", list(examples()))
def test_every_example_fits(body):
    assert complaints(body) == []


def test_it_has_every_key_and_no_other():
    made = schema.pipeline_schema()
    assert set(made["properties"]) == {*pipeline.ROOT_KEYS, *pipeline.OLDER_KEYS}
    job = made["definitions"]["job"]["properties"]
    assert set(job) == {*keys.READERS, *keys.ALIASES}
    assert set(made["properties"]["defaults"]["properties"]) == set(pipeline.DEFAULT_KEYS)


def test_a_key_that_is_not_described_is_named():
    """Whoever adds one to a table is told where to describe it."""
    with pytest.raises(LookupError, match=r"titan_sdk.schema: say what b of retries take"):
        schema._object("retries", ["a", "b"], {"a": {}})
    with pytest.raises(LookupError, match="take c away"):
        schema._object("retries", ["a"], {"a": {}, "c": {}})


def test_every_key_of_a_job_says_what_it_means():
    job = schema.pipeline_schema()["definitions"]["job"]["properties"]
    silent = [key for key, fragment in job.items() if not fragment.get("description")]
    assert silent == []


@pytest.mark.parametrize(
    "line",
    [
        "retrys: 3",
        "retries: 101",
        "retries: {delay: 5s}",
        "retries: {limit: 3, dealy: 5s}",
        "priority: 11",
        "priority: high",
        "timeout: soon",
        "type: DAEMON",
        "exclusive: yes",
        "trigger: any_failure",
        "matrix: {n: 3}",
        "matrix: {n: []}",
        "matrix: {n: [1], max_parallel: 2}",
        "restart: sometimes",
        "healthcheck: health",
        "artifacts: {in: [x]}",
        "delivery: once",
        "share: all",
        "concurrency: {limit: 2}",
        "affinity: {near: A}",
        "env: [a]",
        "approval: {timeout: 5s}",
        "id: a/b",
    ],
)
def test_what_the_reader_refuses_in_a_job_the_schema_refuses(line):
    body = (
        f"name: p\njobs:\n  - {'' if line.startswith('id') else 'id: A'}\n    run: a\n    {line}\n"
    )
    body = body.replace("  - \n    run", "  - run")
    assert errors(loads(body, path=Path("p.yaml")).findings)
    assert complaints(body)


@pytest.mark.parametrize(
    "line",
    [
        "job: []",
        "params: [a]",
        "params: {a: {type: dat}}",
        "params: {a-b: 1}",
        "on_failure: [{run: a}]",
        "always: [{id: B, run: a, needs: [A]}]",
        "always: [{id: B, run: a, trigger: all_done}]",
        "defaults: {script: a.py}",
        "workspace: {inclde: [a]}",
        "apiVersion: titan/v2",
        "schedule: {timezone: UTC}",
        "env_file: {a: b}",
    ],
)
def test_what_the_reader_refuses_in_a_file_the_schema_refuses(line):
    body = f"name: p\njobs: [{{id: A, run: a}}]\n{line}\n"
    assert errors(loads(body, path=Path("p.yaml")).findings)
    assert complaints(body)


@pytest.mark.parametrize(
    "line",
    [
        "retries: {limit: 3, causes: exit, not_exit_codes: 2}",
        "timeout: 90",
        "timeout: 1h 30m",
        "type: service",
        "port: auto",
        "args: 5",
        "when: true",
        "x-mine: {a: [1]}",
        "depends_on: B",
        "matrix: {n: [1, two, true], exclude: [{n: 1}]}",
        "resources: {cpu: 0.5, memory: 1G, fpga: 2}",
    ],
)
def test_what_the_reader_takes_the_schema_takes(line):
    body = f"name: p\njobs:\n  - id: A\n    run: a\n    {line}\n  - {{id: B, run: b}}\n"
    if not line.startswith(("args", "port", "type")):
        assert not errors(loads(body, path=Path("p.yaml")).findings)
    assert complaints(body) == []


def test_the_document_is_fresh():
    """If not: `titan schema > docs/reference/pipeline.schema.json`."""
    page = ROOT / "docs" / "reference" / "pipeline.schema.json"
    assert json.loads(page.read_text(encoding="utf-8")) == schema.pipeline_schema()
