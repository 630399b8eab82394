"""Facts of a package that the page needs, as JSON values (`web/src/facts.ts`), and the reasons why a package cannot be a page.

A page runs 2D networks of one input, whose outputs have the size of the input. The halo is measured as for `predict`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.array_file import read_npy
from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.sizes import bytes_text
from im2im_zoo.engines.onnx_file import scan_onnx
from im2im_zoo.instances.grouping import Grouping
from im2im_zoo.instances.library.grouping import LibraryGrouping
from im2im_zoo.package import Package
from im2im_zoo.package.reference import tolerance
from im2im_zoo.packaging.try_page import page_metadata
from im2im_zoo.runtime.layout.mapping import map_axes
from im2im_zoo.runtime.layout.tensor_sizes import SizedAxis, Tensor, network_axes, tensors_of
from im2im_zoo.runtime.layout.tiling import Grid
from im2im_zoo.runtime.predictor import Model
from im2im_zoo.runtime.rescale import model_pixel_size_um
from im2im_zoo.runtime.settings import Resources, Settings

# Test tensors beyond this size are left out, and the page cannot check itself.
MAX_TEST_BYTES = 16 * 1024**2
_AXES = ("batch", "channel", "y", "x")
_PREDICT = "use im2im-zoo predict"
# The halo is measured for an image that needs tiles along both axes.
_LARGE = 8192
# A larger halo is most of a tile of 1024 pixels.
_LARGEST_EXACT_HALO = 128


@dataclass(frozen=True, slots=True)
class PageContent:
    """A package as a page needs it.

    Attributes:
        facts: JSON values, without the list of parts.
        parts: the weights and the test tensors, by name.
    """

    facts: Mapping[str, Any]
    parts: Mapping[str, bytes]


def page_content(package: Package, *, max_bytes: int, name: str | None = None) -> PageContent:
    """Return the facts of a package and its parts.

    Args:
        package: the model.
        max_bytes: largest size of its weights.
        name: how a user names the package in a command (default: its source, without folders of this machine).

    Raises:
        PackageError: a page cannot run it; the message has the reason and the remedy.
    """
    weights = _weights(package, max_bytes)
    tensors = tensors_of(package)
    _check_supported(package)
    (source,) = tensors.inputs
    for tensor in (source, *tensors.outputs):
        _check_axes(package, tensor)
    sizes = network_axes(package, tensors, {source.id})
    _check_sizes(package, sizes, [t.id for t in tensors.outputs])
    halo, tiles_differ = _measure_halo(package, source)
    test, test_parts = _test_tensors(package)
    facts = {
        **page_metadata(package, name or _short_source(package)),
        "input": _tensor(package.inputs[0], source, source.spec.preprocessing)
        | {"pad": _pad_mode(package, source), "pixelSize": _pixel_size(package)},
        "outputs": [_tensor(t.spec, t, t.spec.postprocessing) for t in tensors.outputs],
        "y": _axis(sizes["y"], halo["y"]),
        "x": _axis(sizes["x"], halo["x"]),
        "tilesDiffer": tiles_differ,
        "instances": _instances(package),
        "test": test,
    }
    return PageContent(facts, {"weights": weights.read_bytes(), **test_parts})


def _weights(package: Package, max_bytes: int) -> Path:
    entry = package.description.weights.onnx
    if entry is None:
        raise PackageError(
            f"{package.source} has no ONNX weights, only {', '.join(package.formats())}, which no browser runs; export it with "
            "--weights onnx"
        )
    path = package.path(entry)
    if not path.is_file():
        raise PackageError(f"{package.source}: {path.name} is missing; download the complete package")
    try:
        external = scan_onnx(path).external
    except ValueError as error:
        raise PackageError(
            f"{package.source}: {path.name} is not ONNX: {error}; please report this to its authors"
        ) from error
    if external:
        raise PackageError(
            f"{package.source}: {path.name} keeps its weights in other files ({external[0]}), which a page cannot read; save them "
            f"as one file, or {_PREDICT}"
        )
    if path.stat().st_size > max_bytes:
        raise PackageError(
            f"{package.source}: {path.name} has {bytes_text(path.stat().st_size)}, more than the {bytes_text(max_bytes)} that a "
            f"browser can load this way; {'use im2im-zoo serve, or ' if max_bytes < MAX_SERVED_BYTES else ''}{_PREDICT}"
        )
    return path


# A page is read as text, of which browsers hold half a gigabyte; WebAssembly has 4 GB in all.
MAX_PAGE_BYTES = 200 * 1024**2
MAX_SERVED_BYTES = 1024**3


def _check_supported(package: Package) -> None:
    if len(package.inputs) != 1:
        names = ", ".join(str(t.id) for t in package.inputs)
        raise PackageError(
            f"{package.source} has {len(package.inputs)} inputs ({names}), but a page takes one image; {_PREDICT}"
        )
    operations = [*package.inputs[0].preprocessing, *(op for t in package.outputs for op in t.postprocessing)]
    if package.before_rdf or any(op.id == "custom" for op in operations):
        raise PackageError(
            f"{package.source} has custom operations in Python, which no browser runs; export it with "
            f"--portable, or {_PREDICT}"
        )


def _check_axes(package: Package, tensor: Tensor) -> None:
    other = [a for a in tensor.axes if a not in _AXES]
    missing = [a for a in ("y", "x") if a not in tensor.axes]
    if other or missing:
        what = (
            f"has the axis {other[0]}, but a page runs 2D networks only"
            if other
            else f"has no axis {missing[0]}"
        )
        raise PackageError(f"{package.source}: the tensor {tensor.id} {what}; {_PREDICT}")


def _check_sizes(package: Package, sizes: Mapping[str, SizedAxis], outputs: Sequence[str]) -> None:
    for name in ("y", "x"):
        for output, port in zip(outputs, sizes[name].network.outputs, strict=True):
            if port is None or port.scale != Fraction(1) or port.offset:
                raise PackageError(
                    f"{package.source}: the output {output} has another size along {name} than the image, which a page does not "
                    f"support; {_PREDICT}"
                )


def _measure_halo(package: Package, source: Tensor) -> tuple[dict[str, int], str | None]:
    """Return the halo that tiles need, and why they differ from the whole image nevertheless, or None.

    It is the whole receptive field where that is small, so that the page gives the values of one tile; else the halo of `predict`.
    """
    shape = (len(source.channels or [""]), _LARGE, _LARGE)
    image = xr.DataArray(np.broadcast_to(np.zeros((), np.float32), shape), dims=("channel", "y", "x"))
    layout = map_axes(package, image if source.channels else image[0])
    networks = Model(package).networks
    settings = Settings(weights="onnx", backend="onnxruntime", halo="exact")
    engine, _ = networks.open(settings, Resources(device="cpu"))
    found = networks.halo(engine, layout, settings)
    if found.get("blend") or max(found["halo"].values()) > _LARGEST_EXACT_HALO:
        found = networks.halo(engine, layout, replace(settings, halo="auto"))
    if found.get("blend"):
        return {"y": 0, "x": 0}, str(found["halo_note"])
    return {name: int(found["halo"][name]) for name in ("y", "x")}, None


def _axis(sized: SizedAxis, halo: int) -> dict[str, Any]:
    # The step of a fixed size is what leaves voxels to keep between the halos.
    grid = Grid.of_fixed_size(sized.grid.minimum, halo) if sized.grid.fixed else sized.grid
    plain = {"min": grid.minimum, "step": grid.step, "fixed": grid.fixed}
    return {"grid": plain, "halo": halo, "cut": sized.cut}


def _tensor(spec: Any, tensor: Tensor, operations: Sequence[Any]) -> dict[str, Any]:
    names = dict(zip((str(a.id) for a in tensor.spec.axes), tensor.axes, strict=True))
    return {
        "id": tensor.id,
        "axes": list(tensor.axes),
        "dtype": tensor.dtype,
        "channels": list(tensor.channels or [tensor.id]),
        "operations": [_operation(op, names) for op in operations],
    }


def _operation(operation: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """Return an operation as JSON values, with axes named as in `core.axes.AXES`."""
    plain: dict[str, Any] = operation.model_dump(mode="json")
    kwargs = dict(plain.get("kwargs") or {})
    if isinstance(kwargs.get("axes"), list):
        kwargs["axes"] = [names.get(str(a), str(a)) for a in kwargs["axes"]]
    if kwargs.get("axis") is not None:
        kwargs["axis"] = names.get(str(kwargs["axis"]), str(kwargs["axis"]))
    return {"id": str(plain["id"]), "kwargs": kwargs}


def _pad_mode(package: Package, tensor: Tensor) -> str:
    mode = "reflect" if tensor.spec.pad is None else str(tensor.spec.pad.mode)
    if mode not in ("reflect", "symmetric", "edge"):
        raise PackageError(
            f"{package.source}: the input {tensor.id} is padded by {mode}, which a page does not support; {_PREDICT}"
        )
    return mode


def _pixel_size(package: Package) -> dict[str, Any] | None:
    sizes = model_pixel_size_um(package)
    return {name: sizes[name] for name in ("y", "x")} | {"unit": "µm"} if {"y", "x"} <= set(sizes) else None


def _instances(package: Package) -> dict[str, Any] | None:
    grouping = package.grouping
    if grouping is None:
        return None
    if not isinstance(grouping, Grouping):
        return {"kind": "program", "output": None, "method": grouping.source}
    method, kwargs = grouping.method(package.root), grouping.kwargs
    common = {
        "output": grouping.output,
        "channel": int(kwargs.get("channel", 0)),
        "minSize": int(kwargs.get("min_size", 1)),
    }
    if method == "components" and not (kwargs.get("fill_holes") or kwargs.get("split_touching")):
        return {"kind": method, **common, "threshold": float(kwargs.get("threshold", 0.5))}
    if method == "watershed":
        return {
            "kind": method,
            **common,
            "seedThreshold": float(kwargs.get("seed_threshold", 0.8)),
            "foregroundThreshold": float(kwargs.get("foreground_threshold", 0.5)),
            "boundary": kwargs.get("boundary"),
            "affinities": kwargs.get("affinities"),
        }
    named = f"the method {method}" if method else grouping.source
    return {"kind": "program", "output": grouping.output, "method": named}


def _test_tensors(package: Package) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
    """Return the facts of the test tensors and their values, by part; None if there are none that a page can use."""
    (source,) = package.inputs
    labels = isinstance(package.grouping, LibraryGrouping) and package.grouping.named
    if labels or source.test_tensor is None or any(t.test_tensor is None for t in package.outputs):
        return None, {}
    try:
        given = read_npy(package.path(source.test_tensor))
        expected = [read_npy(package.path(t.test_tensor)) for t in package.outputs]
    except (PackageError, OSError):
        return None, {}
    batch = [str(a.type) for a in source.axes].index("batch") if "batch" in _types(source) else None
    if given.ndim != len(source.axes) or (batch is not None and given.shape[batch] != 1):
        return None, {}
    if 8 * given.size + sum(4 * a.size for a in expected) > MAX_TEST_BYTES:
        return None, {}
    parts = {"test_input": _bytes(given, "<f8")}
    parts |= {f"test_output_{i}": _bytes(a, "<f4") for i, a in enumerate(expected)}
    allowed = [tolerance(package, "onnx", str(t.id)) for t in package.outputs]
    facts = {
        "shape": list(given.shape),
        "expected": [list(a.shape) for a in expected],
        "absolute": max(a.absolute for a in allowed),
        "relative": max(a.relative for a in allowed),
        "perMillion": max(a.mismatched_per_million for a in allowed),
    }
    return facts, parts


def _types(tensor: Any) -> list[str]:
    return [str(axis.type) for axis in tensor.axes]


def _bytes(array: NDArray[Any], dtype: str) -> bytes:
    return np.ascontiguousarray(array, dtype).tobytes()


def _short_source(package: Package) -> str:
    """Return how a user names the package in a command: the folders of this machine are not part of the page."""
    source = package.source
    return source if "://" in source or "/" not in source.replace("\\", "/") else Path(source).name
