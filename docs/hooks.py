"""What the site makes at build time: API and command reference, results from their cells, pages of the root folder."""

import ast
import html
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
INSERTED = re.compile(r"<!-- (cells|pareto|example|counts): (\w+) -->")


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
    pages["reference/commands.md"] = commands_page()
    pages["reference/errors.md"] = errors_page()
    pages |= {page: _rooted((ROOT / source).read_text()) for page, source in COPIES.items()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace `<!-- cells: table4 -->` by the table made of docs/results/table4/*.json; pareto and example alike."""
    makers = {"cells": cells, "pareto": pareto, "example": example, "counts": counts}
    return INSERTED.sub(lambda match: makers[match[1]](match[2]), markdown)


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


def commands_page() -> str:
    """Return the page of all commands and their settings, from the classes that read them."""
    describe = importlib.import_module("lfm_cli.describe")
    lines = ["# Commands", "", "`lfm VERB key=value …`; `lfm VERB --help` prints the same. Every command refuses a"]
    lines += ["misspelt setting and names the nearest one, continues when it is run again after an interruption, and"]
    lines += ["leaves a `summary.json`. `preset=FILE.yaml` reads settings from a file of your own. Paths are taken as"]
    lines += ["they stand.", "", "| exit code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in describe.CODES.items()]
    for group, verbs in describe.GROUPS.items():
        lines += ["", f"## {group[0].upper()}{group[1:]}"]
        for verb in verbs:
            lines += ["", f"### lfm {verb}", "", *_command(describe, importlib.import_module(f"lfm_cli.{verb}"))]
    return "\n".join(lines) + "\n"


def _command(describe: Any, module: Any) -> Iterator[str]:
    """Yield what a command does, and a row for each of its presets and settings."""
    yield module.__doc__.strip()
    yield from ("", "| setting | default | meaning |", "|---|---|---|")
    arguments = importlib.import_module("lfm_cli.arguments")
    presets = getattr(module, "PRESETS", None)
    seen: set[tuple[str, str]] = set()
    for model in (presets, module.Settings):
        for setting in () if model is None else arguments.settings_in(model):
            if (setting.name, setting.of) in seen or setting.name.endswith(".kind"):
                continue
            seen.add((setting.name, setting.of))
            required = setting.default is arguments.REQUIRED
            kind = f"({setting.of}) " if setting.of else ""
            choices = [str(choice) for choice in setting.choices if str(choice) not in setting.description]
            known = f" [{', '.join(choices)}]" if choices and "true" not in choices else ""
            value = "required" if required else f"`{describe.shown(setting.default)}`"
            text = html.escape(f"{kind}{setting.description}{known}", quote=False)
            text = text.replace("|", "&#124;").replace("[", "&#91;")  # [x] [m] would be a link
            yield f"| `{setting.name}` | {value} | {text} |"


def errors_page() -> str:
    """Return the page of all messages that this package raises on purpose, read from its source."""
    names = {node.name for node in ast.parse((ROOT / "lfm_policy/errors.py").read_text()).body if _is_error(node)}
    lines = ["# Error messages", "", "Every message that this package gives on purpose, by the module that gives it; a"]
    lines += ["command prints it after `error:` and exits with 2. ⟨…⟩ stands for what is filled in."]
    for folder in ("lfm_policy", "envs/lfm_envs", "scripts/lfm_cli"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            nodes = ast.walk(ast.parse(file.read_text()))
            found = sorted((node for node in nodes if _raises(node, names)), key=lambda call: call.lineno)
            if found:
                lines += ["", f"## {'.'.join(file.relative_to((ROOT / folder).parent).with_suffix('').parts)}", ""]
                lines += [f"- {call.func.id}: {_text(call.args[0])}" for call in found]
    return "\n".join(lines) + "\n"


def _is_error(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and node.name.endswith("Error")


def _raises(node: ast.AST, names: set[str]) -> bool:
    """Whether a node makes one of these errors with a text of its own."""
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    return called and bool(node.args) and isinstance(node.args[0], ast.Constant | ast.JoinedStr | ast.BinOp)


def _text(node: ast.AST) -> str:
    """Return the text of an expression, with ⟨…⟩ for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            return html.escape(text.replace("\n", " "), quote=False).replace("*", "\\*").replace("_", "\\_")
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) for part in parts)
        case ast.BinOp(left=left, right=right):
            return _text(left) + _text(right)
        case ast.FormattedValue(value=value):
            words = re.findall(r"[A-Za-z]+", ast.unparse(value))
            return f"⟨{' '.join(words[-1:])}⟩"
    return "⟨…⟩"


def cells(folder: str) -> str:
    """Return the Markdown of one table's cells, as `lfm reproduce` renders them, without its heading."""
    tables: Any = importlib.import_module("lfm_cli.reproduce").TABLES
    table = next(found for found in tables.values() if found.folder == folder)
    found = [json.loads(file.read_text()) for file in sorted((ROOT / "docs/results" / folder).glob("*.json"))]
    lines = [line for line in table.section(found) if not line.startswith("## Table") and not line.startswith("## Fig")]
    return "\n".join(lines).replace("\n## ", "\n### ")


def pareto(folder: str) -> str:
    """Return a table for each comparison of a teacher and its students in a folder of results."""
    lines: list[str] = []
    for file in sorted((ROOT / "docs/results" / folder).glob("*.json")):
        found = json.loads(file.read_text())
        if "rows" not in found:
            continue
        lines += ["", f"## {file.stem}", "", found["what"][0].upper() + found["what"][1:] + ".", ""]
        lines += ["| | NFE | parameters | updates | success | minus the teacher, paired | ms |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for row in found["rows"]:
            student = found.get("students", {}).get(row["name"], {})
            name = f"student `{row['name']}`" if row["student"] else f"teacher, blocks x steps {row['name']}"
            low, high = row["interval"]
            rate = f"{row['success']:.2f} [{low:.2f}, {high:.2f}]"
            numbers = f"{row['nfe']} | {row['parameters'] / 1e6:.1f} M | {student.get('updates', '')} | {rate}"
            lines += [f"| {name} | {numbers} | {_difference(row)} | {row['latency_ms']['p50']:.1f} |"]
    return "\n".join(lines)


def _difference(row: Any) -> str:
    pair = row.get("difference")
    if not pair:
        return ""
    low, high = pair["interval"]
    return f"{pair['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"


def counts(name: str) -> str:
    """Return the table of what was killed, damaged, sent and executed, and what went wrong, from a file of results."""
    found = json.loads((ROOT / f"docs/results/{name}.json").read_text())
    lines = ["| done to | how | count | went wrong |", "|---|---|---|---|"]
    for command, row in found["kills"].items():
        how = f"SIGKILL at random moments, {row['rounds']} rounds; the same command then ends bit-equal"
        lines.append(f"| `lfm {command}` | {how} | {row['kills']} | {len(row['wrong'])} |")
    for row in (row for kind in ("damage", "frames", "fuzzing", "gate") for row in found[kind]):
        lines.append(f"| {row['what']} | {row['how']} | {row['count']:,} | {row['wrong']} |")
    return "\n".join(lines)


def example(name: str) -> str:
    """Return the page of an example and its files, below a heading of the page that shows it."""
    folder = ROOT / "examples" / name
    title, _, text = (folder / "README.md").read_text().partition("\n")
    text = re.sub(r"^## ", "### ", text, flags=re.MULTILINE)
    text = re.sub(r"\]\(\.\./own_(\w+)/README\.md\)", r"](\1.md)", text)
    files = [file for file in sorted(folder.iterdir()) if file.suffix in (".py", ".yaml")]
    blocks = [
        f"`{file.name}`\n\n```{file.suffix[1:].replace('py', 'python')}\n{file.read_text()}```\n" for file in files
    ]
    return "\n".join([f"## Example: {title.removeprefix('# ')}", text, *blocks])


def _rooted(text: str) -> str:
    """Make the links of a page of the root folder relative to docs/."""
    names = {source: page for page, source in COPIES.items()}
    return re.sub(r"\]\((?:docs/)?([^)]*)\)", lambda match: f"]({names.get(match[1], match[1])})", text)
