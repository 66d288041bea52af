"""What a model's name means: a file, a bundled configuration, the same architecture under another name, the hub (floor 2).

A name is looked up whole, then without its owner, then by its core: the words that say how a checkpoint was tuned, packed or
quantised are dropped (a closed list, `DROPPED`), sizes and versions stay, so a rule leads to the same architecture or nowhere.
The name that was typed stays the model's name.
"""

from __future__ import annotations

import csv
import difflib
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from apexsim.errors import InputError, nearest
from apexsim.examples import expanded
from apexsim.files import hub_cache
from apexsim.model.config import Config, parse_config, read_config
from apexsim.model.precision import format_in_name

DATA = Path(__file__).resolve().parent.parent / "data" / "models"
HUB_HINT = "or give the path of a config.json"
HUB_SECONDS = 2.5  # for one question to the hub; what is slower counts as no answer
LARGEST_CONFIG = 8_000_000  # bytes read of an answer
DATE = re.compile(r"2[3-9](0[1-9]|1[0-2])|(0[1-9]|1[0-2])([0-2]\d|3[01])")  # yymm or mmdd
SIZE = re.compile(r"(\d+x)?\d+(\.\d+)?[bm]")
OF_FORMAT = re.compile(r"v\d|[2-8]b")  # behind the word of a format: its version or bits ("-NVFP4-v2", "-GPTQ-4b"), not the model's
ALIKE = 0.9  # similarity (difflib) above which an unknown name is taken for a slip of the pen
TUNED = (
    "instruct", "it", "chat", "base", "hf", "pt", "thinking", "think", "reasoning", "preview", "inst", "text", "sft", "dpo", "rl",
    "abliterated", "uncensored", "saferl",
)  # fmt: skip
PACKED = (
    "fp8", "nvfp4", "mxfp4", "fp4", "mxfp8", "nf4", "awq", "gptq", "gptqmodel", "bnb", "int2", "int3", "int4", "int8", "2bit", "3bit",
    "4bit", "5bit", "6bit", "8bit", "bit", "w4a16", "w8a16", "w8a8", "w4a8", "w4", "w8", "bf16", "fp16", "dynamic", "static", "block",
    "quantized", "quant", "unquantized", "quantised", "qat", "kv", "unsloth", "autoround", "auto", "round", "marlin", "mlx",
    "128g", "g128", "64g", "g64", "32g", "g32", "tensor", "channel", "pertensor", "perchannel", "asym", "sym", "symmetric", "w", "a",
    "ptpc", "mtp", "inc", "hqq", "torchao", "quark", "ar", "ct", "compressed", "tensors", "mixed", "mix", "torch", "onnx", "only",
    "wmxfp4", "amxfp4", "wfp8", "afp8", "kvfp8", "scale", "uint8", "mlperf", "2of4", "aqlm", "pv", "1x16", "2x8", "higgs",
)  # fmt: skip
DROPPED = frozenset((*TUNED, *PACKED))
OWN_WORDS = frozenset(("nvidia", "meta"))  # an owner that some checkpoints repeat in front of the name
FILES = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".onnx")


@dataclass(frozen=True, slots=True)
class Known:
    """What a name means: a bundled file, the keys that differ from it, and the hub id to serve."""

    stem: str
    id: str
    changes: Mapping[str, int | None]
    release: str = ""  # a date in the name that no row has: the same family and size stand for it


def find_config(name_or_path: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The configuration that a path, bundled name, alias, hub id or cached checkpoint means."""
    if not name_or_path.strip():
        raise InputError("a model is missing", "MODEL", "give a hub id, a name of `apexsim models` or the path of a config.json")
    _refuse_weights(name_or_path)
    path = expanded(name_or_path)
    if _is_config(path):
        return read_config(path, changes)
    if name_or_path.endswith(".json") or name_or_path.startswith((".", "/", "~")):
        raise InputError("no such model file", name_or_path)
    known = find_known(name_or_path)
    return _from_hub(name_or_path, changes) if known is None else _bundled(known, changes)


def _is_config(path: Path) -> bool:
    try:
        return path.is_file() or (path / "config.json").is_file()
    except (OSError, ValueError):  # too long for a path, or a null byte in it
        return False


def _refuse_weights(name: str) -> None:
    low = name.lower()
    if low.endswith(FILES):
        raise InputError("a file of weights is not read", name, "give its config.json, its folder or its hub id")
    if re.search(r"[-_.]gguf($|[-_:.])", low) or low.split(":")[0].endswith("gguf"):
        like = "give the original model and its bits, such as --weight-dtype int4"
        raise InputError("GGUF checkpoints are not read: the engines here serve others", name, like)


def _bundled(known: Known, changes: Mapping[str, Any] | None) -> Config:
    """The bundled file under the name to serve; a format that the name states replaces the file's."""
    text = (DATA / f"{known.stem}.json").read_text(encoding="utf-8")
    where = f"bundled {known.stem}.json" + (f", for its release {known.release}" if known.release else "")
    config = parse_config(text, where, known.id)
    config = replace(config, data={**_changed(config.data, known.changes), **(changes or {})})
    stated, own = format_in_name(known.id), format_in_name(known.stem)
    plain = bool(set(words(known.id.rpartition("/")[2])) & {"bf16", "fp16", "unquantized"}) and not own
    if plain or (stated and stated.split("_")[0] != own.split("_")[0]):
        kept = {k: v for k, v in config.data.items() if k != "quantization_config"}
        return Config(kept, config.where, known.id)
    return config


def _changed(data: Mapping[str, Any], changes: Mapping[str, int | None]) -> dict[str, Any]:
    """The keys with their changes, each where it stands: inside of the language part or outside."""
    part = next((key for key in ("text_config", "llm_config") if isinstance(data.get(key), dict)), "")
    inner = {key: value for key, value in changes.items() if part and key in data[part] and key not in data}
    outer = {key: value for key, value in changes.items() if key not in inner}
    return {**data, **outer, **({part: {**data[part], **inner}} if inner else {})}


def hub_id(stem: str) -> str:
    """The hub id of a bundled file's own checkpoint."""
    return stem.replace("--", "/", 1)


def words(name: str) -> list[str]:
    """A name without its owner as lower-case words; dots inside of numbers stay, "qwen3" is "qwen", "3"."""
    text = name.lower().replace("q4_0", "quant")
    text = re.sub(r"(?<=\d)_(?=\d)", ".", text)
    text = re.sub(r"^([a-z]{3,})(?=\d)", r"\1-", text)
    return [w for w in re.split(r"[-_:\s]+|\.(?!\d)|(?<!\d)\.", text) if w]


def core(name: str) -> str:
    """The words of a name that tell architectures apart: family, version, size."""
    listed = words(name.replace("--", "/").rpartition("/")[2])
    pairs = zip(listed, ["", *listed], strict=False)
    found = [w for w, before in pairs if w not in DROPPED and not (before in PACKED and OF_FORMAT.fullmatch(w))]
    first = 1 if len(found) > 1 and found[0] in OWN_WORDS else 0
    return "-".join(found[first:])


def undated(name: str) -> tuple[str, str]:
    """(the core without dates of release, the dates), for names that state a size; ("", "") for others."""
    listed = core(name).split("-")
    dates = [w for w in listed if DATE.fullmatch(w)]
    if not dates or not any(SIZE.fullmatch(w) for w in listed):
        return "", ""
    return "-".join(w for w in listed if w not in dates), "-".join(dates)


def _key(name: str) -> str:
    return name.strip().strip("/").lower().replace("--", "/")


@lru_cache(maxsize=1)
def names() -> dict[str, Known]:
    """Lower-case name -> what it means: files by hub id and by bare name, then the aliases."""
    own = {stem: Known(stem, hub_id(stem), {}) for stem in model_names()}
    bare = {_key(stem).partition("/")[2]: own[stem] for stem in reversed(own)}
    others = {known.id.lower(): known for known in aliases().values()}
    return {**others, **aliases(), **bare, **{_key(stem): known for stem, known in own.items()}}


@lru_cache(maxsize=1)
def cores() -> dict[str, Known]:
    """Core of a name -> what it means; files without a format in their name come first, then files with one, then aliases."""
    found: dict[str, Known] = {}
    for stem in sorted(model_names(), key=lambda s: (bool(format_in_name(s)), s)):
        found.setdefault(core(stem), Known(stem, hub_id(stem), {}))
    for alias, known in aliases().items():
        found.setdefault(core(alias), known)
    return found


@lru_cache(maxsize=1)
def families() -> dict[str, Known]:
    """Core without a date -> the latest release of it; left out where releases of one name differ in their file."""
    dated: dict[str, list[tuple[str, Known]]] = {}
    for word, known in cores().items():
        plain, date = undated(word)
        dated.setdefault(plain or word, []).append((date, known))
    return {word: max(rows, key=lambda row: row[0])[1] for word, rows in dated.items() if len({known.stem for _, known in rows}) == 1}


@lru_cache(maxsize=1)
def aliases() -> dict[str, Known]:
    """Lower-case alias -> what it means; without an id of its own it is the file's checkpoint."""
    with (DATA / "aliases.csv").open(encoding="utf-8", newline="") as rows:
        return {r["alias"]: Known(r["config"], r["id"] or hub_id(r["config"]), _changes(r["changes"])) for r in csv.DictReader(rows)}


def _changes(text: str) -> dict[str, int | None]:
    """Keys and their values; "key=" takes the key away."""
    pairs = (item.split("=") for item in text.split(";") if item)
    return {key: int(value) if value else None for key, value in pairs}


def find_known(name: str) -> Known | None:
    """What a name means, or None.  A hub id that was typed keeps its spelling unless it is a known one in other letters."""
    key = _key(name)
    bare = key.rpartition("/")[2]
    typed = name.strip().strip("/").replace("--", "/")
    found = names().get(key)
    if found is not None:
        return found if found.id.lower() == key or "/" not in key else replace(found, id=typed)
    if not core(bare) or key.count("/") > 1:
        return None
    found = names().get(bare) or cores().get(core(bare))
    if found is not None:
        return replace(found, id=typed)
    plain, date = undated(bare)
    found = families().get(plain)
    return replace(found, id=typed, release=date) if found and plain else None


def model_names() -> list[str]:
    """File stems of the bundled configurations (`org--Name`)."""
    return sorted(f[:-5] for f in os.listdir(DATA) if f.endswith(".json"))


def _from_hub(name: str, changes: Mapping[str, Any] | None) -> Config:
    """The configuration of a hub id: from the local cache, else one question to the hub, never for a slip of the pen."""
    unknown, hint = f"unknown model '{name[:80]}'", f"{nearest(_key(name)[:200], names())} {HUB_HINT}"
    if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name):
        raise InputError(unknown, hint=hint)
    cached = _in_cache(name)
    if cached is not None:
        return replace(read_config(cached, changes), name=name)
    if _slip(_key(name)):
        raise InputError(unknown, hint=f"{hint}; the hub was not asked, so near is the name")
    text, reason = ask_hub(name)
    if reason:
        raise InputError(f"{unknown}, and the hub did not give it ({reason})", hint=hint)
    return parse_config(text, f"huggingface.co/{name}/config.json", name, changes)


def _slip(key: str) -> bool:
    """Whether a name is a known one but for letters: its numbers are the same."""
    close = difflib.get_close_matches(key, names(), n=3, cutoff=ALIKE)
    return any(re.findall(r"\d+", other) == re.findall(r"\d+", key) for other in close)


def _in_cache(name: str) -> Path | None:
    """The newest snapshot of a checkpoint in the local hub cache."""
    cache = hub_cache()
    found = sorted(cache.glob(f"models--{name.replace('/', '--')}/snapshots/*/config.json"), key=lambda p: p.parent.name)
    return found[-1] if found else None


def ask_hub(name: str) -> tuple[str, str]:
    """(text of a checkpoint's config.json, why there is none), within `HUB_SECONDS` whatever the network does."""
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return "", "HF_HUB_OFFLINE is set"
    answer = ["", f"no answer within {HUB_SECONDS:g} s"]
    asker = threading.Thread(target=_ask, args=(name, answer), daemon=True)
    asker.start()
    asker.join(HUB_SECONDS)
    return answer[0], answer[1]


def _ask(name: str, answer: list[str]) -> None:
    import urllib.error
    import urllib.request  # with http and ssl: only who asks the hub waits for them

    base = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    token = os.environ.get("HF_TOKEN", "")
    request = urllib.request.Request(f"{base.rstrip('/')}/{name}/resolve/main/config.json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=HUB_SECONDS) as reply:
            answer[:] = reply.read(LARGEST_CONFIG).decode("utf-8"), ""
    except urllib.error.HTTPError as error:
        closed = " (a gated model: set HF_TOKEN, or download its config.json)" if error.code in (401, 403) else ""
        answer[1] = f"HTTP {error.code}{closed}"
    except (OSError, ValueError) as error:
        answer[1] = str(getattr(error, "reason", error)).partition("\n")[0][:80] or type(error).__name__


@dataclass(frozen=True, slots=True)
class Entry:
    """A bundled model: totals are counted from its dimensions; published figures are 0 where none is known."""

    name: str
    family: str
    total: int  # parameters
    active: int  # parameters that take part in one token, embedding and head included
    max_length: int  # tokens
    published_total: int
    published_active: int
    source: str  # where the configuration comes from


RECALLED = "the bundled configuration was not compared with the original: its dimensions are recalled (data/models/README.md)"


@lru_cache(maxsize=1)
def _recalled() -> frozenset[str]:
    """What `Config.where` says of bundled files whose dimensions nobody looked up."""
    with (DATA / "index.csv").open(encoding="utf-8", newline="") as rows:
        return frozenset(f"bundled {r['name']}.json" for r in csv.DictReader(rows) if r["kind"] == "recalled")


def doubts(config: Config) -> tuple[str, ...]:
    """What to say of a configuration's origin before its numbers are believed."""
    file, _, release = config.where.partition(", for its release ")
    other = f"release {release} is not listed here: it is taken to have the dimensions of other releases of its name and size"
    return ((RECALLED,) if file in _recalled() else ()) + ((other,) if release else ())


def catalogue() -> list[Entry]:
    """All bundled models, from the index that stands beside them."""
    with (DATA / "index.csv").open(encoding="utf-8", newline="") as rows:
        return [
            Entry(
                r["name"],
                r["family"],
                int(r["total"]),
                int(r["active"]),
                int(r["max_length"]),
                int(r["published_total"]),
                int(r["published_active"]),
                r["source"],
            )
            for r in csv.DictReader(rows)
        ]
