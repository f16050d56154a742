"""Settings that came after fingerprints, with what runs before them had: a run with just that is what it was.

A run's description leaves such a setting out, so whoever reads one takes the value from here.
"""

from __future__ import annotations

from typing import Any

from zerovl.params import FineTuningParams, StreamingParams, as_dict

_TEMPERATURE_LR_SCALE = "temperature_lr_scale"  # came later than the rest of its section
LATER: dict[str, dict[str, Any]] = {
    "model": {
        "image_tower.batch_norm": "train",
        "image_tower.weights": "",
        "interpolation": "bilinear",
        "resize_mode": "squash",
        "text_tower.pooling": "first",
    },
    "train": {
        "equal_pairs": "negatives",
        "pair_order": "drawn",
        "shuffle": "global",
        "block_shards": 32,
        "epoch_of": "pictures",
        f"fine_tuning.{_TEMPERATURE_LR_SCALE}": 1.0,
        "fine_tuning": {
            key: value for key, value in as_dict(FineTuningParams()).items() if key != _TEMPERATURE_LR_SCALE
        },
        "ema_decay": 0.0,
        "image_dropout": 0.0,
        "image_size": 0,
        "reading": "indexed",
        "residual_stream": "float32",
        "streaming": as_dict(StreamingParams()),
        "augment.flip_probability": 0.0,
        "augment.decode": "exact",
        "text_dropout": 0.0,
    },
    # Of streamed pairs alone; what prepared ones were made with is in the digest of their data.
    "prepare": {"max_caption_bytes": 10_000, "max_pixels": 50_000_000},
}

# What a file from before a section means, where that is not the default of today.
WITHOUT_SECTION: dict[str, dict[str, Any]] = {"prepare.filters": {"min_side": 0, "leaks": "keep"}}
