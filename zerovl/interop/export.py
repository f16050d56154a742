"""`zerovl export`: a model in another library's form, whole or not at all.

The folder appears once that library has read it and embedded a sample of pictures and captions as the model does.
"""

from __future__ import annotations

import shutil
from copy import copy
from dataclasses import replace
from importlib.metadata import packages_distributions, version
from pathlib import Path

from zerovl.bundle_files import MODEL_CARD
from zerovl.errors import ZeroVLError
from zerovl.interop import hub_card
from zerovl.interop.base import Format, Sample, check_absent, largest_difference, require
from zerovl.interop.hub_card import CardFacts
from zerovl.interop.hugging_face_export import HuggingFace
from zerovl.interop.onnx_export import Onnx
from zerovl.interop.open_clip_export import OpenClip
from zerovl.model.architecture import names_place, without_place
from zerovl.model.encoder import Encoder
from zerovl.version import __version__
from zerovl.whole_folder import whole_folder

FORMATS: dict[str, Format] = {found.name: found for found in (OpenClip(), HuggingFace(), Onnx())}


def export(encoder: Encoder, facts: CardFacts, form: str, sample: Sample, out: Path, card: Path | None = None) -> None:
    """Write the folder `out` and print the largest difference that was found.

    Args:
        encoder: the model, on the CPU.
        facts: what its card says.
        form: a key of `FORMATS`.
        sample: what both libraries embed.
        out: a folder that is not there yet.
        card: the model card of the release, which is copied; None where there is none.

    Raises:
        ZeroVLError: the model has no such form, the library is not installed, `out` is there already, or the
            embeddings differ by more than the form allows; then there is no `out`.
    """
    found = FORMATS[form]
    check_absent(out)
    require(found.library, f"--to {form}")
    found.check(encoder)
    encoder = _without_place(encoder)
    with whole_folder(out) as aside:
        found.write(encoder, aside)
        checked = _compare(found, encoder, aside, sample)
        if card:
            shutil.copy(card, aside / MODEL_CARD)
        text = hub_card.render(facts, found.library, found.usage, checked)
        (aside / hub_card.FILE).write_text(text, encoding="utf-8")
    print(f"{out}: {facts.name} for {found.library}. {checked}")


def _without_place(encoder: Encoder) -> Encoder:
    """Return the model without the folder that its text tower was read from, which those made before still name."""
    architecture = encoder.model.architecture
    if not names_place(architecture.text_config):
        return encoder
    model = copy(encoder.model)
    model.architecture = replace(architecture, text_config=without_place(architecture.text_config))
    return Encoder(model, encoder.tokenizer, str(encoder.device))


def _compare(found: Format, encoder: Encoder, folder: Path, sample: Sample) -> str:
    """Return a sentence on the largest difference; raises `ZeroVLError` where it is too large."""
    images, texts = found.embed(folder, sample)  # (n, D), (m, D)
    pictures = largest_difference(encoder.encode_image(sample.pictures), images)
    captions = largest_difference(encoder.encode_text(sample.captions), texts)
    differences = f"{pictures:.1e} for pictures and {captions:.1e} for captions"
    package = packages_distributions()[found.library][0]
    if max(pictures, captions) > found.tolerance:
        raise ZeroVLError(
            f"--to {found.name}: {package} {version(package)} gives other embeddings than zerovl, up to {differences} "
            f"apart, where {found.tolerance:g} is allowed; nothing was written. Try the versions of requirements.lock, "
            "and report it if they differ too"
        )
    return (
        f"{package} {version(package)} and zerovl {__version__} gave {sample.origin} the same embeddings: at most "
        f"{differences} apart ({found.tolerance:g} is allowed)."
    )
