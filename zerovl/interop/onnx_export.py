"""A model as two ONNX graphs, for any number of pictures, and captions of any length up to the model's longest.

    image.onnx       pixels (n, 3, H, W) float32, normalised -> embeddings (n, D)
    text.onnx        input_ids, attention_mask (m, L) int64 -> embeddings (m, D)
    model.json       width, longest row, temperature and bias of the logits
    tokenizer.json   of the library tokenizers; cuts and pads
    preprocess.json, zerovl_transform.py, picture_looks.py, zerovl_onnx.py
                     our transform, and a class that does it all

Poolings and padding are inside the graphs, so every family of towers is alike outside.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.export import Dim

from zerovl.errors import ZeroVLError
from zerovl.files import write_json
from zerovl.interop.base import Sample, require
from zerovl.interop.open_clip_export import write_transform
from zerovl.interop.standalone import hand_along
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.encoder import Encoder
from zerovl.model.export_usage import USAGE
from zerovl.model.text import CaptionTokenizer

_Item = TypeVar("_Item")
_EXAMPLES = 2  # pictures and captions that the graphs are traced with


class Onnx:
    """Two graphs for onnxruntime."""

    name = "onnx"
    library = "onnxruntime"
    tolerance = 1e-4  # its kernels sum in another order
    usage = USAGE[name]

    def check(self, encoder: Encoder) -> None:
        """Raise `ZeroVLError` where what writes graphs is not installed; which models can be traced, tracing shows."""
        for module in ("onnx", "onnxscript"):
            require(module, "--to onnx")

    def write(self, encoder: Encoder, folder: Path) -> None:
        """Write the folder; raises `ZeroVLError` for a tower that cannot be traced."""
        from zerovl.interop.standalone import zerovl_onnx  # onnxruntime is of the extra `export`

        model, architecture = encoder.model, encoder.model.architecture
        side, longest = architecture.image_size, architecture.max_tokens
        pixels = torch.zeros(_EXAMPLES, 3, side, side)
        ids = torch.full((_EXAMPLES, longest - 1), encoder.tokenizer.special.pad)
        mask = torch.ones_like(ids)
        mask[0, 1:] = 0  # with a mask of ones, tracing may leave out what a mask is for
        rows, places = Dim("batch"), Dim("tokens", max=longest)
        _trace(_ImageSide(model), {"pixels": pixels}, {0: rows}, folder / zerovl_onnx.IMAGE)
        _trace(
            _TextSide(model),
            {"input_ids": ids, "attention_mask": mask},
            {0: rows, 1: places},
            folder / zerovl_onnx.TEXT,
        )
        _write_tokenizer(encoder.tokenizer, folder)
        write_transform(architecture, folder)
        write_json(folder / "model.json", _numbers(model))
        hand_along(zerovl_onnx, folder)

    def embed(self, folder: Path, sample: Sample) -> tuple[Tensor, Tensor]:
        """Embed with onnxruntime: the first of each alone, then the others together."""
        from zerovl.interop.standalone.zerovl_onnx import Model

        model = Model(folder)
        images = [torch.from_numpy(model.encode_image(part)) for part in _parts(sample.pictures)]
        texts = [torch.from_numpy(model.encode_text(part)) for part in _parts(sample.captions)]
        return torch.cat(images), torch.cat(texts)


class _ImageSide(nn.Module):
    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)


class _TextSide(nn.Module):
    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model.encode_text(input_ids, attention_mask)


def _trace(side: nn.Module, inputs: dict[str, Tensor], sizes: dict[int, Any], file: Path) -> None:
    """Write the graph of one side; beyond 2 GB its weights go into a file beside it. `sizes` are of all inputs."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # comes with onnxscript, of the extra `export`

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter about itself
            program = torch.onnx.export(
                side.eval(),
                kwargs=inputs,
                input_names=list(inputs),
                output_names=["embeddings"],
                dynamic_shapes=dict.fromkeys(inputs, sizes),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ZeroVLError(
            f"--to onnx: torch {torch.__version__} cannot turn a tower into {file.name} "
            f"({str(error).splitlines()[0]}); use --to open-clip or --to hugging-face"
        ) from None
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # where on this machine each node's code lies
    program.save(file)


def _write_tokenizer(tokenizer: CaptionTokenizer, folder: Path) -> None:
    """Write one file that cuts and pads as the model's tokenizer does."""
    tokenizer.save(folder)
    for path in folder.iterdir():
        if path.name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
            path.unlink()
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    own.enable_truncation(tokenizer.max_tokens)
    own.enable_padding(pad_id=tokenizer.special.pad, pad_token=own.id_to_token(tokenizer.special.pad))
    own.save(str(folder / "tokenizer.json"))


def _numbers(model: DualEncoder) -> dict[str, float | int | None]:
    bias = getattr(model, "logit_bias", None)
    return {
        "embed_dim": model.architecture.embed_dim,
        "max_tokens": model.architecture.max_tokens,
        "temperature": float(model.temperature.detach()),  # logits are cosine / temperature + bias
        "logit_bias": None if bias is None else float(bias.detach()),
    }


def _parts(values: list[_Item]) -> list[list[_Item]]:
    return [part for part in (values[:1], values[1:]) if part]
