"""Check a package, whoever made it: format, files, and that each weight format gives what the test tensors say.

Nothing is fetched from the network, and no code of the package runs without consent. Runs the package's test image
and crops of it whole; whether a consumer's own tiling is right is not a question about the package.
"""

import gc
import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.engines import Engine, open_engine
from im2im_zoo.errors import PackageError, ProcessingError
from im2im_zoo.package import WEIGHTS_FORMATS, Package, check_hashes, open_package
from im2im_zoo.packaging.findings import Finding, Severity, ValidationReport, sort_findings
from im2im_zoo.packaging.format_checks import check_files, check_format, check_metadata
from im2im_zoo.packaging.grouping import labels_of
from im2im_zoo.packaging.weights import TOLERANCE, difference
from im2im_zoo.processing.grouping import WHERE
from im2im_zoo.processing.library_grouping import LibraryGrouping
from im2im_zoo.reference import Reference, compare, tolerance


@dataclass
class _Checks:
    package: Package
    allow_code: bool
    findings: list[Finding] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    def add(self, severity: Severity, code: str, where: str, message: str) -> None:
        self.findings.append(Finding(severity, code, where, message))


def validate_package(
    source: str | Path,
    *,
    weights: Sequence[str] | None = None,
    allow_code: bool = False,
    sizes: Sequence[int] = (0, 1),
) -> ValidationReport:
    """Check a package.

    Args:
        source: a folder, a zip, an `rdf.yaml`, or the name of a packaged model.
        weights: formats to run (default: all that can be run here).
        allow_code: consent to run the package's Python: its state dict's network, custom operations, a grouping of others.
        sizes: besides the test tensors, at which sizes to run and compare the formats: `min + n * step` for each n.
    Returns:
        The report. A package that cannot be opened at all is a report with that error.
    """
    try:
        package = open_package(source)
    except PackageError as error:
        return ValidationReport(str(source), (Finding("error", "open", "", str(error)),))
    with package:
        checks = _Checks(package, allow_code)
        try:
            _check(checks, weights, sizes)
        except PackageError as error:  # e.g. a file that the RDF looks for outside the package
            checks.add("error", "refused", "", str(error))
        return ValidationReport(str(source), sort_findings(checks.findings), checks.measured)


def _check(checks: _Checks, weights: Sequence[str] | None, sizes: Sequence[int]) -> None:
    """Everything that is checked, in an order in which nothing is run that was changed."""
    package = checks.package
    missing = check_files(package)
    checks.findings += missing
    for file, expected, actual in check_hashes(package):
        checks.add(
            "error", "hash", file, f"its SHA-256 is {actual}, the RDF gives {expected}: it was changed"
        )
    changed = any(f.code == "hash" for f in checks.findings)
    metadata = check_metadata(package)
    # Ours say what to do about a missing field; the format's say that it is missing.
    said = {f.field for f in metadata}
    formal = check_format(package, files=not missing and not changed)
    checks.findings += [f for f in formal if f.severity == "error" or f.field not in said]
    checks.findings += metadata
    # A file that was changed is not run: it may be anything.
    if changed:
        checks.add("warning", "not_run", "weights", "not run, because files were changed")
    elif not any(f.code == "missing_file" and "test_tensor" in f.field for f in missing):
        _check_weights(checks, weights, sizes)
        _check_grouping(checks)


def core_verdict(source: str | Path, weights_format: str | None = None) -> ValidationReport:
    """What bioimageio.core itself says about a package. It runs the package's Python code, without asking.

    Args:
        source: a folder, a zip, or an `rdf.yaml`.
        weights_format: the format to test (default: all).
    """
    from bioimageio.core import test_model

    with open_package(source) as package, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its libraries; its own are in the summary
        rdf = next(p for p in sorted(package.root.iterdir()) if p.name in ("rdf.yaml", "bioimageio.yaml"))
        findings = _findings_of_core(test_model(rdf, weight_format=weights_format))  # type: ignore[arg-type]
        gc.collect()  # bioimageio leaves files open until then, with a warning each
    return ValidationReport(str(source), sort_findings(findings))


def _findings_of_core(summary: Any) -> list[Finding]:
    findings = []
    for detail in summary.details:
        findings += [Finding("error", "core", ".".join(map(str, e.loc)), e.msg) for e in detail.errors]
        for w in detail.warnings:
            severity: Severity = "info" if w.severity <= 20 else "warning"
            findings.append(Finding(severity, "core", ".".join(map(str, w.loc)), w.msg))
    if summary.status == "failed" and not any(f.severity == "error" for f in findings):
        findings.append(Finding("error", "core", "", "bioimageio.core says that it failed"))
    return findings


def _check_weights(checks: _Checks, weights: Sequence[str] | None, sizes: Sequence[int]) -> None:
    """Run every format on the test tensors and at other sizes, and compare."""
    package = checks.package
    absent = [f for f in weights or () if f not in package.weights]
    for name in absent:
        checks.add(
            "error", "weights", f"weights.{name}", f"there are none; there are {', '.join(package.weights)}"
        )
    for name in package.formats():
        if name not in WEIGHTS_FORMATS:
            checks.add(
                "info", "not_run", f"weights.{name}", "not run: there is no engine for this format here"
            )
    try:
        test = Reference.of(package, allow_code=checks.allow_code)
    except (PackageError, ProcessingError, ValueError, OSError) as error:
        checks.add("error", "test_tensor", "inputs", f"the test tensors cannot be processed: {error}")
        return
    engines: dict[str, Engine] = {}
    for name in package.weights:
        if weights is not None and name not in weights:
            continue
        if name == "pytorch_state_dict" and not checks.allow_code:
            message = (
                "skipped: runs Python code that the package names; allow it with --allow-code if you trust it"
            )
            checks.add("info", "skipped", f"weights.{name}", message)
            continue
        try:
            entry = package.weights_entry(name)
            architecture = getattr(entry, "architecture", None)
            engines[name] = open_engine(
                name,
                package.path(entry),
                architecture=architecture,
                root=package.root,
                allow_code=checks.allow_code,
                description=package.description,
            )
            _check_reproduces(checks, name, engines[name], test)
        except (PackageError, ProcessingError) as error:
            checks.add("error", "weights", f"weights.{name}", str(error))
            engines.pop(name, None)
    if not engines and not absent:
        checks.add("warning", "not_run", "weights", "none of the weight formats was run")
    for n in sizes:
        _check_size(checks, engines, test, n)


def _check_grouping(checks: _Checks) -> None:
    """Group the test output, if the package says how."""
    package, grouping = checks.package, checks.package.grouping
    if grouping is None:
        return
    if isinstance(grouping, LibraryGrouping):
        _check_library(checks, grouping)
        return
    if grouping.source not in {str(a.source) for a in package.description.attachments}:
        message = f"{grouping.source} is not among the attachments, so readers of the format leave it behind: list it there"
        checks.add("warning", "grouping", WHERE, message)
    try:
        if not checks.allow_code and not grouping.is_ours(package.root):
            message = f"skipped: {grouping.source} is Python code that came with the package; allow it with --allow-code if you trust it"
            checks.add("info", "skipped", WHERE, message)
            return
        function = grouping.load(package.root, allow_code=checks.allow_code)
        (output,) = package.outputs
        maps = xr.DataArray(np.load(package.path(output.test_tensor)), dims=[str(a.id) for a in output.axes])
        labels = labels_of(function, maps.isel(batch=0) if "batch" in maps.dims else maps)
    except (PackageError, ValueError, OSError) as error:
        checks.add("error", "grouping", WHERE, str(error))
        return
    checks.measured["grouping"] = {"objects_in_test_output": int(labels.max())}
    if not labels.any():
        checks.add("info", "grouping", WHERE, f"{grouping.source} finds no object in the test output")


def _check_library(checks: _Checks, grouping: LibraryGrouping) -> None:
    """Whether the library that groups the maps is here; what it makes is the test output, which is compared above."""
    try:
        grouping.load(checks.package.root, allow_code=checks.allow_code)
    except PackageError as error:
        checks.add("info", "skipped", "outputs[0].postprocessing", str(error))
        return
    if not grouping.named:
        return
    (output,) = checks.package.outputs
    labels = np.load(checks.package.path(output.test_tensor))
    checks.measured["grouping"] = {"objects_in_test_output": len(np.unique(labels[labels != 0]))}


def _check_reproduces(checks: _Checks, name: str, engine: Engine, test: Reference) -> None:
    """Compare a format's result with the test output, within the tolerance that the package declares."""
    grouping = checks.package.grouping
    if isinstance(grouping, LibraryGrouping) and grouping.named and not grouping.is_installed:
        return  # `_check_library` says so
    results = test.finish(engine(test.inputs))
    for tensor_id, expected in test.expected.items():
        result = results[tensor_id]
        where = f"weights.{name}"
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
        if found.mismatched_per_million > allowed.mismatched_per_million:
            checks.add(
                "error",
                "test_output",
                where,
                f"its output {tensor_id} is not the test tensor's: {found.mismatched_per_million:.0f} of a million voxels differ by "
                f"more than {allowed.absolute:.2g} + {allowed.relative:.2g} of the value (at most "
                f"{allowed.mismatched_per_million:.0f} may); largest difference {found.largest:.3g}",
            )


def _check_size(checks: _Checks, engines: Mapping[str, Engine], test: Reference, n: int) -> None:
    """Run the formats at a declared size, made of the test image, and compare them with each other."""
    shapes = [_declared_shape(t, n) for t in checks.package.inputs]
    if any(shape is None for shape in shapes):
        return
    if any(array is None for array in test.inputs):
        return
    inputs = [
        _repeated(array, [have if w is None else w for have, w in zip(array.shape, shape or (), strict=True)])
        for array, shape in zip(test.inputs, shapes, strict=True)
        if array is not None
    ]
    text = " and ".join("x".join(map(str, a.shape)) for a in inputs)
    results: dict[str, list[NDArray[Any]]] = {}
    for name, engine in engines.items():
        try:
            results[name] = engine(inputs)
        except PackageError as error:
            checks.add(
                "error",
                "size",
                f"weights.{name}",
                f"it does not run at {text}, a size that the RDF declares: {error}",
            )
            continue
        wrong = [
            w
            for o, t in zip(results[name], checks.package.outputs, strict=True)
            if (w := _wrong_size(o, t, checks.package, inputs))
        ]
        for message in wrong:
            checks.add("error", "size", f"weights.{name}", f"for input {text} {message}")
        if not all(np.isfinite(o).all() for o in results[name]):
            checks.add(
                "error", "size", f"weights.{name}", f"at {text} its output has values that are no numbers"
            )
    for (a, first), (b, second) in itertools.pairwise(results.items()):
        worst = max(difference(x, y) for x, y in zip(first, second, strict=True))
        checks.measured.setdefault("between_formats", {})[f"{a} and {b} at {text}"] = worst
        if worst > 10 * TOLERANCE:
            message = f"{a} and {b} differ at {text} by {worst:.2g} of the largest value: they are not the same network"
            checks.add("error", "formats_differ", f"weights.{b}", message)


def _declared_shape(tensor: Any, n: int) -> tuple[int | None, ...] | None:
    """The tensor's shape at `min + n * step`, None where it is the test tensor's; None if sizes refer elsewhere."""
    from bioimageio.spec.model import v0_5 as spec

    shape: list[int | None] = []
    for axis in tensor.axes:
        size = getattr(axis, "size", None)
        if axis.type == "batch" or size is None:
            shape.append(None)
        elif isinstance(size, spec.ParameterizedSize):
            shape.append(size.min + n * size.step)
        elif isinstance(size, int):
            shape.append(size)
        else:
            return None
    return tuple(shape)


def _wrong_size(
    output: NDArray[Any], tensor: Any, package: Package, inputs: Sequence[NDArray[Any]]
) -> str | None:
    """What is wrong with the size of an output, if its axes refer to those of an input."""
    from bioimageio.spec.model import v0_5 as spec

    sizes = {
        (str(t.id), str(axis.id)): (axis, size)
        for t, array in zip(package.inputs, inputs, strict=True)
        for axis, size in zip(t.axes, array.shape, strict=True)
    }
    for axis, have in zip(tensor.axes, output.shape, strict=True):
        size = getattr(axis, "size", None)
        if not isinstance(size, spec.SizeReference):
            continue
        known = sizes.get((str(size.tensor_id), str(size.axis_id)))
        if known is None:
            continue
        reference, n = known
        expected = int(
            n * getattr(reference, "scale", 1.0) / getattr(axis, "scale", 1.0) + size.offset + 1e-6
        )
        if have != expected:
            return f"its output {tensor.id} has {have} voxels along {axis.id}; by the RDF it is {expected}"
    return None


def _repeated(array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """The array, cut or mirrored to a shape."""
    cut = array[tuple(slice(n) for n in shape)]
    widths = [(0, n - have) for n, have in zip(shape, cut.shape, strict=True)]
    return np.ascontiguousarray(np.pad(cut, widths, mode="reflect"))
