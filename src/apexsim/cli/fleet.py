"""The command `fleet`: replicas over the time of a trace (floor 7)."""

from __future__ import annotations

from typing import Any

from apexsim.cli.options import Model, checked, question, with_options
from apexsim.cli.outside import Progress
from apexsim.cli.rows import FOLLOWED, WORKERS
from apexsim.cli.telling import tell

OWN = tuple(opt.name for opt in (*FOLLOWED, *WORKERS))
FLEET_HELP = """Replicas over time: how many GPUs each interval of a trace needs, and what following the load costs and misses.

A replica is the plan that serves most for its rent within the limits; --gpus are those of one replica (default: the best of 1, 2, 4, 8).
Several GPUs with commas: also the cheapest mix of them behind one router.

Each interval is simulated with its own requests; policies that cannot see what comes ask for replicas and wait until they have started.

Examples:

  apexsim fleet llama-3.1-8b --gpu l4 --trace examples/azure_conversation.csv --every 5min --ttft 1s --tpot 60ms

  apexsim fleet llama-3.1-8b --gpu l4,l40s --trace examples/azure_conversation.csv --every 5min --ttft 2s

  apexsim fleet llama-3.1-8b --gpu l40s:1 --trace examples/azure_conversation.csv --every 1min --goodput ttft:1s --policy reactive,fixed
"""


@with_options("fleet")
def fleet(model: Model, **given: Any) -> None:
    """Replicas over the time of a trace."""
    from apexsim.search.follow import fleet as followed

    given = checked("fleet", given)
    with Progress() as progress:
        found = followed(model, **question(given), **{name: given[name] for name in OWN}, progress=progress)
    tell(found, given)


HELP = {"fleet": FLEET_HELP}
RUN = {"fleet": fleet}
