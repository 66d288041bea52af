"""Count what breaks the laws of `tests/speed_of_light.py` over all GPUs, engines and formats and more models than the suite has.

python scripts/scan_physics.py [MODEL=PLAN …]     e.g. llama-3.1-70b=TP8; its own list without any
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import speed_of_light as light
from apexsim.hardware import gpu_names


def main() -> int:
    """Parse the command line, scan, print; 1 where a law is broken."""
    models = dict(word.split("=") for word in sys.argv[1:]) or {**light.KINDS, **light.MORE}
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    seen = 0
    for model, plan in models.items():
        steps = {(g, s, f): light.step(model, plan, g, s, f) for g in gpu_names() for s in light.SOURCES for f in light.FORMATS}
        seen += len(steps)
        for (gpu, source, weights), step in steps.items():
            where = f"{model} {gpu} {source} {weights}"
            found["faster than light"].append((light.faster_than_light(step) / light.LIGHT, where))
            found["falls with batch or context"].append((light.falls(step), where))
            found["jumps"].append((light.jumps(step) / light.JUMP, where))
            if weights != "bf16":
                found["experts slower than 16 bit"].append((light.slower(step, steps[gpu, source, "bf16"], few=True), where))
            if gpu in light.FAMILIES and light.comparable(plan, gpu, weights):
                lesser = light.slower(step, steps[light.FAMILIES[gpu], source, weights])
                found["slower than the lesser GPU"].append((lesser / light.BETTER, where))
    for model, plans in ({} if sys.argv[1:] else light.WIDER).items():
        for gpu, source, weights in [(g, s, f) for g in gpu_names() for s in light.SOURCES for f in light.FORMATS]:
            each = [light.step(model, plan, gpu, source, weights) for plan in plans]
            for plan, few, many in zip(plans[1:], each, each[1:], strict=False):
                found["more GPUs slower"].append((light.slower(many, few) / light.SPLIT, f"{model} {plan} {gpu} {source} {weights}"))
    print(f"{seen} combinations")
    broken = 0
    for law, rows in found.items():
        bad = sorted((r for r in rows if r[0] > 1.0 + light.EXACT), reverse=True)
        broken += len(bad)
        print(f"{law}: {len(bad)} of {len(rows)}")
        for ratio, where in bad[:12]:
            print(f"    {ratio:6.2f}  {where}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
