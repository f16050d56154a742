"""Which forms of export a model's architecture rules out, and why; exports refuse by it, and a card shows what is left.

What only the weights or a built tower can tell is looked at by the exports themselves (`zerovl.interop`).
"""

from __future__ import annotations

from zerovl.model.architecture import Architecture

OPEN_CLIP_FAMILIES = ("bert", "roberta", "xlm-roberta")  # of text towers, that open_clip 3.3 knows the widths of
OPEN_CLIP_POOLERS = {"first": "cls_last_hidden_state_pooler", "mean": "mean_pooler"}
# Of transformers, whose pooler is a Linear and tanh.
FAMILIES_WITH_POOLER = ("bert", "camembert", "mpnet", "roberta", "xlm-roberta")
SIGLIP_TEXT = "siglip_text_model"  # the family of SigLIP's text towers
OPEN_CLIP_ACTIVATIONS = ("gelu", "quick_gelu", "gelu_pytorch_tanh")  # of them


def reasons_against(architecture: Architecture) -> dict[str, str]:
    """Return by `zerovl export --to` why a model has no such form; "" where its architecture rules out none."""
    return {
        "open-clip": against_open_clip(architecture),
        "hugging-face": against_hugging_face(architecture) or against_transformers_pictures(architecture),
        "onnx": "",
    }


def is_siglip(architecture: Architecture) -> bool:
    """Return whether the text tower is of SigLIP's family."""
    family: str = architecture.text_config["model_type"]
    return family == SIGLIP_TEXT


def against_open_clip(architecture: Architecture) -> str:
    """Return why open_clip does not have the towers or their pooling; "" where nothing tells."""
    family = architecture.text_config["model_type"]
    if not _is_timm(architecture):
        return f"its image tower {architecture.image_tower} is not timm's"
    if is_siglip(architecture):
        return against_rows_of_siglip(architecture, "open_clip") or _against_activation(architecture)
    if family not in OPEN_CLIP_FAMILIES:
        families = ", ".join(OPEN_CLIP_FAMILIES)
        return f"its text tower is of the family {family}, and open_clip has {families} and SigLIP's own"
    if architecture.pooling not in OPEN_CLIP_POOLERS:
        poolings = " and ".join(OPEN_CLIP_POOLERS)
        return f"its text tower is pooled by {architecture.pooling!r}, and open_clip has {poolings}"
    return ""


def against_hugging_face(architecture: Architecture) -> str:
    """Return why the towers are those of neither kind of transformers' models; "" where nothing tells."""
    if is_siglip(architecture):
        return against_rows_of_siglip(architecture, "transformers")
    family, pooling = architecture.text_config["model_type"], architecture.pooling
    if not _is_timm(architecture):
        return f"its image tower {architecture.image_tower} is not timm's"
    if architecture.image_options.get("num_classes", 0):
        return "its image tower has a classifier, which transformers leaves out"
    if (pooling, family) != ("last", "clip_text_model") and not (pooling == "first" and family in FAMILIES_WITH_POOLER):
        return (
            f"its text tower {family} is pooled by {pooling!r}, and transformers has the last token of CLIP and "
            f"the first of {', '.join(FAMILIES_WITH_POOLER)}"
        )
    return ""


def against_transformers_pictures(architecture: Architecture) -> str:
    """Return why no image processor of transformers does what the model's transform does; "" where one does."""
    border = architecture.resize_size - architecture.image_size
    if architecture.resize_mode == "shortest-rounded":
        return "its pictures are cropped as torchvision does, and transformers rounds to the other side"
    if architecture.resize_mode == "squash" and round(border / 2) != border // 2:
        return (
            f"pictures of {architecture.resize_size} cropped to {architecture.image_size} have no pixel in the "
            "middle, and transformers rounds it to the other side"
        )
    return ""


def against_rows_of_siglip(architecture: Architecture, library: str) -> str:
    """Return why a library fills up captions to another length than SigLIP's text tower was trained with; "" if not."""
    places = architecture.text_config["max_position_embeddings"]
    if architecture.max_tokens == places:
        return ""
    return (
        f"it cuts captions at {architecture.max_tokens} tokens and reads rows of {places}, which {library} fills up to "
        f"where it cuts (model.max_tokens: {places} would fit)"
    )


def _against_activation(architecture: Architecture) -> str:
    activation = architecture.text_config["hidden_act"]
    if activation in OPEN_CLIP_ACTIVATIONS:
        return ""
    return f"the activation of its text tower is {activation}, and open_clip has {', '.join(OPEN_CLIP_ACTIVATIONS)}"


def _is_timm(architecture: Architecture) -> bool:
    return architecture.image_tower.rpartition(":")[0] in ("", "timm")
