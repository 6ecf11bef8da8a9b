"""The JSON Schema of a pipeline file, for editors: what each key of the tables takes, in their terms.

Decides how a key looks to an editor, and which keys there are it takes from the tables that `pipeline` reads
by: one that is added there and not described here makes this module refuse to make a schema, and a test says
so. An editor is told of shapes and words; what only the whole file shows (graph, conditions, files) is said by
`titan validate`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from titan_proto.ids import JOB_ID_RULE
from titan_proto.limits import (
    BACKOFF_PERCENT,
    BACKOFF_PERCENT_MIN,
    CONCURRENCY,
    CPU_MILLI,
    GATE_MESSAGE_CHARS,
    GROUP_CHARS,
    HEALTH_RETRIES,
    JOB_ID_CHARS,
    NAME_CHARS,
    OUTPUT_KEY_CHARS,
    PARAMS_PER_RUN,
    PIDS,
    PRIORITY_MAX,
    REPLICAS,
    RESTARTS,
    RETRIES,
    WHEN_CHARS,
    WORKER_SLOTS,
)
from titan_proto.specs import Trigger
from titan_sdk import keys, pipeline
from titan_sdk.handlers import GIVEN, HANDLERS
from titan_sdk.params import PARAM_KEYS, TYPES
from titan_sdk.scheduling import CATCHUPS, OVERLAPS, SCHEDULE_KEYS

DIALECT: Final = "http://json-schema.org/draft-07/schema#"
"""What the language servers of editors are sure to read."""
PLACE: Final = ".titan/titan-pipeline.schema.json"
"""Where a pipeline's first line looks for it, from the pipeline's folder: see MODELINE."""
MODELINE: Final = f"# yaml-language-server: $schema=./{PLACE}"

Fragment = dict[str, Any]

_TEXT: Final[Fragment] = {"type": "string", "minLength": 1}
_WORD: Final[Fragment] = {"type": ["string", "number", "boolean"]}
_FLAG: Final[Fragment] = {"type": "boolean"}
_DURATION: Final[Fragment] = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^[ \d.dhms]*\d[ \d.dhms]*$"},
    ],
    "examples": ["90s", "5m", "1h30m", 10],
}
_MOMENT: Final[Fragment] = {"type": "string", "examples": ["2026-12-01T08:30:00Z"]}
_KEY: Final = f"^[A-Za-z_][A-Za-z0-9_]{{0,{OUTPUT_KEY_CHARS - 1}}}$"
_JOB_ID: Final[Fragment] = {
    "type": ["string", "integer"],
    "pattern": rf"^[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{JOB_ID_CHARS - 1}}}$",
    "description": JOB_ID_RULE,
}


def _whole(least: int, most: int) -> Fragment:
    return {"type": "integer", "minimum": least, "maximum": most}


def _one_of(words: Iterable[str]) -> Fragment:
    return {"type": "string", "enum": list(words)}


def _in_any_case(words: Iterable[str]) -> Fragment:
    """Words that are taken in any case; an editor proposes them as they are given."""
    listed = list(words)
    letters = (
        "".join(f"[{c.upper()}{c.lower()}]" if c.isalpha() else c for c in word) for word in listed
    )
    return {"anyOf": [_one_of(listed), {"type": "string", "pattern": f"^({'|'.join(letters)})$"}]}


def _list_of(item: Fragment, **more: Any) -> Fragment:
    return {"type": "array", "items": item, **more}


def _or_list(item: Fragment) -> Fragment:
    return {"anyOf": [item, _list_of(item)]}


def _short_or(short: Fragment, long: Fragment) -> Fragment:
    return {"anyOf": [short, long]}


def _object(
    owner: str, known: Iterable[str], described: Mapping[str, Fragment], *needed: str
) -> Fragment:
    """A mapping of exactly the keys that the table has. Raises LookupError where they differ."""
    table = list(known)
    missing = [key for key in table if key not in described]
    extra = [key for key in described if key not in table]
    if missing or extra:
        raise LookupError(
            f"titan_sdk.schema: say what {', '.join(missing) or 'nothing'} of {owner} take, and take "
            f"{', '.join(extra) or 'nothing'} away"
        )
    made: Fragment = {
        "type": "object",
        "properties": {key: described[key] for key in table},
        "additionalProperties": False,
    }
    return {**made, "required": list(needed)} if needed else made


_BACKOFF: Final[Fragment] = {
    "type": "number",
    "minimum": BACKOFF_PERCENT_MIN / 100,
    "maximum": BACKOFF_PERCENT / 100,
}
_CODE: Final = _whole(1, 255)
_CAUSE: Final = _in_any_case(keys.CAUSES)
_VALUES: Final[Fragment] = {
    "type": "object",
    "additionalProperties": _WORD,
    "description": "Names and values.",
}
_PORT: Final = _whole(1, 65_535)
_SIZE: Final[Fragment] = {"type": ["string", "integer"], "examples": ["512MiB", "2G"]}


def _retries() -> Fragment:
    return _object(
        "retries",
        keys.RETRY_KEYS,
        {
            "limit": _whole(0, RETRIES),
            "delay": _DURATION,
            "backoff": _BACKOFF,
            "max_delay": _DURATION,
            "jitter": _FLAG,
            "causes": _or_list(_CAUSE),
            "not_exit_codes": _or_list(_CODE),
        },
        "limit",
    )


def _restart() -> Fragment:
    return _object(
        "restart",
        keys.RESTART_KEYS,
        {
            "policy": _in_any_case(keys.RESTARTS_WHEN),
            "max": _whole(0, RESTARTS),
            "within": _DURATION,
            "delay": _DURATION,
            "backoff": _BACKOFF,
            "max_delay": _DURATION,
        },
    )


def _healthcheck() -> Fragment:
    return _object(
        "healthcheck",
        keys.HEALTH_KEYS,
        {
            "http": {"type": "string", "pattern": "^/"},
            "tcp": {"anyOf": [{"const": True}, _PORT]},
            "command": _or_list(_WORD),
            "port": {"anyOf": [{"const": True}, _PORT]},
            "interval": _DURATION,
            "timeout": _DURATION,
            "retries": _whole(1, HEALTH_RETRIES),
            "start_period": _DURATION,
        },
    )


def _approval() -> Fragment:
    return _object(
        "approval",
        keys.APPROVAL_KEYS,
        {"message": _TEXT, "timeout": _DURATION, "on_timeout": _in_any_case(keys.EXPIRIES)},
        "message",
    )


def _resources() -> Fragment:
    made = _object(
        "resources",
        keys.RESOURCE_KEYS,
        {
            "cpu": {
                "anyOf": [
                    {"type": "number", "exclusiveMinimum": 0, "maximum": CPU_MILLI / 1000},
                    {"type": "string", "pattern": r"^\d+(\.\d+)?$"},
                ]
            },
            "memory": _SIZE,
            "pids": _whole(1, PIDS),
        },
    )
    # Any other name is a resource that is only counted.
    return {**made, "additionalProperties": {"type": ["number", "string"]}, "minProperties": 1}


def _group(owner: str) -> Fragment:
    name = {"type": ["string", "number", "boolean"], "maxLength": GROUP_CHARS}
    described = {
        "group": name,
        "limit": _whole(1, CONCURRENCY),
        "on_conflict": _one_of(["queue"]),
    }
    return _short_or(name, _object(owner, keys.CONCURRENCY_KEYS, described, "group"))


def _artifacts() -> Fragment:
    taken = {"type": "string", "pattern": "^[^:]+:.+$"}
    described = {"out": _or_list(_TEXT), "in": _or_list(taken)}
    return _object("artifacts", ("out", "in"), described)


def _matrix() -> Fragment:
    axis = f"^(?!({'|'.join((*keys.MATRIX_LISTS, *keys.MATRIX_LATER))})$){_KEY[1:]}"
    cell = {"type": "object", "additionalProperties": _WORD, "minProperties": 1}
    return {
        "type": "object",
        "properties": {key: _list_of(cell) for key in keys.MATRIX_LISTS},
        "patternProperties": {axis: _list_of(_WORD, minItems=1, uniqueItems=True)},
        "additionalProperties": False,
        "minProperties": 1,
    }


def _affinity() -> Fragment:
    described = {"with": _JOB_ID, "mode": _one_of(keys.AFFINITY_MODES)}
    return _short_or(_FLAG, _object("affinity", keys.AFFINITY_KEYS, described))


def job() -> Fragment:
    """A job: each key as it stands and under its older spellings."""
    described: dict[str, Fragment] = {
        "id": _JOB_ID,
        "script": _TEXT,
        "run": _TEXT,
        "command": _or_list(_WORD),
        "handler": _TEXT,
        "python": {"type": ["string", "number"]},
        "args": _or_list(_WORD),
        "env": _VALUES,
        "env_file": _or_list(_TEXT),
        "dependencies": _or_list(_JOB_ID),
        "type": _in_any_case(["TASK", "SERVICE", "APPROVAL", "GATE", "RUN"]),
        "port": {"anyOf": [_PORT, {"type": "string", "pattern": r"^(auto|\d{1,5})$"}]},
        "restart": _short_or(_in_any_case(keys.RESTARTS_WHEN), _restart()),
        "healthcheck": _short_or({"type": "string", "pattern": "^/"}, _healthcheck()),
        "replicas": _whole(1, REPLICAS),
        "requirement": _or_list(_TEXT),
        "skills": _or_list(_TEXT),
        "slots": _whole(0, WORKER_SLOTS),
        "priority": _whole(0, PRIORITY_MAX),
        "at": _MOMENT,
        "delay": _DURATION,
        "affinity": _affinity(),
        "worker": _TEXT,
        "spread": _FLAG,
        "concurrency": _group("concurrency of a job"),
        "stop_grace": _DURATION,
        "retries": _short_or(_whole(0, RETRIES), _retries()),
        "timeout": _DURATION,
        "job_timeout": _DURATION,
        "resources": _resources(),
        "exclusive": _FLAG,
        "delivery": _one_of([keys.AT_LEAST_ONCE, keys.AT_MOST_ONCE]),
        "approval": _short_or(_TEXT, _approval()),
        "max_wait_seconds": _DURATION,
        "message": {"type": "string", "maxLength": GATE_MESSAGE_CHARS},
        "on_timeout": _in_any_case(keys.EXPIRIES),
        "share": _one_of(keys.SHARES),
        "artifacts": _artifacts(),
        "trigger": _in_any_case(one.value.lower() for one in Trigger if one is not Trigger.UNKNOWN),
        "when": {
            "type": ["string", "boolean"],
            "maxLength": WHEN_CHARS,
            "examples": ["jobs.A.outputs.rows > 0"],
        },
        "matrix": _matrix(),
    }
    made = _object("a job", keys.READERS, described)
    words = _descriptions()
    properties = {
        key: {**fragment, "description": words[key]} if key in words else fragment
        for key, fragment in made["properties"].items()
    }
    for other, key in keys.ALIASES.items():
        properties[other] = {**properties[key], "description": f"Another spelling of {key}."}
    return {**made, "properties": properties, "patternProperties": {"^x-": {}}}


def _descriptions() -> dict[str, str]:
    """What each key of a job means, as `TitanJob` says it."""
    from titan_sdk.jobs import TitanJob

    text = inspect.cleandoc(TitanJob.__doc__ or "").partition("Args:")[2].partition("Raises:")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    words = {name: " ".join(said.split()) for name, said in found}
    return {name: said[0].upper() + said[1:] for name, said in words.items()}


def _param() -> Fragment:
    described: dict[str, Fragment] = {
        "type": _one_of([*TYPES, "string", "str", "int", "float", "bool"]),
        "default": _WORD,
        "choices": _list_of(_WORD, minItems=1),
        "required": _FLAG,
        "description": _TEXT,
    }
    short = {"type": ["string", "number", "boolean", "null"]}
    return _short_or(short, _object("a param", PARAM_KEYS, described))


def _schedule() -> Fragment:
    lines = _or_list(_TEXT)
    described: dict[str, Fragment] = {
        "cron": lines,
        "timezone": _TEXT,
        "overlap": _in_any_case(OVERLAPS),
        "catchup": _in_any_case(CATCHUPS),
        "catchup_window": _DURATION,
        "jitter": _DURATION,
        "start": _MOMENT,
        "end": _MOMENT,
        "pause_on_failure": _FLAG,
    }
    return _short_or(lines, _object("schedule", SCHEDULE_KEYS, described, "cron"))


def pipeline_schema() -> Fragment:
    """The schema of a pipeline file."""
    one = {"$ref": "#/definitions/job"}
    listed = {
        "anyOf": [
            _list_of({"allOf": [one, {"required": ["id"]}]}, minItems=1),
            {"type": "object", "additionalProperties": one, "minProperties": 1},
        ]
    }
    bare = {"not": {"anyOf": [{"required": [key]} for key in (*GIVEN, *_aliases_of(GIVEN))]}}
    after = {
        "anyOf": [
            _list_of({"allOf": [one, {"required": ["id"]}, bare]}, minItems=1),
            {"type": "object", "additionalProperties": {"allOf": [one, bare]}, "minProperties": 1},
        ]
    }
    job_keys = job()
    workspace = {"root": _TEXT, "include": _or_list(_TEXT), "exclude": _or_list(_TEXT)}
    defaults = {key: job_keys["properties"][key] for key in pipeline.DEFAULT_KEYS}
    described: dict[str, Fragment] = {
        "name": {"type": ["string", "number", "boolean"], "maxLength": NAME_CHARS},
        "description": _TEXT,
        "params": {
            "type": "object",
            "patternProperties": {_KEY: _param()},
            "additionalProperties": False,
            "maxProperties": PARAMS_PER_RUN,
        },
        "jobs": listed,
        **dict.fromkeys(HANDLERS, after),
        "env": _VALUES,
        "env_file": _or_list(_TEXT),
        "defaults": {
            **_object("defaults", pipeline.DEFAULT_KEYS, defaults),
            "patternProperties": {"^x-": {}},
        },
        "workspace": {
            **_object("workspace", pipeline.WORKSPACE_KEYS, workspace),
            "patternProperties": {"^x-": {}},
        },
        "apiVersion": {"const": pipeline.API_VERSION},
        "concurrency": _group("concurrency of a pipeline"),
        "schedule": _schedule(),
        "project": {"type": ["boolean", "string"]},
        "version": {"enum": [1, 1.0, "1", "1.0"]},
    }
    return {
        "$schema": DIALECT,
        "title": "A Titan pipeline",
        "definitions": {"job": job_keys},
        **_object("a pipeline", (*pipeline.ROOT_KEYS, *pipeline.OLDER_KEYS), described, "jobs"),
        "patternProperties": {"^x-": {}},
    }


def _aliases_of(names: Iterable[str]) -> list[str]:
    wanted = set(names)
    return [other for other, key in keys.ALIASES.items() if key in wanted]
