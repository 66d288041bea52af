"""The Python API: names and numbers in, a Study out (floor 5).

import apexsim
study = apexsim.plan("llama-3.1-70b", gpu="h100-sxm", gpus=8, trace="examples/creation_05.jsonl")
print(study.ranked[0].plan.shorthand, study.ranked[0].metrics.e2el.mean)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from inspect import signature
from typing import Any

from apexsim.clock import at_clock
from apexsim.cost.bank import load_bank
from apexsim.cost.books import missing, price_of
from apexsim.cost.load import Load, read_load
from apexsim.cost.power import power_law
from apexsim.cost.price import Pricer
from apexsim.errors import InputError
from apexsim.hardware import Gpu, cluster_of
from apexsim.links import with_links
from apexsim.model.families import load_model
from apexsim.model.model import Model
from apexsim.model.parts import routed_experts
from apexsim.objective import parse_objective
from apexsim.plan.choose import engine_of, named_plan, precision_of, restricted
from apexsim.plan.fit import Widths
from apexsim.plan.plan import Precision, parse_plan, quantised
from apexsim.plan.space import at_clocks, candidates, merged, routed
from apexsim.search.evaluate import Setting
from apexsim.search.goal import Goal
from apexsim.search.remedy import remedied
from apexsim.search.search import search, simulate_one
from apexsim.search.study import Interrupted, Study
from apexsim.search.sweep import Sweep, axes_of, swept
from apexsim.slo import parse_slos
from apexsim.typed import check_keywords
from apexsim.workload.clashes import NO_WIDTHS, QUESTION, refuse
from apexsim.workload.formats import ALL_AT_ONCE, fit_lengths
from apexsim.workload.load import ROUND, model_length, paced
from apexsim.workload.presets import preset_of
from apexsim.workload.stream import read_trace
from apexsim.workload.synth import Coming, like, synthetic
from apexsim.workload.trace import Workload

REQUESTS = 1024  # made up where nothing else is said
IMAGE = "1024x1024"  # pixels
CLOSED_SPREAD = 0.1  # of the length: constant lengths keep a closed loop in lockstep for ever, which no real load does
KERNEL_SOURCE = {"sglang": "sglang", "tensorrt-llm": "trtllm"}
MOST_IMAGES = 10_000  # of a request
SEARCHED = {  # keywords of a search -> what to do where one plan is simulated
    **dict.fromkeys(("quant", "clock"), "the plan names its own: TP8@fp8, TP8@810MHz"),
    "hypothetical": "any plan can be simulated, also one that the engine cannot be started with",
}
ROUTES = ("round-robin", "least-outstanding")


def plan(model: str, **question: Any) -> Study:
    """Rank every plan; the keywords are those of `ask`.  Raises InputError and Infeasible.

    workers, ray, progress: how the search runs (`search.pool`).  Ctrl-C raises Interrupted, which holds what was done."""
    run: dict[str, Any] = {name: question.pop(name) for name in ("workers", "ray", "progress") if name in question}
    question = read_once(question)
    several = axes_of(model, question)
    if several:
        raise InputError(f"{several[0].name} has several values", "", "apexsim.sweep takes lists")
    return helped(_ranked(model, question, run), model, question)


def sweep(model: str | Sequence[str], **question: Any) -> Sweep:
    """The question of `plan` with lists of models, GPUs, counts, engines, settings or loads: every combination (`search.sweep`)."""
    progress = question.pop("progress", None)
    run: dict[str, Any] = {name: question.pop(name) for name in ("workers", "ray") if name in question}
    question = read_once(question)
    axes = axes_of(model, question)
    return swept(model, question, axes, lambda name, one: _ranked(name, one, run), progress)


def _ranked(model: str, question: Mapping[str, Any], run: Mapping[str, Any]) -> Study:
    """Every plan ranked, nothing said of what would help."""
    setting, precision, goal, inputs = ask(model, **question)
    formats = [name.strip() for name in str(inputs.get("quant", "auto")).split(",")]
    chosen = [precision if name == "auto" else quantised(precision, name) for name in formats]
    clocks = clocks_of(str(inputs.get("clock", "")), setting.cluster.gpu)
    widths = widths_of(inputs)
    space = merged([restricted(candidates(setting.model, setting.cluster, each), setting.model, widths) for each in chosen])
    setting, space = with_clocks(setting, clocks), at_clocks(space, clocks)
    try:
        return replace(search(setting, space, goal, **run, hypothetical=bool(inputs.get("hypothetical"))), inputs=inputs)
    except Interrupted as stop:
        raise Interrupted(replace(stop.study, inputs=inputs)) from None


def simulate(model: str, plan: str = "", **question: Any) -> Study:
    """One plan in full, given by its shorthand or by its widths tp, pp, dp, ep."""
    question.pop("workers", 0), question.pop("progress", None)
    axis = next((name for name in SEARCHED if question.get(name)), None)
    if axis:
        raise InputError("one plan is simulated, nothing is searched", f"--{axis}", SEARCHED[axis])
    if plan:
        refuse(NO_WIDTHS, {"plan": plan, **{name: value for name, value in question.items() if value}})
    question = read_once(question)
    setting, precision, goal, inputs = ask(model, **question)
    wanted = parse_plan(plan, precision) if plan else named_plan(setting.model, setting.cluster, widths_of(inputs), precision)
    if wanted.clock:
        clocks = clocks_of(str(wanted.clock), setting.cluster.gpu, "--plan")
        wanted, setting = replace(wanted, clock=clocks[0]), with_clocks(setting, clocks)
    if wanted.devices != setting.cluster.size:
        raise InputError(
            f"{wanted.shorthand} takes {wanted.devices} GPUs, the cluster has {setting.cluster.size}", "--plan",
            f"use --gpus {wanted.devices} or another plan",
        )  # fmt: skip
    _check_plan(setting, wanted.shorthand, precision)
    return helped(replace(simulate_one(setting, wanted, goal), inputs={**inputs, "plan": wanted.shorthand}), model, question)


class TraceFile:
    """A trace file that is read when it is first needed, and once, however often its question is asked again."""

    def __init__(self, path: str, columns: str | None, time_unit: str | None) -> None:
        self.path, self.columns, self.time_unit = path, columns, time_unit

    @cached_property
    def work(self) -> Workload:
        """What the file holds."""
        return read_trace(self.path, columns=columns_of(self.columns), time_unit=self.time_unit or "")


def read_once(question: Mapping[str, Any]) -> dict[str, Any]:
    """The question with its trace file, if there is one, read no more than once."""
    trace = question.get("trace")
    if trace is None or isinstance(trace, (Workload, TraceFile)):
        return dict(question)
    return {**question, "trace": TraceFile(trace, question.get("columns"), question.get("time_unit"))}


def helped(study: Study, model: str, question: Mapping[str, Any]) -> Study:
    """The study with what would help, where its first plan does not keep limits and load."""

    def asked(changes: Mapping[str, Any]) -> tuple[Setting, Precision, Goal, dict[str, Any]]:
        setting, precision, goal, inputs = ask(model, **{**question, **changes})
        clocks = {r.plan.clock for r in (*study.ranked, *study.hypothetical)}
        return with_clocks(setting, tuple(clocks | {int(changes.get("clock") or 0)})), precision, goal, inputs

    return remedied(study, asked)


def _check_plan(setting: Setting, shorthand: str, precision: Precision) -> None:
    """Raise InputError with the rule that the plan breaks."""
    from apexsim.plan.space import Scene, check

    broken = check(parse_plan(shorthand, precision), Scene(setting.model, setting.cluster))
    if broken:
        raise InputError(f"{shorthand} cannot be built: {broken.reason}", "--plan", f"rule: {broken.rule}")


def ask(
    model: str, *, gpu: str, gpus: int | None = None, nodes: int | None = None, nic: str | None = None, pcie: str | None = None,
    trace: str | Workload | TraceFile | None = None, workload: str | None = None, time_unit: str | None = None,
    columns: str | None = None, prompt_len: int | None = None, output_len: int | None = None,
    num_requests: int | None = None, request_rate: float | None = None, burstiness: float | None = None,
    concurrency: int | None = None, seed: int | None = None, length_spread: float | None = None, warmup: int | None = None,
    engine: str = "vllm", settings: Mapping[str, Any] | None = None, weight_dtype: str | None = None,
    activation_dtype: str | None = None, kv_dtype: str | None = None, dtype: str | None = None, max_model_len: int | None = None,
    images: int = 0, image_size: str | None = None, quant: str | None = None, clock: str | None = None,
    tp: int | None = None, pp: int | None = None, dp: int | None = None, ep: int | None = None, enable_expert_parallel: bool = False,
    expert_load: str | None = None, too_long: str = "error",
    objective: str = "e2e", slos: tuple[str, ...] | list[str] = (), route: str = "round-robin",
    power_cap: float | None = None, price: str | float | None = None, server_overhead: float | None = None, pue: float | None = None,
    hypothetical: bool = False,
) -> tuple[Setting, Precision, Goal, dict[str, Any]]:  # fmt: skip
    """Resolve names into a Setting.  Lengths in tokens, rates in requests/s; a trace, a workload preset or synthetic lengths: one of them.

    gpu may hold the counts: "h100:8", "2x8xh100"; nic: the network per GPU, "400Gb"; pcie: the slots, "x8", "4.0x16"; tp, pp, dp, ep
    restrict the plans.  What would do nothing is refused.
    """
    check_keywords(ask, locals())
    inputs = {k: v for k, v in locals().items() if not (v is None or v is False or (isinstance(v, (tuple, list)) and not v))}
    if isinstance(trace, (Workload, TraceFile)):
        inputs["trace"] = trace.source if isinstance(trace, Workload) else trace.path
    refuse(QUESTION, explicit(inputs))
    what = load_model(model)
    cluster = with_links(cluster_of(gpu, gpus, nodes), nic, pcie)
    if route not in ROUTES:
        raise InputError(f"unknown routing '{route}'", "--route", f"use {' or '.join(ROUTES)}")
    if trace is not None:
        if prompt_len is not None or output_len is not None:
            hint = "drop --prompt-len and --output-len"
            raise InputError("a trace and synthetic lengths are both given", "--trace", hint)
        file = trace if isinstance(trace, (Workload, TraceFile)) else TraceFile(trace, columns, time_unit)
        read = file if isinstance(file, Workload) else replace(file.work, warmup=warmup or 0)
        if seed is not None and read.arrive[-1] > read.arrive[0]:
            raise InputError("it has no effect: the trace has its own arrivals, which are stretched", "--seed", "drop it")
        work = reloaded(read, request_rate, concurrency, seed or 0)
    elif workload is not None:
        coming = Coming(finite(request_rate), 1.0 if burstiness is None else burstiness, concurrency, 0.0, warmup or 0)
        work = like(preset_of(workload), REQUESTS if num_requests is None else num_requests, coming, seed or 0)
    else:
        work = made_up(prompt_len, output_len, num_requests, request_rate, burstiness, concurrency, seed, length_spread, warmup or 0)
    if not isinstance(trace, Workload) or concurrency is not None:  # a workload made by hand says itself what it leaves out
        work = settled_in(work, warmup)
    work, patches = with_image_tokens(what, work, images, image_size or IMAGE)
    work, length = lengths_of(what, work, max_model_len, too_long)
    row = engine_of(engine, settings or {}, cluster, length)
    if not routed(what) and (expert_load or enable_expert_parallel):
        flag = "--expert-load" if expert_load else "--enable-expert-parallel"
        raise InputError(f"it has no effect: {what.name} has no routed experts", flag, "drop it")
    load = read_load(expert_load) if expert_load else Load()
    for experts in routed_experts(what):
        load.check(experts)
    bank = load_bank(cluster.gpu, KERNEL_SOURCE.get(row.engine, "vllm"))
    pricer = Pricer(bank, cluster, load=load, fused=row.fuses(cluster.gpu.arch))
    limits = parse_slos(slos)
    inputs |= {"slos": tuple(map(str, limits))} if limits else {}
    if power_cap is not None and not power_cap > 0:
        raise InputError(f"expected a number above 0, got {power_cap}", "--power-cap")
    if power_cap is not None and not cluster.gpu.tdp_w > 0:
        raise InputError(f"the power of {cluster.gpu.name} is not known", "--power-cap", "give a GPU file with tdp_w")
    goal = Goal(parse_objective(objective, limits), limits, math.inf if power_cap is None else power_cap)
    rent = price_of(None if price is None else str(price), cluster.gpu)
    if goal.objective.name == "cost" and math.isnan(rent[0]):
        raise InputError(f"the cost is not known: {missing(cluster.gpu, rent[1])}", "--objective", "give --price")
    usual = power_law()[1]
    server = replace(
        usual, base_w=usual.base_w if server_overhead is None else server_overhead, facility=pue or usual.facility
    )
    setting = Setting(what, cluster, row, work, pricer, length, route, patches, images, rent, server, max_model_len is not None)
    return setting, precision_of(what, weight_dtype, activation_dtype, kv_dtype, dtype), goal, inputs


def explicit(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What of a question was given, by the names of the command line."""
    left = {name: p.default for name, p in signature(ask).parameters.items()}
    return {{"columns": "map", "slos": "slo"}.get(name, name): value for name, value in inputs.items() if value != left[name]}


def widths_of(inputs: Mapping[str, Any]) -> Widths:
    """The widths that a question names."""
    given = (inputs.get(name) or 0 for name in ("tp", "pp", "dp", "ep"))
    tp, pp, dp, ep = given
    return Widths(tp, pp, dp, bool(inputs.get("enable_expert_parallel")), ep=ep)


def clocks_of(text: str, gpu: Gpu, where: str = "--clock") -> tuple[int, ...]:
    """The SM clocks [MHz] that "810,1410,1980" names, highest first; 0 is the GPU's own, its highest."""
    names = [part.strip().lower().removesuffix("mhz").strip() for part in text.split(",")] if text.strip() else []
    if not all(name.isdecimal() for name in names):
        raise InputError(f"cannot read the clocks '{text}'", where, "write MHz with commas, e.g. 810,1410,1980")
    wanted = sorted({at_clock(gpu, int(name), where).clock * gpu.clock_mhz for name in names}, reverse=True)
    return tuple(0 if mhz == gpu.clock_mhz else round(mhz) for mhz in wanted) or (0,)


def with_clocks(setting: Setting, clocks: tuple[int, ...]) -> Setting:
    """The setting with its cluster at other SM clocks beside it."""
    clocked = []
    for mhz in filter(None, clocks):
        cluster = replace(setting.cluster, gpu=at_clock(setting.cluster.gpu, mhz))
        bank = load_bank(cluster.gpu, setting.pricer.bank.source)
        clocked.append((mhz, cluster, Pricer(bank, cluster, load=setting.pricer.load, fused=setting.pricer.fused)))
    return replace(setting, clocked=tuple(clocked))


def _side(text: str) -> bool:
    """Whether a text is a number of pixels."""
    return text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) > 0


def with_image_tokens(model: Model, work: Workload, images: int, size: str) -> tuple[Workload, int]:
    """Prompts with `images` images of "WIDTHxHEIGHT" pixels each, and the patches of one image."""
    if not images:
        return work, 0
    if images < 0:
        raise InputError(f"expected a number of images of at least 0, got {images}", "--images")
    if model.vision is None:
        raise InputError(f"{model.name} has no vision tower whose sizes are known", "--images", "drop --images or choose a vision model")
    wide, sign, high = size.lower().partition("x")
    if not (sign and _side(wide) and _side(high)):
        raise InputError(f"cannot read the image size '{size}'", "--image-size", "write e.g. 1024x768")
    if images > MOST_IMAGES:
        raise InputError(f"expected at most {MOST_IMAGES:,} images, got {images:.3g}", "--images")
    patches, tokens = model.vision.patches(int(wide), int(high)), model.vision.tokens_of(int(wide), int(high))
    note = f"{images} image(s) of {size} per request: {tokens:,} tokens and {patches:,} patches each, encoded with the prompt"
    return replace(work, prompt=work.prompt + images * tokens, notes=(*work.notes, note)), patches


COLUMNS = {"time": "arrive", "in": "prompt", "out": "output", "prefix": "shared", "arrive": "arrive", "prompt": "prompt",
           "output": "output"}  # fmt: skip


def columns_of(text: str | None) -> dict[str, str] | None:
    """The column map that "time=ts,in=prompt,out=usage.gen" names, with commas or semicolons; prefix= may be empty."""
    if not text:
        return None
    pairs = [part.partition("=") for part in text.replace(";", ",").split(",")]
    if any(not sign or key.strip() not in COLUMNS or not (name.strip() or key.strip() == "prefix") for key, sign, name in pairs):
        raise InputError(f"cannot read the column map '{text}'", "--map", "write time=COLUMN,in=COLUMN,out=COLUMN")
    return {COLUMNS[key.strip()]: name.strip() for key, _, name in pairs}


def finite(rate: float | None) -> float | None:
    """A rate [1/s] that spaces arrivals, if there is one; an infinite rate is all at once."""
    return None if rate == math.inf else rate


def made_up(
    prompt_len: int | None, output_len: int | None, num_requests: int | None, request_rate: float | None,
    burstiness: float | None, concurrency: int | None, seed: int | None, spread: float | None, warmup: int,
) -> Workload:  # fmt: skip
    """Synthetic lengths with a rate, a concurrency or neither; an infinite rate is all at once."""
    if prompt_len is None or output_len is None:
        raise InputError("no workload", "", "give --workload NAME, --trace FILE, or --prompt-len N and --output-len N")
    if spread is None:
        spread = CLOSED_SPREAD if concurrency is not None else 0.0
    made = synthetic(
        prompt_len, output_len, REQUESTS if num_requests is None else num_requests, finite(request_rate),
        1.0 if burstiness is None else burstiness, concurrency, seed or 0, spread, 0.0, warmup,
    )  # fmt: skip
    if spread == CLOSED_SPREAD and concurrency is not None:
        note = f"lengths drawn within ±{CLOSED_SPREAD:.0%} (--length-spread 0 keeps them constant, in lockstep)"
        return replace(made, notes=(*made.notes, note))
    return made


def settled_in(work: Workload, warmup: int | None) -> Workload:
    """A closed loop without the first request of each user, where nothing else was asked for and enough is left.

    Users of a simulation start in the same moment, which those of a service do not: their first requests queue behind
    each other, and nothing that comes later does.
    """
    if work.mode != "closed" or warmup is not None or work.concurrency == 1:
        return work
    users = work.concurrency
    if work.size < 2 * users:
        note = f"fewer than two requests per user: nothing is left out, and latencies hold the burst of {users:,} users starting together"
        return replace(work, notes=(*work.notes, note))
    note = f"the first request of each of the {users:,} users is left out: they start together (--warmup 0 counts all)"
    return replace(work, warmup=users, notes=(*work.notes, note))


def reloaded(work: Workload, rate: float | None, concurrency: int | None, seed: int = 0) -> Workload:
    """The lengths of a trace under another load, if one is given: users, all at once (an infinite rate), or a mean rate.

    A trace without times is given Poisson arrivals at the rate, drawn from `seed`.
    """
    if rate is not None and concurrency is not None:
        raise InputError("--request-rate and --concurrency are both given", "", "use one of them")
    if concurrency is not None:
        note = f"arrivals of the trace replaced by {concurrency} users in a closed loop"
        return replace(work, arrive=work.arrive * 0.0, mode="closed", concurrency=concurrency, notes=(*work.notes, note))
    if rate is None:
        return work
    if rate == math.inf:
        return replace(work, arrive=work.arrive * 0.0, mode="offline", notes=(*work.notes, "arrivals of the trace replaced by all at once"))
    timed = bool(work.arrive[-1] > work.arrive[0])
    made = paced(work.arrive, rate, seed)
    how = "of the trace stretched to" if timed else "drawn at random (the trace has no times) at"
    notes = tuple(note for note in work.notes if timed or note != ALL_AT_ONCE)
    return replace(work, arrive=made, mode="open", notes=(*notes, f"arrivals {how} {rate:g} requests/s"))


def lengths_of(model: Model, work: Workload, max_model_len: int | None, too_long: str) -> tuple[Workload, int]:
    """The workload that fits, and the model length: the user's, else the longest request rounded up to 1,024."""
    if max_model_len is not None and (max_model_len < 2 or max_model_len > 16 * model.max_length):
        raise InputError(
            f"a model length of {max_model_len} is impossible for {model.name}",
            "--max-model-len",
            f"it takes {model.max_length}",
        )
    limit = max_model_len or model.max_length
    work = fit_lengths(work, limit, too_long)
    if max_model_len is not None:
        return work, max_model_len
    length = model_length(work.longest, model.max_length)
    how = "the model's own" if length == model.max_length else f"the longest ({work.longest:,} tokens) rounded up to {ROUND:,}"
    note = f"room is counted for requests of {length:,} tokens: {how}; the launch line allows what the model does"
    return replace(work, notes=(*work.notes, note)), length
