"""Fine-tune Qwen3-Reranker on your own data by LoRA, and merge it into a checkpoint to serve.

Install: pip install -e ".[evaluation]" "sentence-transformers>=6" peft datasets accelerate
         (in an environment of its own: it brings torch)
Serve:   qwen3-vllm serve both
Run:     python examples/finetune_reranker.py DATA MODEL OUT
Prints:  how the training goes, and how to serve and to measure the result.

DATA is in BEIR's layout, with qrels/train.tsv beside qrels/test.tsv; `python -m demo.docstrings DATA` writes
such data. MODEL is the folder of the reranker that is served. Hard negatives are the documents that the
embedding server finds first and that are not judged relevant.

A Qwen3-Reranker is a causal model: its score is P(yes) against no, at the last position of one exact prompt.
Therefore `Transformer(transformer_task="text-generation")` with `LogitScore`: `CrossEncoder(MODEL)` alone
puts a new classifier, untrained, on top. The loss is the cross-entropy of yes and no, as in Qwen's own
training, so that scores stay probabilities. The prompt is made by the template that this package serves with,
and before the training the script compares its scores with those of the server.
"""

import argparse
import re
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset as Table
from peft import LoraConfig, get_peft_model
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from sentence_transformers.cross_encoder.modules import LogitScore
from transformers import AutoConfig

from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm.evaluation import Dataset, read_dataset

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
TEMPLATE = (files("qwen3_vllm") / "templates" / "qwen3_reranker.jinja").read_text(encoding="utf-8")
NEGATIVES = 3  # for each right pair
TOO_NEAR = 0.95  # a document may be right, too, if its cosine is above this share of the right one's
COMPARED = 64  # pairs that the server scores, too
CLOSE = 0.02  # their mean difference; bfloat16 at the server moves scores a little


def main() -> None:
    """Mine, train, merge."""
    given = options()
    data = read_training(given.data)
    pairs = mine(data, given.instruction)
    model = load(given.model, given.instruction, given.longest)
    compare_with_server(model, pairs, given.instruction)
    train(model, pairs, given)
    save(model, given.model, given.out)
    print(
        f"\nServe it beside the original, and measure both:\n"
        f"  qwen3-vllm serve reranker {given.out} --port 8002\n"
        f"  qwen3-vllm evaluate {given.data} --candidates 0,20 --instruction '{given.instruction}' \\\n"
        f"    --reranker before=http://127.0.0.1:8001 --reranker after=http://127.0.0.1:8002"
    )


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder in BEIR's layout, with qrels/train.tsv")
    parser.add_argument("model", type=Path, help="folder of the reranker that is served")
    parser.add_argument("out", type=Path, help="folder for the new checkpoint")
    parser.add_argument("--instruction", default=INSTRUCTION, help="the task, as it will be served")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=-1, help="so many instead of epochs")
    parser.add_argument("--batch", type=int, default=32, help="pairs per step")
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate")
    parser.add_argument("--longest", type=int, default=1024, help="tokens of a prompt; documents are cut")
    return parser.parse_args()


def read_training(folder: Path) -> Dataset:
    """Read the questions to train on; none may be among those to measure with."""
    data = read_dataset(folder, judgements=folder / "qrels" / "train.tsv")
    held_out = set(read_dataset(folder).queries.values())
    both = [query for query in data.queries.values() if query in held_out]
    if both:
        sys.exit(f"{len(both)} questions are in train.tsv and in test.tsv, such as {both[0]!r}")
    return data


def mine(data: Dataset, instruction: str) -> Table:
    """Return pairs with labels: right ones, and for each the wrong ones that search puts first."""
    client = EmbeddingClient()
    print(f"Embedding {len(data.document_ids):,} documents and {len(data.queries):,} questions")
    documents = client.embed_documents(data.texts)
    questions = client.embed_queries(list(data.queries.values()), instruction=instruction)
    place_of = {document: place for place, document in enumerate(data.document_ids)}
    rows: dict[str, list] = {"query": [], "document": [], "label": []}
    for (id, question), vector in zip(data.queries.items(), questions, strict=True):
        judged = {place_of[each]: value for each, value in data.judgements[id].items() if each in place_of}
        right = [place for place, value in judged.items() if value > 0]
        if not right:
            continue
        cosines = documents @ vector
        allowed = cosines < TOO_NEAR * cosines[right].min()
        allowed[list(judged)] = [value <= 0 for value in judged.values()]  # what was judged wrong is wrong
        order = np.argsort(-cosines)
        wrong = order[allowed[order]][: NEGATIVES * len(right)]
        for places, label in ((right, 1.0), (wrong, 0.0)):
            rows["query"] += [question] * len(places)
            rows["document"] += [data.texts[place] for place in places]
            rows["label"] += [label] * len(places)
    return Table.from_dict(rows)


def load(folder: Path, instruction: str, longest: int) -> CrossEncoder:
    """Load a checkpoint with LoRA adapters in all its layers."""
    transformer = Transformer(
        str(folder),
        transformer_task="text-generation",
        max_seq_length=longest,
        model_kwargs={"dtype": "auto" if torch.cuda.is_available() else torch.float32},
        processor_kwargs={"chat_template": TEMPLATE},
        processing_kwargs={"chat_template": {"instruction": instruction}},
    )
    # Yes and no are rows of the head, which small checkpoints share with the token embeddings: it stays.
    adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    transformer.model = get_peft_model(transformer.model, adapters)
    yes, no = transformer.tokenizer.convert_tokens_to_ids(["yes", "no"])
    return CrossEncoder(modules=[transformer, LogitScore(yes, no)])


def plain(model: CrossEncoder, texts: list[str]) -> list[str]:
    """Make control tokens in texts plain words, as the clients do."""
    tokens = "|".join(re.escape(token[1:]) for token in model.tokenizer.get_added_vocab())
    return [re.sub(f"<(?={tokens})", "< ", text) for text in texts]


def compare_with_server(model: CrossEncoder, pairs: Table, instruction: str) -> None:
    """End the program if the server scores pairs otherwise: its prompt or its checkpoint is another."""
    short = sorted(pairs, key=lambda pair: len(pair["query"]) + len(pair["document"]))[:COMPARED]
    queries, documents = ([pair[name] for pair in short] for name in ("query", "document"))
    here = model.predict(list(zip(plain(model, queries), plain(model, documents), strict=True)))
    served = RerankClient().score(queries, documents, instruction=instruction)
    difference = float(np.abs(here - served).mean())
    print(f"Scores here and at the server differ by {difference:.4f} in the mean")
    if difference > CLOSE:
        sys.exit("That is too much: does the server have another checkpoint than MODEL?")


def train(model: CrossEncoder, pairs: Table, given: argparse.Namespace) -> None:
    """Train the adapters."""
    columns = {name: plain(model, pairs[name]) for name in ("query", "document")}
    arguments = CrossEncoderTrainingArguments(
        output_dir=tempfile.mkdtemp(),  # nothing is saved on the way
        num_train_epochs=given.epochs,
        max_steps=given.steps,
        per_device_train_batch_size=given.batch,
        learning_rate=given.rate,
        warmup_steps=0.1,
        lr_scheduler_type="cosine",
        bf16=torch.cuda.is_available(),
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        seed=0,
    )
    table = Table.from_dict({**columns, "label": pairs["label"]})
    loss = BinaryCrossEntropyLoss(model)
    CrossEncoderTrainer(model=model, args=arguments, train_dataset=table, loss=loss).train()


def save(model: CrossEncoder, original: Path, out: Path) -> None:
    """Write the merged weights, in the original's type, beside the original's other files."""
    merged = model[0].model.merge_and_unload()
    merged.to(AutoConfig.from_pretrained(original).dtype).save_pretrained(out)
    for path in original.iterdir():
        if path.is_file() and not re.search(r"\.(safetensors|bin|index\.json|md)$", path.name):
            shutil.copy(path, out)


if __name__ == "__main__":
    main()
