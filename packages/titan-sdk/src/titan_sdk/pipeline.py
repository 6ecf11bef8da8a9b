"""A pipeline file → jobs, with everything wrong in it found at once and shown at its place.

Decides which keys a pipeline has, which older spellings stand for them, and what is refused by
name because this version does not have it. Never sends anything and never reads another file than
the pipeline itself; which scripts exist is asked by whoever packs (`client`, `titan validate`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from titan_proto import outputs
from titan_proto.errors import Problem
from titan_proto.ids import is_job_id
from titan_proto.limits import NAME_CHARS, PARAMS_PER_RUN
from titan_proto.specs import (
    ArtifactRef,
    GateSection,
    JobKind,
    JobSpec,
    LaunchKind,
    RunSpec,
    ScheduleSpec,
    Shape,
)
from titan_proto.validation import DUPLICATE_ID, UNKNOWN_PARENT, problems
from titan_sdk import yamltree
from titan_sdk.approvals import obstacle, with_gates
from titan_sdk.findings import ERROR, INFO, Finding, PipelineError, Place, Source, errors
from titan_sdk.handlers import GIVEN, HANDLERS, ends_of
from titan_sdk.keys import (
    ALIASES,
    FOR_TASKS,
    LATER,
    READERS,
    RUN_CONCURRENCY,
    WAYS,
    BadValue,
    Concurrency,
    NotYet,
    affinity,
    approval,
    approval_of,
    boolean,
    command,
    concurrency,
    conflicts,
    dependencies,
    duration_ms,
    environment,
    expiry,
    files,
    flag,
    healthcheck,
    job_id,
    job_spec,
    kind,
    line,
    named,
    nearest,
    port,
    priority,
    replicas,
    resources,
    restart,
    retries,
    shape_of,
    slots,
    text,
    texts,
    timeout_ms,
    wait_ms,
    words,
)
from titan_sdk.matrix import Cells, obstacles, substituted, with_cells
from titan_sdk.params import SAMPLES, Param, bound, defaults_of, definition, param_name
from titan_sdk.scripts import is_absent

ROOT_KEYS: Final = (
    "name", "description", "params", "jobs", "on_failure", "on_success", "always", "env", "env_file", "defaults",
    "workspace", "apiVersion", "concurrency", "schedule",
)  # fmt: skip
OLDER_KEYS: Final = ("project", "version")
"""Older spellings: of `workspace` and `apiVersion`."""
ROOT_LATER: Final = frozenset(
    {
        "hitl_message", "labels", "on_cancel", "retries", "secrets", "timeout",
    }
)  # fmt: skip
DEFAULT_KEYS: Final = (
    "env", "python", "requirement", "skills", "slots", "priority", "delay", "affinity", "stop_grace",
    "retries", "timeout", "job_timeout", "resources", "share",
    "worker", "spread", "concurrency",
)  # fmt: skip
"""What `defaults:` may say for all jobs: what is not a single job's own business."""
WORKSPACE_KEYS: Final = ("root", "include", "exclude")
API_VERSION: Final = "titan/v1"
BAD_SCHEDULE: Final = "Y230"
"""The code of `titan_proto.schedules`, which is loaded only where a file has one."""

_START: Final = Place(1, 1)
_TYPED: Final = frozenset(
    {
        affinity, approval, boolean, concurrency, duration_ms, expiry, flag, healthcheck, kind, port, priority, replicas,
        resources, restart, retries, slots, timeout_ms, wait_ms,
    }
)  # fmt: skip
"""Readers to which 1 and "1" are not the same; to all others a number is the text it is."""
_FILLED_IN: Final = frozenset({command, environment, line, words})
"""Readers of values in which the outputs of other jobs may be used."""
_BY_CELL: Final = frozenset({texts})
"""Readers of values in which those of a matrix may be used."""
_LISTS: Final = frozenset({dependencies, files, texts, words})
_JOB_PATH = re.compile(r"jobs\[(\d+)\](?:\.(.+))?\Z")
_FIELDS: Final = {
    "launch": "script",
    "launch.shell": "run",
    "launch.command": "command",
    "launch.handler": "handler",
    "launch.args": "args",
    "launch.env": "env",
    "launch.python": "python",
    "launch.script": "script",
    "launch.resources": "resources",
    "launch.share": "share",
    "launch.artifacts": "artifacts",
    "needs": "skills",
    "needs.skills": "skills",
    "kind": "type",
    "service": "port",
    "service.port": "port",
    "service.restart": "restart",
    "service.health": "healthcheck",
    "service.replicas": "replicas",
    "needs.slots": "slots",
    "needs.terms.counted": "resources",
    "needs.terms.near": "affinity.with",
    "needs.terms.worker": "worker",
    "needs.terms.group": "concurrency",
    "delay_ms": "delay",
    "launch.at_ms": "at",
    "stop_grace_ms": "stop_grace",
    "retries.after_loss": "delivery",
    "timeout_ms": "timeout",
    "job_timeout_ms": "job_timeout",
    "shape.trigger": "trigger",
    "shape.when": "when",
}
"""Where a field of the spec stands in the file."""


class ScriptUse(NamedTuple):
    """A job's script, and where the file names it."""

    job: int
    called: str
    """The job, as errors call it: by its id, or by its number if it has none that can be used."""
    name: str
    place: Place


class EnvUse(NamedTuple):
    """Files of variables, and where the pipeline names them."""

    job: int | None
    """None: they are for every job."""
    called: str
    """Whose they are, as errors say it."""
    names: tuple[str, ...]
    place: Place
    own: frozenset[str] = frozenset()
    """Variables that the job's own `env` says; they win over its files, the pipeline's do not."""


class WorkspaceWish(NamedTuple):
    """Which files travel with the run."""

    root: Path
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    alone: bool = False
    """Each script is packed alone instead of the folder (`project: false`)."""


class Pipeline:
    """What a file says: its jobs, what they need, and what is wrong with it."""

    def __init__(self, path: Path, source: Source) -> None:
        self.path = path
        self.source = source
        self.name = path.stem
        self.schedule: ScheduleSpec | None = None
        """When it is run, once `titan schedule add` has put it there."""
        self.jobs: list[JobSpec] = []
        self.scripts: list[ScriptUse] = []
        self.env_files: list[EnvUse] = []
        self.added: frozenset[str] = frozenset()
        """Variables that win over everything in the file, and in the files that it names."""
        self.approvals: dict[int, GateSection] = {}
        """What is asked behind which of the jobs, by place."""
        self.shapes: dict[str, Shape] = {}
        """By job."""
        self.matrices: dict[str, Cells] = {}
        """By job."""
        self.params: dict[str, Param] = {}
        self.values: dict[str, str] = {}
        """Of those that have one: what `bind` was given, or the default."""
        self.param_places: dict[str, Place] = {}
        self.workspace = WorkspaceWish(path.parent)
        self.findings: list[Finding] = []

    @property
    def folder(self) -> Path:
        """Where the file lies; scripts are looked for from here."""
        return self.path.parent

    def all_jobs(self) -> list[JobSpec]:
        """The jobs with the gates that they ask for."""
        return [job for _, job in self.placed(self.jobs)[0]]

    def placed(self, jobs: list[JobSpec]) -> tuple[list[tuple[int, JobSpec]], dict[str, Shape]]:
        """The jobs with gates behind those that ask for one, and cells in place of those with a matrix,
        each beside the place of the job it is from; and what the run says of them.
        """
        filled = [substituted(job, "params", self.values) for job in jobs] if self.params else jobs
        return with_cells(with_gates(filled, self.approvals), self.shapes, self.matrices)

    def absent(self) -> list[ScriptUse]:
        """The scripts of which nothing lies on this side."""
        return [use for use in self.scripts if is_absent(self.local(use.name))]

    def local(self, script: str) -> Path:
        """Where a script would lie on this side: in the packed folder, else beside the file."""
        inside = self.workspace.root / script
        return self.folder / script if is_absent(inside) else inside

    def spec(
        self,
        workspace: ArtifactRef | None,
        launches: Mapping[str, tuple[str, ArtifactRef | None]],
        environments: Mapping[int, Mapping[str, str]],
    ) -> RunSpec:
        """The run, once the bytes have names and the files of variables were read.

        Args:
            workspace: the packed folder, if it travels.
            launches: per script its path in the workspace, its artifact.
            environments: per job, by place, its whole environment, where files add to it.
        """
        jobs = list(self.jobs)
        for index, env in environments.items():
            launch = replace(jobs[index].launch, env=dict(env))
            jobs[index] = replace(jobs[index], launch=launch)
        for use in self.scripts:
            name, artifact = launches[use.name]
            job = jobs[use.job]
            launch = replace(job.launch, script=name, artifact=artifact)
            jobs[use.job] = replace(job, launch=launch)
        placed, shapes = self.placed(jobs)
        whole = tuple(job for _, job in placed)
        return RunSpec(
            name=self.name, jobs=whole, workspace=workspace, shapes=shapes, params=self.values
        )

    def bind(self, given: Mapping[str, object]) -> None:
        """Give params their values; those that are not given have their defaults.

        Raises:
            InvalidSpec: the pipeline has no such param, or it cannot have this value.
        """
        self.values = bound(self.params, given)

    def unbound(self) -> list[Finding]:
        """The params that have to be given and were not."""
        return [
            Finding(
                ERROR,
                "Y226",
                f"param {name} has no value",
                self.param_places[name],
                f"it has no default: titan run FILE -p {name}=…",
            )
            for name in self.params
            if name not in self.values
        ]

    def add_env(self, env: Mapping[str, str]) -> None:
        """Add to the environment of every job; what a job says itself gives way."""
        self.added |= env.keys()
        for index, job in enumerate(self.jobs):
            if job.kind is JobKind.GATE:
                continue
            launch = replace(job.launch, env={**job.launch.env, **env})
            self.jobs[index] = replace(job, launch=launch)

    def environment(
        self, job: int, common: Mapping[str, str], own: Mapping[str, str], said: frozenset[str]
    ) -> dict[str, str]:
        """A job's environment with what files add: level by level, `env` over `env_file`.

        Args:
            job: its place.
            common: from the files that the pipeline names for all jobs.
            own: from the files that the job names.
            said: variables that the job's own `env` says.
        """
        env = self.jobs[job].launch.env
        last = {name: value for name, value in env.items() if name in said or name in self.added}
        return {**common, **env, **own, **last}

    def check(self, more: Iterable[Finding] = ()) -> None:
        """Raise PipelineError if anything here, or in `more`, keeps it from running."""
        found = [*self.findings, *more, *self.unbound()]
        if errors(found):
            serious = [finding for finding in found if finding.severity != INFO]
            raise PipelineError(self.source, serious)


def load(path: str | os.PathLike[str]) -> Pipeline:
    """Read a pipeline file. What is wrong with it is in `findings`, nothing is raised for that.

    Raises:
        OSError: the file itself cannot be read.
    """
    shown = os.fspath(path)
    place = Path(shown)
    with place.open("rb") as file:
        raw = file.read(yamltree.FILE_BYTES_MAX + 1)
    if len(raw) > yamltree.FILE_BYTES_MAX:
        return _hopeless(place, shown, "Y100", "this file is larger than 1 MiB")
    try:
        body = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _hopeless(place, shown, "Y100", f"this file is not UTF-8 text (byte {error.start})")
    return loads(body, path=place, shown=shown)


def loads(body: str, *, path: Path, shown: str = "") -> Pipeline:
    """Read the text of a pipeline as if it were the file `path`."""
    pipeline = Pipeline(path, Source(shown or str(path), tuple(body.split("\n"))))
    try:
        tree, findings = yamltree.parse(body)
    except yamltree.UnreadableError as error:
        pipeline.findings.append(error.finding)
        return pipeline
    pipeline.findings += findings
    _Reader(pipeline).read(tree)
    return pipeline


def _hopeless(path: Path, shown: str, code: str, message: str) -> Pipeline:
    pipeline = Pipeline(path, Source(shown, ()))
    pipeline.findings.append(Finding(ERROR, code, message, _START))
    return pipeline


class _Reader:
    """One pass over the tree; everything wrong goes to the pipeline's findings."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.places: dict[str, Place] = {}
        """Where each job and key stands, by path, for what validation finds later."""
        self.unnamed: set[int] = set()
        self.whens: dict[str, yamltree.Node] = {}
        """The conditions of jobs, by path."""
        self.defaults: dict[str, Any] = {}
        self.env: dict[str, str] = {}
        self.concurrency: Concurrency | None = None

    # -- the file -----------------------------------------------------------------------------

    def read(self, tree: yamltree.Node | None) -> None:
        if tree is None:
            self._error("Y105", "this file is empty", _START, "a pipeline has a name and jobs")
            return
        if not isinstance(tree, yamltree.Mapping):
            self._error("Y102", "a pipeline is a mapping", tree.place, "name: …, jobs: […]")
            return
        known = dict.fromkeys((*ROOT_KEYS, *OLDER_KEYS))
        self._root_keys(tree, known)
        if "name" in tree.entries:
            self.places["name"] = tree.entries["name"].place
            self.pipeline.name = self._value(tree.entries["name"], _name, "") or self.pipeline.name
        if "description" in tree.entries:
            self._value(tree.entries["description"], text, "")
        if "params" in tree.entries:
            self._params(tree.entries["params"])
        self.env = self._value(tree.entries.get("env"), environment, {})
        if "env_file" in tree.entries:
            node = tree.entries["env_file"]
            names = self._value(node, files, ())
            self.pipeline.env_files.append(EnvUse(None, "env_file", names, node.place))
        if "concurrency" in tree.entries:
            self.concurrency = self._value(tree.entries["concurrency"], concurrency, None)
        if "schedule" in tree.entries:
            self._schedule(tree.entries["schedule"])
        self._versions(tree)
        self._workspace(tree)
        if "defaults" in tree.entries:
            self._defaults(tree.entries["defaults"])
        if "jobs" not in tree.entries:
            if not self._misspelt(tree, "jobs"):
                self._error(
                    "Y105", "this pipeline has no jobs", tree.place, "jobs: [{id: …, script: …}]"
                )
            return
        self._jobs(tree.entries["jobs"])
        self._handlers(tree)
        self._validate()

    def _schedule(self, node: yamltree.Node) -> None:
        from titan_sdk.scheduling import schedule  # calendars are not loaded for other files

        try:
            value = _plain(node)
            self._no_expressions(node, schedule, "")
            self.pipeline.schedule = schedule(value)
        except BadValue as error:
            code = "Y104" if isinstance(error, NotYet) else BAD_SCHEDULE
            place = _deeper(node, error.at).place
            self._error(code, f"schedule: {error.message}", place, error.hint)

    def _params(self, node: yamltree.Node) -> None:
        if not isinstance(node, yamltree.Mapping):
            hint = "params: {day: {type: date, default: today}}"
            self._error("Y102", "params is a mapping of names to what they take", node.place, hint)
            return
        if len(node.entries) > PARAMS_PER_RUN:
            message = f"{len(node.entries)} params are more than PARAMS_PER_RUN ({PARAMS_PER_RUN})"
            self._error("Y226", message, node.place)
            return
        for name, entry in node.entries.items():
            place = node.keys[name]
            try:
                param_name(name)
            except BadValue as error:
                self._error("Y226", error.message, place, error.hint)
                continue
            try:
                if isinstance(entry, yamltree.Scalar) and entry.value is None:
                    found = Param()
                else:
                    found = definition(self._with_texts(entry))
                self._no_expressions(entry, definition, "")
            except BadValue as error:
                code = "Y104" if isinstance(error, NotYet) else "Y226"
                at = _deeper(entry, error.at).place if error.at else entry.place
                self._error(code, f"param {named(name)}: {error.message}", at, error.hint)
                found = Param(default="")  # so that whatever uses it is no second mistake
            self.pipeline.params[name] = found
            self.pipeline.param_places[name] = place
        self.pipeline.values = defaults_of(self.pipeline.params)

    @staticmethod
    def _with_texts(node: yamltree.Node) -> Any:
        """A param's definition: its values as they were written, and `required` as what it is."""
        plain = _plain(node, as_text=True)
        if isinstance(node, yamltree.Mapping) and "required" in node.entries:
            plain["required"] = _plain(node.entries["required"])
        return plain

    def _root_keys(self, tree: yamltree.Mapping, known: Iterable[str]) -> None:
        for key, place in tree.keys.items():
            if key.startswith("x-") or key in known:
                continue
            self._odd_key(key, place, "", list(known), ROOT_LATER)

    def _misspelt(self, tree: yamltree.Mapping, wanted: str) -> bool:
        """Whether a wrong key of the file was already said to mean `wanted`."""
        return any(nearest(key, ROOT_KEYS) == wanted for key in tree.keys if key not in ROOT_KEYS)

    def _versions(self, tree: yamltree.Mapping) -> None:
        given = tree.entries.get("apiVersion")
        if given is not None and _plain(given) != API_VERSION:
            self._error(
                "Y107", "not a version of this format", given.place, f"apiVersion: {API_VERSION}"
            )
        older = tree.entries.get("version")
        if older is None:
            return
        if _plain(older, as_text=True) in {"1", "1.0"}:
            self._note("version", f"apiVersion: {API_VERSION}", tree.keys["version"])
        else:
            self._error(
                "Y107", "not a version of this format", older.place, "this Titan reads version 1"
            )

    def _workspace(self, tree: yamltree.Mapping) -> None:
        folder = self.pipeline.folder
        if "project" in tree.entries:
            node = tree.entries["project"]
            self._note("project", "workspace", tree.keys["project"])
            given = _plain(node)
            if given is False:
                self.pipeline.workspace = WorkspaceWish(folder, alone=True)
            elif given is not True:
                self._root_folder(node, (), ())
            if "workspace" in tree.entries:
                self._error(
                    "Y106", "project and workspace", tree.keys["workspace"], "keep workspace"
                )
                return
        node_ = tree.entries.get("workspace")
        if node_ is None:
            return
        if not isinstance(node_, yamltree.Mapping):
            self._error("Y102", "workspace is a mapping", node_.place, "workspace: {include: […]}")
            return
        for key, place in node_.keys.items():
            if key not in WORKSPACE_KEYS and not key.startswith("x-"):
                self._odd_key(key, place, " in workspace", WORKSPACE_KEYS, frozenset())
        include = self._value(node_.entries.get("include"), texts, ())
        exclude = self._value(node_.entries.get("exclude"), texts, ())
        if "root" in node_.entries:
            self._root_folder(node_.entries["root"], include, exclude)
        else:
            self.pipeline.workspace = WorkspaceWish(folder, include, exclude)

    def _root_folder(
        self, node: yamltree.Node, include: tuple[str, ...], exclude: tuple[str, ...]
    ) -> None:
        name = self._value(node, text, ".")
        root = self.pipeline.folder / os.path.expanduser(name)  # noqa: PTH111 - `~` of a text
        if not root.is_dir():
            self._error(
                "Y107", f'"{name}" is not a folder', node.place, f"seen from {self.pipeline.folder}"
            )
            return
        self.pipeline.workspace = WorkspaceWish(root, include, exclude)

    def _defaults(self, node: yamltree.Node) -> None:
        if not isinstance(node, yamltree.Mapping):
            self._error("Y102", "defaults is a mapping", node.place)
            return
        for key, place in node.keys.items():
            if key.startswith("x-"):
                continue
            if key not in DEFAULT_KEYS:
                later = LATER | (READERS.keys() - set(DEFAULT_KEYS))
                if key in READERS:
                    self._error(
                        "Y103", f'"{key}" cannot stand in defaults', place, "each job says it"
                    )
                else:
                    self._odd_key(key, place, " in defaults", DEFAULT_KEYS, frozenset(later))
                continue
            value = self._value(node.entries[key], _reader(key), None)
            if value is not None:
                self.defaults[key] = value

    # -- jobs ---------------------------------------------------------------------------------

    def _jobs(self, node: yamltree.Node) -> None:
        if isinstance(node, yamltree.Listing):
            if not node.items:
                self._error("Y105", "this pipeline has no jobs", node.place)
            for index, item in enumerate(node.items):
                self._job(index, item, None)
        elif isinstance(node, yamltree.Mapping):
            if not node.entries:
                self._error("Y105", "this pipeline has no jobs", node.place)
            for index, (name, item) in enumerate(node.entries.items()):
                self._job(index, item, yamltree.Scalar(name, name, node.keys[name]))
        else:
            self._error("Y102", "jobs is a list, or a mapping of ids to jobs", node.place)

    def _handlers(self, tree: yamltree.Mapping) -> None:
        """The jobs that come after all others, each once it is known which of these ends there are."""
        after = ends_of(self.pipeline.jobs, self.pipeline.shapes)
        for key, trigger in HANDLERS.items():
            node = tree.entries.get(key)
            if node is None:
                continue
            first = len(self.pipeline.jobs)
            if isinstance(node, yamltree.Listing) and node.items:
                for place, item in enumerate(node.items):
                    self._handler(key, first + place, item, None)
            elif isinstance(node, yamltree.Mapping) and node.entries and "id" not in node.entries:
                for place, (name, item) in enumerate(node.entries.items()):
                    key_id = yamltree.Scalar(name, name, node.keys[name])
                    self._handler(key, first + place, item, key_id)
            else:
                said = f"{key} is a list of jobs, or a mapping of ids to jobs"
                self._error("Y102", said, node.place, f"{key}: [{{id: …, run: …}}]")
                continue
            for index in range(first, len(self.pipeline.jobs)):
                job = replace(self.pipeline.jobs[index], dependencies=after)
                self.pipeline.jobs[index] = job
                if any(other.id == job.id for other in self.pipeline.jobs[:index]):
                    continue  # which is said; the trigger is not that one's
                shape = self.pipeline.shapes.get(job.id, Shape())
                self.pipeline.shapes[job.id] = replace(shape, trigger=trigger)

    def _handler(
        self, owner: str, index: int, node: yamltree.Node, key_id: yamltree.Scalar | None
    ) -> None:
        if isinstance(node, yamltree.Mapping):
            if "webhook" in node.entries:
                place = node.keys["webhook"]
                message = f'"webhook" in {owner} is not supported by this version of Titan'
                self._error("Y104", message, place, "a job can call it: run: curl …")
                self._place_holder(index)
                return
            for key, place in node.keys.items():
                if ALIASES.get(key, key) in GIVEN:
                    message = f"a job of {owner} has {key}"
                    self._error("Y106", message, place, "it comes after all others: leave it out")
        self._job(index, node, key_id)

    def _job(self, index: int, node: yamltree.Node, key_id: yamltree.Scalar | None) -> None:
        path = f"jobs[{index}]"
        self.places[path] = node.place if key_id is None else key_id.place
        if not isinstance(node, yamltree.Mapping):
            what = "a job is a mapping" if key_id is None else f"job {key_id.text} is a mapping"
            self._error("Y102", what, self.places[path], "{id: NAME, script: FILE}")
            self._place_holder(index)
            return
        entries = self._job_keys(index, node, key_id)
        called = _called(entries.get("id"), index)
        read: dict[str, Any] = {}
        bad: set[str] = set()
        for key, entry in entries.items():
            value = self._value(entry, _reader(key), None, self._where(key, called))
            self.places[f"{path}.{key}"] = entry.place
            if key == "when":
                self.whens[path] = entry
            self._item_places(f"{path}.{key}", entry)
            if value is None:
                bad.add(key)
            else:
                read[key] = value
        if "id" not in entries:
            self._error("Y105", f"job {called} has no id", node.place)
        for key, message, hint in conflicts({**dict.fromkeys(bad), **read}):
            if not (key in bad or (key == "id" and "id" not in entries)):
                place = self.places.get(f"{path}.{key}", self.places[path])
                if key == "id" and self._probably_meant(node, WAYS):
                    continue
                self._error("Y106", f"job {called} {message}", place, hint)
        self._add(index, read, entries)

    def _job_keys(
        self, index: int, node: yamltree.Mapping, key_id: yamltree.Scalar | None
    ) -> dict[str, yamltree.Node]:
        """The job's entries under their canonical names."""
        entries: dict[str, yamltree.Node] = {}
        called = _called(node.entries.get("id") if key_id is None else key_id, index)
        if key_id is not None:
            entries["id"] = key_id
        for key, entry in node.entries.items():
            place = node.keys[key]
            name = ALIASES.get(key, key)
            if name not in READERS:
                if not key.startswith("x-"):
                    self._odd_key(key, place, f" in job {called}", (*READERS, *ALIASES), LATER)
                continue
            if name != key:
                self._note(key, name, place)
            if name == "id" and key_id is not None:
                if _plain(entry, as_text=True) != key_id.text:
                    self._error("Y106", f"job {key_id.text} has another id inside", entry.place)
                continue
            if name in entries:
                self._error("Y106", f"job {called} says {name} twice", place, f"{key} means {name}")
                continue
            entries[name] = entry
        given = entries.get("type")
        if given is not None and str(_plain(given)).lower() == "run":
            self._note("type: run", "type: TASK", given.place)
        if "max_wait_seconds" in entries:
            place = node.keys["max_wait_seconds"]
            self._note("max_wait_seconds", "approval: {message: …, timeout: …}", place)
        return entries

    def _probably_meant(self, node: yamltree.Mapping, keys: tuple[str, ...]) -> bool:
        """Whether an unknown key of the job was already said to mean one of `keys`."""
        odd = (key for key in node.keys if ALIASES.get(key, key) not in READERS)
        return any(nearest(key, READERS) in keys for key in odd)

    def _add(self, index: int, read: dict[str, Any], entries: dict[str, yamltree.Node]) -> None:
        if "id" not in read:
            self.unnamed.add(index)
            read["id"] = f"job-{index + 1}"
        env = {**self.env, **self.defaults.get("env", {}), **read.get("env", {})}
        merged = {**self.defaults, **read}
        if self.concurrency is not None:
            merged[RUN_CONCURRENCY] = self.concurrency
        sort = read.get("type", JobKind.TASK)
        if sort is not JobKind.TASK:
            # What all jobs are given is not this one's mistake; a gate's timeout is its own.
            own = read if sort is JobKind.GATE else {}
            for key in FOR_TASKS:
                if key not in own:
                    merged.pop(key, None)
        if "skills" in read or "requirement" in read:
            other = "requirement" if "skills" in read else "skills"
            if other not in read:
                merged.pop(other, None)
        if env:
            merged["env"] = env
        spec = job_spec(merged)
        if read.get("env_file") and spec.kind is not JobKind.GATE:
            called = f"env_file of job {_called(entries.get('id'), index)}"
            said = frozenset(read.get("env", {}))
            place = entries["env_file"].place
            self.pipeline.env_files.append(EnvUse(index, called, read["env_file"], place, said))
        if "matrix" in read:
            self.pipeline.matrices[spec.id] = read["matrix"]
        shape = shape_of(merged)
        if shape is not None:
            self.pipeline.shapes[spec.id] = shape
        section = approval_of(merged)
        if section is not None and spec.kind is not JobKind.GATE:
            self.pipeline.approvals[index] = section
        if spec.kind is not JobKind.GATE and spec.launch.kind is LaunchKind.SCRIPT:
            called = _called(entries.get("id"), index)
            place = entries["script"].place if spec.launch.script else _START
            name = self._script_path(spec.launch.script, called, place)
            if name:
                self.pipeline.scripts.append(ScriptUse(index, called, name, place))
            # Without a usable script there is a finding; the rest of the job is still checked.
            launch = replace(spec.launch, script=name or "-")
            spec = replace(spec, launch=launch if name else replace(launch, python=""))
        self.pipeline.jobs.append(spec)

    def _script_path(self, script: str, called: str, place: Place) -> str:
        """The script's name relative to the packed folder; empty if it cannot have one."""
        if not script:
            return ""
        name = os.path.normpath(script)
        if Path(name).is_absolute() or Path(name).parts[0] == os.pardir:
            self._error(
                "Y107",
                f'script "{named(script)}" of job {called} lies outside the packed folder',
                place,
                "a path below the folder of this file",
            )
            return ""
        return name.replace(os.sep, "/")

    def _place_holder(self, index: int) -> None:
        self.unnamed.add(index)
        self.pipeline.jobs.append(job_spec({"id": f"job-{index + 1}", "script": "-"}))

    # -- the graph ----------------------------------------------------------------------------

    def _validate(self) -> None:
        if not self.pipeline.jobs:
            return
        jobs = self.pipeline.jobs
        ids = {job.id for job in jobs}
        for index in list(self.pipeline.approvals):
            message, hint = obstacle(jobs[index].id, ids)
            if message and index not in self.unnamed:
                del self.pipeline.approvals[index]
                place = self.places[f"jobs[{index}].approval"]
                self._error("Y106", f"job {jobs[index].id} {message}", place, hint)
        for one in obstacles(jobs, self.pipeline.matrices):
            place = self.places.get(f"jobs[{one.job}].{one.key}", self.places[f"jobs[{one.job}]"])
            self._error("Y225", f"job {jobs[one.job].id} {one.message}", place, one.hint)
        if any(found.code == "Y225" for found in self.pipeline.findings):
            self.pipeline.matrices.clear()  # what follows from it is no news
            return
        values = self.pipeline.values
        # What must be given and is not yet known stands for itself: it may be anything that fits.
        self.pipeline.values = {
            name: values.get(name, param.choices[0] if param.choices else SAMPLES[param.type])
            for name, param in self.pipeline.params.items()
        }
        placed, shapes = self.pipeline.placed(jobs)
        whole = RunSpec(
            name=self.pipeline.name,
            jobs=tuple(job for _, job in placed),
            shapes=shapes,
            params=self.pipeline.values,
        )
        self.pipeline.values = values
        seen: set[tuple[str, str]] = set()
        for found in problems(whole):
            problem = self._as_written(found, placed)
            if problem is not None and not self._said_already(problem, seen):
                message = problem.message.partition("; the first is jobs[")[0]
                place = self._place_of(problem)
                self._error(problem.code, message, place, self._hint(problem))

    def _as_written(self, problem: Problem, placed: list[tuple[int, JobSpec]]) -> Problem | None:
        """A problem of the whole run, with the place in the file; None if it is no news."""
        match = _JOB_PATH.match(problem.where)
        if match is None:
            return problem
        index, job = placed[int(match.group(1))]
        own = self.pipeline.jobs[index].id
        if job.id == own or (own in self.pipeline.matrices and job.kind is not JobKind.GATE):
            rest = f".{match.group(2)}" if match.group(2) else ""
            return replace(problem, where=f"jobs[{index}]{rest}")
        # A gate behind a job: two of one name come from two jobs of one name, which was said.
        if problem.code == DUPLICATE_ID:
            return None
        return replace(problem, where=f"jobs[{index}].approval")

    def _hint(self, problem: Problem) -> str:
        if problem.code == UNKNOWN_PARENT and problem.hint:
            return f'did you mean "{problem.hint.rstrip("?")}"?'
        if problem.code == DUPLICATE_ID:
            match = _JOB_PATH.match(problem.where)
            if match is not None:
                twice = self.pipeline.jobs[int(match.group(1))].id
                first = next(n for n, job in enumerate(self.pipeline.jobs) if job.id == twice)
                return f"first in line {self.places[f'jobs[{first}]'].line}"
        return problem.hint

    def _said_already(self, problem: Problem, seen: set[tuple[str, str]]) -> bool:
        match = _JOB_PATH.match(problem.where)
        if (
            match is not None
            and self.pipeline.jobs[int(match.group(1))].id in self.pipeline.matrices
        ):
            if (problem.code, problem.where) in seen:
                return True  # of one cell after the other
            seen.add((problem.code, problem.where))
        return match is not None and int(match.group(1)) in self.unnamed

    def _place_of(self, problem: Problem) -> Place:
        """Where in the file a problem of the spec stands, as near as it goes."""
        match = _JOB_PATH.match(problem.where)
        if match is None:
            return self.places.get(problem.where, _START)
        job, field = f"jobs[{match.group(1)}]", match.group(2) or ""
        if field.startswith("shape.when["):
            offset = int(field.removeprefix("shape.when[").rstrip("]"))
            return self._inside(self.whens[job], offset)
        while field:
            bare, bracket, rest = field.partition("[")
            name = _FIELDS.get(bare, bare.removeprefix("launch."))
            for candidate in (f"{job}.{name}{bracket}{rest}", f"{job}.{name}"):
                if candidate in self.places:
                    return self.places[candidate]
            field = bare.rpartition(".")[0]
        return self.places.get(job, _START)

    def _item_places(self, path: str, node: yamltree.Node) -> None:
        if isinstance(node, yamltree.Listing):
            for index, item in enumerate(node.items):
                self.places[f"{path}[{index}]"] = item.place
        elif isinstance(node, yamltree.Mapping):
            for key, item in node.entries.items():
                self.places[f"{path}.{key}"] = item.place

    # -- values -------------------------------------------------------------------------------

    def _value(self, node: yamltree.Node | None, read: Any, default: Any, where: str = "") -> Any:
        """The node's value as `read` takes it; `default`, and a finding, if it does not."""
        if node is None:
            return default
        if isinstance(node, yamltree.Listing) and read in _LISTS:
            return self._items(node, read, where)
        try:
            value = _plain(node, as_text=read not in _TYPED)
            self._no_expressions(node, read, where)
            return read(value)
        except BadValue as error:
            code = "Y202" if read is job_id else "Y107"
            if isinstance(error, NotYet):
                code = "Y104"
            place = self._inside(_deeper(node, error.at), error.offset)
            self._error(code, f"{where}{error.message}", place, error.hint)
            return default

    def _inside(self, node: yamltree.Node, offset: int) -> Place:
        """The place of the character of a text with so many before it; of the text, where it is broken
        over lines or written otherwise than it reads.
        """
        if not offset or not isinstance(node, yamltree.Scalar):
            return node.place
        line, column, _ = node.place
        lines = self.pipeline.source.lines
        start = lines[line - 1].find(node.text, column - 1) if line <= len(lines) else -1
        return node.place if start < 0 else Place(line, start + offset + 1)

    def _items(self, node: yamltree.Listing, read: Any, where: str) -> tuple[str, ...] | None:
        """A list item by item, so that each bad one is said and the good ones still count."""
        items: list[str] = []
        for item in node.items:
            alone = yamltree.Listing([item], item.place)
            try:
                self._no_expressions(item, read, where)
                items += read(_plain(alone, as_text=True))
            except BadValue as error:
                code = "Y104" if isinstance(error, NotYet) else "Y107"
                place = _deeper(alone, error.at).place
                self._error(code, f"{where}{error.message}", place, error.hint)
        return tuple(items)

    @staticmethod
    def _where(key: str, called: Any) -> str:
        return f"{key} of job {called}: " if key != "id" else ""

    @staticmethod
    def _no_expressions(node: yamltree.Node, read: Any, where: str) -> None:
        """Where nothing is filled in, `${{ … }}` would reach the job as those very characters.

        What is said for all jobs has none but params: no job comes after all others.
        """
        if where and read in _FILLED_IN:
            return  # of which form they are, and what they name, is asked of the whole run
        if read is environment or (where and read in _BY_CELL):
            by_cell = outputs.KNOWN_AT_SUBMISSION
            known = by_cell if where else outputs.EXPRESSION_OF["params"]
            left = [known.sub("", scalar.text) for scalar in yamltree.walk(node)]
            if not any(outputs.OPENING in text for text in left):
                return
        for scalar in yamltree.walk(node):
            if "${{" in scalar.text:
                raise NotYet("an expression ${{ … }} here")

    def _odd_key(
        self, key: str, place: Place, where: str, known: Iterable[str], later: frozenset[str]
    ) -> None:
        if key in later:
            message = f'"{key}"{where} is not supported by this version of Titan'
            self._error("Y104", message, place)
            return
        meant = nearest(key, known)
        if meant:
            hint = f'did you mean "{meant}"?'
        elif designed := nearest(key, later):
            hint = f'did you mean "{designed}"? This version of Titan does not have it'
        else:
            hint = f"known are {', '.join(known)}"
        self._error("Y103", f'unknown key "{key}"{where}', place, hint)

    def _error(self, code: str, message: str, place: Place, hint: str = "") -> None:
        self.pipeline.findings.append(Finding(ERROR, code, message, place, hint))

    def _note(self, alias: str, name: str, place: Place) -> None:
        message = f'"{alias}" is another spelling of "{name}"'
        self.pipeline.findings.append(Finding(INFO, "Y108", message, place))


def _called(named: yamltree.Node | None, index: int) -> str:
    """How errors call a job: by its id, or by its number where it has none that can be used."""
    if isinstance(named, yamltree.Scalar) and is_job_id(named.text):
        return named.text
    return f"number {index + 1}"


def _reader(key: str) -> Any:
    return READERS[key]


def _name(value: object) -> str:
    name = text(value)
    if len(name) > NAME_CHARS:
        raise BadValue(f"a name of {len(name)} characters", f"at most {NAME_CHARS}")
    return name


def _plain(node: yamltree.Node, *, as_text: bool = False) -> Any:
    """A node as plain Python. `as_text`: numbers stay as they were written (1.10 is not 1.1)."""
    if isinstance(node, yamltree.Scalar):
        return node.text if as_text and node.value is not None else node.value
    if isinstance(node, yamltree.Listing):
        return [_plain(item, as_text=as_text) for item in node.items]
    return {key: _plain(entry, as_text=as_text) for key, entry in node.entries.items()}


def _deeper(node: yamltree.Node, at: tuple[int | str, ...]) -> yamltree.Node:
    for step in at:
        if isinstance(node, yamltree.Listing) and isinstance(step, int):
            node = node.items[step]
        elif isinstance(node, yamltree.Mapping) and isinstance(step, str) and step in node.entries:
            node = node.entries[step]
    return node
