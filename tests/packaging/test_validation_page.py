"""The page of a validation: complete, self-contained, and harmless whatever the package says."""

import base64
import dataclasses
import re
from pathlib import Path

import pytest

from im2im_zoo.packaging import ValidationReport, validate_package
from im2im_zoo.packaging.consumers.programs import ConsumerVerdict
from im2im_zoo.packaging.validation.finding_codes import CODES, SUBJECTS
from im2im_zoo.packaging.validation.findings import CoreVerdict, Finding, Note, Picture
from im2im_zoo.packaging.validation.page import validation_page

VERDICT = ConsumerVerdict("deepImageJ", "3.1", "onnx", "cannot", "<b>softmax</b>", "put it into the network")


def test_a_page_has_everything_and_loads_nothing(folder_2d: Path) -> None:
    report = validate_package(folder_2d, pictures=True)
    page = validation_page(report)
    assert [p.title.split(":")[0] for p in report.pictures] == [
        "Cover",
        "Test input image",
        "Test output result",
    ]
    assert page.count("data:image/png;base64,") == 3
    assert base64.b64encode((folder_2d / "cover.png").read_bytes()).decode() in page
    assert not re.search(r"<script|<link|src=\"(?!data:)|url\(|@import", page)
    for subject in ("Files and hashes", "Halo", "Determinism", "Batch sizes"):
        assert subject in page
    assert all(f.code in page and f.message.split("'")[0][:40] in page for f in report.findings)
    assert "<strong>sound</strong>" in page


def test_what_a_package_says_is_text_and_not_html() -> None:
    evil = "<script>alert(1)</script>\"'"
    report = ValidationReport(
        evil,
        (Finding("error", "hash", evil, evil),),
        notes=(Note("weights", evil),),
        name=evil,
        version=evil,
        core=(CoreVerdict(evil, "failed", "passed", evil),),
        consumers=(dataclasses.replace(VERDICT, reason=evil),),
        pictures=(Picture(evil, "image/png", b""),),
    )
    page = validation_page(report)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 8


def test_consumers_and_core_are_shown_and_in_the_json() -> None:
    import json

    report = ValidationReport(
        "p", (), core=(CoreVerdict("onnx", "failed", "passed", "too strict"),), consumers=(VERDICT,)
    )
    page = validation_page(report)
    for text in ("deepImageJ 3.1", "cannot", "put it into the network", "too strict"):
        assert text in page
    content = json.loads(report.to_json())
    assert content["consumers"][0]["change"] == "put it into the network"
    assert content["core"][0]["core"] == "failed"


def test_numbers_that_are_none_leave_the_json_sound() -> None:
    import json

    report = ValidationReport("p", (), {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert json.loads(report.to_json())["measured"] == {"a": None, "b": [None, 1.5]}


def test_the_documentation_explains_every_code(repository: Path) -> None:
    text = (repository / "docs" / "validate.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.M))
    assert set(rows) == set(CODES)
    for code, subject in CODES.items():
        assert SUBJECTS[subject].lower().startswith(rows[code].strip().lower()), code


@pytest.mark.parametrize("code", ["nonsense", ""])
def test_a_finding_of_an_unknown_code_has_no_subject(code: str) -> None:
    with pytest.raises(KeyError):
        _ = Finding("error", code, "", "").subject
