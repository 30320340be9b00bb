"""Make an int4 checkpoint of Qwen3-Embedding or Qwen3-Reranker, by GPTQ or AWQ, calibrated on your own data.

Install: pip install -e ".[evaluation]" llmcompressor   (in an environment of its own: it brings torch)
Run:     python examples/quantise.py reranker MODEL DATA OUT --method gptq
Serve:   qwen3-vllm serve reranker OUT
Prints:  how to measure what it costs.

DATA is in BEIR's layout; the questions of qrels/train.tsv calibrate, if it is there, so that those of
qrels/test.tsv can measure. The texts get the prompts that they are served with. A group must divide the input
size of every layer: 128 for Qwen's models, 32 for those of demo/models.
"""

import argparse
import json
import random
import re
import shutil
from importlib.resources import files
from pathlib import Path

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from datasets import Dataset as Table
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from qwen3_vllm.evaluation import Dataset, read_dataset

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
TEMPLATE = (files("qwen3_vllm") / "templates" / "qwen3_reranker.jinja").read_text(encoding="utf-8")
SAMPLES = 128
LONGEST = 1024  # tokens of a sample


def main() -> None:
    """Calibrate, quantise, write."""
    given = options()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    judgements = given.data / "qrels" / "train.tsv"
    data = read_dataset(given.data, judgements=judgements if judgements.is_file() else None)
    texts = pairs(data, tokenizer) if given.role == "reranker" else texts_to_embed(data)
    rows = [tokenizer(text, truncation=True, max_length=LONGEST) for text in texts]
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype="auto")
    oneshot(
        model=model,
        tokenizer=tokenizer,
        dataset=Table.from_list([dict(row) for row in rows]),
        recipe=recipe(given.method, given.group_size),
        num_calibration_samples=len(rows),
        max_seq_length=LONGEST,
    )
    save(model, given.model, given.out)
    option = "--reranker" if given.role == "reranker" else "--candidates 0 --embedding"
    print(
        f"Serve both, and measure:\n"
        f"  qwen3-vllm evaluate {given.data} {option} bf16=URL {option.split()[-1]} {given.method}=URL"
    )


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("role", choices=("embedding", "reranker"))
    parser.add_argument("model", type=Path, help="folder of the checkpoint")
    parser.add_argument("data", type=Path, help="folder in BEIR's layout")
    parser.add_argument("out", type=Path, help="folder for the new checkpoint")
    parser.add_argument("--method", choices=("gptq", "awq"), default="gptq")
    parser.add_argument("--group-size", type=int, default=128, help="weights that share a scale")
    return parser.parse_args()


def pairs(data: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return finished prompts of questions with a relevant document, and with another."""
    chance = random.Random(0)
    texts = dict(zip(data.document_ids, data.texts, strict=True))
    found = []
    for id in chance.sample(sorted(data.queries), min(SAMPLES // 2, len(data.queries))):
        right = max(data.judgements[id], key=data.judgements[id].get)
        for document in (texts.get(right, ""), chance.choice(data.texts)):
            messages = [
                {"role": "query", "content": data.queries[id]},
                {"role": "document", "content": document},
            ]
            found.append(
                tokenizer.apply_chat_template(
                    messages, chat_template=TEMPLATE, instruction=INSTRUCTION, tokenize=False
                )
            )
    return found


def texts_to_embed(data: Dataset) -> list[str]:
    """Return questions under their instruction, and documents."""
    chance = random.Random(0)
    queries = chance.sample(sorted(data.queries.values()), min(SAMPLES // 2, len(data.queries)))
    documents = chance.sample(list(data.texts), min(SAMPLES // 2, len(data.texts)))
    return [*(f"Instruct: {INSTRUCTION}\nQuery:{query}" for query in queries), *documents]


def recipe(method: str, group_size: int) -> list:
    """Return llm-compressor's steps: int4 weights in groups, the head left as it is."""
    if not torch.accelerator.is_available():
        # llm-compressor 0.14 pins memory for a GPU in AWQ and fails on a machine without one.
        IntermediatesCache.pin_memory = lambda cache, batch_index: None
    weights = QuantizationArgs(
        num_bits=4, type="int", strategy="group", group_size=group_size, symmetric=method == "gptq"
    )
    groups = {"linear": QuantizationScheme(targets=["Linear"], weights=weights)}
    if method == "gptq":
        return [GPTQModifier(config_groups=groups, ignore=["lm_head"])]
    return [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=["lm_head"])]


def save(model: torch.nn.Module, original: Path, out: Path) -> None:
    """Write the weights beside the original's other files; its config says how they are packed."""
    model.save_pretrained(out, save_compressed=True)
    packing = json.loads((out / "config.json").read_text())["quantization_config"]
    for path in original.iterdir():
        if path.is_file() and not re.search(r"\.(safetensors|bin|index\.json|md)$", path.name):
            shutil.copy(path, out)
    config = json.loads((original / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "quantization_config": packing}, indent=2))


if __name__ == "__main__":
    main()
