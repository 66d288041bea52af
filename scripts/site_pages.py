"""What mkdocs needs beside docs/: the first page of the project, and links that leave the folder (hooks of mkdocs.yml)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FIRST = "start.md"  # README.md of the project on the site; docs/README.md is its index
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the first page."""
    from mkdocs.structure.files import File

    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, FIRST, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A link to the project's first page stays one; other files of the project, and folders, are told by their names."""
    here = Path(page.file.src_uri).parent
    return LINK.sub(lambda found: _linked(found, here), markdown)


def _linked(found: re.Match[str], here: Path) -> str:
    image, words, target, place = found.groups()
    if image or "://" in target or target.startswith("mailto:"):
        return found[0]
    path = Path(*_parts((Path("docs") / here / target).as_posix()))
    if path == Path("README.md"):
        return f"[{words}]({'../' * len(here.parts)}{FIRST}{place or ''})"
    shown = path.is_relative_to("docs") and path.suffix == ".md" and (ROOT / path).is_file()
    if shown or path == Path("docs") / FIRST:
        return found[0]
    return words if words.strip("`") == path.as_posix() else f"{words} (`{path.as_posix()}`)"


def _parts(path: str) -> list[str]:
    """A path without its dots."""
    found: list[str] = []
    for part in path.split("/"):
        if part == "..":
            found = found[:-1]
        elif part not in ("", "."):
            found.append(part)
    return found
