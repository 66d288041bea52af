"""The cost bank: measured points verbatim, sound in between, labelled, and never built on a broken table."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from apexsim.cost import attention, collectives, gemm
from apexsim.cost.attention import causal
from apexsim.cost.bank import Bank, load_bank
from apexsim.cost.collectives import Way
from apexsim.cost.gemm import SPIKE, without_spikes
from apexsim.cost.grid import continued, rising
from apexsim.cost.kernels import ROOT, Tables, manifest, systems
from apexsim.cost.price import Pricer
from apexsim.cost.ring import collective_formula
from apexsim.cost.roofline import KERNELS, STREAMING, Bounds, Peaks, Provenance, carry, flat, ideal
from apexsim.cost.surface import SAME
from apexsim.errors import InputError
from apexsim.hardware import Cluster, load_gpu
from apexsim.model.ops import Collective

NOISY = ("v100_pcie", "b60")  # timed without graphs: launch jitter on every second small product
STORED = 1.3e-4  # relative error of the 13 mantissa bits, with room


def gpu(kernels: str, borrow: str = "", **over: object) -> SimpleNamespace:
    """A GPU with the peaks of a measured system."""
    entry = manifest()["systems"][kernels or borrow or "h100_sxm"]
    fields = {"name": kernels or f"like {borrow}", "flops": entry["flops"], "memory_bandwidth": entry["bandwidth"],
              "kernels": kernels, "borrow": borrow}  # fmt: skip
    return SimpleNamespace(**{**fields, **over})


@pytest.fixture(scope="module")
def h100() -> Bank:
    return load_bank(gpu("h100_sxm"))


# ── exact at measured points ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("system", systems())
def test_gemm_returns_measured_points_verbatim_but_for_spikes(system: str) -> None:
    bank, tables = load_bank(gpu(system)), Tables(system)
    table = tables.table("gemm", ("bf16", "any"))
    m, n, k = (table.axes[a] for a in "mnk")
    for i, j in ((0, 0), (len(n) // 2, len(k) // 2), (len(n) - 2, 3)):
        priced = gemm.price(bank, m, int(n[i]), int(k[j]), "bf16")
        known = ~np.isnan(table.seconds[:, i, j])
        measured = table.seconds[known, i, j]
        spike = measured > SPIKE * priced.seconds[known] * (1 - 1e-12)
        np.testing.assert_allclose(priced.seconds[known][~spike], measured[~spike], rtol=1e-12)
        assert spike.mean() < (0.8 if system in NOISY else 0.5)
        assert (priced.provenance[known] == Provenance.MEASURED).all()


def test_a_single_spike_is_brought_down_to_its_larger_neighbours() -> None:
    size = np.arange(1.0, 9.0)
    seconds = size[:, None, None] + size[None, :6, None] + size[None, None, :5]
    np.testing.assert_allclose(without_spikes(seconds), seconds)
    spiked = seconds.copy()
    spiked[3, 2, 1] *= 4.0
    cleaned = without_spikes(spiked)
    assert seconds[3, 2, 1] <= cleaned[3, 2, 1] <= seconds[4, 3, 2]
    assert (
        np.delete(cleaned.ravel(), np.ravel_multi_index((3, 2, 1), seconds.shape))
        == np.delete(seconds.ravel(), np.ravel_multi_index((3, 2, 1), seconds.shape))
    ).all()


def test_known_rows_of_the_source_files() -> None:
    bank = load_bank(gpu("h200_sxm"))
    # sglang 0.5.14 gemm_perf, bfloat16, n = k = 4096: m = 1 and 1024, ms
    np.testing.assert_allclose(gemm.price(bank, [1, 1024], 4096, 4096, "bf16").seconds, [12.629e-6, 46.397e-6], rtol=STORED)
    # vllm 0.24.0 custom_allreduce_perf, 8 GPUs, message_size 1,048,576 elements of 2 bytes, ms
    size = 2.0 * 1048576
    assert collectives.price(bank, "all_reduce", size, 8).seconds == pytest.approx(18.106e-6, rel=STORED)
    assert collectives.price(bank, "all_reduce", size, 8, Way(graph=False)).seconds == pytest.approx(36.300e-6, rel=STORED)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_attention_returns_measured_points_verbatim(h100: Bank, phase: str) -> None:
    table = Tables("h100_sxm").table("attention", (phase, "bf16", "vllm", "bf16"))
    for row in range(0, len(table.axes["shape"]), 40):
        shape = [int(x) for x in table.axes["shape"][row]]
        if shape[3]:
            continue
        priced = attention.price(h100, causal(phase, *shape), table.axes["batch"][:, None], table.axes["length"][None, :])
        known = ~np.isnan(table.seconds[row])
        np.testing.assert_allclose(priced.seconds[known], table.seconds[row][known], rtol=1e-9)
        assert (priced.provenance[known] == Provenance.MEASURED).all()
        assert (priced.provenance[~known] == Provenance.EXTRAPOLATED).all()


def test_all_reduce_in_a_graph_has_no_eager_launch(h100: Bank) -> None:
    small = 2 * 8192 * 2.0
    assert collectives.price(h100, "all_reduce", small, 8).seconds < 8e-6
    assert collectives.price(h100, "all_reduce", small, 8, Way(graph=False)).seconds > 15e-6
    assert collectives.price(h100, "all_reduce", small, 8, Way(nccl=True)).seconds > collectives.price(h100, "all_reduce", small, 8).seconds


def test_collectives_across_nodes_are_those_that_were_timed_there() -> None:
    card = load_gpu("v100-pcie-16gb")
    pricer = Pricer(load_bank(card), Cluster(card, 4, 2))
    whole = Collective("x", "all_reduce", 1024.0, 8)
    # apex_plus comm/V100-PCIE-16GB/all_reduce.csv: 2 nodes of 4, 4,096 kB
    assert pricer.dense(whole, np.array([4096.0]), True).seconds[0] == pytest.approx(9674.1e-6, rel=STORED)
    apart = Collective("x", "all_reduce", 1024.0, 2, stride=4)  # four such groups share the network: by formula
    assert pricer.dense(apart, np.array([4096.0]), True).provenance[0] == Provenance.ROOFLINE


def test_a_hop_is_as_long_as_a_timed_message() -> None:
    card = load_gpu("v100-pcie-16gb")
    fixed, per_byte = collectives.hop(load_bank(card), card.link, 1)
    assert fixed == pytest.approx(10.7e-6, rel=0.01) and 1.0 / per_byte == pytest.approx(4.5e9, rel=0.05)  # PCIe's peak: 16 GB/s
    other = load_gpu("l40s")
    assert collectives.hop(load_bank(other), other.link, 1) == (other.link.latency + other.link.launch, 1.0 / other.link.bandwidth)


# ── in between and beyond ───────────────────────────────────────────────────────────────────────────────────────────


def test_left_out_gemm_plane_is_predicted_within_seven_percent() -> None:
    from dataclasses import replace

    tables = Tables("h200_sxm")
    table = tables.table("gemm", ("bf16", "any"))
    errors = []
    for i in range(1, len(table.axes["n"]) - 1, 2):
        n = np.delete(table.axes["n"], i)
        rest = replace(table, seconds=np.delete(table.seconds, i, axis=1), axes={**table.axes, "n": n})
        surface = gemm.surface_of(rest, tables.peaks)
        for j, k in enumerate(table.axes["k"]):
            seen = surface.price(SAME, None, table.axes["m"], int(table.axes["n"][i]), int(k)).seconds
            errors.append(np.abs(seen / table.seconds[:, i, j] - 1))
    assert np.nanmedian(np.concatenate(errors)) < 0.07


def test_times_between_points_are_labelled_and_lie_between(h100: Bank) -> None:
    low, mid, high = gemm.price(h100, [4096, 6000, 8192], 8192, 8192, "bf16").seconds
    assert low < mid < high
    assert gemm.price(h100, [6000], 8192, 8192, "bf16").provenance[0] == Provenance.INTERPOLATED
    assert gemm.price(h100, [100_000], 8192, 8192, "bf16").provenance[0] == Provenance.EXTRAPOLATED
    assert gemm.price(h100, [64], 200_000, 8192, "bf16").provenance[0] == Provenance.EXTRAPOLATED


def test_beyond_the_grid_the_utilisation_of_the_edge_is_held(h100: Bank) -> None:
    edge, twice = gemm.price(h100, [32768, 65536], 8192, 8192, "bf16").seconds
    assert twice == pytest.approx(2 * edge, rel=0.01)
    far, farther = attention.price(h100, causal("decode", 8, 1, 128), [2048, 4096], 4096).seconds
    assert farther == pytest.approx(2 * far, rel=0.01)
    assert gemm.price(h100, [1], 8, 8, "bf16").seconds[0] >= 1e-6  # below it, its time


def test_prompt_cost_is_rising_and_convex_and_a_chunk_costs_a_difference(h100: Bank) -> None:
    length = np.unique(np.geomspace(1, 131072, 400).astype(int)).astype(float)
    for window, kv in ((0, "bf16"), (128, "bf16"), (1024, "fp8")):
        cost = attention.marginal(h100, causal("prefill", 8, 1, 128, window, kv), length).seconds
        slope = np.diff(np.r_[0.0, cost]) / np.diff(np.r_[0.0, length])
        assert (slope > 0).all()
        assert (np.diff(slope) >= -1e-12 * slope[1:]).all()
    assert attention.marginal(h100, causal("prefill", 8, 1, 128), 0.0).seconds == 0.0
    assert 0 < attention.launch(h100, causal("prefill", 8, 1, 128)) < 30e-6


def test_prompt_cost_meets_the_measured_batch(h100: Bank) -> None:
    batch = attention.price(h100, causal("prefill", 8, 1, 128), 8, 1024).seconds / 8
    assert attention.marginal(h100, causal("prefill", 8, 1, 128), 1024.0).seconds == pytest.approx(float(batch), rel=0.12)


def test_decode_grows_with_context_and_batch(h100: Bank) -> None:
    batch, context = np.geomspace(1, 512, 12)[:, None], np.geomspace(16, 65536, 32)[None, :]
    grid = attention.price(h100, causal("decode", 8, 1, 128), batch, context).seconds
    assert (np.diff(rising(rising(grid, 0), 1), axis=1) >= 0).all()
    assert np.mean(np.diff(grid, axis=1) > -0.03 * grid[:, 1:]) > 0.98


def test_decode_never_beats_the_memory(h100: Bank) -> None:
    batch, context = np.array([64.0]), np.array([8192.0])
    read = 2 * batch * context * 8 * 128 * 2
    assert attention.price(h100, causal("decode", 64, 8, 128), batch, context).seconds[0] > read[0] / 3.35e12


def test_window_bounds_attention(h100: Bank) -> None:
    full, cut = (attention.price(h100, causal("decode", 8, 1, 128, window), 64, 32768.0) for window in (0, 4096))
    assert cut.seconds < full.seconds / 4
    near, far = attention.price(h100, causal("prefill", 8, 1, 128, window=1000), 1, np.array([8192.0, 16384.0])).seconds
    assert far == pytest.approx(2 * near, rel=0.2)
    same = attention.price(h100, causal("prefill", 8, 1, 128, window=1000), 1, 512.0).seconds
    assert same == attention.price(h100, causal("prefill", 8, 1, 128), 1, 512.0).seconds


def test_unmeasured_heads_take_the_nearest_shape(h100: Bank) -> None:
    odd = attention.price(h100, causal("decode", 80, 10, 96), 16, 4096.0)
    assert odd.provenance == Provenance.TRANSFERRED
    read = 2 * 16 * 4096 * 10 * 96 * 2 / 3.35e12
    assert read < odd.seconds < 4 * read


def test_sizes_broadcast(h100: Bank) -> None:
    assert attention.price(h100, causal("decode", 8, 1, 128), np.ones((12, 1)), np.full((1, 32), 100.0)).seconds.shape == (12, 32)
    assert attention.price(h100, causal("prefill", 8, 1, 128, 64), np.ones((3, 1)), np.full((1, 4), 100.0)).seconds.shape == (3, 4)
    assert gemm.price(h100, np.ones((2, 3)), 8192, 8192, "fp8").seconds.shape == (2, 3)


# ── kernels without a table, GPUs without tables ────────────────────────────────────────────────────────────────────


def test_weight_only_moves_fewer_bytes_and_multiplies_no_faster(h100: Bank) -> None:
    wide, thin = (gemm.price(h100, [1, 8192], 8192, 8192, kernel) for kernel in ("bf16", "w4a16"))
    assert 0.2 < thin.seconds[0] / wide.seconds[0] < 0.5
    assert thin.seconds[1] == pytest.approx(wide.seconds[1], rel=0.05)
    assert (thin.provenance == Provenance.TRANSFERRED).all()


def test_fp8_on_a_gpu_without_fp8_units_is_weight_only() -> None:
    bank = load_bank(gpu("a100_sxm"))
    assert (gemm.price(bank, [1, 4096], 8192, 8192, "fp8").seconds <= gemm.price(bank, [1, 4096], 8192, 8192, "bf16").seconds).all()
    assert gemm.price(bank, [4096], 8192, 8192, "fp8").seconds[0] > 0.5 * gemm.price(bank, [4096], 8192, 8192, "bf16").seconds[0]


def test_a_borrowed_surface_with_the_same_peaks_gives_the_same_times_labelled_transferred(h100: Bank) -> None:
    bank = load_bank(gpu("", "h100_sxm"))
    own, lent = gemm.price(h100, [1, 100, 5000], 8192, 8192, "bf16"), gemm.price(bank, [1, 100, 5000], 8192, 8192, "bf16")
    np.testing.assert_allclose(lent.seconds, own.seconds, rtol=1e-9)
    assert (lent.provenance == Provenance.TRANSFERRED).all()
    assert (attention.price(bank, causal("decode", 8, 1, 128), [1, 64], 4096).provenance == Provenance.TRANSFERRED).all()


def test_half_the_bandwidth_takes_up_to_twice_the_time_but_the_launch_stays(h100: Bank) -> None:
    slow = load_bank(gpu("", "h100_sxm", name="slow", memory_bandwidth=3.35e12 / 2))
    big = gemm.price(slow, [1], 16384, 16384, "bf16").seconds / gemm.price(h100, [1], 16384, 16384, "bf16").seconds
    tiny = gemm.price(slow, [1], 32, 32, "bf16").seconds / gemm.price(h100, [1], 32, 32, "bf16").seconds
    assert 1.9 < big[0] <= 2.0
    assert tiny[0] < 1.5


def test_without_any_table_the_stated_roofline_answers() -> None:
    bank = load_bank(gpu("", "", name="unknown", flops={"bf16": 100e12}, memory_bandwidth=1e12))
    priced = gemm.price(bank, [16.0], 4096, 4096, "bf16")
    nbytes = 16 * 4096 * 2 * 2 + 4096**2 * 2
    assert priced.seconds[0] == pytest.approx(2e-6 + nbytes / 0.8e12, rel=1e-6)
    assert priced.provenance[0] == Provenance.ROOFLINE
    assert attention.price(bank, causal("decode", 8, 1, 128), [4], 1000).provenance[0] == Provenance.ROOFLINE
    assert attention.marginal(bank, causal("prefill", 8, 1, 128), 1000.0).seconds > 0


@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize("system", ["a100_sxm", "h100_sxm", "b200_sxm", "l40s", "b60", "v100_pcie"])
def test_every_kernel_has_a_sane_price_everywhere(system: str, kernel: str) -> None:
    bank = load_bank(gpu(system))
    seconds = gemm.price(bank, [1, 64, 4096], 4096, 4096, kernel).seconds
    assert (seconds > 1e-6).all()
    floor = 2 * 4096.0**3 / max(bank.peaks.flops.values())
    assert seconds[2] > 0.5 * floor
    assert gemm.quantise(bank, np.array([1.0, 64.0]), 4096, kernel).seconds.shape == (2,)


# ── collectives ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_formula_is_launch_steps_and_bytes() -> None:
    assert collective_formula("all_reduce", 0.0, 8, 450e9, 1e-6, 5e-6) == pytest.approx(5e-6 + 14e-6)
    assert collective_formula("all_gather", 3e9, 4, 1e9, 0.0) == pytest.approx(0.75 * 3 / 0.75)
    assert collective_formula("send", 3e9, 2, 1e9, 0.0) == pytest.approx(4.0)
    assert collective_formula("all_reduce", 1e9, 1, 1e9, 1.0) == 0.0


def test_one_rank_costs_nothing(h100: Bank) -> None:
    assert collectives.price(h100, "all_reduce", [1e6, 1e9], 1).seconds.tolist() == [0.0, 0.0]


def test_a_link_prices_by_formula(h100: Bank) -> None:
    nic = SimpleNamespace(bandwidth=50e9, latency=3e-6, launch=10e-6)
    priced = collectives.price(h100, "all_reduce", 1e8, 16, link=nic)
    assert priced.provenance == Provenance.ROOFLINE
    assert priced.seconds == pytest.approx(collective_formula("all_reduce", 1e8, 16, 50e9, 3e-6, 10e-6))


def test_collectives_are_lent_along_equal_links_only() -> None:
    wire = SimpleNamespace(bandwidth=300e9, latency=1e-6, launch=8e-6)
    same = load_bank(gpu("", "a100_sxm", name="a100 40 GB", vendor="NVIDIA", link=wire))
    other = load_bank(gpu("", "a100_sxm", name="other vendor", vendor="Intel", link=wire))
    own = collectives.price(load_bank(gpu("a100_sxm")), "all_reduce", 1e6, 8)
    assert collectives.price(same, "all_reduce", 1e6, 8).seconds == own.seconds
    assert collectives.price(same, "all_reduce", 1e6, 8).provenance == Provenance.TRANSFERRED
    assert collectives.price(other, "all_reduce", 1e6, 8).provenance == Provenance.ROOFLINE


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send"])
def test_collectives_grow_with_size(h100: Bank, kind: str) -> None:
    seconds = collectives.price(h100, kind, np.geomspace(256, 1e9, 60), 2 if kind == "send" else 8).seconds
    assert (np.diff(seconds) >= -1e-12).all()


def test_exchanged_columns_of_the_v100_reduce_scatter_file_are_put_right() -> None:
    # lines 138-153 of the source: 4 nodes of one GPU each, 1 KB ... 262,144 KB
    table = Tables("v100_pcie").table("comm", ("reduce_scatter", "nccl", "4"))
    row = table.seconds[table.axes["gpus"].tolist().index(4)]
    assert table.axes["gpus"].tolist() == [4, 8, 16]
    assert table.axes["bytes"].max() == 262144 * 1024
    assert row[-1] == pytest.approx(217633e-6, rel=STORED)
    assert (np.diff(row) >= 0).all()


def test_the_h100_all_gather_outlier_is_not_used(h100: Bank) -> None:
    before, at, after = collectives.price(h100, "all_gather", np.array([32768, 65536, 131072]) * 1024.0, 8).seconds
    assert before < at < after
    assert at < 300e-6  # the outlier is 555 µs


# ── broken data ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "v100_pcie", tmp_path / "v100_pcie")
    shutil.copy(ROOT / "manifest.json", tmp_path)
    return tmp_path


def spoil(path: Path, value: float) -> None:
    """Put one number into the GEMM table."""
    with np.load(path) as data:
        arrays = dict(data)
    arrays["0"][3, 4, 5] = value
    np.savez(path, **arrays)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (-1.0, "positive"), (0.0, "positive")])
def test_a_spoilt_table_is_refused(copy: Path, value: float, word: str) -> None:
    spoil(copy / "v100_pcie" / "gemm.npz", value)
    with pytest.raises(InputError, match=word):
        gemm.price(Bank(gpu("v100_pcie"), root=copy), [1], 4096, 4096, "bf16")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99, "systems": {}}'])
def test_a_broken_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(InputError, match="manifest"):
        Bank(gpu("v100_pcie"), root=copy)


def test_missing_files_are_one_clear_error(copy: Path, tmp_path: Path) -> None:
    (copy / "v100_pcie" / "gemm.npz").unlink()
    with pytest.raises(InputError, match="gemm"):
        gemm.price(Bank(gpu("v100_pcie"), root=copy), [1], 4096, 4096, "bf16")
    with pytest.raises(InputError, match="manifest"):
        Bank(gpu("v100_pcie"), root=tmp_path / "none")


def test_unknown_names_are_told(h100: Bank) -> None:
    with pytest.raises(InputError, match="fp9"):
        gemm.price(h100, [1], 8, 8, "fp9")
    with pytest.raises(InputError, match="h101"):
        Bank(SimpleNamespace(name="x", flops={"bf16": 1e12}, memory_bandwidth=1e12, kernels="h101_sxm", borrow=""))
    with pytest.raises(InputError, match="source"):
        load_bank(gpu("h100_sxm"), source="llama")


def test_manifest_names_the_origin_of_every_table() -> None:
    doc = manifest()
    assert "Apache-2.0" in doc["source"]["measurements"]
    rows = [row for entry in doc["systems"].values() for family in entry["families"].values() for row in family]
    assert all(row["file"] for row in rows)
    assert json.dumps(doc)


def test_ideal_and_flat() -> None:
    peaks = Peaks({"bf16": 1e12}, 1e9)
    assert ideal(2e12, 1e9, peaks, "bf16") == 2.0
    assert flat(0.65e12, 0.4e9, peaks, "bf16") == pytest.approx(1.0 + 2e-6)
    assert peaks.rate("fp8") == 1e12


# ── beyond the diagonal of an attention table ───────────────────────────────────────────────────────────────────────


def test_more_work_at_larger_batches_never_uses_the_gpu_worse() -> None:
    """Long contexts at large batches were not timed; the bandwidth there is at least that of the nearest that were."""
    for source in ("trtllm", "vllm", "sglang"):
        bank = load_bank(load_gpu("b200-sxm"), source)
        batch, context = np.array([64.0, 256.0, 1024.0]), np.array([1024.0, 2048.0, 8192.0])
        rate = batch[:, None] * context / attention.price(bank, causal("decode", 64, 8, 64), batch[:, None], context[None, :]).seconds
        assert (np.diff(rate, axis=0) > -0.1 * rate[:-1]).all(), source


def test_holes_beyond_the_last_length_continue_the_line_of_their_batch() -> None:
    launch, rate = 5e-6, 1e-9
    work = np.array([1.0, 4.0, 16.0])[:, None] * np.array([100.0, 1000.0, 10000.0, 100000.0])[None, :]
    true = launch + rate * 1.25 * work
    seen = np.where(work > 4000.0, np.nan, true)
    filled, holes = continued(seen, rate * work)
    assert (holes == np.isnan(seen)).all()
    np.testing.assert_allclose(filled[~holes], true[~holes], rtol=1e-12)
    np.testing.assert_allclose(filled[:2], true[:2], rtol=1e-9)
    assert (filled[2, 1:] >= rate * work[2, 1:]).all() and (filled[2, 1:] <= 2.0 * true[2, 1:]).all()  # one length timed


# ---- another GPU -----------------------------------------------------------------------------------------------------


def test_latency_of_a_memory_bound_kernel_stays_on_wider_memory() -> None:
    here, there = (Bounds(np.array([t]), np.array([0.0])) for t in (12.0e-6, 6.0e-6))
    took = carry(np.array([22.0e-6]), 2e-6, here, there)[0]
    latency = 22.0e-6 - 12.0e-6 / STREAMING
    assert took == pytest.approx(latency + 6.0e-6 / STREAMING)


def test_a_kernel_bound_by_its_flop_scales_with_the_peak() -> None:
    here, there = (Bounds(np.array([1e-5]), np.array([c])) for c in (1e-4, 5e-5))
    assert carry(np.array([2e-4]), 2e-6, here, there)[0] == pytest.approx(2e-6 + 1.98e-4 / 2)


def test_all_reduces_are_lent_across_link_widths_with_their_shortest_time() -> None:
    wide = SimpleNamespace(bandwidth=600e9, latency=1e-6, launch=8e-6)
    bank, own = load_bank(gpu("", "a100_sxm", name="wider", vendor="AMD", link=wide)), load_bank(gpu("a100_sxm"))
    sizes = np.array([1.0, 2.0**26])
    (least, long), (own_least, own_long) = (collectives.price(b, "all_reduce", sizes, 8).seconds for b in (bank, own))
    assert least == pytest.approx(own_least)
    assert long - least == pytest.approx((own_long - own_least) / 2, rel=1e-3)


def test_a_carried_gemm_of_decode_sizes_agrees_with_the_gpu_itself(h100: Bank) -> None:
    # H200 has the chip of H100 and 1.43 times its bandwidth: median of the whole table 4 % (docs/kernels.md)
    h200, m = load_gpu("h200-sxm"), np.array([1.0, 16.0, 64.0])
    lent = load_bank(replace(h200, kernels="", borrow="h100_sxm", name="h200 without tables"))
    for n, k in ((8192, 8192), (10240, 8192), (4096, 4096)):
        assert gemm.price(lent, m, n, k, "bf16").seconds == pytest.approx(gemm.price(load_bank(h200), m, n, k, "bf16").seconds, rel=0.12)


def test_what_was_done_to_tables_stands_on_the_page() -> None:
    done = [(family, note) for name in systems() for family, rows in Tables(name).index.items() for row in rows.values()
            for note in row["checked"]]  # fmt: skip
    page = (Path(__file__).parents[1] / "docs/kernels.md").read_text(encoding="utf-8")
    told = {(family, *re.sub(r"^[\d,]+ cells ", "", note).split(": ", 1)) for family, note in done}
    assert told and [" ".join(row) for row in sorted(told) if f"| {' | '.join(row)} |" not in page] == []


def test_a_curve_that_was_refused_gives_way_to_another_engines() -> None:
    bank = load_bank(load_gpu("gb200"), "vllm")
    few, many = (collectives.price(bank, "all_reduce", [8192.0, 65536.0], gpus).seconds for gpus in (2, 4))
    assert (few <= many).all()
