"""Trains the small transformer whose checkpoints `cargo bench --bench small` encodes; writes its states as raw files.

    python benches/small/states.py FOLDER        about 300 MB of memory, 1.6 GB of files, some minutes on two cores

Everything that decides how well a state can be encoded is fixed here, and was before the encoder was tuned: a
byte-level transformer of 10.9 million parameters, Python's own standard library as text, AdamW as torch has it with a
learning rate of 3e-4, one seed, and the steps whose states are kept, 10 apart.

- `mixed`: bf16 weights, their fp32 masters, two fp32 moments (mixed-precision AdamW)
- `lora`: the weights of the last mixed step, frozen, and fp32 adapters of rank 4 on q and v with their moments

Weights in bf16 alone are `mixed` without its masters and moments.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

SEED = 7
LEARNING_RATE = 3e-4
WIDTH, LAYERS, HEADS, CONTEXT, BATCH = 384, 6, 6, 128, 8
#: Bases and, 10 steps on, the steps saved against them; then a chain of five from the last base.
MIXED_STEPS = (100, 110, 200, 210, 300, 310, 320, 330, 340, 350)
LORA_RANK, LORA_SCALE = 4, 8.0
LORA_STEPS = (50, 60)


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape

        def heads(y: Tensor) -> Tensor:
            return y.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2)

        y = self.norm1(x)
        y = functional.scaled_dot_product_attention(
            heads(self.q(y)), heads(self.k(y)), heads(self.v(y)), is_causal=True
        )
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class LoRA(nn.Module):
    """A frozen linear layer and a learned change of low rank to it (Hu et al. 2021)."""

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen
        self.a = nn.Parameter(torch.randn(LORA_RANK, WIDTH) / math.sqrt(WIDTH))
        self.b = nn.Parameter(torch.zeros(WIDTH, LORA_RANK))

    def forward(self, x: Tensor) -> Tensor:
        change = (x.float() @ self.a.T) @ self.b.T
        return self.frozen(x) + (LORA_SCALE / LORA_RANK * change).to(x.dtype)


def text() -> Tensor:
    """Python's standard library, as bytes."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for path in folder.glob("*.py"))
    data = b"\n".join(path.read_bytes() for path in files)
    print(f"text: {len(files)} files, {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).long()


def batches(data: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(SEED)
    while True:
        starts = torch.randint(len(data) - CONTEXT - 1, (BATCH,), generator=generator)
        rows = torch.stack([data[start : start + CONTEXT + 1] for start in starts.tolist()])
        yield rows[:, :-1], rows[:, 1:]


def loss_of(model: Model, batch: tuple[Tensor, Tensor]) -> Tensor:
    tokens, wanted = batch
    return functional.cross_entropy(model(tokens).float().flatten(0, 1), wanted.flatten())


def train_mixed(data: Tensor, folder: Path) -> Model:
    """bf16 weights compute, fp32 masters learn, and are rounded back into the weights after every step."""
    torch.manual_seed(SEED)
    model = Model()
    names = [name for name, _ in model.named_parameters()]
    masters = [nn.Parameter(weight.detach().clone()) for weight in model.parameters()]
    model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(masters, lr=LEARNING_RATE)
    source, begun = batches(data), time.monotonic()
    for step in range(1, MIXED_STEPS[-1] + 1):
        loss = loss_of(model, next(source))
        model.zero_grad()
        loss.backward()
        for master, weight in zip(masters, model.parameters(), strict=True):
            assert weight.grad is not None
            master.grad = weight.grad.float()
        optimizer.step()
        with torch.no_grad():
            for master, weight in zip(masters, model.parameters(), strict=True):
                weight.copy_(master)
        if step % 10 == 0:
            print(f"mixed step {step}: loss {loss.item():.3f}, {time.monotonic() - begun:.0f} s", flush=True)
        if step in MIXED_STEPS:
            state = {f"model.{name}": weight for name, weight in model.named_parameters()}
            state |= {f"master.{name}": master for name, master in zip(names, masters, strict=True)}
            state |= moments(optimizer, names, masters)
            write(folder / "mixed" / str(step), state)
    return model


def train_lora(model: Model, data: Tensor, folder: Path) -> None:
    for weight in model.parameters():
        weight.requires_grad_(False)
    torch.manual_seed(SEED)
    for block in model.blocks:
        block.q, block.v = LoRA(block.q), LoRA(block.v)
    adapters = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(adapters.values(), lr=LEARNING_RATE)
    source = batches(data)
    for step in range(1, LORA_STEPS[-1] + 1):
        loss = loss_of(model, next(source))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in LORA_STEPS:
            print(f"lora step {step}: loss {loss.item():.3f}", flush=True)
            state = {f"model.{name}": weight for name, weight in model.named_parameters()}
            write(folder / "lora" / str(step), state | moments(optimizer, list(adapters), list(adapters.values())))


def moments(optimizer: torch.optim.Optimizer, names: list[str], weights: list[nn.Parameter]) -> dict[str, Tensor]:
    kinds = ("exp_avg", "exp_avg_sq")
    return {
        f"optimizer.{kind}.{name}": optimizer.state[weight][kind]
        for kind in kinds
        for name, weight in zip(names, weights, strict=True)
    }


def write(folder: Path, state: dict[str, Tensor]) -> None:
    """One file of all tensors behind each other, and what they are: name, dtype, shape."""
    folder.mkdir(parents=True)
    with open(folder / "data", "wb") as file:
        for tensor in state.values():
            file.write(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    table = [
        {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
        for name, tensor in state.items()
    ]
    (folder / "tensors.json").write_text(json.dumps(table))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write; must not exist yet")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, {torch.get_num_threads()} threads")
    data = text()
    model = train_mixed(data, folder)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")
    train_lora(model, data, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
