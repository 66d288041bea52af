"""How to start an engine so that it runs what was simulated (floor 6).

A plan's servers stand side by side behind a router; what each is told is said by the engine's dialect (`report.dialects`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from apexsim.engines import HOLDS_PROMPT
from apexsim.errors import Rejected
from apexsim.plan.flags import Words, words_of
from apexsim.plan.levers import counted
from apexsim.plan.limits import at_full_length, served_length, started, unstartable
from apexsim.plan.lower import exchanges
from apexsim.plan.memory import size
from apexsim.plan.plan import Plan
from apexsim.report.checkpoint import checkpoint
from apexsim.report.dialects import SENT, SPOKEN, Said, ServerStart, drafter_unknown, spoken
from apexsim.report.servers import FIRST_PORT, Command, Place, locks, own_rules, places, router, script, seen, turned
from apexsim.search.setting import Setting

DEEPEP = ("hopper", "blackwell", "blackwell-ultra")  # DeepEP's kernels want SM 9.0 or newer and NVLink
MORI = ("cdna3", "cdna4")
BY_ROLE = {"prefill": "deepep prompts", "decode": "deepep steps"}  # where a server has one kind of DeepEP's kernels
RULES = ("order", "admission", "preempt", "watermark")  # of a row, which no engine can be told


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a plan: every command on a line of its own, in order (none where the engine cannot run it); `script`: all
    of them as they can be pasted, lines broken; `notes`: what to know about them."""

    shorthand: str
    commands: tuple[str, ...]
    notes: tuple[str, ...] = ()
    script: str = ""

    @property
    def runnable(self) -> bool:
        """Whether the engine can run the plan."""
        return bool(self.commands)


# ---- one server on one or several nodes ------------------------------------------------------------------------------


def server_of(ask: ServerStart, place: Place, listens: Said) -> list[Command]:
    """The commands of one server, on each of its nodes; listens: the address and port that it is told, if any."""
    engine, cluster, words = ask.engine.server, ask.setting.cluster, ask.words
    model = (words.flag("model"), ask.weights.name) if words.has("model") else (ask.weights.name,)
    dialect, made = SPOKEN[engine.dialect], []
    for node in place.nodes:
        said = dialect.said(ask) + dialect.over_nodes(ask, place, node) + (dialect.role(ask, place, node) if ask.role else [])
        flags, env = spoken(words, said + listens)
        made.append(Command((engine.program, model, *flags), node, (*seen(place, cluster), *env)))
    return dialect.wrapped(ask, place, made)


def beside_others(ask: ServerStart, place: Place, servers: int) -> Said:
    """What a server is told of its address where several share the nodes: its port, and all interfaces where the router is far."""
    far = ask.setting.cluster.nodes > 1 and servers > 1 and ask.engine.server.loopback
    return [("host", "0.0.0.0" if far else None), ("port", place.port if servers > 1 else None)]


# ---- the whole launch -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """A plan as it is started: what goes before, the commands of each server at its place, and the router before several."""

    ask: ServerStart
    where: tuple[Place, ...]
    before: tuple[Command, ...]
    servers: tuple[tuple[Command, ...], ...]  # one each of `where`
    router: tuple[Command, ...]

    @property
    def commands(self) -> tuple[Command, ...]:
        """All of them, in order."""
        return (*self.before, *once(c for each in self.servers for c in each), *self.router)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the commands alone do not say."""
        return tuple(notes_of(self.ask, self.where))

    @property
    def notes_by_nginx(self) -> tuple[str, ...]:
        """The same where nginx deals requests, whatever router the engine has."""
        return tuple(notes_of(self.ask, self.where, ()))


def start(setting: Setting, plan: Plan) -> Started | Rejected:
    """How a plan is started as it was simulated, or why it cannot be."""
    if not setting.engine.has_server:
        why = f"{setting.engine.label} is a batching policy without a server of its own: no launch command"
        return Rejected("server", why, plan.shorthand)
    why = unstartable(setting.model, plan, setting.cluster, setting.engine)
    if why:
        return Rejected("server", why, plan.shorthand)
    ask = asked(setting, plan)
    if isinstance(ask, Rejected):
        return ask
    where, cluster = places(plan, setting.cluster), setting.cluster
    servers = tuple(tuple(server_of(ask, place, beside_others(ask, place, len(where)))) for place in where)
    dealt = router(where, cluster, setting.engine.server.router, setting.router.name) if len(where) > 1 else ()
    return Started(ask, where, locks(plan, cluster), servers, dealt)


def launch(setting: Setting, plan: Plan) -> Launch:
    """The commands that start a plan as it was simulated, as text."""
    found = start(setting, plan)
    if isinstance(found, Rejected):
        return Launch(plan.shorthand, (), (found.reason,))
    commands = found.commands
    return Launch(plan.shorthand, tuple(c.text(math.inf) for c in commands), found.notes, script(commands, setting.cluster.nodes))


def once(commands: Iterable[Command]) -> list[Command]:
    """Files that several servers of a node read are written once."""
    return list(dict.fromkeys(commands))


def asked(setting: Setting, plan: Plan) -> ServerStart | Rejected:
    """What the server of a plan is asked for, or why it does not fit."""
    where = (setting.model, plan, setting.cluster)
    start = started(*where, setting.engine, setting.max_model_len)
    if isinstance(start, Rejected):
        found = size(*where, setting.engine, setting.max_model_len)
        if isinstance(found, Rejected) or setting.engine.memory.refuses:
            return start
        start = (setting.engine, found)
    engine, found = start
    length = setting.max_model_len
    if not setting.length_given:
        length = served_length(setting.model, setting.cluster, engine, found, min(length, setting.model.max_length))
    words = words_of(engine)
    return ServerStart(setting, plan, engine, found, length, checkpoint(setting, plan), words, travel(setting, plan))


def travel(setting: Setting, plan: Plan, role: str = "") -> str:
    """How tokens reach experts of other lanes; role: of a server of two pools."""
    if plan.lanes == 1 or plan.ffn.ep == 1:
        return ""
    if not _exchanged(setting, plan):
        return "gather"
    gpu, words = setting.cluster.gpu, words_of(setting.engine)
    kind = "deepep" if gpu.arch in DEEPEP else "mori" if gpu.arch in MORI else "gather"
    kind = BY_ROLE.get(role, "gather") if kind == "deepep" and _either(words) else kind
    return kind if words.has("all to all", kind) else "gather"


def _either(words: Words) -> bool:
    """Whether a server takes DeepEP's kernels for prompts or those for decode, and never both."""
    return words.has("all to all", "deepep steps")


def _exchanged(setting: Setting, plan: Plan) -> bool:
    """Whether tokens were simulated to travel to their experts, instead of all being gathered everywhere."""
    link, per_node = setting.cluster.gpu.link, setting.cluster.per_node
    return exchanges(plan, link.span if link.multi_node else per_node)


def notes_of(ask: ServerStart, where: Sequence[Place], router: tuple[str, ...] | None = None) -> list[str]:
    """What the commands alone do not say; router: what deals requests, () for nginx, by default the engine's own."""
    setting, plan, row = ask.setting, ask.plan, ask.engine
    notes = [*ask.weights.notes, _length_note(ask)]
    if row.max_num_seqs < setting.engine.max_num_seqs:
        notes.append(
            f"{row.max_num_seqs:,} sequences, not {setting.engine.max_num_seqs:,}: the state of the recurrent layers has "
            "room for no more at the low end of the prediction"
        )
    notes += _sent_notes(ask)
    if plan.precision.activation != "auto":
        notes.append(f"activations in {plan.precision.activation}: the checkpoint decides, no flag does")
    if plan.draft and drafter_unknown(plan.draft):
        who = f"draft model {plan.draft.model}" if plan.draft.model else "EAGLE-3 head of this model"
        notes.append(f"DRAFTER is the {who}: name it or its path")
    if plan.precision.kv == "fp16" and not ask.kv:
        notes.append(f"a KV cache in fp16 was simulated; {row.name} {row.spoken} has no word for it and keeps it in the model's own format")
    usual, admits = ask.usual, ask.words.has("whole prompt fits")
    odd = [name for name in RULES if getattr(row, name) != getattr(usual, name) and not (name == "admission" and admits)]
    if odd:
        notes.append(f"simulated with a rule of its own ({', '.join(odd)}), which {row.name} {row.spoken} cannot be told")
    if len(where) > 1:
        each = plan.replica_devices
        route, program = setting.router.name, setting.engine.server.router if router is None else router
        turn = turned("nginx", route, own_rules(program))
        behind = "nginx" if turn else f"a {route} router"
        notes.append(f"{len(where)} servers of {each} GPU{'s' * (each > 1)}, behind {behind} on port {FIRST_PORT}")
        notes += turn
    return notes


def _sent_notes(ask: ServerStart) -> list[str]:
    """Where tokens reach their experts by other ways than were simulated, or fewer of them do."""
    setting, plan, row = ask.setting, ask.plan, ask.engine
    notes = []
    if _exchanged(setting, plan) and ask.travel == "gather":
        able = setting.cluster.gpu.arch in DEEPEP and _either(ask.words)
        why = (
            "takes DeepEP's kernels for prompts or those for decode, not both,"
            if able
            else f"has no such library for {setting.cluster.gpu.name}"
        )
        notes.append(
            f"tokens were simulated to travel to their experts; {row.name} {row.spoken} {why} "
            "and gathers all tokens on every GPU: expect it to be slower"
        )
    if ask.sequences < row.max_num_seqs:
        larger = f" (asked with a maximum of its own, up to {SENT // ask.width:,}, they are as large)" if ask.sent < SENT else ""
        notes.append(
            f"{ask.sequences:,} sequences{' a lane' * (plan.lanes > 1)}, not {row.max_num_seqs:,} as was simulated: what a GPU sends to "
            f"experts at once is kept in buffers, made for {ask.sent:,} tokens{larger}"
        )
    return notes


def _length_note(ask: ServerStart) -> str:
    """What the model length means: the longest request that was simulated beside what the server takes, in all of its lanes."""
    setting, length, row = ask.setting, ask.length, ask.engine
    limit = f"the model allows {setting.model.max_length:,}"
    limit += f", this server {length:,}" if length != setting.model.max_length else ""
    whole = not row.chunk and row.length_budget >= HOLDS_PROMPT and row.max_num_batched_tokens < length
    limit += f", its prompts {row.max_num_batched_tokens:,} (they are not chunked)" if whole else ""
    room = counted(at_full_length(ask.room, row, length) * ask.plan.lanes)
    return f"longest simulated request {setting.workload.longest:,} tokens; {limit}, room for {room} of those"
