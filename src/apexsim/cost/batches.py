"""Tables of steps whose number of drafts follows their sequences (floor 3)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from apexsim.engine.types import DECODE, Costs


def by_sequences(made: Mapping[int, Costs], drafts: NDArray[np.int64], lanes: int) -> Costs:
    """One set of tables of several: made[k] are those of steps with k drafts of each sequence, on the same axes; drafts[d]: how many there
    are with d sequences of a lane.

    What sequences cost is looked up by their number, what tokens cost by theirs: d sequences have d·(k + 1).  Where two numbers of
    sequences have the same tokens the larger one's stands; they differ by what they are padded to.  Prompts do not know of drafts."""
    most = made[max(made)]
    sample, decode, lane, total = (table.copy() for table in (most.sample, most.decode, most.lane, most.total))
    of = drafts[: sample.shape[1]]
    for d in range(1, len(of)):
        costs, tokens = made[int(of[d])], d * (int(of[d]) + 1)
        sample[:, d], decode[:, :, d] = costs.sample[:, d], costs.decode[:, :, d]
        for table, own, n in ((lane, costs.lane, tokens), (total, costs.total, tokens * lanes)):
            if n < table.shape[2]:
                table[:, DECODE, n] = own[:, DECODE, n]
    captured = max(costs.captured for costs in made.values())
    return most._replace(sample=sample, decode=decode, lane=lane, total=total, captured=captured)
