"""Run: the handle of a submitted run.

Decides nothing and holds nothing but the run's names: every question goes to the master anew.
Made by `TitanClient.submit`, `run_file` and `run`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, overload

from titan_proto.states import JobState, RunState
from titan_sdk.errors import RunFailed
from titan_sdk.reasons import how_ended

if TYPE_CHECKING:
    from titan_proto.messages import JobChange, JobView
    from titan_sdk.client import TitanClient
    from titan_sdk.loglines import LogLine, Since

_FAILED_SHOWN = 3


class Run:
    """A run, by its id and its alias."""

    def __init__(
        self,
        client: TitanClient,
        run_id: str,
        alias: str,
        skills: Mapping[str, tuple[str, ...]] | None = None,
        notices: tuple[str, ...] = (),
    ) -> None:
        self._client = client
        self.id = run_id
        self.alias = alias
        self.skills: Mapping[str, tuple[str, ...]] = skills or {}
        """What its jobs need beyond the ordinary, where this client submitted it."""
        self.notices = notices
        """What the master said of the files that came along, where this client submitted it."""

    def wait(self, timeout: float | None = None, *, check: bool = False) -> str:
        """Wait for the end and return the final state.

        Raises:
            Timeout: it had not ended after `timeout` seconds; it goes on.
            RunFailed: with `check`, if it is FAILED or CANCELLED.
        """
        view = self._client.wait(self, timeout)
        if check and view.state is not RunState.SUCCEEDED:
            raise RunFailed(self.alias, view.state.value, self._why())
        return view.state.value

    def status(self) -> str:
        """The run's state: ACTIVE, SUCCEEDED, FAILED or CANCELLED."""
        return self._client.view(self.id).state.value

    def jobs(self) -> list[JobView]:
        """Its jobs as they stand, in the order of the submission."""
        return self._client.jobs(self.id)

    def outputs(self, job: str) -> dict[str, str]:
        """The small values that a job left for others; empty before it has succeeded.

        A job that was taken over from the run that this one repeats has those that it left there.
        """
        return dict(self._client.job(job, run=self).outputs)

    def rerun(self, *, failed: bool = False, from_job: str = "") -> Run:
        """Run it again once it has ended; see `TitanClient.rerun`."""
        return self._client.rerun(self.id, failed=failed, from_job=from_job)

    def cancel(self) -> str:
        """End it: nothing new starts, what runs is stopped. Returns the state then."""
        return self._client.cancel(self.id).state.value

    def changes(self) -> Iterator[JobChange]:
        """Every job's present state, then each change, to the end."""
        return self._client.watch(self.id)

    @overload
    def logs(
        self,
        job: str | None = None,
        *,
        follow: Literal[False] = False,
        stream: str = "both",
        attempt: int = 0,
        lines: int = 0,
        since: Since = None,
        grep: str | None = None,
    ) -> str: ...
    @overload
    def logs(
        self,
        job: str | None = None,
        *,
        follow: Literal[True],
        stream: str = "both",
        attempt: int = 0,
        lines: int = 0,
        since: Since = None,
        grep: str | None = None,
    ) -> Iterator[str]: ...
    @overload
    def logs(
        self,
        job: str | None = None,
        *,
        follow: bool,
        stream: str = "both",
        attempt: int = 0,
        lines: int = 0,
        since: Since = None,
        grep: str | None = None,
    ) -> str | Iterator[str]: ...

    def logs(
        self,
        job: str | None = None,
        *,
        follow: bool = False,
        stream: str = "both",
        attempt: int = 0,
        lines: int = 0,
        since: Since = None,
        grep: str | None = None,
    ) -> str | Iterator[str]:
        """What a job (or each one, in order) has printed so far.

        With `follow` its lines as they come, to the end. Where the run has several jobs and none
        is named, each line begins with its job's id. Which lines: see `TitanClient.log_lines`.
        """
        from titan_sdk.following import follow_lines, logs_so_far
        from titan_sdk.loglines import make_wanted, text_of

        wanted = make_wanted(stream, attempt=attempt, lines=lines, since=since, grep=grep)
        if not follow:
            return logs_so_far(self._client, self.id, job, wanted)
        many = job is None and self._client.view(self.id).jobs > 1
        found = follow_lines(self._client, self.id, job, wanted)
        return (
            f"{line.job} | {text_of(line.data)}" if many else text_of(line.data) for line in found
        )

    def log_lines(
        self,
        job: str | None = None,
        *,
        follow: bool = False,
        stream: str = "both",
        attempt: int = 0,
        lines: int = 0,
        since: Since = None,
        grep: str | None = None,
    ) -> Iterator[LogLine]:
        """The lines of a job, or of all, each with its job, its output, its place and its time.

        With `follow` as they come, to the end of the job or the run. Which lines: see
        `TitanClient.log_lines`; of several jobs what is asked for is asked of each.
        """
        from titan_sdk.following import follow_lines, lines_so_far
        from titan_sdk.loglines import as_log_line, make_wanted

        wanted = make_wanted(stream, attempt=attempt, lines=lines, since=since, grep=grep)
        read = follow_lines if follow else lines_so_far
        return map(as_log_line, read(self._client, self.id, job, wanted))

    def _why(self) -> str:
        """The first failures, in words."""
        failed = [job for job in self.jobs() if job.state is JobState.FAILED]
        said = [f"{job.job_id} failed ({how_ended(job)})" for job in failed[:_FAILED_SHOWN]]
        if len(failed) > _FAILED_SHOWN:
            said.append(f"{len(failed) - _FAILED_SHOWN} more failed")
        return ", ".join(said)

    def __repr__(self) -> str:
        return f"Run(id={self.id!r}, alias={self.alias!r})"
