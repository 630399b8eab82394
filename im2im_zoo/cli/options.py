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
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        help="Find objects in a map: connected regions of values above this, 0.5 for a probability.",
    ),
]
OfClass = Annotated[
    str | None,
    typer.Option(
        "--class", metavar="NAME|N", help="Channel of the map that has the objects, if it has several."
    ),
]
SplitTouching = Annotated[
    bool,
    typer.Option(
        "--split-touching",
        help="Split objects that touch, at necks of their outline; for round objects such as nuclei.",
    ),
]
Neck = Annotated[
    float | None,
    typer.Option(
        "--neck",
        metavar="0..1",
        help="With --split-touching: split where the neck is narrower than this part of the narrower object; default: 0.85.",
    ),
]
FillHoles = Annotated[bool, typer.Option("--fill-holes", help="Fill background that objects enclose.")]
MinSize = Annotated[
    str | None,
    typer.Option(
        "--min-size", metavar="N|Num2|Num3", help="Remove smaller objects: pixels, or e.g. 20um2 or 50um3."
    ),
]
MeasureWhat = Annotated[
    str,
    typer.Option(
        "--measure",
        metavar="basic|all",
        help="Columns of the table. all: also perimeter, solidity, and in volumes surface and sphericity, which take longer.",
    ),
]
ExcludeBorder = Annotated[
    bool, typer.Option("--exclude-border", help="Leave out objects at the border of the image.")
]
