"""The commands `profile …`: measure an accelerator into a device folder (floor 7)."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from contextlib import closing
from importlib import resources
from typing import TYPE_CHECKING, Any

from apexsim.cli.options import checked, with_options
from apexsim.cli.outside import Progress, say
from apexsim.errors import InputError, shown
from apexsim.examples import expanded

if TYPE_CHECKING:
    from apexsim.gpu import Gpu

ABOUT = "Measure an accelerator of your own into a device folder, with PyTorch on that accelerator."
SUBJECT = {
    "gemm": "matrix products",
    "attention": "attention of prompts and of decode",
    "moe": "routed experts under balanced load",
    "comm": "collectives of all GPUs of this node",
    "all": "everything: matrix products, attention, experts, collectives",
}
TEXT = """Measure {subject}, and write a device folder for --gpu.

Sizes are added where curves bend. What the folder holds already is not measured again: a run that was cut short goes on.

Examples:

  apexsim profile {what} --out my-npu --gpu h100-sxm --dry-run
"""
OTHERS = re.compile(r"^(name|aliases|kernels|borrow) = (\[[^\]]*\]|[^\n]*)\n", re.MULTILINE)  # keys that stay behind
DTYPES = {"bf16": "bf16", "fp16": "half", "half": "half", "fp32": "float", "float": "float"}


def _command(what: str) -> Callable[..., None]:
    def run(**given: Any) -> None:
        given = checked(f"profile {what}", given)
        words = [word.strip().lower() for word in given["dtype"].split(",") if word.strip()]
        unknown = next((word for word in words if word not in DTYPES), None)
        if unknown is not None or not words:
            raise InputError(f"cannot measure the format '{unknown or ''}'", "--dtype", f"known: {', '.join(DTYPES)}")
        dtypes = tuple(dict.fromkeys(DTYPES[word] for word in words))
        (_forecast if given["dry_run"] else _measure)(what, dtypes, given)

    run.__name__, run.__doc__ = what, f"Measure {SUBJECT[what]}."
    return with_options(f"profile {what}")(run)


def _forecast(what: str, dtypes: tuple[str, ...], given: dict[str, Any]) -> None:
    from apexsim.hardware import load_gpu
    from apexsim.profile.run import Paper, forecast
    from apexsim.units import format_seconds

    if given["gpu"] is None:
        raise InputError("a dry run needs to know the accelerator", "--gpu", "give its name")
    gpu = load_gpu(given["gpu"])
    ranks = given["gpus"] or (gpu.link.span if 1 < gpu.link.span <= 8 else 8)
    rows = list(forecast(what, Paper(gpu, ranks), dtypes, given["tolerance"]))
    lines = [f"Would measure on {gpu.name} into {shown(given['out'])} (times from its roofline; real curves bend more):", ""]
    lines += [f"{r.kind:15} {r.sizes:3} sizes {r.rows:6,} rows  about {format_seconds(r.seconds)}" for r in rows]
    lines += ["", f"{sum(r.rows for r in rows):,} rows, about {format_seconds(sum(r.seconds for r in rows))}"]
    sys.stdout.write("\n".join(lines) + "\n")


def _measure(what: str, dtypes: tuple[str, ...], given: dict[str, Any]) -> None:
    from apexsim.profile.run import measure
    from apexsim.profile.store import Store
    from apexsim.profile.torch_timer import TorchTimer
    from apexsim.units import format_seconds

    with closing(TorchTimer("cuda", ranks=given["gpus"] or 0)) as timer:
        gpu = _gpu(given["gpu"] or timer.name)
        store = Store(expanded(given["out"]))
        store.describe(described(gpu))
        budget = math.inf if given["budget"] is None else 60.0 * given["budget"]
        with Progress() as progress:
            done = measure(what, timer, store, dtypes, given["tolerance"], budget, progress)
    text = f"{done.measured:,} rows measured in {format_seconds(done.seconds)}, {done.known:,} known before"
    text += f", {done.impossible:,} could not run" if done.impossible else ""
    say(f"apexsim: {text}" + (f"; {done.left:,} left: start again to go on" if done.left else ""))
    sys.stdout.write(f"next: apexsim device check {shown(given['out'])}\n")


def _gpu(name: str) -> Gpu:
    from apexsim.hardware import load_gpu

    try:
        return load_gpu(name)
    except InputError as error:
        raise InputError(error.what, "--gpu", "say what it is most like, or give a .toml file with its figures") from None


def described(gpu: Gpu) -> str:
    """A device.toml with the figures of a GPU, under a name of its own, borrowing what is not measured from that GPU."""
    for file in sorted((resources.files("apexsim") / "data" / "gpus").iterdir(), key=lambda f: f.name):
        text = file.read_text(encoding="utf-8")
        if file.name.endswith(".toml") and text.startswith(f'name = "{gpu.name}"'):
            top, sign, tables = text.partition("\n[")
            own = OTHERS.sub("", top + "\n").lstrip() + sign.lstrip() + tables
            lender = gpu.kernels or gpu.borrow
            head = [f'name = "{gpu.name}-measured"', *([f'borrow = "{lender}"'] if lender else [])]
            return "\n".join([*head, own])
    raise InputError(f"no figures of {gpu.name} to copy", "--gpu", "name a GPU of the catalogue, or put a device.toml into --out")


HELP = {f"profile {what}": TEXT.format(what=what, subject=subject) for what, subject in SUBJECT.items()}
RUN = {f"profile {what}": _command(what) for what in SUBJECT}
