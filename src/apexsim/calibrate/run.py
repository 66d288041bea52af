"""Calibrate: read results, fit factors, judge them on held-back runs, and say what to measure next (floor 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apexsim import api
from apexsim.calibrate.bench import bench_line
from apexsim.calibrate.corners import Shape, designed, missing
from apexsim.calibrate.fit import NAMES, CalibrationFit, fit, told_by
from apexsim.calibrate.gather import Gathered, RunsWanted, gather
from apexsim.calibrate.points import STATS, Key, RunPoint
from apexsim.calibrate.profile import Profile, left_of, save
from apexsim.cost.factors import Factors
from apexsim.errors import InputError, Rejected, nearest
from apexsim.plan.limits import started
from apexsim.plan.plan import Plan, parse_plan
from apexsim.plan.space import heuristic_plan
from apexsim.search.error import rest_of, system_of
from apexsim.search.setting import Setting
from apexsim.views import Shown

FORMAT = "apexsim.calibration/1"
USUAL = (0.6, 1.6)  # factors beyond these point at something else than scatter
KINDS = {"ttft": ("ttft",), "tpot": ("tpot", "itl"), "e2e": ("e2e", "throughput", "tpot", "itl"), "power": ("power",)}  # doubts -> metrics
MEANS = {  # factor -> what it usually means below and above the usual
    "decode": ("weights or cache are in a narrower format than asked, or drafts are verified (speculative decoding)",
               "a power or clock limit, a slower card of the same name, CUDA graphs off, or another format or kernel build than asked"),
    "prefill": ("prompts were found in the prefix cache, or are computed in a narrower format than asked",
                "another attention backend or weight format than asked, or a power limit"),
    "launch": ("a newer release that overlaps host and GPU, or graphs of prompt steps",
               "a slow or shared CPU, a client on the server's cores, a slow tokeniser, or --enforce-eager"),
    "kv": ("another memory fraction, or other programs on the GPU", "another memory fraction, or a narrower cache format than asked"),
    "power": ("a power limit", "power of the whole server instead of its GPUs"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of one metric over runs that were held back, before and after: log(predicted / measured)."""

    metric: str
    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Calibration(Shown):
    """What result files said.

    found: log factors, what they leave open, errors of each run; scores: by metric; profile: what is kept; wanted: designed runs that are
    missing, with the commands that measure them.
    """

    gathered: Gathered
    found: CalibrationFit
    scores: tuple[Score, ...]
    profile: Profile
    wanted: tuple[tuple[Shape, str], ...]

    @property
    def factors(self) -> Factors:
        """The factors."""
        return self.profile.factors

    @property
    def told(self) -> dict[str, bool]:
        """Which factors the runs told; the others stay near 1 for want of them."""
        own = dict(zip(NAMES, told_by(self.found.sd)))
        return own | {"kv": self.factors.kv != 1.0, "power": self.factors.power != 1.0}

    @property
    def odd(self) -> dict[str, str]:
        """Factors beyond the usual, with what they usually mean."""
        return {
            name: MEANS[name][value > 1] for name in MEANS for value in [getattr(self.factors, name)] if not USUAL[0] <= value <= USUAL[1]
        }


def calibrate(
    results: str | Sequence[str],
    *,
    model: str = "",
    plan: str = "",
    where: Mapping[str, str] | None = None,
    length_spread: float = 0.0,
    save_as: str = "",
    force: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    **question: Any,
) -> Calibration:
    """Fit factors on result files.  model, plan: where the files do not say them; where: rows of a file of many systems, by "engine",
    "release", "model", "gpu", "formats"; length_spread: half width of lengths over their mean, where a file has only means; save_as: keep
    a profile of this name; question: keywords of `api.ask` for cluster, engine and precision.  Raises InputError."""
    unknown = next((name for name in question if name not in api.defaults()), None)
    if unknown is not None:
        raise InputError(f"no keyword is called '{unknown}'", "", nearest(unknown, api.defaults()))
    paths = [results] if isinstance(results, str) else list(results)
    if not paths:
        raise InputError("no result file", "RESULT", "name files of vllm bench serve, SGLang, GuideLLM, aiperf or apexsim replay")
    if not 0.0 <= length_spread < 1.0:
        raise InputError(f"expected a number from 0 and below 1, got {length_spread}", "--length-spread")
    asked = {name: value for name, value in question.items() if value is not None}
    gathered = gather(paths, RunsWanted(model, plan, where or {}, length_spread, asked))
    found = fit(gathered.points, gathered.kv, progress)
    power, found_power = _power(found)
    scores = tuple(_scores(gathered.points, found, found_power))
    profile = _profile(save_as, paths, gathered, found.factors(power, gathered.kv), scores)
    if save_as:
        save(profile, force)
    first = max(gathered.points, key=lambda point: point.plan.devices)
    shapes = missing(_designed(first.setting, first.plan), gathered.points)
    lines = tuple((shape, bench_line(first.setting.engine.server.name, first.setting.model.name, shape)) for shape in shapes)
    return Calibration(gathered, found, scores, profile, lines)


def suggest(model: str, *, plan: str = "", **question: Any) -> tuple[Plan, tuple[tuple[Shape, str], ...]]:
    """The four runs that tell most of a model on a cluster, and the commands that measure them; raises InputError."""
    asked = {name: value for name, value in question.items() if value is not None}
    asked |= {} if ":" in str(asked.get("gpu")) or "gpus" in asked else {"gpus": parse_plan(plan).devices if plan else 1}
    setting, precision, _, _ = api.ask(model, **asked, prompt_len=1, output_len=1, num_requests=1)
    chosen = parse_plan(plan, precision) if plan else heuristic_plan(setting.model, setting.cluster, precision)
    shapes = _designed(setting, chosen)
    if not shapes:
        raise InputError(f"{setting.model.name} as {chosen.shorthand} does not fit", "--suggest", "give more GPUs, or another --plan")
    return chosen, tuple((shape, bench_line(setting.engine.server.name, setting.model.name, shape)) for shape in shapes)


def _designed(setting: Setting, plan: Plan) -> list[Shape]:
    start = started(setting.model, plan, setting.cluster, setting.engine, setting.max_model_len)
    return [] if isinstance(start, Rejected) else designed(plan, start[1], setting.model.max_length)


def _power(found: CalibrationFit) -> tuple[float, dict[int, float]]:
    """The factor of power, and by run its log error with the factor of the others."""
    off = {i: told[("power", "mean")] for i, told in enumerate(found.after) if ("power", "mean") in told}
    if not off:
        return 1.0, {}
    others = {i: [value for j, value in off.items() if j != i] for i in off}
    held = {i: value - (float(np.median(others[i])) if others[i] else 0.0) for i, value in off.items()}
    return math.exp(-float(np.median(list(off.values())))), held


def _scores(points: Sequence[RunPoint], found: CalibrationFit, power: Mapping[int, float]) -> Iterable[Score]:
    """Errors by metric, of the statistic of each run that means most."""
    for metric in ("ttft", "tpot", "itl", "e2e", "throughput", "power"):
        pairs = []
        for i, point in enumerate(points):
            key = best(point, metric)
            if key and key in found.before[i] and key in found.after[i]:
                pairs.append((found.before[i][key], power.get(i, 0.0) if metric == "power" else found.after[i][key]))
        if pairs:
            before, after = zip(*pairs)
            yield Score(metric, before, after)


def best(point: RunPoint, metric: str) -> Key | None:
    """The statistic of a metric that is told, where there are several."""
    return next(((metric, stat) for stat in STATS if (metric, stat) in point.measured), None)


def _profile(name: str, paths: Sequence[str], gathered: Gathered, factors: Factors, scores: Sequence[Score]) -> Profile:
    """What is kept: factors with where they are from, and the doubt that held-back errors leave."""
    first = gathered.points[0].setting
    by = {score.metric: score for score in scores}
    left = {}
    for kind, metrics in KINDS.items():
        score = next((by[metric] for metric in metrics if metric in by), None)
        if score and (len(score.after) > 1 or kind != "power"):
            left[kind] = left_of(score.after, rest_of(first, "tpot" if kind == "power" else kind))
    errors = {score.metric: {"before": middle(score.before), "after": middle(score.after)} for score in scores}
    system = {f"of_{label}": value for label, value in gathered.system.items()}
    about = {"files": list(paths), "dates": list(gathered.dates), "runs": len(gathered.points), **system, "errors": errors}
    return Profile(name, system_of(first), factors, left, about)


def middle(logs: Sequence[float]) -> float:
    """Median of the absolute relative error of log errors."""
    return float(np.median(np.abs(np.expm1(logs))))
