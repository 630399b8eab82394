"""The text of a recipe for the images of a survey: short, with comments, and with nothing of im2im_zoo's own models in it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import yaml

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.patches.advice import Choice, choose_batch, choose_patch
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import AUTHORS_HINT, METADATA_COMMENT, METADATA_HINTS, make_recipe, parse_value
from im2im_zoo.workflows.new_recipe.survey import ImageSurvey, TargetKind, pixel_ratio

Task = Literal["segment", "objects", "restore", "denoise", "predict-stain"]
TASKS: tuple[Task, ...] = get_args(Task)
WORDS: Mapping[Task, str] = {
    "objects": "find and count single objects (label images as targets)",
    "segment": "tell foreground from background (masks as targets)",
    "restore": "improve images (better images as targets)",
    "predict-stain": "predict a stain or another modality (its images as targets)",
    "denoise": "remove noise (no targets needed)",
}
_SUGGESTED: Mapping[TargetKind, Task] = {
    "label image": "objects",
    "binary mask": "segment",
    "intensities": "restore",
    "none": "denoise",
}
_NAMES: Mapping[Task, str] = {
    "objects": "Objects in",
    "segment": "Segmentation of",
    "restore": "Restoration of",
    "predict-stain": "Predicted stain of",
    "denoise": "Denoising of",
}
# Steps of the optimizer in a training, without a GPU (some ten minutes for small images) and with one.
_STEPS = {False: 800, True: 4000}
_EPOCHS = {False: 40, True: 100}
_LEAST_EPOCHS, _MOST_EPOCHS = 5, 300
_PATCHES = (1, 64)


@dataclass(frozen=True, slots=True)
class Person:
    """Entry of an author or maintainer, as `packaging.editing.entries.parse_person` gives it."""

    fields: Mapping[str, str]

    @property
    def text(self) -> str:
        """The entry in one line of YAML."""
        return _flow(dict(self.fields))


@dataclass(frozen=True, slots=True)
class NewRecipe:
    """A recipe as text, and as it is read."""

    text: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class _Plan:
    """Network and schedule of a recipe."""

    network: str
    patch: Choice
    batch: Choice
    patches: int
    epochs: int


def suggest_task(survey: ImageSurvey) -> Task:
    """Return the task that the targets of a survey are for."""
    return _SUGGESTED[survey.target]


def suggest_name(survey: ImageSurvey, task: Task) -> str:
    """Return a name for a recipe, from the task and the folder."""
    words = re.sub(r"[^\w+\- ()]", " ", survey.path.resolve().stem.replace("_", " ")).strip() or "images"
    return f"{_NAMES[task]} {words}"[:128]


def write_recipe(
    survey: ImageSurvey,
    task: Task,
    *,
    name: str | None = None,
    authors: Sequence[Person] = (),
    license_id: str | None = None,
    gpu: bool = False,
) -> NewRecipe:
    """Write the recipe of a survey.

    Args:
        survey: of the images.
        task: to learn.
        name: of the model.
        authors: of the model.
        license_id: SPDX identifier of the licence of its weights.
        gpu: whether training uses one.

    Raises:
        DataError: targets that the task cannot use.
    """
    _check_task(survey, task)
    plan = _plan(survey, task, gpu=gpu)
    title = name or suggest_name(survey, task)
    text = "\n".join(
        [
            f"# Written by `im2im-zoo new` for {survey.count} "
            f"{'pairs' if survey.layout.has_targets else 'images'}; change what you like.",
            f"name: {_flow(title)}",
            *_framework(survey, task, plan),
            "network:",
            plan.network,
            *_data(survey, task, plan),
            *_tensors(survey, task),
            f"trainer: {{max_epochs: {plan.epochs}}}",
            *_monitor(task),
            *_package(authors, license_id),
            "",
        ]
    )
    return NewRecipe(text, make_recipe(parse_value(text), "the new recipe"))


def _check_task(survey: ImageSurvey, task: Task) -> None:
    """Refuse a task that the targets are not for.

    Raises:
        DataError: there are no targets, or they are of another kind.
    """
    if task != "denoise" and not survey.layout.has_targets:
        raise DataError(
            f"--task {task} needs targets, but by their names the images of {survey.path} do not pair; give --images and --targets "
            "with patterns such as '{name}.tif' and '{name}_mask.tif', or --task denoise, which needs none"
        )
    if task in ("objects", "segment") and survey.target == "intensities":
        raise DataError(
            f"--task {task} needs masks or label images, but the targets have intensities ({survey.dtypes[1]}); choose --task "
            "restore or predict-stain, or check --targets"
        )
    if task in ("restore", "predict-stain") and survey.target in ("label image", "binary mask"):
        raise DataError(
            f"--task {task} needs images as targets, but these are {survey.target}s; choose --task objects or segment, or check "
            "--targets"
        )


def _plan(survey: ImageSurvey, task: Task, *, gpu: bool) -> _Plan:
    space = len(survey.space)
    patch = choose_patch(survey.extents, gpu=gpu)
    batch = choose_batch(patch.value, gpu=gpu)
    steps, wanted = _STEPS[gpu], _EPOCHS[gpu]
    least, most = _PATCHES
    patches = min(most, max(least, round(steps / wanted * batch.value / max(1, survey.train))))
    epochs = round(steps / max(1, survey.train * patches // batch.value))
    epochs = min(_MOST_EPOCHS, max(_LEAST_EPOCHS, epochs))
    return _Plan(_network(survey, task, space, gpu=gpu), patch, batch, patches, epochs)


def _network(survey: ImageSurvey, task: Task, space: int, *, gpu: bool) -> str:
    inputs, outputs = survey.channels[0], _output_channels(survey, task)
    if task == "denoise":
        return (
            "  callable: im2im_zoo.networks.blur_pool_unet.BlurPoolUNet\n"
            f"  kwargs: {{spatial_dims: {space}, in_channels: {inputs}, out_channels: {outputs}, depth: {3 if space == 2 else 2}, "
            f"features: {32 if gpu else 16}}}"
        )
    if space == 3:
        # Pooled in the plane only where planes are few or far apart.
        flat = pixel_ratio(survey) >= 1.5 or survey.extents.smallest[0] < 32
        features = [32, 64, 128] if gpu else [16, 32, 48]
        if flat:
            return (
                "  # Pools in the plane only: planes are few, or far apart.\n"
                "  callable: im2im_zoo.networks.anisotropic_unet.AnisotropicUNet\n"
                f"  kwargs: {{in_channels: {inputs}, out_channels: {outputs}, features: {features}}}"
            )
    small = [16, 24, 32, 48, 48, 16] if space == 2 else [16, 16, 32, 48, 48, 16]
    widths = [32, 32, 64, 128, 256, 32] if gpu else small
    return (
        "  callable: monai.networks.nets.BasicUNet\n"
        f"  kwargs: {{spatial_dims: {space}, in_channels: {inputs}, out_channels: {outputs}, features: {widths}, norm: batch, "
        "act: relu}"
    )


def _output_channels(survey: ImageSurvey, task: Task) -> int:
    return {"objects": 2, "segment": survey.channels[1], "denoise": survey.channels[0]}.get(
        task, survey.channels[1]
    )


def _framework(survey: ImageSurvey, task: Task, plan: _Plan) -> list[str]:
    schedule = [
        "    optimizer: {callable: torch.optim.AdamW, call: false, kwargs: {lr: 2e-3}}"
        if task != "restore" and task != "predict-stain"
        else "    optimizer: {callable: torch.optim.AdamW, call: false, kwargs: {lr: 1e-3}}",
        "    # Falls to nothing over T_max epochs: give it and trainer.max_epochs the same number.",
        "    scheduler: {callable: torch.optim.lr_scheduler.CosineAnnealingLR, call: false, "
        f"kwargs: {{T_max: {plan.epochs}}}}}",
    ]
    own = {
        "objects": [
            "  # Learns how far pixels are from the border of their object, and the borders; a watershed makes objects of them.",
            "  callable: im2im_zoo.frameworks.instance_maps.InstanceMaps",
            "  kwargs:",
            "    maps: [distance, boundary]",
            f"    spatial_dims: {len(survey.space)}",
            "    # Pixels from the border of an object at which the distance is 1: about the radius of small objects.",
            f"    reach: {_reach(survey)}",
        ],
        "segment": [
            "  callable: im2im_zoo.frameworks.fcn.FCN",
            "  kwargs:",
            "    loss: {callable: monai.losses.DiceCELoss, kwargs: {sigmoid: true}}",
            "    metrics: {dice: {callable: im2im_zoo.frameworks.metrics.Dice}}",
        ],
        "denoise": [
            "  # Noise2Void (N2V2): learns from noisy images only; takes away noise that is independent from pixel to pixel.",
            "  callable: im2im_zoo.frameworks.noise2void.Noise2Void",
            "  kwargs:",
            "    strategy: median",
            "    masked_fraction: 0.04",
        ],
    }
    regression = [
        "  callable: im2im_zoo.frameworks.fcn.FCN",
        "  kwargs:",
        "    loss: {callable: torch.nn.MSELoss}",
        "    metrics: {pearson: {callable: im2im_zoo.frameworks.metrics.Pearson}}",
    ]
    return ["framework:", *own.get(task, regression), *schedule]


def _data(survey: ImageSurvey, task: Task, plan: _Plan) -> list[str]:
    lines = ["data:", f"  path: {_flow(survey.fields['path'])}"]
    notes = {
        "skip_unpaired": f"{len(survey.layout.unpaired)} images without a partner are left out"
        if survey.layout.unpaired
        else "results of other programs are left out"
    }
    for key, value in survey.fields.items():
        if key != "path":
            lines += [f"  # {notes[key]}."] if key in notes else []
            lines.append(f"  {key}: {_flow(value)}")
    lines += [
        f"  patch_size: {plan.patch.value}",
        f"  patches_per_image: {plan.patches}",
        f"  batch_size: {plan.batch.value}",
    ]
    if task == "objects" and survey.target == "label image":
        lines += ["  # The others lie anywhere, so that background is seen, too.", "  object_patches: 0.7"]
    if task == "predict-stain":
        lines.append("  # No flips or rotations: transmitted light falls from one side.")
        return lines
    axes = range(len(survey.space))
    lines.append("  augmentations:")
    lines += [
        f"    - {{callable: monai.transforms.RandFlipd, kwargs: {{prob: 0.5, spatial_axis: {axis}}}}}"
        for axis in axes
    ]
    if len(survey.space) == 2:
        lines.append("    - {callable: monai.transforms.RandRotate90d, kwargs: {prob: 0.5}}")
    if task in ("objects", "segment"):
        lines.append(
            "    - {callable: monai.transforms.RandScaleIntensityd, kwargs: {keys: [input], factors: 0.3, prob: 0.5}}"
        )
    return lines


def _tensors(survey: ImageSurvey, task: Task) -> list[str]:
    axes = ", ".join(survey.space)
    together = f"[channel, {axes}]" if survey.channels[0] == 1 else f"[{axes}]"
    cast = "    - {id: ensure_dtype, kwargs: {dtype: float32}}"
    fixed = "    - {id: fixed_zero_mean_unit_variance}  # mean and standard deviation: training measures them"
    back = [
        "    # Back to the intensities of the targets.",
        "    - {id: scale_linear, kwargs: {gain: std, offset: mean}}",
    ]
    lines = ["input:", "  id: image", f"  axes: [batch, channel, {axes}]", "  preprocessing:"]
    if task in ("objects", "segment"):
        lines += [
            "    # From each image's own percentiles, so that dim and bright ones look alike.",
            f"    - {{id: scale_range, kwargs: {{axes: {together}, min_percentile: 1, max_percentile: 99.8}}}}",
            cast,
        ]
    elif task == "predict-stain":
        lines += [f"    - {{id: zero_mean_unit_variance, kwargs: {{axes: {together}}}}}", cast]
    else:
        lines += [cast, fixed]
    if task == "segment":
        lines += ["target:", "  preprocessing:", "    - {id: binarize, kwargs: {threshold: 0.5}}", cast]
    if task in ("restore", "predict-stain"):
        lines += ["target:", "  preprocessing:", cast, fixed]
    lines.append("output:")
    if task == "objects":
        reach = _reach(survey)
        size = 1 if survey.objects is None else max(4, round(survey.objects.voxels / 2))
        lines += [
            "  id: maps",
            "  channels: [distance, boundary]",
            "  task: instance",
            "  postprocessing: [{id: sigmoid}]",
            "  grouping:",
            "    callable: im2im_zoo.instances.methods.watershed.group",
            "    # min_size: half of the smallest objects; objects below it are left out.",
            f"    kwargs: {{channel: 0, seed_threshold: 0.6, foreground_threshold: {max(0.1, min(0.5, 0.75 / reach)):.2g}, "
            f"boundary: 1, min_size: {size}}}",
        ]
    elif task == "segment":
        lines += ["  id: probability", "  task: semantic", "  postprocessing: [{id: sigmoid}]"]
    else:
        name = {"denoise": "denoised", "restore": "restored"}.get(task, "predicted")
        back = ["    # Back to the intensities of the images.", back[1]] if task == "denoise" else back
        lines += [f"  id: {name}", "  task: regression", "  postprocessing:", *back]
    return lines


def _reach(survey: ImageSurvey) -> int:
    """Return the depth of small objects in steps, from 2 to 8: a smaller reach leaves touching objects connected."""
    return 5 if survey.objects is None else min(8, max(2, survey.objects.depth))


def _monitor(task: Task) -> list[str]:
    metric = {"segment": "dice", "restore": "pearson", "predict-stain": "pearson"}.get(task)
    return [] if metric is None else [f"monitor: val_{metric}", "monitor_mode: max"]


def _package(authors: Sequence[Person], license_id: str | None) -> list[str]:
    lines = [METADATA_COMMENT, "package:"]
    lines += ["  authors:", *(f"    - {author.text}" for author in authors)] if authors else [AUTHORS_HINT]
    if license_id is None:
        return [*lines, *METADATA_HINTS]
    return [*lines, f"  license: {license_id}", *(h for h in METADATA_HINTS if "license" not in h)]


def _flow(value: Any) -> str:
    """Return a value in one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
