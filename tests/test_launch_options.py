"""TensorRT-LLM's file of options against what its releases read: every section refuses a key or a name that it does not know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

from apexsim import api
from apexsim.engine_file import order
from apexsim.plan.plan import parse_plan
from apexsim.report.launch import Launch, launch
from launches import cases

yaml = pytest.importorskip("yaml")

RELEASES = ("1.0.0", "1.1.0", "1.2.0", "1.2.0rc6", "1.3.0rc5", "1.3.0")
DRAFTS = ("mtp:1", "mtp:3", "eagle3:3", "ngram:4", "draft:qwen3-0.6b:2")


@dataclass(frozen=True)
class Section:
    """What a section reads, in the releases from `since` to before `until`."""

    keys: frozenset[str]
    kinds: frozenset[str] = frozenset()  # what its decoding_type may be
    since: str = "1.0.0"
    until: str = "99"

    def holds(self, release: str) -> bool:
        return order(self.since) <= order(release) < order(self.until)


# Read in tensorrt_llm/llmapi/llm_args.py: what drafts need in copies of before and after github.com/NVIDIA/TensorRT-LLM/pull/11158,
# which made the name of a way to draft a tag of its class (until then DraftTarget, since then Draft_Target); the other sections in
# copies near 1.2 and 1.3 alone, so that nothing is known here of when they came.
DRAFT_KEYS = frozenset({"decoding_type", "max_draft_len", "num_nextn_predict_layers", "eagle3_one_model", "speculative_model_dir",
                        "max_matching_ngram_size"})  # fmt: skip
READ = {
    "speculative_config": (
        Section(DRAFT_KEYS, frozenset({"MTP", "Eagle", "NGram", "DraftTarget"}), until="1.3.0"),
        Section(DRAFT_KEYS, frozenset({"MTP", "Eagle", "Eagle3", "NGram", "Draft_Target"}), since="1.3.0"),
    ),
    "kv_cache_config": (
        Section(frozenset({"enable_block_reuse", "free_gpu_memory_fraction", "host_cache_size", "dtype", "tokens_per_block"})),
    ),
    "cuda_graph_config": (Section(frozenset({"enable_padding", "batch_sizes", "max_batch_size"})),),
    "cache_transceiver_config": (Section(frozenset({"backend", "max_tokens_in_buffer"})),),
    "attention_dp_config": (Section(frozenset({"enable_balance", "timeout_iters", "batching_wait_iters"})),),
}
PLAIN = {"enable_attention_dp", "enable_chunked_prefill", "moe_tensor_parallel_size", "moe_expert_parallel_size",
         "batch_wait_timeout_iters", "batch_wait_max_tokens_ratio", "disable_overlap_scheduler"}  # fmt: skip


def options(found: Launch) -> list[dict[str, Any]]:
    """The files of options that a launch writes."""
    texts = [re.match(r"cat > apexsim-trtllm\S* <<'EOF'\n(.*)\nEOF", command, re.DOTALL) for command in found.commands]
    return [yaml.safe_load(text[1]) for text in texts if text]


def unknown(said: dict[str, Any], release: str) -> list[str]:
    """Keys and names that the release does not read."""
    wrong = [key for key in said if key not in PLAIN and key not in READ]
    for key, held in said.items():
        if key not in READ or held is None:
            continue
        (reads,) = [section for section in READ[key] if section.holds(release)]
        wrong += [f"{key}.{inner}" for inner in held if inner not in reads.keys]
        if reads.kinds and held["decoding_type"] not in reads.kinds:
            wrong.append(held["decoding_type"])
    return wrong


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("draft", DRAFTS)
def test_ways_to_draft_have_the_names_of_the_release(release: str, draft: str) -> None:
    model = "qwen3-32b" if "qwen3" in draft else "deepseek-v3"
    setting = api.ask(
        model, gpu="h200:8", engine=f"tensorrt-llm@{release}", prompt_len=700, output_len=100, num_requests=4, request_rate=1.0
    )[0]
    plan = parse_plan(f"TP8+{draft}", api.precision_of(setting.model, None, None, None))
    (said,) = options(launch(setting, plan))
    assert "speculative_config" in said and not unknown(said, release)


def test_every_other_key_is_read() -> None:
    seen = 0
    for case in cases(("tensorrt-llm@1.0.0", "tensorrt-llm@1.2.0", "tensorrt-llm@1.3.0"), every=8):
        for said in options(case.launch):
            seen += 1
            assert not unknown(said, case.setting.engine.spoken), case
    assert seen > 30


def test_the_law_sees_what_a_release_does_not_know() -> None:
    for word, release in (("DraftTarget", "1.3.0"), ("Draft_Target", "1.2.0"), ("Eagle3", "1.2.0")):
        assert unknown({"speculative_config": {"decoding_type": word}}, release) == [word]
    assert unknown({"kv_cache_config": {"reuse": True}, "chunked": True}, "1.0.0") == ["chunked", "kv_cache_config.reuse"]
