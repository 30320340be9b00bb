"""Qwen3-Embedding and Qwen3-Reranker served by vLLM."""

__version__ = "0.1.0"
