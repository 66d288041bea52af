"""The command `fleet`: replicas over the time of a trace (floor 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apexsim.cli.files import SEVERAL
from apexsim.cli.options import Model, checked, question, with_options
from apexsim.cli.outside import Progress
from apexsim.cli.rows import FOLLOWED, WORKERS
from apexsim.cli.telling import tell

if TYPE_CHECKING:
    from apexsim.search.together import SharedFleet

OWN = tuple(opt.name for opt in (*FOLLOWED, *WORKERS))
FLEET_HELP = """Replicas over time: how many GPUs each interval of a trace needs, and what following the load costs and misses.

A replica is the plan that serves most for its rent within the limits; --gpus are those of one replica (default: the best of 1, 2, 4, 8).
Several GPUs with commas: also the cheapest mix of them behind one router.

Each interval is simulated with its own requests; policies that cannot see what comes ask for replicas and wait until they have started.

Several models that share one cluster: a .toml file in MODEL's place, with a table for each (docs/fleet.md); --gpus are then those of the
cluster, all else is what a table does not say.

Examples:

  apexsim fleet llama-3.1-8b --gpu l4 --trace examples/azure_conversation.csv --every 5min --ttft 1s --tpot 60ms

  apexsim fleet llama-3.1-8b --gpu l4,l40s --trace examples/azure_conversation.csv --every 5min --ttft 2s

  apexsim fleet llama-3.1-8b --gpu l40s:1 --trace examples/azure_conversation.csv --every 1min --goodput ttft:1s --policy reactive,fixed

  apexsim fleet examples/fleet.toml --gpu l40s --gpus 3 --every 1min
"""


@with_options("fleet")
def fleet(model: Model, **given: Any) -> None:
    """Replicas over the time of a trace."""
    from apexsim.search.follow import fleet as followed

    given = checked("fleet", given)
    if model.lower().endswith(SEVERAL):
        return tell(_shared(model, given), given)
    with Progress() as progress:
        found = followed(model, **question(given), **{name: given[name] for name in OWN}, progress=progress)
    tell(found, given)


def _shared(path: str, given: dict[str, Any]) -> SharedFleet:
    """Several models on one cluster."""
    from apexsim.api import defaults
    from apexsim.cli.models_file import tenants_typed
    from apexsim.search.together import together

    asks = tenants_typed(path, given)
    whole = {name: given[name] for name in ("gpu", "gpus", "nodes", "every", "policy")}
    typed = {name: value for name, value in question(given).items() if value and value != defaults().get(name)} | whole | {"models": path}
    with Progress() as progress:
        return together(asks, **whole, inputs=typed, progress=progress, workers=given["workers"], ray=given["ray"])


HELP = {"fleet": FLEET_HELP}
RUN = {"fleet": fleet}
