"""How many tokens decode steps make of a sequence (floor E).

Whatever turns steps into tokens, or tokens into steps, asks here.  The pace is a number that is known when the engine is
compiled: at 1 all of this costs nothing.
"""

from __future__ import annotations

from apexsim.engine.jit import inner

PACE = 1  # tokens of a sequence in a decode step; a divisor of every block size


@inner
def tokens_after(steps: int) -> int:
    """Tokens that a sequence gains in so many decode steps."""
    return steps * PACE


@inner
def steps_for(tokens: int) -> int:
    """Decode steps that a sequence takes for so many tokens."""
    return (tokens + PACE - 1) // PACE


@inner
def sum_after(steps: int) -> float:
    """Tokens that a sequence has gained by the end of each of so many steps, added up."""
    return 0.5 * PACE * steps * (steps + 1)


@inner
def cohort(context: int, steps: int, block: int) -> int:
    """Where a sequence of `context` tokens at step count `steps` is counted: those that need a block in the same steps are
    counted together, and stay so while they decode."""
    return (context - tokens_after(steps)) % block


@inner
def due(steps: int, block: int) -> int:
    """The cohort that needs a block in the step from step count `steps` on."""
    return cohort(0, steps, block)


@inner
def next_due(now: int, block: int) -> int:
    """The cohort that needs one in the step after that of cohort `now`."""
    return now - PACE if now >= PACE else now - PACE + block
