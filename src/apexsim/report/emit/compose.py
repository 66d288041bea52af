"""A compose file for one node: a service for each server, with its own GPUs and port, and a router before several (floor 6)."""

from __future__ import annotations

from typing import Any

from apexsim.data_files import table
from apexsim.errors import InputError
from apexsim.report.dialects import DRAFTER
from apexsim.report.emit.deployment import Deployment, File
from apexsim.report.emit.known import checked
from apexsim.report.emit.yaml import yaml
from apexsim.report.servers import CONF, FIRST_PORT, nginx_conf

CACHE = "${HF_HOME:-~/.cache/huggingface}:/root/.cache/huggingface"


def compose_files(made: Deployment) -> list[File]:
    """compose.yaml, and the router's configuration."""
    cluster = made.setting.cluster
    if cluster.nodes > 1:
        raise InputError(f"a compose file starts one node, {made.plan.shorthand} takes {cluster.nodes}", "--emit", "use run.sh or lws")
    if cluster.gpu.profile:
        raise InputError("a compose file cannot name MIG slices, whose ids only the machine knows", "--emit", "use run.sh or k8s")
    services = {f"server-{i}": _server(made, i) for i in range(made.servers)}
    files = []
    if made.servers > 1:
        services["router"] = _router(services)
        hosts = [f"{name}:{FIRST_PORT}" for name in services if name != "router"]
        files = [File(CONF, nginx_conf(hosts, made.setting.router.name) + "\n")]
    else:
        services["server-0"]["ports"] = [f"{FIRST_PORT}:{FIRST_PORT}"]
    text = made.head_by_nginx + "# docker compose up; HF_TOKEN and HF_HOME are taken from the environment\n"
    return [File("compose.yaml", text + yaml(checked("compose", {"name": made.name, "services": services}))), *files]


def _server(made: Deployment, at: int) -> dict[str, Any]:
    image = made.image  # refuses GPUs for which none is known
    driver = table("deploy.toml")["driver"][made.setting.cluster.gpu.vendor][0]
    gpus = [str(gpu) for gpu in made.started.where[at].gpus]
    pod = made.pod
    unknown = (
        {"DRAFTER": "${DRAFTER:?the model or head that drafts, its name or path}"} if any(DRAFTER in word for word in pod.words) else {}
    )
    return {
        "image": image,
        "entrypoint": [_escaped(pod.words[0])],
        "command": [_escaped(word) for word in pod.words[1:]],
        "environment": {"HF_TOKEN": "${HF_TOKEN:-}"} | unknown | {name: _escaped(value) for name, value in pod.env},
        "volumes": [CACHE],
        "ipc": "host",
        "deploy": {"resources": {"reservations": {"devices": [{"driver": driver, "device_ids": gpus, "capabilities": ["gpu"]}]}}},
        "healthcheck": {
            "test": ["CMD", "curl", "--fail", f"http://localhost:{FIRST_PORT}/health"],
            "interval": "10s",
            "start_period": "1h",
        },
    }


def _router(servers: dict[str, Any]) -> dict[str, Any]:
    return {
        "image": table("deploy.toml")["image"]["router"]["nginx"][0],
        "volumes": [f"./{CONF}:/etc/nginx/nginx.conf:ro"],
        "ports": [f"{FIRST_PORT}:{FIRST_PORT}"],
        "depends_on": {name: {"condition": "service_healthy"} for name in servers},
    }


def _escaped(word: str) -> str:
    """A word in which compose puts no variables."""
    return word.replace("$", "$$")
