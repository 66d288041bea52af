"""How well the attention tables continue beyond their measured diagonal: their outer cells left out and predicted.

    python scripts/holdout_attention.py [SYSTEM …]

Of every measured shape (each third one) the cells whose work (batch × length) exceeds a quarter, or a sixteenth, of the largest
are hidden; the holes are filled by holding the utilisation along the length (grid.fill) and by grid.continued, and compared
with what was hidden.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from apexsim.cost import attention
from apexsim.cost.grid import continued, fill
from apexsim.cost.kernels import Tables, systems
from apexsim.cost.surface import Surface

SHARES = (4, 16)
LEAST = {"decode": 64, "prefill": 2}  # batches judged


def surfaces(names: list[str]) -> Iterator[tuple[str, str, Surface]]:
    """Every attention surface of the systems, with its family and its phase."""
    for name in names:
        tables = Tables(name)
        for family in ("attention", "mla"):
            for key in tables.keys(family):
                yield family, key[0], attention.surface_of(tables.table(family, key), tables.peaks, family)


def errors(surface: Surface, phase: str, row: int, share: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Logarithmic errors of the hidden cells, held and continued; None where too little is measured."""
    seconds, (batches, length) = surface.seconds[row], surface.sizes
    batch = batches[:, None]
    known = ~np.isnan(seconds)
    work = batch * length[None, :]
    if known.sum() < 30:
        return None
    top = work[known].max() / share
    judged = known & (work > top) & (batch >= LEAST[phase])
    left = np.where(work > top, np.nan, seconds)
    if judged.sum() < 2 or np.isnan(left).all():
        return None
    best = surface.best(surface.shape((row,)), batch, length[None, :])
    made = best / fill(best / left)[0], continued(left, best)[0]
    held, line = (np.log(x[judged] / seconds[judged]) for x in made)
    return held, line


def main() -> None:
    """Print medians, p90 and bias by family."""
    found = defaultdict(list)
    for family, phase, surface in surfaces(sys.argv[1:] or [s for s in systems() if s not in ("b60", "v100_pcie")]):
        for row in range(0, len(surface.shapes), 3):
            for share in SHARES:
                both = errors(surface, phase, row, share)
                for name, values in zip(("held", "continued"), both or ()):
                    found[f"{family}, {phase}", share, name].append(values)
    for (label, share, name), parts in sorted(found.items()):
        e = np.concatenate(parts)
        print(f"{label:22s} beyond 1/{share:<3d} {name:10s} n={len(e):6d}  median {np.median(abs(e)):6.1%}  "
              f"p90 {np.quantile(abs(e), 0.9):6.1%}  bias {np.median(e):+6.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
