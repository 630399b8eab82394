"""`im2im-zoo try` and `im2im-zoo serve`."""

from pathlib import Path

import typer

from im2im_zoo.cli.console import print_json, print_line, progress
from im2im_zoo.core.sizes import bytes_text
from im2im_zoo.package import open_package


def write(source: str, output: Path, onnxruntime: Path | None, overwrite: bool, as_json: bool) -> None:
    """Write the page of a package."""
    check_page(output, overwrite, "--output")
    size = write_page_of(source, output, onnxruntime)
    if as_json:
        print_json({"page": str(output), "bytes": size})


def check_page(output: Path, overwrite: bool, option: str) -> None:
    """Refuse a page that cannot be written, before anything is done.

    Args:
        output: the page to write.
        overwrite: whether it may replace a file.
        option: that names the page.
    """
    if output.is_dir() or (output.exists() and not overwrite):
        kind = (
            "is a folder; name a file"
            if output.is_dir()
            else "already exists; pass --overwrite to replace it"
        )
        raise typer.BadParameter(f"{output} {kind}", param_hint=option)
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter(
            f"the folder {output.parent} for {output.name} does not exist; create it first", param_hint=option
        )


def write_page_of(source: str, output: Path, onnxruntime: Path | None) -> int:
    """Write the page of a package and print where it is; return its bytes."""
    from im2im_zoo.workflows.browser.page import write_page

    with open_package(source) as package, progress("Downloading onnxruntime-web", "B", counted=False) as bar:
        size = write_page(package, output, onnxruntime=onnxruntime, report=bar)
    print_line(f"Wrote {output} ({bytes_text(size)}): open it in a browser and drop an image into it")
    return size


def serve(source: str, port: int, onnxruntime: Path | None) -> None:
    """Serve the page of a package until Ctrl-C."""
    from im2im_zoo.workflows.browser.page import collect_parts, find_application
    from im2im_zoo.workflows.browser.server import HOST, create_server

    with open_package(source) as package:
        find_application()
        with progress("Downloading onnxruntime-web", "B", counted=False) as bar:
            parts = collect_parts(package, onnxruntime=onnxruntime, served=True, report=bar)
        with create_server(parts, port) as server:
            print_line(
                f"{package.name}: http://{HOST}:{server.server_port} (this machine only; Ctrl-C ends it)"
            )
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print_line("Ended")
