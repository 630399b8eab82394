"""Validation of any package: files, safety, format, metadata, and results of its weights on its test tensors.

Nothing is fetched from the network unless links are to be checked, and no code of the package runs without consent. The test
image and crops of it are run whole; the tiling of other programs is not checked.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from im2im_zoo.core.array_file import read_npy
from im2im_zoo.core.errors import Im2ImError, PackageError
from im2im_zoo.core.http import is_internal
from im2im_zoo.instances.grouping import WHERE, GroupFunction
from im2im_zoo.instances.library.grouping import LibraryGrouping
from im2im_zoo.package import Package, open_package
from im2im_zoo.package.remote import is_address
from im2im_zoo.packaging.consumers.programs import ConsumerVerdict, consumer_table
from im2im_zoo.packaging.grouping import labels_of
from im2im_zoo.packaging.validation.checks.base import Checks, bounded_memory
from im2im_zoo.packaging.validation.checks.core import check_core
from im2im_zoo.packaging.validation.checks.format import check_files, check_format, check_unchanged, files_of
from im2im_zoo.packaging.validation.checks.halo import check_halo
from im2im_zoo.packaging.validation.checks.halo_step import check_halo_step
from im2im_zoo.packaging.validation.checks.links import check_links
from im2im_zoo.packaging.validation.checks.metadata import check_metadata
from im2im_zoo.packaging.validation.checks.open_weights import open_engines
from im2im_zoo.packaging.validation.checks.pictures import pictures_of
from im2im_zoo.packaging.validation.checks.safety import check_safety
from im2im_zoo.packaging.validation.checks.weights import (
    check_batches,
    check_off_grid,
    check_size,
    check_test_tensors,
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
        allow_code: consent to run the package's Python: its state dict's network, custom operations, and its own grouping code.
        sizes: further sizes at which to run and compare the formats: `min + n * step` for each n.
        links: whether to check online that the links of the RDF work.
        core: whether to test with bioimageio.core as well; state dicts and custom operations with consent only.
        pictures: whether the report gets the cover and the test tensors as pictures.
    Returns:
        The report. For a package that cannot be opened it has that error only.
    """
    try:
        package = open_package(source, must_run=False)
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
        except (Im2ImError, MemoryError) as error:  # errors that no check expects are still findings
            reason = str(error) or "there is not enough memory"
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
    """Run all checks, in an order that reads only safe files and runs only unchanged ones."""
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
        check_links(checks, local=is_address(package.source) and is_internal(package.source))
    # A file that was changed is not run: it may be anything.
    if checks.has("hash"):
        checks.add("warning", "not_run", "weights", "not run, because files were changed")
    elif _has_test_tensors(checks):
        ran = _check_weights(checks, weights, sizes, safe)
        _check_grouping(checks)
        if core:
            check_core(checks, ran)


def _has_test_tensors(checks: Checks) -> bool:
    bad = ("missing_file", "unsafe")
    return not any(f.code in bad and f.field.endswith("test_tensor") for f in checks.findings)


def _check_description(checks: Checks) -> None:
    package = checks.package
    metadata = check_metadata(package)
    # Our findings on a missing field have a remedy; those of the format only report it.
    said = {f.field.split("[")[0] for f in metadata} | {f.field for f in metadata}
    # bioimageio.spec would download a file that the RDF names by an address.
    is_remote = any(f.code == "remote_file" for f in checks.findings)
    files = not (is_remote or checks.has("missing_file", "hash", "unsafe"))
    formal = check_format(package, files=files)
    formal = [f for f in formal if f.severity == "error" or not (f.field in said or _names(f, said))]
    checks.findings += [*formal, *metadata, *check_halo_step(package)]
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
    """Return whether the message of a finding names one of these fields."""
    return any(f"`{field}`" in finding.message for field in fields)


def _check_weights(
    checks: Checks, weights: Sequence[str] | None, sizes: Sequence[int], safe: Collection[str]
) -> tuple[str, ...]:
    """Run every format on the test tensors, in batches and at other sizes; return the formats that were run."""
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
    """Compute labels from the test output, if the package has a grouping."""
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
    """Check that the library of the grouping is installed; its labels are the test output, which is compared above."""
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
