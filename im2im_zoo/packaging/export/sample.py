"""Pre- and postprocessing of sample images in memory, for test tensors, covers and the halo of a package.

Statistics are of the whole image. Predictions and metrics of packages are left to the runtime.

Custom operations in front of the network come first (`past_custom`); all other steps get their output, as in a
package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import ImageError, ProcessingError
from im2im_zoo.images.lazy import Key, lazy_image
from im2im_zoo.processing import Operation, Pipeline, fit
from im2im_zoo.processing.before_rdf import split_custom
from im2im_zoo.recipe import Recipe


class Sample(Protocol):
    """Held-out image and its target, both raw; `im2im_zoo.data.Sample` is one.

    The axes of `input` and `target` are the recipe's without batch.
    """

    @property
    def name(self) -> str:
        """Name of the sample."""

    @property
    def input(self) -> xr.DataArray:
        """Raw image."""

    @property
    def target(self) -> xr.DataArray:
        """Raw target."""


@dataclass(frozen=True)
class Steps:
    """Processing of an image before and after the network.

    Attributes:
        input_id: name of the input tensor.
        axes: axes of the input and output tensors, batch first.
        custom: custom operations in front of `preprocessing`.
        preprocessing, postprocessing: operations of the RDF.
        root: folder of the files of custom operations.
        allow_code: consent to run those that are not im2im_zoo's.
    """

    input_id: str
    axes: tuple[str, ...]
    custom: Sequence[Operation]
    preprocessing: Sequence[Operation]
    postprocessing: Sequence[Operation]
    root: Path | None = None
    allow_code: bool = False

    @classmethod
    def of(cls, recipe: Recipe, *, root: Path | None = None, allow_code: bool = False) -> "Steps":
        """Return the steps of a recipe."""
        custom, preprocessing = split_custom(recipe.input.preprocessing)
        return cls(
            recipe.input.id,
            recipe.input.axes,
            custom,
            preprocessing,
            recipe.output.postprocessing,
            root,
            allow_code,
        )

    def past_custom(self, image: xr.DataArray) -> xr.DataArray:
        """Return the raw image after the custom operations in front of the network; lazy, computed at the first read."""
        if not self.custom:
            return image
        pipeline = fit(self.custom, image, allow_code=self.allow_code, root=self.root)
        made = lazy_image(_PastCustom(image, pipeline), tuple(str(a) for a in image.dims))
        made.attrs, made.name = dict(image.attrs), image.name
        return made.assign_coords(channel=image["channel"].values) if "channel" in image.coords else made

    def prepare(self, image: xr.DataArray, part: dict[str, slice] | None = None) -> xr.DataArray:
        """Return the preprocessed tensor of an image past the custom operations, or of a part of it with statistics of the whole."""
        tensor = _tensor(image, self.axes)
        pipeline = fit(self.preprocessing, tensor, allow_code=self.allow_code, root=self.root)
        return pipeline(tensor.isel(part or {})).transpose(*self.axes)

    def finish(self, output: NDArray[Any], image: xr.DataArray) -> xr.DataArray:
        """Return the postprocessed output of the network for an image, which postprocessing may refer to."""
        tensor = xr.DataArray(output, dims=self.axes, name="output")
        references = {self.input_id: _tensor(image, self.axes)}
        pipeline = fit(
            self.postprocessing, tensor, references=references, allow_code=self.allow_code, root=self.root
        )
        return pipeline(tensor).transpose(*self.axes)


@dataclass(frozen=True)
class _Processed:
    """Sample whose input is past the custom operations."""

    name: str
    input: xr.DataArray
    target: xr.DataArray


def past_custom(sample: Sample, steps: Steps) -> Sample:
    """Return the sample with its input past the custom operations, see `Steps.past_custom`."""
    return _Processed(sample.name, steps.past_custom(sample.input), sample.target)


@dataclass(frozen=True)
class _PastCustom:
    """Output of the custom operations for an image, as the source of a lazy image."""

    image: xr.DataArray
    pipeline: Pipeline

    @property
    def path(self) -> Path:
        return Path(str(self.image.attrs.get("source", "the image")))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def read(self, key: Key) -> NDArray[Any]:
        values: NDArray[Any] = self._made[key]
        return values

    @cached_property
    def _made(self) -> NDArray[Any]:
        try:
            made = self.pipeline(self.image.compute())
        except ProcessingError as error:
            raise ImageError(f"{self.path}: {error}") from error
        if made.shape != self.image.shape:
            raise ImageError(
                f"the custom operations in front of the network make {dict(made.sizes)} of {self.path} "
                f"{dict(self.image.sizes)}: there they must keep the number of channels"
            )
        return made.to_numpy()


def _tensor(image: xr.DataArray, axes: Sequence[str]) -> xr.DataArray:
    """Return a raw image as a tensor in memory, with a batch axis, in the order of the axes."""
    if "batch" not in image.dims:
        image = image.expand_dims("batch")
    return image.transpose(*axes).load()
