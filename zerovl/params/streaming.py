"""The section `train.streaming`: tars that training reads as they come, without `prepare`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from zerovl.params.section import Section, require_different


class StreamParams(Section):
    """One source of pairs that are streamed."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    urls: list[str] = Field(
        min_length=1, description="tars: paths and s3:// with braces or *, pipe:COMMAND, http://, in WebDataset's form"
    )
    pairs: int = Field(0, ge=0, description="pairs in all of them; 0: counted by _stats.json or .idx beside each tar")
    json_caption: str = Field("", description="key of the .json that has the caption; empty: `.txt`, `caption`")
    txt_captions: Literal["one", "lines"] = Field("one", description="a .txt: one caption, or one a line")


class StreamingParams(Section):
    """What is streamed, and how it is shuffled (reading: streaming)."""

    sources: list[StreamParams] = Field(
        default=[], description="[{name, urls, pairs, json_caption, txt_captions}, ...]"
    )
    shuffle_buffer: int = Field(
        1000, ge=1, description="samples of a source that a loader process holds and draws the next one from"
    )
    chapter_tars: int = Field(
        16,
        ge=1,
        description="tars of a source after which a loader process has emptied its buffer; a run that resumes reads "
        "those of its chapter again, and passes over what it had seen",
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        require_different((source.name for source in self.sources), "source names")
        return self
