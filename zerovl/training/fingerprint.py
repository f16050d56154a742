"""Which run is this: parameters, data and code that shape the weights, as one digest.

The same fingerprint resumes, anything else starts anew. What shapes the weights only by rounding
(number of ranks, kept graphs, compilation, sharding) or not at all (loader workers, when checkpoints
are written) is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zerovl
from zerovl.data.manifest import Manifest
from zerovl.files import sha256_file, sha256_json
from zerovl.model.text import FILES as TOKENIZER_FILES
from zerovl.params import Params, as_dict

_NOT_SHAPING = frozenset(
    {
        "ranks",
        "kept_graphs",
        "activation_budget",
        "activation_checkpointing",
        "compile",
        "channels_last",
        "shard_model",
        "restarts",
        "watchdog_minutes",
        "keep_every",
        "loader_workers",
        "checkpoint_steps",
        "checkpoint_minutes",
        "keep_checkpoints",
        "valid_checks",
        "valid_pairs",
    }
)
_CODE = (
    "data/augment.py",
    "data/captions.py",
    "data/loader.py",
    "data/manifest.py",
    "data/randomness.py",
    "data/sampling.py",
    "data/shards.py",
    "images.py",
    "model/architecture.py",
    "model/dual_encoder.py",
    "model/text.py",
    "model/towers.py",
    "objective/collectives.py",
    "objective/mixup.py",
    "objective/targets.py",
    "objective/tiled.py",
    "objective/tiles.py",
    "objective/triton_kernels.py",
    "objective/triton_tiles.py",
    "training/batch_statistics.py",
    "training/checkpoints.py",
    "training/clipping.py",
    "training/forward.py",
    "training/gradients.py",
    "training/loop.py",
    "training/optimiser.py",
    "training/options.py",
    "training/ranks.py",
    "training/run.py",
    "training/sharding.py",
    "training/state.py",
    "training/state_files.py",
    "training/steps.py",
)


def describe(params: Params, manifest: Manifest, tokenizer: Path, start: Path | None) -> dict[str, Any]:
    """All that the fingerprint covers, readable; kept beside the run so that two runs can be compared."""
    package = Path(zerovl.__file__).parent
    train = {key: value for key, value in as_dict(params.train).items() if key not in _NOT_SHAPING}
    return {
        "model": as_dict(params.model),
        "train": train,
        "data": manifest.digest,
        "tokenizer": sha256_json(
            {name: sha256_file(tokenizer / name) for name in TOKENIZER_FILES if (tokenizer / name).is_file()}
        ),
        "start": sha256_file(start / "model.safetensors") if start else None,
        "code": {name: sha256_file(package / name) for name in _CODE},
    }


def digest(description: dict[str, Any]) -> str:
    return sha256_json(description)[:16]
