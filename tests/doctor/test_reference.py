"""Keeping vectors and scores of fixed texts, and saying how far those of another day are from them."""

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from qwen3_vllm.cli import app
from tests.fake_vllm import STOCK_TEMPLATE, FakeVLLM
from tests.faults import serve


class Noisy(FakeVLLM):
    """Rounds otherwise: `noise` is the length of what is added to a vector of length 1, `factor` of odds."""

    noise = 0.0
    factor = 1.0

    def vector(self, prompt: str | Sequence[int], dimensions: int | None = None) -> np.ndarray:
        vector = super().vector(prompt, dimensions)
        across = np.roll(vector, 1)
        across -= (across @ vector) * vector
        return vector + self.noise * across / np.linalg.norm(across)

    def probability(self, prompt: str | Sequence[int]) -> float:
        p = super().probability(prompt)
        return p * self.factor / (1 - p + p * self.factor)


def noisy(kind: str, noise: float = 0.0, factor: float = 1.0) -> Noisy:
    server = Noisy(kind)  # type: ignore[arg-type]
    server.noise, server.factor = noise, factor
    return server


def doctor(*arguments: str, embedding: FakeVLLM | None = None, reranker: FakeVLLM | None = None) -> Result:
    with ExitStack() as servers:
        urls: list[str] = []
        for name, server in (("embedding", embedding), ("reranker", reranker)):
            if server is not None:
                urls += [f"--{name}-url", servers.enter_context(serve(server)).base_url]
        return CliRunner().invoke(app, ["doctor", *urls, *arguments, "--json"])


def seen(result: Result, name: str) -> str:
    (check,) = [each for each in json.loads(result.stdout)["checks"] if each["name"] == name]
    return f"{check['seen']} → {check['advice']}"


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("saved") / "reference.json"
    doctor("--save", str(file), embedding=FakeVLLM("embedding"), reranker=FakeVLLM("reranker"))
    return file


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> str:
    return str(shutil.copy(saved_once, tmp_path))


@pytest.mark.parametrize(
    ("server", "status", "words"),
    [
        (FakeVLLM("embedding"), 0, "the same"),
        (FakeVLLM("embedding", model="renamed"), 0, "the model is 'renamed', was 'Qwen3'"),
        (noisy("embedding", 2**-11), 0, "the same"),  # float16 on the wire
        (noisy("embedding", 0.03), 0, "moved within rounding"),
        (noisy("embedding", 0.1), 3, "Rebuild the index"),
        (FakeVLLM("embedding", seed="other weights"), 3, "Rebuild the index"),
        (FakeVLLM("embedding", dimensions=8), 3, "8 dimensions, were 16"),
    ],
)
def test_vectors_are_compared_with_those_that_were_saved(
    saved: str, server: FakeVLLM, status: int, words: str
) -> None:
    result = doctor("--against", saved, embedding=server)

    assert words in seen(result, "embedding.unchanged")
    assert result.exit_code == status, result.stdout


@pytest.mark.parametrize(
    ("server", "status", "words"),
    [
        (FakeVLLM("reranker"), 0, "the same"),
        (noisy("reranker", factor=1.4), 0, "moved within rounding"),
        (noisy("reranker", factor=3.0), 3, "score thresholds"),
        (FakeVLLM("reranker", seed="other weights"), 3, "score thresholds"),
        # This client works around a wrong template: scores stay as they were.
        (FakeVLLM("reranker", template=STOCK_TEMPLATE), 1, "the same"),
    ],
)
def test_scores_are_compared_with_those_that_were_saved(
    saved: str, server: FakeVLLM, status: int, words: str
) -> None:
    result = doctor("--against", saved, reranker=server)

    assert words in seen(result, "reranker.unchanged")
    assert result.exit_code == status, result.stdout


def test_the_texts_compared_are_those_of_the_file(saved: str) -> None:
    kept = json.loads(Path(saved).read_text())
    for place, key in (("embedding", "texts"), ("embedding", "vectors")):
        kept[place][key] = kept[place][key][:1]
    Path(saved).write_text(json.dumps(kept))

    result = doctor("--against", saved, embedding=FakeVLLM("embedding"))

    (values,) = [
        each["values"] for each in json.loads(result.stdout)["checks"] if "unchanged" in each["name"]
    ]
    assert len(values["cosine distances"]) == 1


def test_a_part_that_was_not_saved_is_skipped(tmp_path: Path) -> None:
    file = str(tmp_path / "reference.json")
    doctor("--save", file, embedding=FakeVLLM("embedding"))

    assert "no scores" in seen(doctor("--against", file, reranker=FakeVLLM("reranker")), "reranker.unchanged")


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"kind": "doctor"}', b"\xff"])
def test_another_file_is_refused_before_any_request(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "reference.json"
    if content is not None:
        file.write_bytes(content)

    result = doctor("--against", str(file), embedding=FakeVLLM("embedding"))

    assert result.exit_code == 2
    assert str(file) in result.output.replace("\n", "")


def test_a_server_that_gives_no_vectors_leaves_the_file_alone(saved: str) -> None:
    before = Path(saved).read_bytes()

    result = doctor("--save", saved, embedding=FakeVLLM("chat"))

    assert result.exit_code == 1
    assert "nothing was saved" in seen(result, "fixed texts")
    assert Path(saved).read_bytes() == before
