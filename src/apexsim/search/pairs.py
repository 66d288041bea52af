"""Plans of two pools (floor 5)."""

from __future__ import annotations

from apexsim.plan.space import Space
from apexsim.search.setting import Setting


def with_splits(setting: Setting, space: Space, *, hypothetical: bool = False) -> Space:
    """The space with plans of two pools."""
    return space
