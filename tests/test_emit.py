"""Files that start a plan: shells and parsers take them, schemas know them, GPUs are taken once, nothing is injected or lost."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections import Counter
from fnmatch import fnmatch
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexsim import api
from apexsim.cli import main
from apexsim.errors import InputError
from apexsim.report.emit.deployment import Deployment, File
from apexsim.report.emit.formats import FORMATS, WRITES, deployment
from apexsim.report.emit.known import schemas, unknown
from apexsim.report.emit.yaml import yaml as written
from apexsim.workload.stream import read_trace

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parent.parent
LOAD: dict[str, Any] = {"prompt_len": 200, "output_len": 8, "num_requests": 6, "request_rate": 5.0}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "one server": ("llama-3.1-70b-instruct", "TP8", {"gpu": "h100:8"}),
    "two servers": ("llama-3.1-70b-instruct", "2xTP4", {"gpu": "h100:8", "route": "least-outstanding"}),
    "eight servers": ("llama-3.1-8b", "8xTP1", {"gpu": "h200:8", "engine": "sglang"}),
    "over nodes": ("deepseek-r1", "DEP16", {"gpu": "h200:8", "nodes": 2}),
    "servers on nodes": ("llama-3.1-8b", "4xTP2", {"gpu": "h100:4", "nodes": 2, "engine": "sglang"}),
    "a file of options": ("llama-3.1-70b-instruct", "2xTP4", {"gpu": "h100:8", "engine": "tensorrt-llm"}),
    "users": ("llama-3.1-8b", "2xTP1", {"gpu": "l40s:2", "request_rate": None, "concurrency": 2, "kv_dtype": "fp8"}),
    "eager": ("llama-3.1-8b", "TP1", {"gpu": "l4:1", "settings": {"pad": ()}}),
    "a slice": ("llama-3.1-8b", "TP1", {"gpu": "h100:3g.40gb:1"}),
    "AMD": ("llama-3.1-8b", "2xTP1", {"gpu": "mi300x:2"}),
}
PAIRS = [(case, form) for case in CASES for form in FORMATS]


@cache
def made(case: str) -> Deployment:
    """The deployment of a case."""
    model, plan, asked = CASES[case]
    return deployment(api.simulate(model, plan, **{**LOAD, **asked}))


@cache
def files(case: str, form: str) -> tuple[File, ...]:
    """Its files in a form; none where the form cannot hold it."""
    try:
        return tuple(FORMATS[form](made(case)))
    except InputError as error:
        assert error.where == "--emit" and error.hint and "\n" not in error.line()
        return ()


def documents(case: str, form: str) -> list[dict[str, Any]]:
    """What the YAML files of a form hold."""
    return [part for file in files(case, form) if file.name.endswith(".yaml") for part in yaml.safe_load_all(file.text)]


def test_every_form_holds_something_and_refuses_something_with_a_line() -> None:
    held = Counter(form for case, form in PAIRS if files(case, form))
    assert set(held) == set(FORMATS)
    assert all(files(case, "run.sh") and files(case, "bench") for case in CASES)
    assert not files("over nodes", "compose") and not files("over nodes", "k8s") and files("over nodes", "lws")
    assert not files("a slice", "compose") and not files("AMD", "k8s") and not files("eight servers", "llm-d")


@pytest.mark.parametrize(("case", "form"), PAIRS)
def test_shells_and_parsers_take_every_file(case: str, form: str) -> None:
    for file in files(case, form):
        if file.name.endswith(".sh"):
            assert file.runs and file.text.startswith("#!/usr/bin/env bash\n# apexsim ")
            assert subprocess.run(["bash", "-n"], input=file.text, text=True, capture_output=True).stderr == ""
        elif file.name.endswith(".yaml"):
            assert list(yaml.safe_load_all(file.text))
        elif file.name.endswith(".json"):
            assert json.loads(file.text)


SCHEMA = {"lws": {"LeaderWorkerSet": "lws"}, "kserve": {"InferenceService": "kserve"}, "dynamo": {"DynamoGraphDeployment": "dynamo"}}


@pytest.mark.parametrize(("case", "form"), [(case, form) for case, form in PAIRS if form not in ("run.sh", "bench", "vllm-sweep")])
def test_every_field_is_known_to_the_recorded_schema(case: str, form: str) -> None:
    for part in documents(case, form):
        kind = SCHEMA.get(form, {}).get(part.get("kind", ""), part.get("kind", form))
        assert list(unknown(kind, part)) == []


def test_a_wrong_field_and_a_wrong_type_are_seen() -> None:
    assert list(unknown("Service", {"spec": {"port": 1}})) == ["spec.port is unknown"]
    assert list(unknown("Service", {"spec": {"ports": [{"port": "8000"}]}})) == ["spec.ports[].port is no integer"]
    assert list(unknown("StatefulSet", {"spec": {"replicas": True}})) == ["spec.replicas is no integer"]
    assert all(schema["source"].startswith("https://") and schema["licence"] for schema in schemas().values())


@pytest.mark.parametrize("case", CASES)
def test_replicas_times_gpus_are_those_of_the_plan(case: str) -> None:
    plan = made(case).plan
    for part in documents(case, "k8s"):
        if part["kind"] == "StatefulSet":
            (limit,) = part["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].values()
            assert part["spec"]["replicas"] * int(limit) == plan.devices
    for part in documents(case, "lws"):
        if part["kind"] == "LeaderWorkerSet":
            inner = part["spec"]["leaderWorkerTemplate"]
            (limit,) = inner["workerTemplate"]["spec"]["containers"][0]["resources"]["limits"].values()
            assert part["spec"]["replicas"] * inner["size"] * int(limit) == plan.devices
    for part in documents(case, "dynamo"):
        worker = part["spec"]["services"]["worker"]
        assert worker["replicas"] * int(worker["resources"]["limits"]["gpu"]) == plan.devices
    for part in documents(case, "llm-d"):
        decode = part["decode"]
        (limit,) = decode["containers"][0]["resources"]["limits"].values()
        assert decode["replicas"] * int(limit) == plan.devices


@pytest.mark.parametrize("case", CASES)
def test_devices_do_not_overlap_and_ports_are_unique(case: str) -> None:
    for part in documents(case, "compose"):
        services = {name: one for name, one in part["services"].items() if name != "router"}
        taken = [gpu for one in services.values() for gpu in one["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]]
        assert len(set(taken)) == len(taken) == made(case).plan.devices
        assert [port for one in part["services"].values() for port in one.get("ports", ())] == ["8000:8000"]
    for file in files(case, "run.sh"):
        shown = re.findall(r"_VISIBLE_DEVICES=([\d,]+)", file.text)
        taken = [gpu for each in shown for gpu in each.split(",")]
        ports = re.findall(r"--port (\d+)", file.text)
        assert len(set(taken)) == len(taken) and len(set(ports)) == len(ports)


def test_servers_behind_a_router_are_dealt_to_as_was_simulated() -> None:
    conf = next(file.text for file in files("two servers", "compose") if file.name.endswith(".conf"))
    assert "least_conn;" in conf and conf.count("server server-") == 2
    (front,) = (part for part in documents("two servers", "k8s") if part["kind"] == "ConfigMap")
    names = re.findall(r"server (\S+):8000", front["data"]["apexsim-router.conf"])
    (servers,) = (part for part in documents("two servers", "k8s") if part["kind"] == "StatefulSet")
    assert names == [f"{servers['metadata']['name']}-{i}.{servers['spec']['serviceName']}" for i in range(2)]


# ---- the loop ----------------------------------------------------------------------------------------------------------------


def test_the_trace_beside_the_benchmark_is_the_workload_and_its_commands_parse(tmp_path: Path) -> None:
    script, trace = files("two servers", "bench")
    path = tmp_path / trace.name
    path.write_text(trace.text, encoding="utf-8")
    work, sent = made("two servers").setting.workload, read_trace(str(path))
    assert sent.prompt.tolist() == work.prompt.tolist() and sent.arrive == pytest.approx(work.arrive)
    lines = [line for line in script.text.splitlines() if line.startswith("apexsim replay")]
    assert len(lines) == 2 and "--plan 2xTP4" in lines[1] and "--gpu h100:8" in lines[1]
    for line in lines:
        assert main([*shlex.split(line)[1:], "--help"]) == 0


def test_the_comparison_of_the_benchmark_reads_what_replay_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    script = files("eager", "bench")[0].text
    line = next(line for line in script.splitlines() if "--compare measured.json" in line)
    run = {"input_lens": [200, 200], "output_lens": [8, 8], "ttfts": [0.1, 0.1], "itls": [[0.02] * 7] * 2, "start_times": [0.0, 0.5],
           "errors": ["", ""], "generated_texts": ["", ""], "duration": 1.0, "completed": 2}  # fmt: skip
    (tmp_path / "measured.json").write_text(json.dumps(run), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(line)[1:]) == 0
    assert "predicted" in capsys.readouterr().out


@pytest.mark.parametrize("more", [
    {}, {"burstiness": 0.5}, {"prompt_factor": 2.0}, {"output_factor": 3.0}, {"stages": "3:1,10:1"},
    {"prompt_cv": 0.5}, {"turns": 2}, {"shared_prefix": "50x2"}, {"images": 2},
], ids=str)  # fmt: skip
def test_the_engines_own_benchmark_is_named_where_it_sends_the_same_load(more: dict[str, Any]) -> None:
    """Whatever else a question says of its requests, vLLM's benchmark cannot be told; a field that comes later is no exception."""
    load = {**LOAD, "num_requests": 24} | ({"request_rate": None, "num_requests": None} if "stages" in more else {})
    model = "qwen2.5-vl-7b" if "images" in more else "llama-3.1-8b"
    found = deployment(api.simulate(model, "TP1", **{**load, "gpu": "h100:1", **more}))
    script = FORMATS["bench"](found)[0].text
    assert ("vllm bench serve" in script) is (set(more) <= {"burstiness"})
    assert ("no pictures are sent" in script) is ("images" in more)
    if not set(more) <= {"burstiness"}:
        with pytest.raises(InputError, match="cannot make these requests"):
            FORMATS["vllm-sweep"](found)


def test_a_sweep_is_of_releases_that_have_one_and_speaks_of_no_single_plan() -> None:
    ask = {**LOAD, "gpu": "h100:2"}
    with pytest.raises(InputError, match=r"vllm 0\.9\.0 has no `vllm bench sweep`"):
        FORMATS["vllm-sweep"](deployment(api.plan("llama-3.1-8b", engine="vllm@0.9.0", **ask)))
    sweep = FORMATS["vllm-sweep"](deployment(api.plan("llama-3.1-8b", engine="vllm@0.28.0", **ask)))[0].text
    head = [line for line in sweep.splitlines() if line.startswith("#")]
    assert not any(" as " in line or "router" in line for line in head), head


@pytest.mark.parametrize(("form", "told"), [("run.sh", "a cache-aware router"), ("k8s", "nginx deals requests in turn; cache-aware"),
                                             ("kserve", "2 servers, to which KServe deals requests by a rule of its own")])  # fmt: skip
def test_the_head_of_a_file_tells_who_deals_requests_in_it(form: str, told: str) -> None:
    found = deployment(api.simulate("llama-3.1-8b", "2xTP1", **{**LOAD, "gpu": "h100:2", "engine": "sglang", "route": "cache-aware"}))
    head = [line for line in FORMATS[form](found)[0].text.splitlines() if line.startswith("#")]
    assert any(told in line for line in head) and (form == "run.sh" or not any("a cache-aware router" in line for line in head)), head


SIZED = ["size", "llama-3.1-8b", "--gpu", "l4,l40s", "--prompt-len", "200", "--output-len", "8", "--num-requests", "40"]


def test_the_files_of_a_size_start_the_gpus_and_the_load_that_it_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([*SIZED, "--request-rate", "3", "--ttft", "500", "--emit", "run.sh,bench", "-o", str(out), "--json", "-"]) == 0
    best = json.loads(capsys.readouterr().out)["found"][0]
    compare = next(line for line in (out / "bench.sh").read_text(encoding="utf-8").splitlines() if "--compare measured.json" in line)
    words = shlex.split(compare)
    named = dict(pairwise(words))
    assert (named["--gpu"], named["--gpus"], named["--plan"]) == (best["gpu"], str(best["gpus"]), best["plan"])
    assert len(read_trace(str(out / "trace.csv")).prompt) == 40 and os.access(out / "run.sh", os.X_OK)
    text = (out / "bench.sh").read_text(encoding="utf-8")
    assert "--num-prompts 40 --request-rate 3 " in text


def test_a_size_without_an_answer_writes_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([*SIZED, "--request-rate", "3", "--gpus", "1", "--find", "gpus", "--ttft", "1", "--emit", "run.sh", "-o", str(out)]) == 4
    assert "comes nearest" in capsys.readouterr().out and not out.exists()


# ---- hostile names -----------------------------------------------------------------------------------------------------------

NAME = 'it\'s $(touch HACKED) `touch HACKED`; "x" ${HOME} $(HOME) #'
STUB = '#!/bin/bash\nprintf "%s\\n" "$0" "$@" > "$TOLD"\nsleep 0.3\n'


def hostile(folder: Path) -> Path:
    """A model whose folder's name is an attack on a shell."""
    model = folder / NAME
    model.mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "num_hidden_layers": 2, "vocab_size": 512,
              "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512, "max_position_embeddings": 4096}  # fmt: skip
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (model / "model.safetensors").write_bytes(b"")
    return model


def test_a_hostile_name_reaches_the_server_as_it_is_and_runs_nothing(tmp_path: Path) -> None:
    model, out, bin_ = hostile(tmp_path), tmp_path / "out", tmp_path / "bin"
    words = ["simulate", str(model / "config.json"), "--plan", "TP1", "--gpu", "l4:1", "--prompt-len", "20", "--output-len", "2",
             "--num-requests", "3", "--emit", ",".join(f for f in FORMATS if f != "dynamo"), "-o", str(out)]  # fmt: skip
    assert main(words) == 0
    bin_.mkdir()
    for name in ("vllm", "apexsim", "curl"):
        (bin_ / name).write_text(STUB if name != "curl" else "#!/bin/bash\n", encoding="utf-8")
        (bin_ / name).chmod(0o755)
    for script, told in (("run.sh", "serve"), ("bench.sh", "replay"), ("sweep.sh", "bench")):
        env = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "TOLD": str(tmp_path / "told")}
        subprocess.run(["bash", str(out / script)], cwd=tmp_path, env=env, capture_output=True, timeout=60)
        heard = (tmp_path / "told").read_text(encoding="utf-8").splitlines()
        assert heard[1] == told and (str(model) in heard or str(model) in shlex.split(heard[heard.index("--serve-cmd") + 1])), script
    assert not list(tmp_path.rglob("HACKED"))
    (compose,) = yaml.safe_load_all((out / "compose.yaml").read_text(encoding="utf-8"))
    assert compose["services"]["server-0"]["command"][1] == str(model).replace("$", "$$")
    manifests = yaml.safe_load_all((out / "k8s.yaml").read_text(encoding="utf-8"))
    args = next(part for part in manifests if part["kind"] == "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[1] == str(model).replace("$(", "$$(")
    for part in yaml.safe_load_all((out / "k8s.yaml").read_text(encoding="utf-8")):
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,60}[a-z0-9])?", part["metadata"]["name"])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=4), max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), VALUES, min_size=1, max_size=4))
def test_yaml_reads_back_as_it_was(value: dict[str, Any]) -> None:
    if any(0xD800 <= ord(c) <= 0xDFFF for c in json.dumps(value, ensure_ascii=False)):
        return
    assert yaml.safe_load(written(value)) == value


def test_every_character_reads_back() -> None:
    """As a value and as a key; surrogates alone stand for no character."""
    points = [c for c in (*range(0x10000), *range(0x1F300, 0x1F400), 0x10FFFF) if not 0xD800 <= c <= 0xDFFF]
    for at in range(0, len(points), 64):
        text = "".join(map(chr, points[at : at + 64]))
        assert yaml.safe_load(written({"a": text, text: [text, "b"]})) == {"a": text, text: [text, "b"]}, hex(points[at])


# ---- nothing is lost ---------------------------------------------------------------------------------------------------------

SMALL = ["simulate", "llama-3.1-8b", "--plan", "TP1", "--gpu", "l4:1", "--prompt-len", "20", "--output-len", "2", "--num-requests", "3"]


def test_what_is_in_the_folder_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([*SMALL, "--emit", "run.sh", "-o", str(out)]) == 0
    (out / "run.sh").write_text("mine", encoding="utf-8")
    capsys.readouterr()
    assert main([*SMALL, "--emit", "run.sh,bench", "-o", str(out)]) == 2
    assert "has run.sh already; name another folder, or add --force" in capsys.readouterr().err
    assert (out / "run.sh").read_text(encoding="utf-8") == "mine" and not (out / "bench.sh").exists()
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    assert main([*SMALL, "--emit", "run.sh,bench", "-o", str(out), "--force"]) == 0
    assert (out / "notes.txt").read_text(encoding="utf-8") == "mine" and os.access(out / "run.sh", os.X_OK)


def test_no_other_output_may_stand_where_a_file_of_a_form_will(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Known before anything is simulated or written; any other name in the folder is free."""
    (tmp_path / "out").mkdir()
    for form, kinds in WRITES.items():
        for kind in kinds:
            path = tmp_path / "out" / kind.replace("*", "0")
            flag = "--csv" if path.suffix == ".csv" else "--json"
            assert main([*SMALL, "--emit", form, "-o", str(tmp_path / "out"), flag, str(path)]) == 2
            assert f"apexsim: {flag}: '" in (told := capsys.readouterr().err) and "may be written by --emit too" in told
    assert not list((tmp_path / "out").iterdir())
    assert main([*SMALL, "--emit", "bench", "-o", str(tmp_path / "out"), "--csv", str(tmp_path / "out" / "plans.csv")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"bench.sh", "trace.csv", "plans.csv"}


@pytest.mark.parametrize(("case", "form"), PAIRS)
def test_files_are_called_as_it_is_said_before(case: str, form: str) -> None:
    assert all(any(fnmatch(file.name, kind) for kind in WRITES[form]) for file in files(case, form))


def test_the_trace_that_is_read_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,isl,osl\n0,20,2\n1,20,2\n", encoding="utf-8")
    before = trace.read_bytes()
    assert main([*SMALL[:6], "--trace", str(trace), "--emit", "bench", "-o", str(tmp_path), "--force"]) == 2
    assert "is the input and would be overwritten" in capsys.readouterr().err and trace.read_bytes() == before


@pytest.mark.parametrize(("more", "told"), [
    (["--emit", "helm", "-o", "x"], "unknown form 'helm'"),
    (["--emit", "", "-o", "x"], "given without a value"),
    (["--emit", ",", "-o", "x"], "no form is named"),
    (["--emit", "run.sh"], "needs a folder"),
    (["--emit", "run.sh", "-o", "-"], "needs a folder"),
    (["--emit", "run.sh", "-o", __file__], "is a file, not a folder"),
    (["--force"], "no files are written"),
])  # fmt: skip
def test_bad_words_are_one_line(more: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *more]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


def test_lists_and_engines_without_a_server_have_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "llama-3.1-8b", "--gpu", "l4,l40s", "--gpus", "1", *SMALL[6:], "--emit", "run.sh", "-o", str(tmp_path / "x")]
    assert main(words) == 2 and "files are of one plan" in capsys.readouterr().err
    assert main([*SMALL, "--engine", "sarathi", "--emit", "run.sh", "-o", str(tmp_path / "x")]) == 3
    assert "cannot be started" in capsys.readouterr().err and not (tmp_path / "x").exists()
