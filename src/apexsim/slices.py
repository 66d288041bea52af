"""MIG slices: a part of one NVIDIA GPU, given to one server (floor 1).

    FLOP/s · SMs of the slice / SMs of the card        memory, bandwidth, last-level cache · parts of the slice / parts of the card

A slice is a GPU with these lower peaks that borrows the measured kernels of the whole card; launches stay.  Nothing of a slice was
measured here.  A slice has no NVLink and no peers: a server sees one slice, several slices are replicas.  Power: the larger of the two
shares of the card's; rent: its share in whole slices (the number before g).  Ignored: what neighbours on the card draw of its power.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from apexsim.errors import InputError, nearest
from apexsim.gpu import Gpu
from apexsim.units import GiB

# h100:3g.40gb, h100-mig-3g.40gb, "NVIDIA H100 80GB HBM3 MIG 3g.40gb"
SPELLED = re.compile(r"(?P<card>.+?)[-_:/ ]+(?:mig[-_:/. ]*)?(?P<profile>\d+g\.\d+gb)(?P<more>[+-]\w[\w.+]*)?", re.IGNORECASE)
UNFINISHED = re.compile(r"(?P<card>.+?)[-_:/ ]+(?:mig[-_:/. ]*(?P<rest>.*)|(?P<half>\d+g(?:\.\d*)?))", re.IGNORECASE)
UNLISTED = 0.985  # of a slice's share of the memory that it sees, where no listing was at hand: A100 and H100 list 0.961 to 0.998


@dataclass(frozen=True, slots=True)
class SliceProfile:
    """A slice: its name, and its shares of the card.  gib: memory it sees, 0 = by share."""

    name: str
    compute: float
    memory: float
    rent: float
    gib: float = 0.0


@cache
def _profiles() -> dict[str, tuple[SliceProfile, ...]]:
    """GPU -> its profiles."""
    found: dict[str, tuple[SliceProfile, ...]] = {}
    for row in tomllib.loads((files("apexsim") / "data/mig.toml").read_text(encoding="utf-8")).values():
        most = max(int(p["name"].partition("g")[0]) for p in row["profiles"])
        made = tuple(
            SliceProfile(
                p["name"], p["sms"] / row["of"], p["memory"] / row["parts"], int(p["name"].partition("g")[0]) / most, p.get("gib", 0.0)
            )
            for p in row["profiles"]
        )
        found |= dict.fromkeys(row["gpus"], made)
    return found


def profiles(gpu: str) -> tuple[SliceProfile, ...]:
    """The slices that a GPU of the catalogue can be cut into, () = none."""
    return _profiles().get(gpu, ())


def spelled(text: str) -> tuple[str, str] | None:
    """The card and the profile that a spelling of a slice names; a profile "" is still to be told."""
    if found := SPELLED.fullmatch(text.strip()):
        return found["card"], found["profile"].lower()
    unfinished = UNFINISHED.fullmatch(text.strip())
    return (unfinished["card"], (unfinished["rest"] or unfinished["half"] or "").lower()) if unfinished else None


def sliced(gpu: Gpu, name: str) -> Gpu:
    """The slice of a GPU; raises InputError where it has no such profile."""
    known = profiles(gpu.name)
    if not known:
        raise InputError(f"{gpu.name} is not cut into MIG slices", "--gpu", "A30, A100, A800, Hopper, B200, B300 and RTX PRO 6000 are")
    found = next((p for p in known if p.name == name), None)
    if found is None:
        told = f"{gpu.name} has no MIG profile '{name}'" if name else f"which slice of {gpu.name}?"
        names = [p.name for p in known]
        raise InputError(told, "--gpu", f"{nearest(name, names) if name else 'its profiles: ' + ', '.join(names)}")
    share = max(found.compute, found.memory)
    note = (
        f"a MIG slice: {found.compute:.0%} of the SMs and {found.memory:.1%} of the memory and bandwidth of one {gpu.name}; times are "
        f"scaled from the whole card, nothing was measured on a slice; rent is {found.rent:.0%} of the card's; one server per slice; "
        "MIG0, MIG1 … in the launch line are the slices' UUIDs, see nvidia-smi -L"
    )
    alone = replace(gpu.host, span=1)
    return replace(
        gpu,
        name=f"{gpu.name}-mig-{name}",
        aliases=(),
        flops=MappingProxyType({k: v * found.compute for k, v in gpu.flops.items()}),
        memory_bytes=found.gib * GiB or UNLISTED * found.memory * gpu.memory_bytes,
        memory_nominal_bytes=gpu.memory_nominal_bytes * found.memory,
        memory_bandwidth=gpu.memory_bandwidth * found.memory,
        cache_bytes=gpu.cache_bytes * found.memory,
        link=alone,
        host=replace(gpu.host, span=sys.maxsize),
        tdp_w=gpu.tdp_w * share,
        idle_w=gpu.idle_w * share,
        kernels="",
        borrow=gpu.kernels or gpu.borrow,
        prices=MappingProxyType({k: v * found.rent for k, v in gpu.prices.items()}),
        notes=(note,),
        profile=name,
    )
