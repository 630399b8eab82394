"""What is wrong with a package, or missing from it, in a form that people and programs read. Finds nothing itself."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    `code` is a stable word for programs; `field` is the RDF's field (or a file), empty for the whole; `message` says
    what is the case and what to do about it.
    """

    severity: Severity
    code: str
    field: str
    message: str

    def __str__(self) -> str:
        where = f" {self.field}:" if self.field else ""
        return f"{self.severity}:{where} {self.message}"


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Everything that was found in a package. `measured` holds numbers: differences to the test tensors by format."""

    source: str
    findings: tuple[Finding, ...]
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether there is no error: the package can be run, and gives what it says."""
        return not self.of("error")

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(f for f in self.findings if f.severity == severity)

    def to_json(self) -> str:
        """The report as JSON: source, sound, findings, measured."""
        content = {
            "source": self.source,
            "sound": self.sound,
            "findings": [asdict(f) for f in self.findings],
            "measured": dict(self.measured),
        }
        return json.dumps(content, indent=2)


def sort_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings, then the rest; without repetitions."""
    order: dict[str, int] = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(dict.fromkeys(findings), key=lambda f: order[f.severity]))
