"""Read open_clip's own ResNets (RN50 and its relatives), which are OpenAI's CLIP, as timm's.

timm has the five sizes that were published, by name. What timm's tower has not, since the projection of a `DualEncoder`
stands there: the last Linear of the attention pooling. Its bias moves into that of the values before it, which the
attention passes on as it is, since its weights add up to 1.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from zerovl.errors import ZeroVLError
from zerovl.interop.open_clip_native import reader, settings_of
from zerovl.interop.projection_bias import moved_before

_SETTINGS = {"image_size": 224, "layers": None, "width": 64, "head_width": 64, "patch_size": None, "mlp_ratio": 4.0}
_TOWERS = {  # of timm, by layers and width
    ((3, 4, 6, 3), 64): "resnet50_clip",
    ((3, 4, 23, 3), 64): "resnet101_clip",
    ((4, 6, 10, 6), 80): "resnet50x4_clip",
    ((6, 8, 18, 8), 96): "resnet50x16_clip",
    ((3, 15, 36, 10), 128): "resnet50x64_clip",
}
_HEAD_WIDTH = 64  # of timm's attention pooling
_SHAPES = {"1": "1x1", "2": "kxk", "3": "1x1"}  # of a block's convolutions, as timm names them
_POOLING = {"positional_embedding": "pos_embed", "q_proj.": "q.", "k_proj.": "k.", "v_proj.": "v."}
_PROJECTION = "attnpool.c_proj"


def image_tower(
    stored: dict[str, Tensor], settings: dict[str, Any], origin: str
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return timm's name and options and our weights of `visual.`; raises `ZeroVLError` for another size."""
    place = f"{origin}: vision_cfg"
    values = settings_of(settings, _SETTINGS, place)
    size = tuple(values["layers"]), values["width"]
    if size not in _TOWERS or values["head_width"] != _HEAD_WIDTH:
        raise ZeroVLError(
            f"{place}: a ResNet with layers {list(size[0])}, width {size[1]} and head_width {values['head_width']}; "
            f"read are those of OpenAI's CLIP, with heads of {_HEAD_WIDTH}: "
            + ", ".join(f"{list(layers)} at {width}" for layers, width in _TOWERS)
        )
    own = reader(stored, "visual.", origin)
    names = [name.removeprefix("visual.") for name in stored]
    weights = {f"image_tower.{_renamed(name)}": own(name) for name in names if not name.startswith(_PROJECTION)}
    projection = own(f"{_PROJECTION}.weight")  # (D, w)
    values_bias = "image_tower.head.v.bias"
    weights[values_bias] = weights[values_bias] + moved_before(projection, own(f"{_PROJECTION}.bias"), place)
    weights["image_projection.weight"] = projection
    return _TOWERS[size], {"img_size": values["image_size"]}, weights


def _renamed(name: str) -> str:
    """Return timm's name of a weight: stem, block, shortcut of a block, or attention pooling."""
    if name.startswith("attnpool."):
        rest = name.removeprefix("attnpool.")
        return "head." + next((rest.replace(key, own) for key, own in _POOLING.items() if rest.startswith(key)), rest)
    if found := re.fullmatch(r"(conv|bn)(\d)\.(\w+)", name):
        return f"stem.conv{found[2]}.{found[1]}.{found[3]}"
    if found := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.(\w+)", name):
        return f"{_block(found)}.conv{found[4]}_{_SHAPES[found[4]]}.{found[3]}.{found[5]}"
    if found := re.fullmatch(r"layer(\d)\.(\d+)\.downsample\.([01])\.(\w+)", name):
        return f"{_block(found)}.shortcut.conv.{('conv', 'bn')[int(found[3])]}.{found[4]}"
    return name  # unknown: named as left over when the weights are loaded


def _block(found: re.Match[str]) -> str:
    return f"stages.{int(found[1]) - 1}.{found[2]}"
