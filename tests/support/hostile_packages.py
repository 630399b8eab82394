"""A sound package whose Python would leave a mark, and ways to break it: what the fuzz of packages is made of."""

import hashlib
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from packages_for_tests import ARCHITECTURE, build_package, small_unet

CODE = (
    "from pathlib import Path\n\nPath({canary!r}).touch()\n\n\ndef act(*_, **__):\n    return lambda x: x\n"
)

# What stands in place of a value of the RDF.
VALUES: tuple[Any, ...] = (
    None, "", " ", -1, 0, 1, 3, 2**31, 2**63, 1e308, float("nan"), True, [], {}, [[]], [None], {"source": "../outside"},
    "../outside", "/etc/passwd", "mine.py", "https://127.0.0.1:9/x", "file:///etc/passwd", "a" * 5000, "a\0b", "\u202e", "custom",
    "float99", "batch", {"id": "custom"}, {"min": 10**9, "step": 1}, {"min": 1, "step": 0}, {"tensor_id": "out", "axis_id": "y"},
    "0.4.9", "0.6.0", "99", "__import__('os').system('touch canary')", "2020-01-01", [1, 2, 3],
)  # fmt: skip
NAMES = (
    "../evil",
    "/tmp/evil_of_a_zip",
    "a/../../evil",
    "C:/evil",
    "",
    ".",
    "a\0b",
    "rdf.yaml/x",
    "x" * 300,
    "RDF.YAML",
    "\\evil",
)


def build_base(folder: Path, canary: Path) -> Path:
    """A sound package with three formats, test tensors, and Python that makes the canary as soon as it is imported."""
    code = CODE.format(canary=str(canary))
    source = f"{code}\n\n{ARCHITECTURE}"
    network = small_unet(levels=1)
    build_package(
        folder,
        network,
        weights=("onnx", "torchscript", "pytorch_state_dict"),
        architecture={
            "callable": "SmallUNet",
            "source": "net.py",
            "sha256": hashlib.sha256(source.encode()).hexdigest(),
            "kwargs": {"levels": 1},
        },
        sources={"net.py": source, "mine.py": code, "README.md": "# Model\n\n## Validation\n\nNone.\n"},
    )
    image = torch.rand(1, 1, 40, 44, generator=torch.Generator().manual_seed(0))
    np.save(folder / "test_input.npy", image.numpy())
    with torch.no_grad():
        np.save(folder / "test_output.npy", network(image).numpy())
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    rdf["inputs"][0]["test_tensor"] = {"source": "test_input.npy"}
    rdf["outputs"][0]["test_tensor"] = {"source": "test_output.npy"}
    rdf["documentation"] = {"source": "README.md"}
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rehashed(folder, rdf), sort_keys=False))
    return folder


def rehashed(folder: Path, value: Any) -> Any:
    """A document with the hashes of the files as they are."""
    if isinstance(value, dict):
        inner = {k: rehashed(folder, v) for k, v in value.items()}
        source = inner.get("source")
        if isinstance(source, str) and source in {p.name for p in folder.iterdir() if p.is_file()}:
            inner["sha256"] = hashlib.sha256((folder / source).read_bytes()).hexdigest()
        return inner
    return [rehashed(folder, v) for v in value] if isinstance(value, list) else value


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is a value in a document."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


def spoil(folder: Path, data: st.DataObject) -> None:
    """Break a package in one to three ways, and mostly give the RDF the hashes of what came of it."""
    for _ in range(data.draw(st.integers(1, 3), "how many")):
        way = data.draw(st.sampled_from([_value, _value, _code, _file, _swap]), "way")
        way(folder, data)
    if data.draw(st.booleans(), "rehashed") or data.draw(st.booleans(), "rehashed all the same"):
        rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
        _write(folder, rehashed(folder, rdf))


def spoil_zip(folder: Path, path: Path, data: st.DataObject) -> None:
    """The package as a zip, entries renamed or added, or its bytes changed."""
    with zipfile.ZipFile(
        path, "w", data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    ) as archive:
        for file in sorted(folder.iterdir()):
            name = file.name
            if data.draw(st.integers(0, 7)) == 0:
                name = data.draw(st.sampled_from(NAMES))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of names that are there twice
                archive.writestr(zipfile.ZipInfo(name or "x"), file.read_bytes())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3), "flips")):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    if data.draw(st.integers(0, 4)) == 0:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path.write_bytes(bytes(content))


def _write(folder: Path, rdf: Any) -> None:
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False, allow_unicode=False))


def _value(folder: Path, data: st.DataObject) -> None:
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    at = data.draw(st.sampled_from(list(places(rdf))), "place")
    parent = rdf
    for key in at[:-1]:
        parent = parent[key]
    if data.draw(st.integers(0, 4)) == 0:
        del parent[at[-1]]
    else:
        parent[at[-1]] = data.draw(st.sampled_from(VALUES), "value")
    _write(folder, rdf)


def _code(folder: Path, data: st.DataObject) -> None:
    """Make the RDF name Python of the package wherever it may."""
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text())
    sha256 = hashlib.sha256((folder / "mine.py").read_bytes()).hexdigest()
    code = {"callable": "act", "source": "mine.py", "sha256": sha256, "kwargs": {}}
    where = data.draw(
        st.sampled_from(["preprocessing", "postprocessing", "grouping", "before", "only"]), "code in"
    )
    try:
        if where == "preprocessing":
            rdf["inputs"][0]["preprocessing"] = [{"id": "custom", **code}]
        elif where == "postprocessing":
            rdf["outputs"][0]["postprocessing"] = [{"id": "custom", **code}]
        elif where == "only":
            rdf["weights"] = {"pytorch_state_dict": rdf["weights"]["pytorch_state_dict"]}
            rdf["weights"]["pytorch_state_dict"].pop("parent", None)
        else:
            added = {
                "grouping": {**code, "output": "out"},
                "before": [{"tensor": "raw", "operations": [{"id": "custom", **code}]}],
            }[where]
            rdf["config"] = {"im2im_zoo": {{"before": "preprocessing"}.get(where, where): added}}
        rdf["attachments"] = [{"source": "mine.py", "sha256": sha256}]
    except (KeyError, TypeError, IndexError, AttributeError):
        return  # what was there was broken before
    _write(folder, rdf)


def _file(folder: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(folder.iterdir())), "file")
    content = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["cut", "flip", "empty", "gone", "code", "longer"]), "how")
    if how == "cut":
        del content[data.draw(st.integers(0, max(0, len(content) - 1))) :]
    elif how == "flip" and content:
        for _ in range(data.draw(st.integers(1, 20))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    elif how == "empty":
        content.clear()
    elif how == "code":
        content = bytearray((folder / "mine.py").read_bytes())
    elif how == "longer":
        content += b"\0" * 1000
    if path.name == "rdf.yaml" and how in ("flip", "cut", "empty", "code", "longer", "gone"):
        return  # bytes of the RDF are broken by what reads zips; here its values are
    if how == "gone" and path.name not in ("mine.py", "rdf.yaml"):
        path.unlink()
    else:
        path.write_bytes(bytes(content))


def _swap(folder: Path, data: st.DataObject) -> None:
    files = [p for p in sorted(folder.iterdir()) if p.name not in ("rdf.yaml", "mine.py")]
    a, b = data.draw(st.sampled_from(files), "one"), data.draw(st.sampled_from(files), "other")
    one, other = a.read_bytes(), b.read_bytes()
    a.write_bytes(other)
    b.write_bytes(one)
