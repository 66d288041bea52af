"""How many tokens decode steps make of a sequence (floor E).

Whatever turns steps into tokens, or tokens into steps, asks here.  Each group has a clock, which its decode steps move on by
their gain; when it shows T whole tokens, each of its sequences has gained T less what it showed when the sequence joined.  So
all gain the same in a step, and what is due at some count of tokens stays due there when the gain changes.
Without drafts a token is one tick of the clock and a step gains one, which is known when the engine is compiled: all of this
costs nothing then.
"""

from __future__ import annotations

from apexsim.engine.jit import inner
from apexsim.engine.types import AHEAD, DECODES, LEAVING, NOT_DECODING, World


@inner
def gain(world: World, d: int) -> int:
    """What a step moves the clock of a group of d decoding sequences on [ticks]."""
    return world.drafts.gain[d] if world.ticks != 1 else 1


@inner
def width(world: World, d: int) -> int:
    """Tokens of the step that each of a group's d decoding sequences takes up: its newest one and the drafts behind it."""
    return world.drafts.width[d] if world.ticks != 1 else 1


@inner
def shown(world: World, clock: int) -> int:
    """Tokens that a clock shows."""
    return clock // world.ticks


@inner
def steps_to(world: World, r: int, g: int, mark: int) -> int:
    """Decode steps of the group until its clock shows `mark` tokens; 0 if it does."""
    each = gain(world, world.state.busy[r, g])
    return max(0, (mark * world.ticks - world.state.clock[r, g] + each - 1) // each)


@inner
def ahead(world: World) -> bool:
    """Are steps formed while the one before them runs?"""
    return world.rules.lag == AHEAD and world.stages == 1


@inner
def decodes_in(world: World, g: int, l: int, i: int) -> bool:
    """Does request i decode in this lane of group g, or has it finished and still its seat there?"""
    work = world.work
    return work.ends[i] != NOT_DECODING and work.group[i] == g and work.lane[i] == l


@inner
def context_of(world: World, r: int, g: int, i: int) -> int:
    """Cached tokens of request i, which decodes in group g or has done so, with those of the step in flight."""
    work = world.work
    if work.ends[i] == LEAVING:
        return work.computed[i]
    joined = work.ends[i] - (world.req.output[i] - work.made[i])
    return work.computed[i] + shown(world, world.state.clock[r, g]) - joined


@inner
def settled(world: World, r: int, g: int, i: int) -> int:
    """Of these, the ones whose tokens were known when the last step was formed."""
    late = 1 if ahead(world) else 0
    if world.ticks != 1 and world.state.flying[r, g] == DECODES:
        clock = world.state.clock[r, g]
        late += shown(world, clock) - shown(world, clock - gain(world, world.state.busy[r, g])) - 1
    return context_of(world, r, g, i) - late


@inner
def cohort(world: World, context: int, shows: int) -> int:
    """Where a sequence of `context` tokens is counted when the clock shows `shows`: those that need a block at the same tokens
    are counted together, and stay so while they decode."""
    return (context + world.rules.look - shows) % world.rules.block


@inner
def blocks_of_step(world: World, r: int, g: int, l: int, clock: int) -> int:
    """Blocks that the lane's decodes need for the tokens of the step from `clock` on."""
    block, now = world.rules.block, shown(world, clock)
    at, need = (-now) % block, 0
    if world.ticks == 1:
        return world.state.residue[r, g, l, at]
    for _x in range(shown(world, clock + gain(world, world.state.busy[r, g])) - now):
        need += world.state.residue[r, g, l, at]
        at = at - 1 if at > 0 else block - 1
    return need
