"""`titan validate`: everything that is wrong with a pipeline, before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from titan_proto.errors import LinkError
from titan_sdk.cli.context import Settings, emit, output_option, say, write
from titan_sdk.cli.failures import USAGE, Failure
from titan_sdk.cli.sanitize import clean
from titan_sdk.findings import ERROR, Finding, Place, errors, in_order, report
from titan_sdk.packaging import PackagingError, refuse_excess, select
from titan_sdk.pipeline import Pipeline, load
from titan_sdk.staging import file_findings, read_env_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from titan_proto.specs import ArtifactRef


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@output_option
@click.pass_obj
def validate(settings: Settings, files: tuple[str, ...], *, output: str) -> None:
    """Check pipeline files: keys, values, graph, scripts. All problems at once.

    Needs no master. If one answers, scripts that are not here are looked for in its perm_files.
    Exit code 2 if a file has an error.

    \b
    Examples:
      titan validate daily_etl.yaml
      titan validate pipelines/*.yaml -o json
    """  # noqa: D301 - click reads the backspace
    results: list[dict[str, Any]] = []
    worst = 0
    for name in files:
        try:
            pipeline = load(name)
        except OSError as error:
            worst = USAGE
            results.append(_unreadable(name, error))
            if output != "json":
                say(clean(f"error: {name}: {error.strerror}"))
            continue
        _, wrong = read_env_files(pipeline)
        found = [*pipeline.findings, *file_findings(pipeline, _away(settings, pipeline)), *wrong]
        said = ""
        if not errors(found):
            said, more = what_is_packed(pipeline)
            found += more
        if errors(found):
            worst = USAGE
        found = in_order(found)
        results.append(_as_json(pipeline, found))
        if output != "json":
            write(clean(report(pipeline.source, found)) + said)
    if output == "json":
        emit("ValidationList", {"items": results})
    if worst:
        raise click.exceptions.Exit(worst)


@click.command()
@click.option(
    "--write",
    "writes",
    is_flag=True,
    help="Put it below .titan in this folder, where a pipeline's first line finds it.",
)
@click.pass_obj
def schema(settings: Settings, *, writes: bool) -> None:  # noqa: ARG001 - as every command
    """Print the JSON Schema of pipeline files: editors complete and check by it.

    Needs no master. A pipeline names it in its first line, which --write tells; what only the whole
    file shows is said by titan validate.

    \b
    Examples:
      titan schema --write
      titan schema > pipeline.schema.json
    """  # noqa: D301 - click reads the backspace
    from titan_sdk.schema import MODELINE, PLACE, pipeline_schema  # made when it is asked for

    text = json.dumps(pipeline_schema(), indent=2, ensure_ascii=False) + "\n"
    if not writes:
        click.echo(text, nl=False)
        return
    place = Path(PLACE)
    try:
        place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{place}: {error.strerror}", USAGE) from error
    write(str(place))
    say(f"The first line of a pipeline in this folder:  {MODELINE}")


def _away(settings: Settings, pipeline: Pipeline) -> Mapping[str, ArtifactRef] | None:
    """What the master has of the scripts that are not here; None if no master answers."""
    absent = sorted({use.name for use in pipeline.absent()})
    if not absent:
        return {}
    try:
        with settings.client() as client:
            return client.find_files(absent)
    except LinkError:
        return None


def what_is_packed(pipeline: Pipeline) -> tuple[str, list[Finding]]:
    """What would travel, in words; a finding instead if it cannot."""
    wish = pipeline.workspace
    if wish.alone or not pipeline.jobs:
        return "", []
    try:
        entries = select(wish.root, include=wish.include, exclude=wish.exclude)
        refuse_excess(entries, str(wish.root))
    except PackagingError as error:
        message = f"its folder cannot be packed: {error}"
        return "", [Finding(ERROR, "Y111", message, Place(1, 1))]
    size = sum(entry.size for entry in entries) / 1024
    root = Path(wish.root)
    jobs, files = _count(len(pipeline.all_jobs()), "job"), _count(len(entries), "file")
    return f"; {jobs}, packs {files} of {root} ({size:,.0f} KiB)", []


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _as_json(pipeline: Pipeline, found: list[Finding]) -> dict[str, Any]:
    return {
        "file": pipeline.source.path,
        "valid": not errors(found),
        "name": pipeline.name,
        "jobs": [job.id for job in pipeline.all_jobs()],
        "findings": [
            _finding(one.severity, one.code, one.message, one.hint, one.place) for one in found
        ],
    }


def _unreadable(name: str, error: OSError) -> dict[str, Any]:
    """A file of which nothing more is known than that it cannot be read."""
    finding = _finding(ERROR, "Y100", str(error.strerror), "", None)
    return {"file": name, "valid": False, "name": None, "jobs": [], "findings": [finding]}


def _finding(
    severity: str, code: str, message: str, hint: str, place: Place | None
) -> dict[str, Any]:
    return {
        "severity": severity,
        "code": code,
        "message": message,
        "hint": hint or None,
        "line": None if place is None else place.line,
        "column": None if place is None else place.column,
    }
