"""Feeds damaged packages, images and recipes to the commands, and looks at what they do.

Each run damages copies of sound files by a random generator of its own (seed and number of the run), and runs one command in a
fork of this process, which has imported everything. A run fails if the command

- ends by a signal, hangs, or ends with another exit code than the documented ones;
- prints a traceback, an unexpected error, or a control character;
- writes outside of its folder, starts a program, or opens a connection;
- takes more memory than it was given.
"""

import copy
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import xarray as xr
import yaml
from forks import start_fork
from hostile_packages import VALUES, build_base, rehashed

from im2im_zoo.images import write_image

COMMANDS = ("show", "validate", "predict", "data check", "train")
_CODES = frozenset({0, 1, 2, 3})
_LIMIT_S = 90
# What a run may take, of which a good half is the libraries; predictions are given as much by --memory.
_MEMORY = 1_200_000_000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "os.truncate": 1,
}
_WATCHED = "WATCHED: "
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn")
# Damage of text, in place of a value that VALUES has.
_WORDS = (
    "\x1b[2J\x1b]0;evil\x07",
    "\u202egpj",
    "../../../../etc",
    "#99",
    "%s%n",
    "{0.__class__}",
    "${HOME}",
    "~root",
)


@dataclass(frozen=True)
class Run:
    """A run that failed: its number, command, and what was wrong."""

    number: int
    command: tuple[str, ...]
    damage: tuple[str, ...]
    problem: str


class Corpus:
    """Sound files, from which each run takes copies.

    Args:
        folder: new, for the files.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.canary = folder / "canary"
        self.package = build_base(folder / "package", self.canary)
        self.images = folder / "images"
        self.images.mkdir()
        voxels = np.random.default_rng(0).integers(0, 4000, (60, 70)).astype(np.uint16)
        image = xr.DataArray(voxels, dims=("y", "x"), attrs={"pixel_size_um": {"y": 0.5, "x": 0.5}})
        for name in ("plain.tif", "set.ome.tif", "plain.npy", "picture.png", "zarr.ome.zarr"):
            write_image(image, self.images / name)
        write_image(image, self.images / "old.ome.zarr", ome_zarr_version="0.4")
        tifffile.imwrite(self.images / "tiles.tif", voxels, tile=(32, 32), compression="zlib")
        tifffile.imwrite(self.images / "strips.tif", voxels, rowsperstrip=8, compression="lzw")
        tifffile.imwrite(
            self.images / "imagej.tif", voxels, imagej=True, metadata={"axes": "YX", "spacing": 2.0}
        )
        self.pairs = folder / "pairs"
        for side in ("images", "targets"):
            (self.pairs / side).mkdir(parents=True)
            for number in range(4):
                values = (
                    voxels[number : number + 48, :48]
                    if side == "images"
                    else (voxels[:48, :48] > 2000).astype(np.uint8)
                )
                write_image(xr.DataArray(values, dims=("y", "x")), self.pairs / side / f"{number}.tif")
        self.recipe = {
            "name": "fuzz",
            "framework": {
                "callable": "im2im_zoo.frameworks.fcn.FCN",
                "kwargs": {"loss": {"callable": "torch.nn.BCEWithLogitsLoss"}},
            },
            "network": {"callable": "torch.nn.Conv2d", "kwargs": {"in_channels": 1, "out_channels": 1, "kernel_size": 3, "padding": 1}},
            "data": {"path": "pairs", "pairing": "folders", "split": "random", "patch_size": [32, 32], "batch_size": 2},
            "input": {"id": "image", "axes": ["batch", "channel", "y", "x"], "channels": ["raw"]},
            "target": {"preprocessing": [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}]},
            "output": {"id": "mask", "channels": ["object"], "task": "semantic"},
            "trainer": {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1},
        }  # fmt: skip


def fuzz(
    corpus: Corpus,
    folder: Path,
    numbers: Sequence[int],
    *,
    seed: int = 0,
    commands: Sequence[str] = COMMANDS,
    told: Callable[[Run], None] = lambda run: None,
) -> list[Run]:
    """Run damaged files, and return the runs that failed.

    Args:
        corpus: sound files.
        folder: in which each run has a folder of its own, which is removed.
        numbers: of the runs; the same number and seed give the same run.
        seed: of all runs.
        commands: to choose from.
        told: called with each run that failed.
    """
    failed = []
    for number in numbers:
        place = folder / str(number)
        place.mkdir(parents=True)
        chance = random.Random(f"{seed}/{number}")
        command, damage = _prepare(corpus, place, chance, commands[number % len(commands)])
        problem = run_and_watch(command, place)
        if problem is None and corpus.canary.exists():
            problem = "code of the package ran"
            corpus.canary.unlink()
        if problem is not None:
            run = Run(number, tuple(command), tuple(damage), problem)
            failed.append(run)
            told(run)
        shutil.rmtree(place, ignore_errors=True)
        place.with_suffix(".text").unlink(missing_ok=True)
    return failed


def _prepare(corpus: Corpus, place: Path, chance: random.Random, command: str) -> tuple[list[str], list[str]]:
    """Write damaged copies into the folder of a run; return the arguments of the command, and what was damaged."""
    damage: list[str] = []
    if command in ("data check", "train"):
        shutil.copytree(corpus.pairs, place / "pairs")
        recipe = json.loads(json.dumps(corpus.recipe))
        if chance.random() < 0.6:
            recipe, what = damage_document(recipe, chance)
            damage.append(f"recipe {what}")
        if not damage or chance.random() < 0.5:
            file = chance.choice(sorted((place / "pairs").rglob("*.tif")))
            damage.append(f"{file.relative_to(place)} {damage_file(file, chance)}")
        (place / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
        words = command.split()
        return [*words, "recipe.yaml", *(["--output", "run"] if command == "train" else [])], damage
    shutil.copytree(corpus.package, place / "package")
    image = place / chance.choice(sorted(p.name for p in corpus.images.iterdir()))
    if command == "predict":
        source = corpus.images / image.name
        shutil.copytree(source, image) if source.is_dir() else shutil.copy(source, image)
    if command != "predict" or chance.random() < 0.3:
        damage.append(_damage_package(place / "package", chance))
    if command == "predict" and (not damage or chance.random() < 0.7):
        damage.append(f"{image.name} {damage_image(image, chance)}")
    if command == "predict":
        output = chance.choice(("out.ome.zarr", "out.tif", "out.ome.tif", "out.npy"))
        return [
            "predict",
            "package",
            image.name,
            output,
            "--memory",
            str(_MEMORY),
            "--weights",
            "onnx",
            "--halo",
            "declared",
        ], damage
    return [command, "package"], damage


def _damage_package(folder: Path, chance: random.Random) -> str:
    if chance.random() < 0.65:
        document = yaml.safe_load((folder / "rdf.yaml").read_text())
        for _ in range(chance.choice((1, 1, 2, 4))):
            document, what = damage_document(document, chance)
        if chance.random() < 0.7:
            document = rehashed(folder, document)
        (folder / "rdf.yaml").write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
        return f"rdf.yaml {what}"
    file = chance.choice(sorted(p for p in folder.iterdir() if p.is_file()))
    what = damage_file(file, chance)
    if file.name != "rdf.yaml" and chance.random() < 0.8:
        document = rehashed(folder, yaml.safe_load((folder / "rdf.yaml").read_text()))
        (folder / "rdf.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return f"{file.name} {what}"


def damage_image(path: Path, chance: random.Random) -> str:
    """Damage an image: its file, or the metadata or a chunk of a zarr."""
    if path.is_file():
        return damage_file(path, chance)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    metadata = [p for p in files if p.name.startswith(".z") or p.name == "zarr.json"]
    file = chance.choice(metadata if chance.random() < 0.7 else files)
    if file in metadata and chance.random() < 0.8:
        document, what = damage_document(json.loads(file.read_text()), chance)
        file.write_text(json.dumps(document))
        return f"{file.relative_to(path)} {what}"
    return f"{file.relative_to(path)} {damage_file(file, chance)}"


def damage_document(document: Any, chance: random.Random) -> tuple[Any, str]:
    """Return a document with one value replaced, removed, renamed or doubled, and what was done."""
    places = list(_places(document))
    if not places:
        return [document], "is a list"
    place = chance.choice(places)
    holder = document
    for key in place[:-1]:
        holder = holder[key]
    key, kind = place[-1], chance.random()
    where = ".".join(map(str, place))
    if kind < 0.6:
        value = copy.deepcopy(chance.choice((*VALUES, *_WORDS)))
        if isinstance(holder[key], int) and chance.random() < 0.5:
            value = chance.choice(
                (-holder[key], holder[key] + 1, holder[key] * 2, 0, 10**6, 2**31, 2**63, -1)
            )
        holder[key] = value
        return document, f"{where} = {str(value)[:60]!r}"
    if kind < 0.8:
        del holder[key]
        return document, f"{where} removed"
    if isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
        return document, f"{where} doubled"
    new = chance.choice((*_WORDS, "callable", "source", "x" * 300, f"{key}s"))
    holder[new] = holder.pop(key)
    return document, f"{where} renamed to {new[:30]!r}"


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*at, key)
        yield from _places(inner, (*at, key))


def damage_file(path: Path, chance: random.Random) -> str:
    """Change bytes of a file, most of them near its start, where headers are; return what was done."""
    content = bytearray(path.read_bytes())
    kind = chance.randrange(6)
    at = min(int(len(content) ** chance.random()), max(len(content) - 1, 0))
    if kind == 0:
        path.write_bytes(content[: chance.randrange(len(content) + 1)])
        return "cut short"
    if kind == 1:
        path.write_bytes(content + bytes(chance.randrange(1, 5000)))
        return "longer"
    if kind == 2:
        for _ in range(chance.choice((1, 3, 20))):
            content[min(int(len(content) ** chance.random()), len(content) - 1)] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        return "bits flipped"
    if kind == 3:
        number = struct.pack("<I", chance.choice((0, 1, 2**16, 2**31, 2**32 - 1)))
        content[at : at + 4] = number
        path.write_bytes(content)
        return f"a number at {at}"
    if kind == 4:
        length = chance.choice((1, 16, 200))
        content[at : at + length] = bytes(chance.randrange(256) for _ in range(length))
        path.write_bytes(content)
        return f"{length} bytes at {at}"
    other = chance.randrange(len(content))
    content[at : at + 64] = content[other : other + 64]
    path.write_bytes(content)
    return f"64 bytes copied from {other} to {at}"


def run_and_watch(command: Sequence[str], folder: Path) -> str | None:
    """Run a command in a fork with a folder as the current one; return what was wrong, None if nothing was.

    Args:
        command: arguments of `im2im-zoo`.
        folder: all that it may write to.
    """
    text = folder.with_suffix(".text")
    before = time.monotonic()
    process = start_fork(lambda: _run(command, folder), text)
    while True:
        ended, status, usage = os.wait4(process, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - before > _LIMIT_S:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return f"hangs: {_tail(text)}"
        time.sleep(0.005)
    printed = text.read_text(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    if code not in _CODES:
        return f"exit {code}: {_tail(text)}"
    watched = [line for line in printed.splitlines() if line.startswith(_WATCHED)]
    if watched:
        return "\n".join(watched[:5])
    for mark in ("Traceback (most recent call last)", "unexpected error"):
        if mark in printed:
            return f"{mark}: {_tail(text)}"
    strange = {
        c
        for c in printed
        if (ord(c) < 32 and c not in "\n\t\r") or "\x7f" <= c < "\xa0" or "\u202a" <= c <= "\u202e"
    }
    if strange:
        return f"prints {sorted(strange)!r}: {_tail(text)}"
    if usage.ru_maxrss * 1024 > _MEMORY:
        return f"takes {usage.ru_maxrss * 1024 / 1e6:.0f} MB: {_tail(text)}"
    return None


def _run(command: Sequence[str], folder: Path) -> None:
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _watch([str(folder), os.environ["HOME"]])
    from im2im_zoo.cli import main

    sys.argv = ["im2im-zoo", *command]
    main()


def _watch(folders: Sequence[str]) -> None:
    """Print a line that is looked for at each write outside of some folders, program and connection."""
    inside = (*folders, "/dev/null", "/dev/shm", "/proc/self")

    def hear(event: str, found: tuple[Any, ...]) -> None:
        paths: list[Any] = []
        if (
            event == "open"
            and isinstance(found[2], int)
            and found[2] & _WRITING
            and not isinstance(found[0], int)
        ):
            paths = [found[0]]
        elif event in _CHANGES:
            if event != "os.mkdir" and any(
                isinstance(n, int) and n >= 0 for n in found[_CHANGES[event] :][-2:]
            ):
                return  # relative to an open folder, as shutil.rmtree does below one that was opened
            paths = list(found[: _CHANGES[event]])
        elif (event in _PROGRAMS or event == "socket.connect") and not _is_own_program(event, found):
            os.write(2, f"\n{_WATCHED}{event} {str(found)[:200]}\n".encode())
        for path in paths:
            name = os.path.abspath(os.fsdecode(os.fspath(path)))
            if not name.startswith(inside):
                os.write(2, f"\n{_WATCHED}{event} {name}\n".encode())

    sys.addaudithook(hear)


def _is_own_program(event: str, found: tuple[Any, ...]) -> bool:
    """Whether a program is Python's `uname` for `platform.processor`, or a module of im2im_zoo that measures an engine."""
    if event != "subprocess.Popen":
        return False
    arguments = list(map(str, found[1]))
    return arguments == ["uname", "-p"] or (
        found[0] == sys.executable and "im2im_zoo.runtime.measure.select_engine" in arguments
    )


def _tail(text: Path) -> str:
    return text.read_text(errors="replace")[-1500:]


def prepare_environment(folder: Path) -> None:
    """Import all that commands need, and let what they cache lie in a folder that they share."""
    import pytorch_lightning  # noqa: F401 heavy, imported once for all forks
    import torch

    import im2im_zoo.cli.app
    import im2im_zoo.workflows  # noqa: F401

    torch.set_num_threads(1)
    home = folder / "home"
    home.mkdir()
    os.environ.update(
        HOME=str(home),
        XDG_CACHE_HOME=str(home / "cache"),
        MPLCONFIGDIR=str(home / "matplotlib"),
        COLUMNS="200",
    )
