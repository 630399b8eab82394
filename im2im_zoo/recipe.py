"""The recipe: what to learn, from what, with what. One frozen pydantic model; it builds and imports nothing.

Processing steps, authors and citations are the bioimage.io spec's own classes, so what a recipe says is what
the package's RDF will say. Reading it from YAML, with overrides, is in `load_recipe`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from bioimageio.spec.model import v0_5 as spec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from im2im_zoo.axes import AxisName, parse_axes, space_axes
from im2im_zoo.components import Component
from im2im_zoo.errors import AxesError


def _axes(value: object) -> object:
    if not isinstance(value, str | list | tuple):
        return value
    try:
        return parse_axes(value)
    except AxesError as error:
        raise ValueError(str(error)) from error


def _letters(value: str | None) -> str | None:
    if value is not None:
        _axes(value)
    return value


Axes = Annotated[tuple[AxisName, ...], BeforeValidator(_axes)]
FileAxes = Annotated[str | None, AfterValidator(_letters)]
Channels = tuple[int | str, ...] | None
# The spec has `custom` only behind a network: docs/decisions/0011.
Preprocessing = Annotated[spec.PreprocessingDescr | spec.CustomProcessingDescr, Field(discriminator="id")]


class Section(BaseModel):
    """A part of a recipe: frozen, and without keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Section):
    """Where the image pairs are, how they pair, how they are split, and how patches are drawn from them."""

    path: Path = Field(description="Folder of the images; a CSV file or one image, as `pairing` says.")
    pairing: Literal["folders", "suffixes", "csv", "channels", "unpaired", "self"] = Field(
        default="folders",
        description="folders: files of the same name in two subfolders; suffixes: one folder, files that differ "
        "in their suffix; csv: a table with a column of paths each; channels: channels of the same files; "
        "unpaired: two subfolders of any images, of which those of the same name validate; self: one subfolder of "
        "images, which are their own targets. Images of the same name in the subfolder `target`, if there is one, are what "
        "held-out results are measured against, and train nothing.",
    )
    input: str | None = Field(
        default=None,
        description="Subfolder (default `images`), suffix (default `_IM`) or CSV column (default `input`).",
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
        default=None, description="Channels of the input files, by name or index; default: all."
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
    patch_size: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        description="Voxels of a training patch along the input's space axes (z,) y, x."
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
    batch_size: int = Field(default=8, ge=1, description="Patches in a batch.")
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
        aims = ("object_patches", "foreground_patches", "cost_patches")
        used = [name for name in aims if getattr(self, name)]
        if len(used) > 1:
            raise ValueError(f"{' and '.join(used)} cannot both say where patches lie: leave all but one out")
        if self.cost_patches and not self.has_cost:
            raise ValueError("cost_patches needs cost maps: say in `cost` where they are")
        if self.pairing == "unpaired" and (self.foreground_patches or self.loaded < 1):
            wrong = "foreground_patches" if self.foreground_patches else "loaded"
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
    def has_cost(self) -> bool:
        """Whether there are cost maps."""
        return self.cost is not None or (self.pairing == "channels" and self.cost_channels is not None)


class Network(Component):
    """The network, what its weights are before training, and how it is computed in training."""

    init_from: Path | None = Field(
        default=None,
        description="Run folder whose trained network gives the weights to start from; default: random weights.",
    )
    channels_last: bool | None = Field(
        default=None,
        description="Whether training keeps channels together in memory; default: where a network of two dimensions is on an NVIDIA "
        "GPU.",
    )
    compile: bool = Field(
        default=False,
        description="Whether training runs the network through torch.compile: it takes a minute or more before the first step, and "
        "each step less. Needs a C++ compiler.",
    )


class Input(Section):
    """The model's input tensor."""

    id: str = Field(
        default="input", min_length=1, max_length=16, description="Name of the tensor in the package."
    )
    axes: Axes = Field(description="Axes of the tensor, batch first, e.g. [batch, channel, y, x].")
    channels: tuple[str, ...] | None = Field(
        default=None,
        description="Names of the channels; default: those of the images, else input0, input1, ...",
    )
    preprocessing: tuple[Preprocessing, ...] = Field(
        default=(),
        description="Operations of the bioimage.io model spec 0.5 that turn an image into the input.",
    )

    @model_validator(mode="after")
    def _has_the_axes_of_a_network(self) -> Self:
        if self.axes[:2] != ("batch", "channel") or self.axes[2:] != space_axes(self.axes):
            raise ValueError(
                f"axes are {', '.join(self.axes)}; they must be batch, channel, then z, y, x or y, x in this order"
            )
        return self


class Target(Section):
    """What the network is trained towards: the target images, processed. With `pairing: self` that is the input; then this
    is of what held-out results are measured against.
    """

    preprocessing: tuple[Preprocessing, ...] = Field(
        default=(),
        description="Operations of the bioimage.io model spec 0.5 that turn a target image into it.",
    )


class Output(Section):
    """The model's output tensor; its axes are the input's."""

    id: str = Field(
        default="output", min_length=1, max_length=16, description="Name of the tensor in the package."
    )
    channels: tuple[str, ...] | None = Field(
        default=None,
        description="Names of the channels; default: those of the targets, else output0, output1, ...",
    )
    task: Literal["regression", "semantic", "instance"] = Field(
        description="What the output is, and so how it is evaluated."
    )
    postprocessing: tuple[spec.PostprocessingDescr, ...] = Field(
        default=(), description="Operations of the spec that turn the network's output into the result."
    )
    grouping: Component | None = Field(
        default=None,
        description="Function that makes instance labels of the result, which is then dense maps, e.g. "
        "im2im_zoo.grouping.components.group; its file, which needs numpy only, is shipped in the package.",
    )

    @model_validator(mode="after")
    def _only_instances_are_grouped(self) -> Self:
        if self.grouping is not None and self.task != "instance":
            raise ValueError(
                f"grouping makes instance labels, but the task is {self.task}: set task: instance"
            )
        if self.grouping is not None and not self.grouping.call:
            raise ValueError("grouping is always called: leave out `call`")
        return self


class Package(Section):
    """What only a person knows about the package; see the bioimage.io model spec for each field."""

    description: str = Field(
        default="", max_length=512, description="What the model does, in a sentence or two."
    )
    authors: tuple[spec.Author, ...] = Field(default=(), description="Who made the model.")
    maintainers: tuple[spec.Maintainer, ...] = Field(
        default=(), description="Who answers questions; `github_user`."
    )
    cite: tuple[spec.CiteEntry, ...] = Field(default=(), description="Works to cite: text and doi or url.")
    license: str = Field(default="MIT", description="SPDX identifier of the licence of the weights.")
    tags: tuple[str, ...] = Field(default=(), description="Tags beside those drafted from the recipe.")
    git_repo: str | None = Field(default=None, description="URL of the code.")
    training_data: str | None = Field(
        default=None,
        description="bioimage.io id of the dataset, or a sentence saying where the data comes from.",
    )
    parent: str | None = Field(
        default=None, description="bioimage.io id of the model this one was tuned from."
    )
    version: str = Field(default="0.1.0", description="Version of the package.")
    documentation: str = Field(default="", description="Markdown for the README: use, data, limits.")


class Recipe(Section):
    """A recipe: all that is needed to train a model and to package it."""

    name: str = Field(
        min_length=5,
        max_length=128,
        pattern=r"^[\w+\- ()]+$",
        description="Name of the model: letters, digits, spaces and + - ( ).",
    )
    framework: Component = Field(description="The training framework and its losses, optimizer, scheduler.")
    network: Network = Field(description="Any importable torch network that maps an image to an image.")
    data: Data
    input: Input
    target: Target = Target()
    output: Output
    trainer: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of pytorch_lightning.Trainer; callbacks are components."
    )
    monitor: str = Field(
        default="val_loss", description="Validation metric that says which checkpoint is best."
    )
    monitor_mode: Literal["min", "max"] = Field(
        default="min", description="Whether a smaller or larger one is."
    )
    seed: int = Field(default=0, ge=0, description="Seed of all that is random.")
    package: Package = Package()

    @model_validator(mode="after")
    def _sizes_match_the_axes(self) -> Self:
        space = space_axes(self.input.axes)
        if len(self.data.patch_size) != len(space):
            raise ValueError(
                f"data.patch_size has {len(self.data.patch_size)} numbers, but input.axes has the space axes "
                f"{', '.join(space)}; give one number for each"
            )
        return self

    @model_validator(mode="after")
    def _objects_are_labelled(self) -> Self:
        if self.data.object_patches and (
            self.output.task != "instance" or self.data.pairing in ("unpaired", "self")
        ):
            raise ValueError(
                "data.object_patches needs a target of instance labels for each image, but output.task is "
                f"{self.output.task} and data.pairing {self.data.pairing}: leave it out"
            )
        return self

    @property
    def space(self) -> tuple[AxisName, ...]:
        """The space axes of input and output: z, y, x or y, x."""
        return space_axes(self.input.axes)
