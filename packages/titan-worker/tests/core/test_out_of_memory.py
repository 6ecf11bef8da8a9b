"""An attempt that the kernel ended for its memory says so, and nobody else does."""

import pytest
from msgspec.structs import replace

from titan_proto.messages import AttemptReports
from titan_proto.specs import Resources, RestartPolicy, RestartWhen
from titan_proto.states import AttemptState, ExitReason
from titan_worker.core.effects import Send


def order(world, **fields):
    found = world.order("a", **fields)
    limits = Resources(memory_bytes=64 * 1024**2)
    spec = replace(found.spec, launch=replace(found.spec.launch, resources=limits))
    return replace(found, spec=spec)


def end(turn):
    (report,) = [
        report
        for effect in turn.effects
        if isinstance(effect, Send) and isinstance(effect.message, AttemptReports)
        for report in effect.message.reports
        if report.state is AttemptState.ENDED
    ]
    return report


@pytest.mark.parametrize(("code", "signal"), [(0, 9), (137, 0)])
def test_what_was_ended_for_its_memory_says_so_with_its_limit(world, code, signal):
    """Also where it is a shell that ends by itself, after what it had started was ended."""
    world.running_jobs(order(world))

    report = end(world.turn(world.exited("a", code, signal, oom_killed=True)))

    assert (report.reason, report.exit_code, report.signal) == (
        ExitReason.OOM_KILLED,
        code,
        signal,
    )
    assert report.message == "its limit is 64 MiB (resources.memory)"


def test_one_that_coped_with_it_has_done_well(world):
    world.running_jobs(order(world))

    report = end(world.turn(world.exited("a", 0, oom_killed=True)))

    assert (report.reason, report.exit_code) == (ExitReason.EXITED, 0)


def test_one_that_was_told_to_stop_was_stopped(world):
    world.running_jobs(order(world))
    world.turn(world.stop("a"))

    report = end(world.turn(world.exited("a", 0, 9, oom_killed=True)))

    assert (report.reason, report.message) == (ExitReason.CANCELLED, "")


def test_a_service_that_comes_to_it_again_and_again_says_what_it_was(world):
    policy = RestartPolicy(when=RestartWhen.ALWAYS, max=0)
    never = order(world, service=0, restart=policy)
    world.running_jobs(never)

    report = end(world.turn(world.exited("a", 0, 9, oom_killed=True)))

    assert report.reason is ExitReason.OOM_KILLED
    assert "64 MiB" in report.message
