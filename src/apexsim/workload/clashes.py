"""Options of a question that would do nothing beside others: refused, never ignored (floor 2).

Names are those of the command line's rows.  What only shows in the files and models themselves (a trace that has no
times, a model without experts) is refused where those are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from apexsim.errors import InputError

Given = Mapping[str, Any]  # the options that were given, without the rest
When = Callable[[Given], bool]


@dataclass(frozen=True, slots=True)
class Clash:
    """`option` does nothing `when` …, `because` …; hint: what to do instead."""

    option: str
    when: When
    because: str
    hint: str = ""


def beside(*names: str) -> When:
    """Any of these is given."""
    return lambda given: any(name in given for name in names)


def without(*names: str) -> When:
    """None of these is given."""
    return lambda given: not any(name in given for name in names)


def both(*conditions: When) -> When:
    """All conditions hold."""
    return lambda given: all(when(given) for when in conditions)


def no_rate(given: Given) -> bool:
    """No rate that spaces the arrivals."""
    return "stages" not in given and not math.isfinite(given.get("request_rate", math.inf))


def _all_alike(given: Given) -> bool:
    """Nothing of the made-up requests is drawn."""
    return (
        not {"trace", "workload", "stages", "shared_prefix"} & given.keys()
        and no_rate(given)
        and not any(given.get(name) for name in VARIED)
        and not given.get("length_spread", "concurrency" in given)
    )


def _no_auto(given: Given) -> bool:
    return "quant" in given and "auto" not in [word.strip() for word in str(given["quant"]).split(",")]


VARIED = ("prompt_cv", "output_cv")
BLIND = ("round-robin", "prefix-hash", "session-hash")  # routes that ask nothing of the replicas
PRESET = "a workload preset has its own lengths"
OWN_LENGTHS, OWN_ARRIVALS = "a trace has its own lengths", "a trace has its own arrivals"
NO_TRACE, NO_GAPS = "no trace is read", "it shapes the gaps between arrivals, and no finite --request-rate is given"
QUESTION = (
    Clash("workload", beside("trace"), OWN_LENGTHS, "drop one of both"),
    *(Clash(name, beside("workload"), PRESET, "drop one of both") for name in ("prompt_len", "output_len", "length_spread", *VARIED)),
    *(Clash(name, beside("trace"), OWN_LENGTHS, "see: apexsim trace scale --help") for name in VARIED),
    Clash("length_spread", beside(*VARIED), "the lengths are drawn from a distribution", "drop one of both"),
    Clash("lengths", without(*VARIED), "no length is drawn from a distribution", "add --prompt-cv or --output-cv"),
    Clash("num_requests", beside("trace"), "a trace has its own requests", "shorten it: apexsim trace filter --head N"),
    Clash("length_spread", beside("trace"), OWN_LENGTHS, "see: apexsim trace scale --help"),
    Clash("burstiness", beside("trace"), OWN_ARRIVALS, "see: apexsim trace synth --like"),
    Clash("burstiness", no_rate, NO_GAPS, "add --request-rate R"),
    Clash("seed", both(beside("trace"), no_rate), "nothing of a trace is drawn", "drop it"),
    Clash("seed", _all_alike, "nothing is drawn: all requests are alike", "add --request-rate or --length-spread"),
    *(
        Clash(name, beside("trace"), "a trace has its own requests", "see: apexsim trace synth --help")
        for name in ("stages", "shared_prefix", "turns", "turn_gap")
    ),
    *(Clash(name, beside("stages"), "the stages have their own", "drop one of both") for name in ("request_rate", "num_requests")),
    *(
        Clash("stages", beside(name), "they are stages of an open loop of single requests", "drop one of both")
        for name in ("concurrency", "turns")
    ),
    Clash("turns", beside("concurrency"), "users of a closed loop wait for their own last request only", "drop one of both"),
    Clash("turn_gap", without("turns"), "there is one turn", "add --turns N"),
    Clash(
        "signal_age",
        lambda given: given.get("route", BLIND[0]) in BLIND,
        "the router looks at nothing",
        "add --route, e.g. least-outstanding",
    ),
    Clash("time_unit", without("trace"), NO_TRACE, "add --trace FILE"),
    Clash("map", without("trace"), NO_TRACE, "add --trace FILE"),
    Clash("rate_factor", beside("concurrency"), "users send when they are answered", "change --concurrency"),
    Clash("rate_factor", beside("request_rate"), "the rate is given", "change --request-rate"),
    Clash("image_size", without("images"), "the requests have no images", "add --images N"),
    *(
        Clash(name, both(beside("disaggregate"), without("plan")), "each pool has widths of its own", "name one: simulate --plan 2xTP4+TP8")
        for name in ("tp", "pp", "dp", "ep", "enable_expert_parallel")
    ),
    *(
        Clash(name, without("disaggregate", "plan"), "plans have one pool", "add --disaggregate")
        for name in ("prefill_settings", "decode_settings", "connector", "conditional_disagg")
    ),
    Clash("weight_dtype", _no_auto, "--quant does not hold the checkpoint's own format", "add auto to --quant"),
)
NO_WIDTHS = tuple(
    Clash(name, beside("plan"), "the plan names its own widths", "drop one of both")
    for name in ("tp", "pp", "dp", "ep", "enable_expert_parallel")
)


def refuse(clashes: Iterable[Clash], given: Given) -> None:
    """Raise InputError where an option does nothing beside the others that are given."""
    for clash in clashes:
        if clash.option in given and clash.when(given):
            flag = "--" + clash.option.replace("_", "-")
            raise InputError(f"it has no effect: {clash.because}", flag, clash.hint)
