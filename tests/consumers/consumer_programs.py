"""The programs that packages are run in, outside of im2im_zoo, and what each gives. Installs nothing: `install.sh` does."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from consumer_packages import Case, Packaged
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
# Where install.sh has put them.
FOLDER = Path(os.environ.get("IM2IM_ZOO_CONSUMERS", HERE.parents[1] / ".consumers"))


@dataclass(frozen=True)
class Program:
    """A program, the formats that it runs, and how it is started; `needed` is what is not there if it is not installed.

    `name` has no version: `version` asks the program for it, by `command` with `--versions`.
    """

    name: str
    formats: tuple[str, ...]
    command: tuple[str, ...]
    needed: Path
    whole_package: bool = False
    place: str = ""

    @property
    def missing(self) -> str | None:
        """Why it cannot be run here."""
        if self.needed.exists():
            return None
        return _not_installed(self.name)

    def versions(self) -> tuple[str, ...]:
        """The name and version of itself as it is installed, and of the libraries that it runs with."""
        first, *others = _run([*self.command, "--versions"]).strip().split(", ")
        return (f"{first} {self.place}".strip(), *others)

    def differences(self, made: Packaged, work: Path) -> dict[str, float]:
        """By format, the largest difference to the process that exported, as a fraction of the largest value."""
        formats = [name for name in self.formats if name in made.formats]
        if self.whole_package:
            return self._of_package(made, formats)
        return {name: max(self._of_case(made, name, case, work) for case in made.cases) for name in formats}

    def _of_package(self, made: Packaged, formats: Sequence[str]) -> dict[str, float]:
        said = _run([*self.command, str(made.exported.zip_path), *formats])
        line = next(line for line in said.splitlines() if line.startswith("RESULT"))
        found = json.loads(line.removeprefix("RESULT"))
        return {name: max(v for k, v in found.items() if k.split()[0] == name) for name in formats}

    def _of_case(self, made: Packaged, name: str, case: Case, work: Path) -> float:
        files = {"onnx": "weights.onnx", "torchscript": "weights_torchscript.pt"}
        source, result = work / "input.bin", work / "output.bin"
        case.array.tofile(source)
        model = made.exported.folder / files[name]
        said = _run([*self.command, str(model), str(source), str(result), *map(str, case.array.shape)])
        sizes = [int(n) for n in said.split()]
        return _difference(np.fromfile(result, np.float32).reshape(sizes), case.expected)


@dataclass(frozen=True)
class Reader:
    """A version of bioimageio.spec alone, in an environment without what runs models."""

    name: str
    python: Path

    @property
    def missing(self) -> str | None:
        """Why it is not there."""
        return None if self.python.exists() else _not_installed(self.name)

    def version(self) -> str:
        """Its name and version as it is installed."""
        script = (
            "from importlib import metadata; print('bioimageio.spec', metadata.version('bioimageio.spec'))"
        )
        return _run([str(self.python), "-c", script]).strip()

    def says(self, package: Path) -> str:
        """Its verdict of a package and the format that it takes it for, as `passed 0.5.0`."""
        script = (
            "import sys; from bioimageio.spec import load_description; d = load_description(sys.argv[1]); "
            "print('RESULT', d.validation_summary.status, d.format_version)"
        )
        said = _run([str(self.python), "-c", script, str(package)])
        return next(line for line in said.splitlines() if line.startswith("RESULT")).removeprefix("RESULT ")


def _not_installed(name: str) -> str:
    return f"{name} is not installed here: `make consumers` installs it in {FOLDER.name}/"


def _difference(result: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    assert result.shape == expected.shape
    return float(np.abs(result.astype(np.float64) - expected).max() / (np.abs(expected).max() or 1))


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return done.stdout


def _node(name: str, version: str, library: str = "onnxruntime-node") -> Program:
    modules = FOLDER / f"{library}_{version}" / "node_modules"
    command = ("node", str(HERE / "run_onnx.js"), str(modules), library)
    return Program(name, ("onnx",), command, modules)


def _libtorch(place: str, file: str) -> Program:
    command = (str(FOLDER / file),)
    return Program(f"libtorch {place}", ("torchscript",), command, FOLDER / file, place=place)


def _core(name: str, python: Path, formats: tuple[str, ...]) -> Program:
    return Program(name, formats, (str(python), str(HERE / "run_core.py")), python, whole_package=True)


FIRST_READER = Reader("first bioimageio.spec of format 0.5", FOLDER / "spec_0.5.0" / "bin" / "python")
_ALL = ("onnx", "torchscript", "pytorch_state_dict")
PROGRAMS = (
    _core("bioimageio.core", Path(sys.executable), _ALL),
    _core("bioimageio.core of ilastik", FOLDER / "core_0.10.2" / "bin" / "python", ("onnx", "torchscript")),
    _node("onnxruntime-node, newest of deepImageJ", "1.13.1"),
    _node("onnxruntime-node", "1.27.0"),
    _node("onnxruntime-web, in Node", "1.30.0", "onnxruntime-web"),
    _libtorch("of Debian", "run_libtorch_debian"),
    _libtorch("of the torch wheel", "run_libtorch_wheel"),
)
