"""A plan of two pools: one computes the prompts, the other makes the tokens (floor 2).

    split := pool "+" pool        prefill, then decode
    pool  := plan ["@" GPU]       as in `plan.plan`; a GPU where it is not the cluster's own

The second one's drafts ("+mtp:3" behind it) are those of the plan: the first computes what the draft layers keep of a prompt.

Examples: 3×TP4+DEP8, 3xTP4+1xDEP8, 2×TP4@h100-sxm+TP8@h200-sxm, 4×TP1@fp8+TP4@fp8, 3×TP4+DEP8+mtp:3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from apexsim.drafting import METHODS, SPELLED, Drafting
from apexsim.errors import InputError
from apexsim.model.dtypes import ALIASES, DTYPES, STATED
from apexsim.plan.plan import Plan, Precision, parse_plan

ROLES = ("prefill", "decode")
SIGN = "+"
_WAYS = rf"(?:{'|'.join(METHODS)})[ :]*\d|(?:{'|'.join(('draft', *SPELLED))}):"
BETWEEN = re.compile(rf"\+(?! *(?:{_WAYS}))", re.IGNORECASE)  # pools, not a plan and its drafts: TP8+mtp:3
EXAMPLE = "expected e.g. 3×TP4+DEP8: workers for prompts, then workers for tokens"


@dataclass(frozen=True, slots=True)
class Split:
    """Prompts on the workers of one pool, tokens on those of the other; gpus: the GPU of each pool, "" for the cluster's own."""

    prefill: Plan
    decode: Plan
    gpus: tuple[str, str] = ("", "")

    @property
    def pools(self) -> tuple[Plan, Plan]:
        """Both, in the order in which a request passes them."""
        return self.prefill, self.decode

    @property
    def started(self) -> tuple[Plan, Plan]:
        """Both as their servers are started: those of prompts know of the draft layers too."""
        return replace(self.prefill, draft=self.draft), self.decode

    @property
    def devices(self) -> int:
        """GPUs of both pools."""
        return self.prefill.devices + self.decode.devices

    @property
    def precision(self) -> Precision:
        """Number formats of the pool that makes the tokens; those of the cache are the same in both."""
        return self.decode.precision

    @property
    def clock(self) -> int:
        """SM clock [MHz] where both pools have the same, else 0."""
        return self.decode.clock if self.prefill.clock == self.decode.clock else 0

    @property
    def draft(self) -> Drafting | None:
        """How the pool that makes the tokens speculates."""
        return self.decode.draft

    @property
    def shorthand(self) -> str:
        """The plan in the field's words; `parse_split` reads it back."""
        shapes = (replace(plan, draft=None).shorthand + (f"@{gpu}" if gpu else "") for plan, gpu in zip(self.pools, self.gpus))
        return SIGN.join((*shapes, *([str(self.draft)] if self.draft else [])))


AnyPlan = Plan | Split


def pools_of(plan: AnyPlan) -> tuple[Plan, ...]:
    """The pools of a plan: itself where it has one."""
    return plan.pools if isinstance(plan, Split) else (plan,)


def clocked(plan: AnyPlan, clock: int) -> AnyPlan:
    """The plan at an SM clock [MHz]."""
    if isinstance(plan, Plan):
        return replace(plan, clock=clock)
    return replace(plan, prefill=replace(plan.prefill, clock=clock), decode=replace(plan.decode, clock=clock))


def formatted(plan: AnyPlan, precision: Precision) -> AnyPlan:
    """The plan in other number formats."""
    if isinstance(plan, Plan):
        return replace(plan, precision=precision)
    return replace(plan, prefill=replace(plan.prefill, precision=precision), decode=replace(plan.decode, precision=precision))


def copied(plan: AnyPlan, times: int) -> AnyPlan:
    """So many times the plan, beside each other."""
    if isinstance(plan, Plan):
        return replace(plan, replicas=plan.replicas * times)
    first, last = (replace(pool, replicas=pool.replicas * times) for pool in plan.pools)
    return replace(plan, prefill=first, decode=last)


def named_split(text: str) -> bool:
    """Whether a text names a plan of several pools."""
    return BETWEEN.search(text) is not None


def parse_any(text: str, precision: Precision | None = None) -> AnyPlan:
    """The plan that `text` names, of one pool or of two; raises InputError where it is not one."""
    return parse_split(text, precision) if named_split(text) else parse_plan(text, precision)


def parse_split(text: str, precision: Precision | None = None) -> Split:
    """The plan of two pools that `text` names; raises InputError where it is not one."""
    parts = [part.strip() for part in BETWEEN.split(text)]
    if len(parts) != len(ROLES):
        raise InputError(f"plan '{text.strip()}' has {len(parts)} pools, prefill and decode are two", "--plan", EXAMPLE)
    for role, part in zip(ROLES, parts):
        if not part:
            raise InputError(f"the {role} pool of plan '{text.strip()}' is empty", "--plan", EXAMPLE)
    (first, gpu), (last, other) = (_pool(part, precision) for part in parts)
    if first.draft is not None:
        raise InputError(
            f"the prefill pool of plan '{text.strip()}' drafts", "--plan", "write drafts behind the decode pool: 3×TP4+DEP8+mtp:3"
        )
    return Split(first, last, (gpu, other))


def _pool(text: str, precision: Precision | None) -> tuple[Plan, str]:
    """One pool, and the GPU that it names."""
    head, sign, drafts = text.partition(SIGN)
    shape, *tags = head.split("@")
    gpus = [tag.strip() for tag in tags if not _tag(tag)]
    if len(gpus) > 1:
        raise InputError(f"pool '{text}' names two GPUs, {gpus[0]} and {gpus[1]}", "--plan", "name one of both")
    rest = "@".join([shape.strip(), *(tag.strip() for tag in tags if _tag(tag))]) + sign + drafts
    return parse_plan(rest, precision), gpus[0].lower() if gpus else ""


def _tag(text: str) -> bool:
    """Whether a tag is a number format or a clock, not a GPU."""
    word = text.strip().lower()
    return bool(re.fullmatch(r"\d+ *mhz", word) or STATED.fullmatch(word)) or word in DTYPES or word in ALIASES
