"""The header of a request that nobody waits for, by which a balancer keeps a server free for queries."""

PRIORITY_HEADER = "X-Qwen3-VLLM-Priority"
BULK = "bulk"
