"""`fit` names what would help only after it has sized it: every lever is pulled again through the command line."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

from apexsim.cli import main
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.families import load_model
from apexsim.plan.fit import Fit, Widths
from apexsim.plan.sized import Typical, full_users, typical_of, typical_users, users, usual
from apexsim.plan.space import Scene, check
from apexsim.plan.widths import island, layouts
from apexsim.report.ledger import fit_json
from apexsim.report.schema import schema_of
from test_fit import answer

ORDER = ("memory", "tokens", "sequences", "kv", "eager", "length", "weights", "layout", "together", "gpus")
TIGHT = (  # barely or not at all
    ("gpt-oss-120b", "h100-sxm", 1, "vllm", 32768), ("llama-3.1-8b", "l4", 1, "vllm", 32768), ("llama-3.1-8b", "l4", 1, "sglang", 131072),
    ("llama-3.1-8b", "rtx-4090", 1, "tensorrt-llm", 131072), ("llama-3.1-70b", "h100-sxm", 1, "vllm", 131072),
    ("llama-3.1-70b", "h100-sxm", 2, "vllm", 131072), ("llama-3.1-405b", "h100-sxm", 8, "sglang", 8192),
    ("llama-3.1-405b", "h100-sxm", 8, "tensorrt-llm", 8192), ("deepseek-r1", "h100-sxm", 8, "vllm", 32768),
    ("mixtral-8x7b", "a100-sxm-40gb", 2, "vllm", 32768), ("qwen3.5-27b", "rtx-5090", 2, "vllm", 262144),
    ("gpt-oss-120b", "h100-sxm", 1, "vllm@0.10.1", 131072), ("llama-3.1-8b", "v100-sxm-32gb", 1, "vllm", 131072),
)  # fmt: skip


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict]:
    code = main(["fit", *words, "--json", "-"])
    return code, json.loads(capsys.readouterr().out)


def pulled(change: str) -> list[str]:
    """The words of a change as options of the command line; a layout's are left to its plan."""
    words = []
    for part in change.split(" and "):
        made = re.search(r"\[(--weight-dtype \w+)\]", part)
        named = re.search(r": (\S+) on ", part)
        kept = made[1] if made else f"--plan {named[1]}" if named else re.sub(r" on \S+$", "", part)
        kept = kept.replace("kv_cache_config.dtype:", "--kv-dtype").replace("cuda_graph_config: null", "--enforce-eager")
        words += kept.split()
    return words


@pytest.mark.parametrize(("model", "gpu", "gpus", "engine", "length"), TIGHT)
def test_every_lever_does_what_it_says(
    model: str, gpu: str, gpus: int, engine: str, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [model, "--engine", engine, "--max-model-len", str(length)]
    code, found = asked(capsys, *base, "--gpu", gpu, "--gpus", str(gpus))
    assert code in (0, 3) and found["levers"], "a tight plan has levers"
    assert [ORDER.index(x["kind"]) for x in found["levers"]] == sorted(ORDER.index(x["kind"]) for x in found["levers"])
    for lever in found["levers"]:
        words = pulled(lever["change"])
        own = [x for i, x in enumerate(base) if "--max-model-len" not in (x, base[max(i - 1, 0)])] if _length(words) else base
        nodes = max(1, lever["gpus"] // 8)
        where = [gpu, str(lever["gpus"] // nodes), str(nodes)]
        plan = [] if "--plan" in words else ["--plan", lever["plan"]]
        code, then = asked(capsys, *own, *words, *plan, "--gpu", where[0], "--gpus", where[1], "--nodes", where[2])
        assert code == 0, (lever, then)
        assert (then["users"]["full"], then["users"]["typical"]) == pytest.approx((lever["users_full"], lever["users_typical"])), lever
        assert not found["fits"] or lever["users_full"] > found["users"]["full"] or lever["users_typical"] > found["users"]["typical"]


def _length(words: list[str]) -> bool:
    return any(word in ("--max-model-len", "--context-length", "--max_seq_len") for word in words)


@pytest.mark.parametrize(("model", "gpu", "gpus", "engine", "length"), TIGHT)
def test_several_together_are_named_only_where_none_alone_is_enough(model: str, gpu: str, gpus: int, engine: str, length: int) -> None:
    found = answer(model, Cluster(load_gpu(gpu), gpus), Widths(), engine, length)
    kinds = [lever.kind for lever in found.levers]
    assert "together" not in kinds or set(kinds) <= {"together", "gpus"}
    assert found.fits or found.nearest.count(" or ") >= len(found.levers) - 1
    assert "gpus" not in kinds or "layout" not in kinds


def test_a_plan_with_room_needs_no_lever() -> None:
    assert not answer("llama-3.1-8b", Cluster(load_gpu("h100-sxm"), 1), Widths()).levers


def test_tensor_parallelism_comes_before_pipeline_stages_and_more_nodes() -> None:
    found = answer("llama-3.1-70b", Cluster(load_gpu("h100-sxm"), 1), Widths(), length=8192)
    assert [lever.answer.plan.shorthand for lever in found.levers if lever.kind == "gpus"] == ["TP2"]
    large = answer("llama-3.1-405b", Cluster(load_gpu("h100-sxm"), 8), Widths(), length=8192)
    assert large.levers[-1].answer.plan.shorthand == "PP2×TP8" and large.levers[-1].answer.cluster.nodes == 2


# ---- layouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("per_node", "nodes"), [(8, 2), (16, 1)])
def test_over_two_nodes_stages_go_across_and_tensor_parallelism_stays_inside(per_node: int, nodes: int) -> None:
    found = answer("deepseek-r1", Cluster(load_gpu("h100-sxm"), per_node, nodes), Widths())
    assert (found.fits, found.plan.shorthand) == (True, "PP2×TP8")
    assert "12.2 GiB short" in found.notes[0] and [x.plan.shorthand for x in found.others] == ["TP16", "DP2TP8/EP16", "DEP16"]


@pytest.mark.parametrize(("gpu", "per_node", "nodes", "wide"), [
    ("h100-sxm", 8, 2, 8), ("h100-sxm", 16, 1, 8), ("h100-sxm", 4, 1, 4), ("gb200", 4, 18, 72), ("gb200", 4, 2, 8), ("l4", 8, 1, 8),
    ("rtx-4090", 6, 1, 6),
])  # fmt: skip
def test_how_wide_tensor_parallelism_stays_beside_itself(gpu: str, per_node: int, nodes: int, wide: int) -> None:
    assert island(Cluster(load_gpu(gpu), per_node, nodes)) == wide


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm", "orca"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "deepseek-r1", "gpt2", "mixtral-8x7b", "qwen3.5-27b", "whisper-large-v3"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 1), (8, 1), (16, 1), (8, 2), (4, 3)])
def test_layouts_use_every_gpu_once_each_and_can_be_divided(model: str, shape: tuple[int, int], engine: str) -> None:
    found, cluster = answer(model, Cluster(load_gpu("h100-sxm"), *shape), Widths(), engine), Cluster(load_gpu("h100-sxm"), *shape)
    plans = list(layouts(load_model(model), cluster, found.engine, found.plan.precision))
    names = [plan.shorthand for plan in plans]
    assert names and len(set(names)) == len(names) and all(plan.devices == cluster.size for plan in plans)
    assert all(check(plan, Scene(load_model(model), cluster)) is None for plan in plans)


# ---- users ----------------------------------------------------------------------------------------------------------

H200 = ("--gpu", "h200", "--gpus", "8")


def test_users_of_all_replicas_and_lanes_count() -> None:
    one = answer("llama-3.1-8b", Cluster(load_gpu("h100-sxm"), 1), Widths(tp=1))
    four = answer("llama-3.1-8b", Cluster(load_gpu("h100-sxm"), 4), Widths(tp=1))
    assert full_users(four) == pytest.approx(4 * full_users(one)) and typical_users(four) == pytest.approx(4 * typical_users(one))
    lanes = answer("deepseek-r1", Cluster(load_gpu("h200"), 8), Widths(plan="DEP8"))
    assert lanes.room and full_users(lanes) == pytest.approx(8 * lanes.room.max_concurrency)


def test_users_stop_at_what_the_engine_runs_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = asked(capsys, "llama-3.1-8b", "--gpu", "h100:1", "--max-num-seqs", "5")
    assert code == 0 and (found["users"]["typical"], found["users"]["typical_limited_by_sequences"]) == (5.0, True)
    assert main(["fit", "llama-3.1-8b", "--gpu", "h100:1", "--max-num-seqs", "5"]) == 0
    assert "as many as the engine runs" in " ".join(capsys.readouterr().out.split())


def test_typical_lengths_are_those_of_the_question(capsys: pytest.CaptureFixture[str]) -> None:
    _, given = asked(capsys, "llama-3.1-70b", *H200, "--prompt-len", "4k", "--output-len", "400")
    _, traced = asked(capsys, "llama-3.1-70b", *H200, "--trace", "example:creation")
    _, usual_ = asked(capsys, "llama-3.1-70b", *H200)
    assert (given["users"]["typical_prompt"], given["users"]["typical_output"]) == (4096, 400)
    assert traced["users"]["typical_source"] == "example:creation" and "InferenceX" in usual_["users"]["typical_source"]
    assert given["users"]["full"] == usual_["users"]["full"] and given["users"]["typical"] < usual_["users"]["typical"]


def test_requests_of_several_lengths_count_with_their_mean_of_blocks() -> None:
    found = answer("llama-3.1-8b", Cluster(load_gpu("l4"), 1), Widths(tp=1))
    mixed = typical_of([1000, 3000], [24, 72], 8192, "x", "--trace")
    short, long = (users(found, ((n, 1),))[0] for n in (1024, 3072))
    assert users(found, mixed.lengths)[0] == pytest.approx(2 / (1 / short + 1 / long)) and (mixed.prompt, mixed.output) == (2000, 48)


@pytest.mark.parametrize(("words", "says"), [
    (("--prompt-len", "4000"), "missing option '--output-len'"), (("--output-len", "4000"), "missing option '--prompt-len'"),
    (("--prompt-len", "4000", "--output-len", "100", "--max-model-len", "2048"), "4000 + 100"),
    (("--prompt-len", "4000", "--trace", "example:creation"), "a trace has its own lengths"),
    (("--map", "in=x"), "no trace is read"), (("--trace", "example:creation", "--max-model-len", "100"), "trace filter --max-context 100"),
    (("--workload", "chat", "--max-model-len", "100"), "or --prompt-len and --output-len"),
])  # fmt: skip
def test_lengths_that_cannot_be_are_refused(words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "llama-3.1-8b", "--gpu", "h100:1", *words]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("length", [2, 3, 1000, 2047, 2048, 131072])
def test_the_usual_request_is_no_longer_than_the_model_allows(length: int) -> None:
    typical = usual(length)
    assert typical.prompt + typical.output == typical.lengths[0][0] == min(length, 2048) and typical.prompt >= 1


@pytest.mark.parametrize("words", [("deepseek-r1", "--gpu", "2x8xh100"), ("gpt-oss-120b", "--gpu", "h100:1", "--max-model-len", "32k")])
def test_layouts_and_levers_are_in_the_record_and_on_the_page(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    _, found = asked(capsys, *words)
    jsonschema.Draft202012Validator(schema_of("fit")).validate(found)
    assert main(["fit", *words]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert all(x["flags"] in page for x in found["others"]) and all(x["change"] in page for x in found["levers"])
    assert found["others"] or found["levers"]


@pytest.mark.parametrize("columns", ["80", "100", "200"])
def test_the_page_keeps_within_the_terminal(columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for words in (("deepseek-r1", "--gpu", "2x8xh100"), ("qwen3.5-27b", "--gpu", "rtx-5090:2", "--tp", "2", "--weight-dtype", "fp8")):
        assert main(["fit", *words]) == 0
        rows = capsys.readouterr().out.splitlines()[1:]  # the first line is the title
        assert max(map(len, rows)) <= max(80, min(int(columns), 120))


def test_the_record_of_a_plan_that_does_not_fit_has_the_levers_too() -> None:
    record = fit_json(answer("llama-3.1-405b", Cluster(load_gpu("h100-sxm"), 8), Widths(), length=8192))
    assert not record["fits"] and [x["kind"] for x in record["levers"]] == ["weights", "weights", "gpus"]
    assert isinstance(usual(8), Typical) and isinstance(answer("gpt2", Cluster(load_gpu("l4"), 1), Widths()), Fit)
