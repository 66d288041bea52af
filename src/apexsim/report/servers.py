"""Where a plan's servers stand, and the commands that start them as text that can be pasted (floor 6).

Replicas are servers of their own, dealt to the GPUs in order; a router before them deals requests as was simulated.  A
server that spans nodes is started on each.  Addresses of nodes are the variables NODE0, NODE1 …
"""

from __future__ import annotations

import shlex
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap

from apexsim.data_files import table
from apexsim.engines import EngineRow
from apexsim.hardware import Cluster
from apexsim.plan.plan import Plan

WIDTH = 78  # columns of a command before it is broken: no terminal wraps it
BREAK = " \\\n"
FEW = 4  # words of a part that stay together
FIRST_PORT = 8000  # what the user talks to: the only server, or the router; servers behind a router follow
SEEN = {
    "NVIDIA": "CUDA_VISIBLE_DEVICES", "AMD": "HIP_VISIBLE_DEVICES", "Intel": "ZE_AFFINITY_MASK",
    "Huawei": "ASCEND_RT_VISIBLE_DEVICES", "Tenstorrent": "TT_VISIBLE_DEVICES", "Google": "TPU_VISIBLE_CHIPS",
    "AWS": "NEURON_RT_VISIBLE_CORES",
}  # fmt: skip
SEEN_OF_ARCH = {"gaudi2": "HABANA_VISIBLE_MODULES", "gaudi3": "HABANA_VISIBLE_MODULES"}
LOCKS = {"NVIDIA": "sudo nvidia-smi --lock-gpu-clocks={0},{0}", "AMD": "sudo rocm-smi --setperfdeterminism {0}"}


class Shell(str):
    """A word for the shell to expand: it is not quoted."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Command:
    """One command.  parts: words that stay on one line, e.g. a flag with its value; node: where it runs; document: what
    is read from its standard input; lasting: it runs until it is stopped."""

    parts: tuple[tuple[str, ...], ...]
    node: int = 0
    env: tuple[tuple[str, str], ...] = ()
    document: str = ""
    lasting: bool = True

    def text(self, width: float = WIDTH) -> str:
        """The command, its lines broken by backslashes at a width."""
        words = [f"{name}={_quoted(value)}" for name, value in self.env]
        for part in self.parts:  # a flag keeps its first value; a long list of values may go on below
            quoted = [_quoted(word) for word in part]
            words += [" ".join(quoted[:2]), *quoted[2:]] if len(quoted) > FEW else [" ".join(quoted)]
        lines = [words[0]]
        for word in words[1:]:
            if len(lines[-1]) + 1 + len(word) + len(BREAK) - 1 > width:
                lines.append("  " + word)
            else:
                lines[-1] += " " + word
        text = BREAK.join(lines)
        return f"{text} <<'EOF'\n{self.document}\nEOF" if self.document else text


def _quoted(word: str) -> str:
    return word if isinstance(word, Shell) else shlex.quote(str(word))


@dataclass(frozen=True, slots=True)
class Place:
    """Where one server stands: its nodes, the GPUs it takes of each (all when `whole`), its port."""

    server: int
    nodes: tuple[int, ...]
    gpus: tuple[int, ...]
    whole: bool
    port: int


def places(plan: Plan, cluster: Cluster) -> tuple[Place, ...]:
    """The place of each replica's server; replicas fill nodes, or nodes fill a replica (see `plan.limits`)."""
    each, node = plan.replica_devices, cluster.per_node
    found = _placed(plan, cluster, 0)
    if plan.replicas == 1:
        return tuple(replace(place, port=FIRST_PORT) for place in found)
    return tuple(replace(place, port=FIRST_PORT + 1 + place.gpus[0] // min(each, node)) for place in found)


def _placed(plan: Plan, cluster: Cluster, begin: int) -> list[Place]:
    """The place of each replica's server from a GPU on, its port behind the router's by its first GPU."""
    each, node = plan.replica_devices, cluster.per_node
    found = []
    for i in range(plan.replicas):
        first = begin + i * each
        nodes = tuple(range(first // node, -(-(first + each) // node)))
        gpus = tuple(range(first % node, first % node + min(each, node)))
        found.append(Place(i, nodes, gpus, len(gpus) == node, FIRST_PORT + 1 + gpus[0]))
    return found


def pool_places(plans: Sequence[Plan], clusters: Sequence[Cluster]) -> list[list[Place]]:
    """The places of the servers of each pool: on equal GPUs the larger servers first, so that none straddles a node; of other GPUs
    each pool has nodes of its own."""
    if any(cluster.gpu != clusters[0].gpu for cluster in clusters):
        made, node = [], 0
        for plan, cluster in zip(plans, clusters):
            made.append(_placed(plan, cluster, node * cluster.per_node))
            node += -(-plan.devices // cluster.per_node)
        return made
    begin, found = 0, {}
    for i in sorted(range(len(plans)), key=lambda i: -plans[i].replica_devices):
        found[i] = _placed(plans[i], clusters[i], begin)
        begin += plans[i].devices
    return [found[i] for i in range(len(plans))]


def seen(place: Place, cluster: Cluster) -> tuple[tuple[str, str], ...]:
    """The variable that shows a server its GPUs; none where it takes the whole node.  A MIG slice is shown by its UUID."""
    gpu = cluster.gpu
    if gpu.profile:
        return (("CUDA_VISIBLE_DEVICES", Shell(f'"$MIG{place.gpus[0]}"')),)
    if place.whole:
        return ()
    name = SEEN_OF_ARCH.get(gpu.arch) or SEEN.get(gpu.vendor, "CUDA_VISIBLE_DEVICES")
    return ((name, ",".join(map(str, place.gpus))),)


def image(engine: EngineRow, vendor: str) -> str | None:
    """The container image of an engine in its version for GPUs of a vendor; None where none is known."""
    known = table("deploy.toml")["image"].get(engine.server.name, {}).get(vendor)
    return None if known is None else str(known[0]).format(version=engine.spoken)


def address(node: int, cluster: Cluster) -> str:
    """The address of a node for the shell."""
    return Shell(f'"$NODE{node}"') if cluster.nodes > 1 else "127.0.0.1"


def url(place: Place, cluster: Cluster) -> str:
    """The address at which a router finds a server."""
    if cluster.nodes == 1:
        return f"http://127.0.0.1:{place.port}"
    return Shell(f'"http://$NODE{place.nodes[0]}:{place.port}"')


# ---- the router -----------------------------------------------------------------------------------------------------

# vllm-router (PyPI, 0.1.17, router_args.py) and sglang_router (PyPI, 0.3.2, router_args.py): --worker-urls, --policy
# {random, round_robin, cache_aware, power_of_two, …}, --port; neither has a least-outstanding policy.  nginx:
# ngx_http_upstream_module, `least_conn`.
CONF = "apexsim-router.conf"
CONNECTIONS = 65_536  # of each of nginx's processes
POLICIES = {"round-robin": "round_robin", "power-of-two": "power_of_two", "cache-aware": "cache_aware"}
NGINX = {"least-outstanding": "    least_conn;\n", "power-of-two": "    random two least_conn;\n"}


def router(servers: Sequence[Place], cluster: Cluster, program: tuple[str, ...], route: str) -> tuple[Command, ...]:
    """What deals requests to several servers by the rule that was simulated, the engine's own where it can; it runs on node 0."""
    if not program or route not in POLICIES:
        return _nginx(servers, cluster, route)
    urls = tuple(url(place, cluster) for place in servers)
    parts = (program, ("--worker-urls", urls[0]), *((u,) for u in urls[1:]), ("--policy", POLICIES[route]))
    return (Command((*parts, ("--host", "0.0.0.0"), ("--port", str(FIRST_PORT)), ("--worker-startup-timeout-secs", "3600"))),)


def turned(who: str, route: str, able: Container[str]) -> list[str]:
    """What is said of something that deals requests in turn where it lacks the rule that was simulated; able: rules that it has."""
    return [] if route == "round-robin" or route in able else [f"{who} deals requests in turn; {route} was simulated"]


def _nginx(servers: Sequence[Place], cluster: Cluster, route: str) -> tuple[Command, ...]:
    hosts = [f"NODE{place.nodes[0]}" if cluster.nodes > 1 else "127.0.0.1" for place in servers]
    conf = nginx_conf([f"{host}:{place.port}" for host, place in zip(hosts, servers)], route)
    write: tuple[tuple[str, ...], ...] = (("cat",), (Shell(">"), CONF))
    if cluster.nodes > 1:  # the addresses of the nodes are put in by the shell
        named = ";".join(f"s/NODE{node}:/$NODE{node}:/" for node in sorted({p.nodes[0] for p in servers}, reverse=True))
        write = (("sed", Shell(f'"{named}"')), (Shell(">"), CONF))
    start = Command((("nginx",), ("-c", Shell(f'"$PWD/{CONF}"')), ("-g", "daemon off;")))
    return (Command(write, document=conf, lasting=False), start)


def nginx_conf(hosts: Iterable[str], route: str) -> str:
    """nginx's configuration that deals requests to servers, host:port each; of a rule that nginx lacks the nearest, in turn.

    A streamed answer holds two connections for as long as it lasts, of which nginx's default takes 512; long prompts and pictures are
    larger than the body of 1 MB that it takes.  All of its processes look at one zone, else each would deal by what it knows alone."""
    each = "".join(f"    server {host} max_fails=0;\n" for host in hosts)
    return (
        f"worker_processes auto;\nworker_rlimit_nofile {2 * CONNECTIONS};\nevents {{\n  worker_connections {CONNECTIONS};\n}}\n"
        f"http {{\n  client_max_body_size 0;\n  upstream servers {{\n    zone servers 1m;\n{NGINX.get(route, '')}{each}  }}\n"
        f"  server {{\n    listen {FIRST_PORT};\n"
        "    location / {\n      proxy_pass http://servers;\n      proxy_http_version 1.1;\n      proxy_buffering off;\n"
        "      proxy_read_timeout 1h;\n    }\n  }\n}"
    )


def own_rules(program: tuple[str, ...]) -> frozenset[str]:
    """Rules by which what stands before several servers can deal: a router's own, and nginx's for what that cannot."""
    return frozenset(NGINX) | frozenset(POLICIES if program else ())


# ---- the script -----------------------------------------------------------------------------------------------------


def locks(plan: Plan, cluster: Cluster) -> tuple[Command, ...]:
    """What sets the SM clock of a plan, or of the GPU that was asked for, on every node."""
    lock, gpu = LOCKS.get(cluster.gpu.vendor), cluster.gpu
    clock = plan.clock or (round(gpu.clock * gpu.clock_mhz) if gpu.clock < 1.0 else 0)
    if not clock or lock is None:
        return ()
    words = lock.format(clock).split()
    return tuple(Command(((*words,),), node, lasting=False) for node in range(cluster.nodes))


def script(commands: Iterable[Command], nodes: int) -> str:
    """All commands as one text for a shell: as they are on one node; by NODE_RANK where there are several."""
    listed = list(commands)
    parts = {node: _together([c for c in listed if c.node == node]) for node in sorted({c.node for c in listed})}
    if nodes == 1:
        return parts[0]
    named = [node for node in range(nodes) if f"$NODE{node}" in "".join(parts.values())]
    ask = " ".join(["export NODE_RANK=0", *(f"NODE{node}=ADDRESS_OF_NODE_{node}" for node in named)])
    told = "\n".join(wrap(ask, WIDTH, initial_indent="#   ", subsequent_indent="#     "))
    cases = "".join(f"{node})\n{text}\n;;\n" for node, text in parts.items())
    head = f"# to be pasted on every node, after (NODE_RANK is 0 to {nodes - 1}, which node it is):\n{told}"
    return f'{head}\ncase "$NODE_RANK" in\n{cases}*) echo "NODE_RANK is not set: 0 to {nodes - 1}" >&2 ;;\nesac'


def _together(commands: list[Command]) -> str:
    """Commands in their order; all that last but the last one run beside each other."""
    texts = []
    for i, command in enumerate(commands):
        beside = command.lasting and any(c.lasting for c in commands[i + 1 :])
        texts.append(command.text() + (" &" if beside else ""))
    return "\n".join(texts)
