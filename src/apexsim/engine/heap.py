"""A binary heap of (key, request) in two arrays (floor E).  Modified in place; sizes are kept by the caller."""

from __future__ import annotations

from apexsim.engine.jit import inner
from apexsim.engine.types import F8, I8

Keys = F8 | I8


@inner
def push(key: Keys, req: I8, size: int, k: float, r: int) -> None:
    """Insert (k, r) into a heap of `size` entries; ties are ordered by request."""
    i = size
    while i > 0:
        up = (i - 1) >> 1
        if key[up] < k or (key[up] == k and req[up] <= r):
            break
        key[i] = key[up]
        req[i] = req[up]
        i = up
    key[i] = k
    req[i] = r


@inner
def pop(key: Keys, req: I8, size: int) -> None:
    """Remove the smallest entry of a heap of `size` entries."""
    last = size - 1
    k, r = key[last], req[last]
    i = 0
    while True:
        c = 2 * i + 1
        if c >= last:
            break
        if c + 1 < last and (key[c + 1] < key[c] or (key[c + 1] == key[c] and req[c + 1] < req[c])):
            c += 1
        if k < key[c] or (k == key[c] and r <= req[c]):
            break
        key[i] = key[c]
        req[i] = req[c]
        i = c
    key[i] = k
    req[i] = r


@inner
def drop(key: Keys, req: I8, size: int, r: int) -> int:
    """Take request r, if it is there, out of a heap of `size` entries.  Returns the new size."""
    n = 0
    for x in range(size):
        k, i = key[x], req[x]
        if i != r:
            push(key, req, n, k, i)
            n += 1
    return n
