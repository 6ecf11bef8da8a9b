"""Services: what is up, where, and how well it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from titan_dashboard.pages import Look, Page, Query
from titan_proto.messages import ListServices

_ENDED: Final = 30


def services(look: Look, args: Mapping[str, str], query: Query) -> dict[str, Any]:
    """Every service that is wanted, and those that ended last."""
    del args, query
    up = look.ask(ListServices()).services
    all_of_them = look.kept(ListServices(ended=True, limit=_ENDED), 1.0).services
    names = {(one.run_id, one.job_id) for one in up}
    return {
        "up": up,
        "ended": [
            one for one in all_of_them if one.ended_at_ms and (one.run_id, one.job_id) not in names
        ][:_ENDED],
        "role": look.who.role,
    }


PAGES: Final = {
    "services": Page(template="services.html", make=services, parts=("services",)),
}
