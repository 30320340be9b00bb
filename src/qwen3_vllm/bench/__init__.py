"""Measure clients against one server, in one run, interleaved.

>>> from qwen3_vllm.bench import Plan, run_bench
>>> run_bench(Plan(embedding_url="http://127.0.0.1:8000/v1"))  # doctest: +SKIP
"""

from qwen3_vllm.bench.measure import CASES, Bar, Plan, Result, Series, Spread, spread
from qwen3_vllm.bench.run import run_bench

__all__ = ["CASES", "Bar", "Plan", "Result", "Series", "Spread", "run_bench", "spread"]
