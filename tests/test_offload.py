"""Tiers behind the KV cache as people type them, and what becomes of them."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from apexsim.engines import engine_facts
from apexsim.errors import InputError
from apexsim.hardware import cluster_of
from apexsim.offload import Tier, tiers_of, way_of


def test_tiers_by_hand() -> None:
    cpu, disk = tiers_of("cpu:200GB, disk:2TB@6GB/s+100us+2us")
    assert (cpu.kind, cpu.size) == ("cpu", 200e9) and math.isnan(cpu.rate)
    assert (disk.kind, disk.size, disk.rate) == ("disk", 2e12, 6e9)
    assert (disk.latency, disk.block) == pytest.approx((1e-4, 2e-6))
    assert tiers_of("cpu:1GiB@1GB/s")[0].size == 2.0**30


def test_the_host_is_read_at_the_peak_of_the_slot_and_a_disk_by_what_is_stated() -> None:
    gpu = cluster_of("h100-sxm", 1, None).gpu
    assert tiers_of("cpu:1GB")[0].on(gpu).rate == gpu.host.bandwidth
    assert tiers_of("cpu:1GB@5GB/s")[0].on(gpu).rate == 5e9
    assert tiers_of("disk:1GB@5GB/s")[0].on(gpu).latency == 0.0
    with pytest.raises(InputError, match="nobody knows how fast the disk is"):
        tiers_of("disk:1TB")[0].on(gpu)


@pytest.mark.parametrize(
    "text",
    ["", "cpu", "cpu:", "cpu:x", "cpu:5", "cpu:-1GB", "gpu:1GB", "cpu:1GB@", "cpu:1GB@0GB/s", "cpu:1GB@5GB", "cpu:1GB@5", "cpu:1GB,cpu:2GB",
     "disk:1GB@1GB/s,cpu:1GB", "cpu:1GB@1GB/s+x", "cpu:1GB@1GB/s+-1ms", "cpu:1GB@1GB/s+1ms+1us+1us", "cpu:1e400GB", "cpu:nanGB",
     "cpu:1GB@infGB/s", "cpu:9999999999TB", ",", "cpu:1GB,", "cpu:0GB", "cpu:0.0TB@1GB/s", "cpu:1GB@200TB/s", "disk:1TB@0.0GB/s",
     "disk:1TB@1GB/s,disk:1TB@1GB/s,disk:1TB@1GB/s", "nvme:1TB@1GB/s", "tape:", "remote:1TB@1GB/s,cpu:1GB", "cpu:-0GB"],
)  # fmt: skip
def test_tiers_that_cannot_be_read_are_told(text: str) -> None:
    with pytest.raises(InputError) as caught:
        tiers_of(text)
    assert "\n" not in caught.value.line()


@pytest.mark.parametrize(
    ("text", "words"),
    [("cpu:0GB", "0 bytes holds nothing"), ("nvme:1TB@1GB/s", "cpu, disk, remote, got 'nvme'"),
     ("cpu:1GB,cpu:1GB,cpu:1GB", "'cpu' is expected, got 3"),
     ("disk:1GB@1GB/s,cpu:1GB", "in the order"), ("cpu:1GB@200TB/s", "no tier is read at 2e"), ("disk:1TB@0GB/s", "above 0")],
)  # fmt: skip
def test_what_is_wrong_with_a_tier_is_said(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiers_of(text)


def test_an_engine_has_the_tiers_that_it_has() -> None:
    vllm, trtllm, orca = (engine_facts(name) for name in ("vllm", "tensorrt-llm", "orca"))
    assert way_of(vllm, (Tier("remote", 1.0),)).prompts and way_of(orca, (Tier("cpu", 1.0),)) == orca.behind
    with pytest.raises(InputError, match="has no tier 'disk'"):
        way_of(trtllm, (Tier("cpu", 1.0), Tier("disk", 1.0)))
    with pytest.raises(InputError, match="not known"):
        way_of(replace(trtllm, behind=None), (Tier("cpu", 1.0),))


def test_a_tier_gives_back_what_the_gpu_has_lost() -> None:
    """70 prefixes of 8,000 tokens do not fit the GPU, and do its host's memory."""
    import apexsim

    asked = {"gpu": "a10g", "gpus": 1, "prompt_len": 200, "output_len": 8, "shared_prefix": "4000x40:even", "request_rate": 0.5,
             "num_requests": 120, "engine": "vllm"}  # fmt: skip
    none, some = (apexsim.simulate("llama-3.1-8b-instruct", "TP1", **asked, **more) for more in ({}, {"kv_offload": "cpu:100GB"}))
    one, two = none.best.metrics, some.best.metrics
    assert np.isnan(one.prefix_loaded) and two.prefix_loaded > 0.3 and two.prefix_hit > one.prefix_hit + 0.3
    assert two.ttft.mean < one.ttft.mean


def test_what_would_do_nothing_is_refused() -> None:
    import apexsim

    asked = {"gpu": "h100-sxm", "gpus": 1, "prompt_len": 200, "output_len": 8, "request_rate": 0.5, "kv_offload": "cpu:100GB"}
    with pytest.raises(InputError, match="share nothing"):
        apexsim.simulate("llama-3.1-8b-instruct", "TP1", **asked)
    with pytest.raises(InputError, match="computed in full"):
        apexsim.simulate("llama-3.1-8b-instruct", "TP1", **asked, shared_prefix="64", settings={"reuse": 0})


LAUNCHED = [("vllm", "cpu:100GB,disk:1TB@5GB/s", ['"cpu_bytes_to_use": 100000000000', '"secondary_tiers"', "OffloadingConnector"]),
            ("sglang", "cpu:100GB", ["--enable-hierarchical-cache", "--hicache-size 100"]),
            ("trtllm", "cpu:100GB", ["host_cache_size: 100000000000"])]  # fmt: skip


@pytest.mark.parametrize(("engine", "tiers", "words"), LAUNCHED, ids=lambda v: v if isinstance(v, str) else "")
def test_launch_lines_start_the_tiers_that_were_simulated(engine: str, tiers: str, words: list[str]) -> None:
    import apexsim

    asked = {"gpu": "h100-sxm", "gpus": 1, "prompt_len": 50, "output_len": 4, "shared_prefix": "64x2", "num_requests": 4}
    told = apexsim.render(apexsim.simulate("llama-3.1-8b-instruct", "TP1", **asked, engine=engine, kv_offload=tiers))
    assert all(word in " ".join(told.replace("\\\n", " ").split()) for word in words)
    assert not any(word in apexsim.render(apexsim.simulate("llama-3.1-8b-instruct", "TP1", **asked, engine=engine)) for word in words)


IN_ROLES = [("vllm", [["OffloadingConnector", "NixlConnector"], ["NixlConnector", "OffloadingConnector"]]),
            ("sglang", [["--hicache-size 10"], []]), ("trtllm", [["host_cache_size: 10000000000"], []])]  # fmt: skip


@pytest.mark.parametrize(("engine", "words"), IN_ROLES, ids=lambda v: v if isinstance(v, str) else "")
def test_servers_of_two_pools_have_tiers_where_they_look_for_prefixes(engine: str, words: list[list[str]]) -> None:
    import apexsim

    asked = {"gpu": "h100-sxm", "gpus": 2, "prompt_len": 50, "output_len": 4, "shared_prefix": "64x2", "num_requests": 4}
    answer = apexsim.simulate("llama-3.1-8b-instruct", "TP1+TP1", **asked, engine=engine, kv_offload="cpu:10GB")
    told = apexsim.render(answer)
    found = re.findall("OffloadingConnector|NixlConnector|--hicache-size 10|host_cache_size: 10000000000", told)
    assert found == [word for role in words for word in role]
    assert answer.best.metrics.prefix_loaded == 0.0 and "each server has cpu of 10 GB" in " ".join(told.split())
    none = apexsim.simulate("llama-3.1-8b-instruct", "TP1+TP1", **asked, engine=engine)
    assert np.isnan(none.best.metrics.prefix_loaded) and none.best.metrics.e2el.mean == answer.best.metrics.e2el.mean
