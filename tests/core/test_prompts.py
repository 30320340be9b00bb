"""The formats, byte for byte, and that user text never becomes a control token: by Qwen3's own tokenizer."""

import hashlib
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from demo import qwen3_tokenizer
from qwen3_vllm._core import prompts
from tests.core.tokenizer import tokenizer
from tests.fake_vllm import RIGHT_TEMPLATE, STOCK_TEMPLATE, render

FIRST_CONTROL_ID = qwen3_tokenizer.RANKS
PIECES = [
    *prompts.CONTROL_TOKENS,
    *(
        piece
        for token in prompts.CONTROL_TOKENS
        for piece in (token[: len(token) // 2], token[1:], token[:-1])
    ),
    *("<", ">", "|", "</", "|>", "< ", " ", "\n", "\u0338", "\u200b", "中", "a", "im_end", "think"),
]

hostile = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)


def control_ids(text: str) -> list[int]:
    return [token for token in tokenizer().encode(text).ids if token >= FIRST_CONTROL_ID]


def test_the_rerank_prompt_is_qwens_byte_for_byte() -> None:
    assert prompts.rerank_prompt("Q", "D", "I").encode() == (
        b"<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        b'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        b"<|im_start|>user\n<Instruct>: I\n<Query>: Q\n<Document>: D<|im_end|>\n"
        b"<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_what_documents_share_comes_first_and_ends_with_the_querys_newline() -> None:
    head, tail = prompts.rerank_head("Q", "I"), prompts.rerank_tail("D")

    assert head.endswith("<Query>: Q\n")
    assert tail.startswith("<Document>: D")
    assert head + tail == prompts.rerank_prompt("Q", "D", "I")


def test_an_embedding_query_has_its_instruction_and_no_space_after_the_colon() -> None:
    assert prompts.embedding_query("Q", "I") == "Instruct: I\nQuery:Q"


def test_an_empty_instruction_leaves_an_embedding_query_bare() -> None:
    assert prompts.embedding_query("Q", "") == "Q"


def test_the_default_instruction_is_qwens() -> None:
    assert prompts.DEFAULT_INSTRUCTION == (
        "Given a web search query, retrieve relevant passages that answer the query"
    )


def test_the_control_tokens_are_qwens_in_the_order_of_their_ids() -> None:
    digest = hashlib.sha256(" ".join(prompts.CONTROL_TOKENS).encode()).hexdigest()

    assert digest.startswith("fe4f6775be88db22"), "of added_tokens in Qwen's tokenizer.json"


@pytest.mark.parametrize("instruction", [None, "", "Do 这个: {{ x }} {% y %}"])
@pytest.mark.parametrize("text", ["plain", "  两端 \n", "", '& < > "quoted" {{ query }} {% if %}'])
def test_the_server_template_renders_the_same_bytes(text: str, instruction: str | None) -> None:
    messages = [{"role": "query", "content": text}, {"role": "document", "content": text[::-1]}]
    variables = {} if instruction is None else {"instruction": instruction}

    rendered = render(RIGHT_TEMPLATE, messages=messages, **variables)

    expected = prompts.rerank_prompt(text, text[::-1], instruction or prompts.DEFAULT_INSTRUCTION)
    assert rendered.encode() == expected.encode()


def test_the_fakes_stock_template_lacks_the_last_newline() -> None:
    messages = [{"role": "query", "content": "Q"}, {"role": "document", "content": "D"}]

    rendered = render(STOCK_TEMPLATE, messages=messages)

    assert rendered + "\n" == prompts.rerank_prompt("Q", "D", prompts.DEFAULT_INSTRUCTION)


def test_the_control_tokens_are_all_that_the_tokenizer_matches_whole() -> None:
    added = {token.content for token in tokenizer().get_added_tokens_decoder().values()}

    assert set(prompts.CONTROL_TOKENS) == added
    assert len(prompts.CONTROL_TOKENS) == 26


@pytest.mark.parametrize("token", prompts.CONTROL_TOKENS)
def test_a_control_token_becomes_words_that_still_read_as_it(token: str) -> None:
    text = f"before {token} after"

    neutral = prompts.neutralise(text)

    assert control_ids(text) and not control_ids(neutral)
    assert neutral.replace("< ", "<") == text


@given(hostile)
@example("<|im_<|im_end|>end|>")
@example("<<|im_end|>|im_end|>")
@example("<|im_end|><|im_end|>")
@example("<\u0338|im_end|>")
@example("<think></think></think")
@settings(max_examples=200, deadline=None)
def test_no_control_token_arises_from_text(text: str) -> None:
    neutral = prompts.neutralise(text)

    assert control_ids(neutral) == []
    assert prompts.neutralise(neutral) == neutral
    assert neutral.replace("< ", "<") == text.replace("< ", "<")


@given(hostile, hostile, hostile)
@example("<|im_end|", "<|im_end|", "<|im_end|")
@example("|im_end|>", "|im_end|>", "|im_end|>")
@example("<", "<", "<")
@settings(max_examples=100, deadline=None)
def test_no_control_token_arises_at_the_seams_of_the_rerank_prompt(
    query: str, document: str, instruction: str
) -> None:
    ours = control_ids(prompts.rerank_prompt("q", "d", "i"))

    assert control_ids(prompts.rerank_prompt(query, document, instruction)) == ours
    assert control_ids(prompts.rerank_head(query, instruction)) == control_ids(prompts.rerank_head("q", "i"))
    assert control_ids(prompts.rerank_tail(document)) == control_ids(prompts.rerank_tail("d"))


@given(hostile, hostile)
@example("|im_end|>", "<")
@settings(max_examples=100, deadline=None)
def test_no_control_token_arises_in_an_embedding(text: str, instruction: str) -> None:
    assert control_ids(prompts.embedding_query(text, instruction)) == []
    assert control_ids(prompts.embedding_document(text)) == []


@given(hostile, hostile)
@example("<|im_end|>" * 3, "</think>")
@settings(max_examples=100, deadline=None)
def test_neutral_text_stays_neutral_when_the_server_templates_it(query: str, document: str) -> None:
    messages = [
        {"role": "query", "content": prompts.neutralise(query)},
        {"role": "document", "content": prompts.neutralise(document)},
    ]

    rendered = render(RIGHT_TEMPLATE, messages=messages)

    assert control_ids(rendered) == control_ids(prompts.rerank_prompt("q", "d", "i"))


@given(st.text() | hostile)
@settings(max_examples=100, deadline=None)
def test_text_without_control_tokens_is_byte_identical(text: str) -> None:
    if not any(token in text for token in prompts.CONTROL_TOKENS):
        assert prompts.neutralise(text) == text


@pytest.mark.parametrize("text", ["<html><body>", "a < b > c", "<|im_end >", "< |im_end|>", "<thinking>"])
def test_text_that_only_looks_like_markup_is_byte_identical(text: str) -> None:
    assert prompts.neutralise(text) == text


def test_neutralising_takes_time_in_proportion_to_the_text() -> None:
    """A pattern that backtracks would take minutes here."""
    noise = "".join(random.Random(1).choices(["<", "<|", "<|im_end|", "</think"], k=200_000))

    assert prompts.neutralise(noise) == noise
