"""What a check of a device folder found, as text and JSON (floor 6)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from apexsim.cost.device_check import Report
from apexsim.errors import shown

FORMAT = "apexsim.device/1"


def device_json(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "format": FORMAT,
        "name": report.gpu.name,
        "sound": report.sound,
        "findings": [asdict(finding) for finding in report.findings],
        "operators": [asdict(cover) for cover in report.covers],
    }


def device_text(report: Report) -> str:
    """The report for reading: the verdict, every finding, where each operator's time comes from."""
    counts = {level: sum(f.level == level for f in report.findings) for level in ("error", "warning", "note")}
    verdict = "can be used" if report.sound else "cannot be used"
    lines = [
        f"{report.gpu.name} {verdict}: " + ", ".join(f"{n} {level}{'s' * (n != 1)}" for level, n in counts.items()),
        "",
    ]
    lines += [f"{finding.level:8} {finding.line()}" for finding in report.findings]
    lines += [
        "",
        "Where times will come from (beyond what was measured they are extrapolated, in between interpolated)",
        "",
    ]
    wide = max(len(cover.operator) for cover in report.covers)
    lines += [f"{cover.operator:{wide}}  {cover.source:11}  {cover.detail}" for cover in report.covers]
    return "\n".join(map(shown, lines)) + "\n"
