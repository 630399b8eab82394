"""The section `## Changes` of a package's README, newest version first."""

import re

from im2im_zoo.core.errors import PackageError

_HEADING = "## Changes"


def add_change(readme: str, version: str, change: str) -> str:
    """Return a README with a line on a version at the top of its section `## Changes`, which is added at the end if missing.

    Args:
        readme: in Markdown.
        version: of the package after the change; may be empty.
        change: one line.

    Raises:
        PackageError: the change is empty.

    Examples:
        >>> add_change("# Model\\n", "1.1.0", "Better licence.")
        '# Model\\n\\n## Changes\\n\\n- 1.1.0: Better licence.\\n'
    """
    line = " ".join(change.split())
    if not line:
        raise PackageError('--change is empty: state what changed, e.g. --change "Trained on more images."')
    entry = f"- {version}: {line}" if version else f"- {line}"
    match = re.search(r"^## Changes[ \t]*$\n*", readme, re.MULTILINE)
    if match is None:
        return f"{readme.rstrip()}\n\n{_HEADING}\n\n{entry}\n"
    rest = readme[match.end() :]
    if rest.partition("\n")[0] == entry:  # the same command, once more
        return readme
    gap = "" if rest.startswith("- ") else "\n"
    return f"{readme[: match.start()]}{_HEADING}\n\n{entry}\n{gap}{rest}".rstrip("\n") + "\n"
