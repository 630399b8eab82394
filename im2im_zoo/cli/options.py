"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

AllowCode = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-code",
        metavar="PACKAGE",
        help="Python package, or module beside the recipe, whose code the recipe may import and run; "
        "`custom`: the sources of its custom operations.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
OnnxRuntime = Annotated[
    Path | None,
    typer.Option(
        "--onnxruntime",
        metavar="FOLDER",
        help="Folder `dist` of the npm package onnxruntime-web; default: download it once, 33 MB.",
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="FORMAT",
        help="Weight format: onnx, torchscript or pytorch_state_dict; may be repeated.",
    ),
]
