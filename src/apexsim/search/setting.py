"""Everything of a question but the plan, and the one place where it is put together (floor 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from apexsim.calibrate.profile import Profile
from apexsim.clock import at_clock
from apexsim.cost.load import ExpertLoad
from apexsim.cost.power import ServerPower, power_law
from apexsim.cost.price import USUAL, Pricer, pricer_for
from apexsim.drafting import Acceptance, Drafting, acceptance_for
from apexsim.engine.kernel import NOTED
from apexsim.engines import EngineRow
from apexsim.hardware import Cluster
from apexsim.model.model import Model
from apexsim.offload import Tier
from apexsim.plan.plan import Plan
from apexsim.plan.split import AnyPlan
from apexsim.workload.trace import Workload

ROUTES = ("round-robin", "least-outstanding", "power-of-two", "least-waiting", "cache-aware", "prefix-hash", "llm-d", "dynamo", "session",
          "session-hash")  # in the order of engine.types  # fmt: skip
READ = {"least-waiting": 0.1}  # s, age of what a router knows where none is asked for: vLLM's statistics (v1/engine/core_client.py)
PENALTY = 18.0  # s, MaxTTFTPenaltyMs of llm-d's prefixcacheaffinity filter, its default at 066c20ea (5 before)
EXPLORE = 0.0  # share of requests, explorationProbability, its default there (0.01 before)
CLOCKED = 64  # pricers at other clocks that are remembered


@dataclass(frozen=True, slots=True)
class Router:
    """How replicas share the requests.  name: one of ROUTES; age: what it knows of them is read anew every so many
    seconds, NaN as usual; penalty: llm-d leaves a replica that has the prompt where it is so many seconds behind."""

    name: str = "round-robin"
    age: float = math.nan
    penalty: float = PENALTY
    explore: float = EXPLORE

    @property
    def look(self) -> float:
        """Seconds from one look at the replicas to the next, 0: one for each request."""
        return READ.get(self.name, 0.0) if math.isnan(self.age) else self.age


IN_TURN = Router()


@dataclass(frozen=True, slots=True)
class Decider:
    """Which prompts decode servers compute themselves: of which they lack fewer than `tokens` and less than `share`; and all while their
    prefill server has more than `busy` of its largest step to compute.  Nothing is near enough where all are as they are here."""

    tokens: int = 0
    share: float = math.inf
    busy: float = math.inf


FAR = Decider()  # the prefill pool computes every prompt


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything but the plan.  `engine` is settled; `max_model_len` [tokens] bounds a request."""

    model: Model
    cluster: Cluster
    engine: EngineRow
    workload: Workload
    pricer: Pricer
    max_model_len: int
    router: Router = IN_TURN
    offload: tuple[Tier, ...] = ()  # tiers behind the KV cache of each server
    image_patches: int = 0  # patches of each image, and images of each request
    images: int = 0
    price: tuple[float, str] = (math.nan, "")  # of one GPU [$/h], and whose it is
    server: ServerPower = field(default_factory=lambda: power_law()[1])  # what surrounds the GPUs
    length_given: bool = False  # the user named max_model_len; else it is the longest request, rounded up
    acceptance: Acceptance | None = None  # of drafts, as the user says; None: what is known of the model
    profile: Profile | None = None  # what the user's own runs said; its factors are in pricer and engine already
    connector: str = ""  # what carries the cache between pools; "": the engine's own choice
    decider: Decider = FAR  # which prompts stay in the pool that makes the tokens
    noted: int = NOTED  # batches that a run keeps
    pools: tuple[Setting, ...] = ()  # of plans of two pools: prefill and decode, each with GPUs and engine settings of its own

    def accepts(self, draft: Drafting) -> Acceptance:
        """How many of a plan's drafts are accepted, and who says so."""
        return self.acceptance or acceptance_for(self.engine.name, self.model.name, draft)

    def at(self, clock: int) -> Setting:
        """The setting in which plans of this SM clock [MHz] run; 0 is the GPUs' own."""
        if not clock:
            return self
        pricer = _slowed(self.pricer, clock)
        return replace(self, cluster=pricer.cluster, pricer=pricer)

    def of(self, plan: AnyPlan) -> tuple[Setting, ...]:
        """The setting of each pool of a plan; the workload is the question's."""
        if isinstance(plan, Plan):
            return (self,)
        return tuple(replace(pool, workload=self.workload) for pool in (self.pools or (self, self)))


def setting_of(
    model: Model, cluster: Cluster, engine: EngineRow, workload: Workload, max_model_len: int, *, load: ExpertLoad = USUAL, **more: Any
) -> Setting:
    """The setting with the prices of its cluster and engine; more: fields of `Setting` that have a default."""
    return Setting(model, cluster, engine, workload, pricer_for(engine, cluster, load), max_model_len, **more)


def calibrated(setting: Setting, profile: Profile) -> Setting:
    """A setting that has not been calibrated, with the factors of a profile."""
    found = profile.factors
    return replace(setting, pricer=setting.pricer.scaled(found), engine=found.on_host(setting.engine), profile=profile)


@lru_cache(maxsize=CLOCKED)
def _slowed(pricer: Pricer, clock: int) -> Pricer:
    """The same on GPUs at another SM clock [MHz], made once for all plans."""
    return pricer.on(replace(pricer.cluster, gpu=at_clock(pricer.cluster.gpu, clock)))
