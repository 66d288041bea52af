"""The slow, obvious twin of the engine, written from docs/mechanisms.md alone.

Objects and lists, one step at a time, no jumps and no shared code with the engine: where the two disagree, one of
them, or the page, is wrong.  It records every token and every step, so that laws can be read off its result.
"""

from __future__ import annotations

from itertools import pairwise

import naive_price
import naive_route
import naive_rules
from apexsim.engine.types import (
    ADMIT_RESERVE,
    AHEAD,
    ASIDE,
    AT_ONCE,
    IN_TURN,
    NO_DRAFTS,
    NO_OFFLOAD,
    SHORTEST,
    TICKS,
    TIE,
    Costs,
    Drafts,
    Host,
    Offload,
    Requests,
    Route,
    Rules,
)
from naive_prefix import Pool
from naive_records import NEVER, Chunk, Group, Lane, Naive, Sequence, Step


class Replica:
    """One copy of the model with its queue, lanes and groups."""

    passed_on = False  # it is of one of several pools

    def __init__(self, number: int, world: World, stages: int, lanes: int, blocks: int) -> None:
        self.number, self.world = number, world
        self.rules, self.costs = world.rules, world.costs
        self.groups = [Group(g) for g in range(stages)]
        self.lanes = [Lane(blocks) for _ in range(lanes)]
        if self.rules.reuse and len(world.requests.chain):
            for lane in self.lanes:
                lane.pool = Pool(blocks, self.rules, world.requests, world.offload)
        self.stage_free = [0.0] * stages
        self.waiting: list[Sequence] = []
        self.returned: list[Sequence] = []  # thrown out, go before the others
        self.aside: list[tuple[float, int, Sequence]] = []  # they wait for blocks from a tier until then
        self.link_free = 0.0
        self.front_free = 0.0
        self.read_until = 0.0  # requests seen by then have been read
        self.halfway = False  # a prompt was half computed when the step began to be formed
        self.thrown = False  # a sequence was thrown out for the step that is being formed
        self.ahead = world.rules.lag == AHEAD and stages == 1
        self.unsent: list[Sequence] = []
        self.outstanding = 0

    # --- requests come -------------------------------------------------------------------------------------------

    def send(self, x: Sequence, t: float) -> None:
        """The client sends; the front end tokenises one after the other."""
        self.front_free = max(self.front_free, t) + self.world.host.tokenise * x.prompt
        x.sent, x.seen = t, self.front_free + self.world.host.request
        x.replica, x.target, x.computed = self.number, x.prompt, x.cached
        self.outstanding += 1
        self.waiting.append(x)

    def finish(self, x: Sequence, t: float) -> None:
        """The request has all its tokens, for which a closed-loop user, or other requests, may have waited."""
        self.lanes[x.lane].leaving.append(x)
        if not self.ahead:
            self.let_go(x)
        self.outstanding -= 1
        if self.unsent:
            self.send(self.unsent.pop(0), t + self.world.requests.think)
        self.world.call(x, t)

    def let_go(self, x: Sequence, late: int = 0) -> None:
        """Seat and blocks of a finished request are free."""
        lane = self.lanes[x.lane]
        lane.leaving.remove(x)
        self.give_back(x, x.prompt + x.output - 1 - late, False)

    def give_back(self, x: Sequence, known: int, again: bool) -> None:
        """Its seat and blocks, which hold `known` tokens."""
        lane = self.lanes[x.lane]
        lane.free += x.held
        if lane.pool:
            lane.pool.go(x, known, again)
            lane.free = len(lane.pool.free)
        lane.admitted -= 1
        x.held = 0

    def let_all_go(self) -> None:
        """Whatever has finished."""
        for x in [x for lane in self.lanes for x in lane.leaving]:
            self.let_go(x)

    # --- time ----------------------------------------------------------------------------------------------------

    def next_act(self) -> tuple[float, bool, Group | None]:
        """When it acts next, whether that is a start, which counts as TIE later than it is, and of which group."""
        chosen, start = self.next_start()
        flying = [g for g in self.groups if g.flight is not None]
        landing = min(flying, key=lambda g: (g.ready, g.number), default=None)
        if landing is not None and landing.ready <= start:
            return landing.ready, False, landing
        return start + TIE, True, chosen

    def act(self) -> None:
        """Settle a step, or start one."""
        _, starts, group = self.next_act()
        assert group is not None
        if starts:
            self.begin(group, self.could_start(group))
        else:
            self.settle(group)

    def next_start(self) -> tuple[Group | None, float]:
        """The group that may start first, and when."""
        free = [(self.could_start(g), g.ready, g.number) for g in self.groups if not (g.flight or self.sleeps(g))]
        best = min(free, default=(NEVER, 0.0, -1))
        return (self.groups[best[2]], best[0]) if best[0] < NEVER else (None, NEVER)

    def sleeps(self, g: Group) -> bool:
        """Until somebody wakes it."""
        return g.asleep

    def could_start(self, g: Group) -> float:
        """When the group has something to try."""
        at = max(g.ready, self.stage_free[0])
        if not self.idle(g):
            return at
        first = min((x.seen for x in self.returned + self.waiting), default=NEVER)
        return max(at, min([first, *(done for done, _, _ in self.aside)]))

    def begin(self, g: Group, t: float) -> None:
        """Form a step and send it through the stages."""
        step = self.form(g, t)
        if not step.chunks and not step.decodes and self.aside and not self.passed_on:
            if any(x.seen <= t + 2 * TIE for x in self.returned + self.waiting):
                g.ready = max(g.ready, min(self.aside)[0])
            return
        if not step.chunks and not step.decodes:
            g.asleep = True
            assert self.may_wake(), "stuck"
            return
        if step.decodes:
            step.width, step.ahead = self.width(g), (g.clock % self.world.ticks + self.gain(g)) / self.world.ticks
        naive_price.price(step, t, self.costs, self.stage_free, len(self.lanes), self.rules.pad_lanes == 1,
                          self.world.offload.load)  # fmt: skip
        g.ready, g.flight, g.began = step.end, step, t
        g.phase = 0 if step.chunks else (g.phase + 1) % self.rules.poll
        g.waited = 0 if step.chunks else g.waited
        for c in step.chunks:
            c.sequence.start = min(c.sequence.start, t)
        self.world.steps.append(step)

    def may_wake(self) -> bool:
        """Can anything happen that lets a group that found nothing try again?"""
        return any(h.flight or (h.decoding and not h.asleep) for h in self.groups)

    def settle(self, g: Group) -> None:
        """The results of the group's step are known."""
        step, t = g.flight, g.ready
        assert step is not None
        g.flight = None
        for h in self.groups:
            if h.asleep:
                h.asleep, h.ready = False, max(h.ready, t)
        gained = self.gained(g)
        g.clock += self.gain(g) if step.decodes else 0
        for x in step.decodes:
            x.context += gained
            x.times += [t] * min(gained, x.output - len(x.times))
            x.bursts.append(t)
        for x in [x for x in step.decodes if len(x.times) == x.output]:
            g.decoding.remove(x)
            self.finish(x, t)
        for x in [c.sequence for c in step.chunks if c.last]:
            x.times.append(t)
            x.bursts.append(t)
            x.context, x.joined = x.target, self.world.joined
            if self.lanes[x.lane].pool:
                self.lanes[x.lane].pool.name(x, x.computed)
            self.world.joined += 1
            if len(x.times) == x.output:
                self.finish(x, t)
            else:
                g.decoding.append(x)

    # --- drafts --------------------------------------------------------------------------------------------------

    def gain(self, g: Group) -> int:
        """What a step of the group's decodes moves its clock on."""
        return int(self.world.drafts.gain[len(g.decoding)]) if self.world.ticks > 1 else 1

    def width(self, g: Group) -> int:
        """Tokens of the step that each of them takes up."""
        return int(self.world.drafts.width[len(g.decoding)]) if self.world.ticks > 1 else 1

    def gained(self, g: Group) -> int:
        """Tokens that each of them gains in the next step."""
        return (g.clock + self.gain(g)) // self.world.ticks - g.clock // self.world.ticks

    # --- forming a step ------------------------------------------------------------------------------------------

    def form(self, g: Group, t: float) -> Step:
        """Choose who takes part; once more, knowing what is known by now, where that is nobody."""
        if self.ahead and self.idle(g) and t > g.ready:
            self.catch_up(g, t)
        step = self.choose(g, t)
        if not step.chunks and not step.decodes and (self.thrown or (self.ahead and g.began < t)):
            self.catch_up(g, t)
            step = self.choose(g, t)
        self.let_all_go()
        return step

    def catch_up(self, g: Group, t: float) -> None:
        """The step is not formed ahead of its time."""
        self.let_all_go()
        g.began = t + 2 * TIE

    def choose(self, g: Group, t: float) -> Step:
        """One try to form a step."""
        step = Step(self.number, g.number, [], [])
        queue = self.visible(g, t)
        self.halfway = any(lane.partial for lane in self.lanes)
        self.thrown = False
        if self.rules.mix:
            self.give_blocks(g, t)
            step.decodes = list(g.decoding)
            self.name_answers(g, t)
            self.call_back()
            closed = self.continue_partials(step, g, t)
            if not self.thrown and not self.hold(g, queue):
                self.admit(step, self.in_sight(), closed, t)
        else:
            held = self.hold(g, queue)
            self.call_back()
            closed = self.continue_partials(step, g, t)
            if not held:
                self.admit(step, self.in_sight(), closed, t)
            if not step.chunks:
                self.give_blocks(g, t)
                step.decodes = list(g.decoding)
                self.name_answers(g, t)
        return step

    def idle(self, g: Group) -> bool:
        """Nothing of the group decodes, nothing is half computed."""
        return not g.decoding and not any(lane.partial for lane in self.lanes)

    def visible(self, g: Group, t: float) -> list[Sequence]:
        """The waiting requests that a step of this group may take, in order."""
        if self.idle(g):
            g.phase = 0
        if g.phase == 0:
            if self.ahead:
                self.read_until = max(self.read_until, g.began - TIE)
            else:
                self.read_until = t - TIE if self.rules.lag and not self.idle(g) else t + TIE
        return self.in_sight()

    def call_back(self) -> None:
        """Who has his blocks from a tier stands in front again."""
        for one in sorted(one for one in self.aside if one[0] <= self.read_until):
            self.aside.remove(one)
            self.returned.insert(0, one[2])

    def in_sight(self) -> list[Sequence]:
        """What has been read, in order."""
        queue = self.returned + self.waiting
        if self.rules.order == SHORTEST:
            queue.sort(key=lambda x: (x.prompt, x.index))
        return [x for x in queue if x.seen <= self.read_until]

    def hold(self, g: Group, queue: list[Sequence]) -> bool:
        """Do the waiting prompts wait for company?"""
        busy = [sum(x.lane == i for x in g.decoding) for i in range(len(self.lanes))]
        if not self.rules.wait or self.rules.order == SHORTEST or not g.decoding or self.halfway:
            return False
        return self.hold_for_tokens(g, queue) if len(self.lanes) == 1 else self.hold_for_lanes(g, queue, busy)

    def hold_for_tokens(self, g: Group, queue: list[Sequence]) -> bool:
        """One lane: the prompts that fit, with the decodes, would leave the step too empty."""
        lane = self.lanes[0]
        left, free, seats, tokens = self.rules.budget, lane.free, self.rules.max_seqs - lane.admitted, 0
        decodes = len(g.decoding) * self.width(g)
        if self.rules.mix:
            left -= decodes
        for x in queue:
            if lane.pool:
                lane.pool.look(x)
            q = naive_rules.grant(self.rules, x, left, tokens, free, seats, seats == self.rules.max_seqs)
            left, free, seats, tokens = left - q, free - naive_rules.blocks_at_admission(self.rules, x, q), seats - 1, tokens + q
            if q < x.target - x.computed:
                break
        if tokens == 0 or tokens + decodes >= self.rules.wait_tokens or g.waited >= self.rules.wait:
            return False
        g.waited += 1
        return True

    def hold_for_lanes(self, g: Group, queue: list[Sequence], busy: list[int]) -> bool:
        """Several lanes: one of them would get no prompt."""
        admitted = [lane.admitted for lane in self.lanes]
        served = set()
        for _ in queue:
            number = admitted.index(min(admitted))
            admitted[number] += 1
            served.add(number)
        g.waited += 1
        if min(busy) == 0 or (len(served) == len(busy) and max(busy) < self.rules.max_seqs) or g.waited >= self.rules.wait:
            g.waited = 0
        return g.waited > 0

    def give_blocks(self, g: Group, t: float) -> None:
        """Each decoding sequence gets the blocks that the tokens of its next step need."""
        if self.rules.admission == ADMIT_RESERVE:
            return
        for number, lane in enumerate(self.lanes):
            while True:
                mine = [x for x in g.decoding if x.lane == number]
                room = self.gained(g) + self.rules.look
                need = {x: naive_rules.ceil_div(x.context + room, self.rules.block) for x in mine}
                if sum(held - x.held for x, held in need.items()) <= lane.free:
                    break
                self.throw_out(lane.partial or max(mine + lane.leaving, key=lambda x: x.joined), lane, g, t)
            for x, held in need.items():
                self.take(x, held)

    def is_early(self, g: Group, t: float) -> bool:
        """Is the step formed before the tokens of the one before it are known?"""
        return self.ahead and g.began < t

    def name_answers(self, g: Group, t: float) -> None:
        """What the decodes fill is found at once: as far as their tokens are known."""
        for x in g.decoding if self.rules.reuse == AT_ONCE else []:
            if self.lanes[x.lane].pool:
                self.lanes[x.lane].pool.name(x, x.context + (0 if self.is_early(g, t) else 1))

    def throw_out(self, x: Sequence, lane: Lane, g: Group, t: float) -> None:
        """Preemption by recompute; who has finished already just goes.  What it made last has no name yet where it is not known."""
        self.thrown = True
        late = 1 if self.is_early(g, t) and x.context > x.target else 0
        if x in lane.leaving:
            self.let_go(x, late)
            return
        if x is lane.partial:
            lane.partial = None
        else:
            g.decoding.remove(x)
        self.give_back(x, (x.context or x.computed) - late, True)
        x.computed, x.context, x.target = x.cached, 0, x.prompt + len(x.times)
        x.thrown += 1
        self.returned.insert(0, x)

    def take(self, x: Sequence, held: int) -> None:
        """The sequence holds that many blocks from now on."""
        lane = self.lanes[x.lane]
        lane.free -= held - x.held
        x.held = held
        if lane.pool:
            lane.pool.take(x, held)
            lane.free = len(lane.pool.free)
        assert lane.free >= 0
        self.world.lowest = min(self.world.lowest, lane.free)

    def left(self, step: Step, number: int) -> int:
        """What is left of a lane's budget."""
        decodes = sum(x.lane == number for x in step.decodes) * self.width(self.groups[step.group])
        return self.rules.budget - decodes - naive_price.prompt_tokens(step, number)

    def continue_partials(self, step: Step, g: Group, t: float) -> set[int]:
        """The next chunk of each half-computed prompt; returns the lanes that are closed."""
        closed = set()
        for number, lane in enumerate(self.lanes):
            x = lane.partial
            if x is None:
                continue
            q = min(x.target - x.computed, self.left(step, number))
            room = naive_rules.room_after(self.rules, x, q)
            held = naive_rules.ceil_div(room, self.rules.block) if naive_rules.by_chunk(self.rules) else x.held
            if q > 0 and lane.pool:
                lane.pool.name(x, x.computed)
            if q < 1 or held - x.held > lane.free:
                closed.add(number)
                if q > 0 and self.rules.mix:
                    self.throw_out(x, lane, g, t)
                continue
            self.take(x, held)
            self.compute(step, x, q)
            if lane.partial:
                closed.add(number)
        return closed

    def compute(self, step: Step, x: Sequence, q: int) -> None:
        """Put a chunk into the step."""
        step.chunks.append(Chunk(x, x.computed, q))
        x.computed += q
        if self.lanes[x.lane].pool and self.rules.reuse == AT_ONCE:
            self.lanes[x.lane].pool.name(x, x.computed)
        self.lanes[x.lane].partial = x if x.computed < x.target else None

    def fetch(self, step: Step, x: Sequence, pool: Pool, t: float) -> bool:
        """Blocks from tiers: the step waits for them, or the request alone, who then does not start yet."""
        if self.world.offload.load != ASIDE:
            step.load += pool.seconds(x)
        elif not x.asked:
            x.asked = True
            self.link_free = max(t, self.link_free) + pool.seconds(x)
            self.aside.append((self.link_free, x.index, x))
            return False
        x.asked = False
        pool.go_up(x)
        return True

    def seat(self, x: Sequence, number: int) -> None:
        """It sits in this lane."""
        x.lane = number

    def admit(self, step: Step, queue: list[Sequence], closed: set[int], t: float) -> None:
        """Take waiting requests in order while a lane is open."""
        while queue and len(closed) < len(self.lanes):
            lanes = [i for i in range(len(self.lanes)) if i not in closed]
            number = min(lanes, key=lambda i: self.lanes[i].admitted)
            x = queue[0]
            lane, here = self.lanes[number], naive_price.prompt_tokens(step, number)
            seats = self.rules.max_seqs - lane.admitted
            if lane.pool:
                lane.pool.look(x)
            q = naive_rules.grant(self.rules, x, self.left(step, number), here, lane.free, seats, lane.admitted == 0)
            if q < 1:
                closed.add(number)
                continue
            queue.pop(0)
            (self.returned if x in self.returned else self.waiting).remove(x)
            if x.loads and not self.fetch(step, x, lane.pool, t):
                continue
            self.lanes[number].admitted += 1
            self.seat(x, number)
            if lane.pool:
                lane.pool.join(x)
                x.held, x.hit = len(x.blocks), x.computed if x.start == NEVER else x.hit
            self.take(x, naive_rules.blocks_at_admission(self.rules, x, q))
            self.compute(step, x, q)
            if x.computed < x.target:
                closed.add(number)


LOOK = -2  # of the router, where a request would stand


class World:
    """All replicas and their clients."""

    def __init__(self, requests: Requests, rules: Rules, host: Host, costs: Costs, blocks: int, replicas: int,
                 lanes: int, route: Route, drafts: Drafts, offload: Offload = NO_OFFLOAD) -> None:  # fmt: skip
        self.offload = offload
        self.requests, self.rules, self.host, self.costs = requests, rules, host, costs
        known = requests.cached if len(requests.cached) else [0] * len(requests.prompt)
        asked = zip(requests.prompt, requests.output, known)
        self.sequences = [Sequence(i, int(p), int(o), int(c)) for i, (p, o, c) in enumerate(asked)]
        self.drafts, self.ticks = drafts, 1 if drafts is NO_DRAFTS else TICKS
        self.steps: list[Step] = []
        self.lowest = blocks
        self.joined = 0
        self.replicas = [Replica(r, self, len(costs.hop), lanes, blocks) for r in range(replicas)]
        self.router = naive_route.Router(route, self.replicas, requests, blocks, self.sequences)
        self.unsent: list[Sequence] = []  # of users who belong to no replica
        self.waiting: dict[int, list[Sequence]] = {}  # for the request of that index to finish
        self.coming: list[tuple[float, int]] = []  # when who is sent
        self.later: list[range] = []  # requests of later stages
        self.begun = 0.0  # the stage

    def serve(self) -> None:
        """Until everything is done: who acts or is sent first goes first; a step that starts within TIE of an arrival waits for it."""
        self.expect()
        while True:
            r = min(self.replicas, key=lambda r: (*r.next_act()[:2], r.number))
            (when, starts, _), due = r.next_act(), min(self.coming, default=(NEVER, -1))
            look = self.router.looks_at(min(due[0], when)) if min(due[0], when) < NEVER else NEVER
            due = (look, LOOK) if look < NEVER else due
            if when < due[0] or (when == due[0] < NEVER and not starts):
                r.act()
            elif look < NEVER:
                self.router.look(due[0])
            elif due[0] < NEVER:
                self.coming.remove(due)
                x = self.sequences[due[1]]
                self.replica_of(x, due[0]).send(x, due[0])
            elif self.later:
                self.open()
            else:
                break
        for r in self.replicas:
            r.let_all_go()

    def open(self) -> None:
        """Nothing is left to do: the next stage begins with the last finish of the one before."""
        begun = max((x.times[-1] for x in self.sequences if x.times), default=0.0)
        begun = max(begun, self.begun)
        self.begun = begun
        self.coming = [(begun + float(self.requests.arrive[i]), i) for i in self.later.pop(0)]

    def expect(self) -> None:
        """Who is sent by himself: all that wait for no other, or the first request of each user of the closed loop."""
        if self.requests.users:
            n = min(len(self.replicas), self.requests.users)
            self.unsent = self.sequences[self.requests.users :] if self.router.asks else []
            for r in [] if self.router.asks else self.replicas[:n]:
                r.unsent = [x for x in self.sequences[self.requests.users :] if x.index % n == r.number]
            self.coming = [(0.0, x.index) for x in self.sequences[: self.requests.users]]
            return
        after = self.requests.after if len(self.requests.after) else [-1] * len(self.sequences)
        for x, before, arrive in zip(self.sequences, after, self.requests.arrive):
            if before < 0:
                self.coming.append((float(arrive), x.index))
            else:
                self.waiting.setdefault(int(before), []).append(x)
        self.lacks = [int(before >= 0) for before in after]
        for j in self.requests.join:
            self.lacks[j] += 1
        self.free = [0.0] * len(self.sequences)
        edges = [0, *self.requests.stage, len(self.sequences)]
        self.later = [range(a, b) for a, b in pairwise(edges[1:])]
        self.coming = [(t, i) for t, i in self.coming if i < edges[1]]

    def call(self, x: Sequence, t: float) -> None:
        """A request has finished: those that waited for it are sent in a while, and so is the next one of a user who belongs to nobody."""
        if self.unsent:
            self.coming.append((t + self.requests.think, self.unsent.pop(0).index))
        let_go = [(t + float(self.requests.delay[y.index]), y.index) for y in self.waiting.pop(x.index, [])]
        joins = zip(self.requests.join_after, self.requests.join, self.requests.join_delay)
        for when, j in let_go + [(t + float(delay), int(j)) for before, j, delay in joins if before == x.index]:
            self.lacks[j] -= 1
            self.free[j] = max(self.free[j], when)
            if not self.lacks[j]:
                self.coming.append((self.free[j], j))

    def replica_of(self, x: Sequence, t: float) -> Replica:
        """Where the router sends a request."""
        if self.requests.users and not self.router.asks:
            return self.replicas[x.index % min(len(self.replicas), self.requests.users)]
        return self.router.send(x, t)


def simulate(requests: Requests, rules: Rules, host: Host, costs: Costs, blocks: int, *, replicas: int = 1,
             lanes: int = 1, route: Route = IN_TURN, drafts: Drafts = NO_DRAFTS, offload: Offload = NO_OFFLOAD) -> Naive:  # fmt: skip
    """The twin of `apexsim.engine.kernel.simulate`."""
    world = World(requests, rules, host, costs, blocks, replicas, lanes, route, drafts, offload)
    world.serve()
    for r in world.replicas:
        assert all(lane.free == blocks and lane.admitted == 0 and lane.partial is None for lane in r.lanes)
        assert not r.waiting and not r.returned
    return Naive(world.sequences, world.steps, world.lowest)
