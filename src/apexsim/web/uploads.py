"""Traces that were uploaded: in memory, by the hash of what they hold, the oldest given up first (floor 7)."""

from __future__ import annotations

import threading
from collections import OrderedDict

from apexsim.web.limits import Limits


class Uploads:
    """(name, content) by `upload:` and the hash."""

    def __init__(self, limits: Limits) -> None:
        self._most, self._lock = limits.uploads, threading.Lock()
        self._kept: OrderedDict[str, tuple[str, bytes]] = OrderedDict()

    def put(self, key: str, upload: tuple[str, bytes]) -> None:
        """Keep one."""
        with self._lock:
            self._kept[key] = upload
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def get(self, key: str) -> tuple[str, bytes] | None:
        """The one of this key, which is then the newest; None where it is not here any more."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)
