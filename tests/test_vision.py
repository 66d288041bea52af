"""Images: tokens by the model's rule, encoder time in the prompt steps."""

from __future__ import annotations

import pytest

from apexsim import api
from apexsim.cost.bank import load_bank
from apexsim.cost.vision import image_seconds
from apexsim.errors import InputError
from apexsim.hardware import load_gpu
from apexsim.model.families import load_model

QUESTION = {"gpu": "h100-sxm", "gpus": 1, "prompt_len": 200, "output_len": 20, "num_requests": 20, "request_rate": 0.05}


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("Qwen2.5-VL-7B-Instruct", (1008, 1008), 1296),  # 72 × 72 patches of 14, merged by 2 × 2
        ("Qwen3-VL-8B-Instruct", (1024, 1024), 1024),  # 64 × 64 patches of 16, merged by 2 × 2
        ("gemma-3-12b-it", (640, 480), 256),  # always 256
        ("llava-1.5-7b-hf", (640, 480), 576),  # 24 × 24 patches of one 336 square
    ],
)
def test_tokens_of_an_image(model: str, size: tuple[int, int], tokens: int) -> None:
    assert load_model(model).vision.tokens_of(*size) == tokens


def test_an_image_costs_prefill_and_encoder_time() -> None:
    plain = api.simulate("Qwen2.5-VL-7B-Instruct", "TP1", **QUESTION).ranked[0]
    seen = api.simulate("Qwen2.5-VL-7B-Instruct", "TP1", images=2, image_size="1008x1008", **QUESTION).ranked[0]
    long = api.simulate("Qwen2.5-VL-7B-Instruct", "TP1", **{**QUESTION, "prompt_len": 200 + 2 * 1296}).ranked[0]
    vision = load_model("Qwen2.5-VL-7B-Instruct").vision
    encode = image_seconds(vision, vision.patches(1008, 1008), 1, load_bank(load_gpu("h100-sxm")))
    assert seen.metrics.ttft.mean > plain.metrics.ttft.mean
    assert seen.metrics.ttft.mean - long.metrics.ttft.mean == pytest.approx(2 * encode, rel=0.25)


def test_the_tower_is_priced_near_its_flop() -> None:
    """0.67 B parameters over 5,184 patches are 7 TFLOP, 7 ms at the peak of an H100; attention adds to it."""
    vision = load_model("Qwen2.5-VL-7B-Instruct").vision
    seconds = image_seconds(vision, 5184, 1, load_bank(load_gpu("h100-sxm")))
    assert 0.008 < seconds < 0.06


@pytest.mark.parametrize(("model", "more", "says"), [
    ("llama-3.1-8b", {"images": 1}, "no vision tower"),
    ("Qwen2.5-VL-7B-Instruct", {"images": 1, "image_size": "big"}, "image size"),
])  # fmt: skip
def test_bad_images_are_refused(model: str, more: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        api.plan(model, **QUESTION, **more)
