"""What every form of deployment is made of: the plan as it is started, names, images, and the pods that its servers are (floor 6)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import apexsim
from apexsim.data_files import table
from apexsim.errors import InputError, shown
from apexsim.plan.plan import Plan
from apexsim.report.dialects import Said
from apexsim.report.launch import Started, notes_of, server_of
from apexsim.report.servers import FIRST_PORT, Command, Place, Shell, image, script
from apexsim.search.assess import Assessed
from apexsim.search.setting import Setting

LONGEST_NAME = 40  # of a resource: Kubernetes takes 63, and adds numbers and words


@dataclass(frozen=True, slots=True)
class File:
    """A file to write; runs: it is a program."""

    name: str
    text: str
    runs: bool = False


@dataclass(frozen=True, slots=True)
class Pod:
    """One server in containers of its own, one on each of its nodes.  words: the program and its arguments; a shell's where they are
    more than one command; env: its variables; gpus: of each node."""

    words: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    nodes: int
    gpus: int


@dataclass(frozen=True)
class Deployment:
    """A plan of an answer that can be started.

    setting: everything but the plan; asked: the question, as its keywords; others: the plans that were ranked, best first."""

    setting: Setting
    run: Assessed
    started: Started
    asked: Mapping[str, Any]
    others: tuple[Assessed, ...]

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.run.only.plan

    @property
    def servers(self) -> int:
        """How many there are, each a replica of the model."""
        return len(self.started.where)

    @cached_property
    def name(self) -> str:
        """Of the resources: letters, digits and hyphens."""
        text = f"{self.setting.model.name.rpartition('/')[2]}-{self.plan.shorthand}".lower().replace("×", "x")
        text = re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:LONGEST_NAME].strip("-")
        return text if re.match("[a-z]", text) else f"m-{text}".rstrip("-")

    @cached_property
    def head(self) -> str:
        """What stands above every file, as comments of a shell or of YAML."""
        return self._head(self.started.notes)

    @cached_property
    def head_by_nginx(self) -> str:
        """The same where nginx deals requests."""
        return self._head([*self.started.notes_by_nginx, *self.unlocked])

    @cached_property
    def head_of_server(self) -> str:
        """The same where others deal requests: of one server alone."""
        return self._head([*notes_of(self.started.ask, ()), *self.unlocked])

    @property
    def unlocked(self) -> list[str]:
        """What a container cannot do for the GPUs that it gets."""
        told = dict.fromkeys(command.text(math.inf) for command in self.started.before)
        return [f"nothing here locks the clock that was simulated: on every node, first, {text}" for text in told]

    @cached_property
    def head_of_plans(self) -> str:
        """The same of files about several plans: no word of one of them."""
        return self._head((), one=False)

    def _head(self, notes: Sequence[str], one: bool = True) -> str:
        cluster, plan = self.setting.cluster, f" as {self.plan.shorthand}" * one
        where = f"{cluster.nodes} nodes of {cluster.per_node}" if cluster.nodes > 1 else f"{cluster.per_node}"
        first = f"{self.setting.model.name}{plan} on {where} {cluster.gpu.name} by {self.setting.engine.label}"
        lines = [f"apexsim {apexsim.__version__}: {first}", *notes]
        return "".join(f"# {' '.join(shown(line).split())}\n" for line in lines)

    @cached_property
    def image(self) -> str:
        """The container image of the engine in its version."""
        row, vendor = self.setting.engine, self.setting.cluster.gpu.vendor
        known = image(row, vendor)
        if known is None:
            raise InputError(f"no container image of {row.server.name} for {vendor} GPUs is known", "--emit", "use run.sh")
        return known

    @cached_property
    def resource(self) -> str:
        """The name by which Kubernetes counts the GPUs."""
        gpu = self.setting.cluster.gpu
        known = table("deploy.toml")["resource"].get(gpu.vendor)
        if known is None:
            raise InputError(f"no Kubernetes resource of {gpu.vendor} GPUs is known", "--emit", "use run.sh or compose")
        return f"nvidia.com/mig-{gpu.profile}" if gpu.profile else str(known[0])

    @cached_property
    def pod(self) -> Pod:
        """A server as it is told in a container: it sees its own GPUs alone, and listens on every interface."""
        place = self.started.where[0]
        alone = Place(0, tuple(range(len(place.nodes))), tuple(range(len(place.gpus))), True, FIRST_PORT)
        ask = self.started.ask
        listens: Said = [("host", "0.0.0.0" if ask.engine.server.loopback else None), ("port", str(FIRST_PORT))]
        commands = server_of(ask, alone, listens)
        env = () if len(commands) > 1 else tuple((k, v) for k, v in commands[0].env if not isinstance(v, Shell))
        return Pod(self._words(commands, len(alone.nodes)), env, len(alone.nodes), len(alone.gpus))

    def _words(self, commands: Sequence[Command], nodes: int) -> tuple[str, ...]:
        """One command as its words; several, or on several nodes, as a script of a shell."""
        words = [word for part in commands[0].parts for word in part]
        if len(commands) == 1 and not any(isinstance(word, Shell) for word in words):
            return tuple(words)
        return ("/bin/bash", "-c", script(commands, nodes))
