"""The exact text formats of Qwen3-Embedding and Qwen3-Reranker. Pure functions on strings.

Source of every byte: the README and model cards of QwenLM/Qwen3-Embedding. The reranker answers "yes" or
"no" at the last position of one finished prompt, so one newline more or less changes the score.
"""

import re

DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

RERANK_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
RERANK_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

# The 26 entries that Qwen3's tokenizer matches before anything else, wherever they stand in a text, in the
# order of their ids.
CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
_CONTROL = re.compile("<(?=" + "|".join(re.escape(token[1:]) for token in CONTROL_TOKENS) + ")")


def neutralise(text: str) -> str:
    """Make control tokens in `text` plain words, by a space after their `<`; other text comes back as it is.

    No token contains a space, and none contains a second `<`, so the space can neither complete a token
    nor join two halves of one: one pass is enough.
    """
    return _CONTROL.sub("< ", text) if "<" in text else text


def embedding_query(query: str, instruction: str) -> str:
    """Format a query for Qwen3-Embedding. An empty instruction leaves the query bare, like a document."""
    # Not an f-string: it would take a string enum's name for its value.
    query = neutralise(query)
    return "Instruct: " + neutralise(instruction) + "\nQuery:" + query if instruction else query


def embedding_document(document: str) -> str:
    """Format a document for Qwen3-Embedding: as it is. The tokenizer appends the end token by itself."""
    return neutralise(document)


def rerank_head(query: str, instruction: str) -> str:
    """Format what documents of one query share, up to and with the newline after the query.

    Ending here keeps the part that is the same for all documents first, where vLLM's prefix cache finds it.
    """
    return RERANK_PREFIX + "<Instruct>: " + neutralise(instruction) + "\n<Query>: " + neutralise(query) + "\n"


def rerank_tail(document: str) -> str:
    """Format the rest: the document and the opening of the model's answer."""
    return "<Document>: " + neutralise(document) + RERANK_SUFFIX


def rerank_prompt(query: str, document: str, instruction: str) -> str:
    """Format the whole prompt, as Qwen's reference does."""
    return rerank_head(query, instruction) + rerank_tail(document)
