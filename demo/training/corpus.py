"""Turn the sources into training passages and into the held-out questions.

A passage is trained on; a held-out paragraph, with the questions people asked about it, never is.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from demo.training.sections import Section, read_html, read_rst

# What to put into the sources folder, and where it comes from.
SOURCES = {
    "wordnet-base_*.deb": "apt-get download wordnet-base",
    "debian-handbook_*.deb": "apt-get download debian-handbook",
    "debian-faq_*.deb": "apt-get download debian-faq",
    "python3.*-doc_*.deb": "apt-get download python3.11-doc",
    "cmrc2018_dev.json": "squad-style-data/ of the repository ymcui/cmrc2018",
    "cmrc2018_trial.json": "squad-style-data/ of the repository ymcui/cmrc2018",
}
Row = dict[str, object]  # a line of a .jsonl file
LONGEST = {"en": 1100, "zh": 640}  # characters of a passage; CMRC's paragraphs reach about 900
SHORTEST = {"en": 60, "zh": 24}
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Question:
    """What a person asked about a passage, and the passage's character where the answer starts."""

    text: str
    answer_start: int


@dataclass(frozen=True)
class Passage:
    """A text to retrieve.

    `group` names what it was cut from: passages of one group may answer each other's questions.
    """

    kind: str
    language: str
    group: str
    heading: str
    text: str
    questions: list[Question] = field(default_factory=list)


def unpack(sources: Path, target: Path) -> None:
    """Unpack the Debian packages among the sources into one tree; FileNotFoundError names what is missing."""
    for pattern, remedy in SOURCES.items():
        found = sorted(sources.glob(pattern))
        if not found:
            raise FileNotFoundError(f"{sources / pattern} is missing; get it with: {remedy}")
        if pattern.endswith(".deb"):
            subprocess.run(["dpkg-deb", "-x", str(found[-1]), str(target)], check=True)


def prepare(sources: Path, output: Path) -> None:
    """Write passages.jsonl, heldout-en.jsonl and heldout-zh.jsonl."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        unpack(sources, tree)
        documents = tree / "usr/share/doc"
        python = next(documents.glob("python3*/html/_sources"))
        passages = [
            *wordnet(tree / "usr/share/wordnet"),
            *documentation(python, "python"),
            *documentation(documents / "debian-handbook/html/en-US", "handbook"),
            *documentation(documents / "debian-handbook/html/zh-CN", "handbook"),
            *cmrc(sources / "cmrc2018_dev.json"),
        ]
        english: list[Row] = [*python_faq(python / "faq"), *debian_faq(documents / "debian/FAQ")]
    chinese: list[Row] = [
        {"text": passage.text, "questions": [question.text for question in passage.questions]}
        for passage in cmrc(sources / "cmrc2018_trial.json")
        if passage.kind == "cmrc"
    ]
    _write_lines(output / "passages.jsonl", (asdict(passage) for passage in passages))
    _write_lines(output / "heldout-en.jsonl", english)
    _write_lines(output / "heldout-zh.jsonl", chinese)


def read_passages(folder: Path) -> list[Passage]:
    """Read what `prepare` wrote."""
    with (folder / "passages.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Passage(**row | {"questions": [Question(**q) for q in row["questions"]]}) for row in rows]


def read_heldout(path: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """Return the paragraphs, and the questions, each with the index of its paragraph."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    questions = [(question, index) for index, row in enumerate(rows) for question in row["questions"]]
    return [row["text"] for row in rows], questions


def wordnet(folder: Path) -> Iterator[Passage]:
    """Yield `word, synonym: definition; "example"` for each sense."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="ascii").splitlines():
            if line.startswith("  "):
                continue
            fields, _, gloss = line.partition(" | ")
            parts = fields.split()
            words = [parts[4 + 2 * place] for place in range(int(parts[3], 16))]
            names = [re.sub(r"\((a|p|ip)\)$", "", word).replace("_", " ") for word in words]
            text = f"{', '.join(names)}: {gloss.strip()}"
            yield Passage("wordnet", "en", f"wordnet {names[0].lower()}", names[0], text[: LONGEST["en"]])


def documentation(folder: Path, kind: str) -> Iterator[Passage]:
    """Yield passages of a tree of pages, cut at paragraphs; the FAQ is held out."""
    html = sorted(folder.glob("*.html"))
    rst = sorted(path for path in folder.rglob("*.rst.txt") if path.parent.name != "faq")
    for path in html + rst:
        page = path.read_text(encoding="utf-8")
        for section in read_html(page) if path in html else read_rst(page):
            whole = " ".join(section.paragraphs)
            language = "zh" if len(_CHINESE.findall(whole)) > len(whole) / 10 else "en"
            group = f"{kind} {language} {path.stem} {section.heading}"
            for text in _windows(section.paragraphs, LONGEST[language], "" if language == "zh" else " "):
                if len(text) >= SHORTEST[language]:
                    yield Passage(kind, language, group, section.heading, text)


def cmrc(path: Path) -> Iterator[Passage]:
    """Yield each paragraph of CMRC 2018 whole (kind `cmrc`), and cut into a few sentences (`cmrc-part`)."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            context, title, group = paragraph["context"], article["title"], f"cmrc {article['title']}"
            questions = [
                Question(entry["question"].strip(), entry["answers"][0]["answer_start"])
                for entry in paragraph["qas"]
            ]
            yield Passage("cmrc", "zh", group, title, context, questions)
            start = 0
            for text in _windows(_sentences(context), 180, ""):
                inside = [
                    Question(question.text, question.answer_start - start)
                    for question in questions
                    if start <= question.answer_start < start + len(text)
                ]
                if len(text) >= SHORTEST["zh"]:
                    yield Passage("cmrc-part", "zh", group, title, text, inside)
                start += len(text)


def python_faq(folder: Path) -> Iterator[Row]:
    """Yield Python's frequently asked questions with their answers."""
    for path in sorted(folder.glob("*.rst.txt")):
        yield from _answers(read_rst(path.read_text(encoding="utf-8")), "python-faq")


def debian_faq(folder: Path) -> Iterator[Row]:
    """Yield Debian's frequently asked questions with their answers."""
    for path in sorted(folder.glob("*.en.html")):
        yield from _answers(read_html(path.read_text(encoding="utf-8")), "debian-faq")


def _answers(sections: Iterable[Section], source: str) -> Iterator[Row]:
    for section in sections:
        answer = next(_windows(section.paragraphs, LONGEST["en"], " "), "")
        if section.heading.rstrip("!").endswith("?") and len(answer) >= SHORTEST["en"]:
            yield {"source": source, "text": answer, "questions": [section.heading]}


def _windows(pieces: Iterable[str], longest: int, between: str) -> Iterator[str]:
    """Join neighbouring pieces into texts of at most `longest` characters; a longer piece is cut."""
    text = ""
    for piece in pieces:
        if text and len(text) + len(between) + len(piece) > longest:
            yield text
            text = ""
        text = text + between + piece if text else piece
        while len(text) > longest:
            yield text[:longest]
            text = text[longest:]
    if text:
        yield text


def _sentences(text: str) -> list[str]:
    return re.findall(r"[^。！？]+[。！？]?|[。！？]", text)


def _write_lines(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
