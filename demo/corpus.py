"""Passages from a .jsonl, .txt or .md file. Pure apart from reading the file."""

import re
from dataclasses import dataclass
from pathlib import Path

from qwen3_vllm import InputError
from qwen3_vllm._core.text_files.whole import read_texts

PASSAGE_CHARACTERS = 800
SUFFIXES = (".jsonl", ".txt", ".md")

_BLANK_LINES = re.compile(r"\n\s*\n")
# Ends of sentences: a full stop counts before a space only, so that 3.14 stays whole.
_SENTENCE_ENDS = re.compile(r"(?<=[。！？；\n])|(?<=[.!?;])(?=\s)")


class CorpusError(Exception):
    """The file holds nothing that can be searched; the message says where and why."""


@dataclass(frozen=True)
class Passage:
    """A piece of text small enough to embed and to show, and its name in the file."""

    id: str
    text: str


def read_corpus(path: Path) -> list[Passage]:
    """Read passages: the `text` of each line of a .jsonl, or the paragraphs of a .txt or .md.

    Raises:
        CorpusError: Missing, unreadable, empty, of another kind, or not in the form its name promises.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise CorpusError(f"{path}: give a {', '.join(SUFFIXES)} file")
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".jsonl":
            passages = _from_jsonl(path, content)
        else:
            passages = _from_paragraphs(content.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path}: not UTF-8 (byte {error.start}); convert it first, e.g. iconv -f GB18030 -t UTF-8"
        ) from error
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}") from error
    except InputError as error:
        raise CorpusError(str(error)) from error
    if not passages:
        raise CorpusError(f"{path}: holds no text")
    return passages


def _from_jsonl(path: Path, content: bytes) -> list[Passage]:
    texts = read_texts(content, "jsonl", str(path))
    for each in texts:
        if not each.text.strip():
            raise CorpusError(f"{path}, line {each.number}: the text is empty")
    return [Passage(each.id or str(each.number), each.text) for each in texts]


def _from_paragraphs(text: str) -> list[Passage]:
    """Split at blank lines; a heading goes with the paragraph after it, a long paragraph is cut up."""
    passages: list[Passage] = []
    headings: list[str] = []
    for block in map(str.strip, _BLANK_LINES.split(text)):
        if block.startswith("#") and "\n" not in block:
            headings.append(block.lstrip("# "))
        elif block:
            pieces = split_long("\n".join([*headings, block]))
            passages += [Passage(str(len(passages) + place), piece) for place, piece in enumerate(pieces, 1)]
            headings = []
    if headings:
        passages.append(Passage(str(len(passages) + 1), "\n".join(headings)))
    return passages


def split_long(paragraph: str) -> list[str]:
    """Cut a paragraph at ends of sentences into pieces of at most PASSAGE_CHARACTERS."""
    pieces, piece = [], ""
    for sentence in _SENTENCE_ENDS.split(paragraph):
        if piece and len(piece) + len(sentence) > PASSAGE_CHARACTERS:
            pieces.append(piece)
            piece = ""
        piece += sentence
        while len(piece) > PASSAGE_CHARACTERS:
            pieces.append(piece[:PASSAGE_CHARACTERS])
            piece = piece[PASSAGE_CHARACTERS:]
    stripped = (piece.strip() for piece in [*pieces, piece])
    return [piece for piece in stripped if piece]
