"""Two pools under an orchestrator: Dynamo's workers and frontend, llm-d's values (floor 6).

Words and sources.  Dynamo (ai-dynamo/dynamo, examples/backends/*/launch/disagg*.sh and components): `python -m dynamo.frontend
--router-mode round-robin|kv --http-port`, --router-conditional-disagg and its -config (docs, Conditional Disaggregation), workers `python
-m dynamo.vllm|sglang|trtllm` with the engine's own words, `--disaggregation-mode prefill|decode`; of trtllm `--model-path` and
`--extra-engine-args FILE`.  Workers find each other through etcd and NATS, no port of their own is named.  llm-d (the modelservice
chart's values): modelArtifacts, routing.proxy.connector nixlv2 (the sidecar before a decode server, which then listens on 8200), prefill
and decode with create, replicas and containers, whose image it requires (templates/_helpers.tpl).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from apexsim.plan.split import ROLES, AnyPlan, Split
from apexsim.report.apart import PoolsScene, scene_of
from apexsim.report.dialects import ServerStart
from apexsim.report.launch import beside_others, once, server_of
from apexsim.report.servers import FIRST_PORT, Command, Place, image, script
from apexsim.search.setting import FAR, Decider, Setting
from apexsim.search.startable import blocked

MODULES = {"vllm": "dynamo.vllm", "sglang": "dynamo.sglang", "trtllm": "dynamo.trtllm"}
EVENTS = 12_000  # beyond a worker's own port
PORTS = {"prefill": FIRST_PORT, "decode": 8200}  # of llm-d's containers
UNSAID = ("--port", "--host")  # of a worker that serves no HTTP
RESOURCE = {"NVIDIA": "nvidia.com/gpu", "AMD": "amd.com/gpu"}


def stacks(setting: Setting, plan: AnyPlan) -> dict[str, str | None]:
    """How a plan of two pools is started under each orchestrator; None where that is not written, {} of one pool."""
    if not isinstance(plan, Split):
        return {}
    scene = "no" if blocked(setting, plan) else scene_of(setting, plan)
    if isinstance(scene, str):
        return dict.fromkeys(STACKS)
    return {name: write(scene) for name, write in STACKS.items()}


# ---- Dynamo ------------------------------------------------------------------------------------------------------------


Parts = tuple[tuple[str, ...], ...]


def _dynamo(scene: PoolsScene) -> str | None:
    mode = "kv" if scene.setting.router.name in ("cache-aware", "prefix-hash", "dynamo") else "round-robin"
    told = _conditional(scene.setting.decider)
    mode = "kv" if told else mode
    commands = [Command((("python", "-m", "dynamo.frontend"), ("--router-mode", mode), *told, ("--http-port", str(FIRST_PORT))))]
    for ask, places in zip(scene.asks, scene.places):
        commands += once(c for place in places for c in _workers(ask, place))
    return script(commands, scene.cluster.nodes)


def _conditional(decider: Decider) -> Parts:
    """Dynamo's words for prompts that stay at decode; its share is below 1 always, so that a prompt that nobody has is sent away."""
    if decider == FAR:
        return ()
    near, busy = decider.tokens > 0, math.isfinite(decider.busy)
    policy = "isl_or_load" if near and busy else "isl_bounding" if near else "prefill_load"
    told: dict[str, str | float] = {"policy": policy}
    told |= {"eff_isl_threshold": decider.tokens, "eff_isl_ratio_threshold": min(decider.share, 1.0)} if near else {}
    told |= {"prefill_busy_threshold": decider.busy} if busy else {}
    return (("--router-conditional-disagg",), ("--router-conditional-disagg-config", json.dumps(told)))


def _workers(ask: ServerStart, place: Place) -> list[Command]:
    """What starts one worker; a file that it reads before it."""
    dialect = ask.engine.server.dialect
    program = ("python", "-m", MODULES[dialect])
    made = []
    for command in server_of(ask, place, beside_others(ask, place, 2)):
        if command.document:
            document = "\n".join([*_widths(ask), command.document])
            made.append(Command(command.parts, command.node, command.env, document, lasting=False))
        elif ask.engine.server.program == command.parts[0]:
            parts = (program, *WORKER[dialect](ask, command))
            made.append(Command(tuple(part for part in parts if part[0] not in UNSAID), command.node, command.env))
        else:
            made.append(command)
    return made


def _vllm_worker(ask: ServerStart, command: Command) -> Parts:
    told = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
    rest = tuple(part for part in command.parts[2:] if part[0] != "--kv-transfer-config")
    sent = ("--kv-transfer-config", json.dumps(told))
    seen = (("--kv-events-config", _events(command)),) if ask.setting.decider != FAR else ()
    return (("--model", command.parts[1][-1]), *rest, sent, *seen, ("--disaggregation-mode", ask.role))


def _events(command: Command) -> str:
    """Where a worker says what its cache holds: one port for each, which its own tells apart."""
    port = next(int(part[1]) for part in command.parts if part[0] == "--port")
    return json.dumps({"publisher": "zmq", "topic": "kv-events", "endpoint": f"tcp://*:{EVENTS + port}", "enable_kv_cache_events": True})


def _trtllm_worker(ask: ServerStart, command: Command) -> Parts:
    file = next(part[1] for part in command.parts if part[0] == ask.words.flag("options"))
    name = command.parts[1][-1]
    return (("--model-path", name), ("--served-model-name", name), ("--extra-engine-args", file), ("--disaggregation-mode", ask.role))


WORKER: dict[str, Callable[[ServerStart, Command], Parts]] = {
    "vllm": _vllm_worker,
    "sglang": lambda ask, command: command.parts[1:],
    "trtllm": _trtllm_worker,
}


def _widths(ask: ServerStart) -> list[str]:
    """What trtllm-serve is told by flags, as keys of the file that Dynamo's worker reads."""
    plan, row = ask.plan, ask.engine
    return [
        "backend: pytorch", f"tensor_parallel_size: {plan.stage_devices}", f"pipeline_parallel_size: {plan.stages}",
        f"max_batch_size: {row.max_num_seqs}", f"max_num_tokens: {row.max_num_batched_tokens}", f"max_seq_len: {ask.length}",
    ]  # fmt: skip


# ---- llm-d -------------------------------------------------------------------------------------------------------------


def _llm_d(scene: PoolsScene) -> str | None:
    """Values of the modelservice chart; None where a server spans nodes, is not vLLM with NIXL, or has no image that is known."""
    first = scene.asks[0]
    wide = any(len(place.nodes) > 1 for places in scene.places for place in places)
    if wide or first.engine.server.dialect != "vllm" or scene.setting.connector == "mooncake":
        return None
    images = [image(ask.engine, ask.setting.cluster.gpu.vendor) for ask in scene.asks]
    if None in images:
        return None
    name = first.weights.name
    lines = [
        "modelArtifacts:", f"  uri: {json.dumps(f'hf://{name}')}", f"  name: {json.dumps(name)}", "routing:",
        f"  servicePort: {FIRST_PORT}", "  proxy:", "    connector: nixlv2", "    secure: false",
    ]  # fmt: skip
    for role, ask, places, held in zip(ROLES, scene.asks, scene.places, images):
        lines += _container(role, ask, places[0], len(places), f"{held}")
    return "\n".join(lines)


def _container(role: str, ask: ServerStart, place: Place, replicas: int, held: str) -> list[str]:
    (command,) = server_of(ask, place, beside_others(ask, place, 2))
    words = [word for part in command.parts[2:] if part[0] not in UNSAID for word in part]
    told = {"--kv-transfer-config": json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both"})}
    args = [told.get(before, word) for before, word in zip(["", *words], words)]
    resource = RESOURCE.get(ask.setting.cluster.gpu.vendor, "nvidia.com/gpu")
    return [
        f"{role}:", "  create: true", f"  replicas: {replicas}", "  containers:", "    - name: vllm",
        f"      image: {json.dumps(held)}", "      modelCommand: vllmServe",
        "      args:", *(f"        - {json.dumps(str(word))}" for word in [*args, "--port", str(PORTS[role])]),
        "      env:", "        - name: VLLM_NIXL_SIDE_CHANNEL_HOST", "          valueFrom:", "            fieldRef:",
        "              fieldPath: status.podIP", "      ports:", f"        - containerPort: {PORTS[role]}", "        - containerPort: 5600",
        "      resources:", "        limits:", f'          {resource}: "{ask.plan.replica_devices}"', "      mountModelVolume: true",
    ]  # fmt: skip


STACKS: dict[str, Callable[[PoolsScene], str | None]] = {"dynamo": _dynamo, "llm-d": _llm_d}
