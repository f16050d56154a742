"""What a model is made of, complete enough to rebuild it without a network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from zerovl.errors import ZeroVLError

FORMAT = "zerovl-1"


@dataclass(frozen=True)
class Architecture:
    """Towers, projections and preprocessing; `config.json` of a bundle holds just this."""

    image_tower: str  # timm model name
    image_options: dict[str, Any]  # keyword arguments of timm.create_model
    text_config: dict[str, Any]  # the Hugging Face config of the text tower, whole
    embed_dim: int
    temperature: float  # start value; the trained one is a weight
    learn_temperature: bool
    image_size: int
    resize_size: int  # evaluation resizes both sides to this, then crops the centre
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    max_tokens: int

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any], origin: str) -> Architecture:
        """Raises `ZeroVLError` where `values` is not what `to_json` gives; `origin` names the file."""
        values = dict(values)
        if (found := values.pop("format", None)) != FORMAT:
            raise ZeroVLError(f"{origin}: format {found!r}, expected {FORMAT!r}; is this a ZeroVL bundle?")
        expected = set(cls.__dataclass_fields__)
        if set(values) != expected:
            missing, unknown = sorted(expected - set(values)), sorted(set(values) - expected)
            raise ZeroVLError(f"{origin}: missing keys {missing}, unknown keys {unknown}; fetch the bundle again")
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
