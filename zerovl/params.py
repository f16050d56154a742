"""The sections of `params.yaml`, frozen and typed; the defaults below are the demo.

Every field has a sentence that says what it does; `params_file` writes those sentences into `params.yaml` as
comments, so the file explains itself.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator


class Section(BaseModel):
    """A section of the file: frozen, with strict types, and without room for an unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DemoParams(Section):
    """What the demo draws."""

    train_pairs: int = Field(1600, ge=10, description="training pairs a source")
    valid_pairs: int = Field(200, ge=10, description="validation pairs a source, of combinations never trained on")
    side: int = Field(64, ge=32, description="width and height of a picture in pixels")
    seed: int = Field(0, ge=0, description="the same seed draws the same bytes")


def _at_home(path: str) -> str:
    """Return a path that begins with `~` written out: DVC, which watches `data.raw`, knows no `~`."""
    return os.path.expanduser(path)


class SourceParams(Section):
    """One source of pairs, where it is not simply a folder of `data.raw`."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    path: Annotated[str, AfterValidator(_at_home)] = Field(
        description="folder, or s3://bucket/prefix of WebDataset shards"
    )
    layout: Literal["auto", "zerovl", "karpathy", "webdataset"] = "auto"
    splits: list[Literal["train", "valid"]] = Field(default=["train", "valid"])
    evaluation_split: Literal["test", "val"] = "test"
    txt_captions: Literal["auto", "one", "lines"] = Field(
        "auto",
        description="a .txt in tars: one caption, or one a line; auto: lines where dataset_type.txt says retrieval",
    )
    equal_pictures: Literal["separate", "together"] = Field(
        "separate", description="together: pictures of equal bytes are one, with the captions of all"
    )


class DataParams(Section):
    """Which sources there are."""

    raw: Annotated[str, AfterValidator(_at_home)] = Field(
        "data/demo/raw", description="folder whose sub-folders are the sources (layouts: data/README.md)"
    )
    sources: list[SourceParams] = Field(
        default=[],
        description="sources by name instead: [{name, path, layout, splits, evaluation_split, txt_captions, "
        "equal_pictures}, ...]",
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"source names must differ, found {names}; rename one of them")
        return self


class PrepareParams(Section):
    """How sources are packed into shards."""

    shard_samples: int = Field(1000, ge=1, description="input samples a shard")
    max_side: int = Field(0, ge=0, description="larger pictures are reduced to this longest side; 0 keeps all bytes")
    max_pixels: int = Field(50_000_000, ge=1, description="pictures with more pixels are quarantined unread")
    max_caption_bytes: int = Field(10_000, ge=1, description="longer captions are quarantined")
    tokenizer_vocab: int = Field(
        600, ge=0, description="size of a WordPiece vocabulary learned from the captions; 0: the text tower's own"
    )


class ValidateParams(Section):
    """Bounds of the rules over the manifest; a hard one stops the pipeline, a soft one warns."""

    max_broken_fraction: float = Field(0.01, ge=0, le=1, description="hard: share of quarantined inputs")
    max_duplicate_fraction: float = Field(0.1, ge=0, le=1, description="soft: share of pictures seen before (sha256)")
    min_caption_words: int = Field(1, ge=1, description="soft: words in a caption")
    max_caption_words: int = Field(200, ge=1, description="soft: words in a caption")
    min_side: int = Field(16, ge=1, description="hard: shorter side of a picture in pixels")
    max_aspect: float = Field(8.0, ge=1, description="soft: longer side over shorter side")
    max_leaked: int = Field(0, ge=0, description="hard: valid pictures that are in train too (sha256)")
    max_near_leaked_fraction: float = Field(
        0.2, ge=0, le=1, description="soft: share of valid pictures within `near_distance` of a train picture"
    )
    near_distance: int = Field(2, ge=0, le=16, description="bits of the 64-bit perceptual hash that may differ")
    sample_rows: int = Field(20_000, ge=100, description="rows that Great Expectations looks at one by one")
    max_drift: float = Field(
        0.3, ge=0, description="soft: relative change of rows, caption length and picture size since the last verdict"
    )
    seed: int = Field(0, ge=0, description="draws the sample of rows")


class ImageTowerParams(Section):
    """The tower of pictures."""

    name: str = Field("resnet18", description="timm model name")
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
    resize_size: int = Field(54, ge=8, description="evaluation resizes both sides to this, then crops the centre")
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
            raise ValueError("text_tower has both a name and a config; set one of them to empty")
        if self.image_tower.pretrained and self.image_tower.weights:
            raise ValueError(
                f"image_tower.pretrained and image_tower.weights {self.image_tower.weights} both name weights to start "
                "from; set one of them to false or empty"
            )
        if self.text_tower.pretrained and not self.text_tower.name:
            raise ValueError("text_tower.pretrained needs text_tower.name; name the published weights")
        return self


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
    sampling: Literal["debiased", "shuffled", "sequential"] = Field(
        "debiased", description="debiased: each global batch from one source; shuffled: from all; sequential: in order"
    )
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
    image_size: int = Field(
        0, ge=0, description="side of the pictures in training; 0: model.image_size, which evaluation and use see"
    )
    augment: AugmentParams = AugmentParams()
    fine_tuning: FineTuningParams = FineTuningParams()
    seed: int = Field(0, ge=0, description="of initialisation, order, augmentation, dropout and mixup")
    valid_checks: int = Field(8, ge=0, description="times that a sample of the validation pairs is scored on the way")
    valid_pairs: int = Field(300, ge=1, description="validation pairs in that sample, over all sources")

    @model_validator(mode="after")
    def _starts_once(self) -> Self:
        if self.init_from and self.continue_from:
            raise ValueError(
                f"init_from {self.init_from} and continue_from {self.continue_from} both name weights to start from; "
                "set one of them to empty"
            )
        return self


class MachineParams(Section):
    """How this machine does the work: nothing here changes what is learned, but by rounding. No stage depends on it."""

    ranks: int = Field(0, ge=0, description="processes; 0: one a GPU, or one on a machine without GPU")
    threads: int = Field(
        0,
        ge=0,
        description="of a rank's arithmetic on the CPU; 0: the machine's cores over its ranks (OMP_NUM_THREADS)",
    )
    loader_workers: int = Field(1, ge=0, description="loader processes a rank")
    cache_features: bool = Field(
        True,
        description="what a frozen tower makes of unaugmented pictures or captions is computed once, then read from "
        "runs/features/",
    )
    kept_graphs: int = Field(
        0, ge=0, description="micro-batches whose first pass keeps its graph and needs no second forward (decoupled)"
    )
    activation_budget: str = Field(
        "none",
        pattern=r"^(none|auto|\d+(\.\d+)?[KMG]iB)$",
        description="memory that sets kept_graphs instead: none, auto (what is free) or a size a rank, as 8GiB",
    )
    activation_checkpointing: bool = Field(
        False, description="the towers' blocks are computed again in the backward pass: less memory, more time"
    )
    compile: bool = Field(False, description="torch.compile for both towers: minutes at the start, faster steps")
    channels_last: bool = Field(False, description="memory layout of the image tower; helps convolutions")
    shard_model: bool = Field(
        False, description="FSDP2: weights and AdamW's moments split over the ranks instead of repeated"
    )
    checkpoint_steps: int = Field(100, ge=1, description="steps between checkpoints")
    checkpoint_minutes: float = Field(10.0, gt=0, strict=False, description="minutes between checkpoints, at most")
    keep_checkpoints: int = Field(2, ge=1, description="the newest ones that stay on disk")
    keep_every: int = Field(0, ge=0, description="every so many-th checkpoint stays on disk for good; 0: none")
    restarts: int = Field(
        3, ge=0, description="times that all ranks start again from the last checkpoint when one dies"
    )
    watchdog_minutes: float = Field(
        15.0, gt=0, strict=False, description="a rank that makes no progress for so long ends all ranks, with its name"
    )

    @model_validator(mode="after")
    def _kept_graphs_once(self) -> Self:
        if self.kept_graphs and self.activation_budget != "none":
            raise ValueError(
                f"kept_graphs {self.kept_graphs} and activation_budget {self.activation_budget} both say how many "
                "graphs to keep; set kept_graphs to 0 or activation_budget to none"
            )
        return self


TEMPLATE_SETS = ("auto", "name", "photo", "openai-imagenet-7", "openai-imagenet-80")


def _templates(value: object) -> object:
    if isinstance(value, str) and value in TEMPLATE_SETS:
        return value
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{value!r} is not accepted: give one of {', '.join(TEMPLATE_SETS)}, or a list of templates")
    if lacking := [one for one in value if "{}" not in one and "{c}" not in one]:
        raise ValueError(f"template {lacking[0]!r} has no place for the class; write {{}} where its name goes")
    return value


Templates = Annotated[str | list[str], PlainValidator(_templates)]


class ClassificationParams(Section):
    """A set of pictures with classes; `folder`, `csv` or `shards` says where it lies (docs/evaluation.md)."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="of its metrics, as in NAME.top1")
    folder: str = Field("", description="its sub-folders are the classes")
    csv: str = Field("", description="file with the columns image and class")
    shards: str = Field("", description="folder in CLIP_benchmark's layout: test/*.tar, classnames.txt")
    classnames: str = Field("", description="file of names, one a line in the order of the classes; empty: the set's")
    templates: Templates = Field("auto", description="what a class is called: a named list, or templates with {}")
    measures: list[Literal["zero_shot", "linear_probe"]] = Field(
        ["zero_shot"],
        min_length=1,
        description="by captions of the classes, by a linear layer on the image tower, or both",
    )

    @model_validator(mode="after")
    def _lies_in_one_place(self) -> Self:
        given = [key for key in ("folder", "csv", "shards") if getattr(self, key)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"{self.name} needs one of folder, csv and shards, found {found}; keep or give one")
        if self.name == "retrieval":
            raise ValueError("name retrieval is that of another evaluator; choose another one")
        return self


class EvaluateParams(Section):
    """How the model is scored, and what its report shows."""

    batch_size: int = Field(128, ge=1, description="pictures or captions encoded at once")
    chunk: int = Field(1024, ge=1, description="queries ranked at once; bounds the memory")
    bootstrap: int = Field(1000, ge=10, description="resamples of the 95% interval")
    gallery: int = Field(8, ge=0, description="queries shown in the report, a direction")
    sample: int = Field(
        16, ge=0, description="validation pairs that go with a release, to check it when an alias moves; 0: none"
    )
    seed: int = Field(0, ge=0, description="of the bootstrap, of the sample and of the untrained baseline")
    folds: int = Field(
        0,
        ge=0,
        description="pictures of a fold, within which retrieval is scored too; 1000: as COCO is reported; 0: no folds",
    )
    classification: list[ClassificationParams] = Field(
        default=[],
        description="sets of pictures with classes: [{name, folder | csv | shards, classnames, templates, "
        "measures}, ...] "
        "(docs/evaluation.md)",
    )

    @model_validator(mode="after")
    def _sets_differ(self) -> Self:
        names = [its.name for its in self.classification]
        if len(set(names)) != len(names):
            raise ValueError(f"names of classification must differ, found {names}; rename one of them")
        return self


def _min_rsum(value: object) -> object:
    if value == "above_chance":
        return value
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 600:
        raise ValueError(f"{value!r} is not accepted: give a number from 0 to 600, or above_chance")
    return float(value)


MinRsum = Annotated[float | Literal["above_chance"], PlainValidator(_min_rsum)]


class GateParams(Section):
    """What a candidate must reach to take the alias."""

    min_rsum: MinRsum = Field(
        "above_chance",
        description="RSUM, mean over sources, must reach this; above_chance: its 95% interval must lie above chance",
    )
    min_source_rsum: dict[str, Annotated[float, Field(ge=0, le=600, strict=False)]] = Field(
        default={}, description="RSUM that single sources must reach, as {SOURCE: RSUM}"
    )
    min_metrics: dict[
        Annotated[str, Field(pattern=r"^[^.@]+\.[^.@]+(@.+)?$")], Annotated[float, Field(strict=False)]
    ] = Field(
        default={},
        description="what others must reach, as {EVALUATOR.METRIC: VALUE} or {EVALUATOR.METRIC@SOURCE: VALUE}",
    )
    max_drop: float = Field(
        5.0,
        ge=0,
        strict=False,
        description="RSUM that a source or the mean may lose against the holder of the alias; more is refused where "
        "the 95% interval of the paired drop lies above 0",
    )
    difference: Literal["none", "not_worse", "better"] = Field(
        "not_worse",
        description="95% interval of the mean's paired difference to the holder: not_worse: it reaches 0 or more; "
        "better: it lies above 0",
    )


class RegisterParams(Section):
    """Where releases go, and which alias moves."""

    name: str = Field("zerovl", pattern=r"^[A-Za-z0-9_-]+$", description="of the model in the registry")
    store: str = Field("registry", description="folder or s3://bucket/prefix; endpoint and keys: environment")
    alias: str = Field(
        "production", pattern=r"^[A-Za-z0-9_-]*$", description="moved here if the gate passes; empty: none"
    )
    gate: GateParams = GateParams()


class Params(Section):
    """All sections of `params.yaml`."""

    demo: DemoParams = DemoParams()
    data: DataParams = DataParams()
    prepare: PrepareParams = PrepareParams()
    validate_: ValidateParams = Field(ValidateParams(), alias="validate")
    model: ModelParams = ModelParams()
    train: TrainParams = TrainParams()
    machine: MachineParams = MachineParams()
    evaluate: EvaluateParams = EvaluateParams()
    register_: RegisterParams = Field(RegisterParams(), alias="register")

    @model_validator(mode="after")
    def _train_fits_the_machine(self) -> Self:
        if problem := batch_problem(self, self.machine.ranks or 1):
            raise ValueError(problem)
        if self.train.micro_batch == "auto" and self.machine.shard_model:
            raise ValueError(
                "train.micro_batch auto and machine.shard_model true do not go together: where a trial runs out of "
                "memory on one rank the others would wait for it; set train.micro_batch to a number (`zerovl plan` "
                "suggests one)"
            )
        return self


def batch_problem(params: Params, ranks: int) -> str | None:
    """Return why the global batch does not divide over `ranks` and their micro-batches, with the fix; else None."""
    train = params.train
    micro = 1 if train.step == "plain" or train.micro_batch == "auto" else train.micro_batch
    unit = ranks * micro
    if train.batch_size % unit == 0:
        return None
    return (
        f"train.batch_size {train.batch_size} is not a multiple of ranks x micro_batch = {ranks} x {micro}; set it to "
        f"{max(1, train.batch_size // unit) * unit}, or change machine.ranks or train.micro_batch"
    )


def as_dict(section: BaseModel) -> dict[str, Any]:
    """A section as plain YAML types, by the names of the file."""
    return section.model_dump(mode="json", by_alias=True)
