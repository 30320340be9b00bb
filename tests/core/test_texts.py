"""The bound of a text's tokens, by its bytes alone."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from qwen3_vllm._core import texts
from tests.core.tokenizer import tokenizer


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
@example(text="\u0958\u0344\ufb2c")
@settings(deadline=None)
def test_no_text_has_more_tokens_than_its_bound(text: str) -> None:
    assert len(tokenizer().encode(text).ids) <= texts.token_bound(text)


def test_the_bound_counts_what_composing_adds() -> None:
    assert texts.token_bound("\u0958") > len("\u0958".encode())


@given(st.text(min_size=1))
def test_what_may_exceed_a_limit_is_looked_at(text: str) -> None:
    assert texts.may_exceed(["", text], texts.token_bound(text) - 1)
