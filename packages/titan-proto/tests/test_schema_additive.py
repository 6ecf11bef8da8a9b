"""The schema may only grow: what a released peer sends or expects stays as it was."""

from __future__ import annotations

import copy
import importlib.util
import json
import pathlib

import pytest

HERE = pathlib.Path(__file__).parent
GENERATOR = HERE.parents[2] / "tools" / "gen_docs.py"
FIRST = HERE / "golden" / "schema-v1.json"
"""The schema as it was when version 1 was written down; like the golden bytes, never edited."""


@pytest.fixture(scope="module")
def gen_docs():
    """The generator, where there is one: not in a source distribution."""
    if not GENERATOR.exists():
        pytest.skip("the generator is part of the repository, not of this distribution")
    spec = importlib.util.spec_from_file_location("gen_docs", GENERATOR)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def old():
    return json.loads(FIRST.read_text(encoding="utf-8"))


@pytest.fixture
def new(old):
    return copy.deepcopy(old)


def field(schema, struct, name):
    section = "messages" if struct in schema["messages"] else "structs"
    return next(f for f in schema[section][struct]["fields"] if f["name"] == name)


def test_since_version_1_was_written_down_it_has_only_grown(gen_docs, old):
    assert gen_docs.complaints(old, gen_docs.make_schema()) == []


def test_the_documents_are_fresh(gen_docs):
    """If not: run `python tools/gen_docs.py`, and look at what it changed."""
    for name, text in gen_docs.make_files().items():
        assert (gen_docs.FOLDER / name).read_text(encoding="utf-8") == text, name


def test_what_may_be_added(gen_docs, old, new):
    """A message, a field with a default, at the end of an array too, an enum's value."""
    new["messages"]["Dance"] = {
        "opcode": 0x7E,
        "reply": "",
        "encoding": "map",
        "fields": [{"name": "a", "type": "int", "required": True}],
        "reserved": [],
    }
    added = {"name": "extra", "type": "int", "required": False, "default": 0}
    for struct in ("GetRun", "LogChunk"):
        new["messages"][struct]["fields"].append(added)
    new["structs"]["JobSpec"]["fields"].insert(0, added)
    new["enums"]["RunState"].append("PAUSED")

    assert gen_docs.complaints(old, new) == []


def test_an_optional_field_may_be_retired_but_its_name_stays(gen_docs, old, new):
    fields = new["messages"]["GetJob"]["fields"]
    fields.remove(field(new, "GetJob", "run"))
    assert gen_docs.complaints(old, new) == ["GetJob.run is gone and its name not in RESERVED"]

    new["messages"]["GetJob"]["reserved"] = ["run"]
    assert gen_docs.complaints(old, new) == []

    newest = copy.deepcopy(new)
    newest["messages"]["GetJob"]["fields"].append(field(old, "GetJob", "run"))
    assert gen_docs.complaints(new, newest) == ["GetJob.run has a retired name"]


def drop_message(schema):
    del schema["messages"]["Ping"]


def move_opcode(schema):
    schema["messages"]["GetStats"]["opcode"] = 0x7E


def take_opcode(schema):
    schema["messages"]["Dance"] = {**schema["messages"]["GetStats"], "opcode": 0x30}


def other_reply(schema):
    schema["messages"]["GetRun"]["reply"] = "RunList"


def other_encoding(schema):
    schema["structs"]["AttemptRef"]["encoding"] = "map"


def drop_required(schema):
    schema["messages"]["GetRun"]["fields"].clear()


def retype(schema):
    field(schema, "JobSpec", "priority")["type"] = "str"


def other_default(schema):
    field(schema, "JobSpec", "priority")["default"] = 4


def now_required(schema):
    made = field(schema, "JobSpec", "affinity")
    made["required"] = True
    del made["default"]


def new_required(schema):
    schema["messages"]["GetRun"]["fields"].append({"name": "x", "type": "int", "required": True})


def insert_into_array(schema):
    made = {"name": "x", "type": "int", "required": False, "default": 0}
    schema["messages"]["LogChunk"]["fields"].insert(1, made)


def drop_value(schema):
    schema["enums"]["RunState"].remove("FAILED")


@pytest.mark.parametrize(
    ("bend", "words"),
    [
        (drop_message, "Ping is gone"),
        (move_opcode, "GetStats: opcode was 88, is 126"),
        (take_opcode, "Dance takes opcode 0x30, which is SubmitRun's"),
        (other_reply, "GetRun: reply was 'RunView', is 'RunList'"),
        (other_encoding, "AttemptRef: encoding was 'array', is 'map'"),
        (drop_required, "GetRun.run is required for ever, and is gone"),
        (retype, "JobSpec.priority: type was 'int', is 'str'"),
        (other_default, "JobSpec.priority: default was 5, is 4"),
        (now_required, "JobSpec.affinity: required was False, is True"),
        (new_required, "GetRun.x is new and has no default"),
        (insert_into_array, "LogChunk is an array: its fields may be appended to, nothing else"),
        (drop_value, "RunState.FAILED is gone"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_may_not_be_changed(gen_docs, old, new, bend, words):
    bend(new)

    assert words in gen_docs.complaints(old, new)


def test_the_generator_writes_no_schema_that_old_peers_could_not_read(
    gen_docs, old, tmp_path, monkeypatch, capsys
):
    """Somebody who renames a field learns of it before the document forgets the old name."""
    monkeypatch.setattr(gen_docs, "FOLDER", tmp_path)
    field(old, "GetRun", "run")["name"] = "selector"
    (tmp_path / "schema.json").write_text(json.dumps(old), encoding="utf-8")

    assert gen_docs.main([]) == 1

    assert "GetRun.selector is required for ever" in capsys.readouterr().out
    assert not (tmp_path / "messages.md").exists()


def test_the_generator_writes_and_checks(gen_docs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gen_docs, "FOLDER", tmp_path / "protocol")
    assert gen_docs.main(["--check"]) == 1
    assert gen_docs.main([]) == 0
    assert gen_docs.main(["--check"]) == 0
    assert "0x30" in (tmp_path / "protocol" / "messages.md").read_text(encoding="utf-8")
