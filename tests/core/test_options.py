"""Every class with options: bad ones are refused wherever they are set, and never shown."""

import importlib
import pickle
import pkgutil
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, TypeAdapter, ValidationError

import qwen3_vllm
from qwen3_vllm import EmbeddingClient, errors, langchain, llama_index
from qwen3_vllm._core.options import Options
from qwen3_vllm._core.settings import EmbeddingSettings, ServerSettings
from qwen3_vllm.bulk.run import EmbedFiles

KEY = "sk-very-secret-4711"
NEEDED: dict[type[Options], dict[str, Any]] = {
    ServerSettings: {"base_url": "http://h"},
    langchain.Qwen3VLLMRetriever: {
        "retriever": RunnableLambda(lambda query: []),
        "reranker": langchain.Qwen3VLLMReranker(),
    },
}
# A number that the class refuses.
BAD: dict[type[Options], str] = {langchain.Qwen3VLLMRetriever: "k"}


def subclasses(kind: type[Options]) -> set[type[Options]]:
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


CLASSES = sorted(
    (
        each
        for each in subclasses(Options)
        # EmbedFiles is the arguments of one call, checked and dropped: nobody has one to copy or to set.
        if each.__module__.startswith("qwen3_vllm.") and each not in (Options, EmbedFiles)
    ),
    key=lambda each: f"{each.__module__}.{each.__name__}",
)
ALL = pytest.mark.parametrize("kind", CLASSES, ids=lambda each: f"{each.__module__}.{each.__name__}")


def make(kind: type[Options], **options: Any) -> Any:
    return kind(**{**NEEDED.get(kind, {}), **options})


def bad(kind: type[Options]) -> str:
    return BAD.get(kind, "batch_size")


def everything_of(error: BaseException) -> str:
    assert error.__cause__ is None and error.__context__ is None
    return "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))


def test_the_public_classes_are_all_tested() -> None:
    public = {f"{each.__module__}.{each.__name__}" for each in CLASSES if "settings" not in each.__module__}

    assert public >= {
        "qwen3_vllm.langchain.Qwen3VLLMEmbeddings",
        "qwen3_vllm.langchain.Qwen3VLLMReranker",
        "qwen3_vllm.langchain.Qwen3VLLMCrossEncoder",
        "qwen3_vllm.langchain.Qwen3VLLMRetriever",
        "qwen3_vllm.llama_index.Qwen3VLLMEmbeddings",
        "qwen3_vllm.llama_index.Qwen3VLLMReranker",
    }


@ALL
def test_an_unknown_option_is_refused_by_name(kind: type[Options]) -> None:
    with pytest.raises(errors.ConfigurationError, match="nonsense is not an option"):
        make(kind, nonsense=1)
    with pytest.raises(errors.ConfigurationError, match="nonsense is not an option"):
        make(kind).nonsense = 1
    with pytest.raises(errors.ConfigurationError, match="nonsense"):
        make(kind).model_copy(update={"nonsense": 1})


@ALL
def test_a_bad_value_is_refused_with_its_option(kind: type[Options]) -> None:
    name = bad(kind)

    with pytest.raises(errors.ConfigurationError, match=f"{name}=-1 should be") as caught:
        make(kind, **{name: -1})

    assert list(caught.value.problems) == [name]
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


@ALL
def test_a_bad_value_is_refused_by_assignment_and_changes_nothing(kind: type[Options]) -> None:
    made, name = make(kind), bad(kind)
    before = dict(made)

    with pytest.raises(errors.ConfigurationError, match=name):
        setattr(made, name, -1)
    with pytest.raises(errors.ConfigurationError, match=name):
        made.model_copy(update={name: -1})

    assert dict(made) == before


@pytest.mark.parametrize("kind", [each for each in CLASSES if not each.model_config.get("frozen")])
def test_a_good_value_is_assigned_as_at_construction(kind: type[Options]) -> None:
    made, name = make(kind), bad(kind)

    setattr(made, name, "3")

    assert getattr(made, name) == 3
    assert getattr(made.model_copy(update={name: 4}), name) == 4
    assert getattr(made, name) == 3


@ALL
def test_an_option_cannot_be_deleted(kind: type[Options]) -> None:
    made, name = make(kind), bad(kind)

    with pytest.raises(errors.ConfigurationError, match=f"{name} cannot be deleted"):
        delattr(made, name)
    with pytest.raises((AttributeError, ValidationError)):
        del made.nonsense

    assert hasattr(made, name)


def test_none_assigned_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    embeddings = langchain.Qwen3VLLMEmbeddings(api_key="other", batch_size=3)

    embeddings.api_key = None
    embeddings.batch_size = None  # type: ignore[assignment]

    assert embeddings.api_key is not None and embeddings.api_key.get_secret_value() == KEY
    assert embeddings.batch_size == 32


@ALL
@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_every_class_has_a_json_schema(mode: Any, kind: type[Options]) -> None:
    schema = kind.model_json_schema(mode=mode)

    if mode == "validation":
        assert {bad(kind), *NEEDED.get(kind, {})} <= set(schema["properties"])
    assert KEY not in str(schema)


@pytest.mark.parametrize("kind", [langchain.Qwen3VLLMReranker, llama_index.Qwen3VLLMReranker])
@pytest.mark.parametrize("threshold", [80, -0.01, 1.01, float("nan"), float("inf")])
def test_a_score_threshold_is_a_probability(threshold: float, kind: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="score_threshold"):
        kind(score_threshold=threshold)
    made = kind(score_threshold=0)
    with pytest.raises(errors.ConfigurationError, match="score_threshold"):
        made.score_threshold = threshold


def test_a_near_miss_is_named() -> None:
    with pytest.raises(errors.ConfigurationError, match="did you mean api_key"):
        EmbeddingClient(apikey="x")  # type: ignore[call-arg]


@pytest.mark.parametrize("both", [{"k": 1, "top_n": 2}, {"k": 0, "top_n": 1}])
def test_two_names_of_one_option_must_not_differ(both: dict[str, int]) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"k=\d and top_n=\d"):
        make(langchain.Qwen3VLLMRetriever, **both)


@pytest.mark.parametrize("options", [{"k": 2}, {"top_n": 2}, {"k": 2, "top_n": 2}, {"k": 2, "top_n": None}])
def test_top_n_is_another_name_of_k(options: dict[str, Any]) -> None:
    retriever = make(langchain.Qwen3VLLMRetriever, **options)
    assert (retriever.k, retriever.top_n) == (2, 2)

    retriever.top_n = 5
    assert (retriever.k, retriever.model_copy(update={"top_n": 6}).k) == (5, 6)


@pytest.mark.parametrize("kind", [llama_index.Qwen3VLLMEmbeddings, llama_index.Qwen3VLLMReranker])
def test_model_and_model_name_are_one_option(kind: Any) -> None:
    for made in (kind(model="a"), kind(model_name="a"), kind(model="a", model_name="auto")):
        assert (made.model, made.model_name) == ("a", "a")
    made = kind()
    made.model_name = "b"
    assert made.model == "b"
    made.model = "c"
    assert made.model_name == "c"
    copied = made.model_copy(update={"model": None})
    assert (copied.model, copied.model_name) == (None, "auto")
    assert kind.from_dict(made.to_dict()).model == "c"
    with pytest.raises(errors.ConfigurationError, match="one option"):
        kind(model="a", model_name="b")
    with pytest.raises(errors.ConfigurationError, match="model should be"):
        kind(model=["a"])


# --- secrets -------------------------------------------------------------------------------------------

SECRETS = {
    "key": {"api_key": KEY + "\n"},
    "key of another type": {"api_key": {"key": KEY}},
    "misspelt": {"apikey": KEY},
    "header": {"default_headers": {"X-Token": KEY + "\n"}},
    "headers of another type": {"default_headers": KEY},
    "URL": {"base_url": f"http://u:{KEY}@h"},
    "beside another": {"api_key": KEY, "batch_size": 0},
}
WAYS: dict[str, Callable[[Any, dict[str, Any]], object]] = {
    "call": lambda kind, options: kind(**options),
    "validate": lambda kind, options: kind.model_validate(options),
    "strings": lambda kind, options: kind.model_validate_strings(options),
    "JSON": lambda kind, options: kind.model_validate_json(str(options).replace("'", '"')),
    "assignment": lambda kind, options: [setattr(kind(), *option) for option in options.items()],
    "copy": lambda kind, options: kind().model_copy(update=options),
}


@pytest.mark.parametrize(
    "kind", [EmbeddingSettings, langchain.Qwen3VLLMReranker, llama_index.Qwen3VLLMEmbeddings]
)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", SECRETS.values(), ids=SECRETS)
def test_a_refused_option_is_not_shown(options: dict[str, Any], way: str, kind: type[Options]) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        WAYS[way](kind, options)

    assert KEY not in everything_of(caught.value)


@pytest.mark.parametrize("options", SECRETS.values(), ids=SECRETS)
def test_a_model_of_the_users_own_shows_no_refused_option_either(options: dict[str, Any]) -> None:
    class Mine(BaseModel):
        reranker: langchain.Qwen3VLLMReranker

    for validate in (
        lambda: Mine(reranker=options),
        lambda: TypeAdapter(langchain.Qwen3VLLMReranker).validate_python(options),
    ):
        with pytest.raises(ValidationError) as caught:
            validate()
        shown = str(caught.value.errors()) + caught.value.json() + everything_of(caught.value)
        assert KEY not in shown


# --- one tree ------------------------------------------------------------------------------------------


def test_one_base_catches_every_error_of_the_package() -> None:
    for module in pkgutil.walk_packages(qwen3_vllm.__path__, "qwen3_vllm."):
        if module.name.endswith((".ray_engine", ".testing")):  # need what is not installed
            continue
        for each in vars(importlib.import_module(module.name)).values():
            if isinstance(each, type) and issubclass(each, Exception) and "qwen3_vllm" in each.__module__:
                assert issubclass(each, errors.Qwen3VLLMError) or each.__name__.startswith("_"), each


def test_the_drawn_tree_is_whole() -> None:
    drawn = set((errors.__doc__ or "").split())
    for each in vars(errors).values():
        if isinstance(each, type) and issubclass(each, errors.Qwen3VLLMError):
            assert each.__name__ in drawn
            assert getattr(qwen3_vllm, each.__name__) is each
