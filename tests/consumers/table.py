"""Write the table of docs/consumers.md: each framework in each program that is installed here. `make consumers` runs it."""

import platform
import sys
import tempfile
from pathlib import Path

from consumer_packages import RECIPES, package_of
from consumer_programs import PROGRAMS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "consumers.md"
BEGIN, END = "<!-- table: made by `make consumers` -->", "<!-- end of the table -->"


def rows() -> list[str]:
    """The lines of the table, the largest difference of all formats and cases in each cell."""
    columns = [(p, name) for p in PROGRAMS for name in p.formats if p.missing is None]
    lines = [
        f"| framework | {' | '.join(f'{p.name}, {name}' for p, name in columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for title, recipe in RECIPES.items():
        with tempfile.TemporaryDirectory() as folder:
            made = package_of(recipe, Path(folder))
            found = {}
            for program in PROGRAMS:
                if program.missing is None:
                    for name, value in program.differences(made, Path(folder)).items():
                        found[program, name] = f"{value:.0e}"
        lines.append(f"| {title} | {' | '.join(found.get(c, 'none written') for c in columns)} |")
        sys.stderr.write(lines[-1] + "\n")
    return lines


def main() -> None:
    for program in PROGRAMS:
        if program.missing:
            sys.stderr.write(program.missing + "\n")
    text = DOCS.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    table = "\n".join(rows())
    DOCS.write_text(
        f"{before}{BEGIN}\n\n{table}\n\nOn {platform.system()} {platform.machine()}.\n\n{END}{after}", "utf-8"
    )


if __name__ == "__main__":
    main()
