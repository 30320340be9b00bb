"""Answers of a server, in the shapes that it may give them."""

import base64
from typing import Any

import numpy as np
import orjson

from qwen3_vllm._core.vllm_api.calls import Answer

URL = "http://server/v1/score"


def answer(content: object, status: int = 200, **headers: str) -> Answer:
    raw = content if isinstance(content, bytes) else orjson.dumps(content)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(URL, status, {"content-type": "application/json", **headers}, raw)


def scored(*scores: Any, **more: Any) -> Answer:
    return answer({"data": [{"index": i, "score": s} for i, s in enumerate(scores)], **more})


def raw_vectors(vectors: Any, dtype: str = "<f4") -> Answer:
    return answer(np.asarray(vectors, dtype).tobytes(), content_type="application/octet-stream")


def base64_vectors(*vectors: list[float]) -> Answer:
    rows = [base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode() for vector in vectors]
    return answer({"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]})
