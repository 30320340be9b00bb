"""Tokens and requests of an output, over all runs that wrote to it."""

import json
from pathlib import Path

import pytest

from qwen3_vllm import EmbeddingClient
from qwen3_vllm.bulk import embed_files
from qwen3_vllm.errors import Qwen3VLLMError
from tests.fake_vllm import FakeVLLM
from tests.faults import Reply, Request, serve


class EndsEarly(FakeVLLM):
    ends = True

    def __call__(self, request: Request) -> Reply | None:
        if self.ends and "text 3" in request.body.decode():
            return Reply.of_json({"error": {"message": "gone"}}, 500)
        return super().__call__(request)


def test_tokens_are_exact_over_a_run_that_was_resumed(tmp_path: Path) -> None:
    file = tmp_path / "input.jsonl"
    file.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(4)))
    server = EndsEarly("embedding", version="0.12.0")
    with serve(server) as running:
        client = EmbeddingClient(base_url=running.base_url, max_retries=0)
        with pytest.raises(Qwen3VLLMError):
            embed_files([file], tmp_path / "out", client=client, part_rows=1)
        server.ends = False
        summary = embed_files([file], tmp_path / "out", client=client, part_rows=1)
        again = embed_files([file], tmp_path / "out", client=client, part_rows=1)

    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert (summary.requests, summary.tokens, summary.uncounted) == (4, 4 * 7, 0)
    assert manifest["usage"] == {"requests": 4, "tokens": 28, "uncounted": 0}
    assert again.tokens == 28
