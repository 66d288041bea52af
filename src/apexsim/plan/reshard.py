"""What moves between two cells that are split differently (floor 2).

Devices of a stage are numbered replica by replica: device d belongs to replica d // width of a cell whose replicas are
`width = tp × ep` wide.  The tokens of the stage lie in device order, so replica i of a cell with dp replicas holds the
i-th of dp equal parts.  Three rules cover every pair of layouts, also where neither replica count divides the other:

1. partial sums are reduced and scattered inside the left cell's replica: device d holds the d-th of all parts;
2. slicing what a device already has is free;
3. what is too fine is gathered inside the right cell's replica.

Rules 1 and 3 over the same group are one all-reduce.  Whole results (no partial sums) skip rule 1 and are gathered
across the replicas that hold different tokens, a stride apart: the stride tells which link is crossed.

Ignored: tokens that do not divide evenly are padded by engines; here parts are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

from apexsim.model.ops import Axis, Collective
from apexsim.plan.plan import Layout
from apexsim.plan.templates import TEMPLATES, Template


@dataclass(frozen=True, slots=True)
class Reshuffle:
    """One collective of `group` devices `stride` apart.

    The full tensor holds the tokens of one replica of a cell with `dp` replicas: 1/dp of all tokens.
    """

    kind: str  # all_reduce, reduce_scatter, all_gather
    group: int
    stride: int
    dp: int


def width(layout: Layout) -> int:
    """Devices of one replica of a cell."""
    return layout.tp * layout.ep


def transition(left: Layout, right: Layout, left_partial: bool = True) -> tuple[Reshuffle, ...]:
    """The collectives between the output of a cell laid out as `left` and the input of one laid out as `right`.

    Left: each replica holds its share of the tokens at full hidden size; partial sums over tp × ep devices if
    `left_partial`, else equal copies.  Right: every device needs all tokens of its replica, summed.
    """
    assert left.devices == right.devices, "both cells share one stage's devices"
    if left_partial:
        return _reduced(left, right)
    if right.dp % left.dp == 0:
        return ()
    if left.dp % right.dp == 0:
        return (Reshuffle("all_gather", left.dp // right.dp, width(left), right.dp),)
    return (Reshuffle("all_gather", width(right), 1, right.dp),)


def _reduced(left: Layout, right: Layout) -> tuple[Reshuffle, ...]:
    """Rules 1 and 3 for partial sums; a group of one device moves nothing."""
    moves: tuple[Reshuffle, ...]
    if left.dp == right.dp:
        moves = (Reshuffle("all_reduce", width(left), 1, left.dp),)
    else:
        moves = (Reshuffle("reduce_scatter", width(left), 1, left.dp), Reshuffle("all_gather", width(right), 1, right.dp))
    return tuple(move for move in moves if move.group > 1)


def layer_collectives(
    attention: Layout,
    ffn: Layout,
    parallel: bool,
    bytes_per_token: float,
    mixer: Template = TEMPLATES["heads"],
    feed: Template = TEMPLATES["columns"],
    copies: float = 1.0,
) -> tuple[Collective, ...]:
    """All collectives of one block: attention → FFN → the next block's attention.

    bytes_per_token: hidden size × bytes of an activation [byte]; copies: ranks that a token is sent to where `feed`
    exchanges tokens (see `expected_copies`).  A parallel block adds both partial sums before one shared reduction if
    the cells are split alike; if not, each cell needs its own scatter and gather, as in sequence.
    """
    if feed.exchange:
        return _exchange(attention, ffn, bytes_per_token, mixer, feed, copies)
    there = transition(attention, ffn, mixer.leaves == "partial")
    back = transition(ffn, attention, feed.leaves == "partial")
    if parallel and attention.dp == ffn.dp:
        there = ()
    return _priced(there + back, attention, bytes_per_token)


def _exchange(
    attention: Layout, ffn: Layout, bytes_per_token: float, mixer: Template, feed: Template, copies: float
) -> tuple[Collective, ...]:
    """Attention → one part of the tokens per device → dispatch → experts → combine → attention."""
    spread = Layout(dp=attention.devices)
    there = transition(attention, spread, mixer.leaves == "partial")
    back = transition(spread, attention, left_partial=False)
    sent = Collective(feed.exchange, feed.exchange, bytes_per_token * copies, width(ffn), 1, Axis.TOTAL, ffn.dp)
    return (
        *_priced(there, attention, bytes_per_token),
        *((sent, sent) if sent.group > 1 else ()),
        *_priced(back, attention, bytes_per_token),
    )


def _priced(moves: tuple[Reshuffle, ...], attention: Layout, bytes_per_token: float) -> tuple[Collective, ...]:
    """Moves as ops; those inside an attention lane grow with the lane's tokens, the others with all tokens."""
    ops = []
    for move in moves:
        own = move.dp == attention.dp > 1
        axis, split = (Axis.LANE, 1) if own else (Axis.TOTAL, move.dp)
        ops.append(Collective(move.kind, move.kind, bytes_per_token, move.group, move.stride, axis, split))
    return tuple(ops)


def expected_copies(experts: int, top_k: int, ranks: int) -> float:
    """Mean number of distinct ranks that hold the top_k experts of a token.

    ranks · (1 − C(E − E/ranks, k) / C(E, k)): experts drawn evenly without repetition, E/ranks on each rank.  Libraries
    that send one copy per rank move this; those that send one per expert move top_k.
    """
    outside = experts - experts // ranks
    return ranks * (1.0 - comb(outside, top_k) / comb(experts, top_k))
