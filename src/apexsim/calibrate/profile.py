"""What a calibration leaves behind: factors, for which system, from what, and the doubt that remains (floor 5).

    rest'   = sqrt((SHRINK · rest² + n · s²) / (SHRINK + n))      s = median |held-back log error| / MIDDLE
    offset' = rest' / sqrt(n)

n: held-back errors of a metric; rest: the engine's usual scatter between runs, which counts as SHRINK errors, so that few points that
agree by luck do not make a prediction certain; MIDDLE: the middle of |T| of Student's t with three degrees of freedom.  The offset of
a system is what a mean of n runs leaves of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from apexsim.cost.factors import Factors
from apexsim.doubt import Doubt
from apexsim.errors import InputError, nearest
from apexsim.files import own_folder, read_json

FORMAT = "apexsim.profile/1"
SHRINK = 4  # errors that the engine's usual scatter counts for: as many as the designed points
MIDDLE = 0.7649  # P(|T| < MIDDLE) = 1/2
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SYSTEM = ("model", "gpu", "release")
LARGEST = 100.0  # of a factor, either way: more is no calibration


@dataclass(frozen=True, slots=True)
class Profile:
    """A calibration under a name.

    system: what was measured, by "model" (signature), "gpu" and "release"; left: doubt by "ttft", "tpot", "e2e", "power" where runs
    said it; about: provenance as plain values (files, dates, runs, errors before and after).
    """

    name: str
    system: Mapping[str, str]
    factors: Factors
    left: Mapping[str, Doubt]
    about: Mapping[str, Any]


def left_of(errors: Sequence[float], rest: float) -> Doubt:
    """The doubt after a calibration, from held-back log errors and the engine's usual scatter."""
    n = len(errors)
    own = float(np.median(np.abs(errors))) / MIDDLE
    scatter = math.sqrt((SHRINK * rest**2 + n * own**2) / (SHRINK + n))
    return Doubt(scatter / math.sqrt(n), scatter)


def profiles_folder() -> Path:
    """Where profiles are kept: $APEXSIM_PROFILES, else the user's data folder."""
    return own_folder("APEXSIM_PROFILES", "profiles")


def kept() -> list[str]:
    """Names of the profiles that there are."""
    try:
        return sorted(path.stem for path in profiles_folder().glob("*.json"))
    except OSError:
        return []


def place(name: str, flag: str = "--save") -> Path:
    """The file of a name; raises InputError where it is none."""
    if not NAME.fullmatch(name):
        raise InputError(f"'{name}' is no name of a profile", flag, "use up to 100 letters, digits, '.', '-' and '_'")
    return profiles_folder() / f"{name}.json"


def plain_of(profile: Profile) -> dict[str, Any]:
    """A profile as plain values."""
    return {
        "format": FORMAT, "name": profile.name, "system": dict(profile.system),
        "factors": {field.name: getattr(profile.factors, field.name) for field in fields(Factors)},
        "left": {name: {"offset": doubt.offset, "rest": doubt.rest} for name, doubt in profile.left.items()},
        "about": dict(profile.about),
    }  # fmt: skip


def save(profile: Profile, force: bool = False) -> Path:
    """Keep a profile, replaced in one step; raises InputError where its name is taken or nothing can be written."""
    path = place(profile.name)
    if path.exists() and not force:
        raise InputError(f"a profile '{profile.name}' is there already", str(path), "give --force to replace it, or another name")
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(plain_of(profile), indent=1) + "\n", encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise InputError(f"cannot keep the profile: {error.strerror}", str(path), "set APEXSIM_PROFILES") from None
    return path


def load_profile(name: str, flag: str = "--profile") -> Profile:
    """The profile of a name; raises InputError where there is none or its file was damaged."""
    path = place(name, flag)
    if not path.is_file():
        known = kept()
        raise InputError(
            f"no profile is called '{name}'", flag, nearest(name, known) if known else "make one: apexsim calibrate … --save NAME"
        )
    whole = read_json(path, "profile")
    try:
        return _read(whole, name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"is no profile of this program ({error})", str(path), "calibrate again") from None


def _read(whole: Any, name: str) -> Profile:
    if whole["format"] != FORMAT:
        raise ValueError(f"expected {FORMAT}")
    factors = Factors(**{field.name: _factor(whole["factors"][field.name]) for field in fields(Factors)})
    left = {str(what): Doubt(_scale(each["offset"]), _scale(each["rest"])) for what, each in whole["left"].items()}
    return Profile(name, {what: str(whole["system"][what]) for what in SYSTEM}, factors, left, dict(whole["about"]))


def _factor(value: Any) -> float:
    if not isinstance(value, (int, float)) or not 1.0 / LARGEST <= value <= LARGEST:
        raise ValueError(f"a factor is {str(value)[:20]}")
    return float(value)


def _scale(value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0.0 <= value <= LARGEST:
        raise ValueError(f"a scale is {str(value)[:20]}")
    return float(value)
