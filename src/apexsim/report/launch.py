"""How to start the engine with a plan (floor 6).

Flags are rows per engine, so that a new engine is a new row.  The three memory fractions mean different things; each
engine's row of `data/engines` holds the fraction in that engine's own meaning, so it is passed on as it is.
Sources: the engines' argument references (vLLM 0.6–0.19, SGLang, TensorRT-LLM).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from apexsim.engines import DEFAULT_ENGINE, flags_of, load_engine
from apexsim.plan.plan import Plan
from apexsim.plan.space import routed, runnable
from apexsim.search.evaluate import Setting
from apexsim.search.study import Ranked, Study

Words = list[tuple[str, Any]]  # flags with values; None leaves a flag out, True writes it alone


@dataclass(frozen=True, slots=True)
class Launch:
    """A command per line of `commands` (none where the engine cannot run the plan), and what to know about it."""

    shorthand: str
    commands: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def runnable(self) -> bool:
        """Whether the engine can run the plan."""
        return bool(self.commands)


@dataclass(frozen=True, slots=True)
class Shape:
    """A plan in an engine's terms: widths of its groups, and how many separate servers it takes."""

    tp: int
    pp: int
    dp: int
    expert_parallel: bool
    servers: int


def shape_of(plan: Plan, setting: Setting) -> Shape | str:
    """The plan in the engine's terms, or why the engine has no such plan.

    Attention data parallel exists only around routed experts, which then are divided over the whole group.  Replicas of
    a dense model are data parallel ranks of one server (vLLM from 0.8 on); those of a routed one would share their
    experts, so they are servers of their own.
    """
    reason = runnable(plan, setting.model, setting.engine.name)
    if reason:
        return reason
    experts, lanes, ffn = routed(setting.model), plan.lanes, plan.ffn
    if plan.attention == ffn and lanes == 1:
        together = not experts and _joins_replicas(setting)
        return Shape(plan.attention.tp, plan.stages, plan.replicas if together else 1, False,
                     1 if together else plan.replicas)  # fmt: skip
    return Shape(plan.attention.tp, plan.stages, lanes, ffn.ep > 1, plan.replicas)


def _joins_replicas(setting: Setting) -> bool:
    """Whether one server of this engine version runs several replicas."""
    major, minor, *_ = (int(n) for n in setting.engine.version.split(".")[:2])
    return setting.engine.name != "vllm" or (major, minor) >= (0, 8)


def model_id(setting: Setting) -> str:
    """The model as a hub knows it."""
    return setting.model.name


def _dtypes(plan: Plan) -> tuple[str | None, str | None]:
    """(weight format to ask for, KV format to ask for), None where the engine's default does it."""
    given = (
        plan.precision.default
        if not plan.precision.weights and plan.precision.default not in ("bf16", "fp16")
        else None
    )
    return given, plan.precision.kv if plan.precision.kv not in ("bf16", "fp16", "fp32") else None


def _vllm(setting: Setting, plan: Plan, shape: Shape) -> tuple[str, Words]:
    row, default = setting.engine, load_engine(f"vllm@{setting.engine.version}")
    weights, kv = _dtypes(plan)
    chunk = {(1, 0): "--enable-chunked-prefill", (0, 1): "--no-enable-chunked-prefill"}.get((row.chunk, default.chunk))
    return f"vllm serve {shlex.quote(model_id(setting))}", [
        ("--tensor-parallel-size", shape.tp),
        ("--pipeline-parallel-size", shape.pp if shape.pp > 1 else None),
        ("--data-parallel-size", shape.dp if shape.dp > 1 else None),
        ("--enable-expert-parallel", shape.expert_parallel or None),
        ("--max-model-len", setting.max_model_len),
        ("--max-num-seqs", row.max_num_seqs),
        ("--max-num-batched-tokens", row.max_num_batched_tokens),
        ("--gpu-memory-utilization", f"{row.memory_fraction:g}"),
        ("--block-size", row.block_size if row.block_size != default.block_size else None),
        (chunk or "", True if chunk else None),
        ("--enforce-eager", not row.pad or None),
        ("--quantization", weights if weights == "fp8" else None),
        ("--kv-cache-dtype", kv),
    ]


def _sglang(setting: Setting, plan: Plan, shape: Shape) -> tuple[str, Words]:
    row, (weights, kv) = setting.engine, _dtypes(plan)
    inside = shape.dp > 1 and plan.lanes > 1  # data parallel attention lives inside tp
    return f"python -m sglang.launch_server --model-path {shlex.quote(model_id(setting))}", [
        ("--tp-size", shape.tp * (shape.dp if inside else 1)),
        ("--pp-size", shape.pp if shape.pp > 1 else None),
        ("--dp-size", shape.dp if shape.dp > 1 else None),
        ("--enable-dp-attention", inside or None),
        ("--ep-size", plan.ffn.ep if shape.expert_parallel else None),
        ("--context-length", setting.max_model_len),
        ("--max-running-requests", row.max_num_seqs * (shape.dp if inside else 1)),
        ("--chunked-prefill-size", row.max_num_batched_tokens),
        ("--mem-fraction-static", f"{row.memory_fraction:g}"),
        ("--page-size", row.block_size if row.block_size > 1 else None),
        ("--disable-cuda-graph", not row.pad or None),
        ("--quantization", weights if weights == "fp8" else None),
        ("--kv-cache-dtype", "fp8_e4m3" if kv == "fp8" else kv),
    ]


def _tensorrt_llm(setting: Setting, plan: Plan, shape: Shape) -> tuple[str, Words]:
    row = setting.engine
    inside = shape.dp if plan.lanes > 1 else 1
    return f"trtllm-serve {shlex.quote(model_id(setting))}", [
        ("--tp_size", shape.tp * inside),
        ("--pp_size", shape.pp if shape.pp > 1 else None),
        ("--ep_size", plan.ffn.ep if shape.expert_parallel else None),
        ("--max_seq_len", setting.max_model_len),
        ("--max_batch_size", row.max_num_seqs),
        ("--max_num_tokens", row.max_num_batched_tokens),
        ("--kv_cache_free_gpu_memory_fraction", f"{row.memory_fraction:g}"),
    ]


ENGINES: dict[str, Callable[[Setting, Plan, Shape], tuple[str, Words]]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "tensorrt-llm": _tensorrt_llm,
}


def launch(setting: Setting, plan: Plan) -> Launch:
    """The command that starts a plan."""
    write = ENGINES.get(setting.engine.name)
    if write is None:
        return Launch(
            plan.shorthand,
            (),
            (f"{setting.engine.label} is a batching policy without a server of its own: no launch command",),
        )
    shape = shape_of(plan, setting)
    if isinstance(shape, str):
        return Launch(plan.shorthand, (), (shape,))
    head, words = write(setting, plan, shape)
    return Launch(plan.shorthand, (" ".join([head, *_flags(words)]),), tuple(_notes(setting, plan, shape)))


def _flags(words: Words) -> list[str]:
    return [flag if value is True else f"{flag} {value}" for flag, value in words if value is not None]


def _notes(setting: Setting, plan: Plan, shape: Shape) -> list[str]:
    """What the command alone does not say."""
    notes = []
    if shape.servers > 1:
        notes.append(
            f"start {shape.servers} such servers, each on {_gpus(plan.devices // shape.servers)}, "
            f"behind a {setting.route} router"
        )
    nodes = -(-plan.devices // shape.servers // setting.cluster.per_node)
    if nodes > 1:
        notes.append(
            f"a server spans {nodes} nodes: start it on each "
            f"(vLLM: --nnodes {nodes} --node-rank I --master-addr HOST, or Ray)"
        )
    if plan.lanes > 1 and plan.ffn.ep > setting.cluster.per_node and not setting.cluster.gpu.link.multi_node:
        notes.append(
            "experts span nodes: priced with DeepEP "
            "(vLLM: --all2all-backend deepep_low_latency; SGLang: --moe-a2a-backend deepep)"
        )
    if plan.clock:
        lock = LOCKS.get(setting.cluster.gpu.vendor, "with the vendor's tool, to {0} MHz")
        notes.append(f"lock the clock on every node first: {lock.format(plan.clock)}")
    weights, _ = _dtypes(plan)
    if weights and weights != "fp8":
        notes.append(f"{weights} weights need a checkpoint in that format")
    return notes


LOCKS = {"NVIDIA": "nvidia-smi --lock-gpu-clocks={0},{0}", "AMD": "rocm-smi --setperfdeterminism {0}"}


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count > 1)}"


def nearest_runnable(study: Study) -> tuple[Ranked, Launch] | None:
    """The best ranked plan that the engine can run."""
    for ranked in study.ranked:
        found = launch(study.setting, ranked.plan)
        if found.runnable:
            return ranked, found
    return None


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
    return [word for v in values for word in (flag, shlex.quote(f"{v:g}" if isinstance(v, float) else str(v)))]
