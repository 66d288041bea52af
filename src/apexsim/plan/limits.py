"""What an engine itself allows at start-up: sequences that its state blocks hold, and the longest request (floor 3).

A prediction of memory is not a promise: independent logs lay between `kv_low_bytes` and `kv_high_bytes` around it.  What
would keep a server from starting is therefore counted at the low end, so that a launch taken from it starts.
"""

from __future__ import annotations

from dataclasses import replace

from apexsim.engine_file import DIALECTS, order
from apexsim.engines import HOLDS_PROMPT, WHOLE, EngineRow, captured
from apexsim.errors import Rejected
from apexsim.hardware import Cluster
from apexsim.model.model import Model
from apexsim.model.parts import routed_experts
from apexsim.plan.flags import words_of
from apexsim.plan.memory import Room, room
from apexsim.plan.plan import Plan
from apexsim.plan.pool import concurrency, request_blocks
from apexsim.plan.space import runnable

LEAST = 0.5  # of the predicted cache: the low end is never taken to be less
LATENT_GRAPHS = 2048  # tokens up to which SGLang captures prompt steps of latent attention; longer ones run as they are
JOINING = ("hopper", "blackwell", "blackwell-ultra")  # architectures with an all-reduce that does the norm behind it
ROUND = 1024  # a length that the cache decides is rounded down to this
TABLE_SHARE = 0.02  # of a GPU's memory: what the table of every request's blocks may take
TABLE_BYTES = 4  # of one entry (32-bit block numbers; vLLM BlockTable, SGLang ReqToTokenPool)


def sure_blocks(found: Room) -> int:
    """Blocks that the cache holds at the low end of what independent logs showed."""
    sure = max(found.kv_range[0], LEAST * found.kv_bytes)
    return max(1, int(sure // found.pool.block_bytes))


def most_sequences(found: Room, engine: EngineRow) -> int:
    """The largest max_num_seqs that the engine starts with.

    vLLM wants a block of recurrent state for each sequence; an engine with a pool of its own for state has as many as
    that pool holds.
    """
    rules = engine.memory
    if rules.state_needs_blocks and found.pool.state_blocks:
        return min(engine.max_num_seqs, sure_blocks(found))
    if rules.state_share and found.pool.state_bytes:
        pool = dict(found.ledger).get("recurrent state", 0.0)
        return max(1, min(engine.max_num_seqs, int(pool // found.pool.state_bytes)))
    return engine.max_num_seqs


def prompts_captured(model: Model, plan: Plan, engine: EngineRow) -> EngineRow:
    """The engine with its prompt steps in graphs, where it captures them and can for this model and plan: they wait for no launches."""
    if engine.prompt_graphs != WHOLE or not engine.pad:
        return engine
    cells = [cell for block in model.decoder.blocks for cell in block.cells]
    apart = any(cell.recurrent or cell.index_bytes() > 0.0 for cell in cells)
    short = any(cell.latent_width() for cell in cells) and engine.max_num_batched_tokens > LATENT_GRAPHS
    if plan.lanes > 1 or plan.stages > 1 or model.vision is not None or apart or short:
        return engine
    return replace(engine, prompt_add_launch_s=0.0, prompt_floor_launch_s=0.0)


def norms_joined(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow) -> EngineRow:
    """The engine with as many norms in its all-reduces as it joins for this model and plan: on one node, without lanes."""
    able = cluster.gpu.arch in JOINING and plan.lanes == 1 and plan.stage_devices <= cluster.per_node
    wanted = 2 if model.family in engine.norm_families.split() else engine.joined_norms
    return replace(engine, joined_norms=wanted if able else 0)


def started(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow, max_model_len: int) -> tuple[EngineRow, Room] | Rejected:
    """The engine as it can be started with a plan, and the plan's room; or why it cannot.  `engine` must be settled.

    Fewer sequences need a smaller sampler buffer and fewer graphs, so the room of the second look is never smaller.
    """
    engine = norms_joined(model, plan, cluster, prompts_captured(model, plan, engine))
    found = room(model, plan, cluster, engine, max_model_len)
    if isinstance(found, Rejected):
        return found
    most = most_sequences(found, engine)
    if most == engine.max_num_seqs:
        return engine, found
    fewer = replace(captured(engine, most), max_num_seqs=most, large_max_num_seqs=most)
    again = room(model, plan, cluster, fewer, max_model_len)
    return again if isinstance(again, Rejected) else (fewer, again)


def served_length(model: Model, cluster: Cluster, engine: EngineRow, found: Room, needed: int) -> int:
    """The longest request that a server can be told to take: the model's own, or what cache and rules allow.

    It is never less than `needed`, the longest request simulated.
    """
    count, low, high = sure_blocks(found), 0, model.max_length
    while low < high:  # blocks grow with the length
        middle = (low + high + 1) // 2
        low, high = (middle, high) if request_blocks(found.pool, middle, engine) <= count else (low, middle - 1)
    table = TABLE_SHARE * cluster.gpu.memory_bytes / (TABLE_BYTES * engine.max_num_seqs) * engine.block_size
    length = min(low, int(table))
    if not engine.chunk and 0 < engine.length_budget < HOLDS_PROMPT:  # prompts are not cut: the budget must hold the longest request
        length = min(length, engine.max_num_batched_tokens)
    if length < model.max_length and length > ROUND:
        length = length // ROUND * ROUND
    return min(max(length, needed), model.max_length)


def at_full_length(found: Room, engine: EngineRow, length: int) -> float:
    """Requests of `length` tokens that the cache holds at once."""
    return concurrency(found.pool, int(found.kv_bytes // found.pool.block_bytes), length, engine)


# ---- what cannot be started at all -------------------------------------------------------------------------------

FOLLOWS = "drafts by batch"  # the meaning of an engine's word for a number of drafts that follows it
CACHES = ("fp8", "int8", "fp32")  # formats of the KV cache that an engine must be told


def unstartable(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow) -> str:
    """Why this engine in this version cannot be started with a plan on these GPUs; "" when it can."""
    return runnable(plan, model, engine.server.name) or next(
        filter(None, (rule(model, plan, cluster, engine) for rule in (_vendor, _words, _experts, _drafts, _nodes, _wide))), ""
    )


def _vendor(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow) -> str:
    vendors = engine.server.vendors
    if vendors and cluster.gpu.vendor not in vendors:
        return f"{engine.server.name} is not known to be started on GPUs of {cluster.gpu.vendor} ({cluster.gpu.name})"
    kept = {plan.precision.default, *dict(plan.precision.weights).values()}
    for arch, since, form, _ in engine.server.not_on:
        if arch == cluster.gpu.arch and order(engine.spoken) >= order(since) and (not form or form in kept):
            what = f"{form} weights on {arch.capitalize()}" if form else f"{arch.capitalize()}"
            return f"{engine.name} {engine.spoken} does not run {'' if form else 'on '}{what} GPUs ({cluster.gpu.name})"
    return ""


def _words(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow) -> str:
    """What the version has no word for."""
    words, server, kv = words_of(engine), engine.server, plan.precision.kv
    width = plan.stage_devices if server.lanes_inside else plan.attention.tp
    wanted = (  # whether the plan wants it, its meaning, the value that it must take, what is missing without
        (width > 1, "tensor", "", "tensor parallelism"),
        (plan.stages > 1, "stages", "", "pipeline stages"),
        (plan.replicas > 1 and plan.replica_devices < cluster.per_node, "port", "", "word for a port, so that servers stand side by side"),
        (plan.lanes > 1, "lanes inside" if server.lanes_inside else "lanes", "", "data parallel attention"),
        (plan.ffn.ep > 1, "experts" if server.mixed_experts else "expert parallel", "", "expert parallelism"),
        (kv in CACHES, "kv", kv, f"KV cache in {kv}"),
        (engine.capture > 0, "graph sizes", "", "word for the sizes of CUDA graphs"),
        (not model.generates, "vectors", "", "way to serve models that generate nothing"),
        (plan.draft is not None, "drafts", plan.draft.method if plan.draft else "", "speculative decoding by that method"),
    )
    for wants, means, value, told in wanted:
        if wants and not words.has(means, value):
            return f"{engine.name} {engine.spoken} has no {told}"
    return ""


def _experts(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow) -> str:
    """Experts that do not divide into ranks."""
    ep = plan.ffn.ep
    uneven = next((count for count in routed_experts(model) if count % ep), 0)
    return (
        f"{engine.name} puts as many experts on each GPU: {uneven} do not divide by ep {ep}"
        if uneven and engine.server.even_experts
        else ""
    )


def follows(engine: EngineRow, method: str) -> bool:
    """Whether the number of drafts can follow the batch, both of those that are made and of those that are verified."""
    return words_of(engine).has(FOLLOWS, method)


def _drafts(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow) -> str:
    """Lanes whose drafts a version refuses: their batches differ, and with them the drafts that they would make in step."""
    method = plan.draft.method if plan.draft else ""
    if plan.draft and plan.draft.by and not follows(engine, method):
        since = next((word.since for word in engine.server.words if word.means == FOLLOWS and method in dict(word.values)), "")
        hint = f" ({engine.name}@{since} has it)" if since else ""
        return f"{engine.name} {engine.spoken} has no number of {method} drafts that follows the batch{hint}"
    if plan.draft and plan.draft.by and plan.lanes > 1:
        return f"{engine.name} {engine.spoken} lets the number of drafts follow the batch with one lane of attention only"
    if plan.lanes > 1 and method in engine.server.lanes_without:
        return f"{engine.name} {engine.spoken} takes no {method} drafts with data parallel attention"
    return ""


def _nodes(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow) -> str:
    """A server fills whole nodes, or its share of one."""
    each, node = plan.replica_devices, cluster.per_node
    if node % each and each % node:
        return f"a server of {each} GPUs does not divide into nodes of {node}"
    if each > node and engine.server.dialect == DIALECTS[0] and not words_of(engine).has("nodes"):
        return f"{engine.name} {engine.spoken} has no word for a server on several nodes"
    return ""


def _wide(model: Model, plan: Plan, cluster: Cluster, engine: EngineRow) -> str:
    """Lanes beside tensor parallelism are dealt to nodes; one wider than a node needs the launcher of several nodes."""
    lane, node = plan.attention.tp * plan.stages, cluster.per_node
    if engine.server.lanes_inside or plan.lanes == 1 or plan.replica_devices <= node:
        return ""
    words = words_of(engine)
    if not words.has("lanes of node"):
        return f"{engine.name} {engine.spoken} has no data parallel attention over several nodes"
    if node % lane and not (words.has("nodes") and lane % node == 0):
        return f"{engine.name} {engine.spoken} cannot place lanes of {lane} GPUs on nodes of {node}"
    return ""
