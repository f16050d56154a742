"""The section `model`: two towers and what is between them."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from zerovl.params.section import Section


class ImageTowerParams(Section):
    """The tower of pictures."""

    name: str = Field(
        "resnet18", description="a name of timm, of a hub (hf-hub:OWNER/MODEL), or a copy of one (local-dir:FOLDER)"
    )
    pretrained: bool = Field(False, description="start from published weights (fetch once: zerovl fetch-weights)")
    weights: str = Field(
        "", description="file of weights to start from instead, by timm's names (.safetensors, .pth, .pt, .bin)"
    )
    batch_norm: Literal["train", "frozen"] = Field(
        "train", description="statistics of BatchNorm: of each micro-batch, or frozen as they were published"
    )
    options: dict[str, Any] = Field(
        default={
            "layers": [1, 1, 1, 1],
            "channels": [64, 64, 96, 192],
            "norm_layer": "groupnorm",
            "zero_init_last": False,
        },
        description="keyword arguments of timm.create_model",
    )


class TextTowerParams(Section):
    """The tower of captions."""

    name: str = Field("", description="Hugging Face name or folder; empty: a BERT from `config`")
    pretrained: bool = Field(False, description="start from published weights (fetch once: zerovl fetch-weights)")
    config: dict[str, Any] = Field(
        default={
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        description="fields of transformers.BertConfig for a tower from scratch",
    )
    pooling: Literal["auto", "first", "mean", "last"] = Field(
        "auto",
        description="what becomes of the tokens: the first, the last, the mean; auto: as the tower was trained, the "
        "mean for one from scratch",
    )


class ModelParams(Section):
    """What the model is made of, and what it sees."""

    image_tower: ImageTowerParams = ImageTowerParams()
    text_tower: TextTowerParams = TextTowerParams()
    embed_dim: int = Field(128, ge=2, description="width of the shared space")
    temperature: float = Field(0.07, ge=0.001, le=0.5, description="start value, 0.001 to 0.5")
    learn_temperature: bool = Field(True, description="learn it, clamped to [0.001, 0.5]; else it is constant")
    image_size: int = Field(48, ge=8, description="side of the square that the image tower sees")
    resize_size: int = Field(54, ge=8, description="evaluation resizes to this, then crops the centre")
    resize_mode: Literal["squash", "shortest", "shortest-rounded"] = Field(
        "squash", description="of evaluation: both sides, or the shorter one, as transformers or as open_clip crops it"
    )
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest", "box", "hamming"] = Field(
        "bilinear", description="of evaluation's resize"
    )
    mean: tuple[float, float, float] = Field((0.485, 0.456, 0.406), strict=False, description="of the input, RGB")
    std: tuple[float, float, float] = Field((0.229, 0.224, 0.225), strict=False, description="of the input, RGB")
    max_tokens: int = Field(25, ge=3, description="longer captions are cut")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.resize_size < self.image_size:
            raise ValueError(
                f"resize_size {self.resize_size} is smaller than image_size {self.image_size}; "
                f"set resize_size to {self.image_size} or more"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std {list(self.std)} must be above 0; ImageNet's is [0.229, 0.224, 0.225]")
        if not self.text_tower.name and not self.text_tower.config:
            raise ValueError("text_tower has neither a name nor a config; give one of them")
        if self.text_tower.name and self.text_tower.config:
            raise ValueError("text_tower has both a name and a config; set config to {} or name to empty")
        if self.image_tower.pretrained and self.image_tower.weights:
            raise ValueError(
                f"image_tower.pretrained and image_tower.weights {self.image_tower.weights} both name weights to start "
                "from; set one of them to false or empty"
            )
        if self.text_tower.pretrained and not self.text_tower.name:
            raise ValueError("text_tower.pretrained needs text_tower.name; name the published weights")
        return self
