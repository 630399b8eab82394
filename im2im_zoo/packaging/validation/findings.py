"""What is wrong with a package, or missing from it, in a form that people and programs read. Finds nothing itself."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from im2im_zoo.core.finite_json import to_json
from im2im_zoo.packaging.consumers.programs import ConsumerVerdict
from im2im_zoo.packaging.validation.finding_codes import CODES, SUBJECTS, Subject

Severity = Literal["error", "warning", "info"]
# Of a subject: the worst of its findings; `passed` if it was checked and there is none.
Verdict = Literal["error", "warning", "info", "passed", "not checked"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    `code` is a stable word for programs, one of `CODES`; `field` is the RDF's field, empty for the whole; `message` says
    what is the case and what to do about it.
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
        """What it is about."""
        return CODES[self.code]


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was checked and came out well, or was measured, in a sentence."""

    subject: Subject
    message: str


@dataclass(frozen=True, slots=True)
class CoreVerdict:
    """What bioimageio.core says of one weights format, and what we say of the same."""

    weights_format: str
    core: Literal["passed", "failed", "not run"]
    ours: Literal["passed", "failed", "not run"]
    reason: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the package for people: its cover, or a test tensor. `content` are the bytes of the image file."""

    title: str
    media_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Everything that was found in a package. `measured` holds numbers: differences to the test tensors by format."""

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
    def sound(self) -> bool:
        """Whether there is no error: the package can be run, and gives what it says."""
        return not self.of("error")

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(f for f in self.findings if f.severity == severity)

    def verdicts(self) -> dict[Subject, Verdict]:
        """By subject, the worst that was found."""
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
        """The report as JSON: source, name, version, sound, verdicts, findings, notes, measured, core, consumers."""
        content = {
            "source": self.source,
            "name": self.name,
            "version": self.version,
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
    """Errors first, then warnings, then the rest; without repetitions."""
    order: dict[str, int] = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(dict.fromkeys(findings), key=lambda f: order[f.severity]))
