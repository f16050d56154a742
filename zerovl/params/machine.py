"""The section `machine`: what a training takes of the machine that it runs on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from zerovl import s3
from zerovl.errors import ZeroVLError
from zerovl.params.section import Section
from zerovl.text_format import parse_size


def _place(text: str) -> str:
    try:
        if text:
            s3.parse(text)
    except ZeroVLError as error:
        raise ValueError(str(error)) from None
    return text


def _size(text: str) -> str:
    try:
        parse_size(text, "a size in bytes")
    except ZeroVLError as error:
        raise ValueError(str(error)) from None
    return text


class ShardCacheParams(Section):
    """Whole shards that a node keeps of what lies on S3; shared by its ranks, and by all runs that name the folder."""

    folder: str = Field("~/.cache/zerovl/shards", description="on a disk of the node")
    size: Annotated[str, AfterValidator(_size)] = Field("64GiB", description="bytes that it may hold, as 500GiB")
    connections: int = Field(8, ge=1, description="to the server for each shard that is fetched")


class MachineParams(Section):
    """How this machine does the work: nothing here changes what is learned, but by rounding. No stage depends on it."""

    ranks: int = Field(0, ge=0, description="processes; 0: one a GPU, or one on a machine without GPU")
    gpu_wait_minutes: float = Field(
        0.0,
        ge=0,
        strict=False,
        description="that training and evaluation wait for GPUs which other runs have, at most; 0: as long as it takes",
    )
    threads: int = Field(
        0,
        ge=0,
        description="of a rank's arithmetic on the CPU; 0: the cores it may use over its ranks (OMP_NUM_THREADS)",
    )
    loader_workers: int = Field(1, ge=0, description="loader processes a rank")
    prefetch: Annotated[str, AfterValidator(_size)] = Field(
        "2GiB", description="bytes of batches that a rank's loader processes make ahead, and of them at most a step's"
    )
    decode_on: Literal["cpu", "gpu"] = Field(
        "cpu",
        description="where training decodes JPEGs: by the loader processes, or by nvJPEG on the GPU, which rounds "
        "otherwise; what that does not take, and all of them where there is none, are decoded on the CPU",
    )
    shards: str = Field(
        "", description="copy of data/shards that is read: s3://bucket/prefix or a folder; empty: data/shards"
    )
    shard_cache: ShardCacheParams = ShardCacheParams()
    keep_streams: bool = Field(
        False, description="tars that training streams from elsewhere are kept whole in the folder of shard_cache"
    )
    cache_features: bool = Field(
        True,
        description="what a frozen tower makes of unaugmented pictures or captions is computed once, then read from "
        "runs/features/",
    )
    kept_graphs: int = Field(
        1,
        ge=0,
        description="micro-batches whose first pass keeps its graph and needs no second forward (decoupled); the first "
        "of them costs no memory where the loss takes less than a backward pass does",
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
    deterministic: bool = Field(
        False, description="the same bits from the same steps on a GPU too: slower; on a CPU it is so anyway"
    )
    channels_last: bool = Field(False, description="memory layout of the image tower; helps convolutions")
    shard_model: bool = Field(
        False, description="FSDP2: weights and AdamW's moments split over the ranks instead of repeated"
    )
    shard_gathers: Literal["float32", "low"] = Field(
        "float32",
        description="shard_model's weights on the wire: low sends the 16 bits of train.precision, half the bytes",
    )
    shard_within: Literal["all", "node"] = Field(
        "all",
        description="shard_model splits over all ranks, or over those of a node, with a copy of the model on each node",
    )
    checkpoint_steps: int = Field(100, ge=1, description="steps between checkpoints")
    checkpoint_minutes: float = Field(10.0, gt=0, strict=False, description="minutes between checkpoints, at most")
    keep_checkpoints: int = Field(2, ge=1, description="the newest ones that stay on disk")
    keep_every: int = Field(0, ge=0, description="every so many-th checkpoint stays on disk for good; 0: none")
    checkpoint_copy: Annotated[str, AfterValidator(_place)] = Field(
        "",
        description="s3://bucket/prefix where checkpoints are copied too while training goes on, and which another "
        "node goes on from; empty: nowhere",
    )
    restarts: int = Field(
        3, ge=0, description="times that all ranks start again from the last checkpoint when one dies"
    )
    watchdog_minutes: float = Field(
        15.0, gt=0, strict=False, description="a rank that makes no progress for so long ends all ranks, with its name"
    )

    tracking: list[Literal["mlflow", "tensorboard", "wandb"]] = Field(
        [],
        description="where runs are shown too: mlflow, tensorboard, wandb; MLFLOW_TRACKING_URI alone means mlflow",
    )

    @property
    def prefetch_bytes(self) -> int:
        """What `prefetch` says."""
        return parse_size(self.prefetch, "machine.prefetch")

    @model_validator(mode="after")
    def _kept_graphs_once(self) -> Self:
        if self.kept_graphs > 1 and self.activation_budget != "none":
            raise ValueError(
                f"kept_graphs {self.kept_graphs} and activation_budget {self.activation_budget} both say how many "
                "graphs to keep; set kept_graphs to 1 or activation_budget to none"
            )
        return self
