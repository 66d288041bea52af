"""Make src/apexsim/data/schemas.json: which fields manifests may have, and of which type, from the projects' own schemas.

    python scripts/build_schemas.py LWS_CRD KSERVE_CRD LLMD_VALUES COMPOSE_SPEC BENCHMARK_REPORT > src/apexsim/data/schemas.json

Field names and types are taken, no descriptions.  Of pods, which have thousands of fields, those of containers and volumes stay.
What has no schema file is listed by hand, with the page that it is from.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import yaml

INNER = (
    r"containers|volumes", r"containers\[\](\.\w+)?",
    r"containers\[\]\.env\[\](\.\w+)?", r"containers\[\]\.env\[\]\.valueFrom\.secretKeyRef(\.\w+)?",
    r"containers\[\]\.ports\[\](\.\w+)?", r"containers\[\]\.resources\.\w+(\.\*)?", r"containers\[\]\.volumeMounts\[\](\.\w+)?",
    r"containers\[\]\.(startup|readiness|liveness)Probe(\.\w+)?", r"containers\[\]\.(startup|readiness|liveness)Probe\.httpGet(\.\w+)?",
    r"containers\[\]\.(args|command)\[\]",
    r"volumes\[\](\.(name|emptyDir|configMap|hostPath|persistentVolumeClaim))?", r"volumes\[\]\.emptyDir(\.\w+)?",
    r"volumes\[\]\.configMap\.name", r"volumes\[\]\.hostPath(\.\w+)?",
)  # fmt: skip
META = {"apiVersion": "string", "kind": "string", "metadata": "object", "metadata.name": "string", "metadata.namespace": "string",
        "metadata.labels": "object", "metadata.labels.*": "string", "metadata.annotations": "object",
        "metadata.annotations.*": "string"}  # fmt: skip
LABELS = {"metadata": "object", "metadata.labels": "object", "metadata.labels.*": "string"}


def kind_of(schema: dict[str, Any]) -> str:
    """The type of a field; any where it has several."""
    found = schema.get("type")
    return found if isinstance(found, str) else "any"


def paths(schema: dict[str, Any], at: str = "") -> Iterator[tuple[str, str]]:
    """(path, type) of a schema and of all that is in it; [] is an entry of a list, * any key."""
    if at:
        yield at, kind_of(schema)
    for name, inner in schema.get("properties", {}).items():
        yield from paths(inner, f"{at}.{name}" if at else name)
    if isinstance(schema.get("items"), dict):
        yield from paths(schema["items"], f"{at}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from paths(schema["additionalProperties"], f"{at}.*")


def of_pods(found: dict[str, str]) -> dict[str, str]:
    """The containers' and volumes' fields that manifests may use, by their path in a pod."""
    return {path: kind for path, kind in found.items() if any(re.fullmatch(inner, path) for inner in INNER)}


def crd(path: str, version: str) -> dict[str, Any]:
    """The schema of one version of a custom resource."""
    with open(path, encoding="utf-8") as file:
        versions = yaml.safe_load(file)["spec"]["versions"]
    return next(v["schema"]["openAPIV3Schema"] for v in versions if v["name"] == version)


def below(found: dict[str, str], prefix: str) -> dict[str, str]:
    """What is below a path, by its path from there."""
    return {path[len(prefix) :]: kind for path, kind in found.items() if path.startswith(prefix)}


def at(prefix: str, found: dict[str, str]) -> dict[str, str]:
    """Paths with a prefix."""
    return {f"{prefix}{path}": kind for path, kind in found.items()}


def _json(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def resolved(schema: Any, defs: dict[str, Any]) -> Any:
    """A schema without references; of alternatives the first that is not null."""
    if isinstance(schema, list):
        return [resolved(each, defs) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return resolved(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in schema:
        kinds = [each for each in schema["anyOf"] if each.get("type") != "null"]
        several = len({each.get("type") for each in kinds} - {None}) > 1
        return {} if several and not any("$ref" in each for each in kinds) else resolved(kinds[0], defs)
    return {key: resolved(value, defs) for key, value in schema.items() if key != "$defs"}


def build(lws: str, kserve: str, llmd: str, compose: str, report: str) -> dict[str, Any]:
    """All schemas."""
    lws_all = dict(paths(crd(lws, "v1")))
    pod = of_pods(below(lws_all, "spec.leaderWorkerTemplate.workerTemplate.spec."))
    template = {"template": "object", **at("template.", {**LABELS, "spec": "object", **at("spec.", pod)})}
    selector = {"selector": "object", "selector.matchLabels": "object", "selector.matchLabels.*": "string"}
    outer = {p: k for p, k in lws_all.items() if p.startswith("spec") and "Template.spec." not in p and "volumeClaim" not in p}
    inside = {f"spec.leaderWorkerTemplate.{which}Template.{p}": k for which in ("leader", "worker")
              for p, k in {**LABELS, "spec": "object", **at("spec.", pod)}.items()}  # fmt: skip
    isvc = dict(paths(crd(kserve, "v1beta1")))
    predictor = below(isvc, "spec.predictor.")
    flat = {p: k for p, k in predictor.items() if re.fullmatch(r"\w+", p)}
    values = {
        p: k
        for p, k in paths(_json(llmd))
        if p.split(".")[0] in ("modelArtifacts", "routing", "decode", "multinode") or re.fullmatch(r"prefill(\.\w+)?", p)
    }
    values |= at("decode.", pod) | {"decode.containers[].modelCommand": "string", "decode.containers[].mountModelVolume": "boolean"}
    spec = _json(compose)
    service = {p: k for p, k in paths(spec["definitions"]["service"]) if re.fullmatch(r"\w+", p)}
    whole = _json(report)
    measured = {p: k for p, k in paths(resolved(whole, whole["$defs"])) if "time_series" not in p and "observability" not in p}
    return {
        "benchmark-report": entry("https://github.com/llm-d/llm-d-benchmark llmdbenchmark/analysis/benchmark_report/"
                                  "br_v0_2_json_schema.json, commit 8bc9f1d (v0.8.0)", "Apache-2.0", measured | COMPONENTS),
        "lws": entry("https://github.com/kubernetes-sigs/lws config/crd/bases, commit 060ab4d (after v0.10.0)", "Apache-2.0",
                     {**META, **outer, **inside}),
        "kserve": entry(KSERVE,
                        "Apache-2.0", {**META, "spec": "object", "spec.predictor": "object",
                                       **at("spec.predictor.", {**flat, **of_pods(predictor)})}),
        "llm-d": entry("https://github.com/llm-d-incubation/llm-d-modelservice charts/llm-d-modelservice/values.schema.json, "
                       "commit 3051935 (v0.4.12); containers: values.yaml", "Apache-2.0", values),
        "compose": entry("https://github.com/compose-spec/compose-spec schema/compose-spec.json, commit 170098b", "Apache-2.0",
                         {"name": "string", "services": "object", "services.*": "object", **at("services.*.", {**service, **BY_HAND})}),
        "StatefulSet": entry(K8S, "Apache-2.0", {**META, "spec": "object", **at("spec.", {
            "serviceName": "string", "replicas": "integer", "podManagementPolicy": "string", **selector, **template})}),
        "Deployment": entry(K8S, "Apache-2.0", {**META, "spec": "object", **at("spec.", {"replicas": "integer", **selector, **template})}),
        "Service": entry(K8S, "Apache-2.0", {**META, "spec": "object", **at("spec.", {
            "clusterIP": "string", "publishNotReadyAddresses": "boolean", "selector": "object", "selector.*": "string", "type": "string",
            "ports": "array", "ports[]": "object", "ports[].port": "integer", "ports[].targetPort": "any", "ports[].name": "string"})}),
        "ConfigMap": entry(K8S, "Apache-2.0", {**META, "data": "object", "data.*": "string"}),
        "dynamo": entry("https://github.com/ai-dynamo/dynamo docs/kubernetes/api_reference.md, commit 0684e2a (nvidia.com/v1alpha1)",
                        "Apache-2.0", {**META, "spec": "object", "spec.services": "object", "spec.services.*": "object",
                                       **at("spec.services.*.", {**DYNAMO, **at("extraPodSpec.mainContainer.", main(pod))})}),
    }  # fmt: skip


def main(pod: dict[str, str]) -> dict[str, str]:
    """The fields of a container."""
    return {path.removeprefix("containers[]."): kind for path, kind in pod.items() if path.startswith("containers[].")}


KSERVE = "https://github.com/kserve/kserve config/crd/full/serving.kserve.io_inferenceservices.yaml, commit aaac4e2 (v0.20.0)"
K8S = "https://github.com/kubernetes-client/python kubernetes/docs/V1*.md, commit 02124c4; pods: as in the LeaderWorkerSet's schema"
STANDARD = "scenario.stack[].standardized."
COMPONENTS = {  # of a component that is an inference engine, which the schema offers beside a generic one
    f"{STANDARD}{name}": kind for name, kind in {
        "kind": "string", "tool": "string", "tool_version": "string", "role": "string", "replicas": "integer", "model": "object",
        "model.name": "string", "accelerator": "object", "accelerator.model": "string", "accelerator.count": "integer",
        "accelerator.parallelism": "object", "accelerator.parallelism.tp": "integer", "accelerator.parallelism.dp": "integer",
        "accelerator.parallelism.ep": "integer", "accelerator.parallelism.pp": "integer"}.items()
}  # fmt: skip
BY_HAND = {  # of a compose service: what its schema says by reference (definitions deployment, healthcheck, command, list_or_dict)
    "environment.*": "any", "entrypoint[]": "string", "command[]": "string", "volumes[]": "any", "ports[]": "any", "deploy": "object",
    "deploy.resources": "object", "deploy.resources.reservations": "object", "deploy.resources.reservations.devices": "array",
    "deploy.resources.reservations.devices[]": "object", "deploy.resources.reservations.devices[].driver": "string",
    "deploy.resources.reservations.devices[].device_ids": "array", "deploy.resources.reservations.devices[].device_ids[]": "string",
    "deploy.resources.reservations.devices[].capabilities": "array", "deploy.resources.reservations.devices[].capabilities[]": "string",
    "healthcheck": "object", "healthcheck.test": "any", "healthcheck.test[]": "string", "healthcheck.interval": "string",
    "healthcheck.start_period": "string", "healthcheck.retries": "any", "depends_on.*": "object", "depends_on.*.condition": "string",
}  # fmt: skip
DYNAMO = {
    "componentType": "string", "replicas": "integer", "envFromSecret": "string", "resources": "object", "resources.limits": "object",
    "resources.limits.gpu": "string", "envs": "array", "envs[]": "object", "envs[].name": "string", "envs[].value": "string",
    "multinode": "object", "multinode.nodeCount": "integer", "extraPodSpec": "object", "extraPodSpec.mainContainer": "object",
}  # fmt: skip


def entry(source: str, licence: str, fields: dict[str, str]) -> dict[str, Any]:
    """One schema with where it is from."""
    return {"source": source, "licence": licence, "fields": dict(sorted(fields.items()))}


if __name__ == "__main__":
    json.dump(build(*sys.argv[1:]), sys.stdout, indent=0)
    print()
