"""`im2im-zoo show`."""

from im2im_zoo.cli.console import print_json, print_table
from im2im_zoo.workflows.describe import describe, text_of


def run(source: str, as_json: bool) -> None:
    """Print what stands at a path or under a name."""
    content = describe(source)
    if as_json:
        print_json(content)
    else:
        print_table((str(content.pop("kind")), ""), [(key, text_of(value)) for key, value in content.items()])
