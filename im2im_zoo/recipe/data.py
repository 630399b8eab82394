"""The `data` section of a recipe: which images, how they are split, and how patches are drawn from them."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from im2im_zoo.core.errors import RecipeError
from im2im_zoo.recipe.components import Component
from im2im_zoo.recipe.section import FileAxes, Section

Channels = tuple[int | str, ...] | None
V = TypeVar("V")


class Data(Section):
    """The image pairs, their split, and the sampling of patches from them."""

    path: Path = Field(description="Folder of the images; a CSV file or one image, depending on `pairing`.")
    pairing: Literal["folders", "suffixes", "patterns", "csv", "channels", "unpaired", "self"] = Field(
        default="folders",
        description="folders: files of the same name in two subfolders; suffixes: one folder, files that differ "
        "in their suffix; patterns: paths with `{name}`, the part that the files of a pair share, as in `images/{name}` and "
        "`masks/{name}_mask`; csv: a table with one column of paths for each kind (or of https addresses of OME-Zarrs), or `pairs`; channels: "
        "channels of the same files; unpaired: two subfolders of any images, of which those of the same name validate; self: one "
        "subfolder of images, which are their own targets. Images of the same name in the subfolder `target`, if there is one, are "
        "only used to evaluate held-out results.",
    )
    pairs: tuple[dict[str, str], ...] = Field(
        default=(),
        description="With pairing csv, the rows of the table, each as column: path; paths are relative to `path`, which is then a folder.",
    )
    input: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="Subfolder (default `images`), suffix (default `_IM`), pattern or CSV column (default `input`); several of them for images "
        "whose channels are joined, in this order, to one input.",
    )
    target: str | None = Field(
        default=None,
        description="Subfolder (default `targets`), suffix (default `_GT`), pattern or CSV column (default `target`).",
    )
    cost: str | None = Field(
        default=None,
        description="Subfolder, suffix, pattern or CSV column of the cost maps (weight maps), if there are any: how much each voxel of the "
        "target counts in the loss, 0 for not at all.",
    )
    ignore: tuple[str, ...] = Field(
        default=(),
        description="Names or relative paths of files that are not used, with the wildcards * and ?.",
    )
    skip_unpaired: bool = Field(
        default=False,
        description="Whether images without a partner are left out; by default they are an error.",
    )
    input_channels: Channels = Field(
        default=None,
        description="Channels of the input files, or of their joined channels, by name or by number counted from 0; `[grey]` converts colour images, and takes "
        "greyscale ones as they are; default: all but the transparency.",
    )
    target_channels: Channels = Field(
        default=None,
        description="Channels of the target files, by name or by number counted from 0, or `[grey]`; default: all but the transparency.",
    )
    cost_channels: Channels = Field(
        default=None, description="Channel of the cost maps' files, if they have several."
    )
    input_axes: FileAxes = Field(
        default=None,
        description="Axes of the input files as letters (`zyx`), if the files do not declare them.",
    )
    target_axes: FileAxes = Field(
        default=None, description="Axes of the target files as letters, if the files do not declare them."
    )
    cost_axes: FileAxes = Field(
        default=None, description="Axes of the cost maps' files as letters, if the files do not declare them."
    )
    split: Literal["random", "folders", "column"] = Field(
        default="random",
        description="random: by `validation` and `seed`; folders: `train/` and `val/` within `path`, or those of `split_folders`; "
        "column: train or val in the CSV's column `split`.",
    )
    split_folders: tuple[str, str] = Field(
        default=("train", "val"),
        description="With split folders, the folders of the images to train and to validate on.",
    )
    validation: float = Field(
        default=0.2, gt=0, lt=1, description="Fraction of the images for validation, at least one."
    )
    group: str | None = Field(
        default=None,
        description="Regular expression of the part of a name (its first group, if it has one) that images of one stack, well or "
        "patient share; with pairing csv, a column. The split keeps them on one side.",
    )
    time_points: bool = Field(
        default=False,
        description="Whether each time point of the files is an image; the split keeps those of one movie on one side.",
    )
    folds: int | None = Field(
        default=None,
        ge=2,
        description="Cross-validation: split by `seed` into this many parts instead, of which `fold` validates.",
    )
    fold: int = Field(default=0, ge=0, description="The part that validates, from 0, with `folds`.")
    patch_size: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        default=None,
        description="Voxels of a training patch along the input's space axes (z,) y, x. Default: selected when training begins, for the "
        "images, the network and the machine, and written to the recipe in the run folder.",
    )
    patches_per_image: int = Field(
        default=16,
        ge=1,
        description="Random patches drawn from each training image in an epoch; unpaired: on average, from each image of "
        "the side that has more.",
    )
    object_patches: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of the training patches drawn around an object of the target, chosen uniformly; the "
        "rest lie anywhere. For instance labels.",
    )
    foreground_patches: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of the training patches drawn around a voxel above 0 of the preprocessed target; the rest lie anywhere.",
    )
    cost_patches: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of the training patches drawn around voxels in proportion to their cost; the rest lie anywhere.",
    )
    hard_patches: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of the training patches drawn where the loss was high in earlier epochs, in proportion to it; the rest lie "
        "anywhere.",
    )
    cache: str = Field(
        default="temporary",
        min_length=1,
        description="Where the preprocessed images are stored: temporary: in a folder that is removed at the end; kept: in "
        "the user's cache, for later runs; a folder, which is kept as well; none: nowhere, patches are read from the images "
        "and preprocessed one by one.",
    )
    cache_gb: float = Field(
        default=50,
        gt=0,
        description="Largest size of a kept cache in GB; the least recently used images are removed first.",
    )
    loaded: float = Field(
        default=1,
        gt=0,
        le=1,
        description="Share of the training images that are in the cache, and that patches are drawn from, at a time.",
    )
    exchange_epochs: int = Field(
        default=1,
        ge=1,
        description="Epochs until the `loaded` share is exchanged for another, which is prepared meanwhile.",
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="Patches in a batch. Default: selected like `patch_size`."
    )
    augmentations: tuple[Component, ...] = Field(
        default=(),
        description="MONAI dictionary transforms; `keys` is set to input, target and cost where they take it.",
    )
    device_augmentations: tuple[Component, ...] = Field(
        default=(),
        description="Further augmentations, applied to each patch of a batch on the network's device: for slow ones, on a GPU.",
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        description="Worker processes that prepare batches; 0: the training process does. Default: 0 on the CPU; on a GPU up to 8, "
        "as many as there are spare processors.",
    )

    @model_validator(mode="after")
    def _check_fold(self) -> Self:
        if self.fold >= (self.folds or 1):
            raise ValueError(
                f"fold {self.fold} is not one of {self.folds} folds: choose 0 to {self.folds - 1}"
                if self.folds
                else "fold needs folds: set the number of parts that the images are split into"
            )
        return self

    @model_validator(mode="after")
    def _check_sampling(self) -> Self:
        samplers = ("object_patches", "foreground_patches", "cost_patches", "hard_patches")
        used = [name for name in samplers if getattr(self, name)]
        if len(used) > 1:
            raise ValueError(f"{' and '.join(used)} cannot be combined: remove all but one")
        if self.cost_patches and not self.has_cost:
            raise ValueError("cost_patches needs cost maps: set `cost` to where they are")
        pairwise = {"foreground_patches": self.foreground_patches, "hard_patches": self.hard_patches}
        wrong = next((name for name, share in pairwise.items() if share), "loaded" if self.loaded < 1 else "")
        if self.pairing == "unpaired" and wrong:
            raise ValueError(f"{wrong} has no effect with pairing: unpaired: remove it")
        if self.pairing == "self" and self.foreground_patches:
            raise ValueError(
                "foreground_patches needs targets, and with pairing: self there are none: remove it"
            )
        if self.loaded < 1 and self.cache == "none":
            raise ValueError(
                "loaded is the share of the images in the cache, but cache is none: remove one of them"
            )
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """The subfolders, suffixes or columns of the input images, given in `input` or by default."""
        if self.input is None:
            known = {"suffixes": "_IM", "csv": "input"}
            return (known.get(self.pairing, "images"),)
        return (self.input,) if isinstance(self.input, str) else self.input

    @property
    def patch(self) -> tuple[int, ...]:
        """The patch size, once it is set or selected.

        Raises:
            RecipeError: it is not.
        """
        return _require_value("patch_size", self.patch_size)

    @property
    def batch(self) -> int:
        """The batch size, once it is set or selected.

        Raises:
            RecipeError: it is not.
        """
        return _require_value("batch_size", self.batch_size)

    @property
    def has_cost(self) -> bool:
        """Whether there are cost maps."""
        return self.cost is not None or (self.pairing == "channels" and self.cost_channels is not None)


def _require_value(key: str, value: V | None) -> V:
    if value is None:
        raise RecipeError(f"data.{key} is not set, and only training selects it: set it in the recipe")
    return value
