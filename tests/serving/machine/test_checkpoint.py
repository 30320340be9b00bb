"""Finding a model, and reading what it says about itself."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen3_vllm.serving import LaunchError
from qwen3_vllm.serving.machine.checkpoint import read_checkpoint, resolve_model


def write(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"], **config}))
    return folder


def test_the_facts_come_from_config_json(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "m",
        num_attention_heads=16,
        num_key_value_heads=8,
        num_hidden_layers=28,
        head_dim=128,
        max_position_embeddings=40960,
        torch_dtype="bfloat16",
        quantization_config={"quant_method": "awq"},
    )
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    facts = read_checkpoint(str(folder))
    assert (facts.attention_heads, facts.key_value_heads, facts.layers, facts.head_dim) == (16, 8, 28, 128)
    assert facts.max_position_embeddings == 40960
    assert facts.quantization == "awq"
    assert facts.weights_bytes == 100
    assert facts.is_local
    assert facts.role is None


@pytest.mark.parametrize(
    ("name", "extra", "role"),
    [
        ("Qwen3-Embedding-0.6B", {}, "embedding"),
        ("Qwen3-Reranker-random", {}, "reranker"),
        ("mine", {"architectures": ["Qwen3ForSequenceClassification"]}, "reranker"),
        ("reranker-from-embedding", {}, None),
    ],
)
def test_the_role_is_read_from_architecture_and_name(
    tmp_path: Path, name: str, extra: dict[str, Any], role: str | None
) -> None:
    assert read_checkpoint(str(write(tmp_path / name, **extra))).role == role


@pytest.mark.parametrize(
    ("model_type", "role"), [("CrossEncoder", "reranker"), ("SentenceTransformer", "embedding")]
)
def test_sentence_transformers_says_the_role(tmp_path: Path, model_type: str, role: str) -> None:
    folder = write(tmp_path / "mine")
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"model_type": model_type}))
    assert read_checkpoint(str(folder)).role == role


def test_its_prompts_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    saved = {"prompts": {"query": "Q:", "document": "", "broken": None}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(saved))
    assert read_checkpoint(str(folder)).prompts == {"query": "Q:", "document": ""}


def test_a_folder_without_config_is_refused_and_what_is_inside_named(tmp_path: Path) -> None:
    write(tmp_path / "Qwen3-Embedding-0.6B")
    with pytest.raises(LaunchError, match=r"no config\.json.*Qwen3-Embedding-0\.6B"):
        read_checkpoint(str(tmp_path))


def test_a_broken_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": [')
    with pytest.raises(LaunchError, match=r"cannot read .*config\.json"):
        read_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("rope_scaling", "yarn"), ("rope_scaling", [1]), ("rope_parameters", 1)),
        *(("quantization_config", "gptq"), ("quantization_config", {"quant_method": 4})),
        *(("architectures", "Qwen3ForCausalLM"), ("architectures", [None]), ("architectures", {"a": 1})),
        *(("max_position_embeddings", "8192"), ("max_position_embeddings", True), ("hidden_size", 1.5)),
        *(("num_attention_heads", -1), ("num_hidden_layers", [28]), ("torch_dtype", {"a": "b"})),
    ],
)
def test_a_field_of_another_kind_is_named(tmp_path: Path, name: str, value: Any) -> None:
    folder = write(tmp_path / "m", **{name: value})
    field = "quant_method" if isinstance(value, dict) and "quant_method" in value else name
    with pytest.raises(LaunchError, match=rf"config\.json is damaged: {field} must be .*repair it"):
        read_checkpoint(str(folder))


@pytest.mark.parametrize("content", [b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b""])
def test_a_config_that_is_not_an_object_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(LaunchError, match=r"config\.json.*download the model again"):
        read_checkpoint(str(tmp_path))


def test_links_of_a_pruned_cache_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("../../blobs/gone")
    with pytest.raises(LaunchError, match=r"config\.json is a link to \.\./\.\./blobs/gone"):
        read_checkpoint(str(tmp_path))
    folder = write(tmp_path / "m")
    (folder / "model.safetensors").symlink_to("../../blobs/gone")
    assert read_checkpoint(str(folder)).weights_bytes == 0


_FIELDS = (
    *("architectures", "rope_scaling", "rope_parameters", "quantization_config", "max_position_embeddings"),
    *(
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_size",
        "torch_dtype",
        "is_matryoshka",
    ),
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "rope_type", "quant_method"]), inner)
    ),
    max_leaves=4,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(config=st.dictionaries(st.sampled_from(_FIELDS), _VALUES))
def test_no_content_of_a_config_is_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(config))
    with contextlib.suppress(LaunchError):
        read_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("tensors", "quantized"),
    [
        ({"lm_head.weight": "BF16", "model.norm.weight": "BF16"}, False),
        ({"model.layers.0.mlp.up_proj.qweight": "I32"}, False),
        ({"lm_head.qweight": "I32", "lm_head.g_idx": "I32"}, True),
        ({"lm_head.weight_packed": "I32"}, True),
        ({"lm_head.weight": "F8_E4M3"}, True),
    ],
)
def test_a_quantised_head_is_seen_in_the_names_of_tensors(
    tmp_path: Path, tensors: dict[str, str], quantized: bool
) -> None:
    folder = write(tmp_path / "m")
    header = json.dumps({name: {"dtype": kind, "data_offsets": [0, 0]} for name, kind in tensors.items()})
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert read_checkpoint(str(folder)).has_quantized_head is quantized


@pytest.mark.parametrize(
    ("hub_id", "converted"),
    [("Qwen/Qwen3-Reranker-0.6B", False), ("someone/Qwen3-Reranker-0.6B-seq-cls", True)],
)
def test_a_hub_id_tells_what_its_name_tells(hub_id: str, converted: bool) -> None:
    facts = read_checkpoint(hub_id)
    assert facts.is_converted_reranker is converted
    assert facts.role == "reranker"
    assert not facts.is_local


def test_a_folder_is_taken_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "models" / "M")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("./models/M", "embedding", Path("models")) == "./models/M"


@pytest.mark.parametrize("name", ["Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-0.6B"])
def test_a_name_or_hub_id_is_found_among_the_models(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "Qwen3-Embedding-0.6B")
    assert resolve_model(name, "embedding", tmp_path) == str(folder)


def test_a_hub_id_that_is_not_here_stays_one(tmp_path: Path) -> None:
    assert resolve_model("Qwen/Qwen3-Embedding-8B", "embedding", tmp_path) == "Qwen/Qwen3-Embedding-8B"


def test_a_relative_folder_cannot_be_mistaken_for_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "models" / "Qwen3-Reranker-0.6B")
    monkeypatch.chdir(tmp_path)
    assert resolve_model(None, "reranker", Path("models")) == "./models/Qwen3-Reranker-0.6B"


def test_without_a_name_the_only_model_of_the_role_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "my-embedding")
    reranker = write(tmp_path / "my-reranker")
    assert resolve_model(None, "reranker", tmp_path) == str(reranker)


def test_several_candidates_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a-reranker")
    write(tmp_path / "b-reranker")
    with pytest.raises(LaunchError, match="a-reranker, b-reranker"):
        resolve_model(None, "reranker", tmp_path)


@pytest.mark.parametrize("model", ["x" * 300, "~nobody-of-this-name/model"])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(LaunchError, match="cannot look for a model"):
        resolve_model(model, "reranker", tmp_path)


@pytest.mark.parametrize("model", [None, "./nowhere", "nowhere"])
def test_a_missing_model_is_refused(tmp_path: Path, model: str | None) -> None:
    with pytest.raises(LaunchError, match=r"[Gg]ive"):
        resolve_model(model, "reranker", tmp_path)


def test_folders_of_another_machine_are_taken_on_trust(tmp_path: Path) -> None:
    assert resolve_model("./models/X", "reranker", tmp_path, elsewhere=True) == "./models/X"
    official = str(tmp_path / "Qwen3-Reranker-0.6B")
    assert resolve_model(None, "reranker", tmp_path, elsewhere=True) == official


def test_the_only_model_here_is_taken_for_another_machine_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "my-reranker")
    assert resolve_model(None, "reranker", tmp_path, elsewhere=True) == str(folder)
