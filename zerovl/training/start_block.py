"""The block that training shows before its first step: what will happen, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from zerovl.data.batches.visits import NOUNS
from zerovl.data.streams.places import Layout, Places
from zerovl.engine.checkpoint_folder import SavedOn
from zerovl.engine.frozen_features import training_image_size, unaugmented_sides, without_cache
from zerovl.engine.model_options import options_without_effect
from zerovl.engine.parameter_groups import describe, learned_parameters
from zerovl.engine.sharding import gathered_as
from zerovl.files import read_json
from zerovl.memory import memory_in_use
from zerovl.model.dual_encoder import DualEncoder
from zerovl.model.hub_towers import published_input
from zerovl.params import FineTuningParams, Params, Section, TrainParams
from zerovl.sizing.batch_layout import Sizing
from zerovl.sizing.footprint import Footprint
from zerovl.text_format import amount, plural, size
from zerovl.training import fingerprint, streaming, valid_folds, valid_sets
from zerovl.training.caption_lengths import describe_cut
from zerovl.training.features import FeatureFolder
from zerovl.training.run_spec import Run


def start_block(
    run: Run, model: DualEncoder, sizing: Sizing, decision: str, features: Sequence[FeatureFolder] = ()
) -> str:
    """Return the text: `decision` says whether the run resumes and why, `features` what is kept of frozen towers."""
    params, ranks, spec = run.params, run.ranks, run.spec
    train = params.train
    sizes, visits = spec.sizes, spec.visits
    local = train.batch_size // ranks.world_size
    total = sum(parameter.numel() for parameter in model.parameters())
    if ranks.device.type == "cuda":
        device = torch.cuda.get_device_name(ranks.device)
    else:
        device = f"CPU, {plural(torch.get_num_threads(), 'thread')} each"
    epoch_steps = max(1, sum(visits.values()) // train.batch_size)
    epochs = f"{amount(train.epochs, 'epoch')} over {sum(visits.values()):,} {NOUNS[train.epoch_of]}"
    text = model.architecture.text_config["model_type"]
    lines = [
        ("run", f"{spec.name}: {decision}"),
        ("steps", f"{spec.steps} of {train.batch_size} pairs, about {epoch_steps} an epoch, {epochs}"),
        (
            "batch",
            f"{plural(ranks.world_size, 'rank')} ({device}, {train.precision}) x {local} pairs, {train.step}: "
            f"{sizing.said}",
        ),
        ("sources", f"{', '.join(f'{name} {pairs}' for name, pairs in sizes.items())} pairs; {_order(train)}"),
        *(("shards", text) for text in run.shards.said),
        *(_streams(run) if spec.streams else _packed(run)),
        ("model", f"{model.architecture.image_tower} + {text}, {total / 1e6:.1f}M parameters{_sizes(params)}"),
        ("memory", memory_line(sizing.memory, ranks.device)),
    ]
    if place := params.machine.checkpoint_copy:
        lines.append(("copies", f"of checkpoints go to {place.rstrip('/')}/{spec.name} while training goes on"))
    lines += [("features", str(folder)) for folder in features]
    lines += [("checks", said) for said in valid_sets.describe(params, spec.manifest.sources("valid"))]
    lines += [("checks", said) for said in valid_folds.describe(params, spec.manifest)]
    if train.ema_decay:
        said = f"a moving average of the weights, decay {train.ema_decay:g}, is scored and written in their place"
        lines.append(("average", said))
    if train.freeze or train.fine_tuning != FineTuningParams():
        lines += [("learns", part) for part in describe(learned_parameters(model, train), train.lr)]
    if spec.parent:
        changes = fingerprint.differences(spec.parent.description, spec.description) or ["nothing"]
        lines += [("differs", change) for change in changes]
    notes = [
        *without_effect(params),
        *without_cache(params),
        *options_without_effect(params.machine, model, ranks),
        *normalisation(params),
        *batch_normalisation(params, model),
    ]
    lines += [("note", text) for text in notes]
    return "\n".join(f"  {name:<8} {text}" for name, text in lines)


def memory_line(footprint: Footprint, device: torch.device) -> str:
    """Return what the tensors of a rank take; on the CPU also what there is beside them, which the bar counts too."""
    if device.type == "cuda":
        return str(footprint)
    return f"{footprint}; mem of the bar is all of the process, {size(memory_in_use(device))} before the first step"


def _packed(run: Run) -> list[tuple[str, str]]:
    """What is known of pairs that `prepare` has packed and `validate` has looked at."""
    spec = run.spec
    statistics = read_json(run.workspace.validation_verdict).get("statistics", {})
    return [
        ("captions", describe_cut(spec.manifest, spec.tokenizer)),
        *equal_pairs(run.params, spec.sizes, spec.visits, statistics),
    ]


def _streams(run: Run) -> list[tuple[str, str]]:
    return [("streams", said) for said in streaming.describe(run)]


def _order(train: TrainParams) -> str:
    if train.shuffle == "global" or train.sampling == "sequential":
        return train.sampling
    return f"{train.sampling}, shuffled in blocks of {plural(train.block_shards, 'shard')}"


def _sizes(params: Params) -> str:
    trained, used = training_image_size(params), params.model.image_size
    return "" if trained == used else f"; learns on pictures of {trained} pixels, is used on {used}"


def equal_pairs(
    params: Params, sizes: dict[str, int], visits: dict[str, int], statistics: dict[str, Any]
) -> list[tuple[str, str]]:
    """How many pairs have an equal one, and how many equal pairs a batch is to be expected to hold.

    `sizes` are the pairs of each source, `visits` what an epoch visits of it, `statistics` those of the verdict; none
    where a source's validation was before they were counted. The number is that of drawing a batch without order; a
    pair is taken to have its source's mean number of captions, and one that is equal by both counts twice. Pairs of
    different sources are not compared.
    """
    train, total = params.train, sum(visits.values())
    counted = {name: statistics.get(name, {}).get("train", {}) for name in sizes}
    if not all("equals" in values for values in counted.values()):
        return []
    batch = train.batch_size * (train.batch_size - 1)
    captions, pictures, expected = 0, 0, 0.0
    for name, values in counted.items():
        visited, equals = visits[name], values["equals"]
        captions += equals["captions"]
        pictures += equals["pictures"]
        # Of the pairs of what is visited, those that are equal: by a caption of each, or by their pictures.
        equal = equals["caption_pairs"] * (visited / values["captions"]) ** 2
        equal += equals["picture_pairs"] * (visited / sizes[name]) ** 2
        if train.sampling == "debiased":  # all of the batch from this source, in its share of the steps
            expected += visited / total * equal * batch / max(1, visited * (visited - 1))
        else:
            expected += equal * batch / max(1, total * (total - 1))
    of_captions = captions / sum(values["captions"] for values in counted.values())
    text = (
        f"{100 * of_captions:.3g}% of the captions and {100 * pictures / sum(sizes.values()):.3g}% of the pictures are "
        f"also another pair's of the source; about {expected:.3g} equal pairs a batch, as {train.equal_pairs}"
    )
    return [("equal", text)]


def resume_sentence(run: Run, start_step: int, saved_on: SavedOn | None, places: Places | None = None) -> str:
    """Return what the run does with what it found: a checkpoint of its own, one of its parent, or none.

    `places` are where the readers of streamed sources go on.
    """
    spec, world_size, threads = run.spec, run.ranks.world_size, torch.get_num_threads()
    if start_step >= spec.steps:
        return "already trained, the model is written again from its last checkpoint"
    if start_step and saved_on is None and spec.parent:
        return f"goes on from {spec.parent.reference} with other settings, as a run of its own"
    if start_step and places and places.begin.before and not places.begin.is_exact:
        before, now = (_readers(layout) for layout in (places.begin.before, places.begin.layout))
        return (
            f"resumes after step {start_step}, saved by {before}, now {now}: from the first tar that one of them had "
            "not finished, some pairs come again"
        )
    if start_step and saved_on and saved_on.ranks != world_size:
        return (
            f"resumes after step {start_step}, saved on {plural(saved_on.ranks, 'rank')}, now {world_size}: "
            "the same pairs in the same order"
        )
    if start_step and saved_on and saved_on.threads not in (None, threads) and run.ranks.device.type == "cpu":
        return (
            f"resumes after step {start_step}, saved with {plural(saved_on.threads or 0, 'thread')} a rank, now "
            f"{threads}: sums are rounded differently from here on"
        )
    gathers = gathered_as(run.params.machine, run.params.train.precision, run.ranks)
    if start_step and saved_on and saved_on.gathers not in (None, gathers):
        return (
            f"resumes after step {start_step}, saved with weights gathered as {saved_on.gathers} "
            f"(machine.shard_gathers), now {gathers}: they are rounded differently from here on"
        )
    if start_step:
        return f"resumes after step {start_step}: a checkpoint with the same parameters, data and code is there"
    return "starts from the beginning: no checkpoint with these parameters, data and code"


def _readers(layout: Layout) -> str:
    return f"{plural(layout.ranks, 'rank')} x {layout.workers} machine.loader_workers"


def without_effect(params: Params) -> list[str]:
    """Settings that do nothing in the chosen mode: said, not ignored."""
    train, machine = params.train, params.machine
    notes = []
    if machine.shard_model and machine.shard_gathers == "low" and train.precision == "float32":
        notes.append("machine.shard_gathers low has no effect with train.precision float32: there are no 16 bits")
    if train.step == "plain":
        notes.append(f"train.micro_batch {train.micro_batch} has no effect with train.step plain")
        if machine.kept_graphs > 1:
            notes.append(
                f"machine.kept_graphs {machine.kept_graphs} has no effect with train.step plain, which keeps all"
            )
        if machine.activation_budget != "none":
            notes.append(f"machine.activation_budget {machine.activation_budget} has no effect with train.step plain")
    if train.shuffle == "blocks" and train.sampling == "sequential":
        notes.append("train.shuffle blocks has no effect with train.sampling sequential, which shuffles nothing")
    if train.mixup == "none" and _is_chosen(train, "mixup_alpha"):
        notes.append(f"train.mixup_alpha {train.mixup_alpha:g} has no effect with train.mixup none")
    if train.init_from and params.prepare.tokenizer_vocab:
        notes.append(f"the tokenizer of prepare has no effect: that of train.init_from {train.init_from} is used")
    image_weights = params.model.image_tower.weights
    if image_weights and (start := train.init_from or train.continue_from):
        notes.append(f"model.image_tower.weights {image_weights} has no effect: the weights of {start} are used")
    if train.image_size and "image" in unaugmented_sides(train):
        notes.append(
            f"train.image_size {train.image_size} has no effect: the frozen image tower sees what evaluation sees"
        )
    for side in train.freeze:
        for name in (f"{side}_lr_scale", f"freeze_{side}_blocks"):
            if _is_chosen(train.fine_tuning, name):
                value = getattr(train.fine_tuning, name)
                notes.append(f"train.fine_tuning.{name} {value:g} has no effect: train.freeze names that tower")
    if train.reading == "indexed" and train.streaming.sources:
        notes.append("train.streaming has no effect with train.reading indexed")
    if train.reading == "streaming" and machine.shards:
        notes.append(f"machine.shards {machine.shards}: validation pairs alone are read there")
    if train.valid_checks == 0 and _is_chosen(train, "valid_pairs"):
        notes.append(f"train.valid_pairs {train.valid_pairs} has no effect with train.valid_checks 0")
    if train.valid_set_pictures and not (train.valid_checks and params.evaluate.classification):
        notes.append(
            f"train.valid_set_pictures {train.valid_set_pictures} has no effect without train.valid_checks and a "
            "set in evaluate.classification"
        )
    return notes


def _is_chosen(section: Section, name: str) -> bool:
    """Whether a value is another than every file begins with, so that somebody expects something of it."""
    return bool(getattr(section, name) != type(section).model_fields[name].default)


def normalisation(params: Params) -> list[str]:
    """Published weights that were trained with another mean and deviation of the input than the run's."""
    model, tower = params.model, params.model.image_tower
    begins_with_them = tower.pretrained and not (params.train.init_from or params.train.continue_from)
    published = published_input(tower.name.removeprefix("timm:")) if begins_with_them else None
    if published is None or published == (model.mean, model.std):
        return []
    mean, std = map(list, published)
    return [
        f"the weights of {tower.name} were trained with model.mean {mean} and model.std {std}, the run has "
        f"{list(model.mean)} and {list(model.std)}; they know most with their own"
    ]


def batch_normalisation(params: Params, model: nn.Module) -> list[str]:
    """Batch-normalised towers under debiased sampling: trained on one source a batch, used with the mean of all."""
    layers = any(isinstance(module, _BatchNorm) for module in model.modules())
    frozen = params.model.image_tower.batch_norm == "frozen"
    if frozen and not layers:
        return ["model.image_tower.batch_norm frozen has no effect: the image tower has no BatchNorm"]
    if frozen or params.train.sampling != "debiased" or "image" in params.train.freeze or not layers:
        return []
    return [
        "the image tower has BatchNorm: with train.sampling debiased each batch is normalised by its own source, "
        "evaluation by the running mean of all, which costs sources that look different; choose a tower with "
        "LayerNorm or GroupNorm, or start from published weights and set model.image_tower.batch_norm to frozen"
    ]
