"""Survey of the images of a folder: how they belong together, what they are, and what their targets look like."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.core.errors import AxesError, DataError
from im2im_zoo.data.pairing.files import format_file_list
from im2im_zoo.data.pairing.pairing import find_pairs, list_pairs
from im2im_zoo.data.pairing.pairs import Pair
from im2im_zoo.data.pairing.recognition import Layout, has_few_steps, recognize
from im2im_zoo.data.patches.extents import ImageExtents, measure_extents
from im2im_zoo.data.statistics import FEWER_VOXELS, PERCENTILES, SetStatistics, measure_images
from im2im_zoo.images import open_image
from im2im_zoo.recipe import Data, Recipe
from im2im_zoo.recipe.load import make_recipe

TargetKind = Literal["label image", "binary mask", "intensities", "none"]
# Targets whose voxels are looked at, and voxels of each.
_LOOKED_AT = 8
_VOXELS = 2**22
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ObjectSizes:
    """Sizes of the objects of label images.

    Attributes:
        count: objects in the images that were looked at.
        voxels: 5th percentile of the voxels of an object.
        depth: 10th percentile of the steps from the innermost voxel of an object to its border.
    """

    count: int
    voxels: int
    depth: int


@dataclass(frozen=True, slots=True)
class ImageSurvey:
    """Images of a folder, and what is known of them.

    Attributes:
        path: the folder, or table.
        layout: how the files belong together.
        fields: keys of a recipe's `data` section.
        train, validation: number of pairs (images, without targets); one pair, which has to be cut, trains only.
        space: z, y, x or y, x.
        channels: number of channels of the images and the targets.
        sizes: smallest and largest size along each of `space`.
        dtypes: of the images and the targets.
        extents: sizes for the choice of patches.
        target: what the targets look like.
        objects: their sizes, if the targets are label images.
        images, targets: statistics of the voxels of the images, and of targets that are intensities.
    """

    path: Path
    layout: Layout
    fields: dict[str, Any]
    train: int
    validation: int
    space: tuple[str, ...]
    channels: tuple[int, int]
    sizes: tuple[tuple[int, int], ...]
    dtypes: tuple[str, str]
    extents: ImageExtents
    target: TargetKind
    objects: ObjectSizes | None
    images: SetStatistics
    targets: SetStatistics | None

    @property
    def count(self) -> int:
        """Number of pairs (images, without targets)."""
        return self.train + self.validation

    def rows(self) -> list[tuple[str, str]]:
        """Return what was found, for a table."""
        kind = "pairs" if self.layout.has_targets else "images"
        sizes = " x ".join(str(low) if low == high else f"{low}-{high}" for low, high in self.sizes)
        rows = [
            (kind, f"{self.count} ({self.layout.described})"),
            *_file_rows("without a partner", self.layout.unpaired, self.path),
            *_file_rows("not used", self.layout.others, self.path),
            ("axes", f"{', '.join(self.space)}, {self.channels[0]} channel{'s' * (self.channels[0] != 1)}"),
            ("sizes", f"{sizes} {'voxels' if len(self.space) == 3 else 'pixels'}, {self.dtypes[0]}"),
        ]
        if self.extents.pixel_size is not None:
            pairs = zip(self.space, self.extents.pixel_size, strict=True)
            rows.append(("pixel size", ", ".join(f"{a} {size:g} µm" for a, size in pairs)))
        if self.fields.get("input_channels") == ["grey"]:
            rows.append(("note", "some images are colour pictures and others grey; all are read as grey"))
        if self.layout.has_targets:
            rows.append(("targets", f"{self._target_words()}, {self.dtypes[1]}"))
        rows += _statistics_rows("intensities", self.images)
        if self.targets is not None:
            rows += _statistics_rows("target intensities", self.targets)
        return rows

    def plain(self) -> dict[str, Any]:
        """Return what was found as JSON values."""
        return {
            "data": {**self.fields, "path": str(self.path)},
            "train": self.train,
            "validation": self.validation,
            "unpaired": [str(path) for path in self.layout.unpaired],
            "not_used": [str(path) for path in self.layout.others],
            "axes": list(self.space),
            "channels": list(self.channels),
            "sizes": [list(size) for size in self.sizes],
            "dtypes": list(self.dtypes),
            "pixel_size_um": None if self.extents.pixel_size is None else list(self.extents.pixel_size),
            "target": self.target,
            "statistics": {
                "input": self.images.plain(),
                "target": None if self.targets is None else self.targets.plain(),
            },
        }

    def _target_words(self) -> str:
        if self.objects is None:
            return self.target
        size = (
            f", the smallest of about {self.objects.voxels} {'voxels' if len(self.space) == 3 else 'pixels'}"
        )
        return f"{self.target}s ({self.objects.count} objects in those looked at{size})"


def survey_images(
    path: Path,
    *,
    images: str | None = None,
    targets: str | None = None,
    paired: bool = True,
    axes: str | None = None,
    target_axes: str | None = None,
) -> ImageSurvey:
    """Survey the images of a folder: open all of them, and read some.

    Args:
        path: a folder, or a CSV table.
        images, targets: patterns or columns, as of `recognition.recognize`.
        paired: whether to look for targets.
        axes, target_axes: of the files, as letters, if these do not declare them.

    Raises:
        DataError: no images, images of 2D and of 3D, or files that cannot be paired.
        ImageError, AxesError: a file that cannot be opened.
    """
    layout = recognize(path, images, targets, paired=paired)
    fields = dict(layout.fields) | {"path": str(Path(layout.fields["path"]).resolve())}
    if axes is not None:
        fields["input_axes"] = axes
    if target_axes is not None:
        fields["target_axes"] = target_axes
    data = Data(**fields)
    pairs: Sequence[Pair] = list_pairs(data)
    opened = [(pair, open_image(pair.input, axes=axes)) for pair in pairs]
    if layout.has_targets and axes is not None and target_axes is None and _lacks_axes(pairs):
        fields["target_axes"] = axes.replace("c", "")
    space = _common_space(opened)
    if any(image.sizes.get("time", 1) > 1 for _, image in opened):
        fields["time_points"] = True
        pairs = [replace(pair, time=0) for pair in pairs]
    counts = {image.sizes.get("channel", 1) for _, image in opened}
    if len(counts) > 1 and counts <= {1, 3, 4}:
        # Grey images, of which some were saved as colour pictures.
        fields["input_channels"] = ["grey"]
    shown = placeholder_recipe(fields, space)
    inputs, aims = _open_sides(pairs, shown, layout.has_targets)
    kind, objects = _look_at(aims)
    extents = measure_extents([*inputs, *aims], aims if kind == "label image" else ())
    train, validation = _split_sizes(Data(**fields), len(pairs))
    return ImageSurvey(
        path=path,
        layout=layout,
        fields=fields,
        train=train,
        validation=validation,
        space=space,
        channels=(
            inputs[0].sizes["channel"],
            aims[0].sizes["channel"] if aims else inputs[0].sizes["channel"],
        ),
        sizes=tuple((min(i.sizes[a] for i in inputs), max(i.sizes[a] for i in inputs)) for a in space),
        dtypes=(_common_dtype(inputs), _common_dtype(aims)),
        extents=extents,
        target=kind,
        objects=objects,
        images=measure_images(inputs, percentiles=True, most_voxels=FEWER_VOXELS, key="the images"),
        targets=measure_images(aims, percentiles=True, most_voxels=FEWER_VOXELS, key="the targets")
        if kind == "intensities"
        else None,
    )


def _lacks_axes(pairs: Sequence[Pair]) -> bool:
    """Return whether the files of targets do not state their axes."""
    try:
        open_image(pairs[0].target)
    except AxesError:
        return True
    return False


def _open_sides(
    pairs: Sequence[Pair], recipe: Recipe, has_targets: bool
) -> tuple[list[xr.DataArray], list[xr.DataArray]]:
    from im2im_zoo.data.pairing.image_pair import check_channels, open_image_pair

    samples = [open_image_pair(pair, recipe) for pair in pairs]
    inputs = [sample.input for sample in samples]
    aims = [sample.target for sample in samples] if has_targets else []
    check_channels(inputs, "input", recipe)
    if aims:
        check_channels(aims, "target", recipe)
    return inputs, aims


def _common_space(opened: Sequence[tuple[Pair, xr.DataArray]]) -> tuple[str, ...]:
    """Return z, y, x or y, x.

    Raises:
        DataError: images of both.
    """
    stacks = [str(pair.input) for pair, image in opened if image.sizes.get("z", 1) > 1]
    planes = [str(pair.input) for pair, image in opened if image.sizes.get("z", 1) == 1]
    if stacks and planes:
        raise DataError(
            "some images are 3D and others 2D; a model is for one of them: put them into folders of their own, or choose "
            f"by --images and --targets\n3D:\n{format_file_list(stacks)}\n2D:\n{format_file_list(planes)}"
        )
    return ("z", "y", "x") if stacks else ("y", "x")


def placeholder_recipe(fields: dict[str, Any], space: Sequence[str]) -> Recipe:
    """Return a recipe by which images are opened."""
    content = {
        "name": "Images as they are found",
        "framework": {"callable": "torch.nn.Identity"},
        "network": {"callable": "torch.nn.Identity"},
        "data": fields,
        "input": {"axes": ["batch", "channel", *space]},
        "output": {"task": "regression"},
    }
    return make_recipe(content, str(fields["path"]))


def _split_sizes(data: Data, count: int) -> tuple[int, int]:
    """Return the number of training and validation pairs; a single pair, which cannot be split, trains."""
    if data.split == "random" and count < 2:
        return count, 0
    pairs = find_pairs(data, 0)
    return len(pairs.train), len(pairs.validation)


def _common_dtype(images: Sequence[xr.DataArray]) -> str:
    counts = Counter(str(image.dtype) for image in images)
    return ", ".join(name for name, _ in counts.most_common())


def _look_at(targets: Sequence[xr.DataArray]) -> tuple[TargetKind, ObjectSizes | None]:
    """Return what targets look like, from the middle of some of them, and the sizes of their objects."""
    if not targets:
        return "none", None
    step = math.ceil(len(targets) / _LOOKED_AT)
    seen = [_read_middle(target) for target in targets[::step]]
    whole = all(bool((values == np.floor(values)).all()) for values in seen)
    few = all(has_few_steps(target.isel(channel=0)) for target in targets[::step])
    if not whole or not few or targets[0].sizes["channel"] != 1:
        return "intensities", None
    if all(len(np.unique(values)) <= 2 for values in seen):
        several = any(values.max() > 1 and values.max() not in (255, 65535) for values in seen)
        return ("label image" if several else "binary mask"), _object_sizes(seen, binary=not several)
    return "label image", _object_sizes(seen, binary=False)


def _read_middle(target: xr.DataArray) -> NDArray[np.float64]:
    """Read the middle of the first channel, of bounded size."""
    first = target.isel(channel=0)
    part = min(1.0, (_VOXELS / math.prod(first.shape)) ** (1 / first.ndim))
    lengths = {axis: max(1, int(size * part)) for axis, size in first.sizes.items()}
    places = {a: slice(s := (first.sizes[a] - n) // 2, s + n) for a, n in lengths.items()}
    return first.isel(places).to_numpy().astype(np.float64)


def _object_sizes(images: Sequence[NDArray[np.float64]], *, binary: bool) -> ObjectSizes | None:
    """Measure the objects of label images; of masks, their connected components."""
    voxels: list[int] = []
    depths: list[float] = []
    for values in images:
        labels = ndimage.label(values > 0)[0] if binary else np.unique(values, return_inverse=True)[1]
        labels = np.asarray(labels).reshape(values.shape)
        if not binary and values.min() > 0:
            labels = labels + 1
        count = int(labels.max())
        if not count:
            continue
        voxels += np.bincount(labels.ravel(), minlength=count + 1)[1:].tolist()
        depths += np.atleast_1d(
            ndimage.maximum(_steps_to_border(labels), labels, np.arange(1, count + 1))
        ).tolist()
    if not voxels:
        return None
    return ObjectSizes(len(voxels), int(np.quantile(voxels, 0.05)), int(np.quantile(depths, 0.1)))


def _steps_to_border(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Return the steps between neighbouring voxels that lead out of the object, 0 in the background."""
    inside = labels > 0
    edge = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        differ = np.diff(labels.astype(np.int64), axis=axis) != 0
        before = tuple(slice(None, -1) if a == axis else slice(None) for a in range(labels.ndim))
        after = tuple(slice(1, None) if a == axis else slice(None) for a in range(labels.ndim))
        edge[before] |= differ
        edge[after] |= differ
    core = inside & ~edge
    steps = (
        ndimage.distance_transform_cdt(core, metric="taxicab") if not core.all() else core.astype(np.int32)
    )
    return np.where(inside, np.asarray(steps, np.int32) + 1, 0).astype(np.int32)


def _file_rows(what: str, files: Sequence[Path], path: Path) -> list[tuple[str, str]]:
    if not files:
        return []
    names = [str(f.relative_to(path)) if f.is_relative_to(path) else str(f) for f in files[:_SHOWN]]
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return [(what, f"{len(files)}: {', '.join(names)}{more}")]


def _statistics_rows(what: str, found: SetStatistics) -> list[tuple[str, str]]:
    rows = []
    for number, name in enumerate(found.channels):
        label = what if len(found.channels) == 1 else f"{what}, channel {name}"
        cuts = ", ".join(
            f"{p:g} %: {value:.4g}" for p, value in zip(PERCENTILES, found.percentiles[number], strict=True)
        )
        rows.append(
            (label, f"mean {found.mean[number]:.4g}, standard deviation {found.std[number]:.4g}; {cuts}")
        )
    return rows


def pixel_ratio(survey: ImageSurvey) -> float:
    """Return how much longer voxels are along z than along x; 1 in 2D, 2 in 3D if it is not known."""
    if len(survey.space) < 3:
        return 1.0
    size = survey.extents.pixel_size
    return 2.0 if size is None else size[0] / size[-1]
