"""One acceptance length per engine, model and drafts, fitted on pairs of runs with and without drafts.

    python scripts/fit_acceptance.py PAIRS.csv [--rows]

PAIRS.csv: a file of pairs as `apexsim validate` reads it.  Only pairs of grade A that nothing is wrong with count.  The length is the
median of those that make each pair's speed-up right.  Half of the curves (same machine, layout and lengths) are fitted and the other
half is predicted, then the other way round; --rows prints the rows of data/acceptance.csv that all pairs give.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from apexsim.drafting import RANDOM, Acceptance, plain
from apexsim.validate.draft_cases import Pair
from apexsim.validate.kinds import read_cases
from apexsim.validate.replay import Bench, predicted_ms

ROUNDS = 4  # of a secant: the speed-up is nearly in proportion to the length
BAND = 0.1  # faster, slower, or the same within so much
Key = tuple[str, str, int]  # engine, model, drafts


@dataclass(frozen=True, slots=True)
class Run:
    """A pair, the key of its acceptance, and the curve that it is a point of."""

    pair: Pair
    key: Key
    curve: tuple[str, ...]
    speedup: float


class Predicted:
    """Speed-ups by acceptance length; runs without drafts are simulated once."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.known: dict[tuple[str, float], float] = {}

    def tpot(self, run: Run, length: float) -> float:
        """Median time per token [ms]; length 0: of the run without drafts."""
        at = (run.pair.id, round(length, 3))
        if at not in self.known:
            drafts = run.key[2]
            case = replace(run.pair.drafts, accepts=Acceptance((1.0,) * drafts + (at[1],), "fit")) if length else run.pair.plain
            found, _ = self.bench.predict(case)
            self.known[at] = predicted_ms(found, case)["tpot_median_ms"]  # type: ignore[arg-type]
        return self.known[at]

    def speedup(self, run: Run, length: float) -> float:
        """By how much the time per token is shorter."""
        return self.tpot(run, 0.0) / self.tpot(run, length)

    def implied(self, run: Run) -> float:
        """The length that makes it right, within what is possible."""
        most = run.key[2] + 1.0
        length = min(most, 1.0 + 0.6 * run.key[2])
        for _ in range(ROUNDS):
            length = float(np.clip(length * run.speedup / self.speedup(run, length), 1.0, most))
        return length


def runs(path: str) -> list[Run]:
    """The pairs that count."""
    found = []
    for case in read_cases(path)[1]:
        if not isinstance(case, Pair) or case.labels["suspect"] or case.labels["grade"] != "A" or "speedup_tpot" not in case.measured:
            continue
        draft = case.drafts.plan.draft
        assert draft is not None
        key = (case.drafts.engine.name, f"{plain(case.labels['model'])}-{case.labels['precision']}", draft.tokens)
        curve = (case.labels["gpu"], case.drafts.plan.shorthand, case.labels["lengths"], case.labels["mode"])
        found.append(Run(case, key, curve, case.measured["speedup_tpot"]))
    return found


def fitted(predicted: Predicted, chosen: Iterable[Run]) -> dict[Key, float]:
    """The median of what each pair implies."""
    implied: dict[Key, list[float]] = defaultdict(list)
    for run in chosen:
        implied[run.key].append(predicted.implied(run))
    return {key: float(np.median(lengths)) for key, lengths in implied.items()}


def told(name: str, pairs: list[tuple[float, float]]) -> str:
    """Errors of (measured, predicted) speed-ups, and how often faster, slower or the same is right."""
    measured, guess = np.array(pairs).T
    error = np.abs(guess / measured - 1.0)
    classes = [np.sign(x - 1.0) * (np.abs(x - 1.0) > BAND) for x in (measured, guess)]
    right = float(np.mean(classes[0] == classes[1]))
    return f"{name:<34}{len(pairs):>4} pairs  median {np.median(error):6.1%}  p90 {np.quantile(error, 0.9):6.1%}  class right {right:6.1%}"


def halves(predicted: Predicted, all_runs: list[Run]) -> list[tuple[float, float]]:
    """(measured, predicted) of every pair whose key was fitted on the other half of the curves."""
    found = []
    for half in (0, 1):
        side: dict[tuple[Key, tuple[str, ...]], int] = {}
        for key in {run.key for run in all_runs}:
            curves = sorted({run.curve for run in all_runs if run.key == key})
            side |= {(key, curve): i % 2 for i, curve in enumerate(curves)}
        lengths = fitted(predicted, [run for run in all_runs if side[run.key, run.curve] == half])
        others = [run for run in all_runs if side[run.key, run.curve] != half and run.key in lengths]
        found += [(run.speedup, predicted.speedup(run, lengths[run.key])) for run in others]
    return found


def main() -> None:
    """Print errors, lengths, and the rows of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("--rows", action="store_true")
    given = parser.parse_args()
    predicted, all_runs = Predicted(), runs(given.pairs)
    published = []
    for run in all_runs:
        draft, case = run.pair.drafts.plan.draft, run.pair.drafts
        assert draft is not None
        known = replace(predicted.bench.setting(case), acceptance=None).accepts(draft)
        published.append((run.speedup, predicted.speedup(run, known.length(draft.tokens))))
    print(told("published lengths, nothing fitted", published))
    print(told("fitted on the other half of curves", halves(predicted, all_runs)))
    whole = fitted(predicted, all_runs)
    print(told("fitted on all", [(run.speedup, predicted.speedup(run, whole[run.key])) for run in all_runs]))
    for engine, gpu in sorted(set(product(*zip(*[(run.key[0], run.curve[0]) for run in all_runs])))):
        some = [(r.speedup, predicted.speedup(r, whole[r.key])) for r in all_runs if (r.key[0], r.curve[0]) == (engine, gpu)]
        if some:
            print(told(f"  {engine} {gpu}", some))
    for (engine, model, drafts), length in sorted(whole.items()):
        mine = [run for run in all_runs if run.key == (engine, model, drafts)]
        spread = np.array([predicted.implied(run) for run in mine])
        print(f"  {engine:<14}{model:<28}K={drafts}  {length:.2f}  ({len(mine)} pairs, {spread.min():.2f} to {spread.max():.2f})")
        if given.rows:
            print(f"{model},mtp,{RANDOM},{engine},{drafts},{length:.2f},fitted on pairs of InferenceX (Apache-2.0)")


if __name__ == "__main__":
    main()
