"""The commands `device …`: check a folder that describes an accelerator, and keep it under a name (floor 7)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apexsim.cli.files import STDOUT
from apexsim.cli.options import checked, with_options
from apexsim.cli.outside import present, say
from apexsim.errors import InputError
from apexsim.examples import located

if TYPE_CHECKING:
    from apexsim.cost.device_check import Report

ABOUT = "Bring your own accelerator: check a folder of its figures and measured times, and keep it under a name."
CHECK_HELP = """Is a device folder sound, and which times will be measured, transferred or computed?

A folder holds device.toml and, where measured, CSV files of operator times; docs/devices.md describes both. Checks
units, ranges, gaps, swapped columns, outliers, missing sizes and cells. Exit code 2 when it cannot be used.

Examples:

  apexsim device check examples/devices/npu-1

  apexsim device check examples/devices/npu-1 --json
"""
ADD_HELP = """Keep a device folder, so that --gpu knows it by its name. It is checked first; an unsound one is refused.

Without this, --gpu takes the path of the folder. Devices are kept in $APEXSIM_DEVICES, else in the user's data folder.

Examples:

  apexsim device add my-npu
"""
Folder = Annotated[str, typer.Argument(help="Folder with a device.toml.", metavar="FOLDER", show_default=False)]


@with_options("device check")
def check(folder: Folder, **given: Any) -> None:
    """Findings and coverage."""
    from apexsim.report.devicepage import device_json, device_text

    report = _report(folder)
    if report.sound or given["json"] != STDOUT:
        present(device_json(report), lambda: device_text(report), given["json"])
    _refuse(report, folder)


@with_options("device add")
def add(folder: Folder, **given: Any) -> None:
    """Check, then copy."""
    from apexsim.hardware import devices_folder, gpu_names, spelling
    from apexsim.report.devicepage import device_text

    given = checked("device add", given)
    report = _report(folder)
    if not report.sound:
        sys.stdout.write(device_text(report))
    _refuse(report, folder)
    name = spelling(given["name"] or report.gpu.name)
    if not name or len(name) > 100:
        told = f"'{(given['name'] or report.gpu.name)[:40]}' is no name of a device"
        raise InputError(told, "--name", "use up to 100 letters and digits")
    if name in {spelling(known) for known in gpu_names()}:
        raise InputError(f"'{name}' is a GPU of the catalogue", "--name", "give another name")
    target = devices_folder() / name
    if target.exists() and target.samefile(located(folder)):
        raise InputError(f"the device '{name}' is this folder itself", folder, "give another --name")
    if target.exists() and not given["force"]:
        raise InputError(f"a device '{name}' is there already", str(target), "give --force to replace it, or another --name")
    _copy(located(folder), target)
    say(f"apexsim: kept in {target}; use it as --gpu {name}")


def _report(folder: str) -> Report:
    from apexsim.cost.device_check import check_device

    path = located(folder)
    if not path.is_dir():
        raise InputError(f"'{folder}' is no folder", "FOLDER", "name a folder with a device.toml")
    return check_device(path)


def _refuse(report: Report, folder: str) -> None:
    """Raise InputError with the first error."""
    errors = [f for f in report.findings if f.level == "error"]
    if errors:
        from apexsim.report.devicepage import device_json

        told = f"{len(errors)} error{'s' * (len(errors) > 1)}, first {errors[0].line()}"
        raise InputError(told, folder, record=device_json(report))


def _copy(source: Path, target: Path) -> None:
    """Replace a device in one step, as far as folders can be: copied beside it, then renamed."""
    fresh = target.with_name(f".{target.name}.new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for path in [source / "device.toml", *sorted(source.glob("*.csv"))]:
            shutil.copyfile(path, fresh / path.name)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    except OSError as error:
        raise InputError(f"cannot keep the device: {error.strerror}", str(target), "set APEXSIM_DEVICES") from None


HELP = {"device check": CHECK_HELP, "device add": ADD_HELP}
RUN = {"device check": check, "device add": add}
