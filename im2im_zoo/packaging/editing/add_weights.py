"""Further weight formats of a package, from its own state dict, checked against it as an export checks them."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.engines import open_engine
from im2im_zoo.engines.state_dict import load_network
from im2im_zoo.networks import Grid, as_call
from im2im_zoo.package import Package, open_package
from im2im_zoo.package.reference import Reference
from im2im_zoo.packaging.comparison import TOLERANCE, difference
from im2im_zoo.packaging.editing.rewrite import rewrite_package
from im2im_zoo.packaging.export.weights import FILES, OPSET, Weights, write_weights

if TYPE_CHECKING:
    from torch import nn

ADDABLE = ("onnx", "torchscript")
_STATE_DICT = "pytorch_state_dict"


@dataclass(frozen=True, slots=True)
class AddedWeights:
    """Result of adding a weight format.

    Attributes:
        source: the package as it was given.
        weights_format: the added format.
        file: name of its file.
        outputs: folder and zip that were written.
        error: largest difference to the state dict at several sizes, as a fraction of the largest output.
        test_error: the same for the test input.
        comment: remark on the file.
    """

    source: str
    weights_format: str
    file: str
    outputs: tuple[Path, ...]
    error: float
    test_error: float
    comment: str

    def plain(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "package": self.source,
            "format": self.weights_format,
            "file": self.file,
            "outputs": [str(path) for path in self.outputs],
            "error": self.error,
            "test_error": self.test_error,
            "comment": self.comment,
        }


def add_weights(
    source: str | Path,
    weights_format: str,
    *,
    allow_code: bool = False,
    opset: int = OPSET,
    output: Path | None = None,
    overwrite: bool = False,
) -> AddedWeights:
    """Add ONNX or TorchScript weights to a package, made from its state dict.

    The new file must give the state dict's results at several sizes and batch sizes and for the test input. If anything fails, the
    original stays as it is. A folder and the zip of it beside it are both changed.

    Args:
        source: folder, zip or RDF on this disk, of a model with one input and one output.
        weights_format: "onnx" or "torchscript".
        allow_code: consent to run the Python code that builds the network: of the package, or of the library that it names.
        opset: opset of the ONNX file.
        output: folder, or zip by its suffix, to write instead.
        overwrite: whether an existing `output` may be replaced.

    Raises:
        PackageError: there is no state dict, or the format already; no consent; or the format cannot reproduce the network.

    Examples:
        >>> add_weights("package", "onnx", allow_code=True).error  # doctest: +SKIP
        3.1e-07
    """
    if weights_format not in ADDABLE:
        raise PackageError(f"invalid format {weights_format!r}: choose {' or '.join(ADDABLE)}")
    made: dict[str, Any] = {}

    def rewrite(rdf: dict[str, Any], folder: Path) -> dict[str, Any]:
        try:
            with open_package(folder, must_run=False) as package:
                _check_addable(package, weights_format, str(source))
                written, network, reference = _write(package, weights_format, allow_code, opset, str(source))
                test_error = _check_test_input(package, weights_format, network, reference, str(source))
        except PackageError as error:
            raise PackageError(str(error).replace(str(folder.resolve()), str(source))) from error
        made["error"], made["test_error"] = written.errors[weights_format], test_error
        made["comment"] = written.comments.get(weights_format, "")
        return _describe(rdf, folder, weights_format, written, opset)

    result = rewrite_package(source, rewrite, output=output, overwrite=overwrite)
    return AddedWeights(str(source), weights_format, FILES[weights_format], result.outputs, **made)


def _check_addable(package: Package, weights_format: str, source: str) -> None:
    formats = package.formats()
    if weights_format in formats:
        raise PackageError(f"{source} has {weights_format} weights already; nothing was written")
    if _STATE_DICT not in formats:
        raise PackageError(
            f"{source} has no {_STATE_DICT} weights to make others of; it has {', '.join(formats)}. Export the run again with "
            f"--weights {weights_format}"
        )
    if len(package.inputs) != 1 or len(package.outputs) != 1:
        raise PackageError(
            f"{source} has {len(package.inputs)} inputs and {len(package.outputs)} outputs; weights can be added to models with one "
            "of each"
        )


def _write(
    package: Package, weights_format: str, allow_code: bool, opset: int, source: str
) -> tuple[Weights, "nn.Module", Reference]:
    """Write the file into the package's folder; return what was written, the network and the test tensors."""
    entry = package.weights_entry(_STATE_DICT)
    network = load_network(package.path(entry), entry.architecture, package.root, allow_code=allow_code)
    reference = Reference.of(package, allow_code=allow_code)
    image = reference.inputs[0]
    if image is None:
        raise PackageError(
            f"{source}: the input has no test tensor to compare the formats at; export the model again"
        )
    # The copy may share its files with the original: a file of this name must not be written into.
    (package.root / FILES[weights_format]).unlink(missing_ok=True)
    grid = _grid_of(package, source)
    try:
        written = write_weights(
            network,
            package.root,
            (weights_format,),
            grid=grid,
            image=image,
            tensors=(str(package.inputs[0].id), str(package.outputs[0].id)),
            opset=opset,
        )
    except PackageError as error:
        raise PackageError(
            f"{error}\nNothing was written. If it fails at some of the sizes that the RDF declares only, export the run again with "
            f"--weights {_STATE_DICT} --weights {weights_format}: its RDF then declares the sizes of both"
        ) from error
    return written, network, reference


def _grid_of(package: Package, source: str) -> Grid:
    """Return the sizes that the RDF declares, at which programs run the formats.

    Raises:
        PackageError: the axes are not batch, channel and space, in this order.
    """
    from bioimageio.spec.model.v0_5 import ParameterizedSize

    axes = list(package.inputs[0].axes)
    kinds = [str(axis.type) for axis in axes]
    if kinds[:2] != ["batch", "channel"] or set(kinds[2:]) != {"space"}:
        raise PackageError(
            f"{source}: the axes of the input are {', '.join(kinds)}; weights can be added to models with batch, channel and space axes "
            "in this order"
        )
    minima, steps = [], []
    for axis in axes[2:]:
        size = axis.size
        if isinstance(size, ParameterizedSize):
            minima.append(int(size.min))
            steps.append(int(size.step))
        elif isinstance(size, int):
            minima.append(size)
            steps.append(0)
        else:
            raise PackageError(
                f"{source}: the size of the input's axis {axis.id} follows another; this is not supported"
            )
    return Grid(tuple(minima), tuple(steps))


def _check_test_input(
    package: Package, weights_format: str, network: "nn.Module", reference: Reference, source: str
) -> float:
    """Return the difference of the new file from the state dict at the test input.

    Raises:
        PackageError: it is too large.
    """
    image = reference.inputs[0]
    assert image is not None  # checked before
    engine = open_engine(weights_format, package.root / FILES[weights_format], root=package.root)
    expected = as_call(network)(np.asarray(image, dtype=np.float32))
    error = difference(engine([image])[0], expected)
    if not error <= TOLERANCE:
        raise PackageError(
            f"{source}: for the test input, {weights_format} weights differ from the state dict by {error:.2g} of the largest value, "
            f"more than {TOLERANCE:g}; nothing was written"
        )
    return error


def _describe(
    rdf: dict[str, Any], folder: Path, weights_format: str, written: Weights, opset: int
) -> dict[str, Any]:
    """Return the RDF with the new entry."""
    import torch

    new = copy.deepcopy(rdf)
    name = FILES[weights_format]
    entry: dict[str, Any] = {"source": name, "sha256": sha256(folder / name), "parent": _STATE_DICT}
    if weights_format == "onnx":
        entry["opset_version"] = opset
    else:
        entry["pytorch_version"] = torch.__version__.split("+")[0]
    new["weights"] = {**new["weights"], weights_format: entry}
    ours = (new.get("config") or {}).get("im2im_zoo")
    if isinstance(ours, dict):
        for key, value in (("weights_errors", written.errors), ("weights_comments", written.comments)):
            if isinstance(ours.get(key), dict):
                ours[key] |= value
        if isinstance(ours.get("weights_left_out"), dict):
            ours["weights_left_out"].pop(weights_format, None)
    return new
