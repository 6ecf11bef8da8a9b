"""What a submission carries: every script found, packed and named, and the spec that names it.

Decides where a script is looked for (on this side first, then by name in the master's perm_files)
and refuses what is in neither place, all at once, before anything is sent. Never talks to a
master itself: it is handed a function that asks for names.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, final

from msgspec.structs import replace

from titan_proto.errors import InvalidSpec, LinkError, Problem
from titan_proto.limits import RUN_SPEC_BYTES
from titan_proto.specs import ArtifactRef, JobKind, JobSpec, LaunchKind, RunSpec, Shape
from titan_proto.validation import environment_problems, problems
from titan_sdk.envfiles import EnvFiles
from titan_sdk.findings import ERROR, WARNING, Finding
from titan_sdk.keys import named
from titan_sdk.matrix import Cells, obstacles, substituted, with_cells
from titan_sdk.packaging import Package, PackagingError, pack_folder, pack_script
from titan_sdk.scripts import INTERPRETED, is_absent, needs_execute_bit, what_instead

if TYPE_CHECKING:
    from titan_sdk.pipeline import Pipeline, ScriptUse

Find = Callable[[Sequence[str]], Mapping[str, ArtifactRef]]
"""Those of the names that are files in the master's perm_files."""


class Deferral(NamedTuple):
    """When a run begins, where that is not at once: its jobs without dependencies wait so long."""

    at_ms: int = 0
    """Not before this moment ..."""
    delay_ms: int = 0
    """... and so long after the submission; where a job says something of its own, both hold."""

    def of(self, spec: RunSpec) -> RunSpec:
        """The run, with its first jobs deferred."""
        if self == NOW:
            return spec
        jobs = tuple(
            job
            if job.dependencies
            else replace(
                job,
                launch=replace(job.launch, at_ms=max(job.launch.at_ms, self.at_ms)),
                delay_ms=job.delay_ms + self.delay_ms,
            )
            for job in spec.jobs
        )
        deferred = replace(spec, jobs=jobs)
        refuse(problems(deferred))
        return deferred


NOW: Final = Deferral()


Launches = dict[str, tuple[str, ArtifactRef | None]]
"""Per script, as the user wrote it: its path in the workspace, and its own artifact if it has one."""


@final
class Staged:
    """A run that is ready to be sent: its spec, and the packages it names. Close it after."""

    def __init__(self, spec: RunSpec, packages: Iterable[Package]) -> None:
        self.spec = spec
        self.packages = tuple({package.digest: package for package in packages}.values())

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for package in self.packages:
            package.close()


def stage_jobs(
    name: str,
    jobs: Sequence[JobSpec],
    *,
    folder: Path,
    workspace: Path | None,
    find: Find,
    env_files: Mapping[str, tuple[str, ...]],
    shapes: Mapping[str, Shape] | None = None,
    matrices: Mapping[str, Cells] | None = None,
    params: Mapping[str, str] | None = None,
) -> Staged:
    """Jobs of a program: each script packed alone, or all out of one `workspace` folder.

    `env_files` are the files of variables that a job names, by its id; they lie in `folder`.

    Raises:
        InvalidSpec: a script is nowhere, or the graph is not valid; all problems at once.
        PackagingError: what is there cannot be packed.
    """
    shapes, matrices, params = dict(shapes or {}), matrices or {}, dict(params or {})
    refuse(
        [
            Problem(
                where=f"jobs[{one.job}].{one.key}",
                message=f"job {named(jobs[one.job].id)} {one.message}",
                hint=one.hint,
                code="Y225",
            )
            for one in obstacles(jobs, matrices)
        ]
    )
    jobs, bad_lines = _with_env_files(jobs, env_files, folder)
    base = folder if workspace is None else folder / workspace
    scripts = {job.launch.script for job in jobs if _runs_script(job)}
    here = {script: base / script for script in scripts if not is_absent(base / script)}
    away = find(sorted(scripts - here.keys())) if scripts - here.keys() else {}
    missing = scripts - here.keys() - away.keys()
    found = [
        Problem(
            where=f"jobs[{index}].script",
            message=f'script "{named(job.launch.script)}" of job {job.id} is neither in {base} '
            f"nor in the master's perm_files",
            code="Y110",
        )
        for index, job in enumerate(jobs)
        if _runs_script(job) and job.launch.script in missing
    ]
    for index, job in enumerate(jobs):
        if job.launch.kind is LaunchKind.SCRIPT and job.launch.script in here:
            for code, wrong, hint in _unfit(here[job.launch.script]):
                message = f'script "{named(job.launch.script)}" of job {job.id} {wrong}'
                found.append(
                    Problem(where=f"jobs[{index}].script", message=message, hint=hint, code=code)
                )
    found += [
        Problem(
            where="workspace",
            message=f'script "{named(script)}" lies outside the workspace {base}',
            code="Y107",
        )
        for script, path in sorted(here.items())
        if workspace is not None and os.path.relpath(path, base).startswith(os.pardir)
    ]
    planned: Launches = {script: (alone(script), None) for script in scripts}
    refuse(
        [
            *found,
            *bad_lines,
            *problems(_whole(name, _launched(jobs, planned), shapes, matrices, params)),
        ]
    )
    with ExitStack() as undo:
        packages: list[Package] = []
        whole: ArtifactRef | None = None
        launches: Launches = {script: (ref.name, ref) for script, ref in away.items()}
        if workspace is not None:
            inside = tuple(sorted(os.path.relpath(path, base) for path in here.values()))
            packages.append(undo.enter_context(pack_folder(base, scripts=inside)))
            whole = packages[-1].ref
            for script, path in here.items():
                launches[script] = (_slashed(os.path.relpath(path, base)), None)
        else:
            for script, path in here.items():
                packages.append(undo.enter_context(pack_script(path, alone(script))))
                launches[script] = (alone(script), packages[-1].ref)
        spec = replace(
            _whole(name, _launched(jobs, launches), shapes, matrices, params), workspace=whole
        )
        staged = Staged(spec, packages)
        undo.pop_all()
    return staged


def _whole(
    name: str,
    jobs: tuple[JobSpec, ...],
    shapes: Mapping[str, Shape],
    matrices: Mapping[str, Cells],
    params: Mapping[str, str],
) -> RunSpec:
    """The run, with the values of params in it and cells in place of jobs that have a matrix."""
    filled = [substituted(job, "params", params) for job in jobs] if params else jobs
    made, shaped = with_cells(enumerate(filled), shapes, matrices)
    return RunSpec(
        name=name, jobs=tuple(job for _, job in made), shapes=shaped, params=dict(params)
    )


def stage_pipeline(pipeline: Pipeline, find: Find) -> Staged:
    """A pipeline file with its folder.

    Raises:
        PipelineError: anything is wrong with the file; everything at once.
        PackagingError: its folder cannot be packed.
    """
    absent = pipeline.absent()
    environments, wrong = read_env_files(pipeline)
    try:
        away = find(sorted({use.name for use in absent})) if absent else {}
    except LinkError:
        # No master to ask. What is wrong with the file is still the better answer.
        pipeline.check([*file_findings(pipeline, None), *wrong])
        raise
    pipeline.check([*file_findings(pipeline, away), *wrong])
    with ExitStack() as undo:
        packages: list[Package] = []
        launches: Launches = {name: (ref.name, ref) for name, ref in away.items()}
        local = {use.name for use in pipeline.scripts} - away.keys()
        whole: ArtifactRef | None = None
        if pipeline.workspace.alone:
            for name in sorted(local):
                packages.append(undo.enter_context(pack_script(pipeline.local(name), name)))
                launches[name] = (_slashed(name), packages[-1].ref)
        else:
            wish = pipeline.workspace
            inside = {name: _inside(pipeline, name) for name in local}
            package = pack_folder(
                wish.root,
                include=wish.include,
                exclude=wish.exclude,
                scripts=tuple(sorted(set(inside.values()))),
            )
            packages.append(undo.enter_context(package))
            whole = package.ref
            launches.update({name: (_slashed(path), None) for name, path in inside.items()})
        staged = Staged(pipeline.spec(whole, launches, environments), packages)
        undo.pop_all()
    return staged


def file_findings(pipeline: Pipeline, away: Mapping[str, ArtifactRef] | None) -> list[Finding]:
    """What is wrong with the scripts as files. `away` None: no master could be asked."""
    found: list[Finding] = []
    for use in pipeline.scripts:
        path = pipeline.local(use.name)
        if is_absent(path):
            if away is None or use.name not in away:
                found.append(not_found(use, asked=away is not None))
            continue
        unfit = [
            Finding(ERROR, code, f"{_script_of(use)} {wrong}", use.place, hint)
            for code, wrong, hint in _unfit(path)
        ]
        found += unfit
        if not unfit and _inside(pipeline, use.name).startswith(os.pardir):
            found.append(_outside(use, pipeline))
    return found


def read_env_files(pipeline: Pipeline) -> tuple[dict[int, dict[str, str]], list[Finding]]:
    """The environments that the pipeline's `env_file` keys add to, by job, and what is wrong there."""
    files = EnvFiles(pipeline.folder, shown_from=pipeline.folder)
    found: list[Finding] = []
    values: dict[int | None, dict[str, str]] = {}
    uses = {use.job: use for use in pipeline.env_files}
    for use in pipeline.env_files:
        values[use.job], wrong = files.variables(use.names)
        found += [
            Finding(ERROR, "Y113", f"{use.called}: {one.text}", use.place, one.hint)
            for one in wrong
        ]
    made: dict[int, dict[str, str]] = {}
    for index, job in enumerate(pipeline.jobs):
        nearest = uses.get(index) or uses.get(None)
        if nearest is None or job.kind is JobKind.GATE:
            continue
        own = uses[index].own if index in uses else frozenset()
        made[index] = pipeline.environment(index, values.get(None, {}), values.get(index, {}), own)
        if not any(environment_problems("", job.launch.env)):
            found += [
                Finding(
                    ERROR, one.code, f"{nearest.called}: {one.message}", nearest.place, one.hint
                )
                for one in environment_problems("", made[index])
            ]
    return made, found


def read_variables(names: Sequence[str]) -> dict[str, str]:
    """What files in the working folder set.

    Raises:
        InvalidSpec: a file or a line of it is no good; all of them at once.
    """
    values, wrong = EnvFiles(Path(), shown_from=Path()).variables(names)
    refuse([Problem(where=w.where, message=w.text, hint=w.hint, code="Y113") for w in wrong])
    return values


def _with_env_files(
    jobs: Sequence[JobSpec], env_files: Mapping[str, tuple[str, ...]], folder: Path
) -> tuple[Sequence[JobSpec], list[Problem]]:
    """The jobs with what their files set under what they say themselves, and what is wrong there."""
    files = EnvFiles(folder, shown_from=Path())
    done: list[JobSpec] = []
    found: list[Problem] = []
    for index, job in enumerate(jobs):
        if job.id not in env_files:
            done.append(job)
            continue
        values, wrong = files.variables(env_files[job.id])
        done.append(replace(job, launch=replace(job.launch, env={**values, **job.launch.env})))
        found += [
            Problem(
                where=f"jobs[{index}].env_file",
                message=f"env_file of job {job.id}: {one.text}",
                hint=one.hint,
                code="Y113",
            )
            for one in wrong
        ]
    return done, found


def not_found(use: ScriptUse, *, asked: bool) -> Finding:
    """The finding for a script that could not be had; without a master it is only a warning."""
    if asked:
        message = f"{_script_of(use)} is neither beside this file nor in the master's perm_files"
        return Finding(ERROR, "Y110", message, use.place)
    message = f"{_script_of(use)} is not beside this file"
    hint = "no master answered, so its perm_files were not looked at"
    return Finding(WARNING, "Y110", message, use.place, hint)


def _unfit(path: Path) -> Iterator[tuple[str, str, str]]:
    """Why what lies there cannot be run: code, the end of a sentence about the script, hint."""
    what = what_instead(path)
    if what:
        yield "Y111", f"is {what}, not a file", ""
    elif not os.access(path, os.R_OK):
        yield "Y111", "cannot be read: permission denied", f"chmod u+r {shlex.quote(str(path))}"
    elif needs_execute_bit(path):
        endings = f"{', '.join(INTERPRETED[:-1])} or {INTERPRETED[-1]}"
        hint = f"chmod +x {shlex.quote(str(path))}, or end its name in {endings}"
        yield "Y112", "is not executable", hint


def _script_of(use: ScriptUse) -> str:
    return f'script "{named(use.name)}" of job {use.called}'


def alone(script: str) -> str:
    """The name that a script packed alone has in its workspace."""
    name = os.path.normpath(script)
    if Path(name).is_absolute() or Path(name).parts[0] == os.pardir:
        name = Path(name).name
    return _slashed(name)


def refuse(found: Sequence[Problem]) -> None:
    """Raise InvalidSpec if there is any problem, with all of them in its text."""
    if not found:
        return
    lines = [p.message + (f" ({p.hint})" if p.hint else "") for p in found[:20]]
    if len(found) > len(lines):
        lines.append(f"and {len(found) - len(lines)} more")
    text = lines[0] if len(lines) == 1 else "\n".join(f"- {line}" for line in lines)
    if len(lines) > 1:
        text = f"{len(found)} problems:\n{text}"
    raise InvalidSpec(text, problems=tuple(found))


def check_spec_size(size: int) -> None:
    """Refuse what the master would refuse, before it is sent."""
    if size > RUN_SPEC_BYTES:
        raise PackagingError(
            f"this run's description is {size:,} bytes, more than RUN_SPEC_BYTES ({RUN_SPEC_BYTES:,})"
        )


def _launched(jobs: Sequence[JobSpec], launches: Launches) -> tuple[JobSpec, ...]:
    """The jobs with their scripts under the names they have in the workspace."""
    if not launches:
        return tuple(jobs)
    done: list[JobSpec] = []
    for job in jobs:
        if _runs_script(job):
            name, artifact = launches[job.launch.script]
            job = replace(job, launch=replace(job.launch, script=name, artifact=artifact))  # noqa: PLW2901
        done.append(job)
    return tuple(done)


def _runs_script(job: JobSpec) -> bool:
    return job.kind is not JobKind.GATE and job.launch.kind is LaunchKind.SCRIPT


def _inside(pipeline: Pipeline, name: str) -> str:
    root = pipeline.workspace.root.resolve()
    return os.path.relpath(pipeline.local(name).absolute().resolve().parent / Path(name).name, root)


def _outside(use: ScriptUse, pipeline: Pipeline) -> Finding:
    message = f"{_script_of(use)} lies outside the packed folder"
    hint = f"the workspace's root is {pipeline.workspace.root}"
    return Finding(ERROR, "Y107", message, use.place, hint)


def _slashed(name: str) -> str:
    return name.replace(os.sep, "/")
