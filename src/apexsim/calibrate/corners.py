"""Which runs tell most: a short and a long prompt, each at the lowest and the highest load (floor 5).

Where several layouts are served, the four lie on different ones: what layouts have in common is what a system's factors mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apexsim.calibrate.points import RunPoint
from apexsim.plan.memory import Room
from apexsim.plan.plan import Plan

NEAR = 0.05  # of the range: farther from a corner by so much than the nearest is as good
SHORT, LONG, ANSWER = 1024, 8192, 256  # tokens of the designed points; answers as short as TPOT allows
MOST_USERS, FEWEST = 128, 10  # of the highest load; requests of a run
TURNS = 5  # requests of each user
ALIKE = 2.0  # prompts and loads within this factor are one corner


@dataclass(frozen=True, slots=True)
class Shape:
    """A run to measure: tokens and users."""

    prompt: int
    output: int
    users: int

    @property
    def requests(self) -> int:
        """How many."""
        return max(FEWEST, TURNS * self.users)


def corners(points: Sequence[RunPoint]) -> list[RunPoint]:
    """The four points of a set that lie nearest to its corners, on
    different layouts where several are as near; fewer where they coincide."""
    places = places_of(points)
    low, high = places.min(axis=0), places.max(axis=0)
    wide, taken = np.where(high > low, high - low, 1.0), list[int]()
    for corner in ([x, y] for x in (low[0], high[0]) for y in (low[1], high[1])):
        far = np.hypot(*((places - corner) / wide).T)
        near = [i for i in np.flatnonzero(far <= far.min() + NEAR).tolist() if i not in taken]
        used = [points[i].plan.shorthand for i in taken]
        taken += sorted(near, key=lambda i: (used.count(points[i].plan.shorthand), far[i], i))[:1]
    return [points[i] for i in taken]


def places_of(points: Sequence[RunPoint]) -> NDArray[np.float64]:
    """[n, 2] log mean prompt and log load of each; loads are compared by users, or by rate, as given."""
    return np.array([[math.log(point.prompt), math.log(max(point.load[1], 1e-9))] for point in points])


def designed(plan: Plan, room: Room, longest: int) -> list[Shape]:
    """The four runs for a plan: users from one on each attention lane up to what its cache holds; longest: of the model [tokens]."""
    output = min(ANSWER, max(2, longest // 4))
    prompts = [min(prompt, max(1, longest - output)) for prompt in (SHORT, LONG)]
    lowest, found = plan.replicas * plan.attention.dp, list[Shape]()
    for prompt in dict.fromkeys(prompts):
        holds = plan.replicas * plan.attention.dp * room.blocks * room.block_size // (prompt + output)
        highest = 1 << int(math.log2(max(1, min(MOST_USERS, holds))))
        found += [Shape(prompt, output, users) for users in dict.fromkeys((lowest, max(lowest, highest)))]
    return found


def missing(shapes: Sequence[Shape], points: Sequence[RunPoint]) -> list[Shape]:
    """Those of the designed runs that no measured run is like."""
    there = [(point.prompt, point.load[1]) for point in points if point.load[0] == "users"]
    return [shape for shape in shapes if not any(_alike(shape.prompt, p) and _alike(shape.users, u) for p, u in there)]


def _alike(one: float, other: float) -> bool:
    return 1.0 / ALIKE <= one / other <= ALIKE
