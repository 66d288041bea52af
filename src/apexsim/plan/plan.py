"""A plan: how many replicas, stages and devices, and how each cell is split over them (floor 2).

Shorthand grammar, printed and read back exactly:

    plan  := [replicas "×"] ["PP" stages "×"] cells ["@" format] ["@" clock "MHz"] ["+" drafts]
    cells := "TP" n                      attention and FFN split alike
           | "TEP" n                     attention TP n, experts EP n
           | "DEP" n                     attention DP n, experts EP n
           | cell "/" cell               attention / FFN, where they differ
    cell  := ["DP" n] ["TP" n] ["EP" n]  at least one; a missing factor is 1

"@fp8" says that the plan quantises the linear weights itself, "@1410MHz" that it locks the GPUs' SM clock, "+mtp:3" that each step
verifies 3 drafts of a sequence.
Examples: TP8, 2×TP4, PP2×TP4, DP2TP4/TP8, TEP8, 2×DEP8.

Read as well: "x" and "*" for "×", small letters, spaces or commas between factors, and stages without "×" on either
side of the cells (PP4, TP4PP2, tp4 pp2); a factor of 1 says nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from apexsim.drafting import Drafting, parse_drafting
from apexsim.errors import InputError
from apexsim.model.dtypes import dtype


@dataclass(frozen=True, slots=True)
class Layout:
    """How one cell is split over the devices of a stage: dp replicas, each tp × ep wide."""

    dp: int = 1
    tp: int = 1
    ep: int = 1

    @property
    def devices(self) -> int:
        """Devices the cell occupies."""
        return self.dp * self.tp * self.ep

    def __str__(self) -> str:
        parts = [f"{name}{n}" for name, n in (("DP", self.dp), ("TP", self.tp), ("EP", self.ep)) if n > 1]
        return "".join(parts) or "TP1"


@dataclass(frozen=True, slots=True)
class Precision:
    """Number formats of a plan: weights by part, activations, KV cache.

    Parts: attention, ffn, experts, shared, router, embedding, head; what is not named has the default.

    activation "auto": as the kernel of the weight format takes them."""

    weights: tuple[tuple[str, str], ...] = ()
    default: str = "bf16"
    activation: str = "auto"
    kv: str = "bf16"
    tag: str = ""  # the quantisation that the plan chose itself, shown behind its shorthand as "@fp8"

    def weight(self, part: str) -> str:
        """Weight format of one part of the model."""
        return dict(self.weights).get(part, self.default)


def quantised(precision: Precision, name: str) -> Precision:
    """The same with all linear weights in the format `name`, chosen by the plan."""
    return replace(precision, weights=(), default=dtype(name, "--quant").name, tag=name.lower())


GATHERED = 8  # GPUs up to which engines gather all tokens everywhere, where a fast link joins them: the widest groups timed so


@dataclass(frozen=True, slots=True)
class Plan:
    """One way of serving a stack: `replicas` copies, each of `stages` pipeline stages of attention.devices GPUs.

    clock: of the SMs [MHz]; 0 leaves the GPUs their own; draft: how it speculates, None: each step makes one token of a sequence; gathers:
    GPUs of a stage up to which all tokens are gathered for the experts, which the backend of a server decides."""

    replicas: int
    stages: int
    attention: Layout
    ffn: Layout
    precision: Precision = Precision()
    clock: int = 0
    draft: Drafting | None = None
    gathers: int = GATHERED

    @property
    def stage_devices(self) -> int:
        """GPUs of one pipeline stage."""
        return self.attention.devices

    @property
    def replica_devices(self) -> int:
        """GPUs of one model replica."""
        return self.stages * self.stage_devices

    @property
    def devices(self) -> int:
        """GPUs of the whole plan."""
        return self.replicas * self.replica_devices

    @property
    def lanes(self) -> int:
        """Attention lanes: independent KV caches inside one replica."""
        return self.attention.dp

    @property
    def wide(self) -> bool:
        """Whether experts are spread over more GPUs than engines gather all tokens on: tokens travel to them, and what is dense stays with
        the attention's lanes (DeepEP modes; SGLang's --moe-dense-tp-size 1)."""
        return self.lanes > 1 and self.ffn.ep > 1 and self.stage_devices > self.gathers

    @property
    def shorthand(self) -> str:
        """The plan in the field's words; `parse_plan` reads it back."""
        head = f"{self.replicas}×" if self.replicas > 1 else ""
        pipe = f"PP{self.stages}×" if self.stages > 1 else ""
        tail = f"@{self.precision.tag}" if self.precision.tag else ""
        locked, drafts = f"@{self.clock}MHz" if self.clock else "", f"+{self.draft}" if self.draft else ""
        return head + pipe + _cells(self.attention, self.ffn) + tail + locked + drafts


def _cells(attention: Layout, ffn: Layout) -> str:
    if attention == ffn:
        return str(attention)
    n = attention.devices
    if ffn == Layout(ep=n) and attention == Layout(tp=n):
        return f"TEP{n}"
    if ffn == Layout(ep=n) and attention == Layout(dp=n):
        return f"DEP{n}"
    return f"{attention}/{ffn}"


_PLAN = re.compile(r"^(?:(\d{1,9})×)?(?:PP(\d{1,9})×)?([A-Z0-9/]+)$")
_STAGES = re.compile(r"×?PP(\d+)(?!\d)×?(?!\d)")  # a count of replicas stands before it, so nothing is glued to the cells
_CLOCK = re.compile(r"@(\d{1,9}) *MHz$", re.IGNORECASE)
_CELL = re.compile(r"^(?:DP(\d{1,9}))?(?:TP(\d{1,9}))?(?:EP(\d{1,9}))?$")
_GRAMMAR = "expected e.g. TP8, 2×TP4, PP2×TP4, DP2TP4/TP8, TEP8 or DEP8"


def _cell(text: str, whole: str) -> Layout:
    match = _CELL.match(text)
    if not text or not match:
        raise InputError(f"cannot read plan '{whole}'", "--plan", _GRAMMAR)
    dp, tp, ep = (int(g or 1) for g in match.groups())
    if 0 in (dp, tp, ep):
        raise InputError(f"plan '{whole}' has a factor of 0", "--plan", _GRAMMAR)
    return Layout(dp, tp, ep)


def _spelled(shape: str) -> str:
    """Replicas, stages and cells in the order of the grammar."""
    plain = re.sub(r"[X*]", "×", re.sub(r"[\s,]", "", shape.upper()))
    stages = _STAGES.search(plain)
    if not stages:
        return plain
    replicas, sign, cells = _around(plain, stages)
    return f"{replicas}{sign}PP{stages[1]}×{cells or 'TP1'}"  # a sign without replicas breaks the grammar


def _around(plain: str, stages: re.Match[str]) -> tuple[str, str, str]:
    """What stands around the stages: replicas, "×" if there are any, and cells."""
    before, after = plain[: stages.start()], plain[stages.end() :]
    if before.isdecimal():
        return before, "×", after
    count, sign, cells = before.rpartition("×")
    return count, sign or "×" * stages[0].startswith("×") * (not cells), cells + after


def parse_plan(text: str, precision: Precision | None = None) -> Plan:
    """The plan that `text` names; raises InputError where it is not one."""
    whole = text.strip()
    head, drafts, how = whole.partition("+")
    draft = parse_drafting(how) if drafts else None
    head = head.strip()
    locked = _CLOCK.search(head)
    shape, sign, quant = head[: locked.start() if locked else len(head)].partition("@")
    precision = quantised(precision or Precision(), quant.strip()) if sign else precision
    match = _PLAN.match(_spelled(shape))
    if not match:
        raise InputError(f"cannot read plan '{whole}'", "--plan", _GRAMMAR)
    replicas, stages, cells = int(match[1] or 1), int(match[2] or 1), match[3]
    wide = re.match(r"^(TEP|DEP)(\d{1,9})$", cells)
    if wide and int(wide[2]) > 0:
        n = int(wide[2])
        attention, ffn = (Layout(tp=n) if wide[1] == "TEP" else Layout(dp=n)), Layout(ep=n)
    else:
        left, slash, right = cells.partition("/")
        attention = _cell(left, whole)
        ffn = _cell(right, whole) if slash else attention
    if attention.ep > 1 and ffn == attention:
        attention = Layout(attention.dp, attention.tp * attention.ep)
    if replicas < 1 or stages < 1:
        raise InputError(f"plan '{whole}' has a factor of 0", "--plan", _GRAMMAR)
    if attention.devices != ffn.devices:
        what = f"plan '{whole}' puts attention on {attention.devices} GPUs and the FFN on {ffn.devices}"
        raise InputError(what, "--plan", "both cells share one stage's GPUs")
    return Plan(replicas, stages, attention, ffn, precision or Precision(), int(locked[1]) if locked else 0, draft)
