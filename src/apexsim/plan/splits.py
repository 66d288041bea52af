"""Workers of a pool, and which pools can hand a request over (floor 3).

A worker is one server: a plan of one replica.  Of a cluster it takes a share of a node, or whole nodes; its stages, if it has any, are
its nodes.
"""

from __future__ import annotations

from collections.abc import Iterator

from apexsim.engines import EngineRow
from apexsim.errors import Rejected
from apexsim.hardware import Cluster
from apexsim.model.model import Model
from apexsim.plan.flags import words_of
from apexsim.plan.limits import unstartable
from apexsim.plan.plan import Plan, Precision
from apexsim.plan.space import candidates, divisors
from apexsim.plan.split import ROLES, Split

RULE = "pools hand over"


def worker_sizes(cluster: Cluster) -> tuple[int, ...]:
    """GPUs that one server may take and leave some for another: shares of a node, then whole nodes."""
    node, nodes = cluster.per_node, cluster.nodes
    return tuple(n for n in (*divisors(node), *(node * k for k in divisors(nodes) if k > 1)) if n < cluster.size)


def workers(model: Model, cluster: Cluster, precision: Precision, engine: EngineRow, *, hypothetical: bool = False) -> Iterator[Plan]:
    """Every layout of one server of a pool; those that the engine cannot be started with only where `hypothetical`."""
    for size in worker_sizes(cluster):
        inside = size <= cluster.per_node
        part = Cluster(cluster.gpu, size, 1) if inside else Cluster(cluster.gpu, cluster.per_node, size // cluster.per_node)
        for plan in candidates(model, part, precision).plans:
            able = hypothetical or not engine.has_server or not unstartable(model, plan, cluster, engine)
            if able and plan.replicas == 1 and plan.stages in (1, part.nodes):
                yield plan


def straddles(plan: Split, cluster: Cluster) -> str:
    """Why the servers of both pools cannot be dealt to nodes; "" when they can.  The larger ones come first."""
    first, last = sorted(plan.pools, key=lambda pool: -pool.replica_devices)
    each, node = last.replica_devices, cluster.per_node
    if plan.gpus != ("", "") or first.devices % each == 0 or (first.devices % node) % each == 0:
        return ""
    return f"a server of {each} GPUs beside {first.replicas} of {first.replica_devices} does not lie inside a node of {node}"


def refused(model: Model, plan: Split, prefill: EngineRow, decode: EngineRow, connector: str = "") -> Rejected | None:
    """Why two pools cannot hand requests over whatever the engine; None when they can."""
    first, last = plan.pools
    if first.precision.kv != last.precision.kv:
        why = f"the prefill pool keeps its cache in {first.precision.kv}, the decode pool in {last.precision.kv}"
    elif prefill.block_size != decode.block_size:
        sizes = f"the prefill pool has blocks of {prefill.block_size} tokens, the decode pool of {decode.block_size}"
        why = f"{sizes}: blocks are sent as they are"
    elif connector and first.attention.tp != last.attention.tp and _equal(decode, connector):
        name = words_of(decode).value("equal widths", connector)
        why = f"{name} wants the same tensor parallel size in both pools, not TP{first.attention.tp} and TP{last.attention.tp}"
    else:
        return None
    return Rejected(RULE, why, plan.shorthand)


def _equal(engine: EngineRow, what: str) -> bool:
    """Whether an engine hands something over between equal tensor parallel sizes only."""
    return engine.has_server and words_of(engine).has("equal widths", what)


def unsplittable(model: Model, plan: Split, prefill: EngineRow, decode: EngineRow, connector: str = "") -> str:
    """Why an engine cannot be told to serve both pools; "" when it can."""
    broken = refused(model, plan, prefill, decode, connector)
    if broken:
        return broken.reason
    for role, row in zip(ROLES, (prefill, decode)):
        if row.has_server and not words_of(row).has("role", role):
            return f"{row.name} {row.spoken} has no word for a {role} server"
    first, last = (pool.attention.tp for pool in plan.pools)
    if max(first, last) % min(first, last):
        return f"TP{first} and TP{last} do not divide each other: the cache of a head would have to be cut"
    recurrent = any(cell.recurrent for block in model.decoder.blocks for cell in block.cells)
    if recurrent and first != last and _equal(decode, "state"):
        return f"{decode.name} {decode.spoken} hands recurrent state over between equal tensor parallel sizes only"
    return ""
