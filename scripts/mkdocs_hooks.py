"""What mkdocs.yml cannot say: tables written from the code, and pages for files outside docs/.

The pages of docs/ are read in the repository too, so they link to files beside docs/ by relative paths. Each
such file becomes a page of the site, under source/, and the links lead there. A link that leads nowhere is a
warning, which `mkdocs build --strict` takes for an error.
"""

import logging
import posixpath
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from griffe import Docstring, DocstringSectionAttributes
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic_core import PydanticUndefined

from qwen3_vllm import cli

ROOT = Path(__file__).parent.parent
ADDED = "source/"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)#\s]+)")
OPTIONS = re.compile(r"<!-- options: ([\w.]+)\.(\w+) -->")
COMMANDS = "<!-- commands -->"
COMMAND = re.compile(r"qwen3-vllm (\w+)([^`\n]*)")
FLAG = re.compile(r"(?<![^\s(])--[a-z][a-z-]*")

log = logging.getLogger("mkdocs.hooks.site")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file outside docs/ that a page, or a page added so, links to."""
    for readme in ROOT.glob("README*.md"):  # no pages of the site, but they are checked too
        text = readme.read_text(encoding="utf-8")
        _check_commands(readme.name, text)
        for link in LINK.findall(text):
            _link(readme.name, link, readme.name)
    texts = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    waiting = [target for path, text in texts.items() for target in _outside(path, text)]
    while waiting:
        path = waiting.pop()
        if _page_of(path) in files.src_uris:
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        if path.endswith(".md"):
            waiting += _outside(path, text)
        files.append(File.generated(config, _page_of(path), content=_as_page(path, text)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write the tables, and lead links to the pages of the site."""
    _check_commands(_path_of(page.file.src_uri), markdown)
    markdown = OPTIONS.sub(lambda found: "\n".join(_options(*found.groups())), markdown)
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, "\n\n".join(_commands()))
    path = _path_of(page.file.src_uri)
    if path.endswith(".md"):
        markdown = LINK.sub(lambda link: _link(path, link[1], page.file.src_uri), markdown)
    return re.sub(r"\[([^]]*)\]\(\)", r"\1", markdown)


def _page_of(path: str) -> str:
    """Name the page of the site for a file of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return ADDED + (path if path.endswith(".md") else f"{path}.md")


def _path_of(page: str) -> str:
    """Name the file of the repository that a page shows; the other way round."""
    if not page.startswith(ADDED):
        return f"docs/{page}"
    path = page.removeprefix(ADDED)
    return path if (ROOT / path).is_file() else path.removesuffix(".md")


def _target(path: str, link: str) -> str:
    """Name the file that a link in a file leads to; a folder's is its README."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    readme = f"{target}/README.md"
    return readme if (ROOT / readme).is_file() else target


def _outside(path: str, text: str) -> list[str]:
    targets = (_target(path, link) for link in LINK.findall(text))
    return [target for target in targets if not target.startswith("docs/") and (ROOT / target).is_file()]


def _link(path: str, link: str, page: str) -> str:
    target = _target(path, link)
    if (ROOT / target).is_dir():
        return ""  # a folder without a README has no page: its name stays
    if not (ROOT / target).is_file():
        log.warning("%s links to %s, which is not there", path, link)
        return link
    return posixpath.relpath(_page_of(target), posixpath.dirname(page))


def _check_commands(path: str, text: str) -> None:
    """Warn of a command, or a flag before ` -- `, that the command line does not have."""
    for name, rest in COMMAND.findall(text.replace("\\\n", " ")):
        if name not in cli.SUMMARIES:
            continue
        flags = {flag for each in cli.load(name).params for flag in (*each.opts, *each.secondary_opts)}
        for flag in FLAG.findall(rest.partition(" -- ")[0]):
            if flag not in flags and flag != "--help":
                log.warning("%s: `qwen3-vllm %s` has no %s", path, name, flag)


def _as_page(path: str, text: str) -> str:
    if path.endswith(".md"):
        return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)  # a model card's own
    language = Path(path).suffix.removeprefix(".").replace("jsonl", "json") or "text"
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n````{language}\n{text.rstrip()}\n````\n"


def _options(module: str, name: str) -> Iterator[str]:
    """Write the table of a settings class from its fields and its docstring."""
    settings = getattr(import_module(module), name)
    sections = Docstring(settings.__doc__, parser="google").parse()
    (attributes,) = (each for each in sections if isinstance(each, DocstringSectionAttributes))
    yield "| option | default | meaning |"
    yield "|---|---|---|"
    for attribute in attributes.value:
        field = settings.model_fields[attribute.name]
        default = "" if field.default in (None, PydanticUndefined) else f"`{field.default!r}`"
        yield _row(f"`{attribute.name}`", default, attribute.description)


def _commands() -> Iterator[str]:
    """Write each command's help, as the command line shows it."""
    for name in cli.SUMMARIES:
        command = cli.load(name)
        context = command.make_context(name, [], resilient_parsing=True)
        yield f"## qwen3-vllm {name}"
        yield f"```text\nqwen3-vllm {name} {' '.join(command.collect_usage_pieces(context))}\n```"
        yield re.sub(r"^Example: `(.*)`$", r"```bash\n\1\n```", command.help or "", flags=re.MULTILINE)
        rows = [_row(*_parameter(each)) for each in command.params if each.name != "help"]
        yield "\n".join(["| option | default | meaning |", "|---|---|---|", *rows])


def _parameter(parameter: Any) -> tuple[str, str, str]:
    is_argument = parameter.param_type_name == "argument"
    names = [parameter.metavar or parameter.name.upper()] if is_argument else parameter.opts
    written = [f"`{name}`" for name in [*names, *parameter.secondary_opts]]
    default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    shown = "" if default is None or default is False or callable(default) else str(default)
    variable = f" `{parameter.envvar}` in the environment." if parameter.envvar else ""
    return " ".join(written), shown, f"{parameter.help or ''}{variable}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"
