"""Drafts and acceptance: what people may write, what is shipped, and laws of drafting from the engine to the answer."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import apexsim
import toy_costs as toy
from apexsim import api
from apexsim.drafting import (
    MOST,
    RANDOM,
    Acceptance,
    Drafting,
    acceptance_for,
    measured,
    of_lengths,
    parse_acceptance,
    parse_drafting,
    parse_speculate,
    ranged,
)
from apexsim.engine import kernel
from apexsim.engine.types import TICKS, Drafts
from apexsim.engines import drafting, load_engine
from apexsim.errors import InputError
from apexsim.plan.limits import unstartable
from apexsim.plan.plan import parse_plan
from apexsim.plan.pool import handed_bytes
from apexsim.plan.split import named_split, parse_any
from apexsim.plan.weights import stage_weights, stages_of
from apexsim.search.drafts import following, step_seconds
from apexsim.search.evaluate import Evaluation, compiled, drafts_of, evaluate, look_of
from apexsim.search.setting import Setting
from worlds import World, all_gaps, drafted, worlds

quick = settings(max_examples=60, deadline=None, derandomize=True)
MADE = {"prompt_len": 200, "output_len": 100, "num_requests": 16, "concurrency": 4}


# ---- the engine ------------------------------------------------------------------------------------------------------


def alike(gain: float, width: int, seats: int) -> Drafts:
    """The same for any number of sequences."""
    return Drafts(np.full(seats + 1, round(gain * TICKS)), np.full(seats + 1, width))


@quick
@given(worlds(modes=("open", "closed", "offline")))
def test_no_drafts_and_a_width_of_one_are_the_same(world: World) -> None:
    """K = 0: the clock ticks in thousandths, and nothing else changes."""
    plain = world.run()
    one = replace(world, drafts=alike(1.0, 1, world.rules.max_seqs * world.lanes)).run()
    for name in ("sent", "start", "first", "finish"):
        np.testing.assert_allclose(getattr(one, name), getattr(plain, name), rtol=1e-12, atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(one.hist, plain.hist)


@pytest.mark.parametrize("drafts", [1, 2, 3, 7])
@pytest.mark.parametrize("stages", [1, 3])
def test_free_drafts_that_are_all_accepted_decode_so_many_times_faster(drafts: int, stages: int) -> None:
    """Every step takes τ on every stage: o − 1 = n·(K + 1) tokens after the first take n steps."""
    steps, tau = 40, 0.01
    asked = toy.offline(np.full(5, 8), np.full(5, 1 + steps * (drafts + 1)))
    costs = toy.plain(stages=stages, step=tau)
    done = World(asked, toy.ORCA, toy.NO_HOST, costs, 10_000, drafts=alike(drafts + 1, drafts + 1, 16)).run()
    np.testing.assert_allclose(done.finish - done.first, steps * stages * tau, rtol=1e-9)


@quick
@given(drafted(worlds()))
def test_every_token_of_a_request_is_made_and_none_beside(world: World) -> None:
    done = world.run()
    assert np.isfinite(done.finish).all()
    assert np.isclose(all_gaps(done.gaps).sum(), (done.finish - done.first).sum(), rtol=1e-9, atol=1e-9)
    messages = done.gaps[:, 2] @ done.gaps[:, 3]
    assert messages <= (world.requests.output - 1).sum()


@quick
@given(drafted(worlds()))
def test_the_books_are_closed(world: World) -> None:
    _, state, _ = world.inside()
    assert (state.free == world.blocks).all() and not state.residue.any() and not state.context.any() and not state.growing.any()


@quick
@given(drafted(worlds()))
def test_jumping_and_stepping_agree(world: World) -> None:
    there, here = world.run(), world.run(jump=False)
    np.testing.assert_allclose(there.finish, here.finish, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(there.hist, here.hist)


@given(st.floats(1.0, 4.0), st.floats(1.0, 4.0))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_more_accepted_drafts_are_never_slower(one: float, other: float) -> None:
    """In a closed batch that all starts at once."""
    asked = toy.offline(np.full(6, 20), np.full(6, 200))
    low, high = (
        World(asked, toy.ORCA, toy.NO_HOST, toy.costs(toy.Toy()), 10_000, drafts=alike(x, 4, 16)).run().finish.max()
        for x in sorted((one, other))
    )
    assert high <= low * (1 + 1e-9)


@pytest.mark.parametrize(("changes", "why"), [
    ({"gain": np.full(17, 900)}, "1 to `width` tokens"), ({"gain": np.full(17, 3001)}, "1 to `width` tokens"),
    ({"gain": np.full(16, 2000), "width": np.full(16, 3)}, "fewer sequences"),
])  # fmt: skip
def test_impossible_drafts_are_refused(changes: dict[str, np.ndarray], why: str) -> None:
    drafts = alike(2.0, 3, 16)._replace(**changes)
    with pytest.raises(AssertionError, match=why):
        kernel.simulate(toy.offline([8], [8]), toy.ORCA, toy.NO_HOST, toy.costs(toy.Toy()), 100, drafts=drafts)


# ---- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "found"), [
    ("mtp:3", ["mtp:3"]), ("mtp:1..3", ["None", "mtp:1", "mtp:2", "mtp:3"]), ("none,mtp:2", ["None", "mtp:2"]),
    ("draft:Qwen/Qwen3-0.6B:1..2", ["None", "draft:Qwen/Qwen3-0.6B:1", "draft:Qwen/Qwen3-0.6B:2"]),
    ("Standalone:qwen2.5-0.5b:3", ["draft:qwen2.5-0.5b:3"]),
    ("MTP:1, eagle3:4,ngram:2", ["mtp:1", "eagle3:4", "ngram:2"]), ("mtp:2,mtp:1..2", ["mtp:2", "None", "mtp:1"]),
])  # fmt: skip
def test_ways_of_drafting_are_read(text: str, found: list[str]) -> None:
    assert [str(draft) for draft in parse_speculate(text)] == found


@pytest.mark.parametrize("text", ["mtp:3", "eagle3:4", "ngram:5", "MTP:1", "draft:qwen3-0.6b:3", "draft:./some/config.json:2"])
def test_a_plan_names_its_drafts_and_reads_them_back(text: str) -> None:
    draft = parse_drafting(text)
    for layout in ("TP8", "2×PP2×TP4@fp8@810MHz"):
        assert parse_plan(f"{layout}+{draft}").draft == draft
        assert parse_plan(f"{layout}+{draft}").shorthand == f"{layout}+{draft}"
        assert not named_split(f"{layout}+{draft}")
    assert parse_any(f"3×TP4+DEP8+{draft}").decode.draft == draft


@pytest.mark.parametrize(("text", "told"), [
    ("", "names no way"), ("mtp", "cannot read"), ("mtp:0", "expected 1 to"), ("mtp:99", "expected 1 to"), ("mtp:4..2", "ends before"),
    ("magic:3", "unknown way of drafting 'magic'"), ("mtp:1..99", "expected 1 to"), ("mtp:1...3", "cannot read"), ("mtp:-1", "cannot read"),
    ("draft:3", "is not named"), ("draft::3", "is not named"), ("mtp:qwen3-0.6b:3", "mtp takes no model"),
    ("draft:qwen3-0.6b", "cannot read"),
    ("draft:qwen3-0.6b:0", "expected 1 to"), ("draft:qwen3-0.6b:3..1", "ends before"),
])  # fmt: skip
def test_what_is_no_way_of_drafting_is_refused(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_speculate(text)


@pytest.mark.parametrize(("text", "drafts", "lengths"), [
    ("0.5", 2, (1.0, 1.5, 1.75)), ("1", 3, (1.0, 2.0, 3.0, 4.0)), ("0", 2, (1.0, 1.0, 1.0)), ("0.8,0.5", 2, (1.0, 1.8, 2.3)),
    ("length:1.8,2.3", 2, (1.0, 1.8, 2.3)), ("length:2.5", 1, None), ("length:1.75", 2, (1.0, 1.5, 1.75)),
])  # fmt: skip
def test_acceptance_is_read(text: str, drafts: int, lengths: tuple[float, ...] | None) -> None:
    if lengths is None:
        with pytest.raises(InputError, match="1 to 2 tokens"):
            parse_acceptance(text, drafts)
        return
    found = parse_acceptance(text, drafts)
    assert found.lengths[: drafts + 1] == pytest.approx(lengths) and not found.assumed


@pytest.mark.parametrize(("text", "told"), [
    ("1.2", "share from 0 to 1"), ("-0.1", "share from 0 to 1"), ("0.5,0.8", "cannot rise"), ("nan", "finite"), ("inf", "finite"),
    ("length:9", "makes 1 to 4 tokens"), ("length:0.5", "makes 1 to 4 tokens"), ("length:", "cannot read"),
    ("length:1.5,3.5", "1 to 3 tokens"),
    ("nobody", "unknown acceptance 'nobody'"), ("0.5,x", "cannot read 'x'"), ("80%", "cannot read '80%'"),
    ("-INF", "finite"), ("NaN", "finite"),
    ("length:2,1.5", "cannot make fewer"), ("0.5,", "cannot read ''"), ("", "unknown acceptance"),
    (",".join(["0.5"] * (MOST + 1)), "at most"),
])  # fmt: skip
def test_impossible_acceptance_is_refused(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_acceptance(text, 3)


COUNTERS = """# HELP vllm:spec_decode_num_drafts_total Number of spec decoding drafts.
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 1000.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="0"} 800.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="1"} 500.0
"""


@pytest.mark.parametrize(("text", "lengths"), [
    (COUNTERS, (1.0, 1.8, 2.3)), ('{"spec_decode_per_position_acceptance_rates": [0.8, 0.5]}', (1.0, 1.8, 2.3)),
    ("drafts,length\n1,1.8\n2,2.3\n", (1.0, 1.8, 2.3)), ("Position,Rate\n2,0.5\n1,0.8\n", (1.0, 1.8, 2.3)),
])  # fmt: skip
def test_files_of_acceptance_are_read(text: str, lengths: tuple[float, ...], tmp_path: Path) -> None:
    path = tmp_path / "acceptance.txt"
    path.write_text(text)
    assert parse_acceptance(str(path), 2).lengths == pytest.approx(lengths)


@pytest.mark.parametrize(("text", "told"), [
    ("a,b\n1,2\n", "holds no acceptance"), ("", "holds no acceptance"), ("drafts,length\n1,1.8\n3,2.3\n", "must be 1, 2, 3"),
    ("drafts,length\n1,2.8\n", "1 to 2 tokens"), ("position,rate\n1,1.8\n", "share from 0 to 1"), ("position,rate\n1,x\n", "as a number"),
    ("{", "as JSON"), ('{"duration": 3}', "holds no list"), ('{"spec_decode_per_position_acceptance_rates": ["x"]}', "holds no list"),
    ('{"spec_decode_per_position_acceptance_rates": [0.4, 0.5]}', "cannot rise"),
    (COUNTERS.replace("1000.0", "0"), "say nothing of drafts"), (COUNTERS.replace("1000.0", "1e3e"), "as a number"),
    (COUNTERS.replace("800.0", "8..0"), "as a number"), (COUNTERS.replace("800.0", "1e999"), "finite"),
    ("drafts,length\n1,1.9\n2,1.5\n", "fewer"),
    (COUNTERS.replace("800.0", "-800.0"), "share from 0 to 1"), ("position,rate\n1\n", "as a number"),
])  # fmt: skip
def test_broken_files_of_acceptance_are_refused(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "acceptance.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        parse_acceptance(str(path), 2)


# ---- the table -------------------------------------------------------------------------------------------------------


def test_every_measured_length_is_possible() -> None:
    for row in measured():
        of_lengths(list(row.lengths[1:]), row.source, row.name)
        assert row.source and row.task and len(row.lengths) - 1 <= MOST


@pytest.mark.parametrize(("model", "source", "assumed"), [
    ("glm-5.2", "glm-5.2-fp8:coding-thinking", True), ("deepseek-r1", "as deepseek-v4-pro", True), ("llama-3.1-8b", "median of", True),
])  # fmt: skip
def test_acceptance_is_of_the_model_or_its_like_and_says_so(model: str, source: str, assumed: bool) -> None:
    found = acceptance_for("vllm", model, Drafting("mtp", 3))
    assert source in found.source and found.assumed is assumed and RANDOM not in found.source


def test_nobody_drafts_as_random_tokens_do_unless_asked() -> None:
    usual, random = acceptance_for("sglang", "deepseek-r1-fp8", Drafting("mtp", 3)), acceptance_for(
        "sglang", "deepseek-r1-fp8", Drafting("mtp", 3), RANDOM
    )  # fmt: skip
    assert RANDOM in random.source and RANDOM not in usual.source


def test_what_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match="nothing is known of the acceptance of ngram"):
        acceptance_for("vllm", "llama-3.1-8b", Drafting("ngram", 3))


# ---- rows, prices, answers -------------------------------------------------------------------------------------------


def test_captured_sizes_are_of_sequences_or_of_tokens() -> None:
    vllm, sglang = load_engine("vllm"), load_engine("sglang")
    for row in (sglang, load_engine("trtllm")):
        assert drafting(row, 4).pad == tuple(4 * n for n in row.pad) and row.draft_slots == 1
    assert all(n % 3 == 0 for n in drafting(vllm, 3).pad) and drafting(vllm, 3).pad[-1] - vllm.pad[-1] < 3
    assert drafting(vllm, 1) is vllm


def question(model: str = "deepseek-v3", gpu: str = "h200:8", engine: str = "vllm") -> Setting:
    return api.ask(model, gpu=gpu, engine=engine, **MADE)[0]


def tpot(setting: Setting, plan: str, accepted: Acceptance) -> float:
    """Mean seconds of a further token."""
    found = evaluate(replace(setting, acceptance=accepted), parse_plan(plan, api.precision_of(setting.model, None, None, None)))
    assert isinstance(found, Evaluation)
    return float(((found.outcome.finish - found.outcome.first) / (setting.workload.output - 1)).mean())


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_drafts_that_nobody_accepts_cost_and_accepted_ones_pay(engine: str) -> None:
    setting, nothing, everything = question(engine=engine), Acceptance((1.0,) * 5, ""), Acceptance((1.0, 2.0, 3.0, 4.0, 5.0), "")
    plain = tpot(setting, "TP8", nothing)
    wasted, gained = tpot(setting, "TP8+mtp:3", nothing), tpot(setting, "TP8+mtp:3", everything)
    assert plain < wasted < 4 * plain and wasted / 4 < gained * 1.05 and gained < plain
    assert wasted < tpot(setting, "TP8+mtp:4", nothing), "more drafts cost more"


def test_looking_up_drafts_is_cheaper_than_making_them() -> None:
    setting, some = question("llama-3.1-70b", "h100:8"), Acceptance((1.0, 1.5, 2.0, 2.5), "")
    assert tpot(setting, "TP8+ngram:3", some) < tpot(setting, "TP8+eagle3:3", some)


# ---- a number of drafts that follows the batch -----------------------------------------------------------------------

FALLING = Acceptance((1.0, 1.8, 2.4, 2.8), "")
LATEST = "vllm@0.32.0"  # drafts as many as it verifies


@quick
@given(st.lists(st.integers(0, MOST), min_size=1, max_size=40))
def test_ranges_say_what_every_batch_has(drafts: list[int]) -> None:
    by = ranged(drafts)
    if max(drafts) == 0:
        return
    draft = Drafting("mtp", max(drafts), "", by)
    assert draft.of_batches(len(drafts) + 5)[1:] == [*drafts, *[drafts[-1]] * 5]
    assert parse_drafting(str(draft)) == draft and parse_plan(f"TP8+{draft}").shorthand == f"TP8+{draft}"
    assert [kind.tokens for kind in draft.kinds] == sorted(set(drafts))


@pytest.mark.parametrize(("text", "told"), [
    ("mtp:3to32", "cannot read"), ("mtp:3to32/", "cannot read"), ("mtp:3to0/1", "must ascend"), ("mtp:3to32/1to32/0", "must ascend"),
    ("mtp:3to32/3", "the same drafts"), ("mtp:0to8/99", "expected 1 to"), ("mtp:1..3to8/0", "cannot read"), ("mtp:3/0", "cannot read"),
])  # fmt: skip
def test_impossible_ranges_are_refused(text: str, told: str) -> None:
    for parse in (parse_speculate, parse_drafting):
        with pytest.raises(InputError, match=told):
            parse(text)


@pytest.mark.parametrize("method", ["mtp", "ngram"])
def test_a_batch_costs_what_it_does_with_its_own_number_of_drafts(method: str) -> None:
    """But for what steps of equal tokens are padded to."""
    setting = question(engine=LATEST)
    times = {}
    for words in ("1", "3", "3to5/1"):
        plan = parse_plan(f"TP8+{method}:{words}", api.precision_of(setting.model, None, None, None))
        times[words] = step_seconds(compiled(setting, plan, setting.engine).costs, plan, 500.0)
    np.testing.assert_allclose(times["3to5/1"][:5], times["3"][:5], rtol=0.02)
    np.testing.assert_allclose(times["3to5/1"][5:], times["1"][5:], rtol=0.02)


def test_without_drafts_the_layer_that_makes_them_still_sees_every_token() -> None:
    setting = question(engine=LATEST)
    ways = ["TP8", "TP8+mtp:1", "TP8+mtp:1to1/0"]
    plain, one, none = (float(step_seconds(compiled(setting, plan, setting.engine).costs, plan, 500.0)[7])
                        for plan in (parse_plan(way, api.precision_of(setting.model, None, None, None)) for way in ways))  # fmt: skip
    assert plain < none < one


def test_ranges_beyond_the_batches_that_run_change_nothing() -> None:
    setting = question(engine=LATEST)
    assert tpot(setting, "TP8+mtp:3", FALLING) == pytest.approx(tpot(setting, "TP8+mtp:3to1000/1", FALLING), rel=1e-9)
    assert tpot(setting, "TP8+mtp:1", FALLING) < tpot(setting, "TP8+mtp:3to1/1", FALLING) * 1.02


def test_room_behind_a_sequence_is_of_the_range_that_needs_most() -> None:
    row = load_engine(LATEST)
    for way, looked in (("3", 2 * 3 + 1 - 3), ("3to4/0", 2 * 3 + 1 - 3), ("0to4/3", 2 * 3 + 1 - 3), ("1to4/3", 2 * 3 + 1 - 3)):
        plan = parse_plan(f"TP8+mtp:{way}")
        assert look_of(row, plan, drafts_of(replace(question(engine=LATEST), acceptance=FALLING), plan, 16)) == looked, way


@pytest.mark.parametrize(("engine", "plan", "told"), [
    (LATEST, "TP8+mtp:3to32/0", ""), (LATEST, "DEP8+mtp:3to32/0", "one lane of attention only"),
    ("vllm@0.31.0", "TP8+mtp:3to32/0", r"no number of mtp drafts that follows the batch \(vllm@0.32.0 has it\)"),
    ("sglang", "TP8+mtp:3to32/0", "no number of mtp drafts that follows the batch$"),
    (LATEST, "TP8+draft:qwen3-0.6b:3to32/0", "no number of draft drafts that follows the batch$"),
])  # fmt: skip
def test_engines_whose_drafts_do_not_follow_the_batch_are_not_asked_to(engine: str, plan: str, told: str) -> None:
    setting = question("qwen3-32b" if "qwen3" in plan else "deepseek-v3", engine=engine)
    said = unstartable(setting.model, parse_plan(plan), setting.cluster, setting.engine)
    assert re.search(told, said) if told else not said, said


MIXED = {"prompt_len": 200, "output_len": 400, "num_requests": 1200, "request_rate": 6, "burstiness": 0.1, "acceptance": "0.6,0.35,0.2,0.1"}


def test_a_number_that_follows_is_proposed_where_it_beats_every_other() -> None:
    """Bursts on a slow GPU: products are bound by compute in large batches, and drafts are free in small ones."""
    ranked = apexsim.plan("llama-3.1-8b", gpu="l40s:1", engine=LATEST, speculate="eagle3:1..4", **MIXED).ranked
    first, *rest = (run.plan for run in ranked)
    assert first.draft and [k for _, k in first.draft.by] == sorted({k for _, k in first.draft.by}, reverse=True) and len(rest) == 5
    assert not any(plan.draft and plan.draft.by for plan in rest)
    assert ranked[0].value < min(run.value for run in ranked[1:])


def test_a_proposal_that_a_single_number_beats_is_not_listed() -> None:
    one_load = {**MIXED, "num_requests": 432, "concurrency": 72}
    for name in ("request_rate", "burstiness"):
        one_load.pop(name)
    study = apexsim.plan("llama-3.1-8b", gpu="l40s:1", engine=LATEST, speculate="eagle3:1..4", **one_load)
    first = study.ranked[0]
    assert first.drafts and first.plan.draft and not any(run.plan.draft and run.plan.draft.by for run in study.ranked)
    best = following(study.setting, first.plan, (1, 2, 3, 4), first.drafts.batch)
    assert best and best.drafts(int(first.drafts.batch)) == first.plan.draft.tokens, "what won at a load stays there"
    assert best.of_batches(72)[64:] == [2] * 9 and best.drafts(1) > 2


@pytest.mark.parametrize("asked", [{"engine": "vllm@0.31.0"}, {"engine": "sglang"}, {"speculate": "eagle3:2"}, {"concurrency": 1}])
def test_none_is_proposed_where_there_is_none_or_one_number_is_best(asked: dict[str, Any]) -> None:
    question = {"engine": LATEST, "speculate": "eagle3:1..2", **MADE, "acceptance": "0.6,0.35"} | asked
    study = apexsim.plan("llama-3.1-8b", gpu="l40s:1", **question)
    assert not any(run.plan.draft and run.plan.draft.by for run in (*study.ranked, *study.hypothetical))


TINY = """{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "head_dim": 128,
"num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 151936, "max_position_embeddings": 40960,
"tie_word_embeddings": true, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-6, "rope_theta": 1000000}"""


# ---- a model that drafts ---------------------------------------------------------------------------------------------


def test_a_model_that_drafts_for_itself_is_stored_twice() -> None:
    """Weights, and the cache of every token."""
    setting = question("llama-3.1-8b", "h100:1")
    plain, drafts = parse_plan("TP1"), parse_plan("TP1+draft:llama-3.1-8b:1")
    stage = stages_of(setting.model, 1)[0]
    weights = [stage_weights(setting.model, plan, stage, setting.engine) for plan in (plain, drafts)]
    caches = [handed_bytes(plan, (stage,), setting.engine, 1000.0) for plan in (plain, drafts)]
    assert weights[1] == 2 * weights[0] and caches[1] == 2 * caches[0]


def test_each_further_draft_of_a_model_costs_a_step_of_it() -> None:
    """At one sequence, where a step reads the weights whatever the number of its tokens."""
    setting = question("llama-3.1-8b", "h100:1")

    def step(words: str) -> float:
        plan = parse_plan(words)
        return float(step_seconds(compiled(setting, plan, setting.engine).costs, plan, 500.0)[0])

    one, two, three = (step(f"TP1+draft:llama-3.1-8b:{k}") for k in (1, 2, 3))
    assert three - two == pytest.approx(two - one, rel=0.1) == pytest.approx(step("TP1"), rel=0.2)
    assert step("TP1+draft:llama-3.2-1b:3") - step("TP1+draft:llama-3.2-1b:2") < 0.4 * step("TP1")


@pytest.mark.parametrize(("model", "drafter", "told"), [
    ("llama-3.1-8b", "qwen3-0.6b", "entries in its vocabulary"), ("llama-3.1-8b", "no-such-model", "no-such-model"),
    ("qwen3.5-397b-a17b", "qwen3.5-9b", "recurrent layers"), ("llama-3.1-8b", "./nowhere/config.json", "no such model file"),
])  # fmt: skip
def test_models_that_cannot_draft_are_refused(model: str, drafter: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        apexsim.plan(model, gpu="h100:8", speculate=f"draft:{drafter}:2", acceptance=0.7, **MADE)


def test_engines_refuse_draft_models_that_they_have_not_got() -> None:
    for engine, plan, told in (("vllm@0.11.0", "TP8+draft:qwen3-0.6b:3", "no speculative decoding by that method"),
                               ("sglang", "DEP8+draft:qwen3-0.6b:3", "takes no draft drafts")):  # fmt: skip
        setting = question("qwen3-235b-a22b", engine=engine)
        assert told in unstartable(setting.model, parse_plan(plan), setting.cluster, setting.engine)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_a_draft_model_of_a_file_is_named_by_the_user(engine: str, tmp_path: Path) -> None:
    from apexsim.report.launch import launch

    path = tmp_path / "config.json"
    path.write_text(TINY)
    setting = question("qwen3-32b", engine=engine)
    said = launch(setting, parse_plan(f"TP8+draft:{path}:2", api.precision_of(setting.model, None, None, None)))
    assert "$DRAFTER" in " ".join(said.commands) and any("DRAFTER is the draft model" in note for note in said.notes), said


def test_the_answer_says_what_was_assumed_and_when_drafting_pays() -> None:
    study = apexsim.plan("deepseek-v3", gpu="h200:8", tp=8, speculate="mtp:1..2", **MADE)
    plans = {run.plan.shorthand for run in study.ranked}
    assert {"TP8", "TP8+mtp:1", "TP8+mtp:2"} <= plans
    first = study.ranked[0]
    assert first.drafts is not None and first.drafts.assumed and 1.0 < first.drafts.break_even < first.drafts.length
    assert any("are assumed" in note and "drafting loses below" in note for note in study.notes)


def test_a_load_at_which_drafting_loses_is_found() -> None:
    """Dense, in 8 bit on slow units: products are bound by compute from a few dozen tokens on."""
    study = apexsim.plan("llama-3.1-8b", gpu="l40s:1", prompt_len=200, output_len=200, num_requests=512, concurrency=256,
                         speculate="none,eagle3:3", acceptance="0.3,0.1,0.05")  # fmt: skip
    assert study.ranked[0].plan.draft is None
    drafts = study.ranked[-1].drafts
    assert drafts is not None and drafts.break_even > drafts.length


@pytest.mark.parametrize(("changes", "told"), [
    ({"speculate": "mtp:2"}, "has no multi-token-prediction layers"), ({"acceptance": "0.8"}, "nothing is drafted"),
    ({"speculate": "eagle3:3", "acceptance": "0.8,0.5"}, "says nothing of 3 drafts"), ({"speculate": "ngram:3"}, "nothing is known"),
    ({"speculate": "eagle3:3", "acceptance": "1.2"}, "share from 0 to 1"),
])  # fmt: skip
def test_questions_that_make_no_sense_are_refused(changes: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        apexsim.plan("llama-3.1-8b", gpu="h100:1", **MADE, **changes)


@pytest.mark.parametrize("plan", ["TP1+mtp:2", "TP1+magic:3", "TP1+", "TP1+mtp:0", "TP1+mtp:1..2"])
def test_plans_that_cannot_draft_are_refused(plan: str) -> None:
    with pytest.raises(InputError):
        apexsim.simulate("llama-3.1-8b", plan, gpu="h100:1", **MADE)


@pytest.mark.parametrize(("engine", "plan", "words"), [
    ("vllm", "TP8+mtp:3", '--speculative-config \'{"method": "mtp", "num_speculative_tokens": 3}\''),
    ("vllm@0.10.0", "TP8+mtp:1", '"method": "deepseek_mtp"'), ("sglang", "TP8+mtp:2", "--speculative-algorithm EAGLE"),
    (LATEST, "TP8+mtp:3to32/1to128/0", '"num_speculative_tokens": 3, "num_speculative_tokens_per_batch_size": [[1, 32, 3], [33, 128, 1], '
     '[129, 1024, 0]]}'),
    ("sglang", "TP8+mtp:2", "--speculative-num-draft-tokens 3"), ("trtllm", "TP8+mtp:3", "num_nextn_predict_layers: 3"),
    ("vllm", "TP8+eagle3:2", "DRAFTER"), ("sglang", "TP8+eagle3:2", "--speculative-draft-model-path"),
    ("vllm", "TP8+draft:qwen3-0.6b:2", '{"method": "draft_model", "num_speculative_tokens": 2, "model": "Qwen/Qwen3-0.6B", '
     '"draft_tensor_parallel_size": 8}'),
    ("sglang", "TP8+draft:qwen3-0.6b:2", "--speculative-algorithm STANDALONE"),
    ("sglang", "TP8+draft:qwen3-0.6b:2", "--speculative-draft-model-path Qwen/Qwen3-0.6B"),
    ("trtllm", "TP8+draft:qwen3-0.6b:2", "speculative_model_dir: Qwen/Qwen3-0.6B"),
    ("trtllm@1.2.0", "TP8+draft:qwen3-0.6b:2", "decoding_type: DraftTarget"),
    ("trtllm@1.3.0", "TP8+draft:qwen3-0.6b:2", "decoding_type: Draft_Target"),
])  # fmt: skip
def test_launch_lines_say_how_to_draft(engine: str, plan: str, words: str) -> None:
    from apexsim.report.launch import launch

    setting = question("qwen3-32b" if "qwen3" in plan else "deepseek-v3", engine=engine)
    said = launch(setting, parse_plan(plan, api.precision_of(setting.model, None, None, None)))
    assert words in " ".join(" ".join(said.commands).replace("\\\n", " ").split()), said
