"""Test of a package by bioimageio.core, which most programs use, and comparison with our own results."""

import gc
import warnings
from collections.abc import Collection
from contextlib import chdir
from pathlib import Path
from typing import Any, Literal

from im2im_zoo.package import Package, open_package
from im2im_zoo.packaging.validation.checks.base import Checks
from im2im_zoo.packaging.validation.checks.format import described_with_files, temporary_folder
from im2im_zoo.packaging.validation.findings import (
    CoreVerdict,
    Finding,
    Severity,
    ValidationReport,
    sort_findings,
)

Outcome = Literal["passed", "failed", "not run"]
# Our codes for weights that do not match the package.
_WEIGHTS = (
    "weights",
    "test_output",
    "test_tensor",
    "size",
    "batch",
    "determinism",
    "formats_differ",
    "unsafe",
)


def core_verdict(source: str | Path, weights_format: str | None = None) -> ValidationReport:
    """Return the report of bioimageio.core on a package. It runs the package's Python code without consent.

    Args:
        source: a folder, a zip, or an `rdf.yaml`.
        weights_format: the format to test (default: all).
    """
    with open_package(source) as package:
        return ValidationReport(str(source), sort_findings(_tested(package.rdf.resolve(), weights_format)))


def check_core(checks: Checks, ran: Collection[str]) -> None:
    """Let bioimageio.core test each format that we ran, and show where it disagrees. Nothing runs without consent.

    Args:
        ran: formats that were run here, which are unchanged and safe.
    """
    package = checks.package
    if not checks.allow_code and _has_custom(package):
        message = "bioimageio.core was not run because it runs the package's custom operations; allow them with --allow-code"
        checks.add("info", "skipped", "inputs", message)
        return
    for name in package.formats():
        ours = _ours(checks, name, ran)
        if name not in ran or (name == "pytorch_state_dict" and not checks.allow_code):
            checks.core.append(CoreVerdict(name, "not run", ours, "not run: we did not run it either"))
            continue
        errors = [f for f in _tested_offline(package, name) if f.severity == "error"]
        core: Outcome = "failed" if errors else "passed"
        reason = " ".join(errors[0].message.split())[:400] if errors else ""
        checks.core.append(CoreVerdict(name, core, ours, reason))
        if core == ours:
            checks.note("core", f"bioimageio.core and we agree on {name}: {core}")
        else:
            message = f"bioimageio.core: {core}, im2im_zoo: {ours}"
            where = f"weights.{name}"
            checks.add(
                "warning",
                "core_differs",
                where,
                f"{message}; {reason or 'see the errors that are listed here'}",
            )


def _ours(checks: Checks, name: str, ran: Collection[str]) -> Outcome:
    wrong = any(
        f.severity == "error"
        and f.code in _WEIGHTS
        and (f.field == f"weights.{name}" or f.code == "test_tensor")
        for f in checks.findings
    )
    if wrong:
        return "failed"
    return "passed" if name in ran else "not run"


def _has_custom(package: Package) -> bool:
    operations = [op for t in package.inputs for op in t.preprocessing]
    operations += [op for t in package.outputs for op in t.postprocessing]  # type: ignore[misc]
    return any(str(op.id) == "custom" for op in operations)


def _tested_offline(package: Package, weights_format: str) -> list[Finding]:
    """Return the findings of bioimageio.core without a look-up of people and links."""
    with warnings.catch_warnings(), temporary_folder():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            description = described_with_files(package)
        except Exception as error:  # noqa: BLE001 what it makes of broken files may be anything
            return [Finding("error", "core", "", f"bioimageio.spec raises {type(error).__name__}: {error}")]
        gc.collect()
        return _tested(description, weights_format)


def _tested(source: Any, weights_format: str | None) -> list[Finding]:
    from bioimageio.core import test_model

    with warnings.catch_warnings(), temporary_folder() as folder, chdir(folder):
        warnings.simplefilter("ignore")  # of its libraries; its own are in the summary
        try:
            summary = test_model(source, weight_format=weights_format)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 its tests of a broken package may raise anything
            return [Finding("error", "core", "", f"bioimageio.core raises {type(error).__name__}: {error}")]
        found = _findings_of_core(summary)
        gc.collect()  # bioimageio leaves files open until then, with a warning each
    return found


def _findings_of_core(summary: Any) -> list[Finding]:
    findings = []
    for detail in summary.details:
        findings += [Finding("error", "core", ".".join(map(str, e.loc)), e.msg) for e in detail.errors]
        for w in detail.warnings:
            severity: Severity = "info" if w.severity <= 20 else "warning"
            findings.append(Finding(severity, "core", ".".join(map(str, w.loc)), w.msg))
    if summary.status == "failed" and not any(f.severity == "error" for f in findings):
        findings.append(Finding("error", "core", "", "bioimageio.core reports a failure without an error"))
    return findings
