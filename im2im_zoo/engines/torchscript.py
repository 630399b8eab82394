"""Run TorchScript weights with torch. Runs no Python of the package."""

import keyword
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines.base import SafetyCheck, Weights, one_line
from im2im_zoo.engines.torch_module import TorchEngine, channels_last
from im2im_zoo.engines.zip_file import open_zip, refusal, safety_check

# Operators of TorchScript that write and read files.
_TORCH_OPERATORS = ("save", "from_file")
_BETWEEN = r"(?:[\s\\]|\#[^\n]*\n)*"
_TORCH_CALL = re.compile(rf"\.{_BETWEEN}({'|'.join(_TORCH_OPERATORS)})\b")
_TORCH_NAMESPACE = re.compile(rf"\bops{_BETWEEN}\.{_BETWEEN}(\w+)")
_NAMESPACES = frozenset({"aten", "prim", "prims", "quantized", "_quantized", "onnx", "torchvision"})
_TORCH_CLASS = re.compile(rf"\btorch{_BETWEEN}\.{_BETWEEN}classes{_BETWEEN}\.{_BETWEEN}(\w+)")
_CLASSES = frozenset({"quantized", "rnn"})
# A name of an operator that is not written out: by `getattr`, or after `torch` or `ops` is given another name.
_BARE = re.compile(
    rf"(?<![\w.])(torch|ops)\b(?!{_BETWEEN}[.:])|\btorch{_BETWEEN}\.{_BETWEEN}(classes)\b(?!{_BETWEEN}\.)"
)
_GETATTR = re.compile(r'\bgetattr\(([\w.() ]*), "([^"\\]*)"\)')
_STRING = re.compile(r'"[^"]*"')
_MAX_CODE = 64 * 1024**2


@safety_check
def check_torchscript(weights: Weights) -> None:
    """Refuse TorchScript whose code reads or writes files, or uses operators that no network needs."""
    if not zipfile.is_zipfile(weights.path):
        raise PackageError(
            f"{weights.path}: the torchscript weights cannot be loaded: the file is no TorchScript"
        )
    with open_zip(weights.path) as archive:
        code = [e for e in archive.infolist() if "/code/" in f"/{e.filename}" and e.filename.endswith(".py")]
        if any(e.filename.partition("/")[2] == "model.json" for e in archive.infolist()):
            raise refusal(weights, "it is of a format from before PyTorch 1.0; export it again")
        if sum(e.file_size for e in code) > _MAX_CODE:
            raise refusal(weights, f"its code has more than {_MAX_CODE} bytes")
        for entry in code:
            text = archive.read(entry).decode("utf-8", errors="replace")
            if found := _TORCH_CALL.search(text):
                raise refusal(
                    weights, f"its code uses {found[1]!r}, which reads or writes files; export it again"
                )
            others = set(_TORCH_NAMESPACE.findall(text)) - _NAMESPACES
            others |= {f"classes.{n}" for n in set(_TORCH_CLASS.findall(text)) - _CLASSES}
            if others:
                names = ", ".join(sorted(others))
                raise refusal(
                    weights, f"its code uses operators of {names}, which no network needs; export it again"
                )
            if hidden := next(_hidden_names(text), None):
                raise refusal(
                    weights,
                    f"its code hides which operators it uses, by {hidden!r}, which no exporter writes; export it again",
                )


def _hidden_names(text: str) -> Iterator[str]:
    """Yield the words of TorchScript by which an operator can be called without its name being in the code."""
    if '"""' in text or "'''" in text:
        yield '"""'
    # An exporter writes `getattr(self.layers, "0")` for the names of modules that are no identifiers, and for nothing else.
    while (shorter := _GETATTR.sub(_without_getattr, text)) != text:
        text = shorter
    if re.search(r"\bgetattr\b", text):
        yield "getattr"
    for line in text.split("\n"):
        plain = line if "\\" in line or "'" in line else _STRING.sub('""', line)
        if found := _BARE.search(plain):
            yield found[1] or found[2]


def _without_getattr(found: re.Match[str]) -> str:
    name = found[2]
    return found[0] if name.isidentifier() and not keyword.iskeyword(name) else f"{found[1]}.member"


class TorchScriptEngine(TorchEngine):
    """A loaded TorchScript module in evaluation mode."""

    formats: ClassVar[Mapping[str, SafetyCheck]] = {"torchscript": check_torchscript}
    rank = 10

    def load(self, device: Any, last: bool) -> Any:
        """Load the file; see `TorchEngine`."""
        import torch

        path = self.weights.path
        try:
            module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError, EOFError) as error:
            raise PackageError(
                f"{path}: the torchscript weights cannot be loaded by torch {torch.__version__}: "
                f"{one_line(error)}; the file may be damaged or no TorchScript"
            ) from error
        return freeze(channels_last(module.eval()) if last else module.eval())


def freeze(module: Any) -> Any:
    """Make weights constants and fold batch norms into the convolutions before them, if the module permits it."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.jit.freeze(module)
        except RuntimeError:  # it changes its own attributes, as some traced modules do
            return module
