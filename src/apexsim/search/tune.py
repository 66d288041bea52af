"""The engine's settings around the best plan, walked one after the other, with the fewest changes (floor 5).

Each setting in turn takes the value that serves best with the others as they stand, until no setting moves any more.  Then every change is
taken back that is worth no more than the difference at which two plans of a study are a tie: what is left is worth a flag.  Every value
told was simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from apexsim.engines import IN_PARTS, EngineRow
from apexsim.errors import InputError, Rejected
from apexsim.search.assess import Assessed, assess
from apexsim.search.error import comparison_error, tie
from apexsim.search.goal import Goal
from apexsim.search.remedy import Asked
from apexsim.search.setting import Setting
from apexsim.search.study import SettingMove, Study, Tuned

ROUNDS = 3  # through all settings
MOST_MEMORY = 0.95  # of the GPU: with more, what start-up logs say of the rest no longer fits


@dataclass(frozen=True, slots=True)
class Knob:
    """A setting that is walked: the values that may be tried, and what more and less of it do, in words."""

    name: str
    values: tuple[float, ...]
    more: str
    less: str
    applies: Callable[[EngineRow], bool] = field(default=lambda row: True)


KNOBS = (
    Knob("max_num_batched_tokens", (512, 1024, 2048, 4096, 8192, 16384, 32768), "prompts take fewer steps",
         "steps that hold prompts are shorter, so tokens of others wait less", lambda row: bool(row.chunk)),
    Knob("max_num_seqs", (16, 32, 64, 128, 256, 512, 1024), "more requests run at once, fewer wait",
         "fewer requests run at once, so each of their tokens comes sooner"),
    Knob("memory_fraction", (0.80, 0.85, 0.90, 0.92, MOST_MEMORY), "the KV cache has more room", "the KV cache has less room"),
    Knob("block_size", (16, 32, 64), "blocks are larger", "blocks are smaller"),
    Knob("capture", (512, 1024, 2048, 4096), "longer prompts do not wait for their launches", "fewer graphs leave the KV cache more room",
         lambda row: bool(row.pad) and row.prompt_graphs == IN_PARTS),
)  # fmt: skip


@dataclass(slots=True)
class _Walk:
    """Settings of one plan, each combination simulated once."""

    study: Study
    asked: Asked
    given: Mapping[str, Any]  # settings of the question
    done: dict[tuple[tuple[str, Any], ...], tuple[Setting, Assessed] | None] = field(default_factory=dict)

    def run(self, changes: Mapping[str, Any]) -> tuple[Setting, Assessed] | None:
        """The plan with some settings changed; None where the engine refuses them, or the plan no longer fits."""
        key = tuple(sorted(changes.items()))
        if key not in self.done:
            self.done[key] = self._simulated(changes)
        return self.done[key]

    def _simulated(self, changes: Mapping[str, Any]) -> tuple[Setting, Assessed] | None:
        try:
            setting, _, goal, _ = self.asked({"settings": {**self.given, **changes}})
        except InputError:
            return None
        found = assess(setting, goal, _start(self.study).plan)
        return None if isinstance(found, Rejected) else (setting, replace(found, outcome=None))

    def better(self, changes: Mapping[str, Any], than: Mapping[str, Any]) -> bool:
        """Whether some changes are worth more than others, beyond a tie."""
        new, old = self.run(changes), self.run(than)
        return new is not None and (old is None or beats(new[1], old[1], self.study.goal))


def beats(new: Assessed, old: Assessed, goal: Goal) -> bool:
    """Whether a run keeps what the other does not, misses the limits by less, or is better by the objective: by more than a tie."""
    width = comparison_error(goal.objective.name)
    kept, was = (not new.keeps, new.metrics.saturated), (not old.keeps, old.metrics.saturated)
    if kept != was:
        return kept < was
    if not new.keeps and not tie(new.key[0], old.key[0], width):
        return new.key[0] < old.key[0]
    return new.key[2] < old.key[2] and not tie(new.value, old.value, width)


def _start(study: Study) -> Assessed:
    """The plan that is tuned: the best that can be started."""
    return study.ranked[0] if study.single or study.best is None else study.best


def tuned(study: Study, asked: Asked) -> Study:
    """The study with the settings that are worth a flag."""
    given = dict(study.inputs.get("settings") or {})
    walk = _Walk(study, asked, given)
    start = walk.run({})
    assert start is not None
    row = start[0].engine
    knobs = [knob for knob in KNOBS if knob.name not in given and knob.applies(row)]
    best = _walked(walk, knobs, row)
    best = _fewest(walk, best)
    found = walk.run(best)
    assert found is not None
    moves = tuple(_move(walk, best, knob, row) for knob in knobs if knob.name in best)
    apart = tuple(knob.name for knob in knobs if knob.name not in best)
    tried = sum(one is not None for one in walk.done.values())
    return replace(study, tuned=Tuned(found[0], found[1], start[1], moves, apart, tried))


def _walked(walk: _Walk, knobs: list[Knob], row: EngineRow) -> dict[str, Any]:
    """The changes after which no single other value is better."""
    best: dict[str, Any] = {}
    for _ in range(ROUNDS):
        before = dict(best)
        for knob in knobs:
            for changes in _values(knob, row, best):
                new, old = walk.run(changes), walk.run(best)
                if new is not None and old is not None and new[1].key[:3] < old[1].key[:3]:
                    best = changes
        if best == before:
            break
    return best


def _values(knob: Knob, row: EngineRow, best: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The changes with each other value of a knob; the engine's own is no change."""
    others = {name: value for name, value in best.items() if name != knob.name}
    for value in knob.values:
        yield others if value == _own(row, knob.name) else {**others, knob.name: value}


def _own(row: EngineRow, name: str) -> Any:
    """What a setting is where nobody asks for another: what the question asks for is no knob."""
    return row.max_capture if name == "capture" else getattr(row, name)


def _fewest(walk: _Walk, best: dict[str, Any]) -> dict[str, Any]:
    """The changes without those that are worth no more than a tie, the least worth first."""
    while best:
        rest = [{name: value for name, value in best.items() if name != left} for left in best]
        able = [changes for changes in rest if walk.run(changes) is not None and not walk.better(best, changes)]
        if not able:
            break
        best = min(able, key=lambda changes: _key(walk, changes))
    return best


def _key(walk: _Walk, changes: Mapping[str, Any]) -> Any:
    found = walk.run(changes)
    assert found is not None
    return found[1].key


def _move(walk: _Walk, best: Mapping[str, Any], knob: Knob, row: EngineRow) -> SettingMove:
    """What a change is worth: everything as it is, against everything but this."""
    value, own = best[knob.name], _own(row, knob.name)
    without = walk.run({name: v for name, v in best.items() if name != knob.name})
    found = walk.run(best)
    assert found is not None
    return SettingMove(knob.name, own, value, knob.more if value > own else knob.less, without[1] if without else found[1], found[1])
