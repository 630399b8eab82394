"""The test of its own that a package carries: test tensors, what they should become, and how far that may be missed.

The network is not run here: what it is given is prepared, and what it gives is finished and compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.array_file import read_npy
from im2im_zoo.core.errors import PackageError, ProcessingError
from im2im_zoo.instances.library.grouping import LibraryGrouping
from im2im_zoo.package import Package
from im2im_zoo.processing import fit


@dataclass(frozen=True, slots=True)
class Tolerance:
    """A value may differ by `absolute + relative * |expected|`, and so many of a million by more (spec 0.5, `reproducibility_tolerance`)."""

    relative: float = 1e-3
    absolute: float = 1e-3
    mismatched_per_million: float = 100.0


@dataclass(frozen=True, slots=True)
class Difference:
    """How a result differs from the expected one: how many of a million values by more than is tolerated, and the largest difference."""

    mismatched_per_million: float
    largest: float


@dataclass(frozen=True, slots=True)
class Reference:
    """The test tensors of a package. Those of the inputs are past the operations that come before the RDF (`before_rdf`).

    Attributes:
        inputs: preprocessed, in the order and the axes of the input tensors; None for an optional one that has no test tensor.
        expected: by output, as a whole prediction should give it.
    """

    package: Package
    raw: Mapping[str, xr.DataArray]
    inputs: tuple[NDArray[Any] | None, ...]
    expected: Mapping[str, NDArray[Any]]
    allow_code: bool

    @classmethod
    def of(cls, package: Package, *, allow_code: bool = False) -> "Reference":
        """Read and prepare the test tensors.

        Args:
            allow_code: whether `custom` operations of the package may run.

        Raises:
            PackageError: there is none, it is not there, or not what the RDF says.
            ProcessingError: it cannot be preprocessed.
        """
        raw: dict[str, xr.DataArray] = {}
        prepared: list[NDArray[Any] | None] = []
        for tensor in package.inputs:
            if tensor.test_tensor is None:
                if tensor.optional:
                    prepared.append(None)
                    continue
                raise PackageError(f"input {tensor.id} has no test_tensor")
            raw[str(tensor.id)] = _read_input(package, tensor)
        for tensor in package.inputs:
            name = str(tensor.id)
            if name in raw:
                pipeline = fit(
                    tensor.preprocessing,
                    raw[name],
                    references=raw,
                    allow_code=allow_code,
                    root=package.root,
                )
                prepared.append(pipeline(raw[name]).transpose(*raw[name].dims).to_numpy())
        expected = {
            str(t.id): _load(package, t.test_tensor) for t in package.outputs if t.test_tensor is not None
        }
        return cls(package, raw, tuple(prepared), expected, allow_code)

    def finish(self, outputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The postprocessed results of a network's outputs.

        Raises:
            PackageError: they are not what the RDF describes.
        """
        if len(outputs) != len(self.package.outputs):
            raise PackageError(
                f"the network has {len(outputs)} outputs, the RDF describes {len(self.package.outputs)}"
            )
        results = {}
        for tensor, array in zip(self.package.outputs, outputs, strict=True):
            axes = [str(a.id) for a in tensor.axes]
            if array.ndim != len(axes):
                raise PackageError(
                    f"output {tensor.id} has the shape {array.shape}, the RDF says {', '.join(axes)}"
                )
            image = xr.DataArray(array, dims=axes, name=str(tensor.id))
            pipeline = fit(
                tensor.postprocessing,
                image,
                references=self.raw,
                allow_code=self.allow_code,
                root=self.package.root,
            )
            results[str(tensor.id)] = self._grouped(pipeline(image).transpose(*axes))
        return results

    def _grouped(self, maps: xr.DataArray) -> NDArray[Any]:
        """A result as the RDF describes it: what a library groups is labels there."""
        grouping, values = self.package.grouping, maps.to_numpy()
        if not isinstance(grouping, LibraryGrouping) or not grouping.named:
            return values
        function = grouping.load(self.package.root, allow_code=self.allow_code)
        space = [a for a in ("z", "y", "x") if a in maps.dims]
        each = maps if "batch" in maps.dims else maps.expand_dims("batch")
        labels = np.stack(
            [
                function(np.ascontiguousarray(m, np.float32))
                for m in each.transpose("batch", "channel", *space)
            ]
        )
        whole = xr.DataArray(labels[:, None], dims=("batch", "channel", *space))
        (tensor,) = self.package.description.outputs
        kept = whole if "batch" in maps.dims else whole.isel(batch=0)
        return kept.transpose(*maps.dims).to_numpy().astype(tensor.dtype)


def reference_of(package: Package, *, allow_code: bool = False) -> Reference | None:
    """The test tensors of a package, or None if it has none that can be used (validation says why)."""
    try:
        return Reference.of(package, allow_code=allow_code)
    except (PackageError, ProcessingError, ValueError, OSError):
        return None


def tolerance(package: Package, weights_format: str, output_id: str) -> Tolerance:
    """The tolerance that the RDF declares for a format and an output: the first entry that fits, else the format's default."""
    for entry in package.description.config.bioimageio.reproducibility_tolerance:
        of_format = not entry.weights_formats or weights_format in entry.weights_formats
        of_tensor = not entry.output_ids or output_id in map(str, entry.output_ids)
        if of_format and of_tensor:
            return Tolerance(
                float(entry.relative_tolerance),
                float(entry.absolute_tolerance),
                float(entry.mismatched_elements_per_million),
            )
    return Tolerance()


def compare(result: NDArray[Any], expected: NDArray[Any], allowed: Tolerance) -> Difference:
    """How a result of the same shape differs from the expected one; NaN counts as different."""
    wanted = expected.astype(np.float64)
    differences = np.abs(result.astype(np.float64) - wanted)
    limit = allowed.absolute + allowed.relative * np.abs(wanted)
    return Difference(1e6 * float((~(differences <= limit)).mean()), float(differences.max(initial=0.0)))


def _read_input(package: Package, tensor: Any) -> xr.DataArray:
    axes = [str(a.id) for a in tensor.axes]
    array = _load(package, tensor.test_tensor)
    if array.ndim != len(axes):
        raise PackageError(f"the test tensor of {tensor.id} has {array.ndim} axes, the RDF says {axes}")
    if array.dtype.name != tensor.dtype:
        raise PackageError(f"the test tensor of {tensor.id} is {array.dtype}, the RDF says {tensor.dtype}")
    return xr.DataArray(array, dims=axes, name=str(tensor.id))


def _load(package: Package, source: object) -> NDArray[Any]:
    return read_npy(package.path(source))
