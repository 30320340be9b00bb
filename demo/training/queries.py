"""Make up the queries a passage could be found by, where no person asked any. Pure, given a random source."""

import random
import re
from collections.abc import Iterator

from demo.training.corpus import Passage
from qwen3_vllm._core import prompts

# How many queries are made up per passage, by (kind, language).
QUERIES_PER_PASSAGE = {
    ("wordnet", "en"): 1,
    ("python", "en"): 10,
    ("handbook", "en"): 14,
    ("handbook", "zh"): 16,
    ("cmrc", "zh"): 40,
    ("cmrc-part", "zh"): 8,
}
# Most queries carry the default instruction; some carry another, or none, so that these work, too.
INSTRUCTIONS = (
    "Given a question, find the passage that answers it",
    "Retrieve documents that are relevant to the query",
    "Given a user question about software, retrieve the documentation that answers it",
    "Find the definition of the term",
    "Given a search query, retrieve relevant text in any language",
    "根据问题检索能够回答该问题的段落",
    "给定一个网络搜索查询，检索回答该查询的相关段落",
)
_DEFINITION = (
    "what is {}?",
    "what is {}",
    "What does {} mean?",
    "meaning of {}",
    "define {}",
    "{}",
    "{} definition",
)
_HEADING = (
    "{}",
    "{}",
    "How do I use {}?",
    "What is {}?",
    "how does {} work?",
    "explain {}",
    "What does {} do?",
)
_QUESTION = (
    "How do I {}?", "How can I {}?", "Why does {}?", "Why {}?", "What {}?", "Can I {}?", "When should I {}?",
    "What is {}?", "Is it possible to {}?", "Does {}?", "Is {}?", "Where is {}?", "Which {}?", "how to {}",
)  # fmt: skip
_BLANKS = ("什么", "谁", "哪里", "哪一年", "多少", "哪些", "哪个", "何时", "怎样", "为什么", "几")
_CHINESE_SUBJECT = (
    "什么是{}？",
    "{}是什么？",
    "介绍一下{}",
    "{}",
    "{}有哪些特点？",
    "关于{}",
    "{}在哪里？",
    "{}是谁？",
)
_STOP_WORDS = """the a an of to and in is are be was were it its this that these those for on with as by or
from at which can will would may not if you your we i he she they has have had but so than then there"""
_STOP = frozenset(_STOP_WORDS.split())


def made_up(passage: Passage, chance: random.Random) -> Iterator[str]:
    """Yield queries for a passage: headings, questions with a blank, keywords, pieces of sentences."""
    for _ in range(QUERIES_PER_PASSAGE[passage.kind, passage.language]):
        if passage.kind == "wordnet":
            query = _wordnet(passage, chance)
        elif passage.language == "zh":
            query = _chinese(passage, chance)
        else:
            query = _english(passage, chance)
        if len(query) > 1:
            yield query


def instruction(chance: random.Random) -> str:
    """Return an instruction: mostly the default, now and then another, or none."""
    draw = chance.random()
    if draw < 0.72:
        return prompts.DEFAULT_INSTRUCTION
    return chance.choice(INSTRUCTIONS) if draw < 0.94 else ""


def _wordnet(passage: Passage, chance: random.Random) -> str:
    names, _, gloss = passage.text.partition(": ")
    definition, _, examples = gloss.partition('; "')
    draw = chance.random()
    if draw < 0.5:
        return chance.choice(_DEFINITION).format(chance.choice(names.split(", ")))
    if examples and draw < 0.6:
        return examples.partition('"')[0]
    return " ".join(_thin(definition.split(), chance, 0.25))


def _english(passage: Passage, chance: random.Random) -> str:
    draw = chance.random()
    if passage.heading and draw < 0.25:
        return chance.choice(_HEADING).format(passage.heading)
    sentence = chance.choice(re.split(r"(?<=[.!?:])\s+", passage.text))
    words = sentence.rstrip(".:;,").split()
    if draw < 0.45:
        rare = [word.strip(".,;:()\"'") for word in words if word.lower() not in _STOP]
        chance.shuffle(rare)
        return " ".join(rare[: chance.randint(1, 5)])
    start = chance.randrange(max(1, len(words) - 5))
    clause = _thin(words[start : start + chance.randint(4, 12)], chance, 0.3)
    if draw < 0.85:
        return chance.choice(_QUESTION).format(" ".join(clause))
    return " ".join(clause)


def _chinese(passage: Passage, chance: random.Random) -> str:
    clauses = [piece for piece in re.split(r"[。！？；，、：\n]", passage.text) if len(piece) >= 4]
    draw = chance.random()
    if not clauses or (passage.heading and draw < 0.12):
        return chance.choice(_CHINESE_SUBJECT).format(passage.heading)
    clause = chance.choice(clauses)
    if draw < 0.3:
        pieces = [_span(chance.choice(clauses), chance, 2, 6) for _ in range(chance.randint(1, 3))]
        return chance.choice(("", " ")).join(pieces)
    if draw < 0.45:
        return chance.choice(_CHINESE_SUBJECT).format(_span(clause, chance, 2, 8))
    span = _span(clause, chance, 5, 22)
    if draw < 0.55:
        return span
    start = chance.randrange(len(span))
    hidden = chance.randint(1, max(1, len(span) // 3))
    question = span[:start] + chance.choice(_BLANKS) + span[start + hidden :]
    if passage.heading and chance.random() < 0.25:
        question = passage.heading + chance.choice(("的", "", "，")) + question
    return question + chance.choice(("？", "？", "?", ""))


def _span(text: str, chance: random.Random, shortest: int, longest: int) -> str:
    length = min(len(text), chance.randint(shortest, longest))
    start = chance.randrange(len(text) - length + 1)
    return text[start : start + length]


def _thin(words: list[str], chance: random.Random, dropped: float) -> list[str]:
    return [word for word in words if chance.random() >= dropped] or words
