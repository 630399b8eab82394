"""Check a package, whoever made it: files, safety, format, metadata, and what its weights give of its test tensors.

Nothing is fetched from the network unless links are asked for, and no code of the package runs without consent. Runs the
package's test image and crops of it whole; whether a consumer's own tiling is right is not a question about the package.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from im2im_zoo.core.array_file import read_npy
from im2im_zoo.core.errors import Im2ImError, PackageError
from im2im_zoo.instances.grouping import WHERE, GroupFunction
from im2im_zoo.instances.library.grouping import LibraryGrouping
from im2im_zoo.package import Package, open_package
from im2im_zoo.packaging.consumers.programs import ConsumerVerdict, consumer_table
from im2im_zoo.packaging.grouping import labels_of
from im2im_zoo.packaging.validation.checks.base import Checks, bounded_memory
from im2im_zoo.packaging.validation.checks.core import check_core
from im2im_zoo.packaging.validation.checks.format import check_files, check_format, check_unchanged, files_of
from im2im_zoo.packaging.validation.checks.halo import check_halo
from im2im_zoo.packaging.validation.checks.links import check_links
from im2im_zoo.packaging.validation.checks.metadata import check_metadata
from im2im_zoo.packaging.validation.checks.pictures import pictures_of
from im2im_zoo.packaging.validation.checks.safety import check_safety
from im2im_zoo.packaging.validation.checks.weights import (
    check_batches,
    check_off_grid,
    check_size,
    check_test_tensors,
    open_engines,
    prepared_tensors,
)
from im2im_zoo.packaging.validation.findings import Finding, ValidationReport, sort_findings


def validate_package(
    source: str | Path,
    *,
    weights: Sequence[str] | None = None,
    allow_code: bool = False,
    sizes: Sequence[int] = (0, 1),
    links: bool = False,
    core: bool = False,
    pictures: bool = False,
) -> ValidationReport:
    """Check a package.

    Args:
        source: a folder, a zip, an `rdf.yaml`, the name of a packaged model, or an address.
        weights: formats to run (default: all that can be run here).
        allow_code: consent to run the package's Python: its state dict's network, custom operations, a grouping of others.
        sizes: besides the test tensors, at which sizes to run and compare the formats: `min + n * step` for each n.
        links: whether to ask the network if the links of the RDF lead anywhere.
        core: whether to ask bioimageio.core, too; state dicts and custom operations with consent only.
        pictures: whether the report gets the cover and the test tensors as pictures.
    Returns:
        The report. A package that cannot be opened at all is a report with that error.
    """
    try:
        package = open_package(source)
    except PackageError as error:
        return ValidationReport(str(source), (Finding("error", "open", "", str(error)),))
    with package:
        checks = Checks(package, allow_code)
        consumers: tuple[ConsumerVerdict, ...] = ()
        try:
            with bounded_memory():
                _check(checks, weights, sizes, links=links, core=core)
                if not checks.has("refused"):
                    consumers = consumer_table(package)
                if pictures and not checks.has("refused", "unsafe"):
                    checks.pictures += pictures_of(package)
        except (Im2ImError, MemoryError) as error:  # what no check expects is still about the package
            reason = str(error) or "it takes more memory than there is"
            checks.add("error", "not_run", "", f"the rest was not checked: {reason}")
        return ValidationReport(
            str(source),
            sort_findings(checks.findings),
            checks.measured,
            tuple(checks.notes),
            name=package.name,
            version=package.version or "",
            core=tuple(checks.core),
            consumers=consumers,
            pictures=tuple(checks.pictures),
        )


def _check(
    checks: Checks, weights: Sequence[str] | None, sizes: Sequence[int], *, links: bool, core: bool
) -> None:
    """Everything that is checked, in an order in which nothing is read that is not safe, and nothing run that was changed."""
    package = checks.package
    checks.findings += check_files(package)
    safe = check_safety(checks)
    if checks.has("refused"):
        checks.findings += check_format(package, files=False)
        checks.add("warning", "not_run", "weights", "not run, because files lie outside the package")
        return
    checks.findings += check_unchanged(package)
    _check_description(checks)
    if links:
        check_links(checks)
    # A file that was changed is not run: it may be anything.
    if checks.has("hash"):
        checks.add("warning", "not_run", "weights", "not run, because files were changed")
    elif _tensors_are_there(checks):
        ran = _check_weights(checks, weights, sizes, safe)
        _check_grouping(checks)
        if core:
            check_core(checks, ran)


def _tensors_are_there(checks: Checks) -> bool:
    bad = ("missing_file", "unsafe")
    return not any(f.code in bad and f.field.endswith("test_tensor") for f in checks.findings)


def _check_description(checks: Checks) -> None:
    package = checks.package
    metadata = check_metadata(package)
    # Ours say what to do about a missing field; the format's say that it is missing.
    said = {f.field.split("[")[0] for f in metadata} | {f.field for f in metadata}
    formal = check_format(package, files=not checks.has("missing_file", "hash", "unsafe"))
    formal = [f for f in formal if f.severity == "error" or not (f.field in said or _names(f, said))]
    checks.findings += [*formal, *metadata]
    if not checks.has("missing_file", "hash"):
        checks.note("files", f"{len({s for _, s in files_of(package)})} files are there and unchanged")
    if not any(f.severity == "error" for f in formal):
        version = package.raw.get("format_version")
        checks.note("format", f"valid by bioimageio.spec; written as format {version}")
    if not metadata:
        checks.note(
            "metadata", "authors, maintainers, citation, licence, tags, cover and documentation are there"
        )


def _names(finding: Finding, fields: Collection[str]) -> bool:
    """Whether a finding that is listed elsewhere is about one of these fields."""
    return any(f"`{field}`" in finding.message for field in fields)


def _check_weights(
    checks: Checks, weights: Sequence[str] | None, sizes: Sequence[int], safe: Collection[str]
) -> tuple[str, ...]:
    """Run every format on the test tensors, in batches and at other sizes; the formats that were run."""
    test = prepared_tensors(checks)
    if test is None:
        return ()
    engines = open_engines(checks, weights, safe)
    ran = tuple(engines)
    check_test_tensors(checks, engines, test)
    for n in sizes:
        check_size(checks, engines, test, n)
    check_off_grid(checks, engines, test)
    check_batches(checks, engines, test)
    if engines:
        check_halo(checks, next(iter(engines.values())), test)
    return ran


def _check_grouping(checks: Checks) -> None:
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
        found = _objects(package, function)
    except (PackageError, ValueError, OSError) as error:
        checks.add("error", "grouping", WHERE, str(error))
        return
    checks.measured["grouping"] = {"objects_in_test_output": found}
    if found:
        checks.note("grouping", f"{grouping.source} finds {found} objects in the test output")
    else:
        checks.add("info", "grouping", WHERE, f"{grouping.source} finds no object in the test output")


def _check_library(checks: Checks, grouping: LibraryGrouping) -> None:
    """Whether the library that groups the maps is here; what it makes is the test output, which is compared above."""
    try:
        grouping.load(checks.package.root, allow_code=checks.allow_code)
    except PackageError as error:
        checks.add("info", "skipped", "outputs[0].postprocessing", str(error))
        return
    if not grouping.named:
        return
    (output,) = checks.package.outputs
    labels = read_npy(checks.package.path(output.test_tensor))
    checks.measured["grouping"] = {"objects_in_test_output": len(np.unique(labels[labels != 0]))}


def _objects(package: Package, function: GroupFunction) -> int:
    (output,) = package.outputs
    maps = xr.DataArray(read_npy(package.path(output.test_tensor)), dims=[str(a.id) for a in output.axes])
    return int(labels_of(function, maps.isel(batch=0) if "batch" in maps.dims else maps).max())
