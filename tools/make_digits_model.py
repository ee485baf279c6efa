"""Makes hpcfed/recipes/digits: a small vision transformer that reads upright 8x8 digits (first order, half a minute).

    python tools/make_digits_model.py [--out hpcfed/recipes/digits] [--steps 2000]

It trains on the `pretrain` part of hpcfed.tasks.digits only. The same machine and library versions give the same file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import ViTConfig, ViTForImageClassification

from hpcfed.seeds import derive
from hpcfed.tasks.digits import LABELS, SIDE, turned, upright_arrays

BATCH = 128
PEAK_RATE = 3e-3


def fresh_model() -> ViTForImageClassification:
    """A ViT of 20,650 random weights: one layer and 5 tokens (4x4 pixels each), so that a round is cheap on any CPU."""
    config = ViTConfig(
        image_size=SIDE,
        num_channels=1,
        patch_size=4,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=96,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )
    return ViTForImageClassification(config)


def jittered(images: Tensor, draw: torch.Generator) -> Tensor:
    """The images [n, 1, 8, 8], each moved by -1, 0 or 1 pixel along both axes; what comes in is blank paper."""
    rows, columns = torch.randint(-1, 2, (2, len(images), 1), generator=draw)
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), value=-1.0)[:, 0]
    y = (torch.arange(SIDE) + 1 + rows)[:, :, None]
    x = (torch.arange(SIDE) + 1 + columns)[:, None, :]
    return padded[torch.arange(len(images))[:, None, None], y, x][:, None]


def pretrain(model: ViTForImageClassification, images: Tensor, labels: Tensor, steps: int) -> None:
    """AdamW on jittered images; label smoothing keeps the logits small, so the loss on turned digits is no cliff."""
    draw = torch.Generator().manual_seed(derive(0, "digits", "jitter") >> 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.05)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        rows = torch.randint(len(images), (BATCH,), generator=draw)
        logits = model(jittered(images[rows], draw)).logits
        loss = cross_entropy(logits, labels[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()


def accuracy(model: ViTForImageClassification, images: Tensor, labels: Tensor) -> float:
    """The fraction of images that the model names rightly."""
    with torch.inference_mode():
        return float((model(images).logits.argmax(1) == labels).float().mean())


def main() -> None:
    """Trains, reports, writes config.json and model.safetensors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "hpcfed" / "recipes" / "digits")
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = {part: (torch.from_numpy(x), torch.from_numpy(y)) for part, (x, y) in upright_arrays().items()}
    model = fresh_model()
    pretrain(model, *parts["pretrain"], args.steps)
    model.eval()
    for part in ("pretrain", "validation", "test"):
        images, labels = parts[part]
        sideways = torch.from_numpy(turned(images.numpy()))
        scores = accuracy(model, images, labels), accuracy(model, sideways, labels)
        print(f"{part:10}  upright {scores[0]:.3f}  turned {scores[1]:.3f}")
    model.save_pretrained(args.out)
    size = (args.out / "model.safetensors").stat().st_size
    print(f"{model.num_parameters():,} parameters, {size:,} bytes, in {args.out}")


if __name__ == "__main__":
    main()
