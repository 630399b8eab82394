"""`im2im-zoo validate`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import print_consumers, print_line, print_table, print_text
from im2im_zoo.core.atomic import write_text
from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.resources import packaged_models

if TYPE_CHECKING:
    from im2im_zoo.packaging import ValidationReport

_NOT_CHECKED = 3


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
    """Validate a package; exit with 1 if it is not sound, or, if `strict`, has warnings; with 3 if no weights could be run."""
    from im2im_zoo.package.remote import is_address

    if not (is_address(source) or _exists(source)):
        raise typer.BadParameter(
            f"{source!r} was not found; give a package's folder, zip, rdf.yaml or address"
        )
    if html is not None and not html.parent.is_dir():
        raise typer.BadParameter(f"the folder {html.parent} for {html.name} does not exist; create it first")
    from im2im_zoo.packaging import validate_package

    print_line(f"Validating {source}")
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
    if report.verdict == "not checked":
        raise typer.Exit(_NOT_CHECKED)
    if not report.sound or (strict and report.of("warning")):
        raise typer.Exit(1)


def _exists(source: str) -> bool:
    try:
        return Path(source).expanduser().exists() or (packaged_models() / source).exists()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False


def _write_page(report: "ValidationReport", path: Path) -> None:
    from im2im_zoo.packaging.validation.page import validation_page

    try:
        write_text(path, validation_page(report))
    except OSError as error:
        raise PackageError(f"{path} cannot be written: {error}") from error
    print_line(f"Wrote {path}")


def show_report(report: "ValidationReport") -> None:
    """Print the checks, the findings and the verdict."""
    from im2im_zoo.packaging.validation.finding_codes import SUBJECTS

    rows = []
    for subject, verdict in report.verdicts().items():
        notes = [n.message for n in report.notes if n.subject == subject]
        if verdict != "not checked":
            rows.append((SUBJECTS[subject], verdict, "; ".join(notes)))
    if rows:
        print_table(("checked", "", ""), rows)
        print_text()
    found = [(f.severity, f.code, f.field, f.message) for f in report.findings]
    if found:
        print_table(("", "code", "where", "what"), found)
    if report.consumers:
        print_text()
        print_consumers(report.consumers)
    why = {"not sound": f": {len(report.of('error'))} error(s)", "not checked": f": {report.unchecked}"}
    text = f"{report.source} is {report.verdict}{why.get(report.verdict, '')}, {len(report.of('warning'))} warning(s)"
    print_text(text)
