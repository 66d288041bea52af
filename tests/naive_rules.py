"""What the twin (naive.py) gives a waiting request: tokens and blocks, by the rules."""

from __future__ import annotations

from apexsim.engine.types import ADMIT_CHUNK, ADMIT_FIT, ADMIT_RESERVE, Rules
from naive_records import Sequence


def ceil_div(a: int, b: int) -> int:
    """⌈a/b⌉."""
    return -(-a // b)


def grant(rules: Rules, x: Sequence, left: int, tokens: int, free: int, seats: int, empty: bool) -> int:
    """Tokens the request would get in a lane, 0 if it cannot be admitted.

    Of the lane: left of its budget, prompt tokens in the step, free blocks, free seats, nothing admitted.
    """
    rest = x.target - x.computed
    q = min(left, rest) if rules.chunk else rest
    alone = rest > rules.budget and tokens == 0
    if seats < 1 or q < 1 or (q > left and not alone):
        return 0
    if tokens > 0 and tokens + rest >= rules.prefill_limit:
        return 0
    spare = 0 if empty or rules.admission == ADMIT_RESERVE else rules.watermark
    must_fit = rest if rules.admission == ADMIT_FIT else q
    return q if blocks_at_admission(rules, x, must_fit) + spare <= free else 0


def blocks_at_admission(rules: Rules, x: Sequence, q: int) -> int:
    """KV blocks it holds from its admission on, but for those that others hold too."""
    if rules.admission == ADMIT_RESERVE:
        return ceil_div(x.prompt + x.output, rules.block) - x.shared
    return ceil_div(room_after(rules, x, q), rules.block) - x.shared


def room_after(rules: Rules, x: Sequence, q: int) -> int:
    """Tokens that it has room for once q more of its prompt are in a step: with the last of them, also for what stands behind."""
    if not by_chunk(rules):
        return x.target + rules.look
    return x.computed + q + (rules.look if x.computed + q == x.target else 0)


def by_chunk(rules: Rules) -> bool:
    """Blocks are taken chunk by chunk."""
    return rules.admission in (ADMIT_CHUNK, ADMIT_FIT)
