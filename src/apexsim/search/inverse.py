"""The questions of `apexsim size`, from names and numbers to answers (floor 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from apexsim.api import ask, read_once, space_of
from apexsim.cost.books import price_of
from apexsim.errors import Infeasible, InputError
from apexsim.hardware import counted, load_gpu
from apexsim.model.families import load_model
from apexsim.search import size as sizes
from apexsim.search.curve import curve_of
from apexsim.search.goal import Goal
from apexsim.search.search import nearest_fit
from apexsim.search.size import LOADS, CandidateCluster, Size, SizeAnswer, Trials, Wanted
from apexsim.slo import parse_slos
from apexsim.typed import stated
from apexsim.workload.asked import CLOSED_SPREAD
from apexsim.workload.synth import longest_of, mean_of

Value = Any
BASE = {"request_rate": 1.0}  # of arrivals that are stretched to every rate
LEAST = 1.0  # requests/s, or users


def size(
    model: str,
    *,
    find: str | None = None,
    think: float = 0.0,
    share: float = sizes.SHARE,
    budget: float | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    **question: Any,
) -> Size:
    """Answer the question backwards; further keywords are those of `ask`, where gpu and gpus may be lists and gpus may be missing.

    find: "rate", "users", "gpus", "context" or a statistic ("ttft:p95").  Without it: the fewest GPUs where their number is not given,
    else the most load of the kind that is given.  Raises InputError, and Infeasible where no model fits anywhere.
    """
    words = {"find": find, "think": think or None, "share": share if share != sizes.SHARE else None, "budget": budget}
    said = stated(question | words | {"trace": getattr(question.get("trace"), "source", question.get("trace"))})
    question = read_once(question)
    gpus = _listed(question.pop("gpu", None), "--gpu")
    numbers = _listed(question.pop("gpus", None), "--gpus")
    users, rate = question.pop("concurrency", None), question.pop("request_rate", None)
    if users is not None and rate is not None:
        raise InputError("a rate and users are both given", "--request-rate", "use it, or --users")
    closed = users is not None or find == "users" or (find == "context" and rate is None)
    held = [counted(str(gpu))[1].get("gpus") for gpu in gpus]  # h100:8
    if numbers and any(held):
        raise InputError("the GPUs are counted twice", "--gpus", "drop it, or the counts of --gpu")
    numbers_known = bool(numbers) or all(held)
    wanted = Wanted(
        find or ("gpus" if not numbers_known else "users" if closed else "rate"), think, share, math.inf if budget is None else budget
    )
    asked = float(users if closed and users else rate or math.nan)
    _check(wanted, question, closed, asked)
    if rate == math.inf:
        raise InputError("an infinite rate has no limit to find", "--request-rate", "give requests per second, or none")
    if wanted.find == "context" and not asked > 0:
        asked = 1.0
    question |= _load(question, closed, rate)
    whole = _Question(model, question, wanted, asked, tuple(gpus))
    clusters = [(gpu, *_counted(n, question)) for gpu in gpus for n in numbers] if numbers else []
    given = {"concurrency": users, "request_rate": rate}  # not the load that the search starts from
    inputs = stated({**question, **given}) | {"gpu": ",".join(gpus), "gpus": numbers or None}
    found, unmet, nearest = whole.smallest(gpus, clusters, progress) if wanted.find == "gpus" else whole.each(gpus, clusters, progress)
    helps = () if found else whole.helps(nearest)
    if not found and not nearest and unmet and not helps:
        raise Infeasible(f"{model} fits on none of the GPUs that were tried", unmet[-1])
    curve = curve_of(found[0].setting, whole.goal, found[0].plan) if found and wanted.find in (*LOADS, "gpus") else None
    return Size(model, wanted, whole.goal, tuple(found), tuple(unmet), nearest, asked, helps, inputs, curve, said)


def _listed(value: Value, flag: str) -> list[Any]:
    """The values of a word that may have several."""
    values = list(value) if isinstance(value, (list, tuple)) else value.split(",") if isinstance(value, str) else [value]
    found = [v.strip() if isinstance(v, str) else v for v in values if v is not None and v != ""]
    if not found and flag == "--gpu":
        raise InputError("missing option '--gpu'", "", "name one GPU or several: --gpu h100-sxm,l40s")
    return list(dict.fromkeys(found))


def _counted(number: int, question: Mapping[str, Any]) -> tuple[int, int | None]:
    """GPUs of a node, and nodes."""
    return int(number), question.get("nodes")


def _load(question: Mapping[str, Any], closed: bool, rate: float | None) -> dict[str, Any]:
    """The load that the requests are first made with: one user of a long list, or a rate that is then changed."""
    load = {"concurrency": 1} if closed else {"request_rate": rate or BASE["request_rate"]}
    given = question.get("trace") is not None or question.get("num_requests") is not None
    return load if given else {**load, "num_requests": sizes.MADE if closed else sizes.COMING}


def _check(wanted: Wanted, question: Mapping[str, Any], closed: bool, asked: float) -> None:
    """Raise InputError where the question has no answer."""
    slos = parse_slos(question.get("slos") or ())
    sizes.check_wanted(wanted, slos, question.get("power_cap") is not None, closed)
    if not 0.0 < wanted.share <= 1.0:
        raise InputError(f"expected a share above 0 and at most 1, got {wanted.share}", "--share")
    if wanted.find == "gpus" and not asked > 0:
        raise InputError("GPUs for which load?", "", "give --request-rate R or --users N, or --gpus N to find the most load")
    if wanted.find not in (*LOADS, "gpus", "context") and not asked > 0:
        raise InputError(f"{wanted.find} at which load?", "", "give --request-rate R or --users N")
    if wanted.find == "users" and asked > 0 and not closed:
        raise InputError("users are searched, and a rate is given", "--request-rate", "drop one of both")
    if wanted.find == "rate" and closed:
        raise InputError("a rate is searched, and users are given", "--users", "drop one of both")
    if wanted.find == "context" and (question.get("prompt_len") is not None or question.get("output_len") is None):
        raise InputError("the context is what is searched", "--find", "give --output-len N, and no --prompt-len, --trace or --workload")
    if wanted.find == "context" and (question.get("prompt_cv") or question.get("output_cv")):
        raise InputError("the longest prompt of lengths without end is none", "--prompt-cv", "drop it, or use --length-spread")
    if wanted.budget < math.inf and wanted.find != "gpus":
        raise InputError("it has no effect: GPUs are not what is searched", "--budget", "add --find gpus")


@dataclass(slots=True)
class _Question:
    """The question on one cluster after the other.  asked: its load, NaN without one."""

    model: str
    question: Mapping[str, Any]
    wanted: Wanted
    asked: float
    gpus: tuple[str, ...] = ()  # as they are named
    goal: Goal = None  # type: ignore[assignment]  # of the first cluster
    alone: dict[tuple[Any, ...], Any] = field(default_factory=dict)  # what all clusters know of single requests

    def cluster(self, gpu: str, gpus: int | None, nodes: int | None, **changes: Any) -> CandidateCluster:
        """A cluster with its plans; raises Infeasible or InputError where there are none."""
        setting, precision, goal, inputs = ask(self.model, **{**self.question, "gpu": gpu, "gpus": gpus, "nodes": nodes, **changes})
        self.goal = self.goal or goal
        plans = sizes.startable(setting, space_of(setting, precision, inputs).plans)
        return CandidateCluster(Trials(setting, goal, self.wanted, alone=self.alone), plans)

    def each(
        self, gpus: Sequence[str], clusters: Sequence[tuple[Any, ...]], progress: Any
    ) -> tuple[list[SizeAnswer], list[str], SizeAnswer | None]:
        """The most load, the longest context or the tightest limit on each cluster, best first."""
        found: list[SizeAnswer] = []
        unmet: list[str] = []
        near: list[SizeAnswer] = []
        clusters = clusters or [(gpu, None, self.question.get("nodes")) for gpu in gpus]
        longest = self._longest_prompt() if self.wanted.find == "context" else 0
        for done, (gpu, count, nodes) in enumerate(clusters):
            cluster = self.cluster(gpu, count, nodes, **(self._prompts_up_to(1) if longest else {}))
            got = self._context(gpu, count, nodes, longest) if longest else self._most(cluster)
            found += got
            if not got:
                one, size = cluster.nearest(self._near), cluster.trials.setting.cluster
                near += [one] if one else []
                unmet.append(f"{size.size} × {size.gpu.name}: {'no plan keeps the limits' if one else _why(cluster)}")
            if progress:
                progress(done + 1, len(clusters), gpu)
        sign = -1.0 if self.wanted.find in (*LOADS, "context") else 1.0
        found.sort(key=lambda one: sign * one.value)
        return found, unmet, min(near, key=lambda one: sizes.overrun(one.run, self.wanted.share), default=None)

    @property
    def _near(self) -> float:
        """The load at which a miss is shown: the one asked about, else one that nobody can miss."""
        return self.asked if self.asked > 0 else LEAST

    def _most(self, cluster: CandidateCluster) -> list[SizeAnswer]:
        """The most load, or the tightest limit, on a cluster."""
        trials, plans = cluster.trials, cluster.plans
        return sizes.most_load(trials, plans) if self.wanted.find in LOADS else sizes.tightest(trials, plans, self.asked)

    def _longest_prompt(self) -> int:
        """What the model length leaves for a prompt beside the longest answer [tokens]; raises InputError where it leaves nothing."""
        answer, spread = int(self.question["output_len"]), self._spread
        whole = load_model(self.model).max_length
        whole = min(whole, self.question.get("max_model_len") or whole)
        limit = whole - longest_of(answer, spread)
        if limit < 1:
            told = f"answers of up to {longest_of(answer, spread):,} tokens leave no room for a prompt in a model length of {whole:,}"
            raise InputError(told, "--output-len", f"at most {mean_of(whole - 1, spread):,}")
        return limit

    def _context(self, gpu: str, count: int | None, nodes: int | None, longest: int) -> list[SizeAnswer]:
        """The longest prompt on a cluster."""

        def cluster(length: int) -> CandidateCluster | None:
            return _or_none(partial(self.cluster, gpu, count, nodes, **self._prompts_up_to(length)))

        one = sizes.longest_prompt(cluster, longest, self.asked)
        return [one] if one else []

    def _prompts_up_to(self, length: int) -> dict[str, Any]:
        """What is asked with where no prompt is longer than that [tokens]."""
        return {"prompt_len": max(1, mean_of(length, self._spread)), "length_spread": self._spread}

    @property
    def _spread(self) -> float:
        """Half width of lengths over their mean where the longest prompt is asked for: several users are kept out of lockstep."""
        given = self.question.get("length_spread")
        if given is not None:
            return float(given)
        return CLOSED_SPREAD if "concurrency" in self.question and self.asked > 1 else 0.0

    def smallest(
        self, gpus: Sequence[str], clusters: Sequence[tuple[Any, ...]], progress: Any
    ) -> tuple[list[SizeAnswer], list[str], SizeAnswer | None]:
        """The fewest of each GPU, least rent first."""
        found: list[SizeAnswer] = []
        unmet: list[str] = []
        near: list[SizeAnswer] = []
        self._check_budget(gpus)
        every = {gpu: self._asked_counts(gpu, clusters) or sizes.counts() for gpu in gpus}
        paid = {gpu: self._paid(gpu, counts) for gpu, counts in every.items()}
        if not any(paid.values()):
            told = f"${self.wanted.budget:,.12g} per hour pay for none of the numbers of GPUs that are asked for"
            raise InputError(told, "--budget", "raise it, or leave out --gpus")
        for done, gpu in enumerate(gpus):
            sized = paid[gpu]
            if not sized:
                unmet.append(f"{every[gpu][0][0] * every[gpu][0][1]} × {gpu}: more than ${self.wanted.budget:.12g} per hour")
                continue
            asked = [partial(_or_none, partial(self.cluster, gpu, n, nodes if nodes > 1 else None)) for n, nodes in sized]
            one, nearest = sizes.fewest(asked, self.asked)
            found += [one] if one else []
            near += [nearest] if nearest else []
            last = sized[-1][0] * sized[-1][1]
            if not one:
                why = "no plan keeps the limits and the load" if nearest else "none fits"
                unmet.append(f"up to {last} × {load_gpu(counted(gpu)[0]).name}: {why}")
            if progress:
                progress(done + 1, len(gpus), gpu)
        found.sort(key=lambda one: (one.rent if math.isfinite(one.rent) else math.inf, one.value))
        return found, unmet, min(near, key=lambda one: sizes.overrun(one.run, self.wanted.share), default=None)

    def _asked_counts(self, gpu: str, clusters: Sequence[tuple[Any, ...]]) -> list[tuple[int, int]]:
        """(GPUs of a node, nodes) that the question names for a GPU; none where they are what is asked."""
        inside = counted(gpu)[1]
        if "gpus" in inside:
            return [(inside["gpus"], inside.get("nodes", 1))]
        return sorted((int(n), nodes or 1) for name, n, nodes in clusters if name == gpu)

    def helps(self, nearest: SizeAnswer | None) -> tuple[str, ...]:
        """What would help where nothing was found: 8-bit weights and more GPUs, simulated, and the limits that the nearest run keeps."""
        if self.wanted.find == "gpus" and self.wanted.budget < math.inf:
            return self._dearer()
        if nearest is None or self.wanted.find not in LOADS:
            return ()
        gpu, size = nearest.setting.cluster.gpu.name, nearest.setting.cluster.size
        tried: list[tuple[str, dict[str, Any]]] = [("fp8 weights", {"quant": "fp8"})]
        more = [(n, m) for n, m in sizes.counts() if n * m in (2 * size, 4 * size)]
        tried += [(f"{n * m} × {gpu}", {"gpus": n, "nodes": m if m > 1 else None}) for n, m in more]
        here = {"gpus": nearest.setting.cluster.per_node, "nodes": nearest.setting.cluster.nodes}
        found = []
        for words, changes in tried:
            with suppress(InputError, Infeasible):
                cluster = self.cluster(**{"gpu": gpu, **here, **changes})
                if sizes.most_load(cluster.trials, cluster.plans):
                    found.append(words)
                    if "gpus" in changes:
                        break
        return tuple(found)

    def _dearer(self) -> tuple[str, ...]:
        """The cheapest GPUs that are enough, where the budget pays for none that are."""
        free = replace(self, wanted=replace(self.wanted, budget=math.inf))
        found, _, _ = free.smallest(self.gpus, (), None)
        return tuple(
            f"--budget {math.ceil(100.0 * one.rent) / 100.0:g} for {one.gpus} × {one.setting.cluster.gpu.name}" for one in found[:1]
        )

    def _price(self, gpu: str) -> float:
        given = self.question.get("price")
        return price_of(None if given is None else str(given), load_gpu(counted(gpu)[0]))[0]

    def _paid(self, gpu: str, counts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Those of some clusters that the budget pays for."""
        price = self._price(gpu)
        return [(n, m) for n, m in counts if not n * m * price > self.wanted.budget]

    def _check_budget(self, gpus: Sequence[str]) -> None:
        if self.wanted.budget == math.inf:
            return
        prices = {gpu: self._price(gpu) for gpu in gpus}
        unknown = [gpu for gpu, usd in prices.items() if math.isnan(usd)]
        if unknown:
            raise InputError(f"no price of {unknown[0]} is known", "--budget", "give --price")
        least = min(prices, key=lambda gpu: prices[gpu])
        if prices[least] > self.wanted.budget:
            told = f"${self.wanted.budget:,.12g} per hour pay for no GPU: the cheapest, {least}, costs ${prices[least]:g}"
            raise InputError(told, "--budget", "raise it, or name cheaper GPUs")


def _why(cluster: CandidateCluster) -> str:
    """Why no plan of a cluster fits, and what would."""
    setting = cluster.trials.setting
    widest = max(cluster.plans, key=lambda p: (p.attention.tp * p.ffn.tp * p.stages, p.attention.tp))
    return f"nothing fits: {nearest_fit(setting, widest)}"


def _or_none(made: Callable[[], CandidateCluster]) -> CandidateCluster | None:
    """A cluster, or nothing where the model cannot be split or started there."""
    try:
        return made()
    except Infeasible:
        return None
    except InputError as error:
        if error.where == "--tp/--pp/--dp/--ep":  # widths that this many GPUs do not have
            return None
        raise
