"""Findings and reports of a validation, for users and programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from im2im_zoo.core.finite_json import to_json
from im2im_zoo.packaging.consumers.programs import ConsumerVerdict
from im2im_zoo.packaging.validation.finding_codes import CODES, SUBJECTS, Subject

Severity = Literal["error", "warning", "info"]
# Of a subject: the worst of its findings; `passed` if it was checked and there is none.
Verdict = Literal["error", "warning", "info", "passed", "not checked"]
PackageVerdict = Literal["sound", "not sound", "not checked"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Problem of a package, or a remark on it.

    Attributes:
        severity: "error", "warning" or "info".
        code: stable word for programs, one of `CODES`.
        field: field of the RDF, empty for the whole package.
        message: description with a remedy.
    """

    severity: Severity
    code: str
    field: str
    message: str

    def __str__(self) -> str:
        where = f" {self.field}:" if self.field else ""
        return f"{self.severity}:{where} {self.message}"

    @property
    def subject(self) -> Subject:
        """Subject of the finding."""
        return CODES[self.code]


@dataclass(frozen=True, slots=True)
class Note:
    """Sentence about a passed check or a measurement."""

    subject: Subject
    message: str


@dataclass(frozen=True, slots=True)
class CoreVerdict:
    """Results of bioimageio.core and of im2im_zoo for one weights format."""

    weights_format: str
    core: Literal["passed", "failed", "not run"]
    ours: Literal["passed", "failed", "not run"]
    reason: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Picture of the package: its cover, or a test tensor. `content` are the bytes of the image file."""

    title: str
    media_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Result of a validation. `measured` holds numbers, e.g. differences to the test tensors by format."""

    source: str
    findings: tuple[Finding, ...]
    measured: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    name: str = ""
    version: str = ""
    core: tuple[CoreVerdict, ...] = ()
    consumers: tuple[ConsumerVerdict, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def verdict(self) -> PackageVerdict:
        """Return "not sound" if there is an error, else "not checked" if none of the weights could be run, else "sound"."""
        if self.of("error"):
            return "not sound"
        return "not checked" if self.unchecked else "sound"

    @property
    def unchecked(self) -> str:
        """Reason why none of the weights could be run, with its remedy; empty if some were run."""
        return next((f.message for f in self.findings if f.code == "weights_unchecked"), "")

    @property
    def sound(self) -> bool:
        """Whether the package runs and reproduces its test outputs, without an error."""
        return self.verdict == "sound"

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of one severity."""
        return tuple(f for f in self.findings if f.severity == severity)

    def verdicts(self) -> dict[Subject, Verdict]:
        """Return the worst finding of each subject."""
        found: dict[Subject, Verdict] = {}
        for subject in SUBJECTS:
            severities: list[Verdict] = [f.severity for f in self.findings if f.subject == subject]
            passed = any(n.subject == subject for n in self.notes)
            worst: tuple[Verdict, ...] = ("error", "warning", "info")
            found[subject] = next(
                (v for v in worst if v in severities), "passed" if passed else "not checked"
            )
        return found

    def to_json(self) -> str:
        """Return the report as JSON: source, name, version, verdict, sound, verdicts, findings, notes, measured, core, consumers."""
        content = {
            "source": self.source,
            "name": self.name,
            "version": self.version,
            "verdict": self.verdict,
            "sound": self.sound,
            "verdicts": self.verdicts(),
            "findings": [asdict(f) for f in self.findings],
            "notes": [asdict(n) for n in self.notes],
            "measured": dict(self.measured),
            "core": [asdict(v) for v in self.core],
            "consumers": [v.plain() for v in self.consumers],
        }
        return to_json(content, indent=2)


def sort_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Sort findings: errors first, then warnings, then the rest; without repetitions."""
    order: dict[str, int] = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(dict.fromkeys(findings), key=lambda f: order[f.severity]))
