"""How many tokens texts are: by a tokenizer, or by a stated estimate (floor 2).

A tokenizer is a `tokenizer.json` as models bring it, read by the `tokenizers` library.  It is looked for on this
machine; nothing is downloaded unless that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from apexsim.errors import InputError, nearest
from apexsim.examples import expanded
from apexsim.files import DOCUMENT, hub_cache, read_text

FILE = "tokenizer.json"
MISSING = "the tokenizer library is missing"
INSTALL = "pip install 'apexsim[tokenize]', or estimate: --chars-per-token 4"


@dataclass(frozen=True, slots=True)
class Counter:
    """count: tokens of each of some texts, without special ones; special: tokens put around a prompt; note: how it was
    counted, for the reader."""

    count: Callable[[Sequence[str]], list[int]]
    special: int = 0
    note: str = ""


def by_chars(per_token: float) -> Counter:
    """Characters over a number, rounded; a text of any length is 1 token at least."""
    note = f"lengths are estimates: characters over {per_token:g}"
    return Counter(lambda texts: [max(1, round(len(text) / per_token)) if text else 0 for text in texts], 0, note)


def by_words(per_word: float) -> Counter:
    """Words between blanks times a number, rounded; a text of any length is 1 token at least."""
    note = f"lengths are estimates: {per_word:g} tokens per word"
    return Counter(lambda texts: [max(1, round(len(text.split()) * per_word)) if text else 0 for text in texts], 0, note)


def by_tokenizer(name: str, download: bool = False) -> Counter:
    """A tokenizer.json, a folder that holds one, or the hub name of a model whose tokenizer lies in the local cache.

    download: ask the hub for it where it does not.  Cutting and padding that the file prescribes are switched off.
    """
    try:
        library = import_module("tokenizers")
    except ImportError:
        raise InputError(MISSING, "--tokenizer", INSTALL) from None
    path = _file(name, download)
    try:
        tokenizer: Any = library.Tokenizer.from_str(read_text(path, "tokenizer", DOCUMENT))
    except InputError:
        raise
    except Exception as error:  # the library raises bare exceptions; all mean that the file is of no use
        reason = str(error).strip().partition("\n")[0][:160]
        raise InputError(f"this is no tokenizer ({reason})", str(path), f"expected a {FILE}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)

    def count(texts: Sequence[str]) -> list[int]:
        if not all(map(str.isascii, texts)):  # half of a pair, as broken JSON escapes leave it, is no text to the library
            texts = [text.encode("utf-8", "replace").decode() for text in texts]
        return [len(found.ids) for found in encode(list(texts), add_special_tokens=False)]

    special = int(tokenizer.num_special_tokens_to_add(False))
    return Counter(count, special, f"lengths counted by {path if name in (str(path), str(path.parent)) else name}")


def _file(name: str, download: bool) -> Path:
    """Where the tokenizer lies."""
    path = expanded(name)
    for found in (path, path / FILE):
        if found.is_file():
            return found
    if path.is_dir():
        raise InputError(f"the folder holds no {FILE}", name)
    if name.startswith((".", "/", "~")) or name.endswith(".json") or name.count("/") > 1:
        raise InputError("the tokenizer does not exist", name, f"expected a {FILE}, or a folder that holds one")
    cached = _cached()
    if name.lower() in cached:
        return cached[name.lower()]
    if download:
        return _downloaded(name)
    hint = f"{nearest(name, cached)} " if cached else ""
    told = f"the tokenizer '{name}' is neither a file nor in the local hub cache"
    raise InputError(told, "--tokenizer", f"{hint}name its {FILE}, or fetch it with --download")


def _cached() -> dict[str, Path]:
    """Hub names in small letters of the tokenizers in the local cache, and their files; the newest revision of each."""
    cache = hub_cache()
    files = sorted(cache.glob(f"models--*/snapshots/*/{FILE}"), key=lambda file: (file.stat().st_mtime, str(file)))
    return {file.parts[-4].removeprefix("models--").replace("--", "/").lower(): file for file in files if file.is_file()}


def _downloaded(name: str) -> Path:
    try:
        hub = import_module("huggingface_hub")
    except ImportError:
        told = "the hub library is missing"
        raise InputError(told, "--download", "pip install 'apexsim[hub]'") from None
    try:
        return Path(hub.hf_hub_download(name, FILE))
    except Exception as error:  # the hub's own errors differ by version; all mean "not available"
        reason = str(error).strip().partition("\n")[0][:120]
        raise InputError(f"the hub did not give the tokenizer '{name}' ({reason})", "--download") from None
