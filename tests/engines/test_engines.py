"""Engines: every format gives what the network gives, and what cannot run says why."""

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from bioimageio.spec import ValidationContext
from bioimageio.spec.model import v0_5 as spec
from packages_for_tests import ARCHITECTURE, small_unet
from torch import nn

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines import Engine, backends, open_engine


class TwoInTwoOut(nn.Module):
    """Adds and subtracts."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, a - b


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of one small U-Net in each format, and of a network with two inputs and outputs."""
    import warnings

    path = tmp_path_factory.mktemp("weights")
    network, example = small_unet(levels=1), torch.zeros(1, 1, 16, 16)
    free = {0: "batch", 2: "y", 3: "x"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(str(path / "net.pt"))
        torch.jit.script(TwoInTwoOut()).save(str(path / "two.pt"))
        torch.onnx.export(
            network,
            (example,),
            str(path / "net.onnx"),
            dynamo=False,
            input_names=["a"],
            dynamic_axes={"a": free},
        )
        torch.onnx.export(
            TwoInTwoOut(), (example, example), str(path / "two.onnx"), dynamo=False, input_names=["a", "b"]
        )
    torch.save(network.state_dict(), path / "net.pth")
    (path / "small_unet.py").write_text(ARCHITECTURE)
    return path


def from_file(folder: Path, sha256: str | None = None, name: str = "small_unet.py", **kwargs: int):
    content = (folder / name).read_bytes() if (folder / name).exists() else b""
    with ValidationContext(root=folder, perform_io_checks=False):
        return spec.ArchitectureFromFileDescr(
            source=name,
            callable="SmallUNet",
            sha256=sha256 or hashlib.sha256(content).hexdigest(),
            kwargs={"levels": 1, **kwargs},
        )


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def expected(array: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return small_unet(levels=1)(torch.from_numpy(array)).numpy()


@pytest.mark.parametrize("weights_format", ["onnx", "torchscript", "pytorch_state_dict"])
@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (2, 1, 40, 22)])
def test_every_format_gives_what_the_network_gives(folder, weights_format, shape):
    files = {"onnx": "net.onnx", "torchscript": "net.pt", "pytorch_state_dict": "net.pth"}
    engine = open_engine(
        weights_format,
        folder / files[weights_format],
        architecture=from_file(folder),
        allow_code=True,
        threads=1,
    )
    assert isinstance(engine, Engine)
    assert engine.weights_format == weights_format
    array = image(*shape)
    (output,) = engine([array])
    np.testing.assert_allclose(output, expected(array), atol=1e-5)
    assert output.flags.c_contiguous
    # The same for an array that is a view, and read-only.
    view = np.asfortranarray(array)
    view.flags.writeable = False
    np.testing.assert_array_equal(engine([view])[0], output)


@pytest.mark.parametrize(("weights_format", "name"), [("onnx", "two.onnx"), ("torchscript", "two.pt")])
def test_several_inputs_and_outputs_keep_their_order(folder, weights_format, name):
    a, b = image(1, 1, 16, 16), image(1, 1, 16, 16) * 2
    plus, minus = open_engine(weights_format, folder / name, threads=1)([a, b])
    np.testing.assert_allclose(plus, a + b)
    np.testing.assert_allclose(minus, a - b)


@pytest.mark.parametrize(("weights_format", "name"), [("onnx", "net.onnx"), ("torchscript", "net.pt")])
def test_a_size_that_the_network_does_not_take_names_file_format_and_shape(folder, weights_format, name):
    engine = open_engine(weights_format, folder / name, threads=1)
    with pytest.raises(PackageError, match=rf"{name} \({weights_format}\).*\(1, 1, 15, 16\)"):
        engine([image(1, 1, 15, 16)])


def test_another_number_of_inputs_than_the_graph_has_is_refused(folder):
    with pytest.raises(PackageError, match=r"takes 2 inputs \(a, b\), but the RDF describes 1"):
        open_engine("onnx", folder / "two.onnx")([image(1, 1, 16, 16)])


@pytest.mark.parametrize("weights_format", ["onnx", "torchscript", "pytorch_state_dict"])
def test_a_damaged_file_is_named_with_its_format(folder, tmp_path, weights_format):
    path = tmp_path / "damaged"
    path.write_bytes(b"this is no network" * 50)
    with pytest.raises(PackageError, match=f"damaged: the {weights_format} weights cannot be loaded"):
        open_engine(weights_format, path, architecture=from_file(folder), root=folder, allow_code=True)


def test_a_missing_file_an_unknown_format_and_a_device_that_is_not_there_are_refused(folder):
    with pytest.raises(PackageError, match="missing"):
        open_engine("onnx", folder / "none.onnx")
    with pytest.raises(PackageError, match="'tensorflow_js' cannot be run here"):
        open_engine("tensorflow_js", folder / "net.pt")
    with pytest.raises(PackageError, match="threads is 0"):
        open_engine("onnx", folder / "net.onnx", threads=0)
    for weights_format, name in (("onnx", "net.onnx"), ("torchscript", "net.pt")):
        with pytest.raises(PackageError, match=r"device 'nonsense'.* device cpu"):
            open_engine(weights_format, folder / name, device="nonsense")


def test_a_state_dict_does_not_run_without_consent_and_its_code_is_not_imported(folder, tmp_path):
    trap = tmp_path / "imported"
    (tmp_path / "small_unet.py").write_text(f"open({str(trap)!r}, 'w').close()\n" + ARCHITECTURE)
    architecture = from_file(tmp_path)
    with pytest.raises(PackageError, match=r"runs Python code.*--allow-code.*onnx or torchscript"):
        open_engine("pytorch_state_dict", folder / "net.pth", architecture=architecture, root=tmp_path)
    assert not trap.exists()
    open_engine(
        "pytorch_state_dict", folder / "net.pth", architecture=architecture, root=tmp_path, allow_code=True
    )
    assert trap.exists()


def test_code_that_was_changed_is_not_run(folder, tmp_path):
    trap = tmp_path / "imported"
    (tmp_path / "small_unet.py").write_text(f"open({str(trap)!r}, 'w').close()\n" + ARCHITECTURE)
    architecture = from_file(tmp_path, sha256="0" * 64)
    with pytest.raises(PackageError, match="the file was changed and is not run"):
        open_engine(
            "pytorch_state_dict",
            folder / "net.pth",
            architecture=architecture,
            root=tmp_path,
            allow_code=True,
        )
    assert not trap.exists()


def test_an_architecture_outside_the_package_is_not_run(folder):
    architecture = from_file(folder, sha256="0" * 64, name="../other.py")
    with pytest.raises(PackageError, match="is not in the package"):
        open_engine("pytorch_state_dict", folder / "net.pth", architecture=architecture, allow_code=True)


def test_an_architecture_of_a_library_is_built_by_its_name(tmp_path):
    torch.manual_seed(0)
    network = nn.Conv2d(1, 2, 3, padding=1)
    torch.save(network.state_dict(), tmp_path / "conv.pth")
    kwargs = {"in_channels": 1, "out_channels": 2, "kernel_size": 3, "padding": 1}
    known = spec.ArchitectureFromLibraryDescr(callable="Conv2d", import_from="torch.nn", kwargs=kwargs)
    array = image(1, 1, 9, 9)
    engine = open_engine("pytorch_state_dict", tmp_path / "conv.pth", architecture=known, allow_code=True)
    with torch.inference_mode():
        np.testing.assert_allclose(engine([array])[0], network(torch.from_numpy(array)).numpy(), atol=1e-6)
    unknown = spec.ArchitectureFromLibraryDescr(callable="Net", import_from="not_installed.nets")
    for consent in (True, False):
        with pytest.raises(
            PackageError, match=r"needs not_installed: its architecture is `not_installed\.nets\.Net`"
        ):
            open_engine("pytorch_state_dict", tmp_path / "conv.pth", architecture=unknown, allow_code=consent)


def test_weights_that_do_not_fit_the_architecture_are_refused(folder):
    architecture = from_file(folder, width=5)
    with pytest.raises(PackageError, match=r"does not fit the network SmallUNet.*disagree"):
        open_engine("pytorch_state_dict", folder / "net.pth", architecture=architecture, allow_code=True)


def test_pickled_objects_in_a_state_dict_are_not_loaded(folder, tmp_path):
    torch.save(small_unet(levels=1), tmp_path / "whole_module.pth")
    with pytest.raises(PackageError, match="plain state dict"):
        open_engine(
            "pytorch_state_dict",
            tmp_path / "whole_module.pth",
            architecture=from_file(folder),
            root=folder,
            allow_code=True,
        )


def test_the_threads_of_an_engine_are_its_own(folder):
    seen = []
    engine = open_engine("torchscript", folder / "net.pt", threads=torch.get_num_threads() + 1)
    before, run = torch.get_num_threads(), engine._module._module
    engine._module._module = lambda *tensors: (seen.append(torch.get_num_threads()), run(*tensors))[1]
    engine([image(1, 1, 16, 16)])
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


class Viewing(nn.Module):
    """A network that looks at its tensors as if their channels came first in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return y.view(y.shape[0], 2, 2, -1).sum(2).view(y.shape[0], 2, y.shape[2], y.shape[3])


def test_a_network_that_relies_on_the_layout_of_its_tensors_runs(tmp_path):
    torch.manual_seed(0)
    network, x = Viewing().eval(), image(1, 1, 12, 10)
    torch.jit.script(network).save(tmp_path / "net.pt")
    engine = open_engine("torchscript", tmp_path / "net.pt")
    with torch.no_grad():
        expected = network(torch.from_numpy(x)).numpy()
    for _ in range(2):
        np.testing.assert_allclose(engine([x])[0], expected, atol=1e-6)


def test_a_gpu_is_asked_for_only_what_it_has():
    assert "openvino" not in backends("onnx", "cuda")
    assert set(backends("onnx", "mps")) == set()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert backends("onnx", "cuda") == ()
