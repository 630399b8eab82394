"""Run packages of every framework in each program that is installed here, and write the results. `make consumers` runs it.

It writes the table of docs/consumers.md, and im2im_zoo/packaging/consumers/tried.yaml: the versions that ran. Programs that are
not installed here keep their entry in that file, with its date.
"""

import datetime
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from consumer_packages import RECIPES, Packaged, package_of
from consumer_programs import FIRST_READER, PROGRAMS, Program

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "consumers.md"
TRIED = ROOT / "im2im_zoo" / "packaging" / "consumers" / "tried.yaml"
BEGIN, END = "<!-- table: made by `make consumers` -->", "<!-- end of the table -->"
HEADER = """\
# Programs that ran packages of every framework, with the versions that were installed. Written by `make consumers`
# (tests/consumers/table.py): do not edit. `largest_difference` is that of docs/consumers.md; `verdict` is that of a library which
# reads packages and runs none.
"""

# By program and format, the largest difference of each framework, by its title; None if the package lacks the format.
Results = Mapping[tuple[str, str], Mapping[str, float | None]]


def measure(programs: Sequence[Program]) -> tuple[dict[tuple[str, str], dict[str, float | None]], list[str]]:
    """Run a package of each framework in each program; and the verdicts of the first reader of the format."""
    found: dict[tuple[str, str], dict[str, float | None]] = {
        (p.name, f): {} for p in programs for f in p.formats
    }
    verdicts = []
    for title, recipe in RECIPES.items():
        sys.stderr.write(f"{title}\n")
        with tempfile.TemporaryDirectory() as folder:
            made: Packaged = package_of(recipe, Path(folder))
            for program in programs:
                differences = program.differences(made, Path(folder))
                for name in program.formats:
                    found[program.name, name][title] = differences.get(name)
            if FIRST_READER.missing is None and made.exported.zip_path is not None:
                verdicts.append(FIRST_READER.says(made.exported.zip_path))
    return found, verdicts


def entries(versions: Mapping[str, Sequence[str]], results: Results, date: str) -> list[dict[str, Any]]:
    """The entries of tried.yaml for programs that were run, given the versions of each."""
    made = []
    for program, (version, *others) in versions.items():
        mine = {f: list(r.values()) for (p, f), r in results.items() if p == program}
        ran = {f: [d for d in differences if d is not None] for f, differences in mine.items()}
        made.append(
            {
                "program": program,
                "version": version,
                **({"libraries": ", ".join(others)} if others else {}),
                "date": date,
                "packages": {f: len(differences) for f, differences in ran.items()},
                "largest_difference": f"{max(d for differences in ran.values() for d in differences):.0e}",
            }
        )
    return made


def reader_entry(version: str, verdicts: Sequence[str], date: str) -> dict[str, Any]:
    """The entry of a library that reads packages and runs none."""
    verdict = ", ".join(dict.fromkeys(verdicts))
    return {
        "program": FIRST_READER.name, "version": version, "date": date, "packages": len(verdicts), "verdict": verdict,
    }  # fmt: skip


def merged(before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of a file in the order of the programs: those of now, and of before where there is none."""
    known = {entry["program"]: entry for entry in (*before, *now)}
    return [known[name] for name in (*(p.name for p in PROGRAMS), FIRST_READER.name) if name in known]


def tried_text(tried: Sequence[dict[str, Any]]) -> str:
    """The content of tried.yaml."""
    blocks = [yaml.safe_dump([entry], sort_keys=False, width=120) for entry in tried]
    return HEADER + "\n".join(blocks)


def read_tried() -> list[dict[str, Any]]:
    """The entries of tried.yaml, if there is one."""
    found: list[dict[str, Any]] = yaml.safe_load(TRIED.read_text(encoding="utf-8")) if TRIED.exists() else []
    return found


def docs_table(versions: Mapping[str, str], results: Results) -> str:
    """The table of docs/consumers.md: a row for each framework, a column for each program and format."""
    titles = list(next(iter(results.values())))
    lines = [
        f"| framework | {' | '.join(f'{versions[program]}, {name}' for program, name in results)} |",
        "|---" * (1 + len(results)) + "|",
    ]
    for title in titles:
        cells = [found[title] for found in results.values()]
        lines.append(
            f"| {title} | {' | '.join('none written' if c is None else f'{c:.0e}' for c in cells)} |"
        )
    return "\n".join(lines)


def main() -> None:
    for program in (*PROGRAMS, FIRST_READER):
        if program.missing:
            sys.stderr.write(program.missing + "\n")
    installed = [program for program in PROGRAMS if program.missing is None]
    versions = {program.name: program.versions() for program in installed}
    results, verdicts = measure(installed)
    date = datetime.date.today().isoformat()
    now = entries(versions, results, date)
    if verdicts:
        now.append(reader_entry(FIRST_READER.version(), verdicts, date))
    TRIED.write_text(tried_text(merged(read_tried(), now)), encoding="utf-8")
    text = DOCS.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    table = docs_table({name: first for name, (first, *_) in versions.items()}, results)
    place = f"On {platform.system()} {platform.machine()}, {date}."
    DOCS.write_text(f"{before}{BEGIN}\n\n{table}\n\n{place}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
