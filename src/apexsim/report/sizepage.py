"""The answer to a question asked backwards: sentences first, then what each plan or GPU would do (floor 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from apexsim.report import curvepage
from apexsim.report.draw import UNKNOWN, sig
from apexsim.report.figures import listed
from apexsim.report.jsonout import margin_json
from apexsim.report.launch import launch
from apexsim.report.page import columns, heading, labelled, page
from apexsim.report.plain import clean
from apexsim.search.size import LOADS, Size, SizeAnswer

FORMAT = "apexsim.size/1"
TOP = 12  # answers shown
UNITS = {"rate": "requests/s", "users": "users", "gpus": "GPUs", "context": "prompt tokens"}
KEYS = {"rate": "max_request_rate", "users": "max_users", "gpus": "min_gpus", "context": "max_prompt_len"}
STATISTIC = "tightest_s"


def render(size: Size, *, width: int | None = None, color: bool = False, top: int = TOP, everything: bool = False) -> str:
    """The whole page.  width: columns of the terminal, if any; top: answers shown."""
    return page(_parts(size, width or math.inf, len(size.found) if everything else top), color)


def condition(size: Size) -> tuple[str, str]:
    """Under what the answers stand: a head and what it means."""
    if size.wanted.find in LOADS or limits(size):
        return "at the limit", limits(size) or "where the load is just kept up with"
    return "under the load", "that is asked for"


def _parts(size: Size, width: float, top: int) -> Iterator[RenderableType]:
    yield heading("apexsim", f"{size.model}: {question(size)}", width=width)
    yield labelled([("answer", " ".join(sentences(size)))], width)
    if size.found:
        yield Text()
        yield heading(*condition(size), width=width)
        heads, rows = table(size, size.found[:top])
        yield columns(heads, rows, bold=0)
        yield labelled(_legend(size, top), width)
    yield from curvepage.parts([size.curve] if size.curve else [], width)
    if size.unmet:
        yield labelled([("in vain" if not i else "", told) for i, told in enumerate(size.unmet)], width)
    best = size.best
    if best is None:
        return
    started = launch(best.setting, best.plan)
    yield Text()
    yield heading("launch", f"{best.plan.shorthand} on {_gpus(best)}", width=width)
    if started.runnable:
        yield Text(started.script, no_wrap=True)
    yield labelled([("", note) for note in started.notes], width)


# ---- words ---------------------------------------------------------------------------------------------------------------


def question(size: Size) -> str:
    asked = {"rate": "most requests/s", "users": "most users", "gpus": "fewest GPUs", "context": "longest prompt"}
    return asked.get(size.wanted.find, f"tightest {size.wanted.find}")


def limits(size: Size) -> str:
    slos = [f"{slo}{f' ({100 * size.wanted.share:.10g}% of requests)' * slo.per_request}" for slo in size.goal.slos]
    cap = [f"{size.goal.power_cap:.12g} W per GPU"] if math.isfinite(size.goal.power_cap) else []
    return listed([*slos, *cap])


def _within(size: Size) -> str:
    return f" within {told}" if (told := limits(size)) else ""


def _gpus(one: SizeAnswer) -> str:
    return f"{one.gpus} × {one.setting.cluster.gpu.name}"


def amount(size: Size, value: float) -> str:
    """A value of what is searched, without its unit."""
    if not math.isfinite(value):
        return UNKNOWN if math.isnan(value) else "more than was tried"
    if size.wanted.find == "rate":
        return sig(value)
    return f"{value:,.0f}" if size.wanted.find in UNITS else f"{sig(1e3 * value)} ms"


def _interval(size: Size, one: SizeAnswer) -> str:
    """Where two of three real systems would come out."""
    if math.isnan(one.low) or one.low == one.high:
        return ""
    return f" ({amount(size, one.low)} to {amount(size, one.high)} on two of three real systems)"


def _load(size: Size) -> str:
    """The load of the question."""
    one = size.best or size.nearest
    closed = one is not None and one.setting.workload.mode == "closed"
    return f"{size.asked:,.0f} user{'s' * (size.asked > 1)}" if closed else f"{size.asked:.12g} requests/s"


def sentences(size: Size) -> list[str]:
    """The answer in one to three sentences."""
    best = size.best
    return [_unmet(size), *_helps(size)] if best is None else [
        _head(size, best), *_money(size, best), *_second(size, best), *_unpriced(size, best), *_short(best)]  # fmt: skip


def _head(size: Size, best: SizeAnswer) -> str:
    name, value, ends = f"{_gpus(best)} as {best.plan.shorthand}", amount(size, best.value), _interval(size, best)
    if size.wanted.find == "gpus":
        return f"{name} {'is' if best.gpus == 1 else 'are'} enough for {_load(size)}{_within(size)}{ends}."
    if size.wanted.find == "context":
        taken = "--max-model-len leaves" if best.setting.max_model_len < best.setting.model.max_length else "the model takes"
        most = f"all that {taken}" if best.open_end else f"prompts up to {value} tokens{ends}"
        return f"{name} holds {most}{f': {value} tokens' * best.open_end} with {_load(size)}{_within(size)}."
    if size.wanted.find not in UNITS:
        return f"{name} keeps {size.wanted.find}={value.replace(' ', '')}{ends} with {_load(size)}{_within(size)}."
    least = "at least " if best.open_end else "up to "
    room = f": {sig(best.value / size.asked, 2)} times the {size.asked:.12g} asked about" if size.asked > 0 else ""
    return f"{name} serves {least}{value} {UNITS[size.wanted.find]}{ends}{_within(size)}{room}."


def _money(size: Size, best: SizeAnswer) -> list[str]:
    if not math.isfinite(best.rent):
        return []
    usd = best.dollars
    return [f"That is ${sig(best.rent)} per hour and ${sig(usd['total'])} per million tokens (all of it over input alone "
            f"${sig(usd['input'])}, over output alone ${sig(usd['output'])})."]  # fmt: skip


def _second(size: Size, best: SizeAnswer) -> list[str]:
    """What comes next on other GPUs."""
    other = next((one for one in size.found if one.setting.cluster.gpu.name != best.setting.cluster.gpu.name), None)
    if other is None or (size.wanted.find == "gpus" and math.isfinite(best.rent) > math.isfinite(other.rent)):
        return []
    told = "" if size.wanted.find == "gpus" else f", {amount(size, other.value)} {UNITS.get(size.wanted.find, '')}".rstrip()
    rent = f", ${sig(other.rent)} per hour" if math.isfinite(other.rent) else ""
    rent += f": as cheap where the first's price is {size.may_rise:.0%} higher, or its own {1 - 1 / (1 + size.may_rise):.0%} lower" * (
        size.may_rise > 0.0
    )
    return [f"Next comes {_gpus(other)} as {other.plan.shorthand}{told}{rent}."]


def _unpriced(size: Size, best: SizeAnswer) -> list[str]:
    """What stands last for want of a rent, where the cheapest is asked for."""
    if size.wanted.find != "gpus" or not math.isfinite(best.rent):
        return []
    found = [f"{_gpus(one)} as {one.plan.shorthand}" for one in size.found if not math.isfinite(one.rent)]
    return [f"Enough too, at a rent that is not known: {listed(found, 'or')}."] if found else []


def _short(best: SizeAnswer) -> list[str]:
    told = f"The run is short for {sig(best.run.metrics.mean_concurrency)} requests in flight, so this is hopeful"
    hint = "more requests would tell" if best.setting.workload.fmt else f"--num-requests {4 * best.setting.workload.size} tells more"
    return [f"{told}: {hint}."] if best.short else []


def _unmet(size: Size) -> str:
    near = size.nearest
    if near is None:
        return f"Nothing keeps up{_within(size)}."
    missed = [m for m in near.run.limits if not m.kept]
    how = listed([f"{m.name.rpartition('=')[0]} of {_measured(m.measured, m.metric)}" for m in missed])
    if near.run.limits and size.goal.risk and near.run.key[0]:
        how += f"{', and ' * bool(how)}limits that {near.run.chance:.0%} of real runs keep, where {1.0 - size.goal.risk:.0%} are to"
    share = near.run.metrics.least_attained
    if not missed and share < size.wanted.share:
        how = f"{share:.0%} of the requests within their limits"
    if size.wanted.find == "context":
        return f"No prompt is short enough for {_load(size)}{_within(size)}: {near.plan.shorthand} on {_gpus(near)} comes nearest" + (
            f", with {how} for a prompt of one token." if how else ", and does not keep up with the load."
        )
    any_load = size.wanted.find in UNITS and size.wanted.find != "gpus"
    load, under = ("any load", _under(near)) if any_load else (_load(size), "")
    return f"Nothing that was tried serves {load}{_within(size)}: {near.plan.shorthand} on {_gpus(near)} comes nearest" + (
        f", with {how}{under}." if how else f", and does not keep up{under or ' with the load'}."
    )


def _under(near: SizeAnswer) -> str:
    """The load that was looked at, where the question names none."""
    work = near.setting.workload
    if work.mode == "open":
        return f" at {sig(near.rate)} requests/s"
    return f" with {work.concurrency:,} user{'s' * (work.concurrency != 1)}"


def _measured(value: float, metric: str) -> str:
    return f"{sig(value)} W" if metric == "power" else f"{sig(1e3 * value)} ms"


def _helps(size: Size) -> list[str]:
    if size.helps:
        return [f"Would help, each simulated: {listed(size.helps, 'or')}."]
    return ["Faster or more GPUs, shorter prompts or looser limits are left."]


# ---- the table -------------------------------------------------------------------------------------------------------------


def table(size: Size, shown: tuple[SizeAnswer, ...]) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """(heads, rows) of the answers."""
    heads = [("GPUs", "left"), ("plan", "left"), (UNITS.get(size.wanted.find, size.wanted.find), "right"), ("68 %", "right"),
             ("requests/s", "right"), ("in flight", "right"), ("$/h", "right"), ("$/1M in", "right"), ("$/1M out", "right"),
             ("$/1M", "right")]  # fmt: skip
    rows = []
    for one in shown:
        usd = one.dollars
        ends = UNKNOWN if math.isnan(one.low) else f"{amount(size, one.low)} – {amount(size, one.high) if math.isfinite(one.high) else '…'}"
        rows.append([
            _gpus(one), one.plan.shorthand, f"{'≥ ' * one.open_end}{amount(size, one.value)}", ends, sig(one.rate),
            sig(one.run.metrics.mean_concurrency), sig(one.rent), *(sig(usd[kind]) for kind in ("input", "output", "total")),
        ])  # fmt: skip
    drop = {"rate": 4}.get(size.wanted.find)  # it is the value itself
    return [h for i, h in enumerate(heads) if i != drop], [[c for i, c in enumerate(row) if i != drop] for row in rows]


def _legend(size: Size, top: int) -> list[tuple[str, str]]:
    hidden = len(size.found) - top
    rows = [("$", "all the rent over the input tokens alone, over the output tokens alone, and over both")]
    rows += [("68 %", "what two of three real systems should come to, by the errors of predictions; the first plan of each cluster has it")]
    return [*rows, *([("…", f"{hidden} more with --top {len(size.found)}")] if hidden > 0 else [])]


# ---- JSON --------------------------------------------------------------------------------------------------------------------


def size_json(size: Size) -> dict[str, Any]:
    """The answer as plain values."""
    best, key = size.best, KEYS.get(size.wanted.find, STATISTIC)
    ends = {"value": best.value, "low": best.low, "high": best.high} if best else None
    load = size.wanted.find in ("rate", "users") and best is not None and size.asked > 0
    told: dict[str, Any] = clean({
        "format": FORMAT, "model": size.model, "find": size.wanted.find, "unit": UNITS.get(size.wanted.find, "s"),
        "inputs": dict(size.inputs), "slos": [str(slo) for slo in size.goal.slos], "risk": size.goal.risk, "share": size.wanted.share,
        "think_s": size.wanted.think, "budget_usd_h": size.wanted.budget, "asked": size.asked, "sentences": sentences(size),
        **{name: ends if name == key else None for name in (*KEYS.values(), STATISTIC)},
        "head_room": best.value / size.asked if load and best else None,
        "found": [_record(one) for one in size.found], "unmet": list(size.unmet),
        "nearest": _record(size.nearest) if size.nearest and not size.found else None, "would_help": list(size.helps),
        "curve": curvepage.curve_json(size.curve) if size.curve else None,
        **({} if math.isnan(size.may_rise) else {"price_may_rise": size.may_rise}),
    })  # fmt: skip
    return told


def _record(one: SizeAnswer) -> dict[str, Any]:
    work, cluster = one.setting.workload, one.setting.cluster
    return {
        "gpu": cluster.gpu.name, "gpus": one.gpus, "nodes": cluster.nodes, "plan": one.plan.shorthand, "value": one.value,
        "low": one.low, "high": one.high, "open_end": one.open_end, "request_rate": one.rate,
        "in_flight": one.run.metrics.mean_concurrency, "users": work.concurrency if work.mode == "closed" else None,
        "usd_per_hour": one.rent, "usd_per_million": one.dollars, "limits": [margin_json(m) for m in one.run.limits],
        "attainment": one.run.metrics.attainment, "launch": launch(one.setting, one.plan).script or None,
    }  # fmt: skip
