"""Embed a query with NumPy alone, where the text tower is of a family of `numpy_families`.

Importing torch and transformers takes seconds, embedding some words a few milliseconds.
`zerovl.model.text_encoder.QueryEncoder` is the reference, reads all other families, and says what is wrong with a
bundle.

Shapes: `N` captions, `D` embedding width, `L` tokens, `w` width of the tower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from zerovl.bundle_files import WEIGHTS
from zerovl.model.architecture import Architecture, load_architecture
from zerovl.model.digest import model_digest
from zerovl.model.numpy_layers import Floats
from zerovl.model.numpy_towers import NumpyTextTower, numpy_text_tower
from zerovl.model.text import CaptionTokenizer, Ids, load_tokenizer

_TOWER = "text_tower."
_PROJECTION = "text_projection.weight"
_OTHER_HALF = "image_tower."
_READABLE = {"F64", "F32", "F16", "I64", "I32", "U8", "BOOL"}  # NumPy has no bfloat16


class NumpyQueryEncoder:
    """Embeds captions one by one as the whole model does, to rounding: L2-normalised float32."""

    def __init__(
        self,
        tower: NumpyTextTower,
        pooling: str,
        tokenizer: CaptionTokenizer,
        weights: Mapping[str, Floats],
        digest: str,
    ) -> None:
        self.tokenizer = tokenizer
        self.digest = digest  # of the whole model, as `Encoder.digest`
        self._tower = tower
        self._pooling = pooling
        self._tower_weights = {
            name.removeprefix(_TOWER): array for name, array in weights.items() if name.startswith(_TOWER)
        }
        self._projection = weights[_PROJECTION]  # (D, w)

    @classmethod
    def load(cls, folder: Path | str, digest: str | None = None) -> Self | None:
        """Load a bundle's text half; None where its tower is not one that is computed here, or anything is unusual.

        `digest` is that of the whole model where it is known; otherwise the image tower is read for it, too. Raises
        `ZeroVLError` where the folder is not a bundle, or its tokenizer is damaged.
        """
        folder = Path(folder)
        architecture = load_architecture(folder)
        tower = numpy_text_tower(architecture)
        if tower is None:
            return None
        tokenizer = load_tokenizer(folder, architecture)
        weights = _read(folder / WEIGHTS, _is_own if digest is not None else _is_any)
        own = {name: array for name, array in weights.items() if _is_own(name)}
        if {name: array.shape for name, array in own.items()} != _shapes(architecture, tower, own):
            return None
        if digest is None:
            digest = model_digest(architecture, tokenizer, weights, _in_bytes)
        widened = {name: _widened(array) for name, array in own.items()}
        return cls(tower, architecture.pooling, tokenizer, widened, digest)

    def encode_text(self, captions: Sequence[str]) -> Floats:
        """Embed captions; (N, D). Longer ones are cut at the model's `max_tokens`."""
        return np.stack([self._embed(self.tokenizer([caption])[0][0]) for caption in captions])

    def _embed(self, ids: Ids) -> Floats:
        """Turn the token ids of one caption (L,), none of them padding, into its embedding (D,)."""
        hidden = self._tower.hidden(self._tower_weights, ids)
        features = self._projection @ _POOLS[self._pooling](hidden)
        embedding: Floats = features / (np.linalg.norm(features) + np.float32(1e-8))
        return embedding


# By the names of zerovl/model/pooling.py, of one row without padding, or of one that its family fills: (L, w) -> (w,).
_POOLS: dict[str, Callable[[Floats], Floats]] = {
    "first": lambda hidden: hidden[0],
    "mean": lambda hidden: hidden.mean(0),
    "last": lambda hidden: hidden[-1],
    "end": lambda hidden: hidden[-1],
}


def _is_own(name: str) -> bool:
    return not name.startswith(_OTHER_HALF)


def _is_any(name: str) -> bool:
    return True


def _read(path: Path, is_wanted: Callable[[str], bool]) -> dict[str, npt.NDArray[Any]]:
    """Return the wanted tensors of a safetensors file by name; none where one cannot be read with NumPy."""
    try:
        with safe_open(path, framework="np") as file:
            wanted = [name for name in file.keys() if is_wanted(name)]  # noqa: SIM118
            if any(file.get_slice(name).get_dtype() not in _READABLE for name in wanted):
                return {}
            return {name: file.get_tensor(name) for name in wanted}
    except (OSError, SafetensorError):
        return {}


def _shapes(
    architecture: Architecture, tower: NumpyTextTower, found: Mapping[str, npt.NDArray[Any]]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of the text half by name; what is not computed with is as it was found."""
    rest = ["image_projection.weight", "temperature", *(["logit_bias"] if architecture.logit_bias is not None else [])]
    return {
        **{_TOWER + name: shape for name, shape in tower.shapes().items()},
        _PROJECTION: (architecture.embed_dim, tower.config["hidden_size"]),
        **{name: found[name].shape if name in found else () for name in rest},
    }


def _widened(array: npt.NDArray[Any]) -> Floats:
    return array.astype(np.float32, copy=False)


def _in_bytes(array: npt.NDArray[Any]) -> memoryview:
    values = _widened(array) if array.dtype == np.float16 else array
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
