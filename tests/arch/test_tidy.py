"""What a reviewer should not have to look for."""

import os
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("proto", "master", "worker", "sdk", "dashboard")
# What is made here and never committed, and git's own folder.
LEFT_OUT = {"dist", "build", "titan_workspace", "node_modules", "__pycache__"}
TEXT = {
    ".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".sh", ".html", ".css", ".js", ".json", ".sql",
    ".cfg", ".ini", ".mmd", ".svg", "",
}  # fmt: skip

# Every distribution that installing one of ours brings along on purpose. A new line here is a
# decision: it is one more thing that every user installs.
MANDATORY = {
    "proto": {"msgspec", "cronsim", "tzdata", "typing-extensions (3.10 only)"},
    "master": {"titan-proto", "click"},
    "worker": {"titan-proto", "click", "psutil"},
    "sdk": {"titan-proto", "click", "pyyaml"},
    "dashboard": {"titan-proto", "flask", "waitress", "click"},
}
# Nothing beside ours runs: no database, no broker, whatever library would bring one in.
SERVERS = re.compile(r"redis|celery|kombu|pika|kafka|postgres|psycopg|mysql|mongo|etcd|zookeeper")


def files():
    found = []
    for folder, names, leaves in os.walk(ROOT):
        names[:] = [
            name
            for name in names
            if name not in LEFT_OUT
            and not name.endswith(".egg-info")
            and (not name.startswith(".") or name == ".ci")
            # an environment made in the checkout under a name of its maker's
            and not (pathlib.Path(folder) / name / "pyvenv.cfg").exists()
        ]
        found += [pathlib.Path(folder) / leaf for leaf in leaves]
    return [path for path in found if path.suffix in TEXT]


def lines():
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a binary without a suffix
        for number, line in enumerate(text.splitlines(), 1):
            yield path, number, line


def offences(pattern, *, but=()):
    rule = re.compile(pattern)
    skipped = {pathlib.Path(__file__).resolve(), *(ROOT / name for name in but)}
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path, number, line in lines()
        if path not in skipped and rule.search(line)
    ]


def project(package):
    text = (ROOT / f"packages/titan-{package}/pyproject.toml").read_text(encoding="utf-8")
    # No TOML reader: this also runs where the oldest Python has none.
    return text, re.findall(
        r'"([^"]+)"', re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]
    )


def test_no_drawer_modules():
    """A small function lives with its only user."""
    drawers = {"util.py", "utils.py", "common.py", "helpers.py", "misc.py"}
    assert [
        str(p.relative_to(ROOT)) for p in files() if p.name in drawers and "src" in p.parts
    ] == []


def test_no_notes_to_self():
    assert offences(r"\b(TODO|FIXME|XXX|HACK)\b") == []


def test_no_paths_of_one_machine():
    machine = [
        re.escape(str(ROOT)) + r"\b",
        r"/home/[a-z]+/",
        r"/Users/[A-Za-z]+/",
        r"(?<![\w.])/root/",
    ]
    # A checkout right below / has a path that is also an ordinary word.
    if len(ROOT.parts) < 3:
        del machine[0]
    assert offences("|".join(machine)) == []


def test_no_sleep_stands_for_waiting():
    """Tests wait for a condition with a deadline; a bare long sleep is a guess about a machine."""
    # Not inside a string: there it is what a child process does. Nor in a benchmark's idleness.
    found = [
        line
        for line in offences(r"^[^\"']*\btime\.sleep\(\s*(?:[1-9]|0?\.[5-9])")
        if re.match(r"(?:packages/[^/]+/)?tests/(?!bench/)", line)
    ]
    assert found == []


def test_broad_handlers_are_few():
    """`except Exception` belongs to the outermost frame of a link, a command, an error page.

    Cleaning up after anything at all and passing it on is another matter: `# raised again`.
    """
    broad = r"^\s*except (?:Base)?Exception\b(?!.*# (?:outermost|raised again))"
    found = offences(broad, but=["conftest.py"])
    assert [line for line in found if "/src/" in line] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_mandatory_dependencies_are_those_written_here(package):
    _, dependencies = project(package)
    names = set()
    for line in dependencies:
        name = re.match(r"[A-Za-z0-9._-]+", line)[0].lower()
        names.add(f"{name} (3.10 only)" if "python_version < '3.11'" in line else name)
    assert names == MANDATORY[package]
    assert not [name for name in names if SERVERS.search(name)]


@pytest.mark.parametrize("package", PACKAGES)
def test_ranges_never_pins(package):
    _, dependencies = project(package)
    assert [line for line in dependencies if "==" in line or "~=" in line] == []
    ours = [line for line in dependencies if line.startswith("titan-")]
    assert ours == ([] if package == "proto" else ["titan-proto>=0.2,<1"])


@pytest.mark.parametrize("package", PACKAGES)
def test_the_face_of_a_package(package):
    folder = ROOT / f"packages/titan-{package}"
    source = folder / f"src/titan_{package}"
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "changes", "tests/requirements.txt"):
        assert (folder / name).exists(), name
    for name in ("__init__.py", "__about__.py", "py.typed"):
        assert (source / name).exists(), name
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("package", PACKAGES)
def test_promised_pythons_agree(package):
    """The classifiers are the matrix; requires-python must not promise more."""
    text, _ = project(package)
    pythons = re.findall(r"Python :: 3\.(\d+)", text)
    assert pythons == [str(n) for n in range(int(pythons[0]), 14)]
    assert f'requires-python = ">=3.{pythons[0]}"' in text
    assert pythons[0] == ("10" if package in {"proto", "sdk"} else "11")
