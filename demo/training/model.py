"""Qwen3ForCausalLM, as little of it as training a tiny one takes, and its checkpoint in Qwen's own form.

Rows are padded on the right, and attention is causal: no token sees padding, so there is no mask.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from demo.training.pools import Batch


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, named as in config.json."""

    vocab_size: int
    hidden_size: int = 256
    intermediate_size: int = 352
    num_hidden_layers: int = 5
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 32
    rope_theta: int = 1_000_000
    rms_norm_eps: float = 1e-6


class Norm(nn.Module):
    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, states: Tensor) -> Tensor:
        wide = states.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon) * self.weight).to(
            states.dtype
        )


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        queries = shape.num_attention_heads * shape.head_dim
        keys = shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, shape.hidden_size, bias=False)
        self.q_norm = Norm(shape.head_dim, shape.rms_norm_eps)
        self.k_norm = Norm(shape.head_dim, shape.rms_norm_eps)

    def forward(self, states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        rows, length, _ = states.shape
        by_head = (rows, length, -1, self.shape.head_dim)
        query = _rotate(self.q_norm(self.q_proj(states).view(by_head)).transpose(1, 2), cosine, sine)
        key = _rotate(self.k_norm(self.k_proj(states).view(by_head)).transpose(1, 2), cosine, sine)
        value = self.v_proj(states).view(by_head).transpose(1, 2)
        shared = self.shape.num_attention_heads // self.shape.num_key_value_heads
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        attended: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))
        return attended


class FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        fed: Tensor = self.down_proj(functional.silu(self.gate_proj(states)) * self.up_proj(states))
        return fed


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        states = states + self.self_attn(self.input_layernorm(states), cosine, sine)
        fed: Tensor = self.mlp(self.post_attention_layernorm(states))
        return states + fed


class Qwen3(nn.Module):
    """The model without its head, which shares the token embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.04 / (2 * shape.num_hidden_layers) ** 0.5 if deep else 0.04)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the last layer's normalised states: (rows, length, hidden_size)."""
        return self.states(ids)[1]

    def states(self, ids: Tensor, layers: int = 1) -> tuple[Tensor, Tensor]:
        """Return the states after so many layers, and the last layer's normalised ones."""
        half = torch.arange(0, self.shape.head_dim, 2, device=ids.device) / self.shape.head_dim
        place = torch.arange(ids.shape[1], device=ids.device)
        angle = torch.outer(place.float(), self.shape.rope_theta**-half)
        angle = torch.cat((angle, angle), -1)
        cosine, sine = angle.cos(), angle.sin()
        states = self.embed_tokens(ids)
        between = states
        for number, layer in enumerate(self.layers, start=1):
            states = layer(states, cosine, sine)
            if number == layers:
                between = states
        return between, self.norm(states)


def last_states(model: nn.Module, batch: Batch) -> Tensor:
    """Return the state at each row's last token, (rows, hidden_size), in float32."""
    return at_last(model(batch.ids), batch)


def at_last(states: Tensor, batch: Batch) -> Tensor:
    """Return each row's state at its last token, (rows, width), in float32."""
    return states[torch.arange(len(batch.lengths), device=states.device), batch.lengths - 1].float()


def start_matching(model: Qwen3, layers: int) -> None:
    """Let half the heads of the first layers look for the token they stand on.

    A reranker has to see which tokens of a document were in the query, and a small model finds that out late
    or never. So these heads start with one projection for queries and keys, which spreads the token
    embeddings evenly and uses the slowly turning half of the rotary dimensions, where distance is no matter.
    """
    shape = model.shape
    half, slow = shape.head_dim // 2, shape.head_dim // 4
    slow_rows = [*range(slow, half), *range(half + slow, shape.head_dim)]
    group = shape.num_attention_heads // shape.num_key_value_heads
    with torch.no_grad():
        embeddings = model.embed_tokens.weight
        seen = embeddings / embeddings.square().mean(-1, keepdim=True).sqrt()
        middle = seen.mean(0) / seen.mean(0).norm()
        _, spread, directions = torch.linalg.svd(seen - seen.mean(0), full_matrices=False)
        white = directions[:128] * (len(seen) ** 0.5 / spread[:128, None])
        white = white - torch.outer(white @ middle, middle)
        for layer in list(model.layers)[:layers]:
            attention = layer.get_submodule("self_attn")
            query, key = (attention.get_parameter(f"{name}_proj.weight") for name in "qk")
            for head in range(shape.num_key_value_heads // 2):
                mixture = torch.randn(len(slow_rows), len(white), device=white.device) / len(white) ** 0.5
                projection = torch.zeros(shape.head_dim, shape.hidden_size, device=white.device)
                projection[slow_rows] = 0.1 * mixture @ white
                for matrix, heads in (
                    (key, range(head, head + 1)),
                    (query, range(head * group, (head + 1) * group)),
                ):
                    for place in heads:
                        matrix[place * shape.head_dim : (place + 1) * shape.head_dim] = projection
            for name in ("q_norm", "k_norm"):
                attention.get_parameter(f"{name}.weight")[slow_rows] = 1.3


def save(model: Qwen3, folder: Path, *, end_token_id: int, pad_token_id: int) -> None:
    """Write config.json and model.safetensors, in bfloat16 like Qwen's own."""
    sizes = asdict(model.shape)
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": pad_token_id,
        "eos_token_id": end_token_id,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 2048,
        "max_window_layers": model.shape.num_hidden_layers,
        "model_type": "qwen3",
        "rope_scaling": None,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.3",
        "use_cache": True,
        "use_sliding_window": False,
        **sizes,
    }
    (folder / "config.json").write_text(
        json.dumps(dict(sorted(config.items())), indent=2) + "\n", encoding="utf-8"
    )
    weights = {f"model.{name}": weight.detach().bfloat16().cpu() for name, weight in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def load(model: Qwen3, folder: Path) -> None:
    """Read the weights that `save` wrote."""
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()})


def _rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = states.chunk(2, -1)
    turned = states * cosine + torch.cat((-second, first), -1) * sine
    return turned.to(states.dtype)
