"""No step beats its bytes or its FLOP, none falls or jumps, few bits are not slower, a better GPU is not: every GPU × engine × format ×
a model of each kind, priced without an engine (`speed_of_light`)."""

from __future__ import annotations

import numpy as np
import pytest

import speed_of_light as light
from apexsim.cost import collectives
from apexsim.cost.bank import load_bank
from apexsim.hardware import gpu_names, load_gpu

ALWAYS = {*light.FAMILIES, *light.FAMILIES.values(), *light.SLICES, *light.SLICES.values()}  # and those with tables of their own
TURNS = 3  # models that a GPU is priced with by the tables of another one: every third; `make nightly` takes all


def gpus(turn: int) -> tuple[str, ...]:
    """GPUs that a model is priced on: of those without tables every third, others for the next model."""
    rest = [name for name in gpu_names() if name not in ALWAYS and not load_gpu(name).kernels]
    left_out = {name for i, name in enumerate(rest) if i % TURNS != turn % TURNS}
    return tuple(name for name in (*gpu_names(), *light.SLICES) if name not in left_out)


def sources(gpu: str, turn: int) -> tuple[str, ...]:
    """Engines whose kernels a GPU is priced with: all where they were timed on it, else one, another for the next model."""
    return light.SOURCES if load_gpu(gpu.partition(":")[0]).kernels else (light.SOURCES[turn % len(light.SOURCES)],)


@pytest.fixture(scope="module", params=list(light.KINDS))
def steps(request: pytest.FixtureRequest) -> dict[tuple[str, str, str], light.Step]:
    """(GPU, engine's kernels, format) -> steps of one model."""
    model, plan = request.param, light.KINDS[request.param]
    turn = list(light.KINDS).index(model)
    return {(g, s, f): light.step(model, plan, g, s, f) for g in gpus(turn) for s in sources(g, turn) for f in light.FORMATS}


def test_every_gpu_has_its_turn() -> None:
    assert {name for turn in range(TURNS) for name in gpus(turn)} >= {*gpu_names()} and len(light.KINDS) >= TURNS
    assert {one for turn in range(len(light.KINDS)) for one in sources("l4", turn)} == {*light.SOURCES}


def beyond(rows: dict[tuple[str, ...], float], limit: float) -> dict[tuple[str, ...], float]:
    """What breaks a law, worst first."""
    return dict(sorted(((k, v) for k, v in rows.items() if v > limit * (1 + light.EXACT)), key=lambda kv: -kv[1])[:10])


def test_laws_of_physics(steps: dict[tuple[str, str, str], light.Step]) -> None:
    assert not beyond({k: light.faster_than_light(s) for k, s in steps.items()}, light.LIGHT)


def test_larger_batches_and_longer_contexts_take_no_less(steps: dict[tuple[str, str, str], light.Step]) -> None:
    assert not beyond({k: light.falls(s) for k, s in steps.items()}, 1.0)


def test_nothing_jumps(steps: dict[tuple[str, str, str], light.Step]) -> None:
    assert not beyond({k: light.jumps(s) for k, s in steps.items()}, light.JUMP)


def test_experts_in_few_bits_are_never_slower_at_small_batch(steps: dict[tuple[str, str, str], light.Step]) -> None:
    rows = {k: light.slower(s, steps[k[0], k[1], "bf16"], few=True) for k, s in steps.items()}
    assert not beyond(rows, 1.0)


def test_a_better_gpu_of_one_family_is_never_slower(steps: dict[tuple[str, str, str], light.Step], request: pytest.FixtureRequest) -> None:
    plan = light.KINDS[request.node.callspec.params["steps"]]
    rows = {
        (gpu, source, weights): light.slower(step, steps[light.FAMILIES[gpu], source, weights])
        for (gpu, source, weights), step in steps.items()
        if (light.FAMILIES.get(gpu), source, weights) in steps and light.comparable(plan, gpu, weights)
    }
    assert rows
    assert not beyond(rows, light.BETTER)


def test_a_slice_is_never_faster_than_its_card(steps: dict[tuple[str, str, str], light.Step]) -> None:
    rows = {k: light.slower(steps[light.SLICES[k[0]], k[1], k[2]], step) for k, step in steps.items() if k[0] in light.SLICES}
    assert rows
    assert not beyond(rows, 1.0)


@pytest.mark.parametrize("gpu", ["l40s", "l4", "rtx-4090"])
def test_ranks_of_a_badly_wired_host_are_priced_by_the_link(gpu: str) -> None:
    card = load_gpu(gpu)
    bank, size = load_bank(card), np.array([2.0**26])
    for ranks in (4, 8):
        moved = 2.0 * (1.0 - 1.0 / ranks) * size / collectives.price(bank, "all_reduce", size, ranks).seconds
        assert 0.5 * card.link.bandwidth < moved[0] < card.link.bandwidth
