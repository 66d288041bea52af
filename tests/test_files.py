"""No output of any command takes the place of what its run reads, however either of them is spelled."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from apexsim.cli.commands import RUN
from apexsim.cli.files import OF_FOLDERS, check_files, replaces
from apexsim.cli.main import main
from apexsim.cli.rows import COMMANDS, REQUIRED, Opt, options_of
from apexsim.errors import InputError

TEXTS = (str, list[str])
PLACES = ("PATH", "DIR", "FOLDER", "OUT")  # metavars of what a command writes
OUTPUTS = [(name, opt) for name in COMMANDS for opt in options_of(name) if opt.writes]
WRITTEN = [(name, out) for name, out in OUTPUTS if not out.folder]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_that_names_a_place_is_an_output(command: str) -> None:
    """An option is read unless its row says that it is written; what looks like an output must say so."""
    for opt in options_of(command):
        if opt.type in TEXTS and (opt.metavar in PLACES or opt.help.startswith(("Write", "Save"))):
            assert opt.writes, f"{command} {opt.flag}"


def spellings(file: Path) -> list[str]:
    """Ways to name one file."""
    link, hard = file.with_stem("link"), file.with_stem("hard")
    link.symlink_to(file.name)
    os.link(file, hard)
    return [str(file), f"{file.parent}/./{file.name}", f"{file.parent}/../{file.parent.name}/{file.name}", str(link), str(hard)]


def ending(out: Opt) -> str:
    """How a file that an option writes may end."""
    return out.suffixes[0] if out.suffixes else ".toml"


@pytest.mark.parametrize("command,out", WRITTEN, ids=[f"{n} {o.flag}" for n, o in WRITTEN])
def test_every_pair(command: str, out: Opt, tmp_path: Path) -> None:
    """Whatever option a file is read by, in whatever spelling: no output takes its place."""
    file = tmp_path / f"a{ending(out)}"
    file.write_text("kept")
    for text in (ways := spellings(file)):
        for opt in (o for o in options_of(command) if o.type in TEXTS and o is not out and not o.writes):
            for value in (str(file), f"{file}@1200", f"x,{file}", text):
                given = {opt.name: [value] if opt.type == list[str] else value, out.name: text}
                with pytest.raises(InputError, match="is the input"):
                    check_files(options_of(command), given)
    assert len(ways) == 5


@pytest.mark.parametrize("command,out", WRITTEN, ids=[f"{n} {o.flag}" for n, o in WRITTEN])
@pytest.mark.parametrize("folder", ["m", "./m", "m/", "link"])
def test_folders_that_are_read(command: str, out: Opt, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m").mkdir()
    Path("link").symlink_to("m")
    for name in ("config.json", "hf_quant_config.json", "device.toml", "gemm_0.csv", "tokenizer.json", "w.safetensors"):
        Path("m", name).write_text("kept")
        with pytest.raises(InputError, match="is the input" if not out.suffixes else "is the input|ends in"):
            check_files(options_of(command), {"argument": folder, out.name: f"m/{name}"})
    left = f"m/report{out.suffixes[0] if out.suffixes else '.json'}"
    Path(left).write_text("of an earlier run")
    check_files(options_of(command), {"argument": folder, out.name: left})


@pytest.mark.parametrize("command", sorted({n for n, _ in OUTPUTS}))
def test_two_outputs_are_two_files(command: str, tmp_path: Path) -> None:
    outs = [opt for opt in options_of(command) if opt.writes and opt.type is str]
    for a in outs:
        for b in outs:
            if a is not b and (not a.suffixes or not b.suffixes or a.suffixes == b.suffixes):  # others cannot be one file
                name = f"x{(a.suffixes or b.suffixes or ('',))[0]}"
                with pytest.raises(InputError, match="written by"):
                    check_files(outs, {a.name: f"{tmp_path}/{name}", b.name: f"{tmp_path}/../{tmp_path.name}/{name}"})


def test_what_names_lead_to_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APEXSIM_DEVICES", str(tmp_path))
    (tmp_path / "npu").mkdir()
    (tmp_path / "npu/device.toml").write_text("kept")
    bundled = Path(sys.modules["apexsim"].__file__ or "").parent / "data/gpus/h100-sxm.toml"
    for target in (bundled, tmp_path / "npu/device.toml"):
        with pytest.raises(InputError, match="is the input"):
            check_files(options_of("plan"), {"gpu": "npu", "output": str(target)})


@pytest.mark.parametrize(
    "given,target",
    [
        ({"speculate": "draft:draft.json:2"}, "draft.json"),
        ({"speculate": "none,draft:dr:2"}, "dr/config.json"),
        ({"gpu": "gpu.toml:8"}, "gpu.toml"),
        ({"gpu": "2x8xgpu.toml,h100:4"}, None),
        ({"model": "many.toml"}, "trace.csv"),
        ({"model": "many.toml"}, "sub/own.json"),
        ({"acceptance": "mtp=acc.csv,ngram=0.5"}, "acc.csv"),
    ],
)
def test_what_stands_inside_of_words_and_tables_is_kept(
    given: dict[str, str], target: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short form names files between its signs, a file of models in its tables, the folder of engines by a name alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APEXSIM_ENGINES", str(tmp_path / "engines"))
    for name in ("draft.json", "dr/config.json", "gpu.toml", "trace.csv", "sub/own.json", "acc.csv", "engines/nimble.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("kept")
    (tmp_path / "many.toml").write_text('[chat]\nmodel = "sub/own.json"\ntrace = "trace.csv"\n[more]\ngoodput = ["ttft:1"]\n')
    for output in ("engines/nimble.toml", *([target] if target else [])):
        with pytest.raises(InputError, match="is the input"):
            check_files(options_of("plan"), {"engine": "nimble", **given, "output": output})
    check_files(options_of("plan"), {**given, "output": "new.json"})


READ: list[Path] | None = None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if READ is not None and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        READ.append(Path(os.path.abspath(arguments[0])))


sys.addaudithook(_watch)


def test_a_run_reads_no_other_files_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is opened in folders that are named is what `OF_FOLDERS` protects."""
    global READ
    model, device, examples = tmp_path / "model", tmp_path / "npu", Path(__file__).parent.parent / "examples"
    model.mkdir(), device.mkdir()
    source = Path(sys.modules["apexsim"].__file__ or "").parent / "data/models/Qwen--Qwen3-8B.json"
    (model / "config.json").write_text(source.read_text())
    (model / "hf_quant_config.json").write_text("{}")
    for file in (examples / "devices/npu-1").iterdir():
        (device / file.name).write_bytes(file.read_bytes())
    READ = []
    try:
        main(["fit", str(model), "--gpu", str(device), "--gpus", "1"])
        main(["simulate", str(model), "--gpu", str(device), "--gpus", "1", "--plan", "TP1", "--prompt-len", "9", "--output-len", "2",
              "--num-requests", "3"])  # fmt: skip
    finally:
        read, READ = READ, None
    inside = {path for path in read if path.parent in (model, device) and path.is_file()}
    assert {"config.json", "device.toml"} <= {path.name for path in inside}
    assert all(any(path.match(kind) for kind in OF_FOLDERS) for path in inside), inside
    assert all(replaces(path, path.parent) for path in inside)


def test_every_command_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The look is part of what gives a command its options, so that no command can leave it out."""
    for command, out in WRITTEN:
        file = tmp_path / f"a{ending(out)}"
        file.write_text("kept")
        needed = [word for opt in options_of(command) if opt.default is REQUIRED
                  for word in (opt.flag, "3" if opt.type is int else str(file))]  # fmt: skip
        own = {"trace synth": ["--like", str(file)], "apex": [], "compare": [str(file), str(file)]}.get(command, [str(file)])
        assert main([*command.split(), *own, *needed, out.flag, str(file)]) == 2, command
        assert "is the input" in capsys.readouterr().err, command
        assert file.read_text() == "kept" and command in RUN


@pytest.mark.parametrize("command,out", OUTPUTS, ids=[f"{n} {o.flag}" for n, o in OUTPUTS])
def test_names_that_no_file_can_have(command: str, out: Opt, tmp_path: Path) -> None:
    """Every output is refused before any work, in one sentence, where the system takes no such name."""
    loop = tmp_path / f"loop{ending(out)}"
    loop.symlink_to(loop.name)
    for stem in ("a\0b", "\ud800", "x" * 5000, "\0/a"):
        with pytest.raises(InputError, match=r"no file name may have|too long"):
            check_files(options_of(command), {out.name: f"{tmp_path}/{stem}{ending(out)}"})
    with pytest.raises(InputError, match="symbolic links"):
        check_files(options_of(command), {out.name: str(loop)})
