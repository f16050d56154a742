"""Choose settings for a first training on one's own pairs, by their number and size; each with its reason.

What the paper says is taken where it fits (arXiv 2112.09331: lr 1e-4 at batches of 1024 and more, warm-up over 2.5% of
the steps, 20 epochs, batch 16384, resize 256 before a crop of 224). Its data are millions of pairs and its towers
pretrained; the rules for less of both are ours, and start from what the demo and `docs/results.md` have shown.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerovl.data.batches.sampling import count_steps
from zerovl.data.survey import Survey
from zerovl.planning.set_aside import set_aside, share_to_draw

FOLDER, IMAGE_WEIGHTS, TEXT_TOWER = "towers", "tf_efficientnet_lite0.safetensors", "all-MiniLM-L6-v2"
SMALL, MEDIUM = 20_000, 500_000  # training pairs: below, towers from scratch have the demo's size, or a medium one
_STEPS_FROM_SCRATCH, _STEPS_FROM_WEIGHTS = 1000, 400
_PAPERS_EPOCHS, _PAPERS_BATCH, _PAPERS_LR, _PAPERS_WARMUP, _PAPERS_TOKENS = 20, 16_384, 1e-4, 0.025, 25
_LEAST_BATCH, _MOST_TOKENS, _LEAST_VOCAB, _MOST_VOCAB = 64, 64, 500, 16_000
_MOST_EPOCHS = 60  # with 700 pairs from random weights the score rose for 25, and stayed for the next 25
_SIDES = (32, 48, 64, 96, 128, 160, 192, 224)  # pixels that a tower may see


@dataclass(frozen=True)
class Choice:
    """A value of `params.yaml` with the reason for it."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class _Scratch:
    """Towers from random weights for fewer than so many training pairs."""

    below: float
    said: str
    layers: list[int]  # of a ResNet-18, by stage
    channels: list[int]
    width: int  # of a BERT
    depth: int
    embed_dim: int


_SCRATCH = (
    _Scratch(SMALL, "of the demo's size", [1, 1, 1, 1], [64, 64, 96, 192], 128, 2, 128),
    _Scratch(MEDIUM, "of a medium size", [2, 2, 2, 2], [64, 128, 256, 512], 256, 4, 256),
    _Scratch(math.inf, "(the paper's are larger: recipes/)", [2, 2, 2, 2], [64, 128, 256, 512], 384, 6, 512),
)


@dataclass(frozen=True)
class Towers:
    """Pretrained towers on this machine."""

    image_weights: Path
    text: Path


@dataclass(frozen=True)
class Given:
    """What the user has set and other settings follow from; None is chosen."""

    batch_size: int | None = None
    epochs: float | None = None
    image_size: int | None = None
    image_tower: bool = False  # another than the demo's, by name
    text_tower: bool = False

    @property
    def a_tower(self) -> bool:
        """Whether either is."""
        return self.image_tower or self.text_tower


def find_towers(root: Path) -> Towers | None:
    """Return the pretrained towers in `towers/`; None where one is missing."""
    image, text = root / FOLDER / IMAGE_WEIGHTS, root / FOLDER / TEXT_TOWER
    return Towers(image, text) if image.is_file() and (text / "config.json").is_file() else None


def drawing(data: Survey, refused: Collection[str]) -> list[Choice]:
    """Return the choice to draw validation pairs where no source has any, or nothing where none can be drawn."""
    share = share_to_draw(data, refused)
    if not share:
        return []
    many = sum(set_aside(data, share, refused).valid.values())
    why = f"no source has validation pairs: about {many:,} of {data.pairs:,} are set aside for evaluation"
    return [Choice("prepare.draw_valid.fraction", share, why)]


def choose(data: Survey, towers: Towers | None, given: Given | None = None) -> list[Choice]:
    """Return the settings; both towers start from `towers`, else from random weights at the size of the data.

    What follows from a setting that is given follows from its value; it is itself among the choices all the same.
    """
    given = given or Given()
    return [
        *_image_tower(data, towers, given),
        *_text_tower(data, towers, given),
        *_both_towers(data, towers),
        *_captions(data, towers, given),
        *_pictures(data, towers, given),
        *_training(data, towers, given),
    ]


def notes(data: Survey, towers: Towers | None, given: Given | None = None) -> list[str]:
    """Return what the user should know before the first run, beside the settings."""
    told = []
    given = given or Given()
    if towers is None and not given.a_tower:
        told.append(
            "the towers start from random weights. Pretrained ones need far fewer pairs: put "
            f"{IMAGE_WEIGHTS} and {TEXT_TOWER}/ into {FOLDER}/ (`make towers`) and run this command again"
        )
    if not data.valid:
        told.append(
            "no source has validation pairs: nothing can be evaluated; add a valid split, or let "
            "prepare.draw_valid draw one (data/README.md)"
        )
    elif small := [f"{name} {pairs}" for name, pairs in data.valid.items() if pairs < 100]:
        told.append(
            f"few validation pairs ({', '.join(small)}): their scores have wide intervals; 200 a source tell more"
        )
    if towers is None and data.pairs < 2000:
        told.append(f"{data.pairs:,} pairs teach towers from random weights little: expect scores not far above chance")
    return told


def _image_tower(data: Survey, towers: Towers | None, given: Given) -> Iterator[Choice]:
    if given.image_tower:
        yield Choice("model.image_tower.options", {}, "none of another tower's: its name is given")
    elif towers:
        why = f"pretrained, found in {FOLDER}/"
        yield Choice("model.image_tower.name", "tf_efficientnet_lite0", why)
        yield Choice("model.image_tower.options", {}, "as published")
        yield Choice("model.image_tower.weights", towers.image_weights.as_posix(), why)
        for name in ("mean", "std"):
            yield Choice(f"model.{name}", [0.5, 0.5, 0.5], "of the input that this tower was trained with")
    else:
        size = _scratch(data)
        options = {"layers": size.layers, "channels": size.channels, "norm_layer": "groupnorm", "zero_init_last": False}
        yield Choice("model.image_tower.options", options, _why_scratch(data))


def _text_tower(data: Survey, towers: Towers | None, given: Given) -> Iterator[Choice]:
    if given.text_tower:
        yield Choice("model.text_tower.config", {}, "that of the tower whose name is given")
    elif towers:
        why = f"pretrained, found in {FOLDER}/"
        yield Choice("model.text_tower.name", towers.text.as_posix(), why)
        yield Choice("model.text_tower.pretrained", True, why)
        yield Choice("model.text_tower.config", {}, "its folder has it")
        yield Choice("model.text_tower.pooling", "mean", "as this tower was trained")
    else:
        size = _scratch(data)
        config: dict[str, Any] = {"hidden_size": size.width, "num_hidden_layers": size.depth}
        config |= {"num_attention_heads": size.width // 32, "intermediate_size": 2 * size.width}
        config |= {"max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        yield Choice("model.text_tower.config", config, _why_scratch(data))


def _both_towers(data: Survey, towers: Towers | None) -> Iterator[Choice]:
    if not towers:
        yield Choice("model.embed_dim", _scratch(data).embed_dim, "follows the towers")
        return
    yield Choice("model.embed_dim", 256, "narrower than the towers' 1280 and 384")
    if data.pairs < SMALL:
        why = f"{data.pairs:,} pairs teach two projections; towers that learn too need more, or forget what they know"
        yield Choice("train.freeze", ["image", "text"], why)
    else:
        yield Choice("model.image_tower.batch_norm", "frozen", "a debiased batch has the statistics of one source")
        yield Choice("train.fine_tuning.projection_lr_scale", 10.0, "the projections are new, the towers are not")


def _scratch(data: Survey) -> _Scratch:
    return next(size for size in _SCRATCH if data.pairs < size.below)


def _why_scratch(data: Survey) -> str:
    return f"from random weights, {_scratch(data).said} for {data.pairs:,} pairs"


def _captions(data: Survey, towers: Towers | None, given: Given) -> Iterator[Choice]:
    if towers or given.text_tower:
        yield Choice("prepare.tokenizer_vocab", 0, "the text tower's own tokenizer")
    else:
        vocab = min(_MOST_VOCAB, max(_LEAST_VOCAB, round(data.words, -2)))
        why = f"the training captions have {data.words:,} distinct words{_limited(vocab, _LEAST_VOCAB, _MOST_VOCAB)}"
        yield Choice("prepare.tokenizer_vocab", vocab, why)
    tokens = min(_MOST_TOKENS, max(_PAPERS_TOKENS, math.ceil(1.4 * data.long_caption) + 2))
    why = f"95 of 100 captions have at most {data.long_caption} words; "
    why += "the paper's" if tokens == _PAPERS_TOKENS else f"the paper's is {_PAPERS_TOKENS}"
    yield Choice("model.max_tokens", tokens, why + ("; this at most" if tokens == _MOST_TOKENS else ""))


def _pictures(data: Survey, towers: Towers | None, given: Given) -> Iterator[Choice]:
    most = 224 if towers or data.pairs >= MEDIUM else 128 if data.pairs >= SMALL else 64
    least = 96 if towers else _SIDES[0]
    size = max(least, max(side for side in _SIDES if side <= max(_SIDES[0], min(most, data.side))))
    why = f"half of the pictures have a shorter side of {data.side} pixels or more"
    if size == most and data.side > most:
        why += f"; {most} is what {'these towers were trained at' if towers else 'so many pairs can teach'}"
    elif size == least and data.side < least:
        why += f"; {least} is the least that {'these towers are given' if towers else 'a tower is given'}"
    yield Choice("model.image_size", size, why)
    resized = round((given.image_size or size) * 8 / 7)
    yield Choice("model.resize_size", resized, "8/7 of image_size, as the paper's 256 to 224")


def _training(data: Survey, towers: Towers | None, given: Given) -> Iterator[Choice]:
    chosen_batch = _batch_size(data.pairs)
    batch = given.batch_size or chosen_batch.value
    chosen_epochs = _epochs(data.pairs, batch, towers)
    steps = max(1, count_steps(given.epochs or chosen_epochs.value, data.pairs, batch))
    yield chosen_batch
    why = "pairs in memory at once; nothing else depends on it but speed"
    yield Choice("train.micro_batch", next(size for size in range(64, 0, -1) if batch % size == 0), why)
    yield chosen_epochs
    fine = towers is not None and data.pairs >= SMALL
    yield Choice("train.lr", _lr(batch, fine), _lr_reason(batch, fine))
    yield _warmup(steps)
    yield _sampling(data, batch)
    mixup = "none" if data.pairs < SMALL else "coin"
    why = "on few pairs it costs more than it brings (docs/results.md)" if mixup == "none" else "the paper's"
    yield Choice("train.mixup", mixup, why)
    if towers and data.pairs < SMALL:
        why = "frozen towers see each picture and caption once, and training takes seconds"
        yield Choice("train.augment.crop_scale", [1.0, 1.0], why)
        yield Choice("train.augment.mask_probability", 0.0, why)
        yield Choice("train.image_dropout", 0.5, "few pairs are soon learned by heart; on 1,247 it brought 26 of RSUM")
    yield from _valid(data, steps)


def _batch_size(pairs: int) -> Choice:
    """About a 32nd of the pairs within bounds, as a power of two; never more than half of the pairs, but at least 2."""
    share, half = pairs // 32, _power_of_two(max(2, pairs // 2))
    batch = min(_power_of_two(min(_PAPERS_BATCH, max(_LEAST_BATCH, share))), half)
    if batch < _LEAST_BATCH:
        why = (
            f"no more than half of {pairs:,} pairs, so that an epoch has two steps"
            if pairs > 3
            else "the least with a negative"
        )
    elif share < _LEAST_BATCH:
        why = f"{_LEAST_BATCH} at least, for enough negatives; a 32nd of {pairs:,} pairs is {share:,}"
    elif share > _PAPERS_BATCH:
        why = f"the paper's, and no more; a 32nd of {pairs:,} pairs is {share:,}"
    else:
        why = f"a 32nd of {pairs:,} pairs is {share:,}; rounded down to a power of two"
    return Choice("train.batch_size", batch, why)


def _epochs(pairs: int, batch: int, towers: Towers | None) -> Choice:
    """As many as give the steps that towers of this kind want, from the paper's 20 to 60."""
    wanted = _STEPS_FROM_WEIGHTS if towers else _STEPS_FROM_SCRATCH
    needed = math.ceil(wanted * batch / pairs)
    epochs = min(_MOST_EPOCHS, max(_PAPERS_EPOCHS, needed))
    steps = f"{count_steps(epochs, pairs, batch):,} steps"
    if needed > _MOST_EPOCHS:
        why = f"{steps}, fewer than the {wanted:,} aimed at: {_MOST_EPOCHS} epochs at most; more pairs would help"
    elif needed < _PAPERS_EPOCHS:
        why = f"the paper's {_PAPERS_EPOCHS} epochs: {steps}, and {wanted:,} at least are aimed at"
    else:
        why = f"{steps}, and {wanted:,} at least are aimed at"
    return Choice("train.epochs", float(epochs), why)


def _warmup(steps: int) -> Choice:
    least, most, fraction = _PAPERS_WARMUP, 0.1, 50 / steps
    warmup = round(min(most, max(least, fraction)), 3)
    why = f"{round(warmup * steps):,} of {steps:,} steps"
    if fraction <= least:
        why += "; the paper's fraction"
    elif fraction > most:
        why += "; a tenth at most"
    return Choice("train.warmup_fraction", warmup, why)


def _valid(data: Survey, steps: int) -> Iterator[Choice]:
    valid = sum(data.valid.values())
    if not valid:
        yield Choice("train.valid_checks", 0, "no source has validation pairs")
        return
    checks = min(20, max(2, steps // 50))
    yield Choice("train.valid_checks", checks, f"a score about every {max(1, steps // checks):,} steps")
    yield Choice("train.valid_pairs", min(300, valid), f"of {valid:,} validation pairs")


def _limited(value: int, least: int, most: int) -> str:
    """Say that a value is one of its limits; nothing where it lies between."""
    return f"; {least:,} at least" if value == least else f"; {most:,} at most" if value == most else ""


def _sampling(data: Survey, batch: int) -> Choice:
    if len(data.train) == 1:
        return Choice("train.sampling", "shuffled", "there is one source")
    if min(data.train.values()) < 4 * batch:
        return Choice("train.sampling", "shuffled", f"a source has fewer than 4 batches of {batch} pairs")
    return Choice("train.sampling", "debiased", f"each of {len(data.train)} sources has 4 batches or more; the paper's")


def _lr(batch: int, fine: bool) -> float:
    """Scale with the square root of the batch, as AdamW's steps want; the paper uses one rate from 1024 upwards."""
    reference = _PAPERS_LR * math.sqrt(min(batch, 1024) / 1024) if fine else 1e-3 * math.sqrt(min(batch, 1024) / 128)
    return float(f"{reference:.2g}")


def _lr_reason(batch: int, fine: bool) -> str:
    if fine:
        return f"the paper's 1e-4 at 1024 and more, times the root of {batch}/1024" if batch < 1024 else "the paper's"
    return f"1e-3 at a batch of 128 where weights are random, times the root of {min(batch, 1024)}/128"


def _power_of_two(most: int) -> int:
    return 1 << (most.bit_length() - 1)
