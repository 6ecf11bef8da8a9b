"""What every test run of this repository has: tools that may be missing, and a result to add up.

`@pytest.mark.needs("java")` skips a test where the tool is missing. Where TITAN_REQUIRE lists the
tool (a machine that is meant to have it), the same test fails instead: a skip there would hide that
nothing was tested. With TITAN_RESULTS=FILE the counts are written there for run.py to sum.

It lies in the root, not in tests/, because the tests of the packages use it too, from whichever
folder they are started in. Only pytest and the standard library may be imported here: `isolated`
runs with one wheel of ours at a time.
"""

from __future__ import annotations

import collections
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal

import pytest

# A tool is there when one of these programs is on PATH.
PROGRAMS = {"chromium": ("chromium", "chromium-browser", "google-chrome")}
# Or when this module can be imported: `nox -s e2e` installs them.
MODULES = {"playwright": "playwright", "axe": "axe_playwright_python"}
_SKIP = re.compile(r"needs ([a-z0-9.,_-]+): not on this machine")


def has_tool(name: str) -> bool:
    """Is this tool on the machine? `root` is the right to be root, others are programs or modules."""
    if name == "root":
        return os.geteuid() == 0
    if name in MODULES:
        return importlib.util.find_spec(MODULES[name]) is not None
    return any(shutil.which(program) for program in PROGRAMS.get(name, (name,)))


def required_tools() -> set[str]:
    """The tools that must be here, from TITAN_REQUIRE (names with commas between)."""
    return {name.strip() for name in os.environ.get("TITAN_REQUIRE", "").split(",") if name.strip()}


def pytest_configure():
    """Give children the signals of an ordinary start.

    Under nohup, or in the background of a script, hang-up and interrupt are ignored, and whatever a
    test starts would inherit that: its Ctrl-C would do nothing.
    """
    # Most tests count workers. Those about spawned ones say so; whatever a test starts inherits this.
    os.environ.setdefault("TITAN_AUTOSCALE", "off")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def pytest_runtest_setup(item):
    """Skip or fail a test whose tools are missing, before any of its fixtures is made."""
    wanted = [name for mark in item.iter_markers("needs") for name in mark.args]
    missing = sorted({name for name in wanted if not has_tool(name)})
    if not missing:
        return
    demanded = sorted(required_tools().intersection(missing))
    if demanded:
        pytest.fail(
            f"needs {', '.join(demanded)}, which TITAN_REQUIRE lists but this machine lacks",
            pytrace=False,
        )
    pytest.skip(f"needs {','.join(missing)}: not on this machine")


def _skips_by_tool(reports):
    tools = collections.Counter()
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        found = _SKIP.search(reason)
        # A test that needs two missing tools is one skip: it counts for the first.
        tools[found.group(1).split(",")[0] if found else "other"] += 1
    return dict(sorted(tools.items()))


def _counts(reporter):
    stats = reporter.stats
    return {
        "passed": len(stats.get("passed", ())) + len(stats.get("xfailed", ())),
        "failed": len({r.nodeid for key in ("failed", "error") for r in stats.get(key, ())}),
        "skipped": len(stats.get("skipped", ())),
        "tools": _skips_by_tool(stats.get("skipped", ())),
    }


def pytest_terminal_summary(terminalreporter):
    """What tests have to tell, and one line that says which missing tool cost how many of them.

    A test that passes is silent, but some are worth as much as what they went through: what such a
    one gives to `record_property("told", ...)` is shown whatever became of it.
    """
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, text in getattr(report, "user_properties", ()):
                if name == "told" and report.when == "call":
                    terminalreporter.write_sep("-", report.nodeid)
                    terminalreporter.write_line(text)
    tools = _counts(terminalreporter)["tools"]
    if tools:
        listed = ", ".join(f"{name}: {count}" for name, count in tools.items())
        terminalreporter.write_line(f"skipped, by missing tool: {listed}", yellow=True)


def pytest_sessionfinish(session):
    """Leave the counts where run.py adds them up."""
    target = os.environ.get("TITAN_RESULTS")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    # A worker process of a parallel run has only its share of the counts.
    if target and reporter is not None and not hasattr(session.config, "workerinput"):
        path = pathlib.Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_counts(reporter)), encoding="utf-8")
