"""Every JSON output keeps its schema, schemas are closed and documented, and failures are JSON too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apexsim import api
from apexsim.cli import main
from apexsim.report.schema import OUTPUTS, SHARED, json_page, schema_of
from apexsim.search.study import Interrupted

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is in the test extra")
ROOT = Path(__file__).parent.parent
Capture = pytest.CaptureFixture[str]
MADE = ["--prompt-len", "64", "--output-len", "8", "--num-requests", "12"]
EIGHT = ["llama-3.1-8b", "--gpu", "h100:1", *MADE]


def valid(name: str, value: Any) -> None:
    """Raise where a value breaks the schema of an output, or that of all outputs."""
    for schema in (schema_of(name), schema_of()):
        jsonschema.Draft202012Validator(schema).validate(value)


def told(capsys: Capture, *words: str, code: int = 0) -> Any:
    """The JSON that a command writes to standard output: one document, nothing else."""
    assert main([*words, "--json", "-"]) == code
    return json.loads(capsys.readouterr().out)


STUDIES = {
    "open": ["plan", *EIGHT, "--request-rate", "4"],
    "closed": ["plan", *EIGHT, "--concurrency", "3", "--warmup", "2"],
    "offline": ["simulate", *EIGHT, "--tp", "1"],
    "one token": ["plan", "llama-3.1-8b", "--gpu", "l4:1", "--prompt-len", "9", "--output-len", "1", "--num-requests", "3",
                  "--objective", "ttft"],
    "limits": ["plan", *EIGHT, "--request-rate", "4", "--slo", "ttft:p95<9s", "--slo", "tpot<1s", "--power-cap", "700"],
    "saturated": ["plan", "llama-3.1-70b", "--gpu", "h100:4", "--prompt-len", "2k", "--output-len", "64", "--num-requests", "60",
                  "--qps", "90"],
    "trace": ["plan", "llama-3.1-8b", "--gpu", "h100:1", "--trace", str(ROOT / "examples/lmsys_05.jsonl"), "--engine", "sglang"],
    "prefixes": ["simulate", "llama-3.1-8b", "--gpu", "h100:1", "--plan", "TP1", "--trace", str(ROOT / "examples/azure_conversation.csv")],
    "formats": ["plan", *EIGHT, "--quant", "auto,fp8", "--clock", "1410,1980", "--kv-cache-dtype", "fp8"],
    "between versions": ["plan", *EIGHT, "--engine", "vllm@0.23.1", "--mem-fraction-static", "0.9"][:-2],
    "nodes": ["plan", "deepseek-v3", "--gpu", "2x8xh100", "--prompt-len", "99", "--output-len", "9", "--num-requests", "9", "--tp", "8"],
    "no price": ["simulate", "llama-3.1-8b", "--gpu", "b60:4", "--plan", "TP4", *MADE],
    "recurrent": ["plan", "qwen3-next-80b-a3b", "--gpu", "h200:2", *MADE],
    "policy": ["plan", *EIGHT, "--engine", "orca"],
    "trtllm": ["plan", "mixtral-8x7b", "--gpu", "h100:2", *MADE, "--backend", "trtllm", "--max-batch-size", "64"],
    "images": ["simulate", "qwen2.5-vl-7b", "--gpu", "h100:1", "--plan", "TP1", *MADE, "--images", "1"],
}  # fmt: skip


@pytest.mark.parametrize("words", STUDIES.values(), ids=STUDIES)
def test_studies_keep_their_schema(words: list[str], capsys: Capture) -> None:
    valid("study", told(capsys, *words))


def test_a_study_that_keeps_no_limit_is_whole_and_has_its_exit_code(capsys: Capture) -> None:
    for verb in ("plan", "simulate"):
        words = [*EIGHT, "--request-rate", "4", "--slo", "ttft:p95=1ms", *(["--tp", "1"] if verb == "simulate" else [])]
        found = told(capsys, verb, *words, code=4)
        valid("study", found)
        assert not found["verdict"]["keeps"] and found["best"] and found["ranked"] and "error" not in found


def test_what_cannot_be_started_keeps_its_schema(capsys: Capture) -> None:
    words = ["plan", "mixtral-8x7b", "--gpu", "h100:4", *MADE]
    apart, among = told(capsys, *words), told(capsys, *words, "--hypothetical")
    valid("study", apart)
    valid("study", among)
    assert apart["hypothetical"]["ranked"] is False and among["hypothetical"]["ranked"] is True
    assert len(among["ranked"]) == len(apart["ranked"]) + apart["hypothetical"]["count"]


def test_an_interrupted_study_keeps_its_schema(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from dataclasses import replace

    study = api.plan("llama-3.1-8b", gpu="h100:1", prompt_len=9, output_len=3, num_requests=3)

    def stop(*_: object, **__: object) -> None:
        raise Interrupted(replace(study, interrupted=(1, 2)))

    monkeypatch.setattr(api, "plan", stop)
    found = told(capsys, "plan", *EIGHT, code=130)
    valid("study", found)
    assert found["interrupted"] == {"done": 1, "of": 2}


OTHERS = {
    "fit": ("fit", ["fit", "llama-3.1-8b", "--gpu", "h100:1"]),
    "fit with a log": ("fit", ["fit", "qwen3-8b", "--gpu", "h100:1", "--log", str(ROOT / "examples/qwen3-8b-startup.log")]),
    "fit of an encoder": ("fit", ["fit", "google/flan-t5-xxl", "--gpu", "h100:1"]),
    "sweep": ("sweep", ["plan", "llama-3.1-8b,llama-3.1-70b", "--gpu", "l4,b60,h100", "--gpus", "1", *MADE, "--request-rate", "1,3"]),
    "models": ("models", ["models"]),
    "no models": ("models", ["models", "zzz"]),
    "gpus": ("gpus", ["gpus"]),
    "engines": ("engines", ["engines"]),
    "trace": ("trace", ["trace", "describe", str(ROOT / "examples/azure_conversation.csv")]),
    "trace with prefixes": ("trace", ["trace", "describe", str(ROOT / "examples/mooncake_conversation.jsonl")]),
    "device": ("device", ["device", "check", str(ROOT / "examples/devices/npu-1")]),
    "apex": ("apex", ["apex", "--model", "llama3-70b", "--num-gpus-per-node", "2", *MADE]),
    "apex of an encoder": ("apex", ["apex", "--model", "whisper", "--num-gpus-per-node", "1", *MADE]),
}


@pytest.mark.parametrize(("name", "words"), OTHERS.values(), ids=OTHERS)
def test_other_outputs_keep_their_schema(name: str, words: list[str], capsys: Capture) -> None:
    valid(name, told(capsys, *words))


def test_a_trace_without_times_keeps_its_schema(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n5,5,10,1\n7,1,8,7\n")
    valid("trace", told(capsys, "trace", "describe", str(path)))


def test_a_validation_keeps_its_schema(tmp_path: Path, capsys: Capture) -> None:
    head, *rows = (ROOT / "validation/closed_loop.csv").read_text(encoding="utf-8").splitlines()
    path = tmp_path / "measured.csv"
    path.write_text("\n".join([head, *(row for row in rows if ",vllm,0.19.0," in row)][:6]) + "\n", encoding="utf-8")
    one = told(capsys, "validate", str(path))
    assert one["summary"]["predicted"]
    valid("validation", one)
    valid("validation", told(capsys, "validate", str(path), str(path)))


def test_a_compared_run_keeps_its_schema(tmp_path: Path, capsys: Capture) -> None:
    run = {"input_lens": [10, 20, 30], "output_lens": [5, 6, 3], "ttfts": [0.1, 0.2, 0.0], "itls": [[0.1] * 4, [0.1] * 5, []],
           "start_times": [0.0, 1.0, 2.0], "errors": ["", "", "gone"], "request_rate": 1.0, "completed": 2}  # fmt: skip
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run))
    found = told(capsys, "replay", "--compare", str(path), "--model", "llama-3.1-8b", "--plan", "TP1", "--gpu", "l4:1")
    assert found["comparison"]["plan"] == "TP1"
    valid("replay", found)


# ---- failures -------------------------------------------------------------------------------------------------------------

FAILURES = {
    "usage": (["plan", *EIGHT, "--no-such-option"], 2),
    "bad number": (["plan", *EIGHT, "--seed", "1k5"], 2),
    "bad input": (["plan", "lama", "--gpu", "h100:1", *MADE], 2),
    "infeasible": (["plan", "llama-3.1-405b", "--gpu", "l4:1", *MADE], 3),
    "one plan infeasible": (["simulate", "llama-3.1-405b", "--gpu", "l4:1", "--tp", "1", *MADE], 3),
    "fit": (["fit", "llama-3.1-405b", "--gpu", "l4:1"], 3),
    "trace": (["trace", "describe", "no-such-file"], 2),
    "gpus": (["gpus", "h100", "more"], 2),
    "apex": (["apex", "--model", "llama3-70b", "--num-gpus-per-node", "0"], 2),
    "replay": (["replay", "no-such-file", "--model", "x", "--url", "http://localhost:1"], 2),
    "validate": (["validate", "no-such-file"], 2),
}


@pytest.mark.parametrize(("words", "code"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_json_where_json_was_asked_for(words: list[str], code: int, capsys: Capture) -> None:
    assert main([*words, "--json"]) == code
    out, err = capsys.readouterr()
    found = json.loads(out)
    valid("fit" if words[0] == "fit" else "error", found)
    error = found["error"]
    assert error["code"] == code and error["message"] in " ".join(err.split()) and err.count("\n") == 1
    assert ("nearest" in error) == (code == 3) and (code == 2 or error["nearest"])
    assert main(words) == code and capsys.readouterr().out == ""  # and nothing on standard output without --json


def test_an_unsound_device_is_one_document(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "npu"
    shutil.copytree(ROOT / "examples/devices/npu-1", folder)
    (folder / "gemm_0.csv").write_text("m,n,k,duration_us\n1,x,3,4\n")
    found = told(capsys, "device", "check", str(folder), code=2)
    valid("device", found)
    assert not found["sound"] and found["error"]["code"] == 2


def test_json_into_a_file_leaves_standard_output_to_the_text(tmp_path: Path, capsys: Capture) -> None:
    for name, words in {k: v for k, v in OTHERS.values() if v[0] != "apex"}.items():
        path = tmp_path / "out.json"
        assert main([*words, "--json", str(path)]) == 0
        assert capsys.readouterr().out and path.stat().st_size
        valid(name, json.loads(path.read_text(encoding="utf-8")))


def test_json_without_a_value_is_standard_output_and_never_eats_an_option(capsys: Capture) -> None:
    for words in (["models", "llama-3.1-8b", "--json"], ["models", "--json", "--", "llama-3.1-8b"], ["models", "llama-3.1-8b", "--json=-"]):
        assert main(words) == 0 and json.loads(capsys.readouterr().out)
    assert main(["plan", "--json", "llama-3.1-8b", "--gpu", "h100:1"]) == 2
    assert "'llama-3.1-8b' was read as the file of --json: write --json=-" in capsys.readouterr().err


# ---- the schemas themselves -------------------------------------------------------------------------------------------------


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object of a schema."""
    if isinstance(schema, dict):
        yield schema
        for each in schema.values():
            yield from nodes(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from nodes(each)


@pytest.mark.parametrize("name", ["", *OUTPUTS])
def test_schemas_are_sound_closed_and_described(name: str) -> None:
    schema = schema_of(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    for node in nodes(schema):
        if isinstance(node.get("properties"), dict) and "type" in node:
            assert node["additionalProperties"] is False and node["description"]


def test_an_undocumented_key_fails(capsys: Capture) -> None:
    study = told(capsys, *STUDIES["offline"])
    study["ranked"][0]["metrics"]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        valid("study", study)


def test_the_page_is_what_the_schemas_say() -> None:
    page = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    assert page == json_page(), "run: apexsim schema --markdown > docs/json.md"
    assert all(f"## {name}" in page for name in (*OUTPUTS, *SHARED))


def test_the_command_prints_them(capsys: Capture) -> None:
    for name in OUTPUTS:
        assert main(["schema", name]) == 0 and json.loads(capsys.readouterr().out) == schema_of(name)
    assert main(["schema", "studdy"]) == 2 and "did you mean study?" in capsys.readouterr().err
