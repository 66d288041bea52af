"""What a request that was thrown out finds of its own blocks, where no two share a prefix (floor E).  Modified in place.

Nobody else can have its tokens, so its blocks need no keys: it is enough to know where in the queue of free blocks it put them, and how
far the queue has been taken since.  Blocks that are given back go to the end, a request's last one first; blocks that are not full may
go to the front (`Rules.rest_first`), where they are taken before all others.  What was taken is what `State.free` has lost since the
lane was last looked at; blocks that a request took back from the middle are holes, which nobody takes.  engine/prefix.py does the same
with keys (tests/laws/test_own.py).
"""

from __future__ import annotations

import numpy as np

from apexsim.engine.jit import inner
from apexsim.engine.types import AT_ONCE, END, FRONT, HEAD, SEEN, World


@inner
def finds_own(world: World) -> bool:
    """Does who was thrown out find what is left of its blocks, without the help of keys?"""
    if world.plain == 0 or world.alone == 0:
        return False
    return world.rules.reuse == AT_ONCE


@inner
def _look(world: World, r: int, l: int) -> None:
    """Take from the queue what has been taken since the last look."""
    state = world.state
    queue, holes = state.queue[r, l], state.holes[r, l]
    taken = queue[SEEN] - state.free[r, l]
    queue[SEEN] = state.free[r, l]
    first = min(queue[FRONT], taken)
    queue[FRONT] -= first
    taken -= first
    while taken > 0:
        near, at = queue[END], np.int64(-1)
        for x in range(state.holes_size[r, l]):
            if holes[x, 0] < near:
                near, at = holes[x, 0], np.int64(x)
        if at < 0 or near - queue[HEAD] >= taken:
            queue[HEAD] += taken
            return
        taken -= near - queue[HEAD]
        queue[HEAD] = holes[at, 1]
        state.holes_size[r, l] -= 1
        last = state.holes_size[r, l]
        holes[at, 0], holes[at, 1] = holes[last, 0], holes[last, 1]


@inner
def leaves_behind(world: World, r: int, l: int, i: int, known: int, late: int, blocks: int) -> None:
    """Request i gives its blocks back, which `State.free` does not count yet.  known, late: see `prefix.go`."""
    work, state = world.work, world.state
    _look(world, r, l)
    queue, again = state.queue[r, l], known < world.req.prompt[i] + world.req.output[i] - 1
    computed = min(known, int(work.target[i]))
    full = max(known - late, computed) // world.rules.block
    queue[FRONT if world.rules.rest_first == 1 else END] += blocks - full
    queue[END] += full
    queue[SEEN] += blocks
    work.left[i] = full if again else 0
    work.left_at[i] = queue[END]


@inner
def finds(world: World, r: int, l: int, i: int) -> int:
    """Leading blocks of its own that request i finds in the lane; one token is left to compute."""
    work, state = world.work, world.state
    if work.left[i] == 0 or work.lane[i] != l or state.holes_size[r, l] >= state.holes.shape[2]:
        return 0
    _look(world, r, l)
    most = (world.req.prompt[i] + work.made[i] - 1) // world.rules.block
    return max(0, min(min(np.int64(work.left[i]), work.left_at[i] - state.queue[r, l, HEAD]), most))


@inner
def takes_back(world: World, r: int, l: int, i: int, blocks: int, target: int) -> None:
    """Request i takes them, before `State.free` counts them out; target: tokens that it will hold before it decodes."""
    work, state = world.work, world.state
    if blocks > 0:
        at = state.holes_size[r, l]
        state.holes[r, l, at, 0], state.holes[r, l, at, 1] = work.left_at[i] - blocks, work.left_at[i]
        state.holes_size[r, l] += 1
        state.queue[r, l, SEEN] -= blocks
    work.left[i], work.target[i] = 0, target
