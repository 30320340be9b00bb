"""Read documentation pages, HTML and reStructuredText, as sections: a heading and its paragraphs. Pure."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
_BLOCKS = {"p", "li", "dd", "dt", "td"}
_SKIPPED = {"pre", "script", "style", "title", "sup"}
_NAVIGATION = re.compile(r"toc|nav|footnote|legalnotice|author", re.I)
_NUMBERING = re.compile(r"^(Chapter |Appendix |第 ?)?[\dA-Z]{1,2}(\.\d+)*( ?章)?\.?\s+")

_UNDERLINE = re.compile(r"^([=\-~^*+#\"'])\1{2,}\s*$")
_ROLE_WITH_TITLE = re.compile(r":[\w:+-]+:`!?([^`<]+?)\s*<[^`]*>`")
_ROLE = re.compile(r":[\w:+-]+:`[!~]?([^`]+)`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`]*>`__?")
_MARKUP = re.compile(r"``([^`]*)``|\*\*([^*]+)\*\*|(?<!\w)\*([^*\s][^*]*)\*|`([^`]+)`_{0,2}|\|([^|]+)\|")
_OBJECT = re.compile(
    r"^\.\. (?:(?:c|py):)?(?:function|method|class|data|attribute|exception|opcode|module|"
    r"decorator|classmethod|staticmethod|macro|type|option|envvar|pdbcommand|2to3fixer):: (.+)$"
)


@dataclass
class Section:
    """A heading with the paragraphs under it, up to the next heading."""

    heading: str
    paragraphs: list[str] = field(default_factory=list)


def read_html(page: str) -> list[Section]:
    """Return the sections of a DocBook page; code listings and navigation are left out."""
    reader = _HtmlReader()
    reader.feed(page)
    reader.flush()
    return [section for section in reader.sections if section.paragraphs]


class _HtmlReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.sections = [Section("")]
        self._text: list[str] = []
        self._in_heading = False
        self._skipping: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        marks = " ".join(value or "" for name, value in attrs if name == "class")
        if self._skipping:
            if tag == self._skipping[0]:
                self._skipping.append(tag)
        elif tag in _SKIPPED or (tag in {"div", "dl", "ul", "table"} and _NAVIGATION.search(marks)):
            self._skipping.append(tag)
        elif tag in _HEADINGS:
            self.flush()
            self._in_heading = True
        elif tag in _BLOCKS or (tag == "div" and "para" in marks):
            self.flush()

    def handle_endtag(self, tag: str) -> None:
        if self._skipping:
            if tag == self._skipping[-1]:
                self._skipping.pop()
        elif tag in _HEADINGS:
            heading = _one_line("".join(self._text))
            self._text.clear()
            self._in_heading = False
            self.sections.append(Section(_NUMBERING.sub("", heading)))
        elif tag in _BLOCKS or tag == "div":
            self.flush()

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._text.append(data)

    def flush(self) -> None:
        """End the paragraph being read."""
        text = _one_line("".join(self._text))
        if self._in_heading:
            return
        self._text.clear()
        if text:
            self.sections[-1].paragraphs.append(text)


def read_rst(source: str) -> list[Section]:
    """Return the sections of a Sphinx page; code and directives go, descriptions of objects get a heading."""
    lines = source.expandtabs().splitlines()
    sections = [Section("")]
    paragraph: list[str] = []
    code_indent = -1  # text indented deeper than this is a code block or a directive's body

    def flush() -> None:
        text = _plain(_one_line(" ".join(paragraph)))
        paragraph.clear()
        if text:
            sections[-1].paragraphs.append(text)

    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        indent = len(line) - len(line.lstrip())
        stripped = line.strip()
        if not stripped:
            flush()
            continue
        if code_indent >= 0:
            if indent > code_indent:
                continue
            code_indent = -1
        if _UNDERLINE.match(following) and len(following.strip()) >= len(stripped) - 2 and indent < 2:
            flush()
            sections.append(Section(_plain(stripped)))
        elif _UNDERLINE.match(stripped) or stripped.startswith((">>>", "... ", ":tocdepth")):
            flush()
        elif described := _OBJECT.match(stripped):
            flush()
            sections.append(Section(_plain(described[1])))
        elif stripped.startswith(".. "):
            flush()
            if not re.match(
                r"\.\. (note|seealso|versionadded|versionchanged|warning|deprecated)::", stripped
            ):
                code_indent = indent
        else:
            paragraph.append(stripped)
            if stripped.endswith("::"):
                paragraph[-1] = stripped[:-1] if stripped != "::" else ""
                flush()
                code_indent = indent
    flush()
    return [section for section in sections if section.paragraphs]


def _plain(text: str) -> str:
    for pattern in (_ROLE_WITH_TITLE, _ROLE, _LINK):
        text = pattern.sub(r"\1", text)
    text = _MARKUP.sub(lambda found: next(group for group in found.groups() if group is not None), text)
    return text.replace("\\", "").strip()


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
