#!/usr/bin/env python3
"""From a fresh checkout to a running Titan, with nothing but Python's standard library.

    python3 run.py                   install the five packages into .venv and run `titan demo`
    python3 run.py test [ARGS]       run the tests (ARGS go to nox; `--quick`: integration only)
    python3 run.py WORD [ARGS]       `titan WORD ARGS`
    python3 run.py --fresh [...]     make .venv anew first

TITAN_VENV places the environment elsewhere. Nothing is written outside it and this checkout.
This file must parse on every Python, or the line that refuses an old one could not be printed:
hence no f-strings and no annotations.
"""

import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree

OLDEST = (3, 11)
ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.abspath(os.environ.get("TITAN_VENV") or os.path.join(ROOT, ".venv"))
BIN = os.path.join(VENV, "bin")
PYTHON = os.path.join(BIN, "python")
STAMP = os.path.join(VENV, "titan-stamp")
PACKAGES = ["proto", "master", "worker", "sdk", "dashboard"]
RESULTS = os.path.join(ROOT, ".nox", "results")
# How many failed tests are named at the end, and how much of each one's message: a broken import
# fails thousands, and the line that counts them must stay in sight.
FAILURES_SHOWN = 50
MESSAGE_CHARS = 200
# pip, uv, nox and virtualenv keep caches in the home folder, which is not ours to fill. Whoever has a
# cache of their own for pip or uv says so as these tools want it (PIP_CACHE_DIR, UV_CACHE_DIR).
CACHE = os.path.join(ROOT, ".nox", "cache")
ENV = dict(os.environ, XDG_CACHE_HOME=CACHE)
ENV.setdefault("PIP_CACHE_DIR", os.path.join(CACHE, "pip"))
ENV.setdefault("UV_CACHE_DIR", os.path.join(CACHE, "uv"))
ENV["VIRTUALENV_OVERRIDE_APP_DATA"] = os.path.join(ROOT, ".nox", "virtualenv")


def say(line):
    # Data is for stdout; what this file has to say about itself is not data.
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def stop(line):
    say(line)
    sys.exit(2)


def wanted_stamp():
    # The place counts too: an environment that was moved has scripts that point to the old one.
    digest = hashlib.sha256(repr((sys.version, sys.executable, ROOT, VENV)).encode("utf-8"))
    for name in PACKAGES:
        path = os.path.join(ROOT, "packages", "titan-" + name, "pyproject.toml")
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def pip_install(arguments):
    uv = shutil.which("uv")
    if uv:
        command = [uv, "pip", "install", "--quiet", "--python", PYTHON]
    else:
        command = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.call(command + arguments, stdin=subprocess.DEVNULL, env=ENV) != 0:
        stop("run.py: installing failed, see above (it needs a package index, or a filled cache)")


def install(fresh):
    stamp = wanted_stamp()
    if not fresh and os.path.exists(STAMP):
        with open(STAMP) as file:
            if file.read() == stamp and os.path.exists(PYTHON):
                return
    if os.path.isdir(VENV) and not os.path.exists(os.path.join(VENV, "pyvenv.cfg")):
        stop(
            "run.py: %s is there, but is no virtual environment; move it, or set TITAN_VENV" % VENV
        )
    with_pip = shutil.which("uv") is None
    try:
        import venv

        if with_pip:
            import ensurepip  # noqa: F401 - Debian ships venv without it, and venv then fails late
    except ImportError:
        stop("run.py: this Python cannot make virtual environments; try: apt install python3-venv")
    say("Installing Titan into %s ..." % VENV)
    venv.create(VENV, clear=True, with_pip=with_pip, symlinks=True)
    # All five in one call: alone, one would look for its sibling in a public index, where some of
    # these names are strangers'. Editable, so that what is edited is what runs.
    arguments = []
    for name in PACKAGES:
        arguments += ["-e", os.path.join(ROOT, "packages", "titan-" + name)]
    pip_install(arguments)
    with open(STAMP, "w") as file:
        file.write(stamp)


def label(signature):
    """What a session's files are called; noxfile.py's `_label` names them so."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", signature).strip("-")


def failures(signatures):
    """A line for every failed test, session by session: who, which, and how its message begins."""
    lines = []
    for path in sorted(glob.glob(os.path.join(RESULTS, "*.xml"))):
        name = os.path.splitext(os.path.basename(path))[0]
        # A session that calls pytest twice adds a word of its own to the file of one call.
        owners = [s for s in signatures if name == label(s) or name.startswith(label(s) + "-")]
        session = max(owners, key=len) if owners else name
        try:
            cases = list(xml.etree.ElementTree.parse(path).iter("testcase"))  # noqa: S314 - ours
        except xml.etree.ElementTree.ParseError as error:
            lines.append("%s: its results cannot be read: %s" % (session, error))
            continue
        seen = set()
        for case in cases:
            bad = case.find("failure")
            bad = case.find("error") if bad is None else bad
            test = "%s::%s" % (case.get("file") or case.get("classname"), case.get("name"))
            # One that failed, and then could not be cleared away either, is one.
            if bad is None or test in seen:
                continue
            seen.add(test)
            message = ((bad.get("message") or "").strip().splitlines() or ["it says nothing"])[0]
            lines.append("%s: %s: %s" % (session, test, message[:MESSAGE_CHARS]))
    return lines


def summarise(report):
    """Print what failed, then, in one last line, what every session left; return the number of failures."""
    total = {"passed": 0, "failed": 0, "skipped": 0}
    tools = {}
    for path in glob.glob(os.path.join(RESULTS, "*.json")):
        with open(path) as file:
            counts = json.load(file)
        for key in total:
            total[key] += counts[key]
        for tool, count in counts["tools"].items():
            tools[tool] = tools.get(tool, 0) + count
    sessions = []
    if os.path.exists(report):
        with open(report) as file:
            sessions = json.load(file)["sessions"]
    bad = [s["signatures"][0] for s in sessions if s["result"] not in ("success", "skipped")]
    left = [s for s in sessions if s["result"] == "skipped"]
    absent = set()
    for session in left:
        # nox gives its reason as "Python interpreter 3.12 not found"
        found = re.search(r"interpreter (\S+) not found", session.get("reason") or "")
        absent.add("Python " + found.group(1) if found else session["signatures"][0])
    # A session that failed without a failing test (a linter, a crash) must not look like a success.
    if bad and not total["failed"]:
        total["failed"] = len(bad)
    line = "%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % total
    if tools:
        line += " (%s)" % ", ".join("%s: %d" % pair for pair in sorted(tools.items()))
    line += "; sessions: %d ok, %d failed" % (len(sessions) - len(bad) - len(left), len(bad))
    if bad:
        line += " (%s)" % ", ".join(bad)
    if left:
        line += ", %d skipped (missing: %s)" % (len(left), ", ".join(sorted(absent)))
    named = failures([s["signatures"][0] for s in sessions])
    for failure in named[:FAILURES_SHOWN]:
        print(failure)
    if len(named) > FAILURES_SHOWN:
        print(
            "... and %d more, in %s" % (len(named) - FAILURES_SHOWN, os.path.relpath(RESULTS, ROOT))
        )
    print(line)
    return total["failed"]


def test(arguments):
    if subprocess.call([PYTHON, "-c", "import nox"], stderr=subprocess.DEVNULL) != 0:
        pip_install(["nox>=2026.10.20"])
    shutil.rmtree(RESULTS, ignore_errors=True)
    os.makedirs(RESULTS)
    report = os.path.join(RESULTS, "report.txt")  # not .json: those are the counts
    if "--quick" in arguments:
        arguments = ["-s", "quick"] + [a for a in arguments if a != "--quick"]
    command = [PYTHON, "-m", "nox", "-f", os.path.join(ROOT, "noxfile.py"), "--report", report]
    if not any(a in ("-j", "-l", "--list") or a.startswith("--parallel") for a in arguments):
        command += ["--parallel", "auto"]
    code = subprocess.call(command + arguments, env=ENV)
    if not os.path.exists(report):
        return code  # it listed, or explained itself: nothing ran that could be counted
    failed = summarise(report)
    return code or (1 if failed else 0)


def main(arguments):
    if sys.version_info < OLDEST:
        stop(
            "run.py: Titan needs Python %d.%d or newer, this is %d.%d"
            % (OLDEST + sys.version_info[:2])
        )
    fresh = arguments[:1] == ["--fresh"]
    if fresh:
        arguments = arguments[1:]
    install(fresh)
    if arguments[:1] == ["test"]:
        return test(arguments[1:])
    titan = os.path.join(BIN, "titan")
    try:
        code = subprocess.call([titan] + (arguments or ["demo"]))
    except KeyboardInterrupt:
        return 130  # titan got the same Ctrl-C and has said its last word
    if not arguments and code == 0:
        say("\nTo stay:  source %s" % os.path.join(os.path.relpath(BIN), "activate"))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
