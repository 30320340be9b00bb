"""How long to train, and at which learning rate: by steps, or by the clock where that runs out first."""

import time
from collections.abc import Iterator

import torch
from torch import nn


class Pace:
    """Count steps until `steps` are done or `seconds` have passed; the learning rate follows either.

    Attributes:
        done: The share of the training that is behind, from 0 to 1.
    """

    def __init__(self, *models: nn.Module, rate: float, steps: int, seconds: float) -> None:
        weights = [weight for model in models for weight in model.parameters()]
        matrices = [weight for weight in weights if weight.dim() == 2]
        others = [weight for weight in weights if weight.dim() != 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}],
            lr=rate,
            betas=(0.9, 0.98),
            fused=matrices[0].is_cuda,
        )
        self.weights = matrices + others
        self.rate, self.steps, self.seconds = rate, steps, seconds
        self.done = 0.0

    def __iter__(self) -> Iterator[int]:
        """Yield the step's number and set its learning rate: a short warm-up, then down to nothing."""
        start = time.monotonic()
        for step in range(self.steps):
            self.done = max(step / self.steps, (time.monotonic() - start) / self.seconds)
            if self.done >= 1:
                return
            rate = self.rate * min((step + 1) / 200, 1) * (1 - self.done)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            yield step

    def update(self, loss: torch.Tensor) -> None:
        """Take one step down the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
