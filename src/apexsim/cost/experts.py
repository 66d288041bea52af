"""Routed experts from measured grids (floor 3).

The tables hold the slowest rank under a load that is balanced or follows a power law.  Time is linear in t between
grid points.  A layer that was not timed takes the nearest one that was, at equal tokens per expert; the ideal times of
both account for the rest.  Ignored there: that another E makes another imbalance.

Engines time a rank either on all tokens of its group, of which it leaves out the foreign ones (`price`), or on those alone that were
sent to it (`local`): wide expert parallelism has tables of its own for that.  Where they are missing
    local = launch + (seconds of the whole layer on one rank - launch) / ep
and a rank with fewer of the experts and as many tokens of its own is never slower: the least over the wider shares counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from apexsim.cost.bank import Bank, BankMatch
from apexsim.cost.grid import bridged
from apexsim.cost.kernels import Table
from apexsim.cost.roofline import KERNELS, LAUNCH, Array, Kernel, Peaks, Priced, Provenance, possible, worst
from apexsim.cost.shapes import LOADS, ExpertLayer, expert_least, expert_work, pairs
from apexsim.cost.surface import Demand, KernelKind, Match, Surface, held
from apexsim.cost.touched import drawn, laid_out
from apexsim.errors import InputError, nearest

WEIGHTS = np.array([1.0, 1.0, 0.5, 0.5, 0.4])  # of a factor e in d, i/tp, k, E/ep, ep (least leave-one-model-out error)
FEW = 8.0  # tokens an expert up to which 4- and 8-bit weights are read in no more time than 16-bit ones
LEAST_RANKS = 4  # of the shares that a rank's own experts are held against: no table has fewer
OTHER_ENGINE = 0.7  # distance at which another engine's kernel is preferred to this one's nearest layer
# Formats of which another engine's must be the same kernel: vLLM's Marlin takes three times as long as SGLang's trtllm-gen.
ALIKE = ("w4a16",)
# A format that was not timed -> formats whose utilisation it takes, best first; "bf16" serves every other one.
SURROGATES = {
    "fp8": ("fp8_block",), "fp8_block": ("fp8",), "int8": ("fp8", "fp8_block"), "w4a16": ("w4a16_mxfp4",),
    "w4a16_nvfp4": ("w4a16", "w4a16_mxfp4"), "w4a16_mxfp4": ("w4a16",), "w4a8_mxfp4": ("nvfp4",), "nvfp4": ("w4a8_mxfp4",),
    "w8a16": ("w4a16",),
}  # fmt: skip


def _work(kernel: Kernel) -> Demand:
    return lambda layer, t: expert_work(t, layer, kernel)


def surface_of(table: Table, peaks: Peaks) -> Surface:
    """Times of one engine's grouped GEMM over (layer, load, tokens)."""
    kernel = KERNELS[next(word for word in table.key if word in KERNELS)]

    def complete(seconds: Array, best: Array, along: Array) -> Array:
        return held(bridged(seconds, along), best, along)

    def layer(row: list[int]) -> ExpertLayer:
        return ExpertLayer._make([*row[:6], bool(row[6])])

    kind = KernelKind(("tokens",), _work(kernel), kernel.compute, layer, complete=complete)
    return Surface(table, peaks, kind)


def match_of(surface: Surface, layer: ExpertLayer, among: Sequence[ExpertLayer] = ()) -> Match:
    """The nearest measured layer, of all or of those named."""
    layers = among or surface.shapes
    if layer in layers:
        return Match((surface.shapes.index(layer),))
    features, gated = np.array([near.features() for near in layers]), np.array([near.gated for near in layers])
    distance = np.abs(features - layer.features()) @ WEIGHTS + 1.0 * (gated != layer.gated)
    best = int(distance.argmin())
    near = layers[best]
    scale = (layer.top_k / layer.experts) / (near.top_k / near.experts)
    return Match((surface.shapes.index(near),), max(float(distance[best]), 1e-3), scale)


def under(surface: Surface, match: Match, load: int) -> Match:
    """The match under the nearest load that was timed."""
    loads, (row, *_) = surface.axes["load"].tolist(), match.row
    timed = [i for i in range(len(loads)) if not np.isnan(surface.seconds[row, i]).all()]
    return match._replace(row=(row, min(timed, key=lambda i: abs(loads[i] - load))))


def loaded(found: BankMatch, load: int) -> BankMatch:
    """What was found, under the nearest load that was timed; engines are compared under that of the lender."""
    match, lent = under(found.surface, found.match, load), found.lent
    if lent is not None:
        theirs = under(lent.lender, lent.theirs, load)
        mine = under(lent.own, lent.mine, int(lent.lender.axes["load"][theirs.row[1]]))
        lent = lent._replace(mine=mine, theirs=theirs)
    return found._replace(match=match, lent=lent)


def price(bank: Bank, tokens: ArrayLike, layer: ExpertLayer, kernel: str, load: str = "power_law_1.2") -> Priced:
    """Seconds of the routed experts of the slowest rank, without router and shared expert.

    tokens: of the whole layer, all ep ranks together; kernel: as in `gemm`, where mxfp4 is W4A8 on GPUs with FP4 units and W4A16
    elsewhere; load: of the experts, see LOADS.
    """
    if load not in LOADS:
        raise InputError(f"unknown expert load '{load}'", "distribution", nearest(load, LOADS))
    name, t = _format(bank, kernel), np.asarray(tokens, float)
    priced = _price(bank, t, layer, name, load)
    row = KERNELS[name]
    if row.weight_bytes < KERNELS["bf16"].weight_bytes:
        priced = _no_slower(priced, _price(bank, t, layer, "bf16", load), pairs(t, layer))
    return possible(priced, *expert_least(t, layer, row), bank.peaks, row.compute)


def routed(bank: Bank, tokens: ArrayLike, layer: ExpertLayer, kernel: str, skew: float) -> Priced:
    """Seconds as `price` under the power law, with as many experts touched as a router of that skew touches.

    The balanced curve gives every pair an expert of its own while there are any, so it says what touching n experts takes:
        seconds = power law(t) + balanced(drawn(t) / k) - balanced(laid out(t) / k)
    """
    t, load = np.asarray(tokens, float), "power_law_1.2"
    priced, name, row = price(bank, t, layer, kernel, load), _format(bank, kernel), KERNELS[_format(bank, kernel)]
    found = bank.kept(("experts", name, layer), lambda: _find(bank, name, layer))
    if found is None or layer.top_k >= layer.experts:
        return priced
    laid = laid_out(t, layer.experts, layer.top_k, LOADS[load] / 100.0, found.surface.axes["tokens"].astype(float))
    both = np.concatenate([np.ravel(drawn(t, layer.experts, layer.top_k, skew)), np.ravel(laid)]) / layer.top_k
    even = price(bank, both, layer, kernel, "balanced").seconds.reshape(2, *t.shape)
    priced = priced._replace(seconds=np.maximum(priced.seconds + even[0] - even[1], found.surface.launch))
    if row.weight_bytes < KERNELS["bf16"].weight_bytes:
        priced = _no_slower(priced, routed(bank, t, layer, "bf16", skew), pairs(t, layer))
    return possible(priced, *expert_least(t, layer, row), bank.peaks, row.compute)


def local(bank: Bank, tokens: ArrayLike, layer: ExpertLayer, kernel: str, phase: str, load: str = "balanced") -> Priced:
    """Seconds of a rank's own experts, which only gets the tokens sent to it.

    tokens: of the whole layer, all ep ranks together; phase: "decode" (batches of a fixed shape) or "prefill"; load: as in `price`.
    """
    name, t = _format(bank, kernel), np.asarray(tokens, float)
    wider = [layer._replace(ep=layer.ep >> i) for i in range(layer.ep.bit_length()) if layer.ep >> i >= LEAST_RANKS or i == 0]
    each = [_local(bank, t * share.ep / layer.ep, share, name, phase, load) for share in wider]
    best = np.argmin([priced.seconds for priced in each], axis=0)
    seconds, label = (np.choose(best, [getattr(priced, part) for priced in each]) for part in ("seconds", "provenance"))
    row = KERNELS[name]
    return possible(Priced(seconds, label), *expert_least(t, layer, row), bank.peaks, row.compute)


def _local(bank: Bank, t: Array, layer: ExpertLayer, name: str, phase: str, load: str) -> Priced:
    found = bank.kept(("local", phase, name, layer), lambda: _find(bank, name, layer, "local", (phase,)))
    work, compute = _work(KERNELS[name]), KERNELS[name].compute
    if found is not None:
        return bank.price(loaded(found, LOADS[load]), layer, (t,), work, compute)
    whole = layer._replace(ep=1)
    priced, launch = _price(bank, t, whole, name, load), _launch(bank, whole, name)
    fixed = np.minimum(launch, priced.seconds)
    return Priced(fixed + (priced.seconds - fixed) / layer.ep, worst(priced.provenance, Provenance.TRANSFERRED))


def _launch(bank: Bank, layer: ExpertLayer, name: str) -> float:
    """Seconds of a layer's kernels beside their work."""
    found = bank.kept(("experts", name, layer), lambda: _find(bank, name, layer))
    return found.surface.launch if found is not None else LAUNCH


def _no_slower(priced: Priced, whole: Priced, each: Array) -> Priced:
    """Experts in few bits, no slower than in 16 bit as long as reading weights is what takes the time.

    An engine that found its 8- or 4-bit kernel slower would unpack the weights once.  Up to FEW tokens an expert the law is strict, then
    it fades: kernels that unpack or quantise on the way do lose to 16-bit ones on large batches.
    """
    cap = whole.seconds * np.maximum(1.0, each / FEW)
    label = np.where(priced.seconds > cap, worst(whole.provenance, Provenance.TRANSFERRED), priced.provenance)
    return Priced(np.minimum(priced.seconds, cap), label.astype(np.int8))


def _price(bank: Bank, t: Array, layer: ExpertLayer, name: str, load: str) -> Priced:
    found = bank.kept(("experts", name, layer), lambda: _find(bank, name, layer))
    if found is not None:
        found = loaded(found, LOADS[load])
    priced = bank.price(found, layer, (t,), _work(KERNELS[name]), KERNELS[name].compute, "experts")
    if found is None or (found.match.distance == 0 and found.lent is None) or layer.tp % 2:
        return priced
    whole = _price(bank, t, layer._replace(tp=layer.tp // 2), name, load)  # half of each expert is never slower than all of it
    return whole._replace(seconds=np.minimum(priced.seconds, whole.seconds), provenance=worst(priced.provenance, Provenance.TRANSFERRED))


def _format(bank: Bank, kernel: str) -> str:
    """The kernel an engine runs for a format: MXFP4 weights meet MXFP8 activations where there are FP4 units, else
    16-bit ones."""
    if kernel == "mxfp4":
        return "w4a8_mxfp4" if bank.peaks.has("fp4") else "w4a16_mxfp4"
    if kernel not in KERNELS:
        raise InputError(f"unknown expert kernel '{kernel}'", "kernel", nearest(kernel, KERNELS))
    return kernel


def _find(bank: Bank, kernel: str, layer: ExpertLayer, family: str = "moe", head: tuple[str, ...] = ()) -> BankMatch | None:
    """The nearest measured layer of a family's tables, in this format before others, by this engine before others."""
    units = bank.peaks.has(KERNELS[kernel].compute)
    for home in bank.homes:
        for name in dict.fromkeys((kernel, *SURROGATES.get(kernel, ()), "bf16")):
            own = home.native and name == kernel
            if own or units or KERNELS[name].compute == "bf16":
                near = bank.nearest(
                    home, family, (*head, name), surface_of, lambda s, among: match_of(s, layer, among), OTHER_ENGINE, name in ALIKE
                )
                if near is not None:
                    return BankMatch(*near[:2], own, near[2])
    return None
