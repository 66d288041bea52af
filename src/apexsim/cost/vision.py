"""The time of the vision tower (floor 3): encoder work in the steps that hold an image's tokens.

    t(image) = layers · (qkv + out + up + down GEMMs of its patches + bidirectional attention), divided over tp devices

Engines encode an image in or before the step that computes its tokens.  Here every prompt token of the workload carries an equal share: a
request pays when its prompt is computed.  16-bit weights; ignored: the projector (below 2 % of the tower) and batching across images.
"""

from __future__ import annotations

import numpy as np

from apexsim.cost import attention, gemm
from apexsim.cost.bank import Bank
from apexsim.engine.types import Costs
from apexsim.model.vision import Vision


def image_seconds(vision: Vision, patches: int, tp: int, bank: Bank) -> float:
    """Seconds of one image of `patches` patches on tp devices."""
    heads = max(1, -(-vision.heads // tp))
    width, inner = heads * (vision.width // vision.heads), -(-vision.inner // tp)
    n = np.asarray([float(patches)])
    gemms = [(3 * width, vision.width), (vision.width, width), (inner * (2 if vision.gated else 1), vision.width), (vision.width, inner)]
    layer = sum(float(gemm.price(bank, n, a, b, "bf16").seconds[0]) for a, b in gemms)
    seen = attention.price(bank, attention.bidirectional(heads, vision.width // vision.heads), np.asarray([1.0]), n)
    return vision.layers * (layer + float(seen.seconds[0]))


def with_images(costs: Costs, seconds_per_token: float) -> Costs:
    """The tables with `seconds_per_token` of encoder work for every prompt token, on the first stage."""
    prefill = costs.prefill.copy()
    prefill[0] += seconds_per_token * costs.stride * np.arange(prefill.shape[1])
    return costs._replace(prefill=prefill)
