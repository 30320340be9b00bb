"""Clients measured side by side against one server, in one run, in turns: `python -m benchmarks --help`."""
