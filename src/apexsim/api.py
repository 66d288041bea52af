"""The Python API: names and numbers in, a Study out (floor 5).

import apexsim
study = apexsim.plan("llama-3.1-70b", gpu="h100-sxm", gpus=8, trace="examples/creation_05.jsonl")
print(study.ranked[0].plan.shorthand, study.ranked[0].metrics.e2el.mean)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from apexsim.clock import at_clock
from apexsim.cost.bank import load_bank
from apexsim.cost.load import Load, read_load
from apexsim.cost.power import power_law
from apexsim.cost.price import Pricer
from apexsim.errors import InputError
from apexsim.hardware import USUAL_BOOKS, Cluster, Gpu, load_gpu
from apexsim.model.families import load_model
from apexsim.model.model import Model
from apexsim.objective import parse_objective
from apexsim.plan.choose import engine_of, precision_of
from apexsim.plan.plan import Precision, parse_plan, quantised
from apexsim.plan.space import at_clocks, candidates, merged
from apexsim.search.evaluate import Setting
from apexsim.search.search import Goal, search, simulate_one
from apexsim.search.study import Interrupted, Study
from apexsim.slo import parse_slo
from apexsim.workload.formats import fit_lengths
from apexsim.workload.stream import read_trace
from apexsim.workload.synth import synthetic
from apexsim.workload.trace import Workload

CLOSED_SPREAD = 0.1  # of the length: constant lengths keep a closed loop in lockstep for ever, which no real load does
ROUND = 1024  # the model length is rounded up to this when it is taken from the workload
KERNEL_SOURCE = {"sglang": "sglang", "tensorrt-llm": "trtllm"}
MOST_IMAGES = 10_000  # of a request
ROUTES = ("round-robin", "least-outstanding")


def plan(model: str, **question: Any) -> Study:
    """Rank every plan; see `Question` keywords in `ask`.  Raises InputError and Infeasible.

    workers, ray, progress: how the search runs (`search.pool`).  Ctrl-C raises Interrupted, which holds what was done."""
    run = {name: question.pop(name) for name in ("workers", "ray", "progress") if name in question}
    setting, precision, goal, inputs = ask(model, **question)
    formats = [name.strip() for name in str(inputs.get("quant", "auto")).split(",")]
    chosen = [precision if name == "auto" else quantised(precision, name) for name in formats]
    clocks = clocks_of(str(inputs.get("clock", "")), setting.cluster.gpu)
    space = merged([candidates(setting.model, setting.cluster, each) for each in chosen])
    setting, space = with_clocks(setting, clocks), at_clocks(space, clocks)
    try:
        return replace(search(setting, space, goal, **run), inputs=inputs)
    except Interrupted as stop:
        raise Interrupted(replace(stop.study, inputs=inputs)) from None


def simulate(model: str, plan: str, **question: Any) -> Study:
    """One plan in full, given by its shorthand."""
    question.pop("workers", 0), question.pop("progress", None)
    axis = next((name for name in ("quant", "clock") if question.get(name)), None)
    if axis:
        raise InputError("one plan is simulated, nothing is searched", f"--{axis}", "the plan names its own: TP8@fp8, TP8@810MHz")
    setting, precision, goal, inputs = ask(model, **question)
    wanted = parse_plan(plan, precision)
    if wanted.clock:
        clocks = clocks_of(str(wanted.clock), setting.cluster.gpu, "--plan")
        wanted, setting = replace(wanted, clock=clocks[0]), with_clocks(setting, clocks)
    if wanted.devices != setting.cluster.size:
        raise InputError(
            f"{wanted.shorthand} takes {wanted.devices} GPUs, the cluster has {setting.cluster.size}", "--plan",
            f"use --gpus {wanted.devices} or another plan",
        )  # fmt: skip
    _check_plan(setting, wanted.shorthand, precision)
    return replace(simulate_one(setting, wanted, goal), inputs={**inputs, "plan": wanted.shorthand})


def _check_plan(setting: Setting, shorthand: str, precision: Precision) -> None:
    """Raise InputError with the rule that the plan breaks."""
    from apexsim.plan.space import Scene, check

    broken = check(parse_plan(shorthand, precision), Scene(setting.model, setting.cluster))
    if broken:
        raise InputError(f"{shorthand} cannot be built: {broken.reason}", "--plan", f"rule: {broken.rule}")


def ask(
    model: str, *, gpu: str, gpus: int, nodes: int = 1, trace: str | Workload | None = None, time_unit: str | None = None,
    columns: str | None = None, prompt_len: int | None = None, output_len: int | None = None,
    num_requests: int = 1024, request_rate: float | None = None, burstiness: float = 1.0,
    concurrency: int | None = None, seed: int = 0, length_spread: float | None = None, warmup: int = 0,
    engine: str = "vllm", settings: Mapping[str, Any] | None = None, weight_dtype: str | None = None,
    activation_dtype: str | None = None, kv_dtype: str | None = None, max_model_len: int | None = None,
    images: int = 0, image_size: str = "1024x1024", quant: str | None = None, clock: str | None = None,
    expert_load: str | None = None, too_long: str = "error",
    objective: str = "e2e", slos: tuple[str, ...] | list[str] = (), route: str = "round-robin",
    power_cap: float | None = None, price: str | None = None, server_overhead: float | None = None, pue: float | None = None,
) -> tuple[Setting, Precision, Goal, dict[str, Any]]:  # fmt: skip
    """Resolve names into a Setting.  Lengths in tokens, rates in requests/s; a trace or synthetic lengths, not both."""
    inputs = {k: v for k, v in locals().items() if v not in (None, (), [])}
    if isinstance(trace, Workload):
        inputs["trace"] = trace.source
    what = load_model(model)
    cluster = Cluster(load_gpu(gpu), gpus, nodes)
    if route not in ROUTES:
        raise InputError(f"unknown routing '{route}'", "--route", f"use {' or '.join(ROUTES)}")
    if trace is not None:
        if prompt_len is not None or output_len is not None:
            hint = "drop --prompt-len and --output-len"
            raise InputError("a trace and synthetic lengths are both given", "--trace", hint)
        read = trace
        if not isinstance(read, Workload):
            read = replace(read_trace(read, columns=columns_of(columns), time_unit=time_unit or ""), warmup=warmup)
        work = reloaded(read, request_rate, concurrency)
    else:
        work = made_up(prompt_len, output_len, num_requests, request_rate, burstiness, concurrency, seed, length_spread, warmup)
    work, patches = with_image_tokens(what, work, images, image_size)
    work, length = lengths_of(what, work, max_model_len, too_long)
    row = engine_of(engine, settings or {}, cluster, length)
    load = read_load(expert_load) if expert_load else Load()
    bank = load_bank(cluster.gpu, KERNEL_SOURCE.get(row.engine, "vllm"))
    pricer = Pricer(bank, cluster, load=load, fused=row.fuses(cluster.gpu.arch))
    limits = tuple(parse_slo(s) for s in slos)
    if power_cap is not None and not cluster.gpu.tdp_w > 0:
        raise InputError(f"the power of {cluster.gpu.name} is not known", "--power-cap", "give a GPU file with tdp_w")
    goal = Goal(parse_objective(objective, limits), limits, math.inf if power_cap is None else power_cap)
    usual = power_law()[1]
    server = replace(
        usual, base_w=usual.base_w if server_overhead is None else server_overhead, facility=pue or usual.facility
    )
    setting = Setting(what, cluster, row, work, pricer, length, route, patches, images, price_of(price, cluster.gpu), server)
    return setting, precision_of(what, weight_dtype, activation_dtype, kv_dtype), goal, inputs


def price_of(text: str | None, gpu: Gpu) -> tuple[float, str]:
    """Price of a GPU [$/h] and its book: a number, a book of the GPU's file, or nothing for the usual one; NaN where unknown."""
    if text is None:
        book = next((name for name in USUAL_BOOKS if name in gpu.prices), "")
        return (gpu.prices[book], book) if book else (math.nan, "")
    name = text.strip().lower().replace("-", "_")
    if name in gpu.prices:
        return gpu.prices[name], name
    try:
        usd = float(text)
    except ValueError:
        usd = math.nan
    if not (usd >= 0 and math.isfinite(usd)):
        known = ", ".join(gpu.prices) or "none known for this GPU"
        raise InputError(f"cannot read the price '{text}'", "--price", f"write $/h of one GPU, or a price book: {known}")
    return usd, "given"


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
        bank = load_bank(cluster.gpu, setting.pricer.bank.library.source)
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


def made_up(prompt_len: int | None, output_len: int | None, num_requests: int, request_rate: float | None, burstiness: float,
            concurrency: int | None, seed: int, spread: float | None, warmup: int) -> Workload:  # fmt: skip
    """Synthetic lengths with a rate, a concurrency or neither."""
    if prompt_len is None or output_len is None:
        raise InputError("no workload", "", "give --trace FILE, or --prompt-len N and --output-len N")
    if spread is None:
        spread = CLOSED_SPREAD if concurrency is not None else 0.0
    made = synthetic(
        prompt_len, output_len, num_requests, request_rate, burstiness, concurrency, seed, spread, 0.0, warmup
    )
    if spread == CLOSED_SPREAD and concurrency is not None:
        note = f"lengths drawn within ±{CLOSED_SPREAD:.0%} (--length-spread 0 keeps them constant, in lockstep)"
        return replace(made, notes=(*made.notes, note))
    return made


def reloaded(work: Workload, rate: float | None, concurrency: int | None) -> Workload:
    """The lengths of a trace under another load, if one is given."""
    if rate is not None and concurrency is not None:
        raise InputError("--request-rate and --concurrency are both given", "", "use one of them")
    if concurrency is not None:
        note = f"arrivals of the trace replaced by {concurrency} users in a closed loop"
        return replace(work, arrive=work.arrive * 0.0, mode="closed", concurrency=concurrency, notes=(*work.notes, note))
    if rate is None:
        return work
    scale = work.size / max(float(work.arrive[-1]), 1e-9) / rate
    return replace(work, arrive=work.arrive * scale, notes=(*work.notes, f"arrivals scaled to {rate:g} requests/s"))


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
    length = min(-(-work.longest // ROUND) * ROUND, model.max_length)
    how = "the model's own" if length == model.max_length else f"the longest request ({work.longest:,} tokens) rounded up to {ROUND:,}"
    note = f"max model length {length:,}: {how}"
    return replace(work, notes=(*work.notes, note)), length
