"""The section `train`: what shapes the weights."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from zerovl.params.section import Section
from zerovl.params.streaming import StreamingParams


class AugmentParams(Section):
    """What happens to a pair before it is trained on."""

    crop_scale: tuple[float, float] = Field((0.8, 1.0), strict=False, description="area of the random crop")
    flip_probability: float = Field(
        0.0, ge=0, le=1, strict=False, description="of a picture to be mirrored, left for right (the paper: 0)"
    )
    auto_augment: bool = Field(
        False, description="AutoAugment, ImageNet policy (off here: it changes the colours that captions name)"
    )
    mask_probability: float = Field(0.05, ge=0, lt=1, description="of a token to be masked, replaced or dropped")
    decode: Literal["exact", "fast"] = Field(
        "exact",
        description="exact: all pixels of a picture, then the crop is resized; fast: a JPEG is decoded at a half or "
        "less of its size where its crop has pixels to spare, which blurs a little",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale {[low, high]} must be 0 < low <= high <= 1")
        return self


class FineTuningParams(Section):
    """How far each part of a model may move from the weights that it starts from; the defaults are the paper's."""

    image_lr_scale: float = Field(1.0, gt=0, strict=False, description="the image tower's share of lr")
    text_lr_scale: float = Field(1.0, gt=0, strict=False, description="the text tower's share of lr")
    projection_lr_scale: float = Field(
        1.0, gt=0, strict=False, description="share of lr of the projections and the temperature"
    )
    temperature_lr_scale: float = Field(
        1.0, gt=0, strict=False, description="share of the projections' lr that the temperature learns with"
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, strict=False, description="lr of a tower's block: times this for each step from its top"
    )
    freeze_image_blocks: int = Field(
        0, ge=0, description="first blocks of the image tower that do not learn, with its stem; 0: none"
    )
    freeze_text_blocks: int = Field(
        0, ge=0, description="first blocks of the text tower that do not learn, with its embeddings; 0: none"
    )
    decay_biases: bool = Field(
        True, description="weight decay also on biases, norms and the temperature, as the paper has it"
    )


def _micro_batch(value: object) -> object:
    if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{value!r} is not accepted: give a whole number of pairs from 1, or auto")
    return value


MicroBatch = Annotated[int | Literal["auto"], PlainValidator(_micro_batch)]


class TrainParams(Section):
    """What shapes the weights; a change of it is another run."""

    init_from: str = Field(
        "",
        description="weights to start from, with their tokenizer: a bundle's folder, or RUN@STEP of runs/; empty: the "
        "towers' own",
    )
    continue_from: str = Field(
        "",
        description="RUN@STEP of runs/: go on from there with these settings, optimiser included; empty: none",
    )
    reading: Literal["indexed", "streaming"] = Field(
        "indexed",
        description="indexed: the pairs that prepare has packed, any of them at any time; streaming: tars as they lie, "
        "from front to back (streaming.sources)",
    )
    sampling: Literal["debiased", "shuffled", "sequential"] = Field(
        "debiased", description="debiased: each global batch from one source; shuffled: from all; sequential: in order"
    )
    shuffle: Literal["global", "blocks"] = Field(
        "global",
        description="of an epoch; global: any pair may come at any time; blocks: shards in a drawn order, shuffled in "
        "groups of block_shards, so that shards on S3 are read one after the other",
    )
    block_shards: int = Field(32, ge=1, description="shards that are shuffled as one (shuffle: blocks)")
    loss: Literal["softmax", "sigmoid"] = Field(
        "softmax",
        description="softmax: the paper's, each pair against all others of the global batch, both ways; sigmoid: "
        "SigLIP's, each pair of the batch a yes or no of its own, with a learned bias",
    )
    equal_pairs: Literal["negatives", "positives"] = Field(
        "negatives",
        description="pairs of a batch with an equal caption or an equal picture: negatives of each other, as the paper "
        "has it, or positives",
    )
    pair_order: Literal["drawn", "caption_length"] = Field(
        "drawn",
        description="of a rank's batch before it is cut into micro-batches: as drawn, or from the shortest caption to "
        "the longest, which spares the text tower most of the padding",
    )
    step: Literal["plain", "decoupled"] = Field(
        "decoupled",
        description="plain: one pass, memory grows with the batch; decoupled: exact DGA, memory of a micro-batch",
    )
    batch_size: int = Field(128, ge=2, description="global batch over all ranks")
    micro_batch: MicroBatch = Field(
        64, description="pairs a rank pushes through the towers at once (decoupled); auto: found when a run begins"
    )
    freeze: list[Literal["image", "text"]] = Field(
        default=[], description="towers that do not learn; both: the projections alone do"
    )
    epochs: float = Field(8.0, gt=0, strict=False, description="passes over the training pairs")
    epoch_of: Literal["pictures", "captions"] = Field(
        "pictures",
        description="what a pass visits once; pictures: each with one of its captions, drawn; captions: each with its "
        "picture, as the paper's code has it",
    )
    lr: float = Field(1e-3, gt=0, strict=False, description="peak learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="of AdamW")
    beta2: float = Field(0.98, ge=0, lt=1, description="of AdamW")
    eps: float = Field(1e-6, gt=0, description="of AdamW")
    weight_decay: float = Field(0.001, ge=0, strict=False, description="on all parameters")
    clip_norm: float = Field(0.0, ge=0, strict=False, description="largest norm of the whole gradient; 0: no clipping")
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        strict=False,
        description="of a moving average of the weights, which is scored and written in their place; 0: no average",
    )
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of the steps with linear warm-up from 0")
    final_lr_fraction: float = Field(0.1, ge=0, le=1, description="half a cosine ends at this share of lr")
    mixup: Literal["none", "coin", "image", "text"] = Field(
        "coin", description="coin: each step mixes images or text features by a fair coin"
    )
    mixup_alpha: float = Field(0.1, gt=0, description="share of the mix ~ Beta(alpha, alpha), one draw a step")
    image_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        strict=False,
        description="share of what the image tower gives that is zeroed before the projection; helps with few pairs",
    )
    text_dropout: float = Field(0.0, ge=0, lt=1, strict=False, description="the same of the text tower")
    precision: Literal["float32", "bf16", "fp16"] = Field("float32", description="of the towers' autocast")
    residual_stream: Literal["float32", "low"] = Field(
        "float32",
        description="what the towers' blocks hand on under bf16 or fp16: float32, or low: in that precision too, which "
        "halves most of what a step reads and writes",
    )
    image_size: int = Field(
        0, ge=0, description="side of the pictures in training; 0: model.image_size, which evaluation and use see"
    )
    augment: AugmentParams = AugmentParams()
    fine_tuning: FineTuningParams = FineTuningParams()
    streaming: StreamingParams = StreamingParams()
    seed: int = Field(0, ge=0, description="of initialisation, order, augmentation, dropout and mixup")
    valid_checks: int = Field(8, ge=0, description="times that a sample of the validation pairs is scored on the way")
    valid_pairs: int = Field(300, ge=1, description="validation pairs in that sample, over all sources")
    valid_set_pictures: int = Field(
        0, ge=0, description="pictures of each set in evaluate.classification that are classified then too; 0: none"
    )

    @property
    def streamed(self) -> list[str]:
        """Names of the sources that are streamed, sorted; none where all pairs are prepared."""
        return sorted(its.name for its in self.streaming.sources) if self.reading == "streaming" else []

    @model_validator(mode="after")
    def _streams_have_no_index(self) -> Self:
        if self.reading != "streaming":
            return self
        if not self.streaming.sources:
            raise ValueError(
                "reading streaming has nothing to read: name tars in streaming.sources, as [{name: web, urls: "
                '["s3://bucket/web/{00000..00999}.tar"]}], or set reading to indexed'
            )
        for name, value, instead, why in (
            ("sampling", "sequential", "debiased or shuffled", "tars are read by many processes at once"),
            ("shuffle", "blocks", "global", "streaming.shuffle_buffer shuffles streamed tars"),
            ("epoch_of", "captions", "pictures", "which captions there are is known once a tar was read"),
        ):
            if getattr(self, name) == value:
                raise ValueError(
                    f"reading streaming and {name} {value} do not go together: {why}; set {name} to {instead}, or "
                    "reading to indexed"
                )
        return self

    @model_validator(mode="after")
    def _stream_has_a_precision(self) -> Self:
        if self.residual_stream == "low" and self.precision == "float32":
            raise ValueError(
                "residual_stream low and precision float32 do not go together: there is no lower precision to keep the "
                "stream in; set precision to bf16 or fp16, or residual_stream to float32"
            )
        return self

    @model_validator(mode="after")
    def _starts_once(self) -> Self:
        if self.init_from and self.continue_from:
            raise ValueError(
                f"init_from {self.init_from} and continue_from {self.continue_from} both name weights to start from; "
                "set one of them to empty"
            )
        return self
