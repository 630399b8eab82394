"""The self-test of a package: test tensors, expected outputs, and the tolerance between a result and the expected one.

The network is run by the caller: this module prepares its inputs, post-processes its outputs and compares them.
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
    """Allowed difference from the expected values (spec 0.5, `reproducibility_tolerance`).

    Attributes:
        relative, absolute: a value may differ by `absolute + relative * |expected|`.
        mismatched_per_million: how many of a million values may differ by more.
    """

    relative: float = 1e-3
    absolute: float = 1e-3
    mismatched_per_million: float = 100.0


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference between a result and the expected one.

    Attributes:
        mismatched_per_million: how many of a million values differ by more than the tolerance.
        largest: the largest absolute difference.
    """

    mismatched_per_million: float
    largest: float


@dataclass(frozen=True, slots=True)
class Reference:
    """The test tensors of a package. Operations before the RDF (`Package.before_rdf`) are already applied to the inputs.

    Attributes:
        raw: test tensors of the inputs, by input, before preprocessing.
        inputs: preprocessed, in the order and the axes of the input tensors; None for an optional input without a test tensor.
        expected: test tensors of the outputs, by output.
        allow_code: whether `custom` operations of the package may run.
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
            package: the package.
            allow_code: whether `custom` operations of the package may run.

        Raises:
            PackageError: a test tensor is missing, or does not match the RDF.
            ProcessingError: it cannot be preprocessed.
        """
        raw: dict[str, xr.DataArray] = {}
        prepared: list[NDArray[Any] | None] = []
        for tensor in package.inputs:
            if tensor.test_tensor is None:
                if tensor.optional:
                    prepared.append(None)
                    continue
                raise PackageError(f"input {tensor.id} has no test_tensor; please report this to its authors")
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
            str(t.id): _read_tensor(package, t.test_tensor)
            for t in package.outputs
            if t.test_tensor is not None
        }
        return cls(package, raw, tuple(prepared), expected, allow_code)

    def finish(self, outputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Post-process a network's outputs.

        Args:
            outputs: in the order and the axes of the output tensors.

        Returns:
            The results, by output.

        Raises:
            PackageError: the outputs do not match the RDF.
        """
        if len(outputs) != len(self.package.outputs):
            raise PackageError(
                f"the network has {len(outputs)} outputs, but the RDF describes {len(self.package.outputs)}; describe each one"
            )
        results = {}
        for tensor, array in zip(self.package.outputs, outputs, strict=True):
            axes = [str(a.id) for a in tensor.axes]
            if array.ndim != len(axes):
                raise PackageError(
                    f"output {tensor.id} has the shape {array.shape}, but the axes {', '.join(axes)} in the RDF; correct the axes"
                )
            image = xr.DataArray(array, dims=axes, name=str(tensor.id))
            pipeline = fit(
                tensor.postprocessing,
                image,
                references=self.raw,
                allow_code=self.allow_code,
                root=self.package.root,
            )
            results[str(tensor.id)] = self._group(pipeline(image).transpose(*axes))
        return results

    def _group(self, maps: xr.DataArray) -> NDArray[Any]:
        """Return a result as the RDF describes it: the labels, where a library makes them of maps."""
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
    """Load the test tensors of a package; return None if it has none that can be used (validation reports why)."""
    try:
        return Reference.of(package, allow_code=allow_code)
    except (PackageError, ProcessingError, ValueError, OSError):
        return None


def tolerance(package: Package, weights_format: str, output_id: str) -> Tolerance:
    """Return the tolerance that the RDF declares for a format and an output: its first matching entry, else the default."""
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
    """Compare a result with the expected one of the same shape; NaN counts as different."""
    wanted = expected.astype(np.float64)
    differences = np.abs(result.astype(np.float64) - wanted)
    limit = allowed.absolute + allowed.relative * np.abs(wanted)
    return Difference(1e6 * float((~(differences <= limit)).mean()), float(differences.max(initial=0.0)))


def _read_input(package: Package, tensor: Any) -> xr.DataArray:
    axes = [str(a.id) for a in tensor.axes]
    array = _read_tensor(package, tensor.test_tensor)
    if array.ndim != len(axes):
        raise PackageError(
            f"the test tensor of {tensor.id} has {array.ndim} axes, but the RDF has {axes}; correct one of them"
        )
    if array.dtype.name != tensor.dtype:
        raise PackageError(
            f"the test tensor of {tensor.id} is {array.dtype}, but {tensor.dtype} in the RDF; correct one of them"
        )
    return xr.DataArray(array, dims=axes, name=str(tensor.id))


def _read_tensor(package: Package, source: object) -> NDArray[Any]:
    return read_npy(package.path(source))
