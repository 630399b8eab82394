"""`im2im-zoo samples`: real sample images for the recipes."""

from pathlib import Path

from im2im_zoo.cli.console import print_line, print_table


def run(name: str | None, output: Path | None) -> None:
    """List the sample images, or write those of one recipe."""
    from im2im_zoo.samples import SAMPLES, write_samples

    if name is None:
        print_table(("recipe", "images"), [(key, sample.description) for key, sample in SAMPLES.items()])
        return
    folder = write_samples(name, output or Path(f"{name}_images"))
    print_line(f"Wrote {folder}\nTrain on it: im2im-zoo train {name} --data.path={folder} --output RUN")
