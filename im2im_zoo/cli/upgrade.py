"""`im2im-zoo upgrade`."""

from pathlib import Path

from im2im_zoo.cli.console import print_json, print_line, print_text


def run(source: str, output: Path | None, overwrite: bool, as_json: bool) -> None:
    """Upgrade a package, and print what changed."""
    from im2im_zoo.packaging.editing.upgrade import upgrade_package

    upgraded = upgrade_package(source, output=output, overwrite=overwrite)
    if as_json:
        print_json(upgraded.plain())
        return
    for key, (old, new) in upgraded.changed.items():
        verb = "added" if old is None else "removed" if new is None else "rewritten"
        if isinstance(old, str | int | float) and isinstance(new, str | int | float):
            verb = f"{old} -> {new}"
        print_text(f"{key}: {verb}")
    for text in upgraded.lost:
        print_text(f"not in the newest format: {text}")
    if upgraded.outputs:
        print_line(f"Done: {' and '.join(map(str, upgraded.outputs))}, format {upgraded.new_version}")
    else:
        print_line(f"{source} has the newest format, {upgraded.new_version}; nothing was written")
