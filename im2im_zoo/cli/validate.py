"""`im2im-zoo validate`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import print_consumers, print_table, results, say
from im2im_zoo.core.resources import packaged_models

if TYPE_CHECKING:
    from im2im_zoo.packaging import ValidationReport


def run(
    source: str,
    weights: Sequence[str] | None,
    allow_code: bool,
    *,
    as_json: bool = False,
    html: Path | None = None,
    links: bool = False,
    core: bool = True,
    strict: bool = False,
) -> None:
    """Validate a package; exit with 1 if it is not sound, or, if `strict`, has warnings."""
    from im2im_zoo.package.remote import is_address

    if not (is_address(source) or _is_there(source)):
        raise typer.BadParameter(
            f"there is no {source!r}; give a package's folder, zip or rdf.yaml, or its address"
        )
    if html is not None and not html.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {html.parent} to write {html.name} into")
    from im2im_zoo.packaging import validate_package

    say(f"Validating {source}")
    report = validate_package(
        source,
        weights=tuple(weights) if weights else None,
        allow_code=allow_code,
        links=links,
        core=core,
        pictures=html is not None,
    )
    if html is not None:
        _write_page(report, html)
    if as_json:
        sys.stdout.write(report.to_json() + "\n")
    else:
        show_report(report)
    if not report.sound or (strict and report.of("warning")):
        raise typer.Exit(1)


def _is_there(source: str) -> bool:
    try:
        return Path(source).expanduser().exists() or (packaged_models() / source).exists()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False


def _write_page(report: "ValidationReport", path: Path) -> None:
    from im2im_zoo.core.atomic import write_text
    from im2im_zoo.core.errors import PackageError
    from im2im_zoo.packaging.validation.page import validation_page

    try:
        write_text(path, validation_page(report))
    except OSError as error:
        raise PackageError(f"{path} cannot be written: {error}") from error
    say(f"{path} has the page")


def show_report(report: "ValidationReport") -> None:
    """Print what was checked, the findings and the verdict."""
    from im2im_zoo.packaging.validation.finding_codes import SUBJECTS

    rows = []
    for subject, verdict in report.verdicts().items():
        notes = [n.message for n in report.notes if n.subject == subject]
        if verdict != "not checked":
            rows.append((SUBJECTS[subject], verdict, "; ".join(notes)))
    if rows:
        print_table(("checked", "", ""), rows)
        results.print()
    found = [(f.severity, f.code, f.field, f.message) for f in report.findings]
    if found:
        print_table(("", "code", "where", "what"), found)
    if report.consumers:
        results.print()
        print_consumers(report.consumers)
    said = "sound" if report.sound else f"not sound: {len(report.of('error'))} error(s)"
    results.print(f"{report.source} is {said}, {len(report.of('warning'))} warning(s)", markup=False)
