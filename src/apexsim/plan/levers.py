"""What would make a plan fit, or give it more room: every change is sized, none is guessed (floor 3).

In the order in which people try them: the memory fraction, smaller steps, a smaller cache format, no graphs, a shorter
context, smaller weights, another layout of the same GPUs (tensor parallel before pipeline stages), more GPUs.  What does
not help is not named; two or three changes together only where none of those on these GPUs is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

from apexsim.engines import EngineRow, flags_of, our_flag, override, settled
from apexsim.hardware import Cluster
from apexsim.model.dtypes import dtype
from apexsim.plan.flags import words_of
from apexsim.plan.formats import formats_of
from apexsim.plan.plan import Plan
from apexsim.plan.sized import Fit, Lever, full_users, longest, sized, typical_users
from apexsim.plan.widths import NODE, island, layouts

HIGHEST = 95  # hundredths of a GPU's memory: the most that is advised; beyond, drivers and fragments have no room
STEP = 2048  # tokens of a step: the smaller default of vLLM
FEWER = 4  # times fewer sequences at once
GAIN = 1.05  # more users than before, or a change is not worth a line
FULLER = (2, 4, 8)  # GPUs of a node tried where it has fewer
MORE = (2, 4, 8, 16, 32, 64)  # times as many nodes tried where the cluster is too small
TOGETHER = 2  # ways of pulling several at once that are told
OLDER = ("volta", "turing")  # no engine has FP8 kernels for them
SMALLER = {32: ("bf16", "fp8", "int4"), 16: ("fp8", "int4"), 8: ("int4",)}  # weight formats to offer, by the bits there are
NAMES = {"int4": "AWQ or GPTQ", "fp8": "FP8", "bf16": "bf16"}
Change = tuple[str, str, dict[str, Any]]  # kind, words, what it changes of the answer


def levers(answer: Fit) -> tuple[Lever, ...]:
    """The changes that would make it fit; of a plan that fits with little room, those that give it users."""
    if answer.fits and not answer.little:
        return ()
    single = [lever for change in _changes(answer) if _helps(answer, lever := _pulled(answer, change))]
    here = [lever for lever in single if lever.kind != "gpus"]
    together = [] if here or answer.fits else _together(answer)
    more = [] if any(lever.kind == "layout" for lever in here) else [lever for lever in single if lever.kind == "gpus"]
    return (*here, *together, *more)


def nearest(answer: Fit, pulled: Iterable[Lever]) -> str:
    """One sentence: what would fit, and how many users that has room for; "" where nothing tried does."""
    told: list[tuple[str, str]] = []
    for lever in pulled:
        told.append((lever.words, _gives(answer, lever, brief=bool(told))))
    if not told:
        return ""
    head = [f"{words} ({gives})" for words, gives in told[:-1]]
    return f"{' or '.join([*head, told[-1][0]])} would fit ({told[-1][1]})"


def _gives(answer: Fit, lever: Lever, brief: bool) -> str:
    """The users that a change gives; after the first change of a sentence only the numbers, in the same order."""
    typical, found = answer.typical.prompt + answer.typical.output, lever.answer
    many = counted(full_users(found))
    if brief:
        other = f" of {found.max_model_len:,}" if found.max_model_len != answer.max_model_len else ""
        return f"{many}{other}, {counted(typical_users(found))}"
    return f"{many} user{'s' * (many != '1')} of {found.max_model_len:,} tokens, {counted(typical_users(found))} of {typical:,.0f}"


def counted(users: float) -> str:
    """A number of users, rounded down: whole ones, of few also a tenth."""
    return f"{int(users):,}" if users >= 10 else f"{int(10 * users) / 10:g}"


def _helps(before: Fit, lever: Lever) -> bool:
    after = lever.answer
    if not after.fits:
        return False
    return not before.fits or any(count(after) > GAIN * count(before) for count in (typical_users, full_users))


def _pulled(answer: Fit, change: Change) -> Lever:
    kind, words, changes = change
    return Lever(kind, words, sized(answer, **changes))


def _changes(answer: Fit) -> Iterator[Change]:
    for propose in LEVERS:
        yield from propose(answer)


# ---- the engine's settings ------------------------------------------------------------------------------------------

SETTINGS = {"memory": "memory_fraction", "tokens": "max_num_batched_tokens", "sequences": "max_num_seqs", "length": "max_model_len",
            "eager": "enforce_eager"}  # fmt: skip
OURS = {"kv": "--kv-dtype", "tensor": "--tp", "stages": "--pp", "lanes": "--dp"}


def said(engine: EngineRow, means: str, value: str = "") -> str:
    """A setting as the engine's server is told it; in our words where it has none."""
    words = words_of(engine)
    if words.has(means, value):
        flag, value = words.flag(means), words.value(means, value)
        flag = f"kv_cache_config.{flag}:" if not flag.startswith("-") and means == "kv" else flag
    else:
        flag = OURS.get(means) or flags_of(engine.server.name).get(SETTINGS[means]) or our_flag(SETTINGS[means])
    return f"{flag} {value}".strip()


def _set(answer: Fit, **settings: Any) -> EngineRow:
    gpu = answer.cluster.gpu
    return settled(override(answer.engine, **settings), gpu.memory_bytes, gpu.name, answer.max_model_len)


def _fraction(answer: Fit) -> Iterator[Change]:
    """The largest fraction that leaves the engine's own needs alone."""
    for hundredths in range(HIGHEST, round(100 * answer.engine.memory_fraction), -1):
        engine = _set(answer, memory_fraction=hundredths / 100)
        if sized(answer, engine=engine).room is not None:
            yield "memory", said(answer.engine, "memory", f"{hundredths / 100:g}"), {"engine": engine}
            return


def _smaller_steps(answer: Fit) -> Iterator[Change]:
    row = answer.engine
    if not row.chunk:  # the budget must hold whole prompts
        return
    if row.max_num_batched_tokens > STEP:
        yield "tokens", said(row, "tokens", str(STEP)), {"engine": _set(answer, max_num_batched_tokens=STEP)}


def _fewer_sequences(answer: Fit) -> Iterator[Change]:
    fewer = answer.engine.max_num_seqs // FEWER
    if fewer >= 1:
        yield "sequences", said(answer.engine, "sequences", str(fewer)), {"engine": _set(answer, max_num_seqs=fewer)}


def _cache_format(answer: Fit) -> Iterator[Change]:
    precision = answer.plan.precision
    known = words_of(answer.engine)
    if dtype(precision.kv).stored > 1 and (known.has("kv", "fp8") or not known.rows) and answer.cluster.gpu.arch not in OLDER:
        yield "kv", said(answer.engine, "kv", "fp8"), {"plan": replace(answer.plan, precision=replace(precision, kv="fp8"))}


def _eager(answer: Fit) -> Iterator[Change]:
    if answer.engine.pad:
        words = said(answer.engine, "eager") if words_of(answer.engine).has("eager") else "cuda_graph_config: null"
        yield "eager", words, {"engine": _set(answer, pad=())}


def _shorter(answer: Fit) -> Iterator[Change]:
    if answer.fits:
        return
    tokens = longest(answer)
    if tokens > 1:
        words = f"{said(answer.engine, 'length', str(tokens))} on {answer.plan.shorthand}"
        yield "length", words, {"max_model_len": tokens}


# ---- weights --------------------------------------------------------------------------------------------------------


def _weights(answer: Fit) -> Iterator[Change]:
    precision, model = answer.plan.precision, answer.model
    stored = min((dtype(name).stored for name in formats_of(model, precision)), default=0.0)  # of mixed ones what is most of it
    for name in SMALLER.get(round(8 * stored), ()):
        if name == "fp8" and answer.cluster.gpu.arch in OLDER:
            continue
        plan = replace(answer.plan, precision=replace(precision, weights=(), default=name))
        online = answer.fits and words_of(answer.engine).has("quantise", name)  # while loading, the weights as they are must fit
        words = said(answer.engine, "quantise", name) if online else f"a checkpoint in {NAMES[name]} [--weight-dtype {name}]"
        yield "weights", words, {"plan": plan}


# ---- layouts and GPUs -----------------------------------------------------------------------------------------------


def flags_of_plan(plan: Plan, engine: EngineRow) -> str:
    """The widths of one replica as the engine's server is told them."""
    words = words_of(engine)
    tensor = plan.stage_devices if engine.server.lanes_inside else plan.attention.tp
    parts = [said(engine, "tensor", str(tensor))] if tensor > 1 else []
    parts += [said(engine, "stages", str(plan.stages))] if plan.stages > 1 else []
    parts += [said(engine, "lanes", str(plan.lanes))] if plan.lanes > 1 and words.has("lanes") else []
    if plan.ffn.ep > 1:
        whole = not engine.server.mixed_experts and words.has("expert parallel")
        parts += [words.flag("expert parallel")] if whole else []
        parts += [f"{words.flag('experts')} {plan.ffn.ep}"] if words.has("experts") else []
    return " ".join(parts)


def _told(plan: Plan, engine: EngineRow) -> str:
    flags = flags_of_plan(plan, engine)
    return f"{flags}: {plan.shorthand}" if flags else plan.shorthand


def _other_layouts(answer: Fit) -> Iterator[Change]:
    """The first layout of the same GPUs that is as wide or wider, and fits."""
    for plan in layouts(answer.model, answer.cluster, answer.engine, answer.plan.precision):
        wider = plan.replica_devices > answer.plan.replica_devices or not answer.fits
        if wider and plan != answer.plan and sized(answer, plan=plan).fits:
            yield "layout", f"{_told(plan, answer.engine)} on these GPUs", {"plan": plan}
            return


def _more_gpus(answer: Fit) -> Iterator[Change]:
    """The first layout that fits on the smallest larger cluster: a fuller node first, then more nodes."""
    for grown in _grown(answer.cluster):
        for plan in layouts(answer.model, grown, answer.engine, answer.plan.precision):
            if plan.replicas == 1 and sized(answer, cluster=grown, plan=plan).fits:
                yield "gpus", f"{_told(plan, answer.engine)} on {_gpus(grown)}", {"cluster": grown, "plan": plan}
                return


def _gpus(cluster: Cluster) -> str:
    return f"{cluster.size} GPUs" if cluster.nodes == 1 else f"{cluster.nodes} × {cluster.per_node} GPUs"


def _grown(cluster: Cluster) -> Iterator[Cluster]:
    """Larger clusters, smallest first: nodes filled up to what is usual, then more of them."""
    node = island(replace(cluster, per_node=max(NODE, cluster.per_node), nodes=1))
    fuller = [replace(cluster, per_node=wide) for wide in FULLER if cluster.per_node < wide <= node]
    yield from fuller
    largest = fuller[-1] if fuller else cluster
    yield from (replace(largest, nodes=cluster.nodes * times) for times in MORE)


Propose = Callable[[Fit], Iterator[Change]]
LEVERS: tuple[Propose, ...] = (
    _fraction, _smaller_steps, _fewer_sequences, _cache_format, _eager, _shorter, _weights, _other_layouts, _more_gpus,
)  # fmt: skip


# ---- several at once ------------------------------------------------------------------------------------------------


JOINED: tuple[Propose, ...] = (_fraction, _smaller_steps, _fewer_sequences, _cache_format, _eager, _weights, _other_layouts, _shorter)


def _together(answer: Fit) -> list[Lever]:
    """The first ways of pulling two that are enough, else of three; each lever is proposed anew for where the last one led."""
    for many in (2, 3):
        found = [lever for kinds in combinations(JOINED, many) for lever in _chained(answer, kinds, "")]
        if found:
            return found[:TOGETHER]
    return []


def _chained(answer: Fit, kinds: tuple[Propose, ...], before: str) -> Iterator[Lever]:
    for change in kinds[0](answer):
        lever = _pulled(answer, change)
        words = " and ".join(filter(None, (before, lever.words)))
        if len(kinds) > 1:
            yield from _chained(lever.answer, kinds[1:], words)
        elif lever.answer.fits:
            yield Lever("together", words, lever.answer)
