"""`im2im-zoo add-weights`."""

from pathlib import Path

from im2im_zoo.cli.console import print_json, print_line, print_text


def run(
    source: str,
    weights_format: str,
    opset: str,
    allow_code: bool,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Add a weight format to a package, and print how well it reproduces the state dict."""
    from im2im_zoo.cli.export import parse_opset
    from im2im_zoo.packaging.editing.add_weights import add_weights

    added = add_weights(
        source,
        weights_format,
        allow_code=allow_code,
        opset=parse_opset(opset),
        output=output,
        overwrite=overwrite,
    )
    if as_json:
        print_json(added.plain())
        return
    print_text(f"{added.file}: {added.comment}")
    print_text(
        f"largest difference from the state dict, of the largest output: {added.error:.2g} at several sizes, "
        f"{added.test_error:.2g} for the test input"
    )
    print_line(f"Done: {' and '.join(map(str, added.outputs))}")
