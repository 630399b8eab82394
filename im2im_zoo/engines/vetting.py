"""Look at a weights file before a library loads it: what it would do beyond computing is refused. Loads and runs nothing.

Weights are programs, too. TorchScript can write files (`torch.save`) and map them (`torch.from_file`), ONNX can name files
elsewhere, Keras files can hold Python, TensorFlow graphs can read and write files; and any zip may unpack to more than there is memory.
This finds what is known of such ways; it does not make weights of strangers harmless: see docs/validate.md.
"""

import json
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines.onnx_file import read_asks

# Operators of TorchScript that write and read files.
_TORCH_OPERATORS = ("save", "from_file")
_BETWEEN = r"(?:[\s\\]|\#[^\n]*\n)*"
_TORCH_CALL = re.compile(rf"\.{_BETWEEN}({'|'.join(_TORCH_OPERATORS)})\b")
_TORCH_NAMESPACE = re.compile(rf"\bops{_BETWEEN}\.{_BETWEEN}(\w+)")
_NAMESPACES = frozenset({"aten", "prim", "prims", "quantized", "_quantized", "onnx", "torchvision"})
_TORCH_CLASS = re.compile(rf"\btorch{_BETWEEN}\.{_BETWEEN}classes{_BETWEEN}\.{_BETWEEN}(\w+)")
_CLASSES = frozenset({"quantized", "rnn"})
# Operators of TensorFlow that run Python, or read and write files when a network is called.
_TENSORFLOW = (b"PyFunc", b"EagerPyFunc", b"PyFuncStateless", b"WriteFile", b"ReadFile", b"PrintV2")

_MAX_RATIO = 200.0
_RATIO_FROM = 64 * 1024**2
_MAX_BYTES = 32 * 1024**3
_MAX_CODE = 64 * 1024**2


def vet_weights(
    weights_format: str, path: Path, *, root: Path | None = None, allow_code: bool = False
) -> None:
    """Refuse a weights file that would do more than compute.

    Args:
        root: folder of the package, outside of which no file may be named (default: the weights' own).
        allow_code: consent to Python in it (Keras), and to graphs that use files (TensorFlow).

    Raises:
        PackageError: it asks for more, or cannot be looked through.
    """
    try:
        if weights_format == "onnx":
            _vet_onnx(path, (root or path.parent).resolve())
        elif weights_format == "torchscript":
            _vet_torchscript(path)
        elif weights_format == "pytorch_state_dict":
            if zipfile.is_zipfile(path):
                _opened(path).close()
        elif not allow_code:
            _vet_keras_or_tensorflow(weights_format, path)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise PackageError(
            f"{path}: the {weights_format} weights cannot be loaded: {error}; the file may be damaged"
        ) from error


def _refuse(path: Path, weights_format: str, why: str) -> PackageError:
    return PackageError(f"{path.name} ({weights_format}) is refused and was not loaded: {why}")


def _vet_onnx(path: Path, root: Path) -> None:
    asks = read_asks(path)
    for name in asks.external:
        target = (path.parent / name).resolve()
        if not name or not target.is_relative_to(root):
            raise _refuse(
                path,
                "onnx",
                f"it takes weights from {name!r}, which is outside the package; save it as one file",
            )
        if not target.is_file():
            raise _refuse(
                path, "onnx", f"it takes weights from {name!r}, which is missing; save it as one file"
            )
    if asks.huge:
        raise _refuse(path, "onnx", f"{asks.huge[0]}, more than any memory would hold")


def _vet_torchscript(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise PackageError(f"{path}: the torchscript weights cannot be loaded: the file is no TorchScript")
    with _opened(path) as archive:
        code = [e for e in archive.infolist() if "/code/" in f"/{e.filename}" and e.filename.endswith(".py")]
        if sum(e.file_size for e in code) > _MAX_CODE:
            raise _refuse(path, "torchscript", f"its code has more than {_MAX_CODE} bytes")
        for entry in code:
            text = archive.read(entry).decode("utf-8", errors="replace")
            if found := _TORCH_CALL.search(text):
                raise _refuse(
                    path,
                    "torchscript",
                    f"its code uses {found[1]!r}, which reads or writes files; export it anew",
                )
            others = set(_TORCH_NAMESPACE.findall(text)) - _NAMESPACES
            others |= {f"classes.{n}" for n in set(_TORCH_CLASS.findall(text)) - _CLASSES}
            if others:
                raise _refuse(
                    path,
                    "torchscript",
                    f"its code uses operators of {', '.join(sorted(others))}, which no network needs; export it anew",
                )


def _vet_keras_or_tensorflow(weights_format: str, path: Path) -> None:
    consent = "read the file, and allow it with --allow-code (allow_code=True) if you trust it"
    if weights_format == "keras_hdf5":
        content = path.read_bytes()
        if b"Lambda" in content or b"__lambda__" in content:
            raise _refuse(path, weights_format, f"it holds Python code (a Lambda layer): {consent}")
    elif weights_format == "keras_v3":
        with _opened(path) as archive:
            for name in _foreign(json.loads(archive.read("config.json"))):
                raise _refuse(path, weights_format, f"it runs Python code, {name}: {consent}")
    elif zipfile.is_zipfile(path):
        with _opened(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".pb"):
                    graph = archive.read(entry)
                    used = sorted(o.decode() for o in _TENSORFLOW if o in graph)
                    if used:
                        raise _refuse(
                            path,
                            weights_format,
                            f"its graph uses files or Python ({', '.join(used)}): {consent}",
                        )


def _foreign(config: Any) -> list[str]:
    """What a Keras configuration would import from outside of Keras, and its Lambdas."""
    found, todo = list[str](), [config]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            module, name = value.get("module"), value.get("class_name")
            if name in ("Lambda", "__lambda__"):
                found.append("a Lambda layer")
            elif isinstance(module, str) and module.split(".")[0] not in ("keras", "builtins"):
                found.append(f"{module}.{name}")
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return found


def _opened(path: Path) -> zipfile.ZipFile:
    """The zip, if all readers see the same in it, and it unpacks to a size that its bytes may have."""
    _check_directory(path)
    archive = zipfile.ZipFile(path)
    entries = archive.infolist()
    total, packed = sum(e.file_size for e in entries), sum(max(1, e.compress_size) for e in entries)
    if total > _MAX_BYTES or (total > _RATIO_FROM and total > _MAX_RATIO * packed):
        archive.close()
        raise PackageError(f"{path.name} is refused and was not loaded: {packed} bytes unpack to {total}")
    return archive


def _check_directory(path: Path) -> None:
    """Refuse a zip whose list of files is not where it says, right before its end: zipfile looks there, torch where it says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 98))
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) - end != 22:
        raise PackageError(
            f"{path.name} is refused and was not loaded: as a zip, it does not end where it should"
        )
    directory, start = struct.unpack("<II", tail[end + 12 : end + 20])
    expected = size - 22
    if tail[max(0, end - 20) : end - 16] == b"PK\6\7":
        (where,) = struct.unpack("<Q", tail[end - 12 : end - 4])
        directory, start = struct.unpack("<QQ", tail[end - 36 : end - 20])
        expected = size - 98 if where == size - 98 else -1
    if start + directory != expected:
        raise PackageError(
            f"{path.name} is refused and was not loaded: as a zip, its list of files is not where it says"
        )
