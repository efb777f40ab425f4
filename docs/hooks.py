"""What the site makes at build time: API and command reference, results from their cells, pages of the root folder."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
COPIES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
CELLS = re.compile(r"<!-- cells: (\w+) -->")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the API's generated pages into the navigation."""
    reference = next(
        entry["Reference"] for entry in config.nav or [] if isinstance(entry, dict) and "Reference" in entry
    )
    if not any(isinstance(entry, dict) and "API" in entry for entry in reference):
        reference.append({"API": [f"reference/api/{name}.md" for name in api_pages()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {f"reference/api/{name}.md": text for name, text in api_pages().items()}
    pages |= {page: _rooted((ROOT / source).read_text()) for page, source in COPIES.items()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace `<!-- cells: table4 -->` by the table made of docs/results/table4/*.json."""
    return CELLS.sub(lambda match: cells(match[1]), markdown)


def api_pages() -> dict[str, str]:
    """Return a page for each room of the library: the documentation of its modules."""
    pages = {"ground": _page("Ground modules", _modules(ROOT / "lfm_policy", "lfm_policy", deep=False))}
    for folder in sorted(path.parent for path in (ROOT / "lfm_policy").glob("*/__init__.py")):
        name = f"lfm_policy.{folder.name}"
        pages[folder.name] = _page(name, _modules(folder, name))
    pages["envs"] = _page("lfm_envs", _modules(ROOT / "envs/lfm_envs", "lfm_envs"))
    return pages


def _modules(folder: Path, name: str, deep: bool = True) -> Iterator[str]:
    files = folder.rglob("*.py") if deep else folder.glob("*.py")
    for file in sorted(files):
        parts = file.relative_to(folder).with_suffix("").parts
        if parts[-1] != "__init__":
            yield ".".join((name, *parts))


def _page(title: str, modules: Iterator[str]) -> str:
    return f"# {title}\n\n" + "\n".join(f"::: {name}\n" for name in modules)


def cells(folder: str) -> str:
    """Return the Markdown of one table's cells, as `lfm reproduce` renders them, without its heading."""
    tables: Any = importlib.import_module("lfm_cli.reproduce").TABLES
    table = next(found for found in tables.values() if found.folder == folder)
    found = [json.loads(file.read_text()) for file in sorted((ROOT / "docs/results" / folder).glob("*.json"))]
    lines = [line for line in table.section(found) if not line.startswith("## Table") and not line.startswith("## Fig")]
    return "\n".join(lines).replace("\n## ", "\n### ")


def _rooted(text: str) -> str:
    """Make the links of a page of the root folder relative to docs/."""
    names = {source: page for page, source in COPIES.items()}
    return re.sub(r"\]\((?:docs/)?([^)]*)\)", lambda match: f"]({names.get(match[1], match[1])})", text)
