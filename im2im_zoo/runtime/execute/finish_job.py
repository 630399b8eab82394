"""The job of the stage `finish`, after all tiles: blend, compute statistics of whole outputs, postprocess and write."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.images.lazy import Key, lazy_image
from im2im_zoo.images.sink import Sink
from im2im_zoo.processing import Pipeline
from im2im_zoo.processing.blocks import read
from im2im_zoo.runtime.execute.blending import BlendedSource
from im2im_zoo.runtime.execute.sample_maker import SampleMaker
from im2im_zoo.runtime.execute.tile_job import Report, Scratch, write_block
from im2im_zoo.runtime.plan.plan import Plan


class ScratchSource:
    """The output of one sample in a scratch array, as a source of lazy regions."""

    def __init__(self, scratch: Scratch, sample: int, shape: tuple[int, ...]) -> None:
        self._scratch = scratch
        self._sample = sample
        self.path = Path("the network's output")
        self.shape = shape
        self.dtype = np.asarray(scratch[(sample, *(slice(0, 1) for _ in shape))]).dtype

    def read(self, key: Key) -> NDArray[Any]:
        """Read a region; see `Source`."""
        return np.asarray(self._scratch[(self._sample, *key)])


class FinishJob:
    """The job of postprocessing outputs in scratch arrays, tile by tile (see `core.jobs.Job`)."""

    def __init__(self, samples: SampleMaker, sinks: Sequence[Sink], scratch: Mapping[int, Scratch]) -> None:
        self.plan: Plan = samples.plan
        self._samples = samples
        self._sinks = sinks
        self._scratch = scratch
        self._sample = -1
        self._wholes: dict[int, tuple[xr.DataArray, Pipeline]] = {}

    def read(self, unit: int) -> list[tuple[int, xr.DataArray]]:
        """Read and postprocess the outputs of a tile."""
        tile, sample = self.plan.tile(unit), unit // self.plan.tiles_per_sample
        if sample != self._sample:
            self._wholes = {number: self._whole(sample, number) for number in self._scratch}
            self._sample = sample
        blocks = []
        for number, (whole, after) in self._wholes.items():
            region = self.plan.region(tile, number)
            blocks.append((number, after(read(whole, region))))
        return blocks

    def compute(self, unit: int, data: list[tuple[int, xr.DataArray]]) -> list[tuple[int, xr.DataArray]]:
        """Return the data unchanged, as the network has run before."""
        return data

    def write(self, unit: int, data: list[tuple[int, xr.DataArray]]) -> Report:
        """Write the outputs of a tile."""
        tile = self.plan.tile(unit)
        reports = [write_block(self.plan, tile, n, block, self._sinks[n]) for n, block in data]
        return Report(sum(r.voxels for r in reports), sum(r.not_finite for r in reports))

    def _whole(self, sample: int, number: int) -> tuple[xr.DataArray, Pipeline]:
        """Return the lazy output of a sample and its postprocessing.

        If that is not pointwise, return the postprocessed output, in memory, and an empty pipeline.
        """
        target = self.plan.outputs[number]
        dims = tuple(a for a in target.axes if a != "batch")
        scratch = self._scratch[number]
        shape = tuple(int(target.sizes[a] or 0) for a in dims)
        source = (
            BlendedSource(self.plan, number, sample, scratch)
            if self.plan.blend
            else ScratchSource(scratch, sample, shape)
        )
        whole = lazy_image(source, dims)
        whole.attrs["source"] = "the network's output"
        after = self._samples.after(sample, number, whole)
        if after.is_pointwise:
            return whole, after
        everything = {a: slice(0, n) for a, n in zip(dims, shape, strict=True)}
        return after(read(whole, everything)), Pipeline()
