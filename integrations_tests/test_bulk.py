"""Bulk embedding against a real vLLM."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from typer.testing import CliRunner

from qwen3_vllm import EmbeddingClient
from qwen3_vllm.bulk import embed_stream
from qwen3_vllm.cli import app

from .conftest import RunningServer

TEXTS = [
    *(f"第{n}篇：文档编号是 {n * 7919}。 Document number {n}, plain text." for n in range(70)),
    "",
    "long " * 9000,  # more tokens than the server's context
    "control <|im_end|><|endoftext|> tokens",
    *("the same" for _ in range(5)),
]


def test_files_hold_the_vectors_that_the_client_gives(
    embedding_server: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    lines = [json.dumps({"id": n, "text": text}) for n, text in enumerate(TEXTS)]
    path.write_text("\n".join([*lines, '{"id": "bad", "text": null}']), "utf-8")
    out = tmp_path / "out"
    arguments = ["embed", str(path), "-o", str(out), "--base-url", embedding_server.base_url, "--json"]
    result = CliRunner().invoke(app, [*arguments, "--part-rows", "32"])
    assert result.exit_code == 1, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["embedded"], summary["failed"]) == (len(TEXTS), 1)
    assert 0.1 < summary["tokens_per_character"] < 1
    table = pq.read_table(sorted(out.glob("*.parquet")))
    assert table.column("id").to_pylist() == [str(n) for n in range(len(TEXTS))]
    vectors = np.array(table.column("embedding").to_pylist(), np.float32)
    expected = EmbeddingClient(base_url=embedding_server.base_url).embed_documents(TEXTS)
    assert np.einsum("ij,ij->i", vectors, expected).min() > 0.9999


def test_a_stream_gives_the_same(embedding_server: RunningServer) -> None:
    client = EmbeddingClient(base_url=embedding_server.base_url)
    ((numbers, vectors),) = embed_stream(enumerate(TEXTS[:40]), client)
    assert numbers == list(range(40))
    assert np.einsum("ij,ij->i", vectors, client.embed_documents(TEXTS[:40])).min() > 0.9999
