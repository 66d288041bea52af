"""What a record of a dataset asks of a model: conversations, prompts with answers, requests of a batch (floor 2).

A dataset's shape is a row of `SHAPES`: the keys that tell it, and a function that lays its records out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from apexsim.errors import InputError
from apexsim.workload.texts import LINE, Record

Part = str | int  # a text, or a number of tokens where that is what the dataset has

PROMPTS = ("prompt", "instruction", "question", "query", "problem", "user", "human", "input", "text", LINE)
OUTPUTS = ("completion", "output", "response", "answer", "chosen", "assistant", "reply", "gpt", "generation", "solution",
           "target")  # fmt: skip
BESIDE = ("system", "input", "context")  # columns whose text is put before (system) or after the prompt
REPLIES = ("assistant", "gpt", "bot", "model", "chatgpt", "bing", "bard")
SETUPS = ("system", "developer")
LONGEST = 1 << 40  # tokens that no request reaches


@dataclass(frozen=True, slots=True)
class Talk:
    """Parts in their order; the request of each ask k has parts[:k] as its prompt and parts[k] as its output."""

    parts: tuple[Part, ...]
    asks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants of a dataset: columns by name ("" = known ones), every turn or the first, outputs of one length
    [tokens] instead of the dataset's (0 = the dataset's)."""

    prompt: str = ""
    output: str = ""
    every: bool = False
    length: int = 0


class NoAnswer(Exception):
    """A record without the answer that its output length would come from."""


def talk_of(record: Record, wish: Wish) -> Talk:
    """The requests of a record; raises `InputError` without a place, or `NoAnswer`."""
    if wish.prompt or wish.output:
        return _columns(record, wish)
    for key, lay_out in SHAPES:
        if key in record:
            return lay_out(record, wish)
    return _columns({key.lower(): value for key, value in record.items()}, wish)


# ---- conversations ------------------------------------------------------------------------------------------------


def _turns(value: Any) -> list[tuple[str, Part]]:
    """(role, text) of each turn of a conversation."""
    if not isinstance(value, list):
        raise InputError(f"a conversation is a list of turns, got {type(value).__name__}")
    turns = []
    for turn in value:
        if not isinstance(turn, dict):
            raise InputError(f"a turn is an object with a role and a text, got {type(turn).__name__}")
        role = turn.get("from", turn.get("role", ""))
        text = turn.get("value", turn.get("content"))
        turns.append((str(role).lower(), _part(text, "turn")))
    return turns


def _sharegpt(record: Record, wish: Wish) -> Talk:
    """ShareGPT's turns, whose first two serving benchmarks take as prompt and answer whoever says them."""
    turns = _turns(record["conversations"])
    if wish.every:
        return _spoken(turns, wish)
    ahead = next((i for i, (role, _) in enumerate(turns) if role not in SETUPS), len(turns))
    return _answered([part for _, part in turns[: ahead + 2]], ahead + 1, wish)


def _messages(key: str) -> Callable[[Record, Wish], Talk]:
    """Roles and contents; without an answer at the end all of it is one request."""

    def lay_out(record: Record, wish: Wish) -> Talk:
        turns = _turns(record[key])
        if turns and turns[-1][0] in REPLIES:
            return _spoken(turns, wish)
        names = {name.lower(): name for name in record}
        beside = [_part(record[names[name]], name) for name in OUTPUTS if name in names][:1] or [_limit(record)]
        return _answered([*(part for _, part in turns), *beside], len(turns), wish)

    return lay_out


def _spoken(turns: Sequence[tuple[str, Part]], wish: Wish) -> Talk:
    """A request for each answer, or for the first one, after all that was said before."""
    parts = tuple(part for _, part in turns)
    asks = [i for i, (role, part) in enumerate(turns) if i and role in REPLIES and (part or wish.length)]
    if not asks or not any(parts[: asks[0]]):
        raise NoAnswer
    asks = asks if wish.every else asks[:1]
    return Talk(parts[: asks[-1] + 1], tuple(asks))


def _answered(parts: list[Part], at: int, wish: Wish) -> Talk:
    """One request whose answer is parts[at], where there is one."""
    if not any(parts[:at]):
        raise InputError("the prompt is empty")
    if wish.length:
        return Talk((*parts[:at], wish.length), (at,))
    if len(parts) <= at or not parts[at]:
        raise NoAnswer
    return Talk(tuple(parts[: at + 1]), (at,))


# ---- batches ------------------------------------------------------------------------------------------------------


def _batch(record: Record, wish: Wish) -> Talk:
    """A line of an OpenAI batch: the whole of it is the prompt; the output is the limit that it states."""
    body = record["body"]
    if not isinstance(body, dict):
        raise InputError(f"'body' is no object but {type(body).__name__}")
    if "messages" in body:
        parts = [part for _, part in _turns(body["messages"])]
    else:
        parts = [_part(body.get("prompt", body.get("input")), "prompt")]
    return _answered([*parts, _limit(body)], len(parts), wish)


def _limit(request: Record) -> int:
    """The longest output that a request allows [tokens], 0 where it states none."""
    limit = request.get("max_completion_tokens", request.get("max_tokens")) or 0
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit < LONGEST:
        raise InputError(f"'max_tokens' is no number of tokens: {limit!r}")
    return limit


# ---- columns ------------------------------------------------------------------------------------------------------


def _columns(record: Record, wish: Wish) -> Talk:
    """A prompt and its answer in columns of their own; either may be a list of messages."""
    asked = _column(record, wish.prompt, PROMPTS, "prompt")
    before = [] if wish.prompt else [key for key in BESIDE if key == "system" and record.get(key)]
    after = [] if wish.prompt else [key for key in BESIDE if key not in ("system", asked) and record.get(key)]
    prompt = [part for key in (*before, asked, *after) for part in _said(record[key], key)]
    if wish.length:
        return _answered(prompt, len(prompt), wish)
    given = _column(record, wish.output, OUTPUTS, "output")
    answer = _said(record[given], given)
    if len(answer) > 1 and all(isinstance(part, str) for part in answer):
        answer = ["\n".join(map(str, answer))]
    return _answered([*prompt, *answer[:1]], len(prompt), wish)


def _column(record: Record, wanted: str, known: tuple[str, ...], what: str) -> str:
    """The column of the prompt or the output."""
    names = {key.lower(): key for key in record}
    column = names.get(wanted.lower(), "") if wanted else next((names[key] for key in known if key in names), "")
    if not column:
        have = ", ".join(list(record)[:8])
        told = f"there is no column '{wanted}'" if wanted else f"no column is known to hold the {what}"
        hint = "" if wanted or what == "prompt" else " or --output-len N"
        raise InputError(f"{told} among: {have}", hint=f"name it with --{what}-field{hint}")
    return column


def _said(value: Any, key: str) -> list[Part]:
    """What a cell holds, message by message where it holds messages."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [part for _, part in _turns(value)]
    return [_part(value, key)]


def _part(value: Any, what: str) -> Part:
    """A text, joined where it is in pieces, or the number of token ids."""
    if isinstance(value, str):
        return value if value.strip() else ""
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        if value and all(type(item) is int for item in value):
            return len(value)
        pieces = [item.get("text", "") if isinstance(item, dict) else item for item in value]
        if all(isinstance(piece, str) for piece in pieces):
            return "\n".join(filter(None, pieces))
    raise InputError(f"'{what}' holds no text but {type(value).__name__}")


SHAPES: tuple[tuple[str, Callable[[Record, Wish], Talk]], ...] = (
    ("conversations", _sharegpt),
    ("body", _batch),
    ("messages", _messages("messages")),
    ("conversation", _messages("conversation")),
)
KNOWN = (*PROMPTS, *OUTPUTS, *(key for key, _ in SHAPES))
