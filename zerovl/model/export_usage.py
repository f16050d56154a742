"""Lines of Python that use a model in each form that it is exported in; cards of releases and of exports show them."""

from __future__ import annotations

# By `zerovl export --to`; they run in the folder that it wrote, with `picture` an image of Pillow.
USAGE = {
    "open-clip": (
        "from zerovl_open_clip import load  # the file in this folder\n"
        "model, transform, tokenizer = load()\n"
        'scores = model.encode_text(tokenizer(["two skiers"]), normalize=True) '
        "@ model.encode_image(transform(picture)[None], normalize=True).T"
    ),
    "hugging-face": (
        "from transformers import AutoModel, AutoProcessor\n"
        'model, processor = AutoModel.from_pretrained("."), AutoProcessor.from_pretrained(".", backend="pil")\n'
        'scores = model(**processor(text=["two skiers"], images=[picture], return_tensors="pt", padding="max_length", '
        "truncation=True)).logits_per_text"
    ),
    "onnx": (
        "from zerovl_onnx import Model  # the file in this folder\n"
        "model = Model()\n"
        'scores = model.encode_text(["two skiers"]) @ model.encode_image([picture]).T'
    ),
}
