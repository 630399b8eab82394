"""`im2im-zoo clean`."""

from pathlib import Path

from im2im_zoo.cli.console import print_line


def run(folder: Path, yes: bool, resumable: bool) -> None:
    """List the leftovers of killed commands in a folder, and remove them if asked to."""
    from im2im_zoo.runtime.leftovers import find_leftovers, remove_leftover

    found = find_leftovers(folder)
    for leftover in found:
        keep = leftover.is_resumable and not resumable
        if yes and not keep:
            remove_leftover(leftover)
        verb = "kept" if keep else "removed" if yes else "to remove"
        print_line(f"{verb}: {leftover.path} ({leftover.kind})")
    kept = [leftover for leftover in found if leftover.is_resumable and not resumable]
    if not found:
        print_line(f"no leftovers of killed commands in {folder}")
    elif not yes and len(kept) < len(found):
        print_line("Nothing was removed; --yes removes these files")
    if kept:
        print_line("Run the same command to resume what is kept, or remove it with --yes --resumable")
