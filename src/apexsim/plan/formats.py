"""How a plan's number formats are multiplied on a GPU, where that is not what their names say (floor 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from apexsim.model.cell import LINEAR
from apexsim.model.dtypes import dtype
from apexsim.model.model import Model
from apexsim.plan.lower import kernel_for
from apexsim.plan.plan import Precision

UNITS = {"fp8": "FP8", "fp4": "FP4", "int8": "INT8"}
# Formats that are always priced by the kernels of another one.
LIKE = {"w4a8": "w4a8 weights are priced as 4-bit weights multiplied in 16 bit: no kernel with 8-bit activations was measured"}


def formats_of(model: Model, precision: Precision) -> tuple[str, ...]:
    """Weight formats of the layers that a model has, sorted."""
    return tuple(sorted({dtype(precision.weight(part)).name for part in parts_of(model)}))


def parts_of(model: Model) -> tuple[str, ...]:
    """The parts with linear weights that a model has."""
    counts = [cell.count(model.hidden) for block in model.decoder.blocks for cell in block.cells]
    there = {part for count in counts for part, n in count.items() if n}
    return tuple(part for part in LINEAR if part in there)


def as_priced(model: Model, precisions: Iterable[Precision], gpu: str, flops: Mapping[str, float]) -> tuple[str, ...]:
    """What to say about the formats of plans: units that the GPU lacks, and kernels that stand for others."""
    said = []
    for precision in precisions:
        for name in formats_of(model, precision):
            kernel, _ = kernel_for(name, precision.activation, flops)
            needs = dtype(name).compute
            if name in LIKE:
                said.append(LIKE[name])
            elif needs in UNITS and not flops.get(needs) and kernel != dtype(name).kernel:
                how = "priced as unpacked and multiplied in 16 bit (fewer bytes, no faster products)"
                said.append(f"{gpu} has no {UNITS[needs]} units: {name} weights are {how}; engines without such a kernel refuse them")
    return tuple(dict.fromkeys(said))
