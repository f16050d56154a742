"""Write `MODEL_CARD.md`: what a release is, how good, from what, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from zerovl.evaluation.markdown import further_tables
from zerovl.evaluation.metrics import HEADLINE, further_evaluators, headline_block, metric_names, retrieval_blocks
from zerovl.model.export_usage import USAGE
from zerovl.params import ModelParams, Params, TrainParams
from zerovl.text_format import amount

_HEAD = """\
---
library_name: zerovl
{task}tags:
- clip
- image-text-retrieval
- dual-encoder
- zerovl
---
"""

_LIMITS = """\
- The scores hold for the validation data above. Other pictures or other wording can score far lower.
- The model has learned what its sources show, with their gaps and their bias. It has not been checked for fairness,
  and is not a ground for decisions about people.
- Captions longer than {max_tokens} tokens are cut. {resized},
  and the centre of {image_size} x {image_size} is used.
- The licence of this model follows from its training data and its start weights; name it before you publish.
"""

_EXPORTS = """\
## With other libraries

The lines run in the folder that the command wrote, with `picture` an image of Pillow; the README.md there says how far
the embeddings are from these.

"""

_OF_A_SAMPLE = f"""\
`valid_{HEADLINE.name}` and its like were measured during training, on a fixed sample: evenly spread validation pairs,
each picture with its first caption alone. There is less to choose from than for the scores above, so value and chance
are mostly above theirs."""

_OF_SEVERAL = (
    "The mean over sources, each searched alone, stands for the model; the pool is all sources searched as one. "
)
_SCORES = ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10")


def render(
    params: Params,
    metrics: Mapping[str, Any],
    manifest: Mapping[str, Any],
    provenance: Mapping[str, Any],
    *,
    usage: str,
    details: Mapping[str, Any],
    refused: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Write the card as Markdown.

    Args:
        usage: the Python that loads the release.
        details: what `details.json` has.
        refused: why the model cannot be exported, by the form of export; "" or no reason where it can.
    """
    sections = [
        _HEAD.format(task=_task(metrics)) + f"\n# {params.register_.name}\n\n{_summary(params)}",
        f"## How to use it\n\n```python\n{usage}\n```",
        _EXPORTS + "\n\n".join(_export(form, lines, refused.get(form, "")) for form, lines in USAGE.items()),
        "## Training data\n\n" + _data_table(manifest),
        "## Scores\n\n" + _warnings(provenance) + _scores(metrics, details, params.evaluate.sample),
        "## Limits\n\n"
        + _LIMITS.format(
            max_tokens=params.model.max_tokens,
            resized=_resized(params.model),
            image_size=params.model.image_size,
        ),
        "## Training\n\n" + _training(params, provenance.get("training") or {}),
        "## Provenance\n\n" + _origin(provenance),
    ]
    return "\n\n".join(section.rstrip() for section in sections) + "\n"


def _export(form: str, lines: str, refused: str) -> str:
    if refused:
        return f"`--to {form}` is not for this model: {refused}."
    return f"`zerovl export MODEL --to {form} --out DIR`\n\n```python\n{lines}\n```"


def _resized(model: ModelParams) -> str:
    if model.resize_mode == "squash":
        return f"Pictures are resized to {model.resize_size} x {model.resize_size} pixels without regard to their shape"
    return f"The shorter side of pictures is resized to {model.resize_size} pixels"


def _task(metrics: Mapping[str, Any]) -> str:
    """The hub's name of the task, where it was measured: the hub has none for retrieval among pictures."""
    measured = any("top1" in metric_names(table) for table in further_evaluators(metrics).values())
    return "pipeline_tag: zero-shot-image-classification\n" if measured else ""


def _summary(params: Params) -> str:
    model, train = params.model, params.train
    image, text = model.image_tower, model.text_tower
    start = train.init_from or train.continue_from  # these weights take the place of the towers' own
    image_start = _start(start or image.weights, image.pretrained)
    return (
        f"A dual encoder that gives images and captions embeddings of {model.embed_dim} dimensions, to be compared by "
        f"their inner product. Image tower: {image.name} ({image_start}{_held_still(train, 'image')}); text tower: "
        f"{text.name or 'BERT from a configuration'} ({_start(start, text.pretrained)}{_held_still(train, 'text')}). "
        "Trained by the ZeroVL recipe (arXiv 2112.09331)."
    )


def _start(weights: str, pretrained: bool) -> str:
    """Say what a tower began with; `weights` is a file, a folder or RUN@STEP, whose last part tells enough."""
    if weights:
        return f"from the weights of {Path(weights).name}"
    return "from published weights" if pretrained else "from scratch"


def _held_still(train: TrainParams, side: str) -> str:
    """Say how much of a tower did not learn; nothing where all of it did."""
    if side in train.freeze:
        return ", frozen"
    blocks = getattr(train.fine_tuning, f"freeze_{side}_blocks")
    return f", its first {'block' if blocks == 1 else f'{blocks} blocks'} frozen" if blocks else ""


def _data_table(manifest: Mapping[str, Any]) -> str:
    lines = ["| source | training pairs | validation pairs | broken inputs left out |", "|---|---:|---:|---:|"]
    for source, splits in sorted(manifest.get("sources", {}).items()):
        train, valid = splits.get("train", {}), splits.get("valid", {})
        broken = train.get("broken", 0) + valid.get("broken", 0)
        lines.append(f"| {source} | {train.get('pairs', 0):,} | {valid.get('pairs', 0):,} | {broken:,} |")
    return "\n".join(lines)


def _scores(metrics: Mapping[str, Any], details: Mapping[str, Any], sample: int) -> str:
    return _retrieval_table(metrics) + further_tables(metrics, details) + _sample_line(sample, metrics)


def _warnings(provenance: Mapping[str, Any]) -> str:
    texts = provenance.get("run", {}).get("warnings") or ()
    return "".join(f"**Warning of the training:** {text}\n\n" for text in texts)


def _retrieval_table(metrics: Mapping[str, Any]) -> str:
    label, blocks = HEADLINE.label, retrieval_blocks(metrics)
    lines = [
        f"Retrieval on the validation splits. R@K in percent; {label} is the sum of the six, at most "
        f"{HEADLINE.maximum:.0f}, with its 95% interval. {_OF_SEVERAL if len(blocks) > 1 else ''}Unseen: a source "
        "without training pairs.",
        "",
        "| | " + " | ".join(_title(name) for name in _SCORES) + f" | {label} | 95% interval | untrained | chance |",
        "|---|" + "---:|" * (len(_SCORES) + 4),
    ]
    for name, scores in blocks:
        cells = [_number(scores.get(key)) for key in (*_SCORES, HEADLINE.name)]
        low, high = scores.get(HEADLINE.low), scores.get(HEADLINE.high)
        interval = "" if low is None or high is None else f"{_number(low)} to {_number(high)}"
        cells += [interval, _number(scores.get(HEADLINE.untrained)), _number(scores.get(HEADLINE.chance))]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _sample_line(count: int, metrics: Mapping[str, Any]) -> str:
    pairs = min(count, headline_block(metrics)[1].get("images", count))
    if not pairs:
        return ""
    return f"\n\nThe release contains {pairs} validation pairs as its fixed sample (`sample/`), by which it is checked."


def _training(params: Params, summary: Mapping[str, Any]) -> str:
    train = params.train
    epochs = amount(train.epochs, "epoch")
    lines = [
        f"- {epochs} of {train.epoch_of}, global batch {train.batch_size}, {train.sampling} sampling, "
        f"{train.step} step, mixup {train.mixup}, {train.precision}, seed {train.seed}",
        f"- AdamW, peak learning rate {train.lr:g}, weight decay {train.weight_decay:g}",
    ]
    if train.ema_decay:
        lines.append(f"- the weights are a moving average over the steps, decay {train.ema_decay:g}")
    numbers = {key: value for key, value in summary.items() if isinstance(value, int | float | str)}
    lines += [
        f"- {key}: {value:g}" if isinstance(value, float) else f"- {key}: {value}" for key, value in numbers.items()
    ]
    if f"valid_{HEADLINE.name}" in numbers:
        lines += ["", _OF_A_SAMPLE]
    return "\n".join(lines)


def _origin(provenance: Mapping[str, Any]) -> str:
    git, machine = provenance.get("git"), provenance.get("environment", {})
    code = f"commit {git['commit']}" + (" with changed files" if git["dirty"] else "") if git else "not in git"
    packages = ", ".join(
        f"{name} {machine[name]}" for name in ("python", "torch", "timm", "transformers") if machine.get(name)
    )
    parent = provenance.get("run", {}).get("parent")
    lines = [
        f"- code: {code}",
        f"- data manifest: {provenance.get('data_manifest')}",
        f"- dvc.lock: {provenance.get('dvc_lock')}",
        f"- environment: {packages}; {machine.get('cpu')}" + "".join(f", {gpu}" for gpu in machine.get("gpus", [])),
        "- all parameters: `provenance.json`",
    ]
    for tower, files in (provenance.get("run", {}).get("weights") or {}).items():
        lines += [f"- {tower} began with {name}, sha256 {digest}" for name, digest in files.items()]
    if parent:
        lines.insert(0, f"- goes on from: run {parent['run']} after its step {parent['step']}, with other settings")
    return "\n".join(lines)


def _title(name: str) -> str:
    direction, _, at = name.partition("_r")
    return f"{'image to text' if direction == 'i2t' else 'text to image'} R@{at}"


def _number(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else ""
