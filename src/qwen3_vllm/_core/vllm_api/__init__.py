"""vLLM's HTTP API: the only place that knows its field names. Pure."""
