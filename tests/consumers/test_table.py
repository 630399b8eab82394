"""The versions with which packages were run are written by `make consumers`, never by hand."""

import datetime
import re

import table
from consumer_programs import FIRST_READER, PROGRAMS
from table import DOCS, TRIED, docs_table, entries, merged, read_tried, reader_entry, tried_text

from im2im_zoo.packaging.consumers.programs import consumer_rules, tried_version

RESULTS = {
    ("bioimageio.core", "onnx"): {"FCN, 2D": 2e-07, "pix2pix": 1e-06},
    ("bioimageio.core", "torchscript"): {"FCN, 2D": 0.0, "pix2pix": None},
    ("libtorch of Debian", "torchscript"): {"FCN, 2D": 3e-07, "pix2pix": None},
}
VERSIONS = {
    "bioimageio.core": ("bioimageio.core 1.2.3", "bioimageio.spec 0.5.99", "Python 3.12.1"),
    "libtorch of Debian": ("libtorch 2.6.0 of Debian",),
}


def test_the_file_is_what_the_program_writes_of_its_entries() -> None:
    assert TRIED.read_text(encoding="utf-8") == tried_text(read_tried())


def test_each_entry_has_the_form_of_those_that_are_written_of_results() -> None:
    [full, bare] = entries(VERSIONS, RESULTS, "2026-01-02")
    reader = reader_entry("bioimageio.spec 0.5.0", ["passed 0.5.0"], "2026-01-02")
    assert full == {
        "program": "bioimageio.core",
        "version": "bioimageio.core 1.2.3",
        "libraries": "bioimageio.spec 0.5.99, Python 3.12.1",
        "date": "2026-01-02",
        "packages": {"onnx": 2, "torchscript": 1},
        "largest_difference": "1e-06",
    }
    forms = {tuple(full), tuple(bare), tuple(reader)}
    types = {key: type(value) for entry in (bare, full) for key, value in entry.items()}
    for entry in read_tried():
        assert tuple(entry) in forms, entry
        is_reader = "verdict" in entry
        assert all(
            isinstance(v, int if is_reader and k == "packages" else types.get(k, str))
            for k, v in entry.items()
        )
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"])
        assert re.search(r"\d", entry["version"])


def test_every_program_that_tests_run_packages_in_has_an_entry_and_no_other() -> None:
    assert [e["program"] for e in read_tried()] == [*(p.name for p in PROGRAMS), FIRST_READER.name]
    for program in PROGRAMS:
        [entry] = [e for e in read_tried() if e["program"] == program.name]
        assert tuple(entry["packages"]) == program.formats


def test_a_program_that_is_not_installed_keeps_its_entry() -> None:
    before = entries(VERSIONS, RESULTS, "2026-01-02")
    now = entries({"bioimageio.core": ("bioimageio.core 2.0.0",)}, RESULTS, "2026-02-03")
    assert [(e["program"], e["version"], e["date"]) for e in merged(before, now)] == [
        ("bioimageio.core", "bioimageio.core 2.0.0", "2026-02-03"),
        ("libtorch of Debian", "libtorch 2.6.0 of Debian", "2026-01-02"),
    ]


def test_the_rules_hold_no_version_of_what_was_run_and_say_what_was_only_read() -> None:
    for rule in consumer_rules():
        assert sum(key in rule for key in ("ran", "modelled", "read_only")) == 1, rule["consumer"]
        assert "version" not in rule
        if "ran" in rule:
            assert tried_version(rule["ran"])
        else:
            assert isinstance(rule["date"], datetime.date), rule["consumer"]
        if "modelled" in rule:
            assert (DOCS.parents[1] / rule["model"]).is_file(), rule["consumer"]


def test_the_table_of_the_documentation_has_the_versions_that_were_run() -> None:
    written = DOCS.read_text(encoding="utf-8").split(table.BEGIN)[1].split(table.END)[0]
    [header, rule] = written.strip().splitlines()[:2]
    known = {f"{e['version']}, {name}" for e in read_tried() if "verdict" not in e for name in e["packages"]}
    columns = header.strip("| ").split(" | ")
    assert columns[0] == "framework"
    assert set(columns[1:]) <= known
    example = docs_table({name: first for name, (first, *_) in VERSIONS.items()}, RESULTS).splitlines()
    assert rule.startswith(example[1][:4])
    assert example[2:] == [
        "| FCN, 2D | 2e-07 | 0e+00 | 3e-07 |",
        "| pix2pix | 1e-06 | none written | none written |",
    ]
