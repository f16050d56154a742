"""Make `golden.npz`: loss and gradients of a tiny dual encoder, from the published formulas alone.

    python tests/assets/make_golden.py

numpy in float64, no automatic differentiation, nothing of zerovl's. The contrastive part is the paper's
(arXiv 2112.09331, sec. 3): with S = I T' / t, P its softmax by rows, Q by columns and Y the mixed targets,

    dL/dI = (P + Q - 2Y) T / (2 B t)    dL/dT = (P + Q - 2Y)' I / (2 B t)    dL/dt = -sum((P + Q - 2Y) * S) / (2 B t)

and the rest is the chain rule by hand. Before it writes, the script derives every gradient a second time, by the
complex step Im L(w + ih) / h, and both must agree to 1e-12.

The encoder: an image is tanh(W x + b), a caption tanh(e_0 + mean of e over its tokens), each then projected,
divided by its length + 1e-8. Mixup takes the micro-batch in reverse order: of pixels, or of projected captions.

Shapes: B = 16 pairs in micro-batches of m = 4, D = 5 embedding width, w = 6 tower width, L = 5 tokens.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray]

FILE = Path(__file__).with_name("golden.npz")
MODES = ("none", "image", "text")
WEIGHT = 0.3  # of the own pair
BATCH, MICRO_BATCH, VOCABULARY, TOKENS, WIDTH, DIM, SIDE = 16, 4, 20, 5, 6, 5, 4
EPS = 1e-8


def make_inputs() -> Arrays:
    """Pixels, token ids and mask of a batch (`in.`), and the weights of the encoder (`w.`)."""
    rng = np.random.default_rng(2112)
    mask = np.arange(TOKENS) < rng.integers(2, TOKENS + 1, (BATCH, 1))
    return {
        "in.pixels": rng.normal(size=(BATCH, 3, SIDE, SIDE)),
        "in.ids": rng.integers(0, VOCABULARY, (BATCH, TOKENS)),
        "in.mask": mask.astype(np.int64),
        "w.image_tower.weight": 0.2 * rng.normal(size=(WIDTH, 3 * SIDE * SIDE)),
        "w.image_tower.bias": 0.1 * rng.normal(size=WIDTH),
        "w.text_tower.weight": 0.7 * rng.normal(size=(VOCABULARY, WIDTH)),
        "w.image_projection.weight": rng.normal(size=(DIM, WIDTH)),
        "w.text_projection.weight": rng.normal(size=(DIM, WIDTH)),
        "w.temperature": np.array(0.2),
    }


def reverse() -> NDArray:
    """The partner of each pair: its micro-batch in reverse order."""
    return np.concatenate([np.arange(start, start + MICRO_BATCH)[::-1] for start in range(0, BATCH, MICRO_BATCH)])


def forward(given: Arrays, mode: str) -> Arrays:
    """All that a backward pass needs, up to the logits; weights may be complex."""
    partner = reverse()
    pixels = given["in.pixels"].reshape(BATCH, -1)
    if mode == "image":
        pixels = WEIGHT * pixels + (1 - WEIGHT) * pixels[partner]
    image_hidden = np.tanh(pixels @ given["w.image_tower.weight"].T + given["w.image_tower.bias"])
    mask = given["in.mask"][:, :, None]
    tokens = given["w.text_tower.weight"][given["in.ids"]]  # (B, L, w)
    text_hidden = np.tanh(tokens[:, 0] + (tokens * mask).sum(axis=1) / mask.sum(axis=1))
    image_features = image_hidden @ given["w.image_projection.weight"].T
    text_features = text_hidden @ given["w.text_projection.weight"].T
    if mode == "text":
        text_features = WEIGHT * text_features + (1 - WEIGHT) * text_features[partner]
    image_emb, text_emb = normalise(image_features), normalise(text_features)
    return {
        "pixels": pixels,
        "image_hidden": image_hidden,
        "text_hidden": text_hidden,
        "image_features": image_features,
        "text_features": text_features,
        "image_emb": image_emb,
        "text_emb": text_emb,
        "logits": image_emb @ text_emb.T / given["w.temperature"],  # (B, B)
    }


def normalise(features: NDArray) -> NDArray:
    """x / (|x| + 1e-8), row by row; analytic, so that a complex step goes through."""
    return features / (np.sqrt((features * features).sum(axis=1, keepdims=True)) + EPS)


def make_targets(mode: str) -> NDArray:
    """Y, (B, B): the same for rows and columns."""
    own = np.eye(BATCH)
    return own if mode == "none" else WEIGHT * own + (1 - WEIGHT) * own[reverse()]


def loss_of(logits: NDArray, targets: NDArray) -> NDArray:
    """0.5 x (image-to-text + text-to-image cross-entropy), the mean over the batch."""

    def cross_entropy(scores: NDArray) -> NDArray:
        highest = scores.real.max(axis=1, keepdims=True)
        lse = highest[:, 0] + np.log(np.exp(scores - highest).sum(axis=1))
        return (lse - (targets * scores).sum(axis=1)).mean()

    return 0.5 * (cross_entropy(logits) + cross_entropy(logits.T))


def softmax(scores: NDArray) -> NDArray:
    """Along the last dimension."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def through_normalise(upstream: NDArray, features: NDArray) -> NDArray:
    """The gradient of features from that of x / (|x| + eps)."""
    length = np.sqrt((features * features).sum(axis=1, keepdims=True))
    along = (upstream * features).sum(axis=1, keepdims=True)
    return upstream / (length + EPS) - features * along / (length * (length + EPS) ** 2)


def compute(given: Arrays, mode: str) -> Arrays:
    """Embeddings, loss and gradients (`g.`) of one mode, by the closed formulas."""
    found, targets = forward(given, mode), make_targets(mode)
    temperature, logits = given["w.temperature"], found["logits"]
    away = (softmax(logits) + softmax(logits.T).T - 2 * targets) / (2 * BATCH)  # dL/dS
    image_grad = away @ found["text_emb"] / temperature
    text_grad = away.T @ found["image_emb"] / temperature
    image_features = through_normalise(image_grad, found["image_features"])
    text_features = through_normalise(text_grad, found["text_features"])
    if mode == "text":
        text_features = WEIGHT * text_features + (1 - WEIGHT) * text_features[reverse()]  # its own inverse
    image_hidden = image_features @ given["w.image_projection.weight"] * (1 - found["image_hidden"] ** 2)
    text_hidden = text_features @ given["w.text_projection.weight"] * (1 - found["text_hidden"] ** 2)
    words = np.zeros_like(given["w.text_tower.weight"])
    mask = given["in.mask"]
    np.add.at(words, given["in.ids"][:, 0], text_hidden)
    np.add.at(words, given["in.ids"], (mask / mask.sum(axis=1, keepdims=True))[:, :, None] * text_hidden[:, None])
    return {
        "loss": loss_of(logits, targets),
        "image_emb": found["image_emb"],
        "text_emb": found["text_emb"],
        "g.image_emb": image_grad,
        "g.text_emb": text_grad,
        "g.image_tower.weight": image_hidden.T @ found["pixels"],
        "g.image_tower.bias": image_hidden.sum(axis=0),
        "g.text_tower.weight": words,
        "g.image_projection.weight": image_features.T @ found["image_hidden"],
        "g.text_projection.weight": text_features.T @ found["text_hidden"],
        "g.temperature": -(away * logits).sum() / temperature,
    }


def by_complex_step(given: Arrays, mode: str, name: str, step: float = 1e-30) -> NDArray:
    """The gradient of one weight, an element at a time: Im L(w + ih) / h has no rounding of differences."""
    weight, targets = given[name], make_targets(mode)
    gradient = np.empty(weight.shape)
    for place in np.ndindex(weight.shape):
        moved = weight.astype(complex)
        moved[place] += 1j * step
        gradient[place] = loss_of(forward({**given, name: moved}, mode)["logits"], targets).imag / step
    return gradient


def check(given: Arrays, mode: str, found: Arrays) -> None:
    """Both ways to the gradients of all weights give the same."""
    for name in given:
        if name.startswith("w."):
            expected = by_complex_step(given, mode, name)
            error = np.abs(found[f"g.{name[2:]}"] - expected).max() / np.abs(expected).max()
            assert error < 1e-12, (mode, name, error)


def main() -> None:
    """Make, check and write all of it."""
    given = make_inputs()
    arrays = dict(given)
    for mode in MODES:
        found = compute(given, mode)
        check(given, mode, found)
        arrays |= {f"{mode}.{name}": value for name, value in found.items()}
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {len(arrays)} arrays, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
