"""How a plan is started, of one pool or of two: servers of both roles behind a router that knows them (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from apexsim.errors import Rejected
from apexsim.hardware import Cluster
from apexsim.plan.split import ROLES, AnyPlan, Split
from apexsim.report.dialects import BOOTSTRAP_PORT, ServerStart, side_port
from apexsim.report.launch import Launch, asked, beside_others, launch, notes_of, once, server_of, travel
from apexsim.report.servers import FIRST_PORT, POLICIES, Command, Place, Shell, locks, pool_places, script, turned, url
from apexsim.search.setting import FAR, Setting
from apexsim.search.startable import blocked

FILE = "apexsim-disaggregated.yaml"
Pools = Sequence[Sequence[Place]]  # places of the prefill servers, and of the decode servers


def launched(setting: Setting, plan: AnyPlan) -> Launch:
    """The commands that start a plan as it was simulated."""
    return _split(setting, plan) if isinstance(plan, Split) else launch(setting, plan)


@dataclass(frozen=True, slots=True)
class PoolsScene:
    """Two pools, and where their servers stand; `cluster` has the nodes of both."""

    setting: Setting
    cluster: Cluster
    asks: tuple[ServerStart, ServerStart]
    places: Pools


def _split(setting: Setting, plan: Split) -> Launch:
    why = blocked(setting, plan)
    scene = why or scene_of(setting, plan)
    if isinstance(scene, str):
        return Launch(plan.shorthand, (), (scene,))
    servers = sum(map(len, scene.places))
    commands = [c for own, pool in zip(setting.of(plan), plan.pools) for c in locks(pool, own.cluster)]
    for ask, places in zip(scene.asks, scene.places):
        commands += once(c for place in places for c in server_of(ask, place, beside_others(ask, place, servers + 1)))
    commands += ROUTERS[scene.asks[0].engine.server.dialect](scene)
    texts = tuple(c.text(math.inf) for c in once(commands))
    return Launch(plan.shorthand, texts, tuple(_notes(scene)), script(once(commands), scene.cluster.nodes))


def scene_of(setting: Setting, plan: Split) -> PoolsScene | str:
    """Both pools as they are asked for, or why one does not fit."""
    owns = setting.of(plan)
    asks = [asked(own, pool) for own, pool in zip(owns, plan.started)]
    first, last = asks
    if isinstance(first, Rejected):
        return first.reason
    if isinstance(last, Rejected):
        return last.reason
    made = pool_places(plan.pools, [own.cluster for own in owns])
    nodes = 1 + max(node for pool in made for place in pool for node in place.nodes)
    cluster = replace(owns[0].cluster, nodes=nodes)
    told = [_in_role(ask, role, nodes) for ask, role in zip((first, last), ROLES)]
    return PoolsScene(setting, cluster, (told[0], told[1]), made)


def _in_role(ask: ServerStart, role: str, nodes: int) -> ServerStart:
    """What a server is asked for, with its part and the nodes that both pools have."""
    setting = replace(ask.setting, cluster=replace(ask.setting.cluster, nodes=nodes))
    return replace(ask, role=role, setting=setting, travel=travel(ask.setting, ask.plan, role))


def _notes(scene: PoolsScene) -> list[str]:
    found = [f"{role}: {note}" for role, ask in zip(ROLES, scene.asks) for note in notes_of(ask, ())]
    both = [note for note in notes_of(scene.asks[0], ()) if note in notes_of(scene.asks[1], ())]
    found = [note for note in found if note.partition(": ")[2] not in both]
    counts = " and ".join(_counted(role, ask, places) for role, ask, places in zip(ROLES, scene.asks, scene.places))
    return [
        *both,
        *found,
        f"{counts}, behind a router on port {FIRST_PORT}",
        *([KEPT] if scene.setting.decider != FAR else []),
        *turned("the router", scene.setting.router.name, () if scene.asks[0].engine.server.dialect == "trtllm" else POLICIES),
        "under Dynamo or llm-d: --json, launch_with",
        *CAVEATS[scene.asks[0].engine.server.dialect],
    ]


def _counted(role: str, ask: ServerStart, places: Sequence[Place]) -> str:
    each = ask.plan.replica_devices
    return f"{len(places)} {role} server{'s' * (len(places) > 1)} of {each} GPU{'s' * (each > 1)}"


KEPT = (
    "vllm-router sends every prompt to the prefill servers; which ones stay at decode is said to Dynamo's frontend, or to llm-d's "
    "prefix-based decider (nonCachedTokens)"
)
CAVEATS = {
    "vllm": ("every server needs the package nixl and, between nodes, RDMA for UCX (UCX_NET_DEVICES)",),
    "sglang": ("every server needs mooncake-transfer-engine (or nixl) and, between nodes, --disaggregation-ib-device",),
    "trtllm": ("the cache goes over NIXL or UCX, which TensorRT-LLM's container holds",),
}


# ---- the routers ------------------------------------------------------------------------------------------------------

# vllm-router (vllm-project/router, py_src/vllm_router/router_args.py): --vllm-pd-disaggregation, --prefill URL [PORT], --decode URL, each
# as often as there are servers, --policy, --kv-connector {nixl, mooncake, moriio}.  sglang_router (launch_router): --pd-disaggregation and
# the same words, with the bootstrap port behind a prefill server's address.  trtllm-serve disaggregated -c FILE
# (examples/disaggregated/README.md of TensorRT-LLM): hostname, port, and num_instances and urls of context_servers and generation_servers.


def _words(scene: PoolsScene, port: Callable[[Place], tuple[str, ...]]) -> list[tuple[str, ...]]:
    made = [("--prefill", url(place, scene.cluster), *port(place)) for place in scene.places[0]]
    made += [("--decode", url(place, scene.cluster)) for place in scene.places[1]]
    policy = POLICIES.get(scene.setting.router.name, "round_robin")
    return [*made, ("--policy", policy), ("--host", "0.0.0.0"), ("--port", str(FIRST_PORT)), ("--worker-startup-timeout-secs", "3600")]


def _vllm_router(scene: PoolsScene) -> list[Command]:
    own = (("--kv-connector", scene.setting.connector),) if scene.setting.connector == "mooncake" else ()
    return [Command((("vllm-router",), ("--vllm-pd-disaggregation",), *_words(scene, lambda place: ()), *own))]


def _sglang_router(scene: PoolsScene) -> list[Command]:
    program = ("python", "-m", "sglang_router.launch_router")
    words = _words(scene, lambda place: (str(side_port(place, BOOTSTRAP_PORT)),))
    return [Command((program, ("--pd-disaggregation",), *words))]


def _trtllm_router(scene: PoolsScene) -> list[Command]:
    lines = ["hostname: 0.0.0.0", f"port: {FIRST_PORT}", "backend: pytorch"]
    for name, places in zip(("context_servers:", "generation_servers:"), scene.places):
        lines += [name, f"  num_instances: {len(places)}", "  urls:"]
        lines += [f'    - "{_host(place, scene.cluster)}:{place.port}"' for place in places]
    write: tuple[tuple[str, ...], ...] = (("cat",), (Shell(">"), FILE))
    if scene.cluster.nodes > 1:  # the addresses of the nodes are put in by the shell
        named = ";".join(f"s/NODE{node}:/$NODE{node}:/" for node in _heads(scene))
        write = (("sed", Shell(f'"{named}"')), (Shell(">"), FILE))
    return [Command(write, document="\n".join(lines), lasting=False), Command((("trtllm-serve", "disaggregated"), ("-c", FILE)))]


def _host(place: Place, cluster: Cluster) -> str:
    return f"NODE{place.nodes[0]}" if cluster.nodes > 1 else "127.0.0.1"


def _heads(scene: PoolsScene) -> list[int]:
    """Nodes at which servers listen, highest first, so that NODE1 is not found in NODE11."""
    return sorted({place.nodes[0] for places in scene.places for place in places}, reverse=True)


ROUTERS: dict[str, Callable[[PoolsScene], list[Command]]] = {"vllm": _vllm_router, "sglang": _sglang_router, "trtllm": _trtllm_router}
