"""`im2im-zoo publish`."""

import sys
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import print_json, print_line, print_table, print_text, progress, quantity

if TYPE_CHECKING:
    from im2im_zoo.packaging.publishing.publication import Publication
    from im2im_zoo.packaging.publishing.publish import Published


def run(
    source: str, to: str, repository: str, *, dry_run: bool, yes: bool, restart: bool, as_json: bool
) -> None:
    """Publish a package, or show what would be sent; exit with 1 if it would be refused."""
    from im2im_zoo.packaging.publishing.publication import prepare_publication
    from im2im_zoo.packaging.publishing.publish import upload_publication
    from im2im_zoo.packaging.publishing.targets import read_token

    with prepare_publication(source, to, repository=repository) as publication:
        if dry_run or publication.errors:
            _show(publication, as_json)
            if publication.errors:
                print_line(
                    f"{source} would be refused: {len(publication.errors)} error(s). Nothing was sent."
                )
                raise typer.Exit(1)
            print_line("Nothing was sent. Without --dry-run these files are uploaded.")
            return
        read_token(publication.target)
        _confirm(publication, yes)
        try:
            with progress("Uploading", "B", counted=False) as bar:
                published = upload_publication(publication, restart=restart, progress=bar)
        except KeyboardInterrupt:
            print_line(
                "The upload is not complete, and not in review. Run the same command to send the rest."
            )
            raise
    if as_json:
        print_json(published.plain())
    else:
        _show_result(published)


def _confirm(publication: "Publication", yes: bool) -> None:
    """Ask on a terminal before anything is sent; without one, `--yes` is needed."""
    _show_findings(publication, to_stdout=False)
    where = f"{publication.server}" + (f", {publication.repository}" if publication.repository else "")
    question = f"Upload {len(publication.files)} files ({quantity(publication.total_bytes)}B) to {where}?"
    if yes:
        print_line(question.removesuffix("?"))
    elif not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on: add --yes to publish, or --dry-run to look")
    elif not typer.confirm(question, err=True):
        print_line("Nothing was sent.")
        raise typer.Exit(1)


def _show(publication: "Publication", as_json: bool) -> None:
    """Print the files, fields and findings of a publication."""
    if as_json:
        print_json(publication.plain())
        return
    where = f"{publication.target.name} ({publication.server})"
    print_text(f"{publication.package.source} -> {where} {publication.repository}")
    print_text()
    print_table(("file", "bytes"), [(file.name, file.bytes) for file in publication.files])
    if publication.left_out:
        print_text(f"not named by the RDF, so not sent: {', '.join(publication.left_out)}")
    print_text()
    rows = [(key, _short(value)) for key, value in publication.manifest.items()]
    print_table(("field", "value"), rows)
    print_text()
    _show_findings(publication, to_stdout=True)


def _show_findings(publication: "Publication", *, to_stdout: bool) -> None:
    """Print each finding, with the command that mends it on a line of its own, so that it can be copied."""
    show = print_text if to_stdout else print_line
    for finding in publication.findings:
        field = f" {finding.field}:" if finding.field else ""
        show(f"{finding.severity}:{field} {finding.message}")
        if finding.command:
            show(f"    {finding.command}")


def _show_result(published: "Published") -> None:
    verb = "was published before; nothing was sent now" if published.already else "is published"
    if published.target == "bioimage.io":
        print_text(f"The draft {published.id} {verb}. A review was requested.")
        print_text(f"RDF: {published.address} (available after some minutes)")
        print_text(f"Follow the review, or change the draft: {published.page}")
    else:
        print_text(f"The repository {published.id} {verb}.")
        print_text(f"Address: {published.address}")
        print_text(f"A version is a pull request there; merge it: {published.page}")


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."
