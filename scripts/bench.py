#!/usr/bin/env python3
"""Measure this library beside other clients; the same as `qwen3-vllm bench`."""

import sys

from qwen3_vllm.cli import app

if __name__ == "__main__":
    app(["bench", *sys.argv[1:]], prog_name="bench.py")
