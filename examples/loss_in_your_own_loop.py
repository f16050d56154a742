"""The contrastive loss of ZeroVL in a training loop of one's own: no project, no params.yaml, one process.

    python examples/loss_in_your_own_loop.py

`zerovl.contrastive_loss` needs memory for the embeddings and not for a matrix of all pairs, so batches of tens of
thousands of pairs fit. Here two linear towers learn to match made-up features; put your own in their place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zerovl

PAIRS, BATCH, STEPS = 2048, 256, 60
COMMON, IMAGE, TEXT, WIDTH = 16, 48, 32, 24  # numbers: behind a pair, of its two sides, of the shared space


def main() -> None:
    """Train two towers, and print the loss and how many captions find their picture."""
    torch.manual_seed(0)
    common = torch.randn(PAIRS, COMMON)  # what picture and caption of a pair have in common
    pictures, captions = common @ torch.randn(COMMON, IMAGE), common @ torch.randn(COMMON, TEXT)

    image_tower, text_tower = nn.Linear(IMAGE, WIDTH), nn.Linear(TEXT, WIDTH)
    log_temperature = nn.Parameter(torch.tensor(0.1).log())  # its logarithm, so that it stays above 0
    learned = [*image_tower.parameters(), *text_tower.parameters(), log_temperature]
    optimiser = torch.optim.AdamW(learned, lr=1e-2)

    for step in range(STEPS):
        rows = torch.randperm(PAIRS)[:BATCH]  # no pair twice: its copy would count as a wrong answer
        image_emb = F.normalize(image_tower(pictures[rows]))  # (BATCH, WIDTH)
        text_emb = F.normalize(text_tower(captions[rows]))  # (BATCH, WIDTH)
        loss = zerovl.contrastive_loss(image_emb, text_emb, log_temperature.exp())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 10 == 0 or step == STEPS - 1:
            print(f"step {step:3}  loss {loss.item():.4f}  temperature {log_temperature.exp().item():.3f}")

    with torch.no_grad():
        found = share_found(F.normalize(image_tower(pictures)), F.normalize(text_tower(captions)))
    print(f"{found:.0%} of {PAIRS:,} captions find their own picture first")


def share_found(image_emb: Tensor, text_emb: Tensor) -> float:
    """Return the share of captions whose nearest picture is their own."""
    nearest = (text_emb @ image_emb.T).argmax(dim=1)
    return (nearest == torch.arange(len(nearest))).float().mean().item()


if __name__ == "__main__":
    main()
