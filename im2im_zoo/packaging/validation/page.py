"""One self-contained HTML page of a validation: verdicts, findings, pictures, what was measured. No script, no outside file.

All text is escaped, since it comes from packages of strangers; pictures are data URIs.
"""

import base64
from html import escape
from importlib.resources import files

from im2im_zoo.packaging.validation.finding_codes import SUBJECTS
from im2im_zoo.packaging.validation.findings import Finding, Picture, ValidationReport

_WORDS = {
    "error": "error",
    "warning": "warning",
    "info": "remark",
    "passed": "passed",
    "not checked": "not checked",
}
_CONSUMERS = ("Program", "Weights", "Verdict", "Why", "What to change")


def validation_page(report: ValidationReport) -> str:
    """The page, as text."""
    style = (
        files("im2im_zoo.packaging.validation").joinpath("validation_page.css").read_text(encoding="utf-8")
    )
    title = report.name or report.source
    parts = [_head(report, title), _pictures(report.pictures), _findings(report.findings)]
    parts += [_subjects(report), _consumers(report), _core(report)]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}: validation</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def _head(report: ValidationReport, title: str) -> str:
    errors, warnings = len(report.of("error")), len(report.of("warning"))
    verdict = "sound" if report.sound else "not sound"
    mark = "error" if errors else "warning" if warnings else "passed"
    version = f' <small class="version">{escape(report.version)}</small>' if report.version else ""
    return (
        f'<header>\n<h1>{escape(title)}{version}</h1>\n<p class="source">{escape(report.source)}</p>\n'
        f'<p class="verdict {mark}"><strong>{verdict}</strong> {_count(errors, "error")}, {_count(warnings, "warning")}</p>\n'
        "</header>"
    )


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


def _pictures(pictures: tuple[Picture, ...]) -> str:
    shown = [
        f'<figure><img alt="{escape(p.title)}" src="data:{escape(p.media_type)};base64,'
        f'{base64.b64encode(p.content).decode()}"><figcaption>{escape(p.title)}</figcaption></figure>'
        for p in pictures
    ]
    return f'<section class="pictures">\n{chr(10).join(shown)}\n</section>' if shown else ""


def _findings(findings: tuple[Finding, ...]) -> str:
    if not findings:
        return '<section>\n<h2>Findings</h2>\n<p class="box">None: there is nothing to do.</p>\n</section>'
    rows = [
        f'<li class="{f.severity}"><div class="tags"><b>{_WORDS[f.severity]}</b> <code>{escape(f.code)}</code>'
        + (f" <code>{escape(f.field)}</code>" if f.field else "")
        + f'</div><p class="message">{escape(f.message)}</p></li>'
        for f in findings
    ]
    return f'<section>\n<h2>Findings</h2>\n<ul class="findings">\n{chr(10).join(rows)}\n</ul>\n</section>'


def _subjects(report: ValidationReport) -> str:
    rows = []
    for subject, verdict in report.verdicts().items():
        notes = [escape(n.message) for n in report.notes if n.subject == subject]
        number = sum(f.subject == subject for f in report.findings)
        notes += [f"{_count(number, 'finding')} above"] if number else []
        text = "".join(f"<p>{note}</p>" for note in notes)
        rows.append(
            f'<tr><th scope="row">{SUBJECTS[subject]}</th><td><span class="mark {verdict.split()[0]}">{_WORDS[verdict]}</span>'
            f"</td><td>{text}</td></tr>"
        )
    return _table("What was checked", (), rows)


def _consumers(report: ValidationReport) -> str:
    rows = []
    for v in report.consumers:
        cells = (f"{v.consumer} {v.version}".strip(), v.weights_format, v.verdict, v.reason, v.change)
        mark = {"runs": "passed", "differs": "warning", "cannot": "error"}.get(v.verdict, "not")
        texts = [escape(str(c)) for c in cells]
        texts[1] = f'<span class="format">{texts[1]}</span>'
        texts[2] = f'<span class="mark {mark}">{texts[2]}</span>'
        rows.append("<tr>" + "".join(f"<td>{t}</td>" for t in texts) + "</tr>")
    return _table("Programs that read it", _CONSUMERS, rows) if rows else ""


def _core(report: ValidationReport) -> str:
    rows = [
        f"<tr><td>{escape(v.weights_format)}</td><td>{v.core}</td><td>{v.ours}</td><td>{escape(v.reason)}</td></tr>"
        for v in report.core
    ]
    columns = ("Weights", "bioimageio.core", "im2im_zoo", "What bioimageio.core says")
    return _table("The verdict of bioimageio.core", columns, rows) if rows else ""


def _table(title: str, columns: tuple[str, ...], rows: list[str]) -> str:
    head = "".join(f'<th scope="col">{c}</th>' for c in columns)
    head = f"<thead><tr>{head}</tr></thead>\n" if columns else ""
    return f'<section>\n<h2>{title}</h2>\n<div class="scroll"><table>\n{head}<tbody>\n{chr(10).join(rows)}\n</tbody></table></div>\n</section>'
