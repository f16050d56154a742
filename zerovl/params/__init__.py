"""The sections of `params.yaml`, frozen and typed; the defaults below are the demo.

Every field has a sentence that says what it does; `params_file` writes those sentences into `params.yaml` as
comments, so the file explains itself.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from zerovl.params.data import DataParams, DemoParams, PrepareParams, SourceParams, ValidateParams
from zerovl.params.evaluate import TEMPLATE_SETS, ClassificationParams, EvaluateParams
from zerovl.params.filters import AgreementParams, DrawValidParams, FilterParams, SemanticDuplicatesParams
from zerovl.params.machine import MachineParams, ShardCacheParams
from zerovl.params.model import ImageTowerParams, ModelParams, TextTowerParams
from zerovl.params.register import GateParams, HookParams, KeepParams, RegisterParams
from zerovl.params.section import Section
from zerovl.params.streaming import StreamingParams, StreamParams
from zerovl.params.train import AugmentParams, FineTuningParams, TrainParams

__all__ = [
    "TEMPLATE_SETS",
    "AgreementParams",
    "AugmentParams",
    "ClassificationParams",
    "DataParams",
    "DemoParams",
    "DrawValidParams",
    "EvaluateParams",
    "FilterParams",
    "FineTuningParams",
    "GateParams",
    "HookParams",
    "ImageTowerParams",
    "KeepParams",
    "MachineParams",
    "ModelParams",
    "Params",
    "PrepareParams",
    "RegisterParams",
    "Section",
    "SemanticDuplicatesParams",
    "ShardCacheParams",
    "SourceParams",
    "StreamParams",
    "StreamingParams",
    "TextTowerParams",
    "TrainParams",
    "ValidateParams",
    "as_dict",
    "batch_problem",
]


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
        if self.machine.decode_on == "gpu":
            self._pictures_can_be_decoded_on_a_gpu()
        return self

    def _pictures_can_be_decoded_on_a_gpu(self) -> None:
        train = self.train
        for key, value, usual, why in (
            ("train.augment.auto_augment", train.augment.auto_augment, False, "AutoAugment runs on the CPU"),
            (
                "train.reading",
                train.reading,
                "indexed",
                "pictures that nobody has looked at are tried when read",
            ),
        ):
            if value != usual:
                given, other = (str(each).lower() for each in (value, usual))
                raise ValueError(
                    f"machine.decode_on gpu and {key} {given} do not go together: {why}; set machine.decode_on to cpu "
                    f"or {key} to {other}"
                )


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
