"""What an engine can be started with, and which other one could (floor 5)."""

from __future__ import annotations

from apexsim.engines import load_engine, servers
from apexsim.plan.limits import unstartable
from apexsim.plan.plan import Plan
from apexsim.search.setting import Setting


def has_server(setting: Setting) -> bool:
    """Whether the engine is one that runs; policies of papers only batch."""
    return setting.engine.has_server


def blocked(setting: Setting, plan: Plan) -> str:
    """Why the chosen engine cannot be started with a plan; "" when it can."""
    if not has_server(setting):
        return f"{setting.engine.name} is a batching policy without a server of its own"
    return unstartable(setting.model, plan, setting.cluster, setting.engine)


def others(setting: Setting, plan: Plan) -> tuple[str, ...]:
    """Engines that could be started with a plan, the chosen one aside."""
    where = (setting.model, plan, setting.cluster)
    rows = (load_engine(name) for name in servers() if name != setting.engine.server.name)
    return tuple(row.name for row in rows if not unstartable(*where, row))
