"""Stack distances of an LRU cache: one pass says what caches of all sizes hold (floor E).

Source: R. L. Mattson et al., Evaluation techniques for storage hierarchies, IBM Systems Journal 9 (1970); the count of what lies above
by a binary indexed tree.
"""

from __future__ import annotations

from apexsim.engine.jit import outer
from apexsim.engine.types import I8


@outer
def stack_distances(ids: I8, first: I8, last: I8, tree: I8, out: I8) -> int:
    """Blocks that a cache must have for each leading part of a prompt to be in it, 0 where one of them is new.

    ids: [n] of all prompts, 0 … m−1, those of prompt r from first[r] on; last: [m] zeros, tree: [n + 1] zeros, both scratch; out: [n],
    modified in place.  A prompt is looked up as a whole and touched as a whole then, in its order.  Returns the ids in use.
    """
    size, used = tree.shape[0] - 1, 0
    for r in range(first.shape[0] - 1):
        deepest = 0
        for x in range(first[r], first[r + 1]):
            at = last[ids[x]]
            if at == 0 or deepest < 0:
                deepest = -1
            else:
                newer, y = used, at - 1
                while y > 0:
                    newer -= tree[y]
                    y -= y & -y
                deepest = max(deepest, newer)
            out[x] = max(deepest, 0)
        for x in range(first[r], first[r + 1]):
            y = last[ids[x]]
            used += 1 if y == 0 else 0
            while 0 < y <= size:
                tree[y] -= 1
                y += y & -y
            last[ids[x]] = y = x + 1
            while y <= size:
                tree[y] += 1
                y += y & -y
    return used
