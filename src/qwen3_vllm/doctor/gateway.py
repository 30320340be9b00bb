"""What a server can and cannot do through the gateway before it, and what helps.

The clients find this out themselves and work around it; other clients may not.
"""

from qwen3_vllm import errors
from qwen3_vllm._core.discovery.capabilities import ask_most_texts
from qwen3_vllm._core.embedding.client import EmbeddingClient
from qwen3_vllm._core.embedding.server import EmbeddingServer
from qwen3_vllm._core.embedding.truncation import cuts_inputs
from qwen3_vllm._core.reranking.client import RerankClient
from qwen3_vllm._core.reranking.relearn import ask_most as ask_most_pairs
from qwen3_vllm._core.reranking.server import RerankServer
from qwen3_vllm._core.vllm_api.calls import tokenize
from qwen3_vllm.doctor.checks import Examination, Note

_NO_TOKENIZE = "Let the gateway pass on POST /tokenize"


def embedding_through_gateway(
    examination: Examination, client: EmbeddingClient, server: EmbeddingServer
) -> None:
    """Note the encoding, the texts per request and who cuts long texts."""
    with examination.checking("encoding") as note:
        if server.encoding in ("bytes_only", "base64"):
            note("ok", server.encoding)
        else:
            seen = f"JSON numbers only (encoding_format {server.encoding})"
            advice = (
                "Let the gateway pass on encoding_format base64: as numbers, vectors are several times larger"
            )
            note("warn", seen, advice)
    batch_size = client.settings.batch_size
    with examination.checking("texts per request") as note:
        most = examination.run(ask_most_texts(batch_size, lambda count: server.question(["a"] * count)))
        _note_most(note, most, batch_size)
    with examination.checking("long texts") as note:
        if _counts(examination, server.model):
            note("ok", "counted by /tokenize, and cut as Transformers cuts")
        elif examination.run(cuts_inputs(server)):
            note("warn", "cut by the server: no /tokenize", _NO_TOKENIZE)
        else:
            seen = "cut by their bytes once refused: neither /tokenize nor truncate_prompt_tokens"
            advice = f"{_NO_TOKENIZE}, or the field truncate_prompt_tokens"
            note("warn", seen, advice)


def reranker_through_gateway(examination: Examination, client: RerankClient, server: RerankServer) -> None:
    """Note the routes, the instruction, token counts, the documents per request and who cuts long ones."""
    if server.route == "score":
        examination.note("scores pairs", "ok", "/v1/score")
    else:
        only = "/v1/rerank, one query per request" if server.route == "rerank" else "/classify alone"
        advice = "Nothing to do for this client; to save requests, let the gateway pass on POST /v1/score"
        examination.note("scores pairs", "warn", only, advice)
    if server.classifies:
        examination.note("finished prompts", "ok", "/classify")
    else:
        advice = (
            "Let the gateway pass on POST /classify; where the template could not be checked and you know it"
            ', pass template="server" or "client"'
        )
        examination.note(
            "finished prompts", "warn", "no /classify: a wrong template cannot be avoided", advice
        )
    if server.route is not None and not server.instructs:
        seen = "the field `instruction` is refused"
        advice = "Let the gateway pass it on, or start the server without --chat-template"
        examination.note("instruction field", "warn", seen, advice)
    if server.fingerprint.tokens is None:
        advice = 'Let the gateway keep `usage`; pass template="server" or template="client" if you know which'
        examination.note("token counts", "warn", "responses report no tokens", advice)
    else:
        examination.note("token counts", "ok", "responses report tokens")
    batch_size = client.settings.batch_size
    with examination.checking("texts per request") as note:
        _note_most(note, examination.run(ask_most_pairs(server, batch_size)), batch_size)
    with examination.checking("long documents") as note:
        if _counts(examination, server.model):
            note("ok", "counted by /tokenize, and cut as Qwen's reference cuts")
        else:
            seen = "cut by their bytes once refused: no /tokenize"
            advice = f'{_NO_TOKENIZE}, or pass tokenizer="…/tokenizer.json" to count here'
            note("warn", seen, advice)


def _note_most(note: Note, most: int, batch_size: int) -> None:
    if most >= batch_size:
        note("ok", f"{batch_size} or more")
    else:
        advice = f"Pass batch_size={most}, which saves each new client the requests to find it out"
        note("warn", f"{most} at most", advice)


def _counts(examination: Examination, model: str) -> bool:
    tokens = examination.ask_if_there(tokenize(model, "a"))
    return not isinstance(tokens, errors.Qwen3VLLMError)
