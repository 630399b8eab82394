"""Options for the metadata of a package, which `new`, `export` and `edit` share."""

from typing import Annotated

import typer

Description = Annotated[
    str | None, typer.Option("--description", help="Description: purpose and images, in a sentence or two.")
]
License = Annotated[
    str | None, typer.Option("--license", metavar="SPDX", help="Licence, e.g. MIT or CC-BY-4.0.")
]
Authors = Annotated[
    list[str] | None,
    typer.Option(
        "--author",
        metavar="TEXT",
        help="'NAME; affiliation=...; orcid=...; github=...': add an author, or complete the one of this name; may be repeated.",
    ),
]
Maintainers = Annotated[
    list[str] | None,
    typer.Option(
        "--maintainer",
        metavar="NAME:GITHUB_USER",
        help="Add or complete a maintainer, also as 'NAME; github=...'; may be repeated.",
    ),
]
Citations = Annotated[
    list[str] | None,
    typer.Option(
        "--cite",
        metavar="TEXT",
        help="'TEXT; doi=...' or 'TEXT; url=...': add a citation; may be repeated.",
    ),
]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Add a tag; may be repeated.")]
GitRepository = Annotated[
    str | None, typer.Option("--git-repo", metavar="URL", help="Address of the source code.")
]
TrainingData = Annotated[
    str | None,
    typer.Option("--training-data", metavar="ID", help="Data set at bioimage.io that it was trained on."),
]
