"""`im2im-zoo validate`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import print_consumers, print_table, results, say
from im2im_zoo.resources import packaged_models

if TYPE_CHECKING:
    from im2im_zoo.packaging import ValidationReport


def run(source: str, weights: Sequence[str] | None, allow_code: bool, as_json: bool) -> None:
    """Validate a package; exit with 1 if it is not sound."""
    if not Path(source).exists() and not (packaged_models() / source).exists():
        raise typer.BadParameter(f"there is no {source!r}; give a package's folder, zip or rdf.yaml")
    from im2im_zoo.packaging import validate_package

    say(f"Validating {source}")
    report = validate_package(source, weights=tuple(weights) if weights else None, allow_code=allow_code)
    if as_json:
        sys.stdout.write(report.to_json() + "\n")
    else:
        show_report(report)
        show_consumers(source)
    if not report.sound:
        raise typer.Exit(1)


def show_consumers(source: str) -> None:
    """Print which programs run a package; nothing for one that cannot be opened."""
    from im2im_zoo.errors import PackageError
    from im2im_zoo.package import open_package
    from im2im_zoo.packaging.consumers import consumer_table

    try:
        with open_package(source) as package:
            print_consumers(consumer_table(package))
    except PackageError:  # the report says it
        return


def show_report(report: "ValidationReport") -> None:
    """Print the findings and the verdict."""
    rows = [(f.severity, f.field, f.message) for f in report.findings]
    if rows:
        print_table(("", "where", "what"), rows)
    verdict = "sound" if report.sound else f"not sound: {len(report.of('error'))} error(s)"
    results.print(f"{report.source} is {verdict}, {len(report.of('warning'))} warning(s)", markup=False)
