"""Run each weights format of a package: on its test tensors, twice, in batches, and at sizes on and off the declared grid."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import Im2ImError, PackageError
from im2im_zoo.engines import Engine, weights_formats
from im2im_zoo.instances.library.grouping import LibraryGrouping
from im2im_zoo.package.reference import Reference, compare, tolerance
from im2im_zoo.packaging.comparison import TOLERANCE, difference
from im2im_zoo.packaging.validation.checks.base import Checks, fits
from im2im_zoo.packaging.validation.checks.declared_sizes import (
    declared_shape,
    off_grid_shape,
    resized,
    wrong_size,
)
from im2im_zoo.packaging.validation.checks.safety import skips_custom

# Share of the largest output; two calls with the same input may differ by the order in which threads add.
_REPEATABLE = 1e-5

Engines = Mapping[str, Engine]


def prepared_tensors(checks: Checks) -> Reference | None:
    """Return the test tensors, preprocessed; add a finding and return None if that fails."""
    try:
        test = Reference.of(checks.package, allow_code=checks.allow_code)
        if all(array is None or array.size for array in test.inputs):
            return test
        error: Exception = PackageError("one of them has no voxels")
    except (Im2ImError, ValueError, OSError) as caught:
        error = caught
    message = f"the test tensors cannot be processed: {' '.join(str(error).split())}"
    checks.add("error", "test_tensor", "inputs", message)
    return None


def open_engines(checks: Checks, weights: Sequence[str] | None, safe: Collection[str]) -> dict[str, Engine]:
    """Open the formats that can and may run here; add a finding for each other one."""
    package, engines = checks.package, dict[str, Engine]()
    absent = [f for f in weights or () if f not in package.weights]
    for name in absent:
        message = f"the package has none; it has {', '.join(package.weights)}"
        checks.add("error", "weights", f"weights.{name}", message)
    for name in package.formats():
        if name not in weights_formats():
            message = "not run: there is no engine for this format here"
            checks.add("info", "not_run", f"weights.{name}", message)
    for name in package.weights:
        if name not in safe or (weights is not None and name not in weights):
            continue
        if name == "pytorch_state_dict" and not checks.allow_code:
            code = getattr(package.weights_entry(name), "architecture", None)
            where = getattr(code, "source", None) or getattr(code, "import_from", "?")
            message = (
                f"skipped: it runs Python code, {getattr(code, 'callable', '?')!r} of {str(where)!r}; allow it with --allow-code if "
                "you trust it"
            )
            checks.add("info", "skipped", f"weights.{name}", message)
            continue
        try:
            engines[name] = checks.package.open_engine(name, allow_code=checks.allow_code)
        except PackageError as error:
            checks.add("error", "weights", f"weights.{name}", str(error))
    if not engines and not absent:
        checks.add("warning", "not_run", "weights", "none of the weight formats was run")
    return engines


def check_test_tensors(checks: Checks, engines: dict[str, Engine], test: Reference) -> None:
    """Compare each format's result with the test output, and with its result of a second call. Remove formats that fail."""
    for name, engine in list(engines.items()):
        try:
            outputs = engine(test.inputs)
            _check_reproduces(checks, name, outputs, test)
            _check_repeatable(checks, name, outputs, engine(test.inputs))
        except (Im2ImError, MemoryError) as error:
            checks.add("error", "weights", f"weights.{name}", str(error) or "there is not enough memory")
            engines.pop(name)


def _check_reproduces(checks: Checks, name: str, outputs: Sequence[NDArray[Any]], test: Reference) -> None:
    grouping = checks.package.grouping
    if isinstance(grouping, LibraryGrouping) and grouping.named and not grouping.is_installed:
        return  # `validate` says so
    if not checks.allow_code and skips_custom(checks):
        return
    results = test.finish(outputs)
    for tensor_id, expected in test.expected.items():
        result, where = results[tensor_id], f"weights.{name}"
        if result.shape != expected.shape:
            message = f"its output {tensor_id} has the shape {result.shape}, the test tensor {expected.shape}"
            checks.add("error", "test_output", where, message)
            continue
        allowed = tolerance(checks.package, name, tensor_id)
        found = compare(result, expected, allowed)
        checks.measured.setdefault("test_output", {}).setdefault(name, {})[tensor_id] = {
            "max_difference": found.largest,
            "mismatched_per_million": found.mismatched_per_million,
        }
        limits = f"{allowed.absolute:.2g} + {allowed.relative:.2g} of the value"
        if found.mismatched_per_million > allowed.mismatched_per_million:
            checks.add(
                "error",
                "test_output",
                where,
                f"its output {tensor_id} is not the test tensor's: {found.mismatched_per_million:.0f} of a million voxels differ by "
                f"more than {limits} (at most {allowed.mismatched_per_million:.0f} may); largest difference {found.largest:.3g}",
            )
        else:
            text = f"{name} gives the test output {tensor_id}: the largest difference is {found.largest:.2g}, allowed is {limits}"
            checks.note("weights", text)


def _check_repeatable(
    checks: Checks, name: str, first: Sequence[NDArray[Any]], second: Sequence[NDArray[Any]]
) -> None:
    worst = max((difference(b, a) for a, b in zip(first, second, strict=True)), default=0.0)
    checks.measured.setdefault("repeated", {})[name] = worst
    if worst > _REPEATABLE:
        message = (
            f"called twice with the test input it gives two results, {worst:.2g} of the largest value apart: put the network "
            "into evaluation mode (dropout), or fix its random numbers, before it is exported"
        )
        checks.add("error", "determinism", f"weights.{name}", message)
    else:
        text = "the same bits" if worst == 0 else f"the same up to {worst:.1g} of the largest value"
        checks.note("determinism", f"{name}, called twice with the test input, gives {text}")


def check_batches(checks: Checks, engines: Engines, test: Reference) -> None:
    """Check that two images in a batch give the same as each alone, unless the RDF fixes the batch size to 1."""
    package = checks.package
    if any(array is None for array in test.inputs):
        return
    tensors: list[Any] = [*package.inputs, *package.outputs]
    axes = [[str(a.type) for a in t.axes] for t in tensors]
    if not all("batch" in kinds for kinds in axes):
        return
    if any(getattr(a, "size", None) == 1 for t in package.inputs for a in t.axes if a.type == "batch"):
        checks.note("batch", "by the RDF a batch has one image, so batches of two were not run")
        return
    n = len(package.inputs)
    places, out_places = [k.index("batch") for k in axes[:n]], [k.index("batch") for k in axes[n:]]
    first = [a.take([0], axis=p) for a, p in zip(test.inputs, places, strict=True) if a is not None]
    # The second image has another brightness as well, since a mirrored one has the same mean.
    second = [np.ascontiguousarray((np.flip(a, axis=-1) / 2).astype(a.dtype)) for a in first]
    both = [np.concatenate(pair, axis=p) for *pair, p in zip(first, second, places, strict=True)]
    if not all(fits(a.shape) for a in both):
        return
    for name, engine in engines.items():
        where = f"weights.{name}"
        try:
            together = engine(both)
        except PackageError as error:
            message = (
                "it does not run on a batch of 2, which the RDF's batch axis without a size allows: export it with a batch axis of "
                f"any size, or give the batch axes of the inputs `size: 1` ({_cause(error)})"
            )
            checks.add("error", "batch", where, message)
            continue
        alone = [
            np.concatenate(pair, axis=p)
            for *pair, p in zip(engine(first), engine(second), out_places, strict=True)
        ]
        worst = max(difference(x, y) for x, y in zip(together, alone, strict=True))
        checks.measured.setdefault("batch_of_2", {})[name] = worst
        if worst > 10 * TOLERANCE:
            message = (
                f"an image gives another result in a batch of 2 than alone, by {worst:.2g} of the largest value: put batch "
                "normalisation into evaluation mode, or give the batch axes of the inputs `size: 1`"
            )
            checks.add("warning", "batch_dependent", where, message)
        else:
            checks.note("batch", f"{name} gives for a batch of 2 what it gives for each alone")


def check_size(checks: Checks, engines: Engines, test: Reference, n: int) -> None:
    """Run the formats at a declared size, made of the test image, and compare them with each other."""
    shapes = [declared_shape(t, n) for t in checks.package.inputs]
    if n and shapes == [declared_shape(t, 0) for t in checks.package.inputs]:
        return  # a fixed size, which was run before
    inputs = _inputs_of(checks, test, shapes)
    if inputs is None:
        return
    text = _text(inputs)
    results: dict[str, list[NDArray[Any]]] = {}
    for name, engine in engines.items():
        where = f"weights.{name}"
        try:
            results[name] = engine(inputs)
        except PackageError as error:
            message = f"it does not run at {text}, a size that the RDF declares: {error}"
            checks.add("error", "size", where, message)
            continue
        found = [
            w
            for o, t in zip(results[name], checks.package.outputs, strict=False)
            if (w := wrong_size(o, t, checks.package, inputs))
        ]
        for wrong in found:
            checks.add("error", "size", where, f"for input {text} {wrong}")
        if not all(np.isfinite(o).all() for o in results[name]):
            checks.add("error", "size", where, f"at {text} its output has values that are NaN or infinite")
        elif not found:
            checks.note("sizes", f"{name} runs at {text}, a size that the RDF declares")
    for (a, first), (b, second) in itertools.pairwise(results.items()):
        worst = max(difference(x, y) for x, y in zip(first, second, strict=False))
        checks.measured.setdefault("between_formats", {})[f"{a} and {b} at {text}"] = worst
        if worst > 10 * TOLERANCE:
            message = f"{a} and {b} differ at {text} by {worst:.2g} of the largest value: they are not the same network"
            checks.add("error", "formats_differ", f"weights.{b}", message)


def check_off_grid(checks: Checks, engines: Engines, test: Reference) -> None:
    """Note the result of each format one voxel beyond a declared size, where it need not run."""
    shapes = [off_grid_shape(t) for t in checks.package.inputs]
    if not any(shape is not None for shape in shapes):
        return
    inputs = _inputs_of(
        checks, test, [s or declared_shape(t, 1) for s, t in zip(shapes, checks.package.inputs, strict=True)]
    )
    if inputs is None:
        return
    text = _text(inputs)
    for name, engine in engines.items():
        try:
            outputs = engine(inputs)
        except PackageError:
            outcome = "fails"
        else:
            wrong = any(
                wrong_size(o, t, checks.package, inputs)
                for o, t in zip(outputs, checks.package.outputs, strict=False)
            )
            outcome = "gives an output of another size" if wrong else "runs"
        checks.measured.setdefault("off_grid", {})[name] = outcome
        checks.note(
            "sizes", f"{name} {outcome} at {text}, off the declared grid: programs have to pad to the grid"
        )


def _inputs_of(
    checks: Checks, test: Reference, shapes: Sequence[tuple[int | None, ...] | None]
) -> list[NDArray[Any]] | None:
    """Return the test inputs in other shapes; None if these refer elsewhere, an input is missing, or they are too large."""
    if any(shape is None for shape in shapes) or any(array is None for array in test.inputs):
        return None
    pairs = [
        (array, [have if w is None else w for have, w in zip(array.shape, shape, strict=True)])
        for array, shape in zip(test.inputs, shapes, strict=True)
        if array is not None and shape is not None
    ]
    if not all(fits(shape) for _, shape in pairs):
        text = " and ".join("x".join(map(str, shape)) for _, shape in pairs)
        checks.add(
            "warning",
            "size",
            "inputs",
            f"the size {text} that the RDF declares is too large to be run: lower `min`",
        )
        return None
    return [resized(array, shape) for array, shape in pairs]


def _text(inputs: Sequence[NDArray[Any]]) -> str:
    return " and ".join("x".join(map(str, a.shape)) for a in inputs)


def _cause(error: PackageError) -> str:
    return " ".join(str(error.__cause__ or error).split())[:200]
