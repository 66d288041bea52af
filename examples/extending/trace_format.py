"""A trace format: a map of columns (a row of FORMATS, where it should be recognised by itself)."""

import tempfile
from pathlib import Path

from apexsim.workload.stream import read_trace

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "mine.csv"
    path.write_text("when,in,out\n0,100,20\n250,300,5\n", encoding="utf-8")
    work = read_trace(path, columns={"arrive": "when", "prompt": "in", "output": "out"}, time_unit="ms")
assert list(work.arrive) == [0.0, 0.25] and list(work.prompt) == [100, 300]
print(work.size, "requests")
