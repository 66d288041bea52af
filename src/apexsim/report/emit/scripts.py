"""Shell scripts that start a plan's servers, one for each node, and stop them together (floor 6)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from apexsim.report.emit.deployment import Deployment, File
from apexsim.report.servers import FIRST_PORT, Command

START = """#!/usr/bin/env bash
{head}# Starts everything of {what} and stops it again at Ctrl-C; what each server says is in logs/.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p logs
{needs}trap 'trap - EXIT; jobs -p | xargs -r kill 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
ready() {{ # ready HOST:PORT: wait until a server answers
  until curl --silent --fail --max-time 5 --output /dev/null "http://$1/health"; do
    if [ -n "$(jobs -p)" ] && [ -z "$(jobs -rp)" ]; then echo "a server has ended: see logs/" >&2; exit 1; fi
    sleep 5
  done
}}
"""
END = """echo {ready}
wait -n
echo "a server has ended: see logs/" >&2
exit 1
"""


UNKNOWN = {"MIG": "the UUID of a slice: nvidia-smi -L", "DRAFTER": "the model or head that drafts: its name or path"}
DIGITS = "0123456789"


def _unknown(body: str) -> list[str]:
    """Variables of a script that the user alone knows, besides the nodes."""
    found = re.findall(rf"\$({'|'.join(UNKNOWN)})(\d*)", body)
    return sorted({f"{name}{number}" for name, number in found}, key=lambda name: (len(name), name))


def run_files(made: Deployment) -> list[File]:
    """run.sh of one node; node-0.sh, node-1.sh … of several."""
    nodes = made.setting.cluster.nodes
    if nodes == 1:
        return [File("run.sh", _script(made, 0, "this node"), True)]
    return [File(f"node-{node}.sh", _script(made, node, f"node {node} of {nodes}"), True) for node in range(nodes)]


def _script(made: Deployment, node: int, what: str) -> str:
    started = made.started
    before = [c for c in started.before if c.node == node]
    here = list(dict.fromkeys(c for each in started.servers for c in each if c.node == node))
    router = [c for c in started.router if c.node == node]
    lines = [c.text() for c in before] + _servers(here)
    if node == 0:
        lines += [f"ready {_address(made, i)}" for i in range(made.servers)]
        lines += [_beside(c, "router") for c in router]
    body = "\n".join(lines) + "\n"
    named = sorted({int(n) for n in re.findall(r"\$NODE(\d+)", body)} | ({0} if node == 0 and made.setting.cluster.nodes > 1 else set()))
    needs = "".join(f': "${{NODE{n}:?set NODE{n} to the address of node {n}}}"\n' for n in named)
    needs += "".join(f': "${{{name}:?set {name} to {UNKNOWN[name.rstrip(DIGITS)]}}}"\n' for name in _unknown(body))
    host = "127.0.0.1" if made.setting.cluster.nodes == 1 else "$NODE0"
    ready = "started" if node else f'"ready: http://{host}:{FIRST_PORT}"'
    return START.format(head=made.head, what=what, needs=needs) + body + END.format(ready=ready)


def _servers(commands: Sequence[Command]) -> list[str]:
    """The commands of a node in order; those that last run beside each other, each with a log."""
    lasting = [c for c in commands if c.lasting]
    return [_beside(c, f"server-{lasting.index(c)}") if c.lasting else c.text() for c in commands]


def _beside(command: Command, name: str) -> str:
    """A command that runs on; one that writes a file does so first."""
    return f"{command.text()} >logs/{name}.log 2>&1 &" if command.lasting else command.text()


def _address(made: Deployment, at: int) -> str:
    """Where a server answers."""
    place = made.started.where[at]
    return f'"$NODE{place.nodes[0]}:{place.port}"' if made.setting.cluster.nodes > 1 else f"127.0.0.1:{place.port}"
