"""SIGTERM and SIGHUP end a prediction soon in every stage: in under two seconds where it was measured."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from groupings_for_tests import maps_package, with_grouping

from im2im_zoo.images import write_image

# The command, with a file that appears when a stage has begun, and work in it that no signal interrupts by itself.
SCRIPT = textwrap.dedent(
    """
    import sys
    from contextlib import contextmanager
    from pathlib import Path
    import im2im_zoo.cli.predict as command
    from im2im_zoo.cli import main
    from im2im_zoo.runtime.execute.tile_job import TileJob

    stage, begun = sys.argv[1], Path(sys.argv[2])

    @contextmanager
    def progress(*_, **__):
        yield lambda done, total, note, name: begun.touch() if name == stage else None

    command.progress = progress
    if stage == "network":
        def compute(self, unit, data):
            import torch
            begun.touch()
            many = torch.ones(9000, 9000)
            many @ many @ many @ many
        TileJob.compute = compute
    sys.argv = ["im2im-zoo", "predict", *sys.argv[3:]]
    main()
    """
)
SLOW = "import time\n\ndef group(maps, **kwargs):\n    time.sleep(60)\n"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = maps_package(tmp_path_factory.mktemp("package") / "maps")
    return with_grouping(path, code=SLOW, name="slow.py", kwargs={}).root


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("stage", "size", "number", "code"),
    [
        pytest.param("Statistics", 12_000, signal.SIGTERM, 143, marks=pytest.mark.slow),
        ("network", 100, signal.SIGTERM, 143),
        pytest.param("Finding objects", 100, signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_is_heard_whatever_computes(
    package: Path, tmp_path: Path, stage: str, size: int, number: signal.Signals, code: int
) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, as nohup does, and stays so in every command")
    if stage == "Statistics":
        # A file of zeros that takes no space: its statistics take some seconds.
        source = tmp_path / "image.npy"
        np.lib.format.open_memmap(source, "w+", np.float32, (size, size)).flush()
    else:
        values = np.random.default_rng(0).integers(1, 4000, (size, size)).astype(np.uint16)
        source = write_image(xr.DataArray(values, dims=("y", "x")), tmp_path / "image.tif")
    begun, output = tmp_path / "begun", tmp_path / "out.ome.zarr"
    options = ["--axes", "yx", "--halo", "8", "--tile", "64", "--allow-code", "--weights", "torchscript"]
    process = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            SCRIPT,
            stage,
            str(begun),
            str(package),
            str(source),
            str(output),
            *options,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 120
        while not begun.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        assert begun.exists(), process.communicate()[1]
        time.sleep(0.3)
        os.kill(process.pid, number)
        start = time.monotonic()
        _, errors = process.communicate(timeout=60)
        took = time.monotonic() - start
    finally:
        process.kill()
    assert process.returncode == code, errors
    assert took < 20, errors  # a stage takes a minute, and a busy machine its time
    assert "interrupted" in errors
    assert not output.exists()


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    script = (
        "import os, signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from im2im_zoo.cli.interruption import exit_in_time, exit_on_signals\nexit_on_signals()\n"
        "with exit_in_time():\n    os.kill(os.getpid(), signal.SIGHUP)\n    import time; time.sleep(1.5)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
