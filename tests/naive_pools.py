"""The slow, obvious twin of two pools, written from docs/pools.md alone: replicas of naive.py, and lists of who is where.

Each event is looked for anew; no replica runs on, no request is in an array.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import naive
import naive_route
from apexsim.engine.apart import Crossing, PoolSide
from apexsim.engine.types import ADMIT_RESERVE, INFINITY, TIE, Requests
from naive_records import NEVER, Group, Lane, Naive, Sequence, Step
from naive_route import Router
from naive_rules import ceil_div


class OfPool(naive.Replica):
    """A replica of one of the pools: a group that found nothing looks again when it is woken, a load has ended, or somebody is seen."""

    passed_on = True

    def may_wake(self) -> bool:
        """Somebody may come, or be sent."""
        return True

    def sleeps(self, g: Group) -> bool:
        """Nothing will wake it by itself."""
        return g.asleep and self.wakes(g) == NEVER

    def wakes(self, g: Group) -> float:
        """When it looks again by itself."""
        loads = [done + 2 * TIE for done, _, _ in self.aside]
        return min([*loads, *(x.seen for x in self.waiting if x.seen > g.ready)], default=NEVER)

    def could_start(self, g: Group) -> float:
        """Asleep, when it wakes."""
        return max(g.ready, self.stage_free[0], self.wakes(g)) if g.asleep else super().could_start(g)

    def begin(self, g: Group, t: float) -> None:
        """It has woken, and may fall asleep again."""
        if g.asleep:
            wake(self, t)
        super().begin(g, t)
        if g.asleep:
            g.ready = max(g.ready, t)


class Prefill(OfPool):
    """A replica that computes prompts; blocks of what it has made stay taken."""

    line: Line

    def start_anew(self, line: Line) -> None:
        """Nobody waits."""
        self.line, self.late, self.since = line, list[Sequence](), 0.0

    def finish(self, x: Sequence, t: float) -> None:
        """The seat is free, the blocks are not."""
        self.lanes[x.lane].admitted -= 1
        self.outstanding -= 1
        self.line.made.append((t, x.index))

    def begin(self, g: Group, t: float) -> None:
        """Whose result waits for this step goes at once where there is no step."""
        super().begin(g, t)
        if g.flight is None:
            self.send_late(self.since)

    def settle(self, g: Group) -> None:
        """The step that some waited for has ended."""
        self.send_late(g.ready)
        super().settle(g)

    def send_late(self, t: float) -> None:
        """Their results go out."""
        self.line.coming += [(t, x.index) for x in self.late]
        self.late.clear()


class Decode(OfPool):
    """A replica that goes on with what others have computed."""

    line: Line

    def start_anew(self, line: Line) -> None:
        """Nobody asks, nobody has landed."""
        self.line, self.asking, self.landed = line, list[Sequence](), list[Sequence]()
        self.booked, self.queue = [0] * len(self.lanes), list[Sequence]()

    def finish(self, x: Sequence, t: float) -> None:
        """Its place, where it had one, is free with its seat and blocks."""
        self.booked[x.lane] -= x.index not in self.line.local
        super().finish(x, t)

    def seat(self, x: Sequence, number: int) -> None:
        """Its place moves with it."""
        if x.index not in self.line.local:
            self.booked[x.lane] -= 1
            self.booked[number] += 1
        super().seat(x, number)

    def could_start(self, g: Group) -> float:
        """Those who come from the other pool are something to try as well."""
        at = super().could_start(g)
        if g.asleep or not self.idle(g):
            return at
        knocks = min((x.seen for x in self.asking + self.landed), default=NEVER)
        return max(g.ready, self.stage_free[0], min(at, knocks))

    def visible(self, g: Group, t: float) -> list[Sequence]:
        """As seen before anybody boarded."""
        return self.queue

    def choose(self, g: Group, t: float) -> Step:
        """Who has landed boards, the step is formed, then places are given."""
        self.queue = super().visible(g, t)
        while self.landed and self.landed[0].seen <= self.read_until and self.board(self.landed[0], g, t):
            self.landed.pop(0)
        step = super().choose(g, t)
        while not self.thrown and self.asking and self.asking[0].seen <= self.read_until and self.book(self.asking[0], t):
            self.asking.pop(0)
        return step

    def board(self, x: Sequence, g: Group, t: float) -> bool:
        """It decodes from this step on; False without a seat."""
        lane = self.lanes[x.lane]
        if lane.admitted >= self.rules.max_seqs:
            return False
        lane.admitted += 1
        if lane.pool:
            lane.pool.name(x, x.computed)
        x.start, x.context, x.joined = t, x.computed, self.world.joined
        self.world.joined += 1
        if not self.line.crossing.recompute:
            x.times.append(t)
            x.bursts.append(t)
        g.decoding.append(x)
        return True

    def book(self, x: Sequence, t: float) -> bool:
        """A place in the lane with the fewest that has one; False where none has."""
        whole = self.rules.admission == ADMIT_RESERVE
        need = ceil_div(x.prompt + x.output if whole else x.computed + self.rules.look, self.rules.block)
        spare = [0 if whole or not booked else self.rules.watermark for booked in self.booked]
        fits = [i for i in range(len(self.lanes)) if self.has_place(i, need + spare[i] - self.shared(x, i))]
        if not fits:
            return False
        x.lane = min(fits, key=lambda i: (self.booked[i], i))
        self.booked[x.lane] += 1
        self.shared(x, x.lane)
        pool = self.lanes[x.lane].pool
        if pool:
            pool.join(x)
            x.held = len(x.blocks)
            x.hit = x.held * self.rules.block
        self.take(x, need)
        self.line.settled.append((t, x.index))
        return True

    def shared(self, x: Sequence, i: int) -> int:
        """Blocks of its prompt that the lane has, and others hold."""
        pool, computed = self.lanes[i].pool, x.computed
        if not pool:
            return 0
        x.target = computed + 1  # all may be found
        pool.look(x)
        x.computed = computed
        return x.shared

    def has_place(self, i: int, need: int) -> bool:
        """A slot, the blocks and, where asked for, a seat."""
        seat = not self.line.crossing.seated or self.lanes[i].admitted < self.rules.max_seqs
        return seat and self.booked[i] < self.line.crossing.slots and need <= self.lanes[i].free


class Pool(naive.World):
    """One pool; who finishes is told to the line."""

    line: Line

    def call(self, x: Sequence, t: float) -> None:
        """Only decode asks."""
        self.line.settled.append((t, x.index))

    def replica_of(self, x: Sequence, t: float) -> naive.Replica:
        """Where the router sends a request."""
        found: naive.Replica = self.router.send(x, t)
        return found


@dataclass
class Line:
    """What lies between the pools, and the clients.  Lists of (time, request): on its way; made in prefill; something in decode."""

    requests: Requests
    crossing: Crossing
    p: Pool
    d: Pool
    coming: list[tuple[float, int]] = field(default_factory=list)
    made: list[tuple[float, int]] = field(default_factory=list)
    settled: list[tuple[float, int]] = field(default_factory=list)
    stage: dict[int, str] = field(default_factory=dict)
    wire: dict[tuple[int, int], float] = field(default_factory=dict)
    sent: dict[int, float] = field(default_factory=dict)
    unsent: list[int] = field(default_factory=list)
    heirs: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    lacks: Counter[int] = field(default_factory=Counter)  # how many each still waits for
    ready: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    local: set[int] = field(default_factory=set)  # computed at decode
    ahead: Counter[int] = field(default_factory=Counter)  # prompt tokens that each prefill server has been sent and has not computed

    def serve(self) -> None:
        """Until everything is done."""
        self.expect()
        while True:
            r = min((*self.p.replicas, *self.d.replicas), key=lambda r: (r.next_act()[0], r in self.d.replicas, r.number))
            (when, starts, _), event = r.next_act(), min((*self.coming, *self.made, *self.settled), default=(NEVER, -1))[0]
            if when < event or (when == event < NEVER and not starts):
                r.act()
            elif event < NEVER:
                self.happen(event)
            else:
                return

    def expect(self) -> None:
        """Who is sent by himself."""
        size = len(self.requests.prompt)
        self.stage = dict.fromkeys(range(size), "comes")
        if self.requests.users:
            self.unsent = list(range(self.requests.users, size))
            self.coming = [(0.0, i) for i in range(min(self.requests.users, size))]
            return
        for i in range(size):
            before = int(self.requests.after[i]) if len(self.requests.after) else -1
            if before < 0:
                self.coming.append((float(self.requests.arrive[i]), i))
            else:
                self.heirs.setdefault(before, []).append((i, float(self.requests.delay[i])))
                self.lacks[i] += 1
        for before, i, delay in zip(self.requests.join_after, self.requests.join, self.requests.join_delay):
            self.heirs.setdefault(int(before), []).append((int(i), float(delay)))
            self.lacks[int(i)] += 1

    def happen(self, t: float) -> None:
        """The next event: of equal times decode's first, then prefill's; of each list the lowest number."""
        waiting = next(events for events in (self.settled, self.made, self.coming) if events and min(events)[0] == t)
        i = min(waiting)[1]
        waiting.remove((t, i))
        getattr(self, self.stage[i])(i, t)

    # --- stages, in the order in which a request passes them -----------------------------------------------------------

    def comes(self, i: int, t: float) -> None:
        """The client sends it."""
        self.sent[i] = t
        if self.stays(i, t):
            x = self.d.sequences[i]
            x.target = x.prompt
            self.local.add(i)
            r = self.d.replica_of(x, t)
            r.send(x, t)
            x.computed, self.stage[i] = 0, "ends"
            wake(r, x.seen)
            return
        self.later(i, t, "asks" if self.crossing.first else "computes")

    def stays(self, i: int, t: float) -> bool:
        """Decode lacks little of its prompt, or its prefill server has much to do."""
        how, x = self.crossing, self.d.sequences[i]
        if how.near:
            known = x.computed
            x.target = known + 1  # nothing has to be left to compute
            rest = x.prompt - naive_route.match(self.d.router.would(x, t), x)[0]
            x.computed = known
            if rest < min(how.near, how.share * x.prompt):
                return True
        y = self.p.sequences[i]
        y.target = y.prompt
        return how.busy < INFINITY and bool(self.ahead[self.p.router.would(y, t).number] > how.busy)

    def asks(self, i: int, t: float) -> None:
        """It asks a replica of the decode pool for a place."""
        x = self.d.sequences[i]
        known, x.target = x.computed, x.computed + 1
        r = self.d.replica_of(x, t)
        x.computed = known
        r.outstanding += 1
        x.replica, x.seen, self.stage[i] = r.number, t, "booked"
        assert isinstance(r, Decode)
        r.asking.append(x)
        wake(r, t)

    def booked(self, i: int, t: float) -> None:
        """It has a place."""
        if self.crossing.first:
            self.later(i, t + self.crossing.hop_s, "computes")
        else:
            self.transfer(i, t)

    def computes(self, i: int, t: float) -> None:
        """It comes to the prefill pool."""
        x = self.p.sequences[i]
        x.target = x.prompt
        r = self.p.replica_of(x, t)
        r.send(x, t)
        self.ahead[r.number] += x.prompt
        self.stage[i] = "made_"
        wake(r, x.seen)

    def made_(self, i: int, t: float) -> None:
        """Its prompt is computed; the result may be late."""
        r = self.p.replicas[self.p.sequences[i].replica]
        assert isinstance(r, Prefill)
        self.stage[i] = "known"
        self.ahead[r.number] -= self.requests.prompt[i]
        if self.crossing.lag and r.next_start()[1] <= t + TIE:
            r.late.append(self.p.sequences[i])
            r.since = t
        else:
            self.coming.append((t, i))

    def known(self, i: int, t: float) -> None:
        """Its first token is known."""
        if self.requests.output[i] == 1:
            self.alone(i, t)
        elif self.crossing.first:
            self.transfer(i, t)
        else:
            self.later(i, t + self.crossing.hop_s, "asks")

    def alone(self, i: int, t: float) -> None:
        """One token is all: nothing is handed over."""
        x = self.d.sequences[i]
        x.times = [t]
        self.free(i, t)
        if self.crossing.first:
            r = self.d.replicas[x.replica]
            assert isinstance(r, Decode)
            give_all(r.lanes[x.lane], x, x.hit)
            r.booked[x.lane] -= 1
            r.outstanding -= 1
            wake(r, t)
        self.ends(i, t)

    def transfer(self, i: int, t: float) -> None:
        """Its cache is sent."""
        x, how = self.d.sequences[i], self.crossing
        line = (x.replica, x.lane)
        wire = max(t, self.wire.get(line, 0.0)) + how.token_s * (x.prompt - x.hit) + how.fixed_s
        self.wire[line] = wire if how.parallel else wire + how.latency_s
        self.later(i, wire + how.latency_s, "lands")

    def lands(self, i: int, t: float) -> None:
        """The cache is there, and its blocks in prefill are free."""
        self.free(i, t)
        x = self.d.sequences[i]
        r = self.d.replicas[x.replica]
        assert isinstance(r, Decode)
        x.seen, self.stage[i] = t, "ends"
        r.landed.append(x)
        wake(r, t)

    def ends(self, i: int, t: float) -> None:
        """Its last token is out."""
        if self.unsent:
            self.coming.append((t + self.requests.think, self.unsent.pop(0)))
        for j, delay in self.heirs.get(i, []):
            self.lacks[j] -= 1
            self.ready[j] = max(self.ready[j], t + delay)
            if not self.lacks[j]:
                self.coming.append((self.ready[j], j))

    def later(self, i: int, t: float, stage: str) -> None:
        """Then this happens to it."""
        self.stage[i] = stage
        self.coming.append((t, i))

    def free(self, i: int, t: float) -> None:
        """Its blocks in prefill."""
        x = self.p.sequences[i]
        r = self.p.replicas[x.replica]
        give_all(r.lanes[x.lane], x, x.prompt)
        wake(r, t)


def give_all(lane: Lane, x: Sequence, known: int) -> None:
    """Its blocks, which hold `known` tokens that others may find."""
    lane.free += x.held
    x.held = 0
    if lane.pool:
        lane.pool.go(x, known, False)
        lane.free = len(lane.pool.free)


def wake(r: naive.Replica, t: float) -> None:
    """Groups that found nothing look again."""
    for g in r.groups:
        if g.asleep:
            g.asleep, g.ready = False, max(g.ready, t)


def simulate(requests: Requests, prefill: PoolSide, decode: PoolSide, crossing: Crossing) -> tuple[Naive, Naive, list[float]]:
    """Both pools, and when each request was sent."""
    alone = requests._replace(users=0, cached=requests.cached[:0], stage=requests.stage[:0])
    p, d = (
        Pool(alone, side.rules, side.host, side.costs, side.blocks, 0, side.lanes, side.route, side.drafts, side.offload)
        for side in (prefill, decode)
    )
    line = Line(requests, crossing, p, d)
    for pool, side, kind in ((p, prefill, Prefill), (d, decode, Decode)):
        pool.line = line
        pool.replicas = [kind(r, pool, len(side.costs.hop), side.lanes, side.blocks) for r in range(side.replicas)]
        pool.router = Router(side.route, pool.replicas, alone, side.blocks, pool.sequences)
        for r in pool.replicas:
            r.start_anew(line)  # type: ignore[attr-defined]
    for x, y in zip(p.sequences, d.sequences):
        x.output = 1
        y.computed, y.cached = y.prompt - crossing.recompute, 0 if crossing.again else y.prompt - 1
    line.serve()
    return Naive(p.sequences, p.steps, p.lowest), Naive(d.sequences, d.steps, d.lowest), [line.sent[i] for i in range(len(requests.prompt))]
