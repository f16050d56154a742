"""The section `register`: where releases go, and what the gate asks of them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from zerovl.params.section import Section


def _min_rsum(value: object) -> object:
    if value == "above_chance":
        return value
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 600:
        raise ValueError(f"{value!r} is not accepted: give a number from 0 to 600, or above_chance")
    return float(value)


_MetricName = Annotated[str, Field(pattern=r"^[^.@]+\.[^.@]+(@.+)?$")]
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
    min_metrics: dict[_MetricName, Annotated[float, Field(strict=False)]] = Field(
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
    max_drops: dict[_MetricName, Annotated[float, Field(ge=0, strict=False)]] = Field(
        default={},
        description="what others may lose against the holder, as {EVALUATOR.METRIC: DROP} or {EVALUATOR.METRIC@SOURCE: "
        "DROP}; more is refused, where both are paired only if the interval of the drop lies above 0",
    )
    difference: Literal["none", "not_worse", "better"] = Field(
        "not_worse",
        description="95% interval of the mean's paired difference to the holder: not_worse: it reaches 0 or more; "
        "better: it lies above 0",
    )


class KeepParams(Section):
    """Which versions `zerovl registry expire` keeps; holders of aliases, theirs before and tagged ones always."""

    last: int = Field(0, ge=0, description="newest versions that are kept; 0: all, and nothing is retired")
    days: float = Field(90.0, ge=0, le=36_500, strict=False, description="younger versions are kept too")
    held_alias: bool = Field(True, description="versions that ever held an alias are kept too")


class HookParams(Section):
    """Somebody who is told of moves: a command, or an address."""

    command: str = Field("", description="gets the JSON of the move on its standard input")
    url: str = Field("", pattern=r"^(https?://.+)?$", description="is sent the JSON of the move, signed")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.command.strip()) == bool(self.url):
            raise ValueError("a hook has either a command or a url; give it one of them")
        return self


class RegisterParams(Section):
    """Where releases go, and which alias moves."""

    name: str = Field("zerovl", pattern=r"^[A-Za-z0-9_-]+$", description="of the model in the registry")
    store: str = Field("registry", description="folder or s3://bucket/prefix; endpoint and keys: environment")
    alias: str = Field(
        "production", pattern=r"^[A-Za-z0-9_-]*$", description="moved here if the gate passes; empty: none"
    )
    when: Literal["repro", "always", "asked"] = Field(
        "repro",
        description="what becomes a release; repro: what `dvc repro` and the flows make, no experiment of DVC; "
        "always: these too; asked: what `zerovl registry add` or `zerovl register` name",
    )
    gate: GateParams = GateParams()
    keep: KeepParams = KeepParams()
    hooks: list[HookParams] = Field(
        [], description="who is told when the alias moves: [{command: PROGRAM ARGUMENTS}, {url: ADDRESS}, ...]"
    )
