"""How each engine is told a plan: one `Dialect` per way of speaking (floor 6).

What the prediction assumed is listed by meaning, and each meaning becomes the engine's word in its version (`plan.flags`).  A
meaning that a version cannot be told is its default there, or is said in a note.  An engine's file names its dialect; the
plain one says what most servers take, so that an engine is launched by its words alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from textwrap import wrap
from typing import Any

from apexsim.drafting import Drafting
from apexsim.engines import EngineRow, load_engine, settled
from apexsim.plan.flags import Words
from apexsim.plan.limits import FOLLOWS
from apexsim.plan.memory import Room
from apexsim.plan.plan import Plan
from apexsim.plan.second import second_model
from apexsim.plan.space import blocks
from apexsim.report.checkpoint import Checkpoint, found_at
from apexsim.report.servers import WIDTH, Command, Place, Shell, address
from apexsim.search.setting import Setting

Said = list[tuple[str, Any]]  # (meaning, value): None and False are left out, True is the word alone
OPTIONS = "apexsim-trtllm.yaml"
SENT = 511  # tokens that a rank sends at once with DeepEP's low latency: NVSHMEM queues 1,024 entries, of which n tokens want 2 (n + 1)
UNCAPTURED = 128  # of those, what engines make room for where no graph says more


@dataclass(frozen=True, slots=True)
class ServerStart:
    """What a server is asked for: the setting and plan, the engine as it can be started, and what follows from them."""

    setting: Setting
    plan: Plan
    engine: EngineRow
    room: Room
    length: int
    weights: Checkpoint
    words: Words
    travel: str  # how tokens reach experts of other lanes, "" where they need not: gather, mori, deepep, "deepep prompts", "deepep steps"
    role: str = ""  # "prefill" or "decode", of a server in one of two pools

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
    def width(self) -> int:
        """Tokens of a sequence in a step that decodes."""
        return self.plan.draft.width if self.plan.draft else 1

    @property
    def sent(self) -> int:
        """Tokens of a rank that DeepEP's low latency is made to hold; 0 where it is not used, or by servers of prompts alone."""
        row = self.engine
        if self.role == "prefill" or self.travel != ("deepep" if self.words.has("dispatched") else "deepep steps"):
            return 0
        wanted = row.max_num_seqs if row.max_num_seqs != self.usual.max_num_seqs else max(row.pad, default=UNCAPTURED)
        return min(SENT, max(UNCAPTURED, self.width * wanted))

    @property
    def sequences(self) -> int:
        """Sequences of a lane that the server is told to run at once: no more than DeepEP holds the tokens of."""
        return min(self.engine.max_num_seqs, self.sent // self.width) if self.sent else self.engine.max_num_seqs

    @property
    def dtype(self) -> str | None:
        """The 16-bit format to ask for."""
        old = self.setting.cluster.gpu.arch in ("volta", "turing")  # no bf16 units
        return "fp16" if old else self.weights.dtype or None


# ---- any server ------------------------------------------------------------------------------------------------------


def _plain(ask: ServerStart) -> Said:
    row, usual, plan = ask.engine, ask.usual, ask.plan
    return [
        ("tensor", plan.stage_devices if row.server.lanes_inside else plan.attention.tp),
        ("stages", plan.stages if plan.stages > 1 else None),
        ("lanes", plan.lanes if plan.lanes > 1 else None),
        ("lanes inside", plan.lanes > 1),
        ("expert parallel", plan.ffn.ep > 1),
        ("experts", plan.ffn.ep if plan.ffn.ep > 1 else None),
        ("length", ask.length),
        ("sequences", row.max_num_seqs),
        ("tokens", row.max_num_batched_tokens),
        ("memory", f"{row.memory_fraction:.12g}"),
        ("block", row.block_size),
        ("chunked", bool(row.chunk and not usual.chunk)),
        ("not chunked", bool(usual.chunk and not row.chunk)),
        ("no prefix cache", not row.reuse),
        ("eager", not row.pad),
        ("graph sizes", list(row.pad) or None),
        ("dtype", ask.dtype),
        ("quantise", ask.weights.quantise or None),
        ("kv", ask.kv),
    ]


def _by_rank(ask: ServerStart, place: Place, node: int) -> Said:
    """How many nodes there are, which one this is, and where the first one listens."""
    if len(place.nodes) == 1:
        return []
    head = Shell(f'"$NODE{place.nodes[0]}:{HEAD_PORT}"')
    return [("nodes", len(place.nodes)), ("node", str(node - place.nodes[0])), ("head", head)]


HEAD_PORT, BESIDE = 20_000, 100  # of SGLang's --dist-init-addr, and how far apart those of a node lie: parts of a server count on from it


def _sglang_nodes(ask: ServerStart, place: Place, node: int) -> Said:
    """Lanes of one node talk at ports that follow the server's own, where the next server's would lie: each server beside others has
    ports of its own."""
    if len(place.nodes) > 1 or ask.plan.lanes == 1 or place.whole:
        return _by_rank(ask, place, node)
    return [("head", f"127.0.0.1:{HEAD_PORT + BESIDE * place.gpus[0]}")]


def _no_role(ask: ServerStart, place: Place, node: int) -> Said:
    return []


def side_port(place: Place, first: int) -> int:
    """The port at which a server of two pools is found by its partner: ranks and lanes of a server count on from it."""
    return first + place.gpus[0]


def _as_is(ask: ServerStart, place: Place, made: list[Command]) -> list[Command]:
    return made


# ---- vLLM ------------------------------------------------------------------------------------------------------------


def _vllm(ask: ServerStart) -> Said:
    row, usual, plan = ask.engine, ask.usual, ask.plan
    return [
        ("vectors", None if ask.setting.model.generates else "vectors"),
        ("tensor", plan.attention.tp),
        ("stages", plan.stages if plan.stages > 1 else None),
        ("lanes", plan.lanes if plan.lanes > 1 else None),
        ("expert parallel", plan.ffn.ep > 1),
        ("all to all", ask.travel or None),
        ("length", ask.length),
        ("sequences", ask.sequences),
        ("tokens", _vllm_tokens(ask)),
        ("memory", f"{row.memory_fraction:.12g}"),
        ("block", row.block_size if row.block_size != usual.block_size else None),
        ("chunked", bool(row.chunk and not usual.chunk)),
        ("not chunked", bool(usual.chunk and not row.chunk)),
        ("no prefix cache", not row.reuse),
        ("eager", not row.pad),
        ("most captured", row.capture if _captured_so(ask) else None),
        ("graph sizes", _vllm_captured(ask)),
        ("compilation", None if row.prompt_graphs else json.dumps({"cudagraph_mode": "FULL_DECODE_ONLY"})),
        ("steps ahead", row.lag > usual.lag),
        ("steps in turn", row.lag < usual.lag),
        ("whole prompt fits", row.admission == 3 and usual.admission != 3),
        ("whole prompt unasked", row.admission != 3 and usual.admission == 3),
        ("dtype", ask.dtype),
        ("quantise", ask.weights.quantise or None),
        ("kv", ask.kv),
        ("images", _images(ask) if ask.setting.images > 1 else None),
        ("drafts", _vllm_drafts(ask)),
        ("tiers", _vllm_tiers(ask)),
    ]


STAGED = 1e9  # bytes of host memory through which engines reach other tiers, where no host tier is asked for


def _vllm_tiers(ask: ServerStart) -> str | None:
    """Host memory of all workers of an engine, and what lies behind it: a folder that all servers may share."""
    behind = _vllm_behind(ask)
    return json.dumps(behind) if behind and not ask.role else None


def _vllm_behind(ask: ServerStart) -> dict[str, Any]:
    """The connector of the tiers, empty without."""
    tiers = {tier.kind: tier for tier in ask.setting.offload}
    if not tiers:
        return {}
    host = tiers["cpu"].size / ask.plan.lanes if "cpu" in tiers else STAGED
    extra: dict[str, Any] = {"cpu_bytes_to_use": int(host)}
    far = [{"type": "fs", "root_dir": f"/mnt/kv-{kind}"} for kind in tiers if kind != "cpu"]
    if far:
        extra = {"spec_name": "TieringOffloadingSpec", **extra, "secondary_tiers": far}
    return {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}


def _vllm_both(ask: ServerStart, sends: dict[str, str]) -> str:
    """What sends the cache, and the tiers behind it where there are any: who is asked first gives a prompt all of its blocks."""
    behind = _vllm_behind(ask)
    if not behind:
        return json.dumps(sends)
    both = [sends, behind] if ask.role == "decode" else [behind, sends]
    return json.dumps({"kv_connector": "MultiConnector", "kv_role": "kv_both", "kv_connector_extra_config": {"connectors": both}})


VLLM_CONNECTORS = {"": "NixlConnector", "nixl": "NixlConnector", "mooncake": "MooncakeConnector"}
NIXL_PORT = 5600  # VLLM_NIXL_SIDE_CHANNEL_PORT, vllm/envs.py


def _vllm_role(ask: ServerStart, place: Place, node: int) -> Said:
    """The connector; ranks on each node listen for their partners at that node's own address."""
    name = VLLM_CONNECTORS[ask.setting.connector]
    told = {"kv_connector": name, "kv_role": ask.words.value("role", ask.role), "kv_load_failure_policy": "fail"}
    if name != "NixlConnector":
        return [("role", _vllm_both(ask, {key: told[key] for key in ("kv_connector", "kv_role")}))]
    far = ask.setting.cluster.nodes > 1
    host = address(node, ask.setting.cluster) if far else None
    return [("side host", host), ("side port", str(side_port(place, NIXL_PORT))), ("role", _vllm_both(ask, told))]


def _vllm_tokens(ask: ServerStart) -> int:
    """Tokens of a step: no more than DeepEP holds; a model without a cache takes no prompt in pieces."""
    budget = ask.engine.max_num_batched_tokens
    if not ask.setting.model.generates:
        return max(budget, ask.length)
    return min(budget, ask.sent or budget)


def _vllm_captured(ask: ServerStart) -> list[int] | None:
    """The sizes of graphs, where they are not those that vLLM comes to by itself."""
    row = ask.engine
    if not row.pad or row.pad == _vllm_sizes(row, ask.usual) or _captured_so(ask):
        return None
    return [size for size in row.pad if not ask.sent or size <= ask.sent]


def _captured_so(ask: ServerStart) -> bool:
    """Does vLLM come to its sizes from the largest that it is told?"""
    return bool(ask.engine.capture) and ask.words.has("most captured")


def _vllm_sizes(row: EngineRow, usual: EngineRow) -> tuple[int, ...]:
    """The capture sizes that vLLM takes by itself (config/vllm.py, _set_cudagraph_sizes)."""
    top = min(row.capture_per_sequence * row.max_num_seqs, row.max_num_batched_tokens)
    all_ = load_engine(f"{usual.name}@{usual.version}").pad
    more = (row.max_num_batched_tokens,) if row.max_num_batched_tokens <= min(top, all_[-1]) else ()
    return tuple(sorted({*(size for size in all_ if size <= top), *more}))


DRAFTER = "$DRAFTER"  # an EAGLE-3 head or a model, where the user alone knows where it lies


def _drafter(draft: Drafting) -> Shell | str | None:
    """Who drafts, where the server must be told: a model by its name, a head by the user."""
    if draft.model and not drafter_unknown(draft):
        return found_at(second_model(draft.model))[0]
    return Shell(f'"{DRAFTER}"') if drafter_unknown(draft) else None


def drafter_unknown(draft: Drafting) -> bool:
    """Whether the user alone knows where the head or model that drafts lies."""
    return draft.method == "eagle3" or bool(draft.model and found_at(second_model(draft.model))[1])


def _vllm_drafts(ask: ServerStart) -> Shell | str | None:
    """vLLM's JSON for drafts."""
    draft = ask.plan.draft
    if draft is None:
        return None
    told: dict[str, Any] = {"method": ask.words.value("drafts", draft.method), "num_speculative_tokens": draft.tokens}
    if draft.by and ask.words.has(FOLLOWS):
        last = max(ask.engine.max_num_seqs, draft.by[-2][0] + 1)  # vLLM goes on with the last one's drafts beyond its end
        ends = [0, *(end or last for end, _ in draft.by)]
        told[ask.words.flag(FOLLOWS)] = [[first + 1, end, k] for (first, end), (_, k) in zip(pairwise(ends), draft.by, strict=True)]
    if draft.method == "ngram":
        told["prompt_lookup_max"] = draft.tokens
    if draft.model:
        told |= {"model": _drafter(draft), "draft_tensor_parallel_size": ask.plan.attention.tp}
    if not drafter_unknown(draft):
        return json.dumps(told)
    return Shell('"' + json.dumps({**told, "model": DRAFTER}).replace('"', '\\"') + '"')


def _images(ask: ServerStart) -> str:
    new = ask.words.has("lanes")  # the versions that read JSON here are those that have lanes
    return json.dumps({"image": ask.setting.images}) if new else f"image={ask.setting.images}"


def _vllm_nodes(ask: ServerStart, place: Place, node: int) -> Said:
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


def _over_ray(ask: ServerStart, place: Place, made: list[Command]) -> list[Command]:
    """Versions without `--nnodes` stand on a Ray cluster; the server starts on its first node."""
    if len(made) == 1 or ask.words.has("nodes") or ask.plan.lanes > 1:
        return made
    first = place.nodes[0]
    join = Shell(f'--address="$NODE{first}:6379"')
    rays = [Command((("ray", "start", "--head", "--port=6379"),), first, lasting=False)]
    rays += [Command((("ray", "start"), (join, "--block")), node) for node in place.nodes[1:]]
    return [*rays, made[0]]


# ---- SGLang ----------------------------------------------------------------------------------------------------------


def _sglang(ask: ServerStart) -> Said:
    row, plan = ask.engine, ask.plan
    return [
        ("vectors", not ask.setting.model.generates),
        ("tensor", plan.stage_devices),  # lanes of attention live inside it
        ("stages", plan.stages if plan.stages > 1 else None),
        ("lanes", plan.lanes if plan.lanes > 1 else None),
        ("lanes inside", plan.lanes > 1),
        ("head of lanes", plan.lanes > 1),
        ("experts", plan.ffn.ep if plan.ffn.ep > 1 else None),
        ("all to all", ask.travel or None),
        ("dense whole", 1 if plan.wide else None),
        ("half batches", bool(row.half_batches)),
        ("length", ask.length),
        ("sequences", ask.sequences * plan.lanes),
        ("tokens", row.max_num_batched_tokens * plan.lanes if row.chunk else -1),  # shared out to the lanes
        ("prompt tokens", row.prefill_limit or row.max_num_batched_tokens),
        ("mixed", bool(row.mix)),
        ("memory", f"{row.memory_fraction:.12g}"),
        ("block", row.block_size),
        ("no prefix cache", not row.reuse),
        ("eager", not row.pad),
        ("graph sizes", _sglang_sizes(ask) or None),
        ("dispatched", ask.sent or None),
        ("poll", row.poll_interval if row.poll_interval > 1 else None),
        ("dtype", ask.dtype),
        ("quantise", ask.weights.quantise or None),
        ("kv", ask.kv),
        *_sglang_drafts(ask),
        *_sglang_tiers(ask),
    ]


def _sglang_sizes(ask: ServerStart) -> list[int]:
    """The sizes of graphs; where DeepEP holds fewer tokens than the largest has, up to what it holds."""
    pad, most = ask.engine.pad, ask.sequences
    if not ask.sent or not pad or pad[-1] <= most:
        return list(pad)
    return [*(size for size in pad if size < most), most]


def _sglang_tiers(ask: ServerStart) -> Said:
    """HiCache: GB of host memory of each rank, which a store may lie behind."""
    tiers = {tier.kind: tier for tier in ask.setting.offload}
    if not tiers or ask.role == "decode":  # which has no tree of prefixes that they could lie behind
        return []
    host = tiers["cpu"].size if "cpu" in tiers else STAGED
    return [
        ("tiers", True),
        ("host tier", max(1, round(host / (ask.plan.stage_devices * ask.plan.stages) / 1e9))),
        ("store", "file" if "disk" in tiers or "remote" in tiers else None),
    ]


def _sglang_drafts(ask: ServerStart) -> Said:
    """SGLang counts the newest token among those that it verifies; a chain of drafts, no tree, was simulated."""
    draft = ask.plan.draft
    if draft is None:
        return []
    chain = draft.method != "ngram"
    return [
        ("drafts", draft.method),
        ("drafter", _drafter(draft)),
        ("draft steps", draft.tokens if chain else None),
        ("draft branches", 1 if chain else None),
        ("draft tokens", draft.width),
    ]


BOOTSTRAP_PORT = 8998  # --disaggregation-bootstrap-port, sglang/srt/server_args.py


def _sglang_role(ask: ServerStart, place: Place, node: int) -> Said:
    port = side_port(place, BOOTSTRAP_PORT) if ask.role == "prefill" else None
    return [("role", ask.role), ("transfer", ask.setting.connector or "mooncake"), ("side port", port)]


# ---- TensorRT-LLM ----------------------------------------------------------------------------------------------------


def _tensorrt_llm(ask: ServerStart) -> Said:
    row, plan = ask.engine, ask.plan
    return [
        ("backend", "pytorch"),
        ("tensor", plan.stage_devices),
        ("stages", plan.stages if plan.stages > 1 else None),
        ("experts", plan.ffn.ep if plan.ffn.ep > 1 else None),
        ("length", ask.length),
        ("sequences", row.max_num_seqs),
        ("tokens", row.max_num_batched_tokens),
        ("memory", f"{row.memory_fraction:.12g}"),
        ("options", _file(ask)),
        ("all to all", ask.travel if ask.travel == "deepep" else None),
    ]


def _file(ask: ServerStart) -> str:
    """The file of options: of each role its own."""
    return OPTIONS.replace(".yaml", f"-{ask.role}.yaml") if ask.role else OPTIONS


def _cache_sent(ask: ServerStart) -> list[str]:
    """How a server of two pools hands the cache on: a context server makes one token and runs without steps ahead; the buffer holds the
    longest prompt."""
    if not ask.role:
        return []
    block, longest = ask.engine.block_size, int(ask.setting.workload.prompt.max())
    room = -(-max(longest, ask.length) // block) * block
    return [
        f"{ask.words.flag('role')} {ask.words.value('role', ask.role)}",
        f"{ask.words.flag('transfer')}\n  backend: {(ask.setting.connector or 'default').upper()}\n  max_tokens_in_buffer: {room}",
    ]


def _options(ask: ServerStart) -> str:
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
        f"  enable_block_reuse: {str(bool(row.reuse)).lower()}",
        f"  free_gpu_memory_fraction: {row.memory_fraction:.12g}",
    ]
    host = next((tier.size for tier in ask.setting.offload), 0.0) if ask.role != "decode" else 0.0  # there nothing is found
    lines += [f"  host_cache_size: {int(host / (plan.stage_devices * plan.stages))}"] if host else []
    lines += [f"  {word('kv')}: {ask.words.value('kv', ask.kv)}"] if ask.kv else []
    lines += [f"  tokens_per_block: {row.block_size}"] if row.block_size != ask.usual.block_size else []
    if plan.ffn.ep > 1:
        lines += [f"{word('expert parallel')} {plan.ffn.ep}", f"{word('expert tensor')} {plan.ffn.tp}"]
    if row.batch_wait_iters:
        lines += [f"{word('wait steps')} {row.batch_wait_iters}", f"{word('wait tokens')} {row.batch_wait_ratio:g}"]
    if row.balance_wait:
        lines += [f"{word('balance')}\n  enable_balance: true\n  timeout_iters: {row.balance_wait}"]
    if plan.draft:
        lines += [f"{word('drafts')}", *_drafts(plan.draft, ask.words.value("drafts", plan.draft.method))]
    return "\n".join([*lines, *_cache_sent(ask)])


def _drafts(draft: Drafting, kind: str) -> list[str]:
    """The section of TensorRT-LLM's options about drafts."""
    layers = draft.method == "mtp"
    lines = [f"  decoding_type: {kind}", f"  {'num_nextn_predict_layers' if layers else 'max_draft_len'}: {draft.tokens}"]
    if draft.method == "eagle3":
        lines += ["  eagle3_one_model: true"]
    if draft.method in ("eagle3", "draft"):
        lines += [f"  speculative_model_dir: {DRAFTER if drafter_unknown(draft) else _drafter(draft)}"]
    return lines if draft.method != "ngram" else [*lines, f"  max_matching_ngram_size: {draft.tokens}"]


def _over_mpi(ask: ServerStart, place: Place, made: list[Command]) -> list[Command]:
    """TensorRT-LLM reads its options from a file, and over nodes MPI starts a worker for each GPU."""
    first, cluster = place.nodes[0], ask.setting.cluster
    write = Command((("cat", Shell(">"), _file(ask)),), first, document=_options(ask), lasting=False)
    if len(made) == 1:
        return [write, made[0]]
    hosts = Shell(",".join(f'"$NODE{node}":{cluster.per_node}' for node in place.nodes))
    run = (("mpirun", "-n", str(ask.plan.replica_devices)), ("--host", hosts))
    env = tuple(("-x", f"{name}={value}") for name, value in made[0].env)
    parts = (*run, *env, ("--allow-run-as-root",), ("trtllm-llmapi-launch",), *made[0].parts)
    return [write, replace(made[0], parts=parts, env=())]


# ---- which there are -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dialect:
    """said: what a server is told of its plan; over_nodes: what it is told beside that on each of several nodes; wrapped: the
    commands of a server, one per node, with those that must go before or around them; role: what a server of two pools is told of its
    part."""

    said: Callable[[ServerStart], Said] = _plain
    over_nodes: Callable[[ServerStart, Place, int], Said] = _by_rank
    wrapped: Callable[[ServerStart, Place, list[Command]], list[Command]] = _as_is
    role: Callable[[ServerStart, Place, int], Said] = _no_role


SPOKEN = {
    "plain": Dialect(),
    "vllm": Dialect(_vllm, _vllm_nodes, _over_ray, _vllm_role),
    "sglang": Dialect(_sglang, _sglang_nodes, role=_sglang_role),
    "trtllm": Dialect(_tensorrt_llm, wrapped=_over_mpi),
}


def spoken(words: Words, said: Said) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, str], ...]]:
    """(flags with their values, environment variables) for what is said; what the version has no word for is left out."""
    flags: list[tuple[str, ...]] = []
    env: list[tuple[str, str]] = []
    for means, value in said:
        if value is None or value is False or not words.has(means):
            continue
        word = words.flag(means)
        if not word.startswith("-"):
            env.append((word, value if isinstance(value, Shell) else words.value(means, str(value))))
        elif value is True:
            flags.append((word,))
        else:
            many = value if isinstance(value, list) else [value]
            flags.append((word, *(v if isinstance(v, Shell) else words.value(means, str(v)) for v in many)))
    return tuple(flags), tuple(env)
