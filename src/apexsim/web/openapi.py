"""The interface for programs, described: OpenAPI 3.1, questions from the table of options, answers from the published schemas (floor 7)."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import apexsim
from apexsim.report.schema import schema_of
from apexsim.web.asked import VERBS, described

LISTS = ("models", "gpus", "engines", "workloads")
ANSWERS = {"plan": ("study", "sweep"), "simulate": ("study",), "size": ("size",), "fleet": ("fleet",)}
SAID = {"plan": "Rank every parallel plan; lists ask the question with each value.", "simulate": "Simulate one plan in full.",
        "size": "The question backwards: the most load, the fewest GPUs, the longest prompt, the tightest limit.",
        "fleet": "Replicas over the time of a trace: what each interval needs, and what following the load costs and misses."}  # fmt: skip
STATUS = {"400": "no JSON", "403": "not from here", "408": "the body came too slowly", "413": "too large", "415": "not JSON",
          "422": "bad input, or nothing fits", "429": "too many questions at once", "504": "not answered in time"}  # fmt: skip


@cache
def document() -> dict[str, Any]:
    """The whole description."""
    whole = schema_of()
    schemas = json.loads(json.dumps(whole["$defs"]).replace("#/$defs/", "#/components/schemas/"))
    paths = {f"/api/{verb}": {"post": _question(verb)} for verb in VERBS}
    paths |= {f"/api/{name}": {"get": _list(name)} for name in LISTS}
    paths |= {"/api/traces": {"post": _upload()}, **_jobs()}
    info = {"title": "apexsim", "version": apexsim.__version__, "description": "Plans and predictions of LLM serving."}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": {**schemas, "failure": FAILURE, "job": JOB}}}


FAILURE = {"type": "object", "required": ["error"], "properties": {"error": {
    "type": "object", "required": ["kind", "message"], "properties": {
        "code": {"type": "integer", "description": "The exit code that the command line would give."}, "kind": {"type": "string"},
        "message": {"type": "string"}, "where": {"type": ["string", "null"], "description": "The key that it is about."},
        "hint": {"type": ["string", "null"]}}}}}  # fmt: skip
JOB = {"type": "object", "required": ["id", "state"], "properties": {
    "id": {"type": "string"}, "state": {"enum": ["queued", "running", "done", "failed", "cancelled"]},
    "before": {"type": "integer", "description": "Questions before it."}, "done": {"type": "integer"}, "total": {"type": "integer"},
    "what": {"type": "string", "description": "What was looked at last."}, "keeps": {"type": "boolean"},
    "stopped": {"type": "boolean", "description": "The answer is of what was done when it was cancelled."},
    "error": {"type": ["object", "null"]}}}  # fmt: skip


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: dict[str, Any], told: str) -> dict[str, Any]:
    return {"description": told, "content": {"application/json": {"schema": schema}}}


def _failures(*codes: str) -> dict[str, Any]:
    return {code: _json(_ref("failure"), STATUS[code]) for code in codes}


def _question(verb: str) -> dict[str, Any]:
    prefer = {"name": "Prefer", "in": "header", "schema": {"type": "string"},
              "description": "respond-async: answer at once with a job, whose page can be fetched too (RFC 7240)."}  # fmt: skip
    answers = [_ref(name) for name in ANSWERS[verb]]
    return {
        "summary": SAID[verb], "operationId": verb, "parameters": [prefer],
        "requestBody": {"required": True, "content": {"application/json": {"schema": described(verb)}}},
        "responses": {"200": _json(answers[0] if len(answers) == 1 else {"anyOf": answers}, "the answer"),
                      "202": _json(_ref("job"), "a job"), **_failures(*STATUS)},
    }  # fmt: skip


def _list(name: str) -> dict[str, Any]:
    query = {"name": "name", "in": "query", "schema": {"type": "string"}, "description": "Only names that hold this text."}
    return {"summary": f"The {name} that are known.", "operationId": name, "parameters": [query],
            "responses": {"200": _json(_ref(name), f"the {name}"), **_failures("403")}}  # fmt: skip


def _upload() -> dict[str, Any]:
    schema = {"type": "object", "required": ["trace", "bytes"], "properties": {"trace": {"type": "string"}, "bytes": {"type": "integer"}}}
    name = {"name": "name", "in": "query", "schema": {"type": "string"}, "description": "What answers call it."}
    return {"summary": "Upload a trace of any format, kept in memory under its hash.", "operationId": "upload", "parameters": [name],
            "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
            "responses": {"200": _json(schema, "what to write as `trace`"), **_failures("403", "408", "413", "415", "422")}}  # fmt: skip


def _jobs() -> dict[str, Any]:
    one = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    missing = {"404": _json(_ref("failure"), "no such job"), **_failures("403")}

    def get(summary: str, name: str, answer: dict[str, Any]) -> dict[str, Any]:
        return {"summary": summary, "operationId": name, "parameters": [one], "responses": {"200": answer, **missing}}

    text = {"description": "events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    page = {"description": "the file", "content": {"text/html": {"schema": {"type": "string"}}}}
    return {
        "/api/jobs/{id}": {"get": get("How far a job is.", "job", _json(_ref("job"), "the job")),
                           "delete": get("Stop it; what it has found by then is kept.", "cancel", _json(_ref("job"), "the job"))},
        "/api/jobs/{id}/events": {"get": get("The same, at every change.", "events", text)},
        "/api/jobs/{id}/answer": {"get": get("Its answer.", "answer", _json({"type": "object"}, "the answer"))},
        "/api/jobs/{id}/parts": {"get": get("Its page, in parts.", "parts", _json({"type": "object"}, "HTML and data"))},
        "/api/jobs/{id}/report.html": {"get": get("Its page as one file.", "report", page)},
    }  # fmt: skip
