"""The Python API: names and numbers in, a Study out (floor 5).

import apexsim
study = apexsim.plan("llama-3.1-70b", gpu="h100-sxm", gpus=8, trace="examples/creation_05.jsonl")
print(study.ranked[0].plan.shorthand, study.ranked[0].metrics.e2el.mean)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from inspect import signature
from typing import Any

from apexsim.aims import Aim, parse_aims
from apexsim.calibrate.profile import load_profile
from apexsim.clock import at_clock
from apexsim.cost.books import missing, price_of
from apexsim.cost.load import ExpertLoad, read_load
from apexsim.cost.power import ServerPower, power_law
from apexsim.drafting import Drafting, parse_acceptance, parse_speculate
from apexsim.engine_file import DEFAULT_ENGINE
from apexsim.engines import EngineRow
from apexsim.errors import InputError
from apexsim.gpu import Gpu
from apexsim.hardware import cluster_of
from apexsim.links import with_links
from apexsim.model.families import load_model
from apexsim.model.model import Model
from apexsim.model.parts import routed, routed_experts
from apexsim.objective import parse_objective
from apexsim.offload import Tier, tiers_of, way_of
from apexsim.plan.choose import engine_of, named_plan, precision_of, restricted
from apexsim.plan.fit import Widths
from apexsim.plan.plan import Plan, Precision, parse_plan, quantised
from apexsim.plan.space import DRAFTS, Scene, Space, at_clocks, candidates, check, heuristic_plan, merged, with_drafts
from apexsim.plan.split import ROLES, named_split, parse_split
from apexsim.search.goal import Goal
from apexsim.search.remedy import remedied
from apexsim.search.roles import CONNECTORS, Roles, checked_split, one_stack, parse_decider, role_settings, with_pools
from apexsim.search.search import search, simulate_one
from apexsim.search.setting import FAR, ROUTES, Router, Setting, calibrated, setting_of
from apexsim.search.study import Interrupted, Study
from apexsim.search.sweep import Sweep, SweepInterrupted, axes_of, swept
from apexsim.slo import Slo, parse_slos
from apexsim.typed import check_keywords, stated
from apexsim.workload.asked import Asked, TraceFile
from apexsim.workload.clashes import NO_WIDTHS, QUESTION, refuse
from apexsim.workload.classes import check_limits
from apexsim.workload.trace import Workload

FURTHER = {"tune": "tuned", "sensitivity": "sensitive", "headroom": "roomy"}  # what more a search may look at: search.NAME, its verb
EVERY = 1 << 20  # batches that are kept where all are wanted
POOLS = ("disaggregate", "prefill_settings", "decode_settings", "connector", "conditional_disagg")  # keywords of plans of two pools
SEARCHED = {  # keywords of a search -> what to do where one plan is simulated
    **dict.fromkeys(("quant", "clock"), "the plan names its own: TP8@fp8, TP8@810MHz"),
    "pareto": "see: apexsim plan --pareto",
    "speculate": "the plan names its own: TP8+mtp:3",
    "hypothetical": "any plan can be simulated, also one that the engine cannot be started with",
}


def plan(model: str | Model, **question: Any) -> Study:
    """Rank every plan; the keywords are those of `ask`.  Raises InputError and Infeasible.

    workers, ray, progress, seen: how the search runs (`search.pool`) and who is told of it (`search.search`); tune: walk the engine's
    settings too (`search.tune`); sensitivity: say what would change the winner (`search.sensitivity`); headroom: how much more load each
    plan holds (`search.headroom`).  Ctrl-C raises Interrupted, which holds what was done."""
    run: dict[str, Any] = {name: question.pop(name) for name in ("workers", "ray", "progress", "seen") if name in question}
    further = {name: bool(question.pop(name, False)) for name in FURTHER}
    question = read_once(question)
    several = axes_of(str(getattr(model, "name", model)), question)
    if several:
        raise InputError(f"{several[0].name} has several values", "", "apexsim.sweep takes lists")
    study = _ranked(model, question, run)
    if study.setting.pools:
        from apexsim.search.worth import with_worth

        study = with_worth(study)
    study = helped(study, model, question)
    return looked_further(study, model, question, further)


def sweep(model: str | Sequence[str], **question: Any) -> Sweep:
    """The question of `plan` with lists of models, GPUs, counts, engines, settings or loads: every combination (`search.sweep`).

    Ctrl-C raises SweepInterrupted, which holds the combinations that were done."""
    progress, seen = question.pop("progress", None), question.pop("seen", None)
    headroom = bool(question.pop("headroom", False))
    for name in (name for name in FURTHER if question.pop(name, False)):
        raise InputError("one question is looked at further, and lists are given", f"--{name}", "drop it, or the lists")
    run: dict[str, Any] = {name: question.pop(name) for name in ("workers", "ray") if name in question}
    question = read_once(question)
    axes = axes_of(model, question)

    def answered(name: str, one: Mapping[str, Any]) -> Study:
        study = _ranked(name, one, run)
        if not headroom:
            return study
        from apexsim.search.headroom import room_of_first

        return room_of_first(study)

    try:
        return _as_asked(swept(model, question, axes, answered, progress, seen), headroom)
    except SweepInterrupted as stop:
        raise SweepInterrupted(_as_asked(stop.sweep, headroom)) from None


def _as_asked(found: Sweep, headroom: bool) -> Sweep:
    return replace(found, inputs={**found.inputs, "headroom": True}) if headroom else found


def _ranked(model: str | Model, question: Mapping[str, Any], run: Mapping[str, Any]) -> Study:
    """Every plan ranked, nothing said of what would help."""
    setting, precision, goal, inputs = ask(model, **question)
    space = space_of(setting, precision, inputs)
    if setting.pools:
        from apexsim.search.pairs import with_splits

        space = with_splits(setting, space, goal, hypothetical=bool(inputs.get("hypothetical")))
    try:
        return replace(search(setting, space, goal, **run, hypothetical=bool(inputs.get("hypothetical"))), inputs=inputs)
    except Interrupted as stop:
        raise Interrupted(replace(stop.study, inputs=inputs)) from None


def space_of(setting: Setting, precision: Precision, inputs: Mapping[str, Any]) -> Space:
    """The plans that a question is about: of its formats and clocks, restricted to its widths."""
    formats = list(dict.fromkeys(name.strip() for name in str(inputs.get("quant", "auto")).split(",")))
    chosen = [precision if name == "auto" else quantised(precision, name) for name in formats]
    clocks, widths = clocks_of(str(inputs.get("clock", "")), setting.cluster.gpu), widths_of(inputs)
    spaces = [restricted(candidates(setting.model, setting.cluster, each), setting.model, widths) for each in chosen]
    return with_drafts(at_clocks(merged(spaces), clocks), drafts_of(inputs))


def drafts_of(inputs: Mapping[str, Any]) -> tuple[Drafting | None, ...]:
    """The ways of drafting that a question searches."""
    return parse_speculate(str(inputs["speculate"])) if inputs.get("speculate") else (None,)


def simulate(model: str | Model, plan: str = "", *, steps: bool = False, **question: Any) -> Study:
    """One plan in full, given by its shorthand or by its widths tp, pp, dp, ep.  steps: keep every batch, for `Study.steps`."""
    question.pop("workers", 0), question.pop("progress", None)
    axis = next((name for name in SEARCHED if question.get(name)), None)
    if axis:
        raise InputError("one plan is simulated, nothing is searched", f"--{axis}", SEARCHED[axis])
    if plan:
        refuse(NO_WIDTHS, {"plan": plan, **{name: value for name, value in question.items() if value}})
    question = read_once(question)
    if named_split(plan):
        if steps:
            raise InputError("steps are kept of plans of one pool", "steps", "drop it: study.steps() then has an even sample")
        return _simulated_split(model, plan, question)
    _no_pools(question, plan)
    setting, precision, goal, inputs = ask(model, **{**question, "acceptance": None})
    inputs |= {"acceptance": question["acceptance"]} if question.get("acceptance") else {}
    wanted = parse_plan(plan, precision) if plan else named_plan(setting.model, setting.cluster, widths_of(inputs), precision)
    _one_format(question, wanted)
    if wanted.clock:
        wanted = replace(wanted, clock=clocks_of(str(wanted.clock), setting.cluster.gpu, "--plan")[0])
    if wanted.devices != setting.cluster.size:
        raise InputError(
            f"{wanted.shorthand} takes {wanted.devices} GPUs, the cluster has {setting.cluster.size}",
            "--plan",
            f"use --gpus {wanted.devices} or another plan",
        )
    _check_plan(setting, wanted)
    setting = _accepting(setting, (wanted.draft,), question.get("acceptance"), "--plan")
    setting = replace(setting, noted=EVERY) if steps else setting
    return helped(replace(simulate_one(setting, wanted, goal), inputs={**inputs, "plan": wanted.shorthand}), model, question)


def _one_format(question: Mapping[str, Any], *plans: Plan) -> None:
    """Raise InputError where a plan names the format of its weights, and another one is asked for."""
    if question.get("weight_dtype") and any(plan.precision.tag for plan in plans):
        raise InputError("it has no effect: the plan names its own format", "--weight-dtype", "drop one of both")


def _no_pools(question: Mapping[str, Any], plan: str) -> None:
    """Raise InputError where a plan of one pool is asked for, and something of two."""
    name = next((name for name in POOLS if question.get(name)), None)
    if name:
        what = f"the plan '{plan}' has one pool" if plan else "the widths name a plan of one pool"
        raise InputError(what, f"--{name.replace('_', '-')}", "name two: --plan 3×TP4+DEP8")


def _simulated_split(model: str | Model, plan: str, question: Mapping[str, Any]) -> Study:
    """One plan of two pools in full."""
    one = {name: value for name, value in question.items() if name not in (*POOLS, "acceptance")}
    one_stack(load_model(model))
    setting, precision, goal, inputs = ask(model, **one)
    wanted, told = parse_split(plan, precision), question.get("acceptance")
    _one_format(question, *wanted.pools)
    setting = with_pools(_accepting(setting, (wanted.draft,), told, "--plan"), _roles(question), wanted)
    checked_split(setting, wanted)
    for own, pool in zip(setting.of(wanted), wanted.pools):
        _check_plan(own, pool)
    inputs |= {name: question[name] for name in (*POOLS[1:], "acceptance") if question.get(name)} | {"plan": wanted.shorthand}

    def again(changes: Mapping[str, Any]) -> tuple[Setting, Precision, Goal, Any]:
        setting, precision, goal, inputs = ask(model, **{**one, **changes})
        setting = _accepting(setting, (wanted.draft,), told, "--plan")
        return with_pools(setting, _roles({**question, **changes}), wanted), precision, goal, inputs

    return remedied(replace(simulate_one(setting, wanted, goal), inputs=inputs), again)


def _roles(question: Mapping[str, Any]) -> Roles:
    """What a question says of its pools; raises InputError where it cannot be read."""
    engine, price = str(question.get("engine") or DEFAULT_ENGINE), question.get("price")
    texts = {role: question.get(f"{role}_settings") for role in ROLES}
    own = {role: role_settings(str(text), role, engine) for role, text in texts.items() if text is not None}
    connector = str(question.get("connector") or "").lower()
    if question.get("connector") is not None and connector not in CONNECTORS:
        raise InputError(f"unknown connector '{connector}'", "--connector", f"use {', '.join(CONNECTORS)}")
    told = question.get("conditional_disagg")
    decider = FAR if told is None else parse_decider(str(told))
    return Roles(engine, question.get("settings") or {}, own, connector, None if price is None else str(price), decider)


def read_once(question: Mapping[str, Any]) -> dict[str, Any]:
    """The question with its trace file, if there is one, read no more than once."""
    trace = question.get("trace")
    if trace is None or isinstance(trace, (Workload, TraceFile)):
        return dict(question)
    return {**question, "trace": TraceFile(trace, question.get("columns"), question.get("time_unit"), question.get("classes"))}


def helped(study: Study, model: str | Model, question: Mapping[str, Any]) -> Study:
    """The study with what would help, where its first plan does not keep limits and load."""
    return remedied(study, lambda changes: ask(model, **{**question, **changes}))


def looked_further(study: Study, model: str | Model, question: Mapping[str, Any], further: Mapping[str, bool]) -> Study:
    """The study with what it was asked to look at beside."""
    for name in (name for name in FURTHER if further[name]):
        look = getattr(import_module(f"apexsim.search.{name}"), FURTHER[name])  # loaded where it is asked for
        study = look(study, lambda changes: ask(model, **{**question, **changes}))
        study = replace(study, inputs={**study.inputs, name: True})
    return study


def _check_plan(setting: Setting, plan: Plan) -> None:
    """Raise InputError with the rule that the plan breaks."""
    broken = check(plan, Scene(setting.model, setting.cluster))
    if broken:
        raise InputError(f"{plan.shorthand} cannot be built: {broken.reason}", "--plan", f"rule: {broken.rule}")


def ask(
    model: str | Model,
    *,
    gpu: str | Gpu,
    gpus: int | None = None,
    nodes: int | None = None,
    nic: str | None = None,
    pcie: str | None = None,
    trace: str | Workload | TraceFile | None = None,
    workload: str | None = None,
    time_unit: str | None = None,
    columns: str | None = None,
    prompt_len: int | None = None,
    output_len: int | None = None,
    num_requests: int | None = None,
    request_rate: float | None = None,
    burstiness: float | None = None,
    concurrency: int | None = None,
    seed: int | None = None,
    length_spread: float | None = None,
    warmup: int | None = None,
    engine: str = DEFAULT_ENGINE,
    settings: Mapping[str, Any] | None = None,
    weight_dtype: str | None = None,
    activation_dtype: str | None = None,
    kv_dtype: str | None = None,
    dtype: str | None = None,
    max_model_len: int | None = None,
    stages: str | None = None,
    shared_prefix: str | None = None,
    turns: int | None = None,
    turn_gap: float | None = None,
    images: int = 0,
    image_size: str | None = None,
    quant: str | None = None,
    clock: str | None = None,
    tp: int | None = None,
    pp: int | None = None,
    dp: int | None = None,
    ep: int | None = None,
    enable_expert_parallel: bool = False,
    expert_load: str | None = None,
    too_long: str = "error",
    objective: str = "e2e",
    slos: tuple[str, ...] | list[str] = (),
    route: str = "round-robin",
    signal_age: float | None = None,
    kv_offload: str | None = None,
    power_cap: float | None = None,
    risk: float = 0.0,
    price: str | float | None = None,
    server_overhead: float | None = None,
    pue: float | None = None,
    hypothetical: bool = False,
    profile: str | None = None,
    pareto: str | None = None,
    rate_factor: float | None = None,
    prompt_factor: float | None = None,
    output_factor: float | None = None,
    classes: str | None = None,
    prompt_cv: float | None = None,
    output_cv: float | None = None,
    lengths: str | None = None,
    speculate: str | None = None,
    acceptance: str | float | None = None,
    disaggregate: bool = False,
    prefill_settings: str | None = None,
    decode_settings: str | None = None,
    connector: str | None = None,
    conditional_disagg: str | None = None,
) -> tuple[Setting, Precision, Goal, dict[str, Any]]:
    """Resolve names into a Setting.  Lengths in tokens, rates in requests/s; a trace, a workload preset or synthetic lengths: one of them.

    gpu may hold the counts: "h100:8", "2x8xh100"; nic: the network per GPU, "400Gb"; pcie: the slots, "x8", "4.0x16"; tp, pp, dp, ep
    restrict the plans; profile: the name of a calibration (`calibrate.profile`); pareto: two or three goals (`aims`);
    prompt_cv, output_cv: standard deviation over mean of lengths that are drawn from a distribution, lengths: "lognormal", "gamma" or
    "uniform"; classes: a column of the trace, or prompt lengths, "short:2k,long", for limits of a class (`workload.classes`);
    the factors say what if arrivals were so many times as fast, lengths so many times as long; speculate: ways of drafting, "mtp:1..4";
    acceptance: of their drafts (`drafting.parse_acceptance`).  disaggregate: plans with a pool
    for prompts and one for tokens, too; prefill_settings, decode_settings: "max-num-seqs=64,max-num-batched-tokens=16k" of each; connector:
    what carries the cache between them; conditional_disagg: which prompts stay at decode, "2048,0.7,busy:2" (`search.roles`).
    What would do nothing is refused.
    """
    given = {**locals()}
    check_keywords(ask, given)
    inputs = stated(given)
    inputs |= {name: each.name for name, each in (("model", model), ("gpu", gpu)) if isinstance(each, (Model, Gpu))}
    if isinstance(trace, (Workload, TraceFile)):
        inputs["trace"] = trace.source if isinstance(trace, Workload) else trace.path
    refuse(QUESTION, explicit(inputs))
    what = load_model(model)
    if disaggregate:
        one_stack(what)
    cluster = with_links(cluster_of(gpu, gpus, nodes), nic, pcie)
    if "," in route:
        raise InputError(f"one run has one routing, got '{route}'", "--route", "name one; apexsim plan compares a list")
    if route not in ROUTES:
        raise InputError(f"unknown routing '{route}'", "--route", f"use {', '.join(ROUTES)}")
    tiers = tiers_of(kv_offload) if kv_offload else ()
    router = Router(route, math.nan if signal_age is None else signal_age)
    work, patches, length = Asked.of(given).on(what)
    row = engine_of(engine, settings or {}, cluster, length, int(work.prompt.max()))
    tiers = _behind(tiers, row, work, cluster.gpu)
    load = _load_of(what, expert_load, enable_expert_parallel)
    goal = _goal_of(objective, slos, power_cap, risk, pareto, cluster.gpu)
    check_limits(work, goal.slos)
    inputs |= {"slos": tuple(map(str, goal.slos))} if goal.slos else {}
    rent = price_of(None if price is None else str(price), cluster.gpu)
    if goal.objective.name == "cost" and math.isnan(rent[0]):
        raise InputError(f"the cost is not known: {missing(cluster.gpu, rent[1])}", "--objective", "give --price")
    setting = setting_of(
        what,
        cluster,
        row,
        work,
        length,
        load=load,
        router=router,
        offload=tiers,
        image_patches=patches,
        images=images,
        price=rent,
        server=_server_of(server_overhead, pue),
        length_given=max_model_len is not None,
    )
    setting = calibrated(setting, load_profile(profile)) if profile else setting
    setting = _accepting(setting, drafts_of(inputs), acceptance, "--speculate")
    setting = with_pools(setting, _roles(given)) if disaggregate else setting
    return setting, precision_of(what, weight_dtype, activation_dtype, kv_dtype, dtype), goal, inputs


def _behind(tiers: tuple[Tier, ...], row: EngineRow, work: Workload, gpu: Gpu) -> tuple[Tier, ...]:
    """The tiers at their rates; raises InputError where they would do nothing, or the engine has none such."""
    if not tiers:
        return ()
    way_of(row.server, tiers)
    if not row.reuse:
        raise InputError("it has no effect: prompts are computed in full", "--kv-offload", "drop --no-enable-prefix-caching")
    if not work.block:
        hint = "--shared-prefix 2000x50, --turns 4, or a trace with hash_ids"
        raise InputError("it has no effect: the requests share nothing that is known", "--kv-offload", hint)
    return tuple(tier.on(gpu) for tier in tiers)


def _accepting(setting: Setting, drafts: Sequence[Drafting | None], told: str | float | None, where: str) -> Setting:
    """The setting with the acceptance that a user tells; raises InputError where a way of drafting is none of the model's, or nobody
    knows how many of its drafts are accepted."""
    asked = [draft for draft in drafts if draft]
    if told is not None and not asked:
        raise InputError("it has no effect: nothing is drafted", "--acceptance", "add --speculate mtp:1..4, or +mtp:3 behind the plan")
    usual = heuristic_plan(setting.model, setting.cluster)
    for draft in asked:
        broken = check(replace(usual, draft=draft), Scene(setting.model, setting.cluster), DRAFTS)
        if broken:
            raise InputError(f"it cannot draft so: {broken.reason}", where)
    if told is not None:
        setting = replace(setting, acceptance=parse_acceptance(str(told), max(draft.tokens for draft in asked)))
    for draft in asked:
        setting.accepts(draft).length(draft.tokens)
    return setting


def _load_of(model: Model, expert_load: str | None, expert_parallel: bool) -> ExpertLoad:
    """How unevenly tokens fall on the routed experts."""
    if not routed(model) and (expert_load or expert_parallel):
        flag = "--expert-load" if expert_load else "--enable-expert-parallel"
        raise InputError(f"it has no effect: {model.name} has no routed experts", flag, "drop it")
    load = read_load(expert_load) if expert_load else ExpertLoad()
    for experts in routed_experts(model):
        load.check(experts)
    return load


def _goal_of(objective: str, slos: Sequence[str], power_cap: float | None, risk: float, pareto: str | None, gpu: Gpu) -> Goal:
    """What counts."""
    limits = parse_slos(slos)
    if power_cap is not None and not power_cap > 0:
        raise InputError(f"expected a number above 0, got {power_cap}", "--power-cap")
    if power_cap is not None and not gpu.tdp_w > 0:
        raise InputError(f"the power of {gpu.name} is not known", "--power-cap", "give a GPU file with tdp_w")
    if not 0.0 <= risk <= 0.5:
        raise InputError(f"expected a chance from 0 to 0.5, got {risk}", "--risk", "0.05 allows one run in twenty to miss a limit")
    aims = _aims(pareto, limits)
    goal = Goal(parse_objective(objective, limits), limits, math.inf if power_cap is None else power_cap, risk, aims)
    if risk and not (goal.limited or aims):
        raise InputError(
            "it has no effect without a limit on the run", "--risk", "give one: --ttft 500, --slo tpot:p95=20ms, --power-cap 500"
        )
    return goal


def _aims(pareto: str | None, slos: Sequence[Slo]) -> tuple[Aim, ...]:
    """What a Pareto front is drawn over; () where none is asked for."""
    found = parse_aims(pareto) if pareto else ()
    if any(aim.name == "goodput" for aim in found) and not any(slo.per_request for slo in slos):
        raise InputError("goodput counts requests that keep their limits, and none is given", "--pareto", "add --goodput ttft:500")
    return found


def _server_of(overhead: float | None, pue: float | None) -> ServerPower:
    """What surrounds the GPUs; what is not given is as usual."""
    usual = power_law()[1]
    return replace(usual, base_w=usual.base_w if overhead is None else overhead, facility=pue or usual.facility)


def defaults() -> dict[str, Any]:
    """What each keyword of `ask` is where it is not given."""
    return {name: p.default for name, p in signature(ask).parameters.items()}


def explicit(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What of a question was given, by the names of the command line."""
    left = defaults()
    return {{"columns": "map", "slos": "slo"}.get(name, name): value for name, value in inputs.items() if value != left.get(name)}


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
