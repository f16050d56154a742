"""What a model is made of, complete enough to rebuild it without a network.

The description grows without making older ones unreadable. A field that comes later has a default, which is what
models without it were built with, and a model that has just these defaults is written as it always was. A description
that older code would misread has a newer format, and says which zerovl reads it.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from zerovl.bundle_files import CONFIG
from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.version import __version__

FORMAT = "zerovl-1"
_FORMAT_KEY, _NEEDS_KEY = "format", "needs_zerovl"
_PLACE = "_name_or_path"  # of a config of transformers: the name or folder that it was read by


@dataclass(frozen=True)
class Architecture:
    """Towers, projections and preprocessing; `config.json` of a bundle holds just this."""

    image_tower: str  # a name of timm, or KIND:NAME of another library
    image_options: dict[str, Any]  # keyword arguments of timm.create_model
    text_config: dict[str, Any]  # the Hugging Face config of the text tower, whole
    embed_dim: int
    temperature: float  # start value; the trained one is a weight
    learn_temperature: bool
    image_size: int
    resize_size: int  # evaluation resizes to this as resize_mode says (by default both sides), then crops
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    max_tokens: int
    pooling: str = "first"  # of the text tower, a name of zerovl/model/pooling.py
    logit_bias: float | None = None  # start value of a learned bias of the logits; None: the model has none
    resize_mode: str = "squash"  # how evaluation resizes, a key of RESIZE_MODES in zerovl/model/preprocess.py
    interpolation: str = "bilinear"  # of that resize; what comes from other libraries has others

    def to_json(self) -> dict[str, Any]:
        """Return what `config.json` holds; fields that were added later are there where they are not their default."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {_FORMAT_KEY: FORMAT} | {
            field.name: values[field.name]
            for field in fields(self)
            if not _is_later(field) or values[field.name] != _default(field)
        }

    @classmethod
    def from_json(cls, values: Any, origin: str) -> Self:
        """Return the architecture that `to_json` described, by this code or an older one.

        Raises `ZeroVLError` for a newer format, keys that are missing or unknown, and values of another kind; `origin`
        names the file.
        """
        if not isinstance(values, dict):
            raise ZeroVLError(f"{origin}: holds {type(values).__name__}, expected a mapping; fetch the bundle again")
        values = dict(values)
        needs = values.pop(_NEEDS_KEY, None)
        if (found := values.pop(_FORMAT_KEY, None)) != FORMAT:
            raise ZeroVLError(f"{origin}: {_wrong_format(found, needs)}")
        known = {field.name for field in fields(cls)}
        missing = sorted(field.name for field in fields(cls) if field.name not in values and not _is_later(field))
        if unknown := sorted(set(values) - known):
            raise ZeroVLError(
                f"{origin}: keys {unknown} are not known to this zerovl ({__version__}); they come from a newer one: "
                f"install {_wanted(needs)}"
            )
        if missing:
            raise ZeroVLError(f"{origin}: missing keys {missing}; fetch the bundle again")
        try:
            TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ZeroVLError(
                f"{origin}: {key}: {first['input']!r} is not accepted ({first['msg']}); fetch the bundle again"
            ) from None
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def without_place(text_config: dict[str, Any]) -> dict[str, Any]:
    """Return a text tower's config without where it was read from: the same model from elsewhere is the same."""
    return {name: value for name, value in text_config.items() if name != _PLACE}


def names_place(text_config: dict[str, Any]) -> bool:
    """Whether a text tower's config says where it was read from, as in models that were made before it was left out."""
    return bool(text_config.get(_PLACE))


def load_architecture(folder: Path) -> Architecture:
    """Return what a bundle's model is made of; raises `ZeroVLError` where the folder is not a bundle."""
    if not (folder / CONFIG).is_file():
        raise ZeroVLError(f"{folder}: no {CONFIG} in it, so it is not a model; name a bundle's folder or train one")
    return Architecture.from_json(read_json(folder / CONFIG), str(folder / CONFIG))


def _is_later(field: Field[Any]) -> bool:
    """Whether a field was added after the format's first version: those have a default."""
    return field.default is not MISSING or field.default_factory is not MISSING


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _wrong_format(found: object, needs: object) -> str:
    if isinstance(found, str) and found.startswith("zerovl-"):
        own = f"this zerovl ({__version__}) reads {FORMAT!r}"
        return f"format {found!r} is of a newer zerovl, {own}; install {_wanted(needs)}"
    return f"format {found!r}, expected {FORMAT!r}; is this a ZeroVL bundle?"


def _wanted(needs: object) -> str:
    return f"zerovl {needs} or newer" if isinstance(needs, str) else "the newest zerovl"
