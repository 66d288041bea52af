"""Laws of every launch: known words only, the user's model, each assumption said, every GPU taken once, text for a shell."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections import Counter
from functools import cache

import pytest

from apexsim.engine_file import order
from apexsim.engines import engine_facts, engine_versions, facts
from apexsim.plan.flags import Words
from apexsim.plan.space import routed
from launches import Case, cases

ENGINES = ("vllm", "vllm@0.6.0", "vllm@0.8.0", "vllm@0.10.0", "vllm@0.11.0", "vllm@0.14.0", "vllm@0.19.0", "sglang", "tensorrt-llm")
PROGRAMS = {"vllm": "vllm serve ", "sglang": "sglang.launch_server", "tensorrt-llm": "trtllm-serve "}
SHOWN = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
OUTER = {"-m", "-x", "-n", "--host", "--allow-run-as-root"}  # of python and mpirun


@cache
def all_cases() -> tuple[Case, ...]:
    return tuple(cases(ENGINES, every=12))


def servers(case: Case) -> list[list[str]]:
    """The words of each command that starts a server."""
    program = PROGRAMS[case.setting.engine.server.name]
    return [shlex.split(text) for text in case.launch.commands if program in text]


def value(words: list[str], means: str, case: Case) -> str | None:
    """What a command says for a meaning; None where the flag is not there."""
    word = case.ask.words.flag(means)
    return words[words.index(word) + 1] if word in words else None


def test_there_are_launches_of_every_kind() -> None:
    kinds = Counter((c.plan.replicas > 1, c.plan.stages > 1, c.plan.lanes > 1, c.plan.ffn.ep > 1) for c in all_cases())
    assert len(all_cases()) > 300 and len(kinds) >= 10 and {c.setting.engine.server.name for c in all_cases()} == set(PROGRAMS)


def test_every_word_is_known_in_that_version() -> None:
    for case in all_cases():
        known = {row.flag.partition("=")[0] for row in case.ask.words.rows.values()} | OUTER
        for words in servers(case):
            said = {word.partition("=")[0] for word in words if word.startswith("-") and not re.match(r"-\d", word)}
            assert said <= known, f"{case}: {said - known}"
            named = {word.partition("=")[0] for word in words if re.match(r"[A-Z0-9_]+=", word)}
            assert named <= known | set(SHOWN), f"{case}: {named}"


def test_no_engine_is_told_in_the_words_of_another() -> None:
    every = [word for engine in PROGRAMS for word in engine_facts(engine).words]
    only = {e: {w.flag for w in every if w.engine == e} - {w.flag for w in every if w.engine != e} for e in PROGRAMS}
    for case in all_cases():
        text = " ".join([*case.launch.commands, *case.launch.notes])
        for engine, words in only.items():
            if engine != case.setting.engine.server.name:
                assert not [w for w in words if re.search(rf"(?<![\w-]){re.escape(w)}(?![\w-])", text)], f"{case}: {engine}"


def test_the_model_is_the_users_or_a_placeholder_that_is_explained() -> None:
    for case in all_cases():
        name = case.setting.model.name
        for words in servers(case):
            held = [word for word in words if word.startswith("YOUR_")]
            assert (name in words) != bool(held), case
            assert all(any(word in note for note in case.launch.notes) for word in held), case
        assert (case.plan.precision.tag == "" or any("not judged" in note for note in case.launch.notes)
                or case.setting.model.weight_dtypes), case  # fmt: skip


def test_widths_multiply_to_the_gpus_of_a_server() -> None:
    for case in all_cases():
        for words in servers(case):
            lanes = "lanes" if case.setting.engine.server.name == "vllm" else "-"
            names = [n for n in ("tensor", "stages", lanes) if case.ask.words.has(n)]
            product = 1
            for name in names:
                product *= int(value(words, name, case) or 1)
            assert product == case.plan.replica_devices, case


def test_each_gpu_is_taken_once() -> None:
    for case in all_cases():
        cluster, programs = case.setting.cluster, servers(case)
        shown = [word.partition("=")[2].split(",") for words in programs for word in words if word.startswith(SHOWN)]
        if case.plan.replica_devices < cluster.per_node:
            taken = Counter(gpu for each in shown for gpu in each)
            assert taken == {str(i): cluster.nodes for i in range(cluster.per_node)}, case
            assert len(programs) == case.plan.replicas, case
        else:
            assert not shown, case


def test_what_was_assumed_is_said() -> None:
    """Meaning by meaning: the command holds what the simulation used, or the version's default is that."""
    for case in all_cases():
        row, ask, engine = case.ask.engine, case.ask, case.setting.engine.server.name
        inside = case.plan.lanes if engine == "sglang" else 1
        for words in servers(case):
            assert value(words, "sequences", case) == str(ask.sequences * inside), case
            fewer = any("as was simulated" in note for note in case.launch.notes)
            assert ask.sequences == row.max_num_seqs or (ask.travel.startswith("deepep") and fewer), case
            if row.chunk or engine != "sglang":
                assert value(words, "tokens", case) == str(row.max_num_batched_tokens * inside), case
            assert float(value(words, "memory", case) or 0) == row.memory_fraction, case
            assert value(words, "length", case) == str(ask.length), case
            text = " ".join(words) + case.launch.script
            off = {"vllm": "--no-enable-prefix-caching", "sglang": "--disable-radix-cache", "tensorrt-llm": "enable_block_reuse: false"}
            assert (off[engine] in text) is (row.reuse == 0) or not ask.words.has("no prefix cache"), case
            if not row.pad:
                assert {"vllm": "--enforce-eager", "sglang": "--disable-cuda-graph", "tensorrt-llm": "config: null"}[engine] in text, case
            if case.plan.precision.kv == "fp8":
                assert re.search(r"--kv-cache-dtype fp8|dtype: fp8", text), case
            if case.plan.ffn.ep > 1:
                assert re.search(r"--enable-expert-parallel|--ep-size \d|--ep_size \d", text), case
            if case.plan.lanes > 1:
                assert re.search(r"--data-parallel-size \d|--enable-dp-attention|enable_attention_dp: true", text), case


def test_the_length_takes_every_request_and_starts() -> None:
    for case in all_cases():
        longest = case.setting.workload.longest
        assert longest <= case.ask.length <= max(case.setting.model.max_length, case.setting.max_model_len), case
        if not case.setting.length_given and case.ask.length < case.setting.model.max_length:
            assert any(f"this server {case.ask.length:,}" in note for note in case.launch.notes), case


def test_limits_of_the_engine_hold() -> None:
    for case in all_cases():
        row = case.ask.engine
        if row.server.name == "vllm":
            assert row.max_num_seqs <= row.max_num_batched_tokens, case
            if not row.chunk:
                assert case.ask.length <= row.max_num_batched_tokens, case
            if row.memory.state_needs_blocks and case.ask.room.pool.state_blocks:
                assert row.max_num_seqs <= case.ask.room.kv_bytes // case.ask.room.pool.block_bytes, case
        if row.server.name == "sglang" and row.chunk:
            assert row.max_num_batched_tokens % row.block_size == 0, case


def test_a_shell_takes_every_script_and_command() -> None:
    for case in all_cases()[::5]:
        texts = [case.launch.script, *case.launch.commands]
        checks = [subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False) for text in texts]
        assert all(done.returncode == 0 and not done.stderr for done in checks), case
        lines = [text for text in case.launch.script.splitlines() if len(text) > 80]
        assert not lines, f"{case}: {lines}"


def test_several_servers_have_ports_of_their_own_and_a_router() -> None:
    for case in all_cases():
        if case.plan.replicas == 1:
            continue
        assert re.search(r"--policy round_robin|nginx", case.launch.script), case
        assert ("least_conn" in case.launch.script) is (case.setting.router.name == "least-outstanding"), case


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_every_version_has_its_words(engine: str) -> None:
    """No meaning has two words in a version, none is older than the version that took its place, all have a source."""
    for version in engine_versions(engine):
        words = Words(engine_facts(engine), version)
        assert {"tensor", "stages", "length", "sequences", "tokens", "memory"} <= set(words.rows)
    sources = facts(engine)["server"]["sources"]
    for row in engine_facts(engine).words:
        assert row.source in sources and order(row.since) and (not row.until or order(row.since) < order(row.until)), row


def test_experts_are_in_the_sample() -> None:
    assert sum(routed(case.setting.model) for case in all_cases()) > 100
