"""What an engine can be started with, and which other one could (floor 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from apexsim.engine_file import order
from apexsim.engines import EngineRow, engine_versions, load_engine, newest_version, servers
from apexsim.plan.limits import unstartable
from apexsim.plan.split import AnyPlan, Split, pools_of
from apexsim.plan.splits import straddles, unsplittable
from apexsim.search.setting import Setting


def has_server(setting: Setting) -> bool:
    """Whether the engine is one that runs; policies of papers only batch."""
    return setting.engine.has_server


def blocked(setting: Setting, plan: AnyPlan) -> str:
    """Why the chosen engine cannot be started with a plan; "" when it can."""
    if not has_server(setting):
        return f"{setting.engine.name} is a batching policy without a server of its own"
    return _unstartable(setting, plan, lambda own: own.engine)


def _unstartable(setting: Setting, plan: AnyPlan, row_of: Callable[[Setting], EngineRow]) -> str:
    """Why an engine cannot be started with each pool of a plan, or cannot hand over from one to the other."""
    settings = setting.of(plan)
    whys = [unstartable(setting.model, pool, own.cluster, row_of(own)) for own, pool in zip(settings, pools_of(plan))]
    if isinstance(plan, Split):
        whys.append(straddles(plan, setting.cluster))
        whys.append(unsplittable(setting.model, plan, row_of(settings[0]), row_of(settings[-1]), setting.connector))
    return next(filter(None, whys), "")


def others(setting: Setting, plan: AnyPlan) -> tuple[str, ...]:
    """Engines that could be started with a plan, the chosen one aside; where there are none, another release of that, the newest."""
    rows = (load_engine(name) for name in servers() if name != setting.engine.server.name)
    found = tuple(row.name for row in rows if not _unstartable(setting, plan, partial(_always, row)))
    return found or tuple(islice(_releases(setting, plan), 1))


def _releases(setting: Setting, plan: AnyPlan) -> Iterator[str]:
    """Releases of the chosen engine that could be started with a plan, the newest first."""
    name, server = setting.engine.server.name, setting.engine.server
    changes = {*engine_versions(name), *(word.since for word in server.words if word.since), newest_version(name)}
    for version in sorted(changes, key=order, reverse=True):
        if not _unstartable(setting, plan, partial(_always, load_engine(f"{name}@{version}"))):
            yield f"{name}@{version}"


def _always(row: EngineRow, setting: Setting) -> EngineRow:
    return row
