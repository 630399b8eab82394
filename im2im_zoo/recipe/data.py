"""The `data` of a recipe: what images there are, how they are split, and how patches come of them. Finds and reads none."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from im2im_zoo.core.errors import RecipeError
from im2im_zoo.recipe.components import Component
from im2im_zoo.recipe.section import FileAxes, Section

Channels = tuple[int | str, ...] | None
V = TypeVar("V")


class Data(Section):
    """Where the image pairs are, how they pair, how they are split, and how patches are drawn from them."""

    path: Path = Field(description="Folder of the images; a CSV file or one image, as `pairing` says.")
    pairing: Literal["folders", "suffixes", "csv", "channels", "unpaired", "self"] = Field(
        default="folders",
        description="folders: files of the same name in two subfolders; suffixes: one folder, files that differ "
        "in their suffix; csv: a table with a column of paths each (or of https addresses of OME-Zarrs), or `pairs`; channels: channels of the same files; "
        "unpaired: two subfolders of any images, of which those of the same name validate; self: one subfolder of "
        "images, which are their own targets. Images of the same name in the subfolder `target`, if there is one, are what "
        "held-out results are measured against, and train nothing.",
    )
    pairs: tuple[dict[str, str], ...] = Field(
        default=(),
        description="With pairing csv, the rows of the table themselves, column by column; paths are relative to `path`, a folder then.",
    )
    input: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="Subfolder (default `images`), suffix (default `_IM`) or CSV column (default `input`); several of them for images "
        "whose channels are joined, in this order, to those of the input.",
    )
    target: str | None = Field(
        default=None,
        description="Subfolder (default `targets`), suffix (default `_GT`) or CSV column (default `target`).",
    )
    cost: str | None = Field(
        default=None,
        description="Subfolder, suffix or CSV column of the cost maps, if there are any: how much each voxel of the "
        "target counts in the loss, 0 for not at all.",
    )
    input_channels: Channels = Field(
        default=None,
        description="Channels of the input files, of several joined ones, by name or index; default: all.",
    )
    target_channels: Channels = Field(
        default=None, description="Channels of the target files, by name or index; default: all."
    )
    cost_channels: Channels = Field(
        default=None, description="The channel of the cost maps' files, if they have several."
    )
    input_axes: FileAxes = Field(
        default=None, description="Axes of the input files as letters (`zyx`), if they do not say themselves."
    )
    target_axes: FileAxes = Field(
        default=None, description="Axes of the target files as letters, if they do not say themselves."
    )
    cost_axes: FileAxes = Field(
        default=None, description="Axes of the cost maps' files as letters, if they do not say themselves."
    )
    split: Literal["random", "folders", "column"] = Field(
        default="random",
        description="random: by `validation` and `seed`; folders: `train/` and `val/` within `path`; column: "
        "the CSV's column `split` says train or val.",
    )
    validation: float = Field(
        default=0.2, gt=0, lt=1, description="Fraction of the images for validation, at least one."
    )
    group: str | None = Field(
        default=None,
        description="Regular expression of the part of a name (its first group, if it has one) that images of one stack, well or "
        "person share; with pairing csv, a column. The split keeps them on one side.",
    )
    time_points: bool = Field(
        default=False,
        description="Whether each time point of the files is an image; those of one movie are on one side of the split.",
    )
    folds: int | None = Field(
        default=None,
        ge=2,
        description="Split by `seed` into so many parts instead, of which `fold` validates: cross-validation.",
    )
    fold: int = Field(
        default=0, ge=0, description="The part that validates, from 0, where there are `folds`."
    )
    patch_size: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        default=None,
        description="Voxels of a training patch along the input's space axes (z,) y, x. Default: chosen as training begins, for the "
        "images, the network and the machine; the recipe in the run folder says it.",
    )
    patches_per_image: int = Field(
        default=16,
        ge=1,
        description="Random patches drawn from each training image in an epoch; unpaired: in the mean, from each of "
        "the side that has more.",
    )
    object_patches: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of the training patches drawn around an object of the target, each object alike likely; the "
        "rest lie anywhere. For instance labels.",
    )
    foreground_patches: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of the training patches drawn around a voxel above 0 of the target, processed; the rest lie anywhere.",
    )
    cost_patches: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of the training patches drawn around voxels in proportion to their cost, as a map of weights; the "
        "rest lie anywhere.",
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
        description="Where the preprocessed images are while training: temporary: in a folder that is removed at the end; kept: in "
        "the user's cache, for the next time; a folder of that name, kept as well; none: nowhere, patches are read from the images "
        "and preprocessed one by one.",
    )
    cache_gb: float = Field(
        default=50, gt=0, description="GB that a kept cache may take; what was not used longest goes first."
    )
    loaded: float = Field(
        default=1,
        gt=0,
        le=1,
        description="Share of the training images that patches are drawn from, and that the cache has, at a time.",
    )
    exchange_epochs: int = Field(
        default=1,
        ge=1,
        description="Epochs until the share that is `loaded` is exchanged for another; meanwhile that one is prepared.",
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="Patches in a batch. Default: chosen as `patch_size` is."
    )
    augmentations: tuple[Component, ...] = Field(
        default=(),
        description="MONAI dictionary transforms; `keys` is set to input, target and cost where they take it.",
    )
    device_augmentations: tuple[Component, ...] = Field(
        default=(),
        description="More of them, done to each patch of a batch where the network is: for heavy ones, on a GPU.",
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        description="Processes that prepare batches; 0: the training's own. Default: none where the network is on the processors, "
        "else up to 8, as many as there are processors to spare.",
    )

    @model_validator(mode="after")
    def _the_fold_is_there(self) -> Self:
        if self.fold >= (self.folds or 1):
            raise ValueError(
                f"fold {self.fold} is not among {self.folds} folds, numbered from 0"
                if self.folds
                else "fold needs folds: into how many parts the images are split"
            )
        return self

    @model_validator(mode="after")
    def _sampling_is_one_thing(self) -> Self:
        aims = ("object_patches", "foreground_patches", "cost_patches", "hard_patches")
        used = [name for name in aims if getattr(self, name)]
        if len(used) > 1:
            raise ValueError(f"{' and '.join(used)} cannot both say where patches lie: leave all but one out")
        if self.cost_patches and not self.has_cost:
            raise ValueError("cost_patches needs cost maps: say in `cost` where they are")
        pairwise = {"foreground_patches": self.foreground_patches, "hard_patches": self.hard_patches}
        wrong = next((name for name, share in pairwise.items() if share), "loaded" if self.loaded < 1 else "")
        if self.pairing == "unpaired" and wrong:
            raise ValueError(f"{wrong} means nothing with pairing: unpaired: leave it out")
        if self.pairing == "self" and self.foreground_patches:
            raise ValueError(
                "foreground_patches needs targets, and with pairing: self there are none: leave it out"
            )
        if self.loaded < 1 and self.cache == "none":
            raise ValueError(
                "loaded says how much of the images a cache has, but cache is none: leave one out"
            )
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """Where the input images are, in `input` or by default: a subfolder, suffix or column, or several."""
        if self.input is None:
            known = {"suffixes": "_IM", "csv": "input"}
            return (known.get(self.pairing, "images"),)
        return (self.input,) if isinstance(self.input, str) else self.input

    @property
    def patch(self) -> tuple[int, ...]:
        """`patch_size`, once it is known.

        Raises:
            RecipeError: it has not been chosen.
        """
        return _chosen("patch_size", self.patch_size)

    @property
    def batch(self) -> int:
        """`batch_size`, once it is known.

        Raises:
            RecipeError: it has not been chosen.
        """
        return _chosen("batch_size", self.batch_size)

    @property
    def has_cost(self) -> bool:
        """Whether there are cost maps."""
        return self.cost is not None or (self.pairing == "channels" and self.cost_channels is not None)


def _chosen(key: str, value: V | None) -> V:
    if value is None:
        raise RecipeError(f"data.{key} is neither given nor chosen yet: training chooses it; give it here")
    return value
