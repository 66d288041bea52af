"""How much one server gives to whoever asks it (floor 7)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes and times.  A question above them is refused in words; work above them is stopped.

    seconds: of one question, from the moment its work begins; jobs: questions worked on at once; queue: questions that wait beside them;
    kept: answers that can still be fetched; gpus: of all nodes; combinations: of lists; memory: that a question may take [byte];
    late: for the head and the body of a request [s]; connections: open at once.
    """

    seconds: float = 120.0
    jobs: int = 1
    gpus: int = 512
    queue: int = 8
    kept: int = 32
    body: int = 1 << 20  # [byte] of a question
    depth: int = 16  # of its JSON
    text: int = 500  # characters of a value
    values: int = 24  # of a list
    upload: int = 32 << 20  # [byte] of a trace
    uploads: int = 8  # traces that are kept
    rows: int = 300_000  # requests of a trace
    requests: int = 300_000  # that are made up
    combinations: int = 60
    memory: int = 4 << 30
    late: float = 10.0
    connections: int = 64
