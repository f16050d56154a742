"""`zerovl import`: a folder of another library as a bundle, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from zerovl.errors import ZeroVLError
from zerovl.files import read_json
from zerovl.interop import (
    clip_import,
    dual_encoder_import,
    exported_note,
    imported_bundle,
    open_clip_import,
    tokenizer_files,
)
from zerovl.interop.base import largest_difference, synthetic_sample
from zerovl.interop.imported import Imported
from zerovl.interop.open_clip_export import CONFIG
from zerovl.model import bundle
from zerovl.model.architecture import without_place
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.encoder import Encoder
from zerovl.model.text import CaptionTokenizer
from zerovl.model.text_towers import check_padding, text_config_from
from zerovl.model.towers import to_be_filled

TOLERANCE = 1e-5  # of a component of an embedding


def import_folder(folder: Path, out: Path) -> None:
    """Write the bundle `out` from `folder`, and print how far both libraries' embeddings are apart.

    Raises:
        ZeroVLError: the folder is of no kind that is known, has something without a counterpart here, or embeds
            otherwise than its library; then there is no `out`. Or `out` is there already.
    """
    imported_bundle.check_out(out)
    found = _without_place(_reader(folder)(folder))
    with TemporaryDirectory() as work:
        tokenizer = _tokenizer(found, Path(work))
        found = exported_note.as_exported(found, tokenizer, folder)
        model = to_be_filled(found.architecture)
        bundle.load_weights(model, found.weights, str(folder))
        text_config = text_config_from(found.architecture.text_config)
        check_padding(text_config, tokenizer.special.pad)
        if tokenizer.vocab_size > text_config.vocab_size:
            raise ZeroVLError(
                f"{folder}: its tokenizer has {tokenizer.vocab_size} tokens, its text tower {text_config.vocab_size}; "
                "put the tokenizer there that the model was trained with"
            )
        checked = _compare(found, model, tokenizer, folder)
        imported_bundle.write(model, tokenizer, out)
    print(f"{out}: from {folder}. {checked} To train on: {imported_bundle.next_command(out)}")


def _without_place(found: Imported) -> Imported:
    config = without_place(found.architecture.text_config)
    return replace(found, architecture=replace(found.architecture, text_config=config))


def _tokenizer(found: Imported, work: Path) -> CaptionTokenizer:
    """Return the model's tokenizer; one that cleans captions first is written into `work`."""
    tokenizer = CaptionTokenizer(found.tokenizer, found.architecture.max_tokens)
    if not found.cleaning:
        return tokenizer
    tokenizer.save(work)
    tokenizer_files.clean_first(work, found.cleaning)
    return CaptionTokenizer(work, found.architecture.max_tokens)


def _reader(folder: Path) -> Callable[[Path], Imported]:
    if (folder / CONFIG).is_file():
        return open_clip_import.read
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    readers = dict.fromkeys(clip_import.MODELS, clip_import.read) | {
        dual_encoder_import.MODEL_TYPE: dual_encoder_import.read
    }
    if reader := readers.get(config.get("model_type", "")):
        return reader
    found = f"config.json of model_type {config.get('model_type')!r}" if config else "no config.json"
    raise ZeroVLError(
        f"{folder}: no {CONFIG} and {found}; read are local folders of open_clip, and those of "
        f"transformers with model_type {', '.join(readers)}"
    )


def _compare(found: Imported, model: DualEncoder, tokenizer: CaptionTokenizer, folder: Path) -> str:
    """Return a sentence on the largest difference; raises `ZeroVLError` where it is too large."""
    if find_spec(found.library) is None:
        return f"{found.library} is not installed, so it was not compared with it (`pip install 'zerovl[export]'`)."
    sample = synthetic_sample()
    encoder = Encoder(model, tokenizer, device="cpu")
    images, texts = found.embed(sample)  # (n, D), (m, D)
    pictures = largest_difference(encoder.encode_image(sample.pictures), images)
    captions = largest_difference(encoder.encode_text(sample.captions), texts)
    differences = f"{pictures:.1e} for pictures and {captions:.1e} for captions"
    if max(pictures, captions) > TOLERANCE:
        raise ZeroVLError(
            f"{folder}: {found.library} gives other embeddings than zerovl, up to {differences} apart, where "
            f"{TOLERANCE:g} is allowed; nothing was written"
        )
    return f"{found.library} gave {sample.origin} the same embeddings: at most {differences} apart."
