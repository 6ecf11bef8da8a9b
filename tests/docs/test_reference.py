"""The reference pages and the code say the same: what one has and the other lacks is an error.

Nothing here runs a cluster. Commands are compared with click's own objects, keys with the SDK's
table, limits with the constants, environment variables with the sources, and the guarantees with
the tests that they name.
"""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest

import titan_dashboard.cli
import titan_master.cli
import titan_sdk
import titan_worker.cli
from tests.sim.coverage import Fault
from titan_master.config import MasterConfig
from titan_master.core.turn import CoreConfig
from titan_proto import limits, validation
from titan_proto.ids import AttemptRef
from titan_proto.messages import (
    AttemptUsage,
    GateView,
    JobView,
    RunView,
    ScheduleView,
    ServiceView,
    Stats,
    Usage,
    UsageView,
    WorkerUsageView,
    WorkerView,
)
from titan_proto.specs import JobKind, ScheduleSpec
from titan_proto.states import JobState, RunState, ServiceState, WorkerState
from titan_sdk import cli, keys, pipeline
from titan_sdk.cli import failures, render

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    """A page's text."""
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its rank or a higher one."""
    rank = len(heading) - len(heading.lstrip("#"))
    start = text.index(f"\n{heading}\n") + len(heading) + 2
    end = re.search(rf"^#{{1,{rank}}} ", text[start:], re.MULTILINE)
    return text[start : start + end.start()] if end else text[start:]


def first_column(text: str) -> list[str]:
    """What stands in backticks in the first column of the tables."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


# -- the command line -------------------------------------------------------------------------------


def commands() -> dict[str, click.Command]:
    """Every command, by the heading under which it is described."""
    context = click.Context(cli.titan)
    found: dict[str, click.Command] = {"titan": cli.titan}
    for name in cli.COMMANDS:
        command = cli.titan.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found.update((f"titan {name} {verb}", one) for verb, one in command.commands.items())
        else:
            found[f"titan {name}"] = command
    for name, command in titan_master.cli.master.commands.items():
        found[f"titan-master {name}"] = command
    found["titan-worker"] = titan_worker.cli.command
    found["titan-dashboard"] = titan_dashboard.cli.main
    return found


GLOBAL = {"-h", "--help", "--version"}


def test_every_command_is_described_and_no_other() -> None:
    """A heading per command."""
    headings = re.findall(r"^## (titan\S*(?: \S+){0,2})$", page("reference/cli.md"), re.MULTILINE)
    assert headings == list(commands())


@pytest.mark.parametrize("name", commands())
def test_every_option_is_described_and_no_other(name: str) -> None:
    """Options, arguments, and defaults that a number or a word stands for."""
    text = section(page("reference/cli.md"), f"## {name}")
    command = commands()[name]
    options = [param for param in command.params if isinstance(param, click.Option)]
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    wanted = {spelling for option in options for spelling in option.opts} - GLOBAL
    assert set(first_column(text)) - GLOBAL == wanted
    for argument in arguments:
        assert argument.name is not None
        shown = (argument.metavar or argument.name).upper().removesuffix("...").strip("[]")
        assert re.search(rf"^.*`{name}[^`]*\b{shown}\b", text, re.MULTILINE), shown
    for option in options:
        if option.show_default and option.default is not None:
            row = next(line for line in text.splitlines() if f"`{option.opts[-1]}`" in line)
            assert f"| {option.default} |" in row


def test_json_fields_are_those_that_are_printed() -> None:
    """Each kind's table lists exactly its fields."""
    run = RunView(
        run_id="r", alias="a-1", name="a", state=RunState.ACTIVE, submitted_at_ms=1, jobs=1
    )
    job = JobView(run_id="r", run_alias="a-1", job_id="j", kind=JobKind.TASK, state=JobState.QUEUED)
    service = ServiceView(
        name="a/j", run_id="r", run_alias="a-1", job_id="j", attempt=1, state=ServiceState.HEALTHY
    )
    worker = WorkerView(
        worker_id="w", host="h", port=1, state=WorkerState.ONLINE, slots=4, used=0, skills=()
    )
    stats = Stats(
        cluster_id="c",
        cluster_name="n",
        term=1,
        at_ms=1,
        started_at_ms=1,
        workers=(),
        runs_active=0,
        queued=0,
        blocked=0,
        delayed=0,
        running=0,
        services=0,
    )
    schedule = ScheduleView(
        name="s", schedule_id="i", version=1, spec=ScheduleSpec(crons=("@daily",))
    )
    seen = WorkerUsageView(
        worker_id=worker.worker_id,
        name="box:8080",
        at_ms=1,
        usage=Usage(attempts=(AttemptUsage(ref=AttemptRef("r", "j", 1)),)),
    )
    usage = UsageView(at_ms=1, workers=(seen,))
    text = page("reference/cli.md")
    shown = re.findall(r"^\| `usage` \|", section(text, "### Worker"), re.MULTILINE)
    assert len(shown) == 1
    told = section(text, "### Usage")
    assert set(first_column(told)) == set(render.usage_json(seen))
    for field in render.usage_json(seen)["attempts"][0]:
        assert f"`{field}`" in told
    for heading, fields in {
        "Run": render.run_json(run),
        "Schedule": render.schedule_json(schedule),
        "Job": render.job_json(job),
        "Gate": render.gate_json(
            GateView(run_id="r", run_alias="a-1", job_id="g", state=JobState.WAITING)
        ),
        "Service": render.service_json(service),
        "Worker": render.busy_worker_json(worker, usage),
        "Stats": render.stats_json(stats, None, usage),
    }.items():
        assert set(first_column(section(text, f"### {heading}"))) == set(fields), heading


def test_exit_codes_are_those_of_the_cli() -> None:
    """The table of `titan` has every code that `failures` gives, and 0."""
    text = section(page("reference/exit-codes.md"), "## `titan`")
    shown = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    given = {
        value
        for name, value in vars(failures).items()
        if name.isupper() and isinstance(value, int) and not name.startswith("_")
    }
    assert shown == given | {0}


# -- pipeline files ---------------------------------------------------------------------------------


def test_every_key_of_a_pipeline_is_described_and_no_other() -> None:
    """Of the file, of a job, of defaults and workspace, the aliases, and what is refused by name."""
    text = page("reference/pipeline-yaml.md")
    job, _, aliases = section(text, "## A job").partition("Other spellings")
    assert set(first_column(section(text, "## The file"))) == {
        *pipeline.ROOT_KEYS,
        "project",
        "version",
    }
    assert first_column(job) == list(keys.READERS)
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", aliases, re.MULTILINE))
    assert rows == keys.ALIASES
    assert first_column(section(text, "## workspace")) == list(pipeline.WORKSPACE_KEYS)
    assert set(re.findall(r"`(\w+)`", section(text, "## defaults"))) == set(pipeline.DEFAULT_KEYS)
    later = section(text, "## Not in this version").partition("In a job:")[2]
    of_job, _, of_file = later.partition("In the\nfile:")
    assert set(re.findall(r"`(\w+)`", of_job)) == keys.LATER
    assert set(re.findall(r"`(\w+)`", of_file)) == pipeline.ROOT_LATER


def test_every_key_has_an_example_that_is_validated() -> None:
    """The yaml blocks, which another test validates, use every key of a job and of the file."""
    text = page("reference/pipeline-yaml.md")
    shown = "".join(re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    wanted = {*keys.READERS, *pipeline.ROOT_KEYS, *pipeline.WORKSPACE_KEYS}
    assert {key for key in wanted if not re.search(rf"\b{key}:", shown)} == set()


def test_defaults_of_a_job_are_those_of_its_spec() -> None:
    """Where the table names a number."""
    rows = dict(
        re.findall(
            r"^\| `(\w+)` \| [^|]+ \| (\w+) \|", page("reference/pipeline-yaml.md"), re.MULTILINE
        )
    )
    assert rows["priority"] == str(limits.PRIORITY_DEFAULT)
    assert rows["stop_grace"] == f"{limits.STOP_GRACE_MS_DEFAULT // 1000}s"


def test_every_finding_is_listed() -> None:
    """Each Y number that the code can give, and no other."""
    listed = re.findall(r"^\| (Y\d+) \|", page("reference/pipeline-yaml.md"), re.MULTILINE)
    assert listed == sorted(listed)
    found = set(re.findall(r'"(Y[12]\d\d)"', sources("titan-sdk", "titan-proto", "titan-master")))
    assert set(listed) == found
    assert validation.MORE in listed


# -- limits and environment -------------------------------------------------------------------------


def sources(*packages: str) -> str:
    """The code of some packages, as one text."""
    return "\n".join(
        path.read_text(encoding="utf-8")
        for package in packages
        for path in sorted((ROOT / "packages" / package / "src").rglob("*.py"))
    )


def rows_of(text: str) -> dict[str, int]:
    """Names and values of the tables."""
    found = re.findall(r"^\| `([\w.]+)` \| ([\d,]+) \|", text, re.MULTILINE)
    return {name: int(value.replace(",", "")) for name, value in found}


def test_every_shared_limit_is_listed_with_its_value() -> None:
    """`titan_proto.limits`, in its order."""
    rows = rows_of(section(page("reference/limits.md"), "## Shared by all parts"))
    known = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert list(rows.items()) == list(known.items())


def test_every_setting_of_the_master_is_listed_with_its_value() -> None:
    """The numbers of both configurations."""
    text = section(page("reference/limits.md"), "## The master")
    for kind, table in (
        (MasterConfig, text.partition("CoreConfig`:")[0]),
        (CoreConfig, text.partition("CoreConfig`:")[2].partition("Constants")[0]),
    ):
        wanted = {
            field.name: field.default
            for field in msgspec.structs.fields(kind)
            if type(field.default) is int
        }
        assert rows_of(table) == wanted, kind.__name__


def test_constants_that_are_listed_are_those_of_the_code() -> None:
    """Named with their modules."""
    rows = {
        name: value for name, value in rows_of(page("reference/limits.md")).items() if "." in name
    }
    assert len(rows) > 20
    for name, value in rows.items():
        module, _, constant = name.rpartition(".")
        assert getattr(importlib.import_module(module), constant) == value, name


def test_every_environment_variable_is_described_and_no_other() -> None:
    """What the sources name and what the table names."""
    packages = [path.name for path in (ROOT / "packages").iterdir() if path.is_dir()]
    used = set(re.findall(r"\bTITAN_[A-Z_]*[A-Z]\b", sources(*packages)))
    shown = first_column(section(page("reference/configuration.md"), "## Environment variables"))
    assert {name for name in shown if name.startswith("TITAN_")} == used


# -- the Python API ---------------------------------------------------------------------------------


def calls_of(kind: type) -> dict[str, list[str]]:
    """A class's public methods with the names of their parameters, and its properties with none."""
    found: dict[str, list[str]] = {}
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            found[name] = []
        elif callable(member):
            found[name] = list(inspect.signature(member).parameters)[1:]
    return found


def written(cell: str) -> tuple[str, list[str]]:
    """`name(a, *, b=1)` as name and parameters."""
    name, _, rest = cell.partition("(")
    words = (word.partition("=")[0].strip().lstrip("*") for word in rest.rstrip(")").split(","))
    return name, [word for word in words if word.isidentifier()]


@pytest.mark.parametrize("name", ["TitanClient", "Run"])
def test_every_call_is_described_with_its_parameters(name: str) -> None:
    """No call more, none less, and each with the names that it takes."""
    text = section(page("reference/sdk.md"), f"## {name}")
    rows = dict(written(cell) for cell in re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    assert rows == calls_of(getattr(titan_sdk, name))


def test_every_exported_name_is_described() -> None:
    """What `from titan_sdk import …` offers stands on the page."""
    text = page("reference/sdk.md")
    assert {name for name in titan_sdk.__all__ if name not in text} == {"__version__"}


# -- guarantees and states --------------------------------------------------------------------------


def test_every_test_that_is_named_exists() -> None:
    """A guarantee is worth the test that shows it."""
    told = page("explanation/guarantees.md") + (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", told))
    places = [ROOT / "tests", *(ROOT / "packages").glob("*/tests")]
    defined = {
        name
        for place in places
        for path in place.rglob("test_*.py")
        for name in re.findall(
            r"^\s*(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE
        )
    }
    assert len(named) > 40
    assert named - defined == set()


def test_every_simulated_fault_stands_among_the_guarantees() -> None:
    """What the simulator can do to a cluster, a reader can look up."""
    text = page("explanation/guarantees.md")
    told = [word for part in re.findall(r"simulated: ([^|]*)\|", text) for word in quoted(part)]
    assert sorted(told) == sorted(fault.value for fault in Fault)


def quoted(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def test_the_lifecycle_page_is_fresh() -> None:
    """It is made from the tables of legal moves."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gen_lifecycle.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_between_the_documents_lead_somewhere() -> None:
    """Relative links of every page, and the headings they point at."""
    broken = []
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("packages/*/README.md")]
    for path in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            name, _, anchor = target.partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            goal = (path.parent / name) if name else path
            if not goal.exists() or (
                anchor and goal.suffix == ".md" and anchor not in anchors(goal)
            ):
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert broken == []


def anchors(path: Path) -> set[str]:
    """The names that a renderer gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}
