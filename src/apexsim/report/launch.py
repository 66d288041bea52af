"""How to start an engine so that it runs what was simulated (floor 6).

What the prediction assumed is listed by meaning (`speak`), and each meaning becomes the engine's word in its version
(`plan.flags`).  A meaning that a version cannot be told is its default there, or is said in a note.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Any

from apexsim.engines import DEFAULT_ENGINE, EngineRow, flags_of, load_engine, settled
from apexsim.errors import Rejected
from apexsim.plan.flags import Words, words_of
from apexsim.plan.limits import at_full_length, served_length, started, unstartable
from apexsim.plan.lower import exchanges
from apexsim.plan.memory import Room, size
from apexsim.plan.plan import Plan
from apexsim.plan.space import blocks
from apexsim.report.checkpoint import Checkpoint, checkpoint
from apexsim.report.servers import WIDTH, Command, Place, Shell, address, locks, places, router, script, seen
from apexsim.search.evaluate import Setting

Said = list[tuple[str, Any]]  # (meaning, value): None and False are left out, True is the word alone
DEEPEP = ("hopper", "blackwell", "blackwell-ultra")  # DeepEP's kernels want SM 9.0 or newer and NVLink
MORI = ("cdna3", "cdna4")
OPTIONS = "apexsim-trtllm.yaml"
RULES = ("order", "admission", "preempt", "watermark")  # of a row, which no engine can be told


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a plan: every command on a line of its own, in order (none where the engine cannot run it); `script`: all
    of them as they can be pasted, lines broken; `notes`: what to know about them."""

    shorthand: str
    commands: tuple[str, ...]
    notes: tuple[str, ...] = ()
    script: str = ""

    @property
    def runnable(self) -> bool:
        """Whether the engine can run the plan."""
        return bool(self.commands)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a server is asked for: the setting and plan, the engine as it can be started, and what follows from them."""

    setting: Setting
    plan: Plan
    engine: EngineRow
    room: Room
    length: int
    weights: Checkpoint
    words: Words
    travel: str  # how tokens reach experts of other lanes: "" = they need not, "gather", "deepep" or "mori"

    @property
    def usual(self) -> EngineRow:
        """The row with the version's own defaults."""
        gpu, row = self.setting.cluster.gpu, load_engine(f"{self.engine.name}@{self.engine.version}")
        return settled(row, gpu.memory_bytes, gpu.name, self.setting.max_model_len)

    @property
    def kv(self) -> str | None:
        """The format of the cache to ask for; None where the engine's own choice is the plan's."""
        kv, model = self.plan.precision.kv, self.setting.model
        sparse = any(c.latent_width() and c.index_bytes() for b in blocks(model) for c in b.cells)
        other = kv != "bf16" or model.kv_dtype not in ("", kv) or sparse  # engines take FP8 for sparse latents
        return kv if other and self.words.has("kv", kv) else None

    @property
    def dtype(self) -> str | None:
        """The 16-bit format to ask for."""
        old = self.setting.cluster.gpu.arch in ("volta", "turing")  # no bf16 units
        return "fp16" if old else self.weights.dtype or None


# ---- what each engine is told ---------------------------------------------------------------------------------------


def _vllm(ask: Ask) -> Said:
    row, usual, plan = ask.engine, ask.usual, ask.plan
    return [
        ("tensor", plan.attention.tp),
        ("stages", plan.stages if plan.stages > 1 else None),
        ("lanes", plan.lanes if plan.lanes > 1 else None),
        ("expert parallel", plan.ffn.ep > 1),
        ("all to all", ask.travel or None),
        ("length", ask.length),
        ("sequences", row.max_num_seqs),
        ("tokens", row.max_num_batched_tokens),
        ("memory", f"{row.memory_fraction:g}"),
        ("block", row.block_size if row.block_size != usual.block_size else None),
        ("chunked", bool(row.chunk and not usual.chunk)),
        ("not chunked", bool(usual.chunk and not row.chunk)),
        ("no prefix cache", True),
        ("eager", not row.pad),
        ("graph sizes", list(row.pad) if row.pad and row.pad != _vllm_sizes(row, usual) else None),
        ("compilation", None if row.prompt_graphs else json.dumps({"cudagraph_mode": "FULL_DECODE_ONLY"})),
        ("steps ahead", row.lag > usual.lag),
        ("steps in turn", row.lag < usual.lag),
        ("whole prompt fits", row.admission == 3 and usual.admission != 3),
        ("whole prompt unasked", row.admission != 3 and usual.admission == 3),
        ("dtype", ask.dtype),
        ("quantise", ask.weights.quantise or None),
        ("kv", ask.kv),
        ("images", _images(ask) if ask.setting.images > 1 else None),
    ]


def _vllm_sizes(row: EngineRow, usual: EngineRow) -> tuple[int, ...]:
    """The capture sizes that vLLM takes by itself (config/vllm.py, _set_cudagraph_sizes)."""
    top = min(row.capture_per_sequence * row.max_num_seqs, row.max_num_batched_tokens)
    all_ = load_engine(f"{usual.name}@{usual.version}").pad
    more = (row.max_num_batched_tokens,) if row.max_num_batched_tokens <= min(top, all_[-1]) else ()
    return tuple(sorted({*(size for size in all_ if size <= top), *more}))


def _images(ask: Ask) -> str:
    new = ask.words.has("lanes")  # the versions that read JSON here are those that have lanes
    return json.dumps({"image": ask.setting.images}) if new else f"image={ask.setting.images}"


def _sglang(ask: Ask) -> Said:
    row, plan = ask.engine, ask.plan
    return [
        ("tensor", plan.stage_devices),  # lanes of attention live inside it
        ("stages", plan.stages if plan.stages > 1 else None),
        ("lanes", plan.lanes if plan.lanes > 1 else None),
        ("lanes inside", plan.lanes > 1),
        ("head of lanes", plan.lanes > 1),
        ("experts", plan.ffn.ep if plan.ffn.ep > 1 else None),
        ("all to all", ask.travel or None),
        ("length", ask.length),
        ("sequences", row.max_num_seqs * plan.lanes),
        ("tokens", row.max_num_batched_tokens * plan.lanes if row.chunk else -1),  # shared out to the lanes
        ("prompt tokens", row.prefill_limit or row.max_num_batched_tokens),
        ("mixed", bool(row.mix)),
        ("memory", f"{row.memory_fraction:g}"),
        ("block", row.block_size),
        ("no prefix cache", True),
        ("eager", not row.pad),
        ("graph sizes", list(row.pad) or None),
        ("poll", row.poll_interval if row.poll_interval > 1 else None),
        ("dtype", ask.dtype),
        ("quantise", ask.weights.quantise or None),
        ("kv", ask.kv),
    ]


def _tensorrt_llm(ask: Ask) -> Said:
    row, plan = ask.engine, ask.plan
    return [
        ("backend", "pytorch"),
        ("tensor", plan.stage_devices),
        ("stages", plan.stages if plan.stages > 1 else None),
        ("experts", plan.ffn.ep if plan.ffn.ep > 1 else None),
        ("length", ask.length),
        ("sequences", row.max_num_seqs),
        ("tokens", row.max_num_batched_tokens),
        ("memory", f"{row.memory_fraction:g}"),
        ("options", OPTIONS),
        ("all to all", ask.travel if ask.travel == "deepep" else None),
    ]


def _options(ask: Ask) -> str:
    """TensorRT-LLM's file of options: what its command line has no word for.

    The section of the cache takes the place of what the command line said of it, so the fraction stands in both."""
    row, plan, word = ask.engine, ask.plan, ask.words.flag
    sizes = "\n".join(wrap(f"  batch_sizes: {list(row.pad)}", WIDTH, subsequent_indent="    "))
    graphs = f"\n  enable_padding: true\n{sizes}" if row.pad else " null"
    lines = [
        f"{word('lanes inside')} {str(plan.lanes > 1).lower()}",
        f"{word('chunked')} {str(bool(row.chunk)).lower()}",
        f"{word('graph sizes')}{graphs}",
        word("cache"),
        "  enable_block_reuse: false",
        f"  free_gpu_memory_fraction: {row.memory_fraction:g}",
    ]
    lines += [f"  {word('kv')}: {ask.words.value('kv', ask.kv)}"] if ask.kv else []
    lines += [f"  tokens_per_block: {row.block_size}"] if row.block_size != ask.usual.block_size else []
    if plan.ffn.ep > 1:
        lines += [f"{word('expert parallel')} {plan.ffn.ep}", f"{word('expert tensor')} {plan.ffn.tp}"]
    if row.batch_wait_iters:
        lines += [f"{word('wait steps')} {row.batch_wait_iters}", f"{word('wait tokens')} {row.batch_wait_ratio:g}"]
    if row.balance_wait:
        lines += [f"{word('balance')}\n  enable_balance: true\n  timeout_iters: {row.balance_wait}"]
    return "\n".join(lines)


SPEAK: dict[str, Callable[[Ask], Said]] = {"vllm": _vllm, "sglang": _sglang, "tensorrt-llm": _tensorrt_llm}
PROGRAM = {"vllm": ("vllm", "serve"), "sglang": ("python", "-m", "sglang.launch_server"), "tensorrt-llm": ("trtllm-serve",)}


def spoken(words: Words, said: Said) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, str], ...]]:
    """(flags with their values, environment variables) for what is said; what the version has no word for is left out."""
    flags: list[tuple[str, ...]] = []
    env: list[tuple[str, str]] = []
    for means, value in said:
        if value is None or value is False or not words.has(means):
            continue
        word = words.flag(means)
        if not word.startswith("-"):
            env.append((word, words.value(means, str(value))))
        elif value is True:
            flags.append((word,))
        else:
            many = value if isinstance(value, list) else [value]
            flags.append((word, *(v if isinstance(v, Shell) else words.value(means, str(v)) for v in many)))
    return tuple(flags), tuple(env)


# ---- one server on one or several nodes ---------------------------------------------------------------------------


def _vllm_nodes(ask: Ask, place: Place, node: int) -> Said:
    """vLLM over nodes: lanes are dealt to nodes where they fit in one; else each node runs its part of every lane."""
    count, first = len(place.nodes), place.nodes[0]
    if count == 1:
        return []
    head, rank = address(first, ask.setting.cluster), node - first
    lane, per_node = ask.plan.attention.tp * ask.plan.stages, ask.setting.cluster.per_node
    if ask.plan.lanes > 1 and per_node % lane == 0:
        here = per_node // lane
        return [
            ("lanes of node", here),
            ("lanes head", head),
            ("lanes port", 13345),
            ("first lane", rank * here or None),
            ("headless", rank > 0),
        ]
    if ask.words.has("nodes"):
        return [("nodes", count), ("node", str(rank)), ("head", head), ("headless", rank > 0)]
    return [("executor", "ray")]


def _sglang_nodes(ask: Ask, place: Place, node: int) -> Said:
    if len(place.nodes) == 1:
        return []
    head = Shell(f'"$NODE{place.nodes[0]}:20000"')
    return [("nodes", len(place.nodes)), ("node", str(node - place.nodes[0])), ("head", head)]


def _server(ask: Ask, place: Place, servers: int) -> list[Command]:
    """The commands of one server, on each of its nodes."""
    name, cluster = ask.engine.engine, ask.setting.cluster
    model = ("--model-path", ask.weights.name) if name == "sglang" else (ask.weights.name,)
    far = cluster.nodes > 1 and servers > 1 and name != "vllm"  # the others listen on the loopback only
    tail: Said = [("host", "0.0.0.0" if far else None), ("port", place.port if servers > 1 else None)]
    made = []
    for node in place.nodes:
        said = SPEAK[name](ask)
        if name == "vllm":
            said += _vllm_nodes(ask, place, node)
        if name == "sglang":
            said += _sglang_nodes(ask, place, node)
        flags, env = spoken(ask.words, said + tail)
        program: tuple[str, ...] = PROGRAM[name]
        made.append(Command((program, model, *flags), node, (*seen(place, cluster), *env)))
    return {"vllm": _over_ray, "tensorrt-llm": _over_mpi}.get(name, _as_is)(ask, place, made)


def _as_is(ask: Ask, place: Place, made: list[Command]) -> list[Command]:
    return made


def _over_ray(ask: Ask, place: Place, made: list[Command]) -> list[Command]:
    """Versions without `--nnodes` stand on a Ray cluster; the server starts on its first node."""
    if len(made) == 1 or ask.words.has("nodes") or ask.plan.lanes > 1:
        return made
    first = place.nodes[0]
    join = Shell(f'--address="$NODE{first}:6379"')
    rays = [Command((("ray", "start", "--head", "--port=6379"),), first, lasting=False)]
    rays += [Command((("ray", "start"), (join, "--block")), node) for node in place.nodes[1:]]
    return [*rays, made[0]]


def _over_mpi(ask: Ask, place: Place, made: list[Command]) -> list[Command]:
    """TensorRT-LLM reads its options from a file, and over nodes MPI starts a worker for each GPU."""
    first, cluster = place.nodes[0], ask.setting.cluster
    write = Command((("cat", Shell(">"), OPTIONS),), first, document=_options(ask), lasting=False)
    if len(made) == 1:
        return [write, made[0]]
    hosts = Shell(",".join(f'"$NODE{node}":{cluster.per_node}' for node in place.nodes))
    run = (("mpirun", "-n", str(ask.plan.replica_devices)), ("--host", hosts))
    env = tuple(("-x", f"{name}={value}") for name, value in made[0].env)
    parts = (*run, *env, ("--allow-run-as-root",), ("trtllm-llmapi-launch",), *made[0].parts)
    return [write, replace(made[0], parts=parts, env=())]


# ---- the whole launch -----------------------------------------------------------------------------------------------


def launch(setting: Setting, plan: Plan) -> Launch:
    """The commands that start a plan as it was simulated."""
    if setting.engine.engine != setting.engine.name:
        why = f"{setting.engine.label} is a batching policy without a server of its own: no launch command"
        return Launch(plan.shorthand, (), (why,))
    why = unstartable(setting.model, plan, setting.cluster, setting.engine)
    if why:
        return Launch(plan.shorthand, (), (why,))
    ask = asked(setting, plan)
    if isinstance(ask, Rejected):
        return Launch(plan.shorthand, (), (ask.reason,))
    where, cluster = places(plan, setting.cluster), setting.cluster
    commands = [*locks(plan, cluster), *_once(c for place in where for c in _server(ask, place, len(where)))]
    if len(where) > 1:
        commands += router(where, cluster, setting.engine.engine, setting.route)
    return Launch(
        plan.shorthand, tuple(c.text(math.inf) for c in commands), tuple(_notes(ask, where)), script(commands, cluster.nodes)
    )


def _once(commands: Iterable[Command]) -> list[Command]:
    """Files that several servers of a node read are written once."""
    return list(dict.fromkeys(commands))


def asked(setting: Setting, plan: Plan) -> Ask | Rejected:
    """What the server of a plan is asked for, or why it does not fit."""
    where = (setting.model, plan, setting.cluster)
    start = started(*where, setting.engine, setting.max_model_len)
    if isinstance(start, Rejected):
        found = size(*where, setting.engine, setting.max_model_len)
        if isinstance(found, Rejected) or setting.engine.memory.refuses:
            return start
        start = (setting.engine, found)
    engine, found = start
    length = setting.max_model_len
    if not setting.length_given:
        length = served_length(setting.model, setting.cluster, engine, found, min(length, setting.model.max_length))
    words = words_of(engine)
    return Ask(setting, plan, engine, found, length, checkpoint(setting, plan), words, _travel(setting, plan))


def _travel(setting: Setting, plan: Plan) -> str:
    """How tokens reach experts of other lanes."""
    if plan.lanes == 1 or plan.ffn.ep == 1:
        return ""
    if not _exchanged(setting, plan):
        return "gather"
    gpu, words = setting.cluster.gpu, words_of(setting.engine)
    kind = "deepep" if gpu.arch in DEEPEP else "mori" if gpu.arch in MORI else "gather"
    return kind if words.has("all to all", kind) else "gather"


def _exchanged(setting: Setting, plan: Plan) -> bool:
    """Whether tokens were simulated to travel to their experts, instead of all being gathered everywhere."""
    link, per_node = setting.cluster.gpu.link, setting.cluster.per_node
    return exchanges(plan, link.span if link.multi_node else per_node)


def _notes(ask: Ask, where: Sequence[Place]) -> list[str]:
    """What the commands alone do not say."""
    setting, plan, row = ask.setting, ask.plan, ask.engine
    notes = [*ask.weights.notes, _length_note(ask)]
    if row.max_num_seqs < setting.engine.max_num_seqs:
        notes.append(
            f"{row.max_num_seqs:,} sequences, not {setting.engine.max_num_seqs:,}: the state of the recurrent layers has "
            "room for no more at the low end of the prediction"
        )
    if _exchanged(setting, plan) and ask.travel == "gather":
        notes.append(
            f"tokens were simulated to travel to their experts; {row.name} {row.spoken} has no such library for "
            f"{setting.cluster.gpu.name} and gathers all tokens on every GPU: expect it to be slower"
        )
    if plan.precision.activation != "auto":
        notes.append(f"activations in {plan.precision.activation}: the checkpoint decides, no flag does")
    if plan.precision.kv == "fp16" and not ask.kv:
        notes.append(f"a KV cache in fp16 was simulated; {row.name} {row.spoken} has no word for it and keeps it in the model's own format")
    usual = ask.usual
    odd = [name for name in RULES if getattr(row, name) != getattr(usual, name) and not (name == "admission" and row.engine == "vllm")]
    if odd:
        notes.append(f"simulated with a rule of its own ({', '.join(odd)}), which {row.name} {row.spoken} cannot be told")
    if len(where) > 1:
        each = plan.replica_devices
        notes.append(f"{len(where)} servers of {each} GPU{'s' * (each > 1)}, behind a {setting.route} router on port 8000")
    return notes


def _length_note(ask: Ask) -> str:
    """What the model length means: the longest request that was simulated beside what the server takes."""
    setting, length = ask.setting, ask.length
    many = at_full_length(ask.room, ask.engine, length)
    held = f"room for {many:,.0f} of those" if many >= 2 else f"room for {many:.1f} of those"
    limit = f"the model allows {setting.model.max_length:,}"
    if length == setting.model.max_length:
        return f"longest simulated request {setting.workload.longest:,} tokens; {limit}, {held}"
    return f"longest simulated request {setting.workload.longest:,} tokens; {limit}, this server {length:,}, {held}"


# ---- the same question again ---------------------------------------------------------------------------------------

FLAGS = {"slos": "--slo", "columns": "--map"}
ALONE = ("enable_expert_parallel", "hypothetical")  # flags without a value


def again(verb: str, inputs: dict[str, Any], defaults: dict[str, Any], **changes: Any) -> str:
    """The command line that asks the question of `inputs`, with changes; defaults are left out."""
    asked = {**inputs, **dict(inputs.get("settings") or {}), **changes}
    own = flags_of(load_engine(str(asked.get("engine") or DEFAULT_ENGINE)).name)
    words = ["apexsim", verb, shlex.quote(str(asked.pop("model", "")))]
    for name, value in asked.items():
        if name == "settings" or value is None or value == defaults.get(name):
            continue
        words += _option(name, value, own)
    return " ".join(words)


def _option(name: str, value: Any, own: dict[str, str]) -> list[str]:
    if name == "chunk":
        return ["--enable-chunked-prefill" if value else "--no-enable-chunked-prefill"]
    if name == "pad":
        return [own.get("enforce_eager", "--enforce-eager")] if not value else []
    if name in ALONE:
        return ["--" + name.replace("_", "-")]
    flag = FLAGS.get(name) or own.get(name) or "--" + name.replace("_", "-")
    values: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    if name == "slos":  # limits and plans in the form that a shell leaves alone
        values = [re.sub("<=?", "=", str(limit)) for limit in values]
    if name == "plan":
        values = [str(value).replace("×", "x")]
    return [word for v in values for word in (flag, shlex.quote(f"{v:g}" if isinstance(v, float) else str(v)))]
