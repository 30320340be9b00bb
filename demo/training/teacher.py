"""The English teacher, all-MiniLM-L6-v2: its vectors say which passages mean what a query asks."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

WIDTH = 384
_BATCH = 2048


def vectors(folder: Path, texts: Sequence[str], device: torch.device, longest: int = 160) -> Tensor:
    """Return unit vectors, (texts, 384) in float16, in order. `folder` holds the teacher's checkpoint."""
    from tokenizers import Tokenizer
    from transformers import AutoModel

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(longest)
    tokenizer.enable_padding()
    model = AutoModel.from_pretrained(folder, dtype=torch.float16 if device.type == "cuda" else torch.float32)
    model = model.to(device).eval()
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # little padding
    found = torch.empty(len(texts), WIDTH, dtype=torch.float16, device=device)
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        encodings = tokenizer.encode_batch_fast([texts[index] for index in chosen])
        ids = torch.tensor([encoding.ids for encoding in encodings], device=device)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], device=device)
        with torch.no_grad():
            states = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        found[torch.tensor(chosen, device=device)] = torch.nn.functional.normalize(mean, dim=-1).half()
    return found
