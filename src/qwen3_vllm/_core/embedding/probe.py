"""Find out how a server embeds, by asking it."""

from dataclasses import dataclass, field

from qwen3_vllm import errors
from qwen3_vllm._core.discovery import Served
from qwen3_vllm._core.http.asked_once import AskedOnce
from qwen3_vllm._core.http.flow import Flow, send
from qwen3_vllm._core.settings import EmbeddingSettings
from qwen3_vllm._core.vllm_api.embeddings import Encoding, WireDtype, embed_letter
from qwen3_vllm._core.vllm_api.error_bodies import refuses_dimensions


@dataclass(frozen=True, slots=True)
class EmbeddingServer:
    """What was learned from a server.

    Attributes:
        model: Its name in requests.
        context: Its context length in tokens; None where the server does not report it.
        width: Numbers in a vector of an answer.
        encoding: The leanest one that the server has.
        dtype: What its vectors travel as: `wire_dtype`, if the server has a choice.
        cuts: Whether the server cuts vectors to `dimensions` itself.
        root: The checkpoint behind `model`; None where the server does not report it.
        limit: Tokens an input may have, asked when the first long text comes.
    """

    model: str
    context: int | None
    width: int
    encoding: Encoding
    dtype: WireDtype
    cuts: bool
    root: str | None
    limit: AskedOnce[int] = field(default_factory=AskedOnce, compare=False)


def ask_embedding_server(
    served: Served, settings: EmbeddingSettings, root: str, start: str
) -> Flow[EmbeddingServer]:
    """Ask a server for the vector of one letter, in the leanest encoding that it has.

    Raises:
        WrongServerError: It makes no embeddings.
        ConfigurationError: Its vectors have fewer numbers than `dimensions`.
    """
    encoding: Encoding = "bytes_only"
    dtype: WireDtype = settings.wire_dtype
    cuts = settings.dimensions is not None
    while True:
        (probe,) = yield from send(
            embed_letter(
                served.model,
                encoding=encoding,
                dtype=dtype,
                dimensions=settings.dimensions if cuts else None,
            )
        )
        if not isinstance(probe, errors.Qwen3VLLMError):
            break
        if isinstance(probe, errors.RouteNotFoundError):
            raise errors.WrongServerError(
                f"{root} serves {served.model!r} but no embeddings. Start a server for them: {start}"
            ) from probe
        if not isinstance(probe, errors.BadRequestError):
            raise probe
        if cuts and refuses_dimensions(probe):
            cuts = False  # then we cut them
        elif encoding == "bytes_only":
            encoding, dtype = "base64", "float32"  # before vLLM 0.13; a choice of type is from 0.11.1
        else:
            raise probe
    if probe.in_pieces:
        # So a vector costs the server's HTTP process, the busiest beside the engine, 640 µs instead of
        # base64's 440 (vLLM 0.32, two cores).
        encoding = "base64"
    width = probe.width
    if settings.dimensions is not None and width < settings.dimensions:
        raise errors.ConfigurationError(
            f"dimensions={settings.dimensions}, but vectors of {served.model!r} have {width} numbers"
        )
    cuts = cuts and width == settings.dimensions  # a server may ignore the field
    return EmbeddingServer(served.model, served.context, width, encoding, dtype, cuts, served.root)
