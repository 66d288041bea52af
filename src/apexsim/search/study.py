"""The result record: everything that renderers see (floor 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apexsim.errors import Rejected
from apexsim.search import least
from apexsim.search.assess import Assessed
from apexsim.search.error import comparison_error, error_of
from apexsim.search.goal import Goal
from apexsim.search.setting import Setting
from apexsim.views import Shown, view

FORMAT = "apexsim.study/2"


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the funnel: what happened to how many plans, with one example."""

    name: str
    count: int
    example: str = ""


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of the question after which a plan keeps limits and load, as was simulated."""

    words: str  # 16 × h100-sxm
    shorthand: str
    changes: Mapping[str, Any]  # keywords of the question


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """A plan under one load.  load: requests/s or users; served [requests/s]; goodput: of them those within their own limits, NaN without;
    ttft, tpot: p95 [s]; e2e: mean [s]; pace: tokens/s of a user, 1/TPOT median; per_gpu: tokens/s of prompts and outputs; keeps: every
    limit on the run."""

    load: float
    served: float
    goodput: float
    ttft: float
    tpot: float
    e2e: float
    pace: float
    per_gpu: float
    keeps: bool
    saturated: bool


@dataclass(frozen=True, slots=True)
class LoadCurve:
    """A plan under rising loads (`search.curve`).  closed: loads are users; knee: a place in `loads`, −1 without one; half: relative half
    width of the 68 % interval, by metric."""

    label: str
    closed: bool
    loads: tuple[LoadPoint, ...]
    knee: int
    half: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SettingMove:
    """A setting of the engine that is worth changing: from one value to another, why, and the run without and with it."""

    name: str
    before: float
    after: float
    why: str
    without: Assessed
    found: Assessed


@dataclass(frozen=True, slots=True)
class Tuned:
    """The engine's settings walked around a plan (`search.tune`).  start: the run with the settings of the question; apart: settings that
    were walked and are worth no change; tried: combinations simulated."""

    setting: Setting
    run: Assessed
    start: Assessed
    moves: tuple[SettingMove, ...]
    apart: tuple[str, ...]
    tried: int


@dataclass(frozen=True, slots=True)
class Turn:
    """A change of one thing and the plan that then wins by more than a tie, how many times better by the objective, and why, where
    something else decides; "" where up to this factor none does."""

    what: str
    factor: float
    winner: str = ""
    gain: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """The same requests with prompts, or at a load, of `factor` times what was asked: how many times better the best plan of two pools is
    than the best of one; NaN where neither can be run, 0 or infinity where only one of them keeps limits and load."""

    axis: str  # prompt or load
    factor: float
    gain: float
    apart: str  # their names
    together: str


@dataclass(frozen=True, slots=True)
class Worth:
    """The best plan of two pools beside the best of one, and how they compare elsewhere."""

    apart: Assessed
    together: Assessed
    points: tuple[Compared, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Study(Shown):
    """A question and its answer.

    ranked: what the engine can be started with, best first; the rest, as well simulated, is `hypothetical`, or stands in
    `ranked` too where that was asked for.  Of a policy without a server everything is ranked and nothing can be started.
    """

    setting: Setting
    goal: Goal
    funnel: tuple[Step, ...]
    ranked: tuple[Assessed, ...]
    rejected: tuple[Rejected, ...]
    heuristic: str
    heuristic_note: str
    notes: tuple[str, ...]
    inputs: dict[str, Any] = field(default_factory=dict)
    interrupted: tuple[int, int] | None = None  # plans looked at, of how many, where the user stopped the search
    hypothetical: tuple[Assessed, ...] = ()  # simulated plans that the engine cannot be started with and that are not ranked
    remedies: tuple[Remedy, ...] = ()  # what would help, where the first plan does not keep limits and load …
    tried: tuple[str, ...] = ()  # … and what does not
    curves: tuple[LoadCurve, ...] = ()  # against the load, where a picture needs them
    before: Mapping[str, Any] | None = None  # the JSON of an earlier answer, to hold this one against
    turns: tuple[Turn, ...] = ()  # what would change the winner, where that was asked for
    tuned: Tuned | None = None  # the engine's settings, where that was asked for
    worth: Worth | None = None  # what two pools are worth, where plans of both kinds are ranked

    @property
    def error(self) -> tuple[float, float]:
        """Relative half-width of the error bar of the first plan's objective, and of a comparison of two plans."""
        name = self.goal.objective.name
        return error_of(name, self.setting, self.ranked[0].account), comparison_error(name)

    @property
    def beaten(self) -> int:
        """Layouts that the engine cannot be started with and that were not simulated, since one sequence alone takes longer on them than
        the best plan's objective."""
        return sum(one.rule == least.RULE for one in self.rejected)

    @property
    def single(self) -> bool:
        """Whether one plan was asked for, which stands first, with the heuristic one beside it."""
        return "plan" in self.inputs

    @property
    def best(self) -> Assessed | None:
        """The best plan that the engine can be started with."""
        return next((r for r in self.ranked if not r.blocked), None)

    @property
    def keeps(self) -> bool:
        """Whether the first plan keeps every limit."""
        return self.ranked[0].keeps

    def requests(self) -> Any:
        """Every request under the first plan, in columns: lengths, when it was sent, begun, answered and done, and by which replica."""
        return view("requests", self)

    def steps(self) -> Any:
        """The batches of the first plan's run, in columns, ascending in time: a pandas DataFrame where pandas is installed, else a dict of
        arrays [m].

        start_s: s from the first moment of the trace; duration_s: s until the next of the replica, with the time in which it waits for
        requests; replica: which one, from 0; sequences: that decode in it; prompt_tokens: tokens of prompts in it, of all lanes; kv_blocks:
        taken; kv_share: of all blocks of the replica.  Batches of nothing but the same decodes are one row.  Of a run of more than 2,048
        batches it is an even sample; `simulate(…, steps=True)` keeps up to a million.
        """
        return view("steps", self)


class Interrupted(KeyboardInterrupt):
    """The user stopped a search; `study` ranks the plans that were done by then."""

    def __init__(self, study: Study) -> None:
        self.study = study
        super().__init__("after {} of {} plans".format(*(study.interrupted or ())))
