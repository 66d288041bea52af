"""Kubernetes manifests: servers of one node as a StatefulSet, of several as a LeaderWorkerSet, and a router before several (floor 6).

The router knows every server by its name (NAME-0.NAME, …), so that it deals requests as was simulated; a Service alone would
deal connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apexsim.data_files import table
from apexsim.errors import InputError
from apexsim.report.dialects import DRAFTER
from apexsim.report.emit.deployment import Deployment, File
from apexsim.report.emit.known import checked
from apexsim.report.emit.yaml import documents
from apexsim.report.servers import CONF, FIRST_PORT, nginx_conf

Manifest = dict[str, Any]
TOKEN = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf-token", "key": "token", "optional": True}}}
PATIENT = {"httpGet": {"path": "/health", "port": FIRST_PORT}, "periodSeconds": 10, "failureThreshold": 720}  # loading may take two hours
SECRET = "# kubectl create secret generic hf-token --from-literal=token=$HF_TOKEN, where the model asks for it\n"
FABRIC = "# add what your cluster needs for its network between nodes: RDMA resources, hostNetwork, capabilities\n"


def k8s_files(made: Deployment) -> list[File]:
    """Servers that each stand on one node."""
    if made.pod.nodes > 1:
        told = f"a server of {made.plan.shorthand} spans {made.pod.nodes} nodes, which plain Kubernetes cannot start together"
        raise InputError(told, "--emit", "use lws")
    servers = {
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": made.name},
        "spec": {"serviceName": made.name, "replicas": made.servers, "podManagementPolicy": "Parallel",
                 "selector": {"matchLabels": {"app": made.name}},
                 "template": {"metadata": {"labels": {"app": made.name}}, "spec": pod_spec(made)}},
    }  # fmt: skip
    parts = [_headless(made.name), servers, *_front(made, {"app": made.name})]
    return [File("k8s.yaml", made.head_by_nginx + SECRET + _told(parts))]


def lws_files(made: Deployment) -> list[File]:
    """Servers of any number of nodes: a leader and its workers are started together."""
    if made.pod.nodes > 1 and made.setting.engine.server.dialect == "trtllm":
        raise InputError("over nodes TensorRT-LLM is started by MPI, which a LeaderWorkerSet does not bring", "--emit", "use run.sh")
    template = {"metadata": {"labels": {"app": made.name}}, "spec": pod_spec(made)}
    servers = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "metadata": {"name": made.name},
        "spec": {"replicas": made.servers, "leaderWorkerTemplate": {
            "size": made.pod.nodes, "restartPolicy": "RecreateGroupOnPodRestart", "workerTemplate": template}},
    }  # fmt: skip
    leaders = {"app": made.name, "leaderworkerset.sigs.k8s.io/worker-index": "0"}
    fabric = FABRIC if made.pod.nodes > 1 else ""
    return [File("lws.yaml", made.head_by_nginx + SECRET + fabric + _told([servers, *_front(made, leaders)]))]


def _told(parts: list[Manifest]) -> str:
    """Manifests as text, each of whose fields is known."""
    for part in parts:
        checked("lws" if part["kind"] == "LeaderWorkerSet" else part["kind"], part)
    return documents(parts)


def container(made: Deployment, name: str = "server") -> Manifest:
    """The container of a server."""
    words = tuple(word.replace("$(", "$$(") for word in _at_rank(made))
    env = [TOKEN, *unknown_of(words), *({"name": key, "value": value.replace("$(", "$$(")} for key, value in made.pod.env)]
    return {
        "name": name, "image": made.image, "command": list(words[:1]), "args": list(words[1:]), "env": env,
        "ports": [{"containerPort": FIRST_PORT}],
        "resources": {"limits": {made.resource: str(made.pod.gpus)}},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }  # fmt: skip


def unknown_of(words: Sequence[str]) -> list[Manifest]:
    """What a container's shell reads and the user alone knows."""
    return [{"name": "DRAFTER", "value": "YOUR_DRAFTER"}] if any(DRAFTER in word for word in words) else []


def pod_spec(made: Deployment) -> Manifest:
    """A pod with a server, or with its part of one; only who answers requests is asked whether it does."""
    probes = {"startupProbe": PATIENT, "readinessProbe": {**PATIENT, "failureThreshold": 3}} if made.pod.nodes == 1 else {}
    return {"containers": [container(made) | probes], "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]}


def _at_rank(made: Deployment) -> tuple[str, ...]:
    """The words of a pod's program; of a server over nodes the script knows its node by what LeaderWorkerSet says."""
    words = made.pod.words
    if made.pod.nodes == 1:
        return words
    here = 'export NODE_RANK="$LWS_WORKER_INDEX" NODE0="$LWS_LEADER_ADDRESS"\n'
    text = "\n".join(line for line in words[2].splitlines() if not line.startswith("#"))
    return (*words[:2], here + text)


def _headless(name: str) -> Manifest:
    """Gives every server a name of its own, from the start."""
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"app": name}, "ports": [{"port": FIRST_PORT}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def _front(made: Deployment, selected: dict[str, str]) -> list[Manifest]:
    """What users talk to: the server, or the router with the names of all servers."""
    name = f"{made.name}-front"
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
               "spec": {"selector": selected if made.servers == 1 else {"app": name}, "ports": [{"port": FIRST_PORT}]}}  # fmt: skip
    if made.servers == 1:
        return [service]
    conf = nginx_conf([f"{made.name}-{i}.{made.name}:{FIRST_PORT}" for i in range(made.servers)], made.setting.router.name) + "\n"
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {CONF: conf}}
    nginx = {
        "name": "router", "image": table("deploy.toml")["image"]["router"]["nginx"][0], "ports": [{"containerPort": FIRST_PORT}],
        "volumeMounts": [{"name": "conf", "mountPath": "/etc/nginx/nginx.conf", "subPath": CONF}],
    }  # fmt: skip
    spec = {"containers": [nginx], "volumes": [{"name": "conf", "configMap": {"name": name}}]}
    router = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
              "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}},
                       "template": {"metadata": {"labels": {"app": name}}, "spec": spec}}}  # fmt: skip
    return [config, router, service]
