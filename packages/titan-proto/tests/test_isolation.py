"""The package stands alone, and its pure part touches neither socket nor clock nor thread."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import titan_proto

PURE = sorted(
    name
    for _, name, is_package in pkgutil.walk_packages(titan_proto.__path__, "titan_proto.")
    if not is_package and not name.startswith("titan_proto.io")
)
SIBLINGS = ("titan_master", "titan_worker", "titan_sdk", "titan_dashboard")
MACHINE = ("socket", "ssl", "asyncio", "threading", "time", "selectors", "titan_proto.io")


def run_python(script, *arguments):
    """What the script prints, as JSON, in a fresh interpreter in which siblings do not exist."""
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    return json.loads(result.stdout)


def test_there_is_a_pure_part():
    assert "titan_proto.connection" in PURE
    assert len(PURE) > 15


def test_everything_is_importable_without_a_sibling():
    script = """
import importlib, json, pkgutil, sys
for name in sys.argv[1:]:
    sys.modules[name] = None  # an import of it fails
import titan_proto
for _, name, _ in pkgutil.walk_packages(titan_proto.__path__, "titan_proto."):
    importlib.import_module(name)
print(json.dumps(sorted(name for name in sys.modules if name.startswith("titan_"))))
"""
    loaded = run_python(script, *SIBLINGS)

    assert set(PURE) < set(loaded)
    assert not [name for name in loaded if name not in SIBLINGS and "proto" not in name]


def test_no_module_of_the_pure_part_imports_the_machine():
    """Not by itself: what the standard library loads for its own ends is not ours to judge."""
    script = """
import ast, importlib, json, sys
found = {}
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    with open(module.__file__, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    found[name] = names
print(json.dumps(found))
"""
    imports = run_python(script, *PURE)

    for name, imported in imports.items():
        touched = [
            each for each in imported if each in MACHINE or each.startswith("titan_proto.io")
        ]
        assert not touched, name


def test_importing_the_pure_part_loads_no_socket():
    """Nor an event loop, nor TLS: a core that imports messages stays small."""
    script = """
import importlib, json, sys
import msgspec, hashlib, hmac, difflib, enum, re, struct, collections, typing
import bisect, cronsim, zoneinfo, pkgutil
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    loaded = run_python(script, *PURE)

    assert not set(MACHINE).intersection(loaded)
    assert {name.partition(".")[0] for name in loaded} == {"titan_proto"}
