"""The schema of a recipe: one frozen pydantic model of what to learn, from which data, with which network.

Processing steps, authors and citations are the bioimage.io spec's own classes, so the recipe's text is the text of the
package's RDF. `recipe.load` reads it from YAML, with overrides.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from bioimageio.spec.model import v0_5 as spec
from pydantic import Field, model_validator

from im2im_zoo.core.axes import AxisName, space_axes
from im2im_zoo.recipe.components import Component, with_current_names
from im2im_zoo.recipe.data import Data as Data
from im2im_zoo.recipe.placeholders import is_open, with_open_operations
from im2im_zoo.recipe.section import Axes, Section

# The spec allows `custom` only after the network: docs/decisions/0011.
Preprocessing = Annotated[spec.PreprocessingDescr | spec.CustomProcessingDescr, Field(discriminator="id")]


class Network(Component):
    """The network, its initial weights, and how it is computed in training."""

    init_from: Path | None = Field(
        default=None,
        description="Run folder whose trained weights the network starts from; default: random weights.",
    )
    channels_last: bool | None = Field(
        default=None,
        description="Whether training uses the channels-last memory format; default: only for two-dimensional networks on an NVIDIA "
        "GPU.",
    )
    compile: bool = Field(
        default=False,
        description="Whether training compiles the network with torch.compile: the first step takes a minute or more longer, "
        "each further step less. Needs a C++ compiler.",
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
        description="Operations of the bioimage.io model spec 0.5 that turn an image into the input. Training measures mean and "
        "standard deviation of a fixed_zero_mean_unit_variance without kwargs.",
    )

    @model_validator(mode="after")
    def _check_axes(self) -> Self:
        if self.axes[:2] != ("batch", "channel") or self.axes[2:] != space_axes(self.axes):
            raise ValueError(
                f"axes are {', '.join(self.axes)}: use batch, channel, then z, y, x or y, x in this order"
            )
        return self


class Target(Section):
    """The target of training: the target images, preprocessed.

    With `pairing: self` the network is trained towards its input; then this is only used to evaluate held-out results.
    """

    preprocessing: tuple[Preprocessing, ...] = Field(
        default=(),
        description="Operations of the bioimage.io model spec 0.5 that turn a target image into the target.",
    )


class Output(Section):
    """The model's output tensor; it has the axes of the input."""

    id: str = Field(
        default="output", min_length=1, max_length=16, description="Name of the tensor in the package."
    )
    channels: tuple[str, ...] | None = Field(
        default=None,
        description="Names of the channels; default: those of the targets, else output0, output1, ...",
    )
    task: Literal["regression", "semantic", "instance"] = Field(
        description="Kind of output, which decides how it is evaluated."
    )
    postprocessing: tuple[spec.PostprocessingDescr, ...] = Field(
        default=(),
        description="Operations of the spec that turn the network's output into the result. {gain: std, offset: mean} of a "
        "scale_linear are those of the target's standardisation, or of the input's.",
    )
    grouping: Component | None = Field(
        default=None,
        description="Post-processing function that makes instance labels of the result, which is then dense maps, e.g. "
        "im2im_zoo.instances.methods.components.group; its file, which may only need numpy, is shipped in the package.",
    )

    @model_validator(mode="after")
    def _check_grouping(self) -> Self:
        if self.grouping is not None and self.task != "instance":
            raise ValueError(
                f"grouping makes instance labels, but the task is {self.task}: set task: instance"
            )
        if self.grouping is not None and not self.grouping.call:
            raise ValueError("grouping is always called: remove `call`")
        return self


class PackageMetadata(Section):
    """Metadata of the package that only its authors know; see the bioimage.io model spec for each field."""

    description: str = Field(
        default="", max_length=512, description="Purpose of the model, in a sentence or two."
    )
    authors: tuple[spec.Author, ...] = Field(default=(), description="Authors of the model.")
    maintainers: tuple[spec.Maintainer, ...] = Field(
        default=(), description="Contacts for questions; `github_user`."
    )
    cite: tuple[spec.CiteEntry, ...] = Field(default=(), description="Works to cite: text and doi or url.")
    license: str | None = Field(
        default=None, description="SPDX identifier of the licence of the weights, e.g. MIT or CC-BY-4.0."
    )
    tags: tuple[str, ...] = Field(default=(), description="Tags, added to those drafted from the recipe.")
    git_repo: str | None = Field(default=None, description="URL of the code.")
    training_data: str | None = Field(
        default=None,
        description="bioimage.io id of the dataset, or a sentence on the origin of the data.",
    )
    parent: str | None = Field(
        default=None, description="bioimage.io id of the model that this one was fine-tuned from."
    )
    version: str = Field(default="0.1.0", description="Version of the package.")
    documentation: str = Field(default="", description="Markdown for the README: use, data, limits.")


class Recipe(Section):
    """A recipe: everything needed to train a model and to package it."""

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
        default="val_loss", description="Validation metric that selects the best checkpoint."
    )
    monitor_mode: Literal["min", "max"] = Field(
        default="min", description="Whether the smallest (min) or largest (max) metric is best."
    )
    seed: int = Field(default=0, ge=0, description="Seed of all random numbers.")
    package: PackageMetadata = PackageMetadata()

    @model_validator(mode="before")
    @classmethod
    def _rename_components(cls, content: Any) -> Any:
        """Replace the dotted paths of earlier releases by the current ones, and numbers that are left open by placeholders."""
        return with_open_operations(with_current_names(content))

    @model_validator(mode="after")
    def _check_open(self) -> Self:
        for side in ("input", "target"):
            if sum(is_open(operation) for operation in getattr(self, side).preprocessing) > 1:
                raise ValueError(
                    f"{side}.preprocessing has several fixed_zero_mean_unit_variance without mean and std: keep one of them"
                )
        return self

    @model_validator(mode="after")
    def _check_patch_size(self) -> Self:
        space = space_axes(self.input.axes)
        if self.data.patch_size is not None and len(self.data.patch_size) != len(space):
            raise ValueError(
                f"data.patch_size has {len(self.data.patch_size)} numbers, but input.axes has the space axes "
                f"{', '.join(space)}: give one number for each"
            )
        return self

    @model_validator(mode="after")
    def _check_object_patches(self) -> Self:
        if self.data.object_patches and (
            self.output.task != "instance" or self.data.pairing in ("unpaired", "self")
        ):
            raise ValueError(
                "data.object_patches needs a target of instance labels for each image, but output.task is "
                f"{self.output.task} and data.pairing {self.data.pairing}: remove it"
            )
        return self

    @property
    def space(self) -> tuple[AxisName, ...]:
        """The space axes of input and output: z, y, x or y, x."""
        return space_axes(self.input.axes)
