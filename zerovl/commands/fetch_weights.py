"""`zerovl fetch-weights`: the one place that downloads published weights."""

from __future__ import annotations

import timm
from transformers import AutoModel, AutoTokenizer

from zerovl.errors import ZeroVLError
from zerovl.model import hub_towers
from zerovl.model.text_towers import no_load_report
from zerovl.params import ModelParams


def fetch(params: ModelParams) -> None:
    """Bring the pretrained towers that `params` name into the local Hugging Face cache."""
    image, text = params.image_tower, params.text_tower
    try:
        if hub_towers.is_hub_name(image.name):
            hub_towers.fetch(image.name, image.pretrained)
            print(f"image tower {image.name}: {'fetched' if image.pretrained else 'its config fetched'}")
        elif image.pretrained:
            name = image.name.removeprefix("timm:")
            timm.create_model(name, pretrained=True, **{"num_classes": 0, **image.options})
            print(f"image tower {image.name}: fetched")
        if text.name:
            AutoTokenizer.from_pretrained(text.name)
            with no_load_report():
                AutoModel.from_pretrained(text.name, use_safetensors=True)
            print(f"text tower {text.name}: fetched")
    except (OSError, RuntimeError) as error:
        raise ZeroVLError(f"weights could not be fetched: {error}; check the name and the network") from None
    if not image.pretrained and not hub_towers.is_hub_name(image.name) and not text.name:
        print("nothing to fetch: params.yaml names no published weights")
