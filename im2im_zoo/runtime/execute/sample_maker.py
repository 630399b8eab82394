"""Prepare the samples of a plan for their tiles, including the statistics of whole samples in one streaming pass.

A sample is one position on the looped axes.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from im2im_zoo.core.atomic import atomic_file
from im2im_zoo.images import open_image
from im2im_zoo.processing import Pipeline, fit
from im2im_zoo.processing.blocks import read
from im2im_zoo.processing.checkpoint import NOT_KEPT, Checkpoint
from im2im_zoo.processing.requirements import passes
from im2im_zoo.runtime.execute.checkpoint import FileCheckpoint, StatisticsLimits, checkpoint_file
from im2im_zoo.runtime.execute.samples import sample_tensor
from im2im_zoo.runtime.layout.image_layout import InputMap
from im2im_zoo.runtime.plan.plan import Plan

if TYPE_CHECKING:
    from im2im_zoo.package import Package


@dataclass(frozen=True)
class Sample:
    """One sample, prepared for its tiles.

    Attributes:
        position: on the looped axes.
        tensors: of the inputs: lazy, or already preprocessed as a whole where `before` is empty; None without an image.
        before: preprocessing of each input, with known statistics.
        references: raw tensors by input, to which postprocessing may refer.
    """

    position: Mapping[str, int]
    tensors: tuple[xr.DataArray | None, ...]
    before: tuple[Pipeline, ...]
    references: Mapping[str, xr.DataArray]


class SampleMaker:
    """Prepare the samples of a plan and cache the last two, as reading may be one sample ahead of writing.

    Args:
        plan: of this package and these images.
        package: the model.
        images: by input.
        allow_code: whether `custom` operations of the package may run.
        measured: statistics by sample and tensor; known ones are used, new ones are added.
        folder: for tensors that are preprocessed as a whole, readable by other processes (default: in memory).
        checkpoints: folder for intermediate statistics of large images (default: none).
        limits: of the pass over an image for its statistics.
        progress: called with the values read for the statistics of the first sample, and their total number.
    """

    def __init__(
        self,
        plan: Plan,
        package: "Package",
        images: Mapping[str, xr.DataArray],
        *,
        allow_code: bool = False,
        measured: MutableMapping[str, Any] | None = None,
        folder: Path | None = None,
        checkpoints: Path | None = None,
        limits: StatisticsLimits | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.plan = plan
        self.package = package
        self.images = images
        self.allow_code = allow_code
        self.measured = {} if measured is None else measured
        self._folder = folder
        self._checkpoints = checkpoints
        self._limits = limits or StatisticsLimits()
        self._after: dict[tuple[int, int], Pipeline] = {}
        self._made: dict[int, Sample] = {}
        self._lock = Lock()
        self._is_cancelled = Event()
        self._progress = progress
        self._counted, self._to_count = 0, 0

    def __call__(self, number: int) -> Sample:
        """Return the sample of a number; thread-safe."""
        with self._lock:
            if number not in self._made:
                made = self._make(number)
                for old in sorted(self._made, key=lambda n: abs(n - number))[1:]:
                    del self._made[old]
                    self._after = {k: v for k, v in self._after.items() if k[0] != old}
                self._made[number] = made
            return self._made[number]

    def after(self, number: int, output: int, tensor: xr.DataArray | None = None) -> Pipeline:
        """Return the postprocessing of an output of a sample.

        Args:
            number: of the sample.
            output: number of the output.
            tensor: the whole output, for its statistics; None if the postprocessing needs none.
        """
        target, references = self.package.outputs[output], self(number).references
        if tensor is not None:
            return self.fit(f"{number}/{target.id}", target.postprocessing, tensor, references)
        key = (number, output)
        if key not in self._after:
            self._after[key] = self.fit(
                f"{number}/{target.id}", target.postprocessing, _stand_in(self.plan, output), references
            )
        return self._after[key]

    def fit(
        self,
        key: str,
        operations: Sequence[Any],
        tensor: xr.DataArray,
        references: Mapping[str, xr.DataArray],
    ) -> Pipeline:
        """Return operations with their statistics, computed once per `key` of sample and tensor."""
        return fit(
            operations,
            tensor,
            references=references,
            allow_code=self.allow_code,
            root=self.package.root,
            block_bytes=self._limits.block_bytes,
            measured=self.measured.setdefault(key, {}),
            checkpoints=lambda statistics: self._checkpoint(f"{key} {statistics}"),
        )

    def _checkpoint(self, key: str) -> Checkpoint:
        if self._checkpoints is None:
            return NOT_KEPT
        return FileCheckpoint(checkpoint_file(self._checkpoints, key), self._count, self._limits)

    def _make(self, number: int) -> Sample:
        position = self.plan.position(number)
        raw = {i.id: self._tensor(number, i) for i in self.plan.inputs if i.given}
        self._expect(number, raw)
        tensors: list[xr.DataArray | None] = []
        pipelines = []
        for source, spec in zip(self.plan.inputs, self.package.inputs, strict=True):
            if not source.given:
                tensors.append(None)
                pipelines.append(Pipeline())
                continue
            tensor = raw[source.id]
            before = self.fit(f"{number}/{source.id}", spec.preprocessing, tensor, raw)
            if not before.is_pointwise:
                tensor, before = self._whole(f"{number}_{source.id}", tensor, before), Pipeline()
            tensors.append(tensor)
            pipelines.append(before)
        self._progress = None
        return Sample(position, tuple(tensors), tuple(pipelines), raw)

    def _expect(self, number: int, raw: Mapping[str, xr.DataArray]) -> None:
        """Set the number of values to read for the unknown statistics of a sample."""
        self._counted = self._to_count = 0
        for source, spec in zip(self.plan.inputs, self.package.inputs, strict=True):
            if source.given and not self.measured.get(f"{number}/{source.id}"):
                tensor = raw[source.id]
                self._to_count += passes(spec.preprocessing, tensor.dtype) * tensor.size

    def cancel(self) -> None:
        """Make reading of an image raise from now on, in whatever thread it is."""
        self._is_cancelled.set()

    def _count(self, values: int) -> None:
        if self._is_cancelled.is_set():
            raise CancelledError("the prediction was interrupted")
        if self._progress is not None and self._to_count:
            self._counted = min(self._counted + values, self._to_count)
            self._progress(self._counted, self._to_count)

    def _tensor(self, number: int, source: InputMap) -> xr.DataArray:
        """Return the RDF's tensor of an input: its image after the custom operations that precede the RDF's own."""
        tensor = sample_tensor(source.axes, self.images[source.id], self.plan.position(number), self._count)
        operations = self.package.before_rdf.get(source.id, ())
        if not operations:
            return tensor
        custom = self.fit(f"{number}/{source.id}/custom", operations, tensor, {})
        return self._whole(f"{number}_{source.id}_custom", tensor, custom)

    def _whole(self, name: str, tensor: xr.DataArray, before: Pipeline) -> xr.DataArray:
        """Preprocess a whole tensor, in memory or in a file."""
        everything = {str(a): slice(0, n) for a, n in tensor.sizes.items()}
        if self._folder is None:
            return before(read(tensor, everything))
        path = self._folder / f"{name}.npy"
        dims = [str(a) for a in tensor.dims]
        if not path.is_file():
            with atomic_file(path) as file:
                np.save(file, before(read(tensor, everything)).to_numpy())
        return open_image(path, axes=",".join(dims)).transpose(*dims)


def _stand_in(plan: Plan, number: int) -> xr.DataArray:
    """Return an array of the whole output's shape that takes no memory, for operations that only use the shape."""
    target = plan.outputs[number]
    dims = tuple(a for a in target.axes if a != "batch")
    shape = tuple(int(target.sizes[a] or 1) for a in dims)
    return xr.DataArray(np.broadcast_to(np.float32(0), shape), dims=dims)
