"""`im2im-zoo compare`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import print_json, print_line, print_table, print_text, progress

if TYPE_CHECKING:
    from im2im_zoo.workflows.compare_models import ModelComparison


def run(
    a: str,
    b: str | None,
    image: str,
    *,
    axes: str | None,
    weights: Sequence[str],
    tolerance: float | None,
    memory: str | None,
    picture: Path | None,
    allow_code: bool,
    as_json: bool,
) -> None:
    """Compare two models on an image, and print the differences."""
    from im2im_zoo.cli.predict import parse_memory
    from im2im_zoo.runtime.settings import Resources
    from im2im_zoo.workflows.compare_models import compare_models, sides_of

    if picture is not None and (picture.suffix.lower() != ".png" or not picture.parent.is_dir()):
        raise typer.BadParameter(
            f"{picture} must end with .png and lie in a folder that exists", param_hint="--picture"
        )
    if tolerance is not None and not tolerance >= 0:
        raise typer.BadParameter(f"{tolerance} is below 0; give 0 or more", param_hint="--tolerance")
    sides = sides_of(a, b, weights)
    with progress("Predicting", "voxels", counted=False) as bar:
        comparison = compare_models(
            *sides,
            image,
            axes=axes,
            absolute=tolerance,
            picture=picture is not None,
            allow_code=allow_code,
            resources=Resources(None if memory is None else parse_memory(memory)),
            progress=lambda side, stage, done, total: bar(done, total or None, now=f"{side}: {stage}"),
        )
    if picture is not None:
        _write_picture(comparison, picture)
    if as_json:
        print_json(comparison.plain())
    else:
        _show(comparison)


def _write_picture(comparison: "ModelComparison", path: Path) -> None:
    import io

    from PIL import Image

    from im2im_zoo.core.atomic import write_bytes

    assert comparison.picture is not None  # asked for
    stream = io.BytesIO()
    Image.fromarray(comparison.picture).save(stream, "PNG")
    write_bytes(path, stream.getvalue())
    print_line(f"Wrote {path}")


def _show(comparison: "ModelComparison") -> None:
    print_text(f"A: {comparison.a}\nB: {comparison.b}\nimage: {comparison.image}\n")
    rows: list[tuple[str, object]] = []
    for output in comparison.outputs:
        allowed = f"{output.absolute_tolerance:.3g} + {output.relative_tolerance:.3g} x |A|"
        rows += [
            (f"{output.output}: largest difference", output.largest),
            ("mean absolute difference", output.mean),
            ("correlation", "none (constant)" if output.correlation is None else f"{output.correlation:.9f}"),
            (f"share above {allowed}", output.above_tolerance),
            ("values that are not finite", output.not_finite),
        ]
    if comparison.labels is not None:
        labels = comparison.labels
        rows += [
            ("objects: AP at IoU 0.5", labels.ap_50),
            ("objects in A, B, matched", f"{labels.objects_a}, {labels.objects_b}, {labels.matched}"),
        ]
    print_table(("", "B against A"), [(name, _text(value)) for name, value in rows])
    if comparison.only:
        print_line(f"not compared, in one model only or not an image: {', '.join(comparison.only)}")


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
