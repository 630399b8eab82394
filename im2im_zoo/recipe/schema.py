"""The recipe: what to learn, from what, with what. One frozen pydantic model; it builds and imports nothing.

Processing steps, authors and citations are the bioimage.io spec's own classes, so what a recipe says is what
the package's RDF will say. Reading it from YAML, with overrides, is in `load_recipe`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from bioimageio.spec.model import v0_5 as spec
from pydantic import Field, model_validator

from im2im_zoo.core.axes import AxisName, space_axes
from im2im_zoo.recipe.components import Component, with_current_names
from im2im_zoo.recipe.data import Data as Data
from im2im_zoo.recipe.section import Axes, Section

# The spec has `custom` only behind a network: docs/decisions/0011.
Preprocessing = Annotated[spec.PreprocessingDescr | spec.CustomProcessingDescr, Field(discriminator="id")]


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
        "im2im_zoo.instances.methods.components.group; its file, which needs numpy only, is shipped in the package.",
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

    @model_validator(mode="before")
    @classmethod
    def _names_as_today(cls, content: Any) -> Any:
        """Take the dotted paths of earlier releases for today's."""
        return with_current_names(content)

    @model_validator(mode="after")
    def _sizes_match_the_axes(self) -> Self:
        space = space_axes(self.input.axes)
        if self.data.patch_size is not None and len(self.data.patch_size) != len(space):
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
