"""An engine is one data file: a new one plans, fits, is launched and logged by it alone; a file that is wrong is one clear error."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from apexsim import engine_file, engines
from apexsim.cli import main
from apexsim.engine_file import DEFAULT_ENGINE, DIALECTS, VARIABLE, Engine, bundled
from apexsim.engines import (
    EngineRow,
    MemoryRules,
    engine_aliases,
    engine_facts,
    engine_names,
    facts,
    flags_of,
    load_engine,
    servers,
    settled,
)
from apexsim.errors import InputError
from apexsim.plan.flags import words_of
from apexsim.report.catalogue import engines_json
from apexsim.report.dialects import SPOKEN
from apexsim.report.startup_log import gaps, stated_rows

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples/extending/engines"
TEXT = (FOLDER / "nimble.toml").read_text(encoding="utf-8")
CLUSTER = ("--gpu", "h100-sxm:2")
LOAD = ("--prompt-len", "300", "--output-len", "30", "--num-requests", "40")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def nimble(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, str(FOLDER))
    yield


def asked(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main([*words])
    out = capsys.readouterr()
    return code, out.out, out.err


# ---- one file is an engine ------------------------------------------------------------------------------------------


def test_an_engine_of_ones_own_is_listed_and_found(nimble: None, capsys: Capture) -> None:
    assert "nimble" in engine_names() and servers() == ("vllm", "nimble", "sglang", "tensorrt-llm") and engine_aliases()["nmb"] == "nimble"
    row = load_engine("nmb@2.0.3")
    assert (row.label, row.has_server, row.max_num_seqs, row.memory_fraction) == ("nimble 2.0.3: rules of 2.0", True, 128, 0.92)
    code, out, _ = asked(capsys, "engines", "nimble", "--json")
    found = json.loads(out)
    found = found["engines"] if isinstance(found, dict) else found
    assert code == 0 and found[0]["server"] and found[0]["settings"]["max_num_seqs"] == "--batch"


def test_it_is_ranked_and_launched_in_its_own_words(nimble: None, capsys: Capture) -> None:
    code, out, _ = asked(capsys, "plan", "llama-3.1-8b", *CLUSTER, *LOAD, "--engine", "nmb", "--batch", "64", "--json")
    scripts = [plan["launch"] for plan in json.loads(out)["ranked"]]
    assert code == 0 and scripts and all("nimble serve" in each and "--batch 64" in each for each in scripts)
    assert not re.findall(r"--(?!checkpoint|tp|pp|context|batch|step-tokens|memory|port|policy|host)\w+", " ".join(scripts))


def test_it_is_sized_and_its_log_is_read(nimble: None, capsys: Capture, tmp_path: Path) -> None:
    code, out, _ = asked(capsys, "fit", "llama-3.1-8b", *CLUSTER, "--engine", "nimble")
    assert code == 0 and "nimble: cache of " in out and "Nimble --memory" in out
    log = tmp_path / "nimble.log"
    log.write_text("nimble serve --memory 0.8 --tp 2\nnimble: cache of 50.0 GiB (800000 tokens)\n", encoding="utf-8")
    code, out, _ = asked(capsys, "fit", "llama-3.1-8b", *CLUSTER, "--log", str(log), "--json")
    read = json.loads(out)
    assert code == 0 and read["memory_fraction"] == 0.8 and read["engine"].startswith("nimble")
    assert {line["line"]: line["logged"] for line in read["comparison"]} == {"kv_gib": 50.0, "kv_tokens": 800_000}


def test_what_its_server_cannot_be_told_is_said(nimble: None, capsys: Capture) -> None:
    words = ("simulate", "mixtral-8x7b", "--gpu", "2x2xh100-sxm", *LOAD, "--engine", "nimble", "--json")
    for plan, why in (("DEP4", "nimble 2.1 has no data parallel attention"), ("TP4", "nimble 2.1 has no word for a server on several")):
        code, out, _ = asked(capsys, *words, "--plan", plan)
        assert code == 0 and why in out


SILENT = {
    "tensor": (["tensor", "--tp"], "TP2", "tensor parallelism"), "stages": (["stages", "--pp"], "PP2×TP1", "pipeline stages"),
    "port": (["port", "--port"], "2×TP1", "word for a port"), "experts": (["experts", "--ep", "2.1"], "TEP2", "expert parallelism"),
}  # fmt: skip


@pytest.mark.parametrize("means", SILENT)
def test_no_plan_is_launched_that_the_server_cannot_be_told(
    means: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    row, plan, told = SILENT[means]
    assert json.dumps(row) in TEXT
    (tmp_path / "nimble.toml").write_text(TEXT.replace(f"{json.dumps(row)},", ""), encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    words = ("simulate", "mixtral-8x7b", *CLUSTER, *LOAD, "--engine", "nimble", "--weight-dtype", "fp8", "--json")
    code, out, err = asked(capsys, *words, "--plan", plan)
    assert code == 0 and f"nimble 2.1 has no {told}" in out, err


# ---- a file that is wrong -------------------------------------------------------------------------------------------

WRONG = {
    "no TOML": ("about = ", "about ", "is not TOML"),
    "a key that nobody reads": ('kernels = "vllm"', 'kernels = "vllm"\nkernel = "x"', "unknown key 'kernel'"),
    "no kernels": ('kernels = "vllm"', "", "key 'kernels' is missing"),
    "kernels that nobody measured": ('kernels = "vllm"', 'kernels = "nimble"', "unknown source of kernel times 'nimble'"),
    "a policy with a server": ('kernels = "vllm"', 'engine = "vllm"', "a policy has the server"),
    "aliases that are no list": ('aliases = ["nmb"]', 'aliases = "nmb"', "'aliases' must be a list of texts"),
    "a server without a program": ('program = ["nimble", "serve"]', "", "key 'program' is missing"),
    "an unknown ability": ("mixed_experts", "mixed_expert", "unknown key 'mixed_expert'"),
    "an ability that is a text": ("mixed_experts = true", 'mixed_experts = "yes"', "must be true or false"),
    "an unknown dialect": ("mixed_experts = true", 'dialect = "vlm"', "unknown dialect 'vlm'"),
    "an unknown meaning": ('"sequences", "--batch"', '"sequence", "--batch"', "unknown meaning 'sequence'"),
    "a meaning with two words": ('["port", "--port"]', '["port", "--port"], ["port", "--at"]', "'port' has two words"),
    "a word that ends before it begins": ('"--ep", "2.1"', '"--ep", "2.1", "2.0"', "'experts' has two words, or none"),
    "a word of no version": ('"--ep", "2.1"', '"--ep", "new"', "cannot read engine version 'new'"),
    "values that are no pairs": ('"--ep", "2.1"', '"--ep", "2.1", "", "fp8"', "values are written"),
    "an alias of another": ('["nmb"]', '["vllm"]', "there is an engine 'vllm' already"),
    "an alias of another's alias": ('["nmb"]', '["trtllm"]', "there is an engine 'trtllm' already"),
    "an alias that cannot be typed": ('["nmb"]', '["N@1"]', "is no name of an engine"),
    "an unknown place": ("[flags]", '[quantises_apart]\nnvfp4 = "mlp"\n[flags]', "unknown place 'mlp'"),
    "an unknown format": ("[flags]", '[quantises_apart]\nfp9 = "norm"\n[flags]', "unknown number format 'fp9'"),
    "a gap of two": ("[log]\n", '[log]\ngaps = [["kv_gib", "{NUMBER}"]]\n', "a gap is [name"),
    "an unknown line of a whole log": ("[log]\n", '[log]\nwhole = ["kv"]\n', "unknown line of a log 'kv'"),
    "rules that hold to before": ('about = "Nimble"', 'about = "Nimble"\nthrough = "2.0.5"', "but there are newer ones"),
    "a word that is blank": ('"port", "--port"', '"port", " "', "a meaning or its word is blank"),
    "a setting's word that is blank": ('max_num_seqs = "--batch"', 'max_num_seqs = ""', "'flags' must be a table of texts"),
    "a word that is no row": ('["port", "--port"]', '["port"]', "a word is [meaning, word"),
    "an unknown setting": ('max_num_seqs = "--batch"', 'max_seqs = "--batch"', "unknown setting 'max_seqs'"),
    "a line that cannot be filled in": ("{kv:.1f}", "{cache:.1f}", "cannot be filled in"),
    "a line without a number": ("cache of {NUMBER} GiB'", "cache'", "has no number"),
    "a wording that cannot be read": ("cache of {NUMBER} GiB'", "cache of ({NUMBER} GiB'", "cannot read the wording"),
    "an unknown line": ('["kv_gib", "min"', '["kv", "min"', "unknown line of a log 'kv'"),
    "a version that is none": ('version = "2.0"', 'version = "two"', "cannot read engine version 'two'"),
    "versions that fall": ('version = "2.1"', 'version = "1.9"', "versions must ascend"),
    "an unknown parent": ('"vllm@0.25.0"', '"vlm@0.25.0"', "unknown engine 'vlm'"),
    "an unknown parent version": ('"vllm@0.25.0"', '"vllm@0.25.7"', "unknown version of vllm '0.25.7'"),
    "a row that inherits from itself": ('"vllm@0.25.0"', '"2.1"', "inherits from itself"),
    "a row that inherits nothing": ('inherits = "vllm@0.25.0"', "", "is missing"),
    "an unknown constant": ("chunked_budget =", "chunk_budget =", "unknown constant 'chunk_budget'"),
    "a constant without a source": ('[0.85, "made-up"]', "0.85", "must be [value, a source"),
    "a source that is not told": ('[0.85, "made-up"]', '[0.85, "guess"]', "must be [value, a source"),
    "a fraction above 1": ('[0.85, "made-up"]', '[1.85, "made-up"]', "expected a fraction above 0"),
    "a number that is none": ('[0.85, "made-up"]', '[nan, "made-up"]', "constant 'memory_fraction'"),
    "a count that is a fraction": ('[128, "made-up"]', '[12.8, "made-up"]', "expected a whole number"),
    "a count of none": ('[128, "made-up"]', '[0, "made-up"]', "expected a positive whole number"),
    "an unknown budget": ("memory_fraction = [0.85", 'budget = ["all", "made-up"]\nmemory_fraction = [0.85', "expected total or static or"),
    "sizes that fall": ("max_num_seqs = [128", 'pad = ["8 4", "made-up"]\nmax_num_seqs = [128', "expected ascending sizes"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_one_clear_error_that_names_it(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> None:
    old, new, told = WRONG[name]
    assert old in TEXT
    (tmp_path / "nimble.toml").write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    code, out, err = asked(capsys, "fit", "llama-3.1-8b", *CLUSTER, "--engine", "nimble")
    assert (code, out) == (2, "") and told in err and "nimble.toml" in err and "Traceback" not in err, err


ODD = (None, True, -1, 0, 2.5, 1e400, 10**30, "", "x", "1 2 0", "9:1:0", "{", [], [[]], ["x"], [["x"] * 7], {}, {"x": ["y", "made-up"]})


def spoilt(value: Any, odd: Any) -> Iterator[Any]:
    """A value with each of its parts replaced, one at a time."""
    yield odd
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        for changed in spoilt(part, odd):
            made = value.copy()
            made[key] = changed
            yield made


@pytest.mark.parametrize("engine", ["nimble", "orca", "nobody"])
def test_a_policy_of_what_is_no_engine_is_refused(engine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> None:
    text = f'engine = "{engine}"\nabout = "a policy"\n[[row]]\nversion = "1"\ninherits = "vllm@0.19.0"\n'
    (tmp_path / "nimble.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    code, _, err = asked(capsys, "plan", "llama-3.1-8b", *CLUSTER, *LOAD, "--engine", "nimble")
    assert code == 2 and f"nimble.toml engine: unknown engine '{engine}'" in err


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_no_value_anywhere_in_a_file_is_a_traceback(odd: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "nimble.toml").write_text(TEXT, encoding="utf-8")
    held: list[Any] = []
    whole = tomllib.loads(TEXT)
    loads = tomllib.loads
    monkeypatch.setattr(tomllib, "loads", lambda text: held[0] if text == TEXT else loads(text))
    for data in spoilt(whole, odd):
        if not isinstance(data, dict):
            continue
        held[:] = [data]
        for kept in (engine_file.read, engine_file._engine, engines._made, engines._aliases, engines._servers):
            kept.cache_clear()
        try:
            rows = [load_engine(f"nimble@{version}") for version in engines.engine_versions("nimble")]
        except InputError:
            continue
        for row in rows:
            words_of(row), flags_of("nimble"), facts("nimble"), settled(row, 80e9, "h100-sxm", 4096), engine_aliases()
        stated_rows(), gaps(), engines_json("nimble")


@pytest.mark.parametrize(("name", "told"), [("vllm", "there is an engine 'vllm' already"), ("My Engine", "is no name of an engine")])
def test_a_name_is_free_and_can_be_typed(name: str, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / f"{name}.toml").write_text(TEXT, encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match=told):
        load_engine("vllm")


def test_a_folder_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(InputError, match="no such folder"):
        load_engine("vllm")


# ---- nothing knows an engine but its file ---------------------------------------------------------------------------

MAY = {
    "engine_file.py": "the engine that is meant where none is named, and the names of dialects",
    "report/dialects.py": "the one place with code per engine", "report/apart.py": "routers of two pools, a row for each dialect",
    "report/stacks.py": "workers under Dynamo, likewise",
    "cost/collectives.py": "names of sources of kernel times", "cost/bank.py": "likewise",
    "cli/rows.py": "defaults of options, checked below", "verbs.py": "made from them",
    "validate/closed_cases.py": "columns of files of measured runs", "validate/open_cases.py": "likewise",
    "validate/step_cases.py": "likewise", "validate/memory_cases.py": "likewise", "validate/apart_cases.py": "likewise",
    "report/emit/kubernetes.py": "who starts over MPI", "report/emit/stacks.py": "llm-d starts vLLM alone",
    "calibrate/bench.py": "engines' own benchmark programs", "calibrate/read.py": "… and who writes which result file",
    "calibrate/server.py": "… and what it says of its server", "validate/rows.py": "how files of measured runs spell them",
    "report/emit/bench.py": "vLLM's own benchmark and sweep",
    "validate/served_cases.py": "likewise",
    "validate/offline_cases.py": "likewise", "validate/fit_host.py": "likewise",
}  # fmt: skip


def test_no_code_asks_for_an_engine_by_name() -> None:
    names = "|".join(map(re.escape, {*bundled(), *engine_aliases()}))
    for path in sorted((ROOT / "src/apexsim").rglob("*.py")):
        code = re.sub(r'"""(?:.|\n)*?"""|#.*', "", path.read_text(encoding="utf-8"))
        found = set(re.findall(rf'"({names})"', code)) - {"apex"}  # also a command's name
        assert not found or str(path.relative_to(ROOT / "src/apexsim")) in MAY, f"{path.name}: {found}"


def test_every_dialect_is_spoken_and_the_default_engine_is_one() -> None:
    from apexsim.cli.rows import ENGINE

    assert tuple(SPOKEN) == DIALECTS and servers()[0] == DEFAULT_ENGINE == next(opt.default for opt in ENGINE if opt.name == "engine")


def test_policies_have_all_of_the_engine_that_they_name() -> None:
    for name in bundled():
        known = facts(name)
        assert engine_facts(name) == engine_facts(known["engine"]) and load_engine(name).server is engine_facts(name)
        assert load_engine(name).has_server is ("server" in known) is (known["engine"] == name)


def test_every_fact_of_an_engine_differs_somewhere() -> None:
    """A key that all files agree on would be a constant of the code."""
    for field in fields(Engine):
        values = {str(getattr(engine_facts(name), field.name)) for name in servers()}
        assert len(values) > 1, field.name


def test_every_constant_of_a_row_is_read_somewhere() -> None:
    """One that nobody reads could be set without effect."""
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/apexsim").rglob("*.py"))
    read = set(re.findall(r"\.(\w+)", code))
    assert [f.name for kind in (EngineRow, MemoryRules, Engine) for f in fields(kind) if f.name not in read] == []
