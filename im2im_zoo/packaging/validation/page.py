"""Report of a validation as one HTML page: verdicts, findings, pictures, programs."""

from dataclasses import dataclass

from im2im_zoo.packaging.consumers.rows import program_rows
from im2im_zoo.packaging.validation.finding_codes import SUBJECTS
from im2im_zoo.packaging.validation.findings import ValidationReport
from im2im_zoo.pages import PageImage, data_uri, render

_WORDS = {
    "error": "error",
    "warning": "warning",
    "info": "remark",
    "passed": "passed",
    "not checked": "not checked",
}
_CONSUMER_GRADES = {"runs": "passed", "differs": "warning", "cannot": "error"}


@dataclass(frozen=True, slots=True)
class _Verdict:
    grade: str
    word: str
    counts: str


@dataclass(frozen=True, slots=True)
class _SubjectRow:
    name: str
    grade: str
    word: str
    notes: tuple[str, ...]


def validation_page(report: ValidationReport) -> str:
    """Return the HTML page of a validation."""
    return render(
        "validation.html.j2",
        title=report.name or report.source,
        report=report,
        verdict=_verdict(report),
        images=[PageImage(p.title, data_uri(p.content, p.media_type)) for p in report.pictures],
        words=_WORDS,
        subjects=_subject_rows(report),
        programs=program_rows(report.consumers),
        consumer_grades=_CONSUMER_GRADES,
    )


def _verdict(report: ValidationReport) -> _Verdict:
    errors, warnings = len(report.of("error")), len(report.of("warning"))
    grade = "error" if errors else "warning" if warnings else "passed"
    counts = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
    if report.verdict == "not checked":
        counts = f"{report.unchecked} ({counts})"
    return _Verdict(grade, report.verdict, counts)


def _subject_rows(report: ValidationReport) -> list[_SubjectRow]:
    rows = []
    for subject, verdict in report.verdicts().items():
        notes = [note.message for note in report.notes if note.subject == subject]
        number = sum(finding.subject == subject for finding in report.findings)
        notes += [f"{_count(number, 'finding')} above"] if number else []
        grade = "none" if verdict == "not checked" else verdict
        rows.append(_SubjectRow(SUBJECTS[subject], grade, _WORDS[verdict], tuple(notes)))
    return rows


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
