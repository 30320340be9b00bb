"""Find out how a server embeds, by asking it."""

from typing import NamedTuple, get_args

from qwen3_vllm import errors
from qwen3_vllm._core.discovery.capabilities import try_forms, try_one
from qwen3_vllm._core.discovery.served_model import Served
from qwen3_vllm._core.embedding.server import EmbeddingServer
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.settings import EmbeddingSettings
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.embeddings import EmbeddingProbe, Encoding, Vectors, WireDtype, embed_letter

_ALIKE = 0.99  # cosine of one vector in 32 and in 16 bits, at least


def ask_embedding_server(
    served: Served, settings: EmbeddingSettings, root: str, start: str
) -> Flow[EmbeddingServer]:
    """Ask a server for the vector of one letter, in the leanest form that it has.

    Raises:
        WrongServerError: It makes no embeddings.
        ConfigurationError: Its vectors have fewer numbers than `dimensions`.
    """
    forms = _forms(settings)
    in_base64 = [name for name, how in forms.items() if how.encoding == "base64"]
    letters = {name: _letter(served.model, how) for name, how in forms.items()}
    try:
        form, probe = yield from try_forms(letters, good_enough=in_base64[:1])
    except errors.RouteNotFoundError as error:
        raise errors.WrongServerError(
            f"{root} serves {served.model!r} but no embeddings. Start a server for them: {start}"
        ) from error
    encoding, dtype, dimensions = forms[form]
    if probe.in_pieces:
        # So a vector costs the server's HTTP process, the busiest beside the engine, 640 µs instead of
        # base64's 440 (vLLM 0.32, two cores).
        whole = yield from try_one(_letter(served.model, _Form("base64", dtype, dimensions)))
        if not isinstance(whole, errors.Qwen3VLLMError):
            encoding, probe = "base64", whole
    if dtype != "float32":
        # A gateway that leaves the field out gets float32, which would be read as something else.
        plain = yield from try_one(_letter(served.model, _Form("float", "float32", dimensions)))
        if not isinstance(plain, errors.Qwen3VLLMError) and not _are_alike(plain.vector, probe.vector):
            dtype, probe = "float32", plain
    width = len(probe.vector)
    if settings.dimensions is not None and width < settings.dimensions:
        raise errors.ConfigurationError(
            f"dimensions={settings.dimensions}, but vectors of {served.model!r} have {width}"
        )
    cuts = dimensions is not None and width == dimensions  # a server may ignore the field
    return EmbeddingServer(served.model, served.context, width, encoding, dtype, cuts, served.root)


class _Form(NamedTuple):
    encoding: Encoding
    dtype: WireDtype
    dimensions: int | None


def _forms(settings: EmbeddingSettings) -> dict[str, _Form]:
    """The forms of a request by name, the leanest first.

    A choice of type came to vLLM before "bytes_only": where that is missing, so may the choice be.
    """
    forms = {}
    encodings: tuple[Encoding, ...] = get_args(Encoding)
    for encoding in encodings:
        dtype = settings.wire_dtype if encoding == "bytes_only" else "float32"
        name = f"encoding_format {encoding}"
        if settings.dimensions is not None:
            forms[f"{name} with dimensions"] = _Form(encoding, dtype, settings.dimensions)
        forms[name] = _Form(encoding, dtype, None)
    return forms


def _letter(model: str, form: _Form) -> Call[EmbeddingProbe]:
    return embed_letter(model, encoding=form.encoding, dtype=form.dtype, dimensions=form.dimensions)


def _are_alike(one: Vectors, other: Vectors) -> bool:
    return len(one) == len(other) and float(one @ other) > _ALIKE
