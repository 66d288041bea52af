"""How unevenly routers choose experts: the exponent of their popularity, fitted on closed-loop runs.

    python scripts/fit_load.py [validation/closed_loop.csv]      five minutes

Runs of InferenceX of models with more than FEW experts are replayed with each exponent, all constants as shipped.  Printed per model: the
mean error of TPOT, and how far the errors of one sweep over users (same system, layout and lengths) lie from their median, which no
constant of a host can mend; then the exponent that is best by either, for gpt-oss, for all others, and for these with each left out.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from apexsim.cost.load import FEW
from apexsim.errors import Rejected
from apexsim.model.cells import Experts
from apexsim.model.model import Model
from apexsim.validate.cases import Case
from apexsim.validate.kinds import read_cases
from apexsim.validate.replay import Bench, predicted_ms

FILE = Path(__file__).resolve().parent.parent / "validation/closed_loop.csv"
EXPONENTS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
LEAST, APART = 3, "gpt-oss"  # runs of a sweep; the model with an exponent of its own
Errors = dict[str, dict[tuple[str, ...], list[float]]]  # model -> sweep -> log(predicted / measured)


def skewed(model: Model, exponent: float) -> Model:
    """The model with experts of that popularity."""

    def blocks(stack):  # type: ignore[no-untyped-def]
        return tuple(
            replace(block, cells=tuple(replace(c, skew=exponent) if isinstance(c, Experts) else c for c in block.cells))
            for block in stack.blocks
        )

    return replace(model, stacks=tuple(replace(stack, blocks=blocks(stack)) for stack in model.stacks))


def experts_of(model: Model) -> int:
    """Routed experts of a layer, 0 without any."""
    return max((c.experts for s in model.stacks for b in s.blocks for c in b.cells if isinstance(c, Experts)), default=0)


def errors(cases: list[Case], exponent: float) -> Errors:
    """Of TPOT, with one exponent."""
    bench, found = Bench(), defaultdict(lambda: defaultdict(list))  # type: ignore[var-annotated]
    for case in cases:
        ran, _ = bench.predict(replace(case, model=skewed(case.model, exponent)))
        if not isinstance(ran, Rejected):
            off = math.log(predicted_ms(ran, case)["tpot_mean_ms"] / case.measured["tpot_mean_ms"])
            words = (case.engine.server.name, case.labels["gpu"], case.labels["version"], case.plan.shorthand, str(case.plan.precision))
            lengths = (str(round(math.log2(x.mean()))) for x in (case.workload.prompt, case.workload.output))
            found[case.model.name][(*words, *lengths)].append(off)
    return found


def scores(errors: Errors, models: list[str]) -> tuple[float, float]:
    """Mean error, and mean distance from the median of a sweep."""
    sweeps = [np.array(sweep) for model in models for sweep in errors[model].values()]
    every = np.concatenate(sweeps)
    apart = np.concatenate([sweep - np.median(sweep) for sweep in sweeps if len(sweep) >= LEAST])
    return float(np.abs(every).mean()), float(np.abs(apart).mean())


def main(argv: list[str]) -> int:
    """Replay and print."""
    cases = [c for c in read_cases(argv[0] if argv else FILE)[1] if isinstance(c, Case) and c.measured.get("tpot_mean_ms", 0.0) > 0]
    cases = [c for c in cases if c.labels["origin"] == "inferencex" and not c.labels["suspect"] and experts_of(c.model) > FEW]
    found = {exponent: errors(cases, exponent) for exponent in EXPONENTS}
    models = sorted(found[EXPONENTS[0]])
    rest = [m for m in models if APART not in m]
    groups = {m: [m] for m in models} | {"all but gpt-oss": rest} | {f"... without {m}": [x for x in rest if x != m] for m in rest}
    print(f"{'exponent':44s}" + "".join(f"{e:12g}" for e in EXPONENTS) + "   best by error, by sweeps")
    for name, group in groups.items():
        told = [scores(found[e], group) for e in EXPONENTS]
        best = [EXPONENTS[min(range(len(told)), key=lambda i: told[i][which])] for which in (0, 1)]
        print(f"{name:44s}" + "".join(f"{100 * a:6.1f}/{100 * b:4.1f}%" for a, b in told) + f"   {best[0]:g}, {best[1]:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
