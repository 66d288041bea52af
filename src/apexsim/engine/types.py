"""Everything that crosses into the engine: arrays and numbers, no models (floor E).

Letters used for shapes: R requests, N replicas, G groups (micro-batches in flight) = S stages, L lanes, W windows
(distinct attention spans), D decoding sequences, C context nodes, K = 2 kinds of step (DECODE, PROMPT).
Letters used for indices: r replica, g group, s stage, l lane, w window, i request, x whatever is counted.
Times are in seconds, lengths in tokens.  Docstrings say "modified in place" where they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
I4 = NDArray[np.int32]
I2 = NDArray[np.int16]

DECODE, PROMPT = 0, 1  # kinds of step: only decodes | holds prompt tokens
BARE, LOOSE = 2, 3  # steps that no captured graph holds, where floors are concerned: of decodes only | with prompt tokens
TIE = 1e-9  # s: an arrival this close to a step's start counts as before it
FULL = 1 << 40  # window of full attention [tokens]
INFINITY = 1e300  # s: never
FOREVER = 1 << 40  # steps: no end in sight
NOBODY = -1  # where a request would stand

# What a scheduling policy may do with blocks at admission.
ADMIT_CHUNK, ADMIT_PROMPT, ADMIT_RESERVE, ADMIT_FIT = 0, 1, 2, 3
AHEAD = 2  # lag: steps are formed while the one before them runs
# From when on a block is found by others.
NO_REUSE, AT_ONCE, WHEN_COMPUTED = range(3)
# When tiers get a block: once it is filled, or when its lane throws it out, and they lose it when it goes up again.
FILLED, EVICTED = 0, 1
# What waits for a load from a tier: the step, its end, or the request alone.
BEFORE, BESIDE, ASIDE = range(3)
# Order of the waiting queue.
FCFS, SHORTEST = 0, 1
# Where an open-loop request goes.
(ROUND_ROBIN, LEAST_OUTSTANDING, POWER_OF_TWO, LEAST_WAITING, CACHE_AWARE, SAME_START, AFFINITY, BLOCK_COST, STICKY,
 SAME_SESSION) = range(10)  # fmt: skip
# Work.ends of what does not decode; LEAVING: it has finished, and still has its seat and blocks.
NOT_DECODING, LEAVING = -1, -2
# State.flying: nothing | a step without decodes | one with decodes | the group waits for another group's results.
IDLE, PROMPTS, DECODES, ASLEEP = 0, 1, 2, -1
# Status of a simulation.
OK, LOG_FULL, STUCK = 0, 1, 2
STATUS = {OK: "finished", LOG_FULL: "gap log full", STUCK: "a request fits neither the batch nor the KV cache"}


class Rules(NamedTuple):
    """One engine's batching policy.  Numbers only, so that one compiled kernel serves all of them."""

    mix: int  # 1: prompts and decodes share a step; 0: prompt steps go first and hold no decodes
    chunk: int  # 1: a prompt may be cut to what is left of the budget
    budget: int  # tokens of one step and lane
    max_seqs: int  # running sequences of one lane
    block: int  # tokens of one KV block
    watermark: int  # blocks kept free when a prompt is admitted
    admission: int  # ADMIT_*
    preempt: int  # 1: recompute the youngest when blocks run out; 0: never needed (reserved)
    order: int  # FCFS or SHORTEST
    lag: int  # 1: a request that arrives as a step starts is seen by the next one; AHEAD: by the one after that
    poll: int  # decode steps between two looks at the queue (1 = every step)
    pad_lanes: int  # 1: every lane is padded to the busiest one
    prefill_limit: int = FULL  # prompt tokens of one step and lane that whole prompts after the first stay below
    wait: int = 0  # steps for which decodes go on alone while prompts gather (0 = none)
    wait_tokens: int = 0  # one lane: tokens of a step at which prompts need not wait; several: a prompt on each lane
    reuse: int = 0  # NO_REUSE, AT_ONCE or WHEN_COMPUTED: from when on others find a block
    rest_first: int = 0  # 1: of the blocks given back, those that are not full are the first to be taken again
    look: int = 0  # slots for tokens that a decoding sequence keeps behind its cached ones


class Drafts(NamedTuple):
    """Speculative decoding: what a step of a group with x decoding sequences makes of each, and takes up for it."""

    gain: I8  # [x] tokens that each gains [1/ticks], at least one
    width: I8  # [x] tokens of the step that each takes up: one, and its drafts


NO_DRAFTS = Drafts(np.ones(1, np.int64), np.ones(1, np.int64))
TICKS = 1000  # of a token, where sequences gain more than one in a step


class Host(NamedTuple):
    """Front-end path of a request."""

    tokenise: float  # s per prompt token, one request after the other
    request: float  # s per request, overlapping


class Costs(NamedTuple):
    """What a step costs on each stage.  Dense tables: index = tokens, sequences or nodes."""

    lane: F8  # [S, K, n] s, ops that see the tokens of one lane
    total: F8  # [S, K, n] s, ops that see the tokens of all lanes
    sample: F8  # [S, n] s, head and sampler by sampled sequences of the busiest lane
    decode: F8  # [S, W, D, C] s, decode attention of d sequences at mean context nodes[c]
    nodes: F8  # [C] tokens, ascending from 0
    locate: I8  # [x] node at or below context 16·x
    windows: I8  # [W] tokens, FULL for full attention
    prefill: F8  # [S, x] s, causal attention of one prompt of stride·x tokens from nothing
    stride: int
    prompt_base: F8  # [S] s, launch of the prompt attention kernels of a step
    floor: F8  # [S, 2K] s, a step takes at least this; BARE and LOOSE: where no graph holds it
    captured: int  # tokens of the busiest lane up to which graphs hold a step, or its parts
    add: F8  # [S, K] s, added to every step; of one with few prompt tokens a share between those of both kinds, see `ramp`
    add_seq: float  # s per sequence of the batch, on the first stage
    hop: F8  # [S] s, fixed cost of handing activations to this stage (0 for the first)
    hop_token: F8  # [S] s per token
    ramp: float = 1.0  # prompt tokens of the lane with most, from which a step is a prompt's in full; with less its share is less
    beside: float = 0.0  # decode attention in the same step as prompts takes this much longer, times that share


NONE: I8 = np.zeros(0, np.int64)
NO_DELAY: F8 = np.zeros(0)


class Requests(NamedTuple):
    """The workload: who is sent when, how much it asks, and what of it is known already.

    A request is sent at its arrival or, where it names another one, `delay` after that has finished.  Closed loop: the first
    `users` start at 0, the rest when one finishes.
    """

    arrive: F8  # [R] s, ascending
    prompt: I8  # [R]
    output: I8  # [R]
    users: int = 0  # 0 = open loop or offline; else concurrency over all replicas
    think: float = 0.0  # s between a finish and the next request of the same user
    cached: I8 = NONE  # [R] tokens of the prompt that need not be computed, fewer than it has; empty: none of any
    after: I8 = NONE  # [R] the request that must have finished, NOBODY; empty: nobody waits for another
    delay: F8 = NO_DELAY  # [R] s from that finish on
    # Equal ids of a chain say: equal tokens from the first one of the request on, its output's among them.
    chain: I8 = NONE  # ids ≥ 0 of all requests one after the other, one per `unit` tokens; empty: no two share a prefix
    chain_at: I8 = NONE  # [R] where those of each begin
    reach: I8 = NONE  # [R] tokens that they cover, as far as another request may have them
    unit: int = 1
    join: I8 = NONE  # requests that wait for others beside the one that `after` names, once for each of these …
    join_after: I8 = NONE  # … ascending: whom
    join_delay: F8 = NO_DELAY  # … s from that finish on; who waits for several is sent when all of them have let it go
    stage: I8 = NONE  # first requests of the stages but the first: arrivals count from the last finish of the stage before


class Route(NamedTuple):
    """Where requests go; in turn, users of a closed loop stay with their replica."""

    kind: int = ROUND_ROBIN  # or one that follows it
    age: float = 0.0  # s from one look at the replicas to the next; 0: a look for every request
    near: float = 0.8  # AFFINITY: share of the prompt that a replica has to have
    late: float = 5.0  # AFFINITY: s that it may be behind the best of the others
    explore: float = 0.01  # AFFINITY: share of requests for which every replica will do
    peak: float = INFINITY  # AFFINITY: prompt tokens/s of a replica that does nothing else


IN_TURN = Route()


class Signals(NamedTuple):
    """What the router knows of the replicas: what it saw at its last look, and what it has sent since; modified in place."""

    look: F8  # [1] s, its last look
    load: I8  # [N] requests sent and not finished
    running: I8  # [N] of them, those that run
    blocks: I8  # [N] blocks that are held
    tokens: I8  # [N] that it has to compute for them, until their first token
    hit: I8  # [N] tokens that each has of a prompt
    waiting: I8  # [R] requests whose first token it has not seen; empty where the route does not ask
    count: I8  # [1] of them
    rest: I8  # [R] tokens that each had to compute when it was sent


class Work(NamedTuple):
    """Per-request results and scratch, modified in place."""

    sent: F8  # [R] s, when the client sent it
    seen: F8  # [R] s, when the scheduler could first see it
    start: F8  # [R] s, start of the first step that worked on it
    first: F8  # [R] s, first token
    finish: F8  # [R] s, last token; until then, where it joined or was thrown out: the last one before that
    made: I4  # [R] tokens generated before the current stay
    computed: I4  # [R] prompt tokens that are known in the current stay: cached or computed; its context when it joins, and at its end
    ends: I4  # [R] tokens that the clock of its group shows when it finishes, NOT_DECODING, LEAVING
    preempted: I4  # [R] times
    left: I4  # [R] full blocks that it left in the queue of free ones when it was thrown out
    left_at: I8  # [R] place behind the first of them
    target: I4  # [R] tokens that it holds before it decodes in its current stay; where blocks have no keys
    next: I4  # [R] linked list of the waiting queue; before it is sent: of those that wait for the same request
    replica: I4  # [R]
    group: I2  # [R]
    lane: I2  # [R]
    heir: I4  # [R] the first that waits for it, NOBODY; empty: nobody waits for another
    joins_at: I8  # [R + 1] where in `join` those begin that wait for each request; empty: nobody waits for several
    lacks: I4  # [R] requests that it waits for and that have not finished
    ready: F8  # [R] s, when those that have finished let it go
    due: F8  # [R] s, heap of those that are sent once what they waited for has finished
    due_req: I8  # [R]
    due_size: I8  # [1]
    opened: I8  # [1] stages that have begun, but for the first
    begun: F8  # [1] s, when the last of them did


# Columns of State.front: front end is free | requests seen by then have been read from the queue | last step began.
FRONT_FREE, READ_UNTIL, BEGAN = range(3)
# Columns of State.queue: free blocks in front of it | places at its end up to which blocks are taken | … are there | State.free then.
FRONT, HEAD, END, SEEN = range(4)
# Columns of State.phase: decode steps since the queue was last read | steps for which prompts have waited for company.
SINCE_READ, WAITED = range(2)
# Rows of State.fresh: prompts that end in the step in flight | AHEAD: finished, seat and blocks not yet free.
FRESH, GONE = range(2)
# Columns of State.cohort: last token [s] | sequences.
SINCE, COUNT = range(2)
# Columns of Log.gaps and State.segment, an open row of it: first gap [s] | growth per step [s] | steps | sequences.
FIRST, SLOPE, STEPS, WEIGHT = range(4)
# Columns of State.line: as above for the next step, its attention, host and hop [s].
ATTENTION, HOST, HOP = range(2, 5)
# Columns of State.group_plan: steps left | this line holds for | done on it | sequences, padded | in truth | of the busiest lane.
LEFT, PIECE, DONE, TOTAL, SEQS, WIDEST = range(6)
# Places of Log.counts: used gaps | used timeline rows | events per timeline row | events since the last row.
GAPS, ROWS, STRIDE, EVENTS = range(4)


class State(NamedTuple):
    """Per-replica state, modified in place.  First axis: replica."""

    ready: F8  # [N, G] s, results of the group's last step are known
    avail: F8  # [N, S] s, stage is free
    front: F8  # [N, 3] s, see FRONT_FREE
    flying: I8  # [N, G] IDLE, PROMPTS, DECODES, ASLEEP
    clock: I8  # [N, G] tokens that decode steps have made of a sequence since the beginning [ticks]
    phase: I8  # [N, G, 2] see SINCE_READ
    decoding: I8  # [N, G, L]
    busy: I8  # [N, G] the same over all lanes
    context: I8  # [N, G, L, W] sum of min(context, window) [ticks]; of those below the window with the clock's broken token
    growing: I8  # [N, G, L, W] sequences still below the window
    heap_key: I8  # [N, G, L, cap] what the clock shows when it finishes
    heap_req: I8  # [N, G, L, cap]
    heap_size: I8  # [N, G, L]
    cross_key: I8  # [N, G, L, W, cap] what the clock shows when it fills the window
    cross_req: I8  # [N, G, L, W, cap]
    cross_size: I8  # [N, G, L, W]
    residue: I8  # [N, G, L, block] sequences by their cohort (pace.cohort)
    stack: I8  # [N, G, L, 2·cap] decoding sequences, oldest first, with stale entries
    stack_size: I8  # [N, G, L]
    fresh: I8  # [N, G, L, 2, cap] see FRESH
    fresh_size: I8  # [N, G, L, 2]
    running: I8  # [N, L] sequences admitted and not finished
    partial: I8  # [N, L] prompt that is partly computed, NOBODY
    free: I8  # [N, L] blocks
    queue: I8  # [N, L, 4] free blocks, see FRONT
    holes: I8  # [N, L, h, 2] places from, to: blocks that were taken back from the middle of it
    holes_size: I8  # [N, L]
    head: I8  # [N] waiting queue, NOBODY
    tail: I8  # [N]
    unsent: I8  # [N] closed loop: next request of this replica; where its users belong to none the first is that of all
    sorted_key: I8  # [N, q] SHORTEST: heap of visible requests
    sorted_req: I8  # [N, q]
    sorted_size: I8  # [N]
    outstanding: I8  # [N] routed and not finished
    cohort: F8  # [N, G, m, 2] sequences that wait for their next decode step, see SINCE
    cohort_size: I8  # [N, G]
    tokens: I8  # [N, L] prompt tokens of the step being formed
    closed: I8  # [N, L] 1 = the lane admits no more in this step
    would: I8  # [N, L] prompts that the lane would get if prompts started now
    needs: I8  # [N, L] blocks that the lane's decodes need for the step being formed
    attention: F8  # [N, S, L] s, prompt attention of the step being formed
    decoded: F8  # [N, G] s, end of the group's last step with decodes
    lines: F8  # [N, L, 2] decode attention of each lane's next steps [s], see FIRST
    line: F8  # [N, G, S, 5] several stages: price of the next steps, see FIRST and ATTENTION
    group_plan: I8  # [N, G, 6] several stages: see LEFT
    segment: F8  # [N, G, 4] several stages: open row of the gap log, see FIRST


class BlockPool(NamedTuple):
    """KV blocks with what they hold, where prompts share prefixes; modified in place.  B blocks of a lane, K buckets.

    An entry is a block with a key, or in the queue any number of blocks without (engine/prefix.py).
    """

    key: I8  # [N, L, B] what an entry is found by, −1
    younger: I4  # [N, L, B] next entry in its bucket
    bucket: I4  # [N, L, K] K a power of 2
    held: I4  # [N, L, B] by so many requests
    count: I4  # [N, L, B] blocks of an entry without a key
    before: I4  # [N, L, B + 1] in the queue of free blocks, a ring; the last one closes it
    behind: I4  # [N, L, B + 1]
    size: I8  # [N, L] blocks in the queue
    spare: I4  # [N, L, B] entries that are not used, a stack
    spares: I8  # [N, L] of them
    own: I4  # [N, L, B] the entry before it of the request that named it
    tail: I4  # [R] last entry that the request named, NOBODY
    has: I4  # [R] blocks, those that it found among them
    hit: I4  # [R] blocks that it found in its current stay
    named: I4  # [R] leading blocks that have keys
    first_hit: I4  # [R] tokens that it found when it first started
    target: I4  # [R] tokens that it has to hold before it decodes in its current stay
    hope: I8  # [N] 1: what the first waiting request misses, a decoding one will have


class Offload(NamedTuple):
    """Tiers behind the KV blocks of a lane, the nearest first."""

    blocks: I8  # [T] that each has room for
    latency: F8  # [T] s, of a load
    block: F8  # [T] s per block
    write: int  # FILLED or EVICTED
    load: int  # BEFORE, BESIDE or ASIDE
    prompts: int  # 1: only blocks of prompts are kept, not those of answers


class Tiers(NamedTuple):
    """The same with what they hold; modified in place."""

    count: int  # T
    write: int
    load: int
    prompts: int
    pool: BlockPool  # its lanes are tiers: lane · T + tier
    latency: F8  # [T]
    block: F8  # [T]
    free: F8  # [N] s, when the last load that waits aside has ended
    seconds: F8  # [N] s, loads of the step being formed
    key: F8  # [N, q] s, heap of requests that wait aside: when they have their blocks
    req: I8  # [N, q]
    size: I8  # [N]
    asked: I4  # [R] 1: its blocks are on their way, or have come
    loaded: I4  # [R] tokens that it loaded when it first started


class Log(NamedTuple):
    """What the run leaves behind besides the requests, modified in place."""

    gaps: F8  # [m, 4] inter-token gaps, see FIRST
    counts: I8  # [4] see GAPS
    hist: I8  # [N, K, n] steps by tokens of all lanes
    hist_lane: I8  # [N, K, n] steps by tokens of the busiest lane (only if L > 1)
    sums: F8  # [N, SUMS]
    read: F8  # [N, 2, W] tokens of context attended by decodes | by prompts
    timeline: F8  # [m, 5] s, replica, sequences in the step, blocks used, prompt tokens


SUM_NAMES = (
    "decode_attention_s", "prefill_attention_s", "sample_s", "host_s", "floor_s", "hop_s", "busy_s",
    "decode_steps", "prompt_steps", "decode_tokens", "prompt_tokens", "sampled", "preemptions", "load_s",
)  # fmt: skip
(S_DECODE, S_PREFILL, S_SAMPLE, S_HOST, S_FLOOR, S_HOP, S_BUSY, S_DSTEPS, S_PSTEPS, S_DTOKENS, S_PTOKENS, S_SAMPLED,
 S_PREEMPT, S_LOAD) = range(len(SUM_NAMES))  # fmt: skip


def pool_of(replicas: int, lanes: int, blocks: int, requests: int) -> BlockPool:
    """All blocks free and empty: one entry in the queue."""
    shape = (replicas, lanes, blocks)
    buckets = 1 << max(1, 2 * blocks - 1).bit_length()
    each = np.zeros((6, requests), np.int32)
    count, ring = np.zeros(shape, np.int32), np.zeros((2, replicas, lanes, blocks + 1), np.int32)
    count[..., :1], ring[..., :1] = blocks, blocks
    spare = np.broadcast_to(np.arange(blocks - 1, -1, -1, dtype=np.int32), shape).copy()  # 0 is in the queue
    return BlockPool(
        key=np.full(shape, NOBODY, np.int64),
        younger=np.full(shape, NOBODY, np.int32),
        bucket=np.full((replicas, lanes, buckets), NOBODY, np.int32),
        held=np.zeros(shape, np.int32),
        count=count,
        before=ring[0],
        behind=ring[1],
        size=np.full((replicas, lanes), blocks, np.int64),
        spare=spare,
        spares=np.full((replicas, lanes), max(0, blocks - 1), np.int64),
        own=np.full(shape, NOBODY, np.int32),
        tail=each[0],
        has=each[1],
        hit=each[2],
        named=each[3],
        first_hit=each[4],
        target=each[5],
        hope=np.zeros(replicas, np.int64),
    )


NO_POOL = pool_of(0, 0, 0, 0)
NO_OFFLOAD = Offload(NONE, NO_DELAY, NO_DELAY, FILLED, BEFORE, 0)


def tiers_of(offload: Offload, replicas: int, lanes: int, requests: int) -> Tiers:
    """All tiers empty; those without room are left out."""
    room = np.flatnonzero(offload.blocks > 0)
    blocks, count = offload.blocks[room], len(room)
    largest = int(blocks.max(initial=0))
    pool = pool_of(replicas, lanes * count, largest, 0)
    if count:
        pool.count[..., 0], pool.size[...] = np.tile(blocks, lanes), np.tile(blocks, lanes)
    waiting = requests if count and offload.load == ASIDE else 0
    each = np.zeros((2, requests if count else 0), np.int32)
    return Tiers(
        count,
        offload.write,
        offload.load,
        offload.prompts,
        pool,
        offload.latency[room],
        offload.block[room],
        np.zeros(replicas),
        np.zeros(replicas),
        np.zeros((replicas, waiting)),
        np.zeros((replicas, waiting), np.int64),
        np.zeros(replicas, np.int64),
        each[0],
        each[1],
    )


NO_TIERS = tiers_of(NO_OFFLOAD, 0, 0, 0)

LOCAL = 8  # Hand.stage of a request that the last pool serves from its first token on: it passes no other
# Columns of Hand.queue: those that ask for a place | those whose cache has come | those whose first token this step makes.
ASKING, LANDED, NEW = range(3)


class Hand(NamedTuple):
    """Requests that pass from this pool to the next one or come from the one before; modified in place."""

    stage: I8  # [R] what happens to it next, see engine/handover; one array of all pools
    next: I4  # [R] linked lists of the queues: a request stands in one of them at most
    head: I8  # [N, 3] see ASKING; NOBODY
    tail: I8  # [N, 3]
    booked: I8  # [N, L] requests that hold a place: taken in and not finished
    slots: int  # places of a lane
    seated: int  # 1: who is taken in needs a free seat as well, though it does not take it yet
    keeps: int  # 1: blocks of what has finished stay taken until they have been sent


def hand_of(replicas: int, lanes: int, requests: int, slots: int, seated: int, keeps: int) -> Hand:
    """Nobody on the way."""
    queue = np.full((2, replicas, 3), NOBODY, np.int64)
    return Hand(
        np.zeros(requests, np.int64),
        np.full(requests, NOBODY, np.int32),
        queue[0],
        queue[1],
        np.zeros((replicas, lanes), np.int64),
        slots,
        seated,
        keeps,
    )


NO_HAND = hand_of(0, 0, 0, 0, 0, 0)


def signals_of(replicas: int, requests: int) -> Signals:
    """Nothing seen yet."""
    each = np.zeros((5, replicas), np.int64)
    sent = np.zeros((2, requests), np.int64)
    return Signals(
        look=np.full(1, -INFINITY),
        load=each[0],
        running=each[1],
        blocks=each[2],
        tokens=each[3],
        hit=each[4],
        waiting=sent[0],
        count=np.zeros(1, np.int64),
        rest=sent[1],
    )


class World(NamedTuple):
    """All that a run needs: the one argument of nearly every function here (by reference, see engine/ref.py)."""

    req: Requests
    work: Work
    state: State
    rules: Rules
    host: Host
    costs: Costs
    log: Log
    capacity: int  # KV blocks of one lane
    replicas: int
    stages: int  # and groups
    lanes: int
    windows: int
    route: Route
    signals: Signals
    jump: bool  # False: every decode step by itself
    pool: BlockPool = NO_POOL
    tiers: Tiers = NO_TIERS
    plain: int | None = None  # 0: prompts share prefixes, and blocks are kept in the pool
    hand: Hand = NO_HAND
    alone: int | None = None  # 0: it is one of several pools that requests pass
    drafts: Drafts = NO_DRAFTS
    ticks: int = 1  # of the groups' clocks in a token: 1 without drafts
