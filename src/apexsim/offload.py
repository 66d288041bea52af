"""Tiers behind the KV cache of a server: host memory, disks, stores (floor 1).

`--kv-offload cpu:200GB,disk:2TB@6GB/s+100us` says how much each holds and how fast it is read; engines say what is written to them
and when, and what waits for a load (`engine_file.Behind`).  docs/caching.md states what of that is modelled.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace

from apexsim.engine_file import TIERS, Behind, Engine
from apexsim.errors import InputError
from apexsim.gpu import Gpu
from apexsim.units import parse_duration

SIZES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30, "ti": 2.0**40}
FASTEST = 1e14  # byte/s: no memory of today is read so fast; a rate above it is a slip of the unit
FORM = "write KIND:SIZE[@RATE[+LATENCY[+PER BLOCK]]], e.g. cpu:200GB@55GB/s,disk:2TB@6GB/s+100us"
_SIZE = re.compile(r"([0-9]*\.?[0-9]+)\s*([kmgtp]?i?)b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier of a server.

    kind: cpu (each GPU reads its part over its own slot), disk or remote (all of them over one way); size [byte] of all GPUs together;
    rate [byte/s] of one GPU's slot, or of the one way; latency [s] of a load; block [s] for each block of it.
    """

    kind: str
    size: float
    rate: float = math.nan
    latency: float = math.nan
    block: float = 0.0
    slot: bool = field(default=False, kw_only=True)  # nobody stated the rate: it is that of the GPU's slot

    def on(self, gpu: Gpu) -> Tier:
        """The same with what the catalogue knows of the GPU's slot, where nothing is stated: its peak; raises InputError for a disk."""
        unknown = self.slot or math.isnan(self.rate)
        if unknown and self.kind != "cpu":
            hint = f"e.g. {self.kind}:2TB@6GB/s; one request's pull from a peer was measured at 6.95GB/s+27ms"
            raise InputError(f"nobody knows how fast the {self.kind} is", "--kv-offload", hint)
        rate = gpu.host.bandwidth if unknown else self.rate
        wait = gpu.host.latency if self.kind == "cpu" else 0.0
        return replace(self, rate=rate, latency=wait if math.isnan(self.latency) else self.latency, slot=unknown)


def tiers_of(text: str, flag: str = "--kv-offload") -> tuple[Tier, ...]:
    """The tiers that "cpu:200GB@55GB/s,disk:2TB@6GB/s+100us" names, the nearest first; raises InputError."""
    found = tuple(_tier(part.strip(), flag) for part in text.split(","))
    kinds = [tier.kind for tier in found]
    twice = next((kind for kind in TIERS if kinds.count(kind) > 1), "")
    if twice:
        raise InputError(f"one tier '{twice}' is expected, got {kinds.count(twice)}", flag, f"give their sizes as one: {twice}:400GB")
    if sorted(kinds, key=TIERS.index) != kinds:
        raise InputError(f"tiers stand in the order {', '.join(TIERS)}, got {', '.join(kinds)}", flag, FORM)
    return found


def _tier(text: str, flag: str) -> Tier:
    kind, colon, rest = text.partition(":")
    size, at, speed = rest.partition("@")
    rate, *waits = (part.strip() for part in speed.split("+"))
    if colon and kind.strip().lower() not in TIERS:
        raise InputError(f"expected a tier of {', '.join(TIERS)}, got '{kind.strip()[:40]}'", flag, FORM)
    if not colon or len(waits) > 2 or (at and not rate):
        raise InputError(f"cannot read the tier '{text}'", flag, FORM)
    seconds = [parse_duration(each, "s", flag) for each in waits]
    if any(not 0 <= each < 1e6 for each in seconds):
        raise InputError(f"a load takes no such time: '{text}'", flag, FORM)
    speed_ = _bytes(rate.lower().removesuffix("/s"), flag) if at else math.nan
    if at and not (speed_ > 0 and rate.lower().endswith("/s")):
        raise InputError(f"a tier is read at a rate above 0, got '{text}'", flag, FORM)
    if speed_ > FASTEST:
        raise InputError(f"no tier is read at {speed_:.3g} bytes per second, got '{text}'", flag, FORM)
    room = _bytes(size, flag)
    if not room > 0:
        raise InputError(f"a tier of 0 bytes holds nothing, got '{text}'", flag, "give it a size, or drop it")
    return Tier(kind.strip().lower(), room, speed_, *seconds)


def _bytes(text: str, flag: str) -> float:
    match = _SIZE.fullmatch(text.strip())
    if not match or match[2].lower() not in SIZES:
        raise InputError(f"cannot read the size '{text}'", flag, FORM)
    size = float(match[1]) * SIZES[match[2].lower()]
    if not size <= 1e18:
        raise InputError(f"no tier holds {size:.3g} bytes", flag, FORM)
    return size


def way_of(server: Engine, tiers: tuple[Tier, ...]) -> Behind:
    """What an engine does with these tiers; raises InputError where it has no such tier."""
    way = server.behind
    if way is None:
        raise InputError(f"tiers behind the cache of {server.name} are not known", "--kv-offload", "drop it")
    missing = next((tier.kind for tier in tiers if tier.kind not in way.tiers.split()), "")
    if missing:
        raise InputError(f"{server.name} has no tier '{missing}'", "--kv-offload", f"use {way.tiers.replace(' ', ', ')}")
    return way
