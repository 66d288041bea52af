"""`apexsim web`: the same answers as on the command line, and hostile use: nothing gets in, nothing stops it."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra 'web' is not installed")
pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")

import apexsim
from apexsim import examples
from apexsim.cli import main
from apexsim.cli.rows import COMMANDS
from apexsim.errors import InputError
from apexsim.web import asked, fence, form, openapi, serve, worker
from apexsim.web.app import application
from apexsim.web.jobs import Full, Job, Jobs
from apexsim.web.limits import Limits
from apexsim.workload.stream import read_trace

Capture = pytest.CaptureFixture[str]
GOOD = {"model": "llama-3.1-8b", "gpu": "h100:2", "prompt_len": 64, "output_len": 8, "num_requests": 12}
CANARY = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,77771,77773\n"
LIMITS = Limits(late=1.5, queue=3, connections=40, uploads=2, gpus=64)


@dataclass(frozen=True)
class Reply:
    """What came back: status 0 where the connection was closed without a word."""

    status: int
    head: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """A server in this process, spoken to over real connections."""

    port: int

    def raw(self, data: bytes, patience: float = 30.0) -> Reply:
        """Send bytes as they are, and read until the end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=patience) as line:
            parts: list[bytes] = []
            try:
                line.sendall(data)
                while part := line.recv(1 << 16):
                    parts.append(part)
            except ConnectionError:  # it was closed while we spoke
                pass
        head, _, body = b"".join(parts).partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        found = re.match(r"HTTP/1\.1 (\d+)", lines[0])
        named = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        if named.get("transfer-encoding") == "chunked":
            body = b"".join(re.split(rb"(?:\r\n)?[0-9a-f]+\r\n", body))
        return Reply(int(found[1]) if found else 0, named, body)

    def ask(self, path: str = "/api/plan", body: Any = None, method: str = "", **headers: str | None) -> Reply:
        """A request; headers that are None are left out."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        usual: dict[str, str | None] = {"host": f"127.0.0.1:{self.port}", "connection": "close"}
        usual |= {"content-type": "application/json", "content-length": str(len(data))} if body is not None else {}
        usual |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [
            f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1",
            *(f"{n}: {v}" for n, v in usual.items() if v is not None),
        ]
        return self.raw("\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + data)

    def job(self, body: Any, verb: str = "plan") -> str:
        """A question that is answered later; its id."""
        reply = self.ask(f"/api/{verb}", body, prefer="respond-async")
        assert reply.status == 202, reply
        return str(reply.json["id"])

    def ended(self, job: str) -> Any:
        """The state of a job when it is over."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            state = self.ask(f"/api/jobs/{job}").json
            if state["state"] in ("done", "failed", "cancelled"):
                return state
            time.sleep(0.02)
        raise AssertionError(state)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    import uvicorn

    before, place = Path.cwd(), tmp_path_factory.mktemp("place")
    for name in ("canary", "canary.csv", "canary.toml", "canary.json"):
        (place / name).write_text(CANARY, encoding="utf-8")
    os.chdir(place)
    listening = serve.bound("127.0.0.1", 0)
    runs = uvicorn.Server(serve.config(application(LIMITS), LIMITS))
    thread = threading.Thread(target=runs.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield Server(listening.getsockname()[1])
    finally:
        runs.should_exit = True
        thread.join(timeout=20)
        os.chdir(before)
        listening.close()


counted = iter(range(13, 10_000))


@pytest.fixture
def alive(server: Server) -> Iterator[Server]:
    """The server, which answers a question that it has not heard yet after whatever was done to it."""
    yield server
    reply = server.ask(body={**GOOD, "num_requests": next(counted)})
    assert reply.status == 200 and reply.json["format"].startswith("apexsim.study/")


# ---- the same answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "body", "words"), [
    ("plan", {**GOOD, "ttft": 900, "quant": "auto,fp8"}, ["--ttft", "900", "--quant", "auto,fp8"]),
    ("plan", {**GOOD, "gpu": ["l40s", "h100"], "gpus": "1,2", "request_rate": [1, 2.5]},
     ["--gpu", "l40s,h100", "--gpus", "1,2", "--request-rate", "1,2.5"]),
    ("simulate", {**GOOD, "plan": "2xTP1", "enforce_eager": True, "slos": ["tpot:p95=90ms", "e2e=2s"]},
     ["--plan", "2xTP1", "--enforce-eager", "--slo", "tpot:p95=90ms", "--slo", "e2e=2s"]),
    ("simulate", {"model": "llama-3.1-8b", "gpu": "h100:1", "tp": 1, "trace": "example:lmsys", "warmup": 5, "request_rate": "inf"},
     ["--tp", "1", "--trace", "example:lmsys", "--warmup", "5", "--request-rate", "inf"]),
    ("size", {**GOOD, "ttft": "500", "find": "rate"}, ["--ttft", "500", "--find", "rate"]),
], ids=["plan", "lists", "simulate", "trace", "size"])  # fmt: skip
def test_answers_are_those_of_the_command_line(verb: str, body: Any, words: list[str], server: Server, capsys: Capture) -> None:
    usual = [word for name in ("gpu", "prompt_len", "output_len", "num_requests") if f"--{name}" not in words and name in body
             for word in (f"--{name.replace('_', '-')}", str(body[name]))]  # fmt: skip
    assert main([verb, body["model"], *usual, *words, "--json", "-"]) == 0
    reply = server.ask(f"/api/{verb}", body)
    assert reply.status == 200 and reply.body.decode() == capsys.readouterr().out


def test_an_uploaded_trace_is_read_as_a_file_is(server: Server, tmp_path: Path, capsys: Capture) -> None:
    text = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,70,7\n0.5,90,9\n"
    found = server.ask("/api/traces?name=../my%20trace.csv", text.encode(), content_type="application/octet-stream").json
    body = {"model": "llama-3.1-8b", "gpu": "h100:1", "trace": found["trace"]}
    reply = server.ask(body=body)
    assert reply.status == 200 and reply.json["inputs"]["trace"] == "mytrace.csv"
    columns = {"arrive": [0.0, 0.5], "prompt": [70, 90], "output": [7, 9]}
    assert server.ask(body={**body, "trace": columns}).json["ranked"] == reply.json["ranked"]
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert main(["plan", "llama-3.1-8b", "--gpu", "h100:1", "--trace", str(tmp_path / "t.csv"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["ranked"] == reply.json["ranked"]


def test_a_model_may_be_the_keys_of_its_configuration(server: Server) -> None:
    config = {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
              "intermediate_size": 1024, "vocab_size": 1000, "max_position_embeddings": 4096, "_name_or_path": "/etc/passwd"}  # fmt: skip
    reply = server.ask(body={**GOOD, "model": config})
    assert reply.status == 200 and b"passwd" not in reply.body


def test_a_job_has_progress_rows_a_page_and_a_file(server: Server) -> None:
    job = server.job({**GOOD, "gpu": "h100:4", "request_rate": 3})
    events = server.ask(f"/api/jobs/{job}/events").body.decode()
    told = [json.loads(line.removeprefix("data: ")) for line in events.splitlines() if line.startswith("data: ")]
    assert told[-1]["state"] == "done" and told[-1]["done"] == told[-1]["total"] > 1 and sum(len(each["rows"]) for each in told) > 1
    parts = server.ask(f"/api/jobs/{job}/parts").json
    assert '<section id="plans">' in parts["body"] and len(parts["data"]["charts"]) > 3 and "<script" not in parts["body"]
    report = server.ask(f"/api/jobs/{job}/report.html")
    assert report.body.startswith(b"<!doctype html>") and "sandbox" in report.head["content-security-policy"]
    assert server.ask(f"/api/jobs/{job}/answer").json["format"].startswith("apexsim.study/")
    assert server.job({**GOOD, "gpu": "h100:4", "request_rate": 3}) == job, "the same question is not worked on twice"


def test_a_search_that_is_stopped_tells_what_it_found_or_ends(alive: Server) -> None:
    job = alive.job({"model": "mixtral-8x7b", "gpu": "h100,h200", "gpus": "4,8", "workload": "chat", "request_rate": [1, 2, 4, 8],
                     "num_requests": 3000})  # fmt: skip
    while (state := alive.ask(f"/api/jobs/{job}").json)["state"] in ("queued", "running") and not state["done"]:
        time.sleep(0.01)
    assert alive.ask(f"/api/jobs/{job}", method="DELETE").status == 200
    state = alive.ended(job)
    assert state["state"] == "cancelled" or (state["state"] == "done" and state["stopped"])


# ---- what it is made of ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", asked.VERBS)
def test_every_option_is_a_key_a_field_and_described_unless_it_names_a_file(verb: str) -> None:
    wanted = {asked.key(opt) for panel, group in COMMANDS[verb].items() if panel != "Output" for opt in group
              if opt.metavar != "FILE" or opt.name == "trace"} - {"profile"}  # fmt: skip
    assert set(asked.options(verb)) == wanted == set(asked.described(verb)["properties"]) - {"model"}
    text = form.page(Limits(), asks=True)
    assert [name for name in wanted if f'id="f-{name}"' not in text] == []
    assert not [opt for opt in asked.options(verb).values() if opt.writes or (opt.metavar == "FILE" and opt.name != "trace")]


def test_the_examples_of_the_form_are_traces() -> None:
    assert set(form.TRACES) < set(examples.names()) and all(read_trace(f"example:{name}").size for name in form.TRACES)


def test_every_field_has_a_label_and_a_place_for_what_is_wrong() -> None:
    text = form.page(Limits(), asks=True)
    for name in re.findall(r'<(?:input|select)[^>]* id="(f-[\w-]+)"', text):
        assert f'for="{name}"' in text or re.search(rf'<label class="switch"><input[^>]*id="{name}"', text), name
        assert f'id="e-{name[2:]}"' in text or name == "f-file"
    assert "http:" not in text and "https:" not in text and "<script>" not in text and " style=" not in text


def test_the_description_leads_somewhere_and_holds_for_an_answer(server: Server) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = server.ask("/api/openapi.json").json
    assert document == json.loads(json.dumps(openapi.document())) and document["openapi"] == "3.1.0"
    names = set(re.findall(r'"#/components/schemas/([\w-]+)"', json.dumps(document)))
    assert names <= set(document["components"]["schemas"])
    for name in openapi.LISTS:
        rows = server.ask(f"/api/{name}?name={'h1' if name == 'gpus' else 'l'}").json
        assert rows
    whole = {**document, "$ref": "#/components/schemas/study"}
    jsonschema.Draft202012Validator(whole).validate(server.ask(body=GOOD).json)
    jsonschema.Draft202012Validator(asked.described("plan")).validate(GOOD)


def test_every_answer_says_what_may_be_done_with_it(server: Server) -> None:
    for path in ("/", "/assets/form.js", "/api/models?name=llama", "/nowhere"):
        head = server.ask(path).head
        assert "default-src 'none'" in head["content-security-policy"] and "unsafe-inline" not in head["content-security-policy"].partition(
            "style-src-attr 'unsafe-inline'")[0]  # fmt: skip
        assert (head["x-content-type-options"], head["x-frame-options"]) == ("nosniff", "deny")
        assert not [name for name in head if name.startswith("access-control")]


# ---- hostile use -------------------------------------------------------------------------------------------------------------

Case = Callable[[Server], Reply]
DEEP = b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def with_body(data: bytes, **headers: str | None) -> Case:
    return lambda s: s.ask(body=data, **headers)


def with_keys(verb: str = "plan", **keys: Any) -> Case:
    return lambda s: s.ask(f"/api/{verb}", {**GOOD, **keys})


def at(path: str, method: str = "GET", **headers: str | None) -> Case:
    return lambda s: s.ask(path, method=method, **headers)


def raw(data: bytes) -> Case:
    return lambda s: s.raw(data.replace(b"PORT", str(s.port).encode()))


def upload(data: bytes, **headers: str | None) -> Case:
    return lambda s: s.ask("/api/traces", data, **{"content_type": "application/octet-stream", **headers})


NOT_OURS, SITES = (400, 403), ("cross-site", "same-site", "x")
POST = b"POST /api/plan HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Type: application/json\r\nConnection: close\r\n"
CASES: dict[str, dict[str, tuple[Case, tuple[int, ...]]]] = {
    "names of this server": {
        **{f"host {name}": (at("/", host=name), NOT_OURS) for name in (
            "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "evil.example:8765", "0.0.0.0",
            "169.254.169.254", "2130706433", "127.1", "localhost.", "[::1]evil", "[::ffff:7f00:1]", "", "a" * 5000, "127.0.0.1:80:80",
            "127.0.0.1, evil.example", "\udcff", "xn--localhost-", "LOCALHOST/..")},
        "two hosts": (raw(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nHost: evil.example\r\nConnection: close\r\n\r\n"), NOT_OURS),
        "no host": (raw(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"), NOT_OURS),
        "no host, old": (raw(b"GET / HTTP/1.0\r\n\r\n"), NOT_OURS),
        "another name": (raw(b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"), NOT_OURS),
    },
    "other pages": {
        **{f"origin {origin}": (with_body(json.dumps(GOOD).encode(), origin=origin), (403,)) for origin in (
            "null", "http://evil.example", "http://127.0.0.1:1", "http://localhost", "https://127.0.0.1", "file://", "",
                "chrome-extension://a")},
        **{f"from {site}": (with_body(json.dumps(GOOD).encode(), sec_fetch_site=site), (403,)) for site in SITES},
        "an image of it": (at("/api/models", sec_fetch_site="cross-site", sec_fetch_mode="no-cors"), (403,)),
        "a frame of a job": (at("/api/jobs/x", sec_fetch_site="cross-site", sec_fetch_mode="navigate"), (403,)),
        "asks whether it may": (at("/api/plan", "OPTIONS", origin="http://evil.example", access_control_request_method="POST"), (403,)),
        "a web socket": (at("/api/plan", upgrade="websocket", connection="Upgrade, close", sec_websocket_key="x",
            sec_websocket_version="13"),
                         (400, 403, 405)),
    },
    "types": {
        **{f"type {kind}": (with_body(json.dumps(GOOD).encode(), content_type=kind), (415,)) for kind in (
            "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/jsonp", None,
            "text/plain; application/json")},
        "packed": (with_body(b"\x1f\x8b\x08", content_encoding="gzip"), (415,)),
        "an upload as a form": (upload(b"a,b\n1,2\n", content_type="multipart/form-data; boundary=x"), (415,)),
    },
    "sizes": {
        "a large body": (with_body(b" " * (1 << 20) + b"{}"), (413,)),
        "a larger one than it says": (with_body(b"{}", content_length="999999999999999999"), (413,)),
        "a length that is none": (with_body(b"{}", content_length="-1"), (400, 413)),
        "two lengths": (raw(b"POST /api/plan HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), (400,
            )),
        "length and pieces": (raw(POST +
                                  b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"), (400,)),
        "pieces without end": (raw(POST +
                                   b"Transfer-Encoding: chunked\r\n\r\n" + (b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 80), (413,)),
        "a long head": (at("/", x="y" * 300_000), (0, 200, 400, 431)),
        "many heads": (at("/", **{f"x{i}": "y" for i in range(30_000)}), (0, 200, 400, 431)),
        "a long address": (at("/?" + "a" * 200_000), (0, 400, 414)),
        "a large upload": (upload(b"", content_length=str(1 << 40)), (413,)),
        "many keys": (with_keys(**{f"k{i}": 1 for i in range(20_000)}), (422,)),
        "a long text": (with_keys(engine="v" * 100_000), (422,)),
        "a long model": (with_keys(model="llama-3.1-8b" * 9000), (422,)),
        "a long list": (with_keys(request_rate=list(range(1, 5000))), (422,)),
        "many combinations": (with_keys(request_rate=list(range(1, 20)), tp=[1, 2, 4, 8], num_requests="10,11"), (422,)),
        "many requests": (with_keys(num_requests=10_000_000), (422,)),
        "many users": (with_keys(concurrency=10_000_000), (422,)),
        "many GPUs": (with_keys(gpu="h100", gpus=4096), (422,)),
        "many GPUs in the name": (with_keys(gpu="8x64xh100"), (422,)),
        "endless GPUs": (with_keys(gpu="h100:999999999"), (422,)),
        "long stages": (with_keys(num_requests=None, stages="99999:99999999"), (422,)),
        "a number of 5,000 digits": (with_body(b'{"model": "llama-3.1-8b", "gpu": "h100:1", "seed": ' + b"9" * 5000 + b"}"), (400, 422)),
    },
    "what is no question": {
        **{f"JSON {name}": (with_body(data), (400, 422)) for name, data in {
            "empty": b"", "half": b'{"model": "x"', "deep": DEEP, "somewhat deep": b'{"model":' + b'{"a":' * 30 + b"1" + b"}" * 31,
            "NaN": b'{"model": "llama-3.1-8b", "gpu": "h100:1", "risk": NaN}', "infinite": b'{"risk": -Infinity}',
                "too large": b'{"risk": 1e999}',
            "twice": b'{"model": "a", "model": "b"}', "no UTF-8": b'{"model": "\xff\xfe"}', "half a character": b'{"model": "\\ud800"}',
            "a mark in front": b"\xef\xbb\xbf{}", "wide": '{"model": "x"}'.encode("utf-16"), "a list": b"[]", "a text": b'"x"',
                "null": b"null",
            "a number": b"7", "more behind": b"{} {}", "a NUL": b'{"model": "llama\\u0000"}', "a comment": b"{} // x", "true": b"true",
        }.items()},
    },
    "values": {
        **{f"{name}={value!r}"[:60]: (with_keys(**{name: value}), (422,)) for name, value in (
            ("gpu", None), ("gpu", 7), ("gpu", ""), ("gpu", []), ("gpu", [["h100"]]), ("gpu", {"name": "x", "kernels": "/etc"}), ("gpu",
                "no such"),
            ("model", None), ("model", 7), ("model", []), ("model", {}), ("model", ""), ("model", ","), ("model", {"model_type": "llama"}),
            ("model", {"model_type": "llama", "hidden_size": 1e300}), ("model", {"architectures": [["x"]], "hidden_size": -1}),
            ("tp", -1), ("tp", 0), ("tp", "x"), ("tp", 1.5), ("tp", True), ("tp", "1,024"), ("tp", {}), ("gpus", "٣k5"), ("seed", -1),
                ("risk", 2),
            ("risk", "nan"), ("request_rate", 0), ("request_rate", "-inf"), ("request_rate", "nan"), ("objective", "x"), ("tune", "yes"),
            ("tune", 1), ("slos", "x"), ("slos", [1]), ("slos", [[]]), ("quant", "x"), ("speculate", "mtp:1..999"), ("engine", "no such"),
            ("stages", "x"), ("pareto", "a/b"), ("shared_prefix", "1000000000x1000000000"), ("length_spread", 9), ("image_size", "1x1"),
            ("__proto__", {}), ("constructor", 1), ("__class__", 1), ("progress", 1), ("seen", 1), ("settings", {"chunk": 1}))},
    },
    "paths": {
        **{f"{name}={value}"[:60]: (with_keys(**{name: value}), (422,)) for name, value in (
            *(("model", path) for path in ("/etc/passwd", "../../etc/passwd", "~/.ssh/id_rsa", "file:///etc/passwd", "C:\\boot.ini",
                "\\\\host\\x",
                                           "canary", "canary.json", "./canary.json", "~root/llama-3.1-8b", "..",
                                               "no-such-owner/no-such-model")),
            *(("gpu", path) for path in ("/dev/zero", "/proc/self/environ", "..", "..:8", "canary", "canary:8", "canary.toml", "./:2",
                "~", "x.toml:8")),
            *(("trace", path) for path in ("/etc/passwd", "canary", "canary.csv", "example:../canary", "example:/etc/passwd",
                "example:none",
                                           "upload:../../etc/passwd", f"upload:{'0' * 64}", "-", {"prompt": "canary.csv"}, {"prompt": [1],
                                               "x": [[1]]})),
            ("workload", "canary.toml"), ("workload", "/etc/passwd"), ("expert_load", "canary.json"), ("acceptance", "canary"),
            ("engine", "../canary"), ("engine", "canary.toml"), ("map", "x"), ("columns", "time=/etc/passwd"), ("price", "/etc/passwd"),
            ("profile", "canary"), ("json", "/tmp/x"), ("output", "x"), ("html", "x.html"), ("plot", "x.svg"), ("emit", "run.sh"),
            ("against", "canary.json"), ("ray", "10.0.0.1:6379"), ("workers", 9), ("csv", "-"), ("force", True))},
        **{f"GET {path}"[:60]: (at(path), (400, 403, 404, 405)) for path in (
            "/assets/../pyproject.toml", "/assets/..%2f..%2fpyproject.toml", "/assets/%2e%2e/page.html", "/assets//etc/passwd",
                "/assets/page.html",
            "/assets/SOURCES.toml", "/assets/%00", "/assets/form.js%00.css", "/assets/", "//etc/passwd", "/../../etc/passwd", "/canary.csv",
            "/api/jobs/../../canary", "/api/jobs/%2e%2e", "/api/jobs/x/report.html", "/.git/config", "/api/traces", "/api/plan", "/docs")},
    },
    "methods": {
        **{f"{method} {path}": (at(path, method), (0, 400, 403, 404, 405, 411)) for method, path in (
            ("TRACE", "/"), ("CONNECT", "evil.example:443"), ("PUT", "/api/traces"), ("PATCH", "/api/plan"), ("DELETE", "/api/plan"),
            ("POST", "/"), ("DELETE", "/api/jobs/x"), ("OPTIONS", "*"), ("GET", "*"), ("PROPFIND", "/"), ("X" * 5000, "/"), ("get",
                "/api/plan"))},
        "another protocol": (raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200), (0, 400)),
        "a newer one": (raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"), (0, 400, 403)),
        "noise": (raw(bytes(range(256)) * 40), (0, 400)),
        "a head within a head": (at("/", x="a\r\nOrigin: null"), NOT_OURS),
    },
    "traces": {
        **{f"upload {name}": (upload(data), (422,)) for name, data in {
            "packed": b"\x1f\x8b\x08\x00", "binary": bytes(range(256)), "empty": b"", "blank": b" \n", "a NUL": b"a,b\n1,\0\n",
                "PAR1": b"PAR1\x15\xff"}.items()},
        **{f"trace of {name}": (lambda s, data=data: s.ask(body={"model": "llama-3.1-8b", "gpu": "h100:1", "trace": s.ask(
            "/api/traces", data, content_type="application/octet-stream").json["trace"]}), (422,)) for name, data in {
            "words": b"hello", "one column": b"a\n1\n", "minus": b"arrived_at,num_prefill_tokens,num_decode_tokens\n0,-5,7\n",
            "deep": b"[" * 50_000, "endless": b"arrived_at,num_prefill_tokens,num_decode_tokens\n1e999,5,7\n",
            "a long cell": b'a,"' + b"x" * 300_000,
                "many": b"arrived_at,num_prefill_tokens,num_decode_tokens\n" + b"0,5,7\n" * 300_001}.items()},
    },
}  # fmt: skip


def test_there_are_a_hundred_cases_and_more() -> None:
    assert sum(map(len, CASES.values())) > 200


@pytest.mark.parametrize("group", CASES)
def test_hostile_use_gets_nothing_and_stops_nothing(group: str, alive: Server) -> None:
    wrong = []
    for name, (case, statuses) in CASES[group].items():
        reply = case(alive)
        leaks = any(word in reply.body for word in (b"root:", b"77771", b"Traceback", b"/src/apexsim", b'File "'))
        told = reply.body[:1] != b"{" or b'"error"' in reply.body
        if reply.status not in statuses or leaks or not told or any(n.startswith("access-control") for n in reply.head):
            wrong.append((name, reply.status, reply.body[:300]))
    assert not wrong


def test_a_link_of_others_opens_the_form_but_asks_nothing(server: Server) -> None:
    assert b'data-asks="no"' in server.ask("/?model=x", sec_fetch_site="cross-site", sec_fetch_mode="navigate").body
    assert b'data-asks="yes"' in server.ask("/?model=x", sec_fetch_site="none", sec_fetch_mode="navigate").body


def test_slow_heads_and_bodies_are_given_up(alive: Server) -> None:
    slow = [socket.create_connection(("127.0.0.1", alive.port), timeout=10) for _ in range(6)]
    for line in slow[:3]:
        line.sendall(b"GET / HTTP/1.1\r\nX: ")
    for line in slow[3:5]:
        line.sendall(b"POST /api/plan HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
    replies = [line.recv(100) for line in slow]
    assert replies[:3] == [b""] * 3 == [*replies[5:], b"", b""] and all(b" 408 " in reply for reply in replies[3:5])
    for line in slow:
        line.close()


def test_a_flood_of_connections_is_turned_away(alive: Server) -> None:
    lines = [socket.create_connection(("127.0.0.1", alive.port), timeout=10) for _ in range(70)]
    time.sleep(LIMITS.late + 0.3)  # those that say nothing are closed
    for line in lines:
        line.close()


def test_a_flood_of_questions_waits_in_a_short_queue(alive: Server) -> None:
    work = {"model": "mixtral-8x7b", "gpu": "h100:8", "workload": "chat", "request_rate": [1, 2, 4, 8], "num_requests": 4000}
    replies = [alive.ask(body={**work, "seed": seed}, prefer="respond-async") for seed in range(8)]
    assert {reply.status for reply in replies} == {202, 429} and next(r for r in replies if r.status == 429).head["retry-after"]
    for reply in replies[::-1]:
        if reply.status == 202:
            alive.ask(f"/api/jobs/{reply.json['id']}", method="DELETE")
            assert alive.ended(reply.json["id"])["state"] in ("cancelled", "done")


def test_who_hangs_up_is_not_worked_for(alive: Server) -> None:
    body = json.dumps(
        {"model": "mixtral-8x7b", "gpu": "h100:8", "workload": "chat", "request_rate": [1, 2, 4, 8, 16], "num_requests": 9000}
    )
    with socket.create_connection(("127.0.0.1", alive.port)) as line:
        line.sendall(POST.replace(b":PORT", b"") + f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        time.sleep(0.2)


# ---- workers that misbehave ----------------------------------------------------------------------------------------------------


def misbehaving(pipe: Any, folder: str, limits: Limits) -> None:
    """A worker that does what the model's name says."""
    pipe.send(("", "ready", {}))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        name, question, _ = pipe.recv()
        if question.model == "die":
            os._exit(1)
        if question.model == "hang":
            time.sleep(600)
        pipe.send((name, "answer", {"json": "{}", "keeps": True, "stopped": False}))
        pipe.send((name, "done", {}))
        pipe.send((name, "failed", {"message": "too late"}))


def ended(jobs: Jobs, model: str, stop: bool = False) -> Job:
    job = jobs.submit(asked.Question("plan", model, {"n": next(counted)}))
    if stop:
        while job.state == "queued":
            time.sleep(0.01)
        jobs.cancel(job)
    until = time.monotonic() + 30
    while not job.over and time.monotonic() < until:
        time.sleep(0.01)
    return job


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_worker_that_dies_or_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    forks = multiprocessing.get_context("fork")
    monkeypatch.setattr("apexsim.web.jobs.multiprocessing.get_context", lambda how: forks)  # at once; nothing of ours is called in them
    monkeypatch.setattr("apexsim.web.jobs.GRACE", 0.1)
    jobs = Jobs(replace(LIMITS, seconds=0.4), misbehaving)
    jobs.start()
    try:
        assert ended(jobs, "work").state == ended(jobs, "work").state == "done"
        dead, late = ended(jobs, "die"), ended(jobs, "hang")
        assert (dead.state, late.state) == ("failed", "failed") and dead.error and late.error
        assert "died" in dead.error["message"] and late.error["kind"] == "time limit"
        assert ended(jobs, "hang", stop=True).state == "cancelled"
        assert ended(jobs, "work").state == "done"
    finally:
        jobs.close()


def test_a_full_queue_refuses_and_forgets_what_is_left() -> None:
    jobs = Jobs(replace(LIMITS, queue=2), misbehaving)
    found = [jobs.submit(asked.Question("plan", name, {})) for name in "ab"]
    with pytest.raises(Full):
        jobs.submit(asked.Question("plan", "c", {}))
    jobs.cancel(found[0])
    assert found[0].state == "cancelled" and jobs.find(found[0].id) is found[0] and found[1].state == "queued"
    again = jobs.submit(asked.Question("plan", "b", {}))
    assert again is not found[1], "who stops one of both stops it for himself alone"
    again.state = "done"
    jobs.cancel(found[1])
    assert jobs.submit(asked.Question("plan", "b", {})) is again


@pytest.mark.parametrize(("event", "arguments", "free"), [
    ("open", ("/etc/passwd", "r", 0), False), ("open", ("../x", "r", 0), False), ("open", (os.path.expanduser("~/.netrc"), "r", 0), False),
    ("open", (worker.__file__, "r", 0), True), ("open", (worker.__file__, "w", 0), False), ("open", (worker.__file__, None, os.O_RDWR),
        False),
    ("open", ("trace", "w", 0), True), ("open", (3, "r", 0), True), ("open", (b"/etc/shadow", "r", 0), False), ("socket.connect", (None,
        "x"), False),
    ("subprocess.Popen", ("sh", [], None, None), False), ("os.remove", ("trace", -1), True), ("os.remove", ("/etc/passwd", -1), False),
    ("os.system", (b"true",), False), ("open", ("/proc/self/environ", "r", 0), False),
    ("os.listdir", ("/",), False), ("os.scandir", (".",
        ), True), ("import", ("os", None, None, None, None), True),
])  # fmt: skip
def test_a_worker_leaves_its_place_for_nothing(
    event: str, arguments: Any, free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    heed = worker.fenced(tmp_path)
    if free:
        heed(event, arguments)
    else:
        with pytest.raises(PermissionError):
            heed(event, arguments)


# ---- the command ---------------------------------------------------------------------------------------------------------------


def test_it_says_where_it_is_and_ends_cleanly() -> None:
    words = [sys.executable, "-m", "apexsim", "web", "--port", "0"]
    ours = {**os.environ, "PYTHONPATH": str(Path(apexsim.__file__).parents[1])}
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ours) as runs:
        assert runs.stderr is not None
        line = runs.stderr.readline()
        assert re.fullmatch(r"apexsim: http://127\.0\.0\.1:\d+  \(Ctrl-C ends it\)\n", line)
        Server(int(line.split(":")[3].split()[0])).ask("/")
        runs.send_signal(signal.SIGINT)
        out, err = runs.communicate(timeout=60)
    assert (runs.returncode, out, err) == (0, "", "")


def test_a_busy_port_is_one_line(server: Server, capsys: Capture) -> None:
    assert main(["web", "--port", str(server.port)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--port: cannot listen on 127.0.0.1" in err and "in use" in err


@pytest.mark.parametrize("host", ["no such host", "256.1.1.1", "\udcff", "a" * 300, "192.0.2.1"])
def test_an_address_that_is_none_is_one_line(host: str, capsys: Capture) -> None:
    with pytest.raises(InputError) as error:
        serve.bound(host, 0)
    assert error.value.where in ("--host", "--port")


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("apexsim.cli.web.find_spec", lambda name: None if name == "uvicorn" else importlib.util.find_spec(name))
    assert main(["web"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "pip install 'apexsim[web]'" in err


def test_who_opens_it_to_others_is_warned_and_names_stay_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    told: list[str] = []
    serve.serve(LIMITS, "0.0.0.0", 0, told.append)
    assert len(told) == 2 and "warning" in told[1]
    wide, narrow = fence.Fence(None, "0.0.0.0"), fence.Fence(None, "::1", ["Plans.example"])  # type: ignore[arg-type]

    def why(which: fence.Fence, host: str) -> str:
        return which.why_not({"type": "http", "method": "GET", "path": "/", "headers": [(b"host", host.encode())]})

    assert not why(wide, "192.0.2.7:8765") and not why(wide, socket.gethostname()) and why(wide, "evil.example")
    assert not why(narrow, "[::1]:80") and not why(narrow, "localhost") and why(narrow, "192.0.2.7")
    assert not why(narrow, "plans.example") and why(narrow, "other.plans.example")


# ---- a browser -----------------------------------------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="no playwright here")
    with sync.sync_playwright() as tool:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        if not found and not Path(tool.chromium.executable_path).exists():
            pytest.skip("no Chromium here")
        opened = tool.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1440, "light")])
def test_a_person_asks_in_a_browser(width: int, theme: str, server: Server, browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.port}/")

    def narrow() -> bool:
        return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))

    assert narrow()
    for label, text in (
        ("model", "llama-3.1-8b"),
        ("GPU", "h1oo:2"),
        ("prompt tokens", "64"),
        ("output tokens", "8"),
        ("requests", str(width)),
    ):
        page.get_by_label(label, exact=True).fill(text)
    page.keyboard.press("Enter")
    page.wait_for_selector("#e-gpu:not([hidden])")
    assert "unknown GPU" in page.inner_text("#e-gpu") and page.evaluate("document.activeElement.id") == "f-gpu"
    page.keyboard.press("Control+a")
    page.keyboard.type("h100:2")
    page.keyboard.press("Enter")
    page.wait_for_selector("#report h1")
    page.locator("#report .chart").first.scroll_into_view_if_needed()  # drawn when it is looked at
    page.locator("#report canvas").first.wait_for()
    assert "llama" in page.inner_text("#report h1").lower() and narrow() and page.is_hidden("#e-gpu")
    with browser.new_page() as other:
        other.goto(page.url)
        other.wait_for_selector("#report h1")
        assert other.input_value("#f-model") == "llama-3.1-8b" and other.inner_text("#report h1") == page.inner_text("#report h1")
    (tmp_path / "mine.csv").write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,70,7\n0.5,90,9\n", encoding="utf-8")
    for label in ("prompt tokens", "output tokens", "requests"):
        page.get_by_label(label, exact=True).fill("")
    page.set_input_files("#f-file", tmp_path / "mine.csv")
    page.locator("#f-trace option[value^='upload:']").wait_for(state="attached")
    page.click("#send")
    page.locator("#report", has_text="mine.csv").wait_for()
    allowed = [fault for fault in faults if "422" not in fault]  # the browser notes a refused question itself
    assert not allowed
    page.close()
