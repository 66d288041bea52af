"""The forms of serving stacks on Kubernetes: KServe, llm-d's model service, Dynamo (floor 6).

Each has a router of its own, so that requests are not dealt as was simulated; the head of the file says so.
"""

from __future__ import annotations

from apexsim.data_files import table
from apexsim.errors import InputError
from apexsim.report.emit.deployment import Deployment, File
from apexsim.report.emit.known import checked
from apexsim.report.emit.kubernetes import SECRET, container, pod_spec
from apexsim.report.emit.yaml import yaml
from apexsim.report.servers import FIRST_PORT

DEALS = "# {} servers, to which {} deals requests by a rule of its own; {} was simulated\n"


def kserve_files(made: Deployment) -> list[File]:
    """An InferenceService whose predictor is the server itself."""
    _one_node(made, "KServe's predictor")
    spec = pod_spec(made)
    main = {**spec["containers"][0], "name": "kserve-container"}
    service = {
        "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
        "metadata": {"name": made.name, "annotations": {"serving.kserve.io/deploymentMode": "Standard"}},
        "spec": {"predictor": {"minReplicas": made.servers, "maxReplicas": made.servers, "containers": [main], "volumes": spec["volumes"]}},
    }  # fmt: skip
    return [File("kserve.yaml", _head(made, "KServe") + yaml(checked("kserve", service)))]


def llmd_files(made: Deployment) -> list[File]:
    """Values of the chart llm-d-modelservice; without separate prefill, as was simulated."""
    _one_node(made, "this form")
    if made.setting.engine.server.name != "vllm":
        raise InputError("llm-d starts vLLM alone", "--emit", "use k8s, or ask with --engine vllm")
    plan, inner = made.plan, container(made, "vllm")
    main = {key: inner[key] for key in ("name", "image", "command", "args", "env", "ports", "resources", "volumeMounts")}
    values = {
        "modelArtifacts": {"name": made.started.ask.weights.name, "uri": f"hf://{made.started.ask.weights.name}"},
        "routing": {"servicePort": FIRST_PORT, "proxy": {"enabled": False}},
        "decode": {
            "create": True, "replicas": made.servers,
            "parallelism": {"tensor": plan.attention.tp, "data": plan.lanes, "dataLocal": plan.lanes, "workers": 1},
            "containers": [{**main, "modelCommand": "custom", "mountModelVolume": False}],
            "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
        },
        "prefill": {"create": False},
    }  # fmt: skip
    how = "# helm install NAME llm-d-modelservice/llm-d-modelservice -f llm-d-values.yaml\n"
    return [File("llm-d-values.yaml", _head(made, "llm-d") + how + yaml(checked("llm-d", values)))]


def dynamo_files(made: Deployment) -> list[File]:
    """A graph of a frontend and one kind of worker."""
    engine = made.setting.engine.server.name
    known = table("deploy.toml")["dynamo"].get(engine)
    if known is None:
        raise InputError(f"how Dynamo is told a plan of {engine} is not recorded", "--emit", "use run.sh or k8s")
    _one_node(made, "this form")
    words = list(container(made)["args"])
    program = made.setting.engine.server.program
    rest = words[len(program) - 1 :]  # after the program, of which the first word is the command
    flag = "--model" if engine == "vllm" else ""
    args = ([flag] if flag else []) + _without_address(rest)
    image = f"{known[1]}:YOUR_TAG"
    worker = {
        "componentType": "worker", "replicas": made.servers, "envFromSecret": "hf-token-secret",
        "resources": {"limits": {"gpu": str(made.pod.gpus)}},
        "extraPodSpec": {"mainContainer": {"image": image, "command": ["python3", "-m", known[0]], "args": args}},
    }  # fmt: skip
    if made.pod.env:
        worker["envs"] = [{"name": key, "value": value} for key, value in made.pod.env]
    front = {"componentType": "frontend", "replicas": 1, "extraPodSpec": {"mainContainer": {"image": image}}}
    graph = {"apiVersion": "nvidia.com/v1alpha1", "kind": "DynamoGraphDeployment", "metadata": {"name": made.name},
             "spec": {"services": {"Frontend": front, "worker": worker}}}  # fmt: skip
    tag = f"# put a release of Dynamo for YOUR_TAG, one whose {engine} is {made.setting.engine.spoken}\n"
    return [File("dynamo.yaml", _head(made, "Dynamo") + tag + yaml(checked("dynamo", graph)))]


def _head(made: Deployment, who: str) -> str:
    deals = DEALS.format(made.servers, who, made.setting.router.name) if made.servers > 1 else ""
    return made.head_of_server + deals + ("" if who == "Dynamo" else SECRET)


def _one_node(made: Deployment, what: str) -> None:
    if made.pod.nodes > 1:
        told = f"a server of {made.plan.shorthand} spans {made.pod.nodes} nodes, {what} starts one"
        raise InputError(told, "--emit", "use lws or run.sh")


def _without_address(words: list[str]) -> list[str]:
    """Without host and port: workers do not listen for users."""
    drop = {at for i, word in enumerate(words) if word in ("--host", "--port") for at in (i, i + 1)}
    return [word for i, word in enumerate(words) if i not in drop]
