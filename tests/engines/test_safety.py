"""Weights that would do more than compute are refused before they are loaded; ordinary ones are not."""

import json
import pickle
import re
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from packages_for_tests import small_unet
from torch import nn

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines import open_engine, vet_weights
from im2im_zoo.engines.onnx_file import scan_onnx


class Writes(nn.Module):
    """TorchScript that writes its input into a file, whoever calls it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "canary.pt")
        return x


class Maps(nn.Module):
    """TorchScript that makes a file, and reads it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("canary.pt", shared=True, size=10).sum()


@pytest.mark.parametrize("network", [Writes(), Maps()], ids=["save", "from_file"])
def test_torchscript_that_uses_files_is_refused_and_makes_none(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.jit.script(network).save("weights.pt")
    with pytest.raises(PackageError, match=r"refused and was not loaded: its code uses '(save|from_file)'"):
        open_engine("torchscript", tmp_path / "weights.pt")
    assert [p.name for p in Path().iterdir()] == ["weights.pt"]
    # What is refused does what it is refused for.
    torch.jit.load("weights.pt")(torch.ones(3))
    assert Path("canary.pt").exists()


@pytest.mark.parametrize("call", ["torch . save (", "torch.\\\n  save(", "(torch.#c\nsave)(", "torch.save("])
def test_a_call_is_found_however_it_is_written(call: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/code/__torch__.py", f'def f(x):\n    {call}x, "canary")\n')
    with pytest.raises(PackageError, match="uses 'save'"):
        vet_weights("torchscript", tmp_path / "w.pt")


@pytest.mark.parametrize(
    "use", ["ops.c10d.barrier(x)", "ops.mkldnn.data_ptr(x)", "torch.classes.dist_rpc.X(x)"]
)
def test_operators_that_no_network_needs_are_refused(use: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/code/__torch__.py", f"def f(x):\n    y = {use}\n")
    with pytest.raises(PackageError, match="refused and was not loaded"):
        vet_weights("torchscript", tmp_path / "w.pt")


@pytest.mark.parametrize(
    "line",
    [
        '_0 = getattr(torch, "save")(x, "canary")',
        '_0 = getattr(torch, "sa" "ve")(x, "canary")',
        '_0 = getattr(torch, "s\\141ve")(x, "canary")',
        '_0 = getattr(getattr(ops, "aten"), "save")(x, "canary")',
        'a = ""; t = torch',
        'a = "\\\\"; t, b = torch, "b"',
        't = """ " """; o = torch; u = """ """',
        "o = ops",
        "c = torch.classes",
    ],
)
def test_torchscript_that_hides_the_name_of_an_operator_is_refused(line: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/code/__torch__.py", f"def f(x):\n    {line}\n")
    with pytest.raises(PackageError, match="its code hides which operators it uses"):
        vet_weights("torchscript", tmp_path / "w.pt")


def test_a_hidden_operator_does_what_it_is_refused_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.jit.script(nn.ReLU()).save("whole.pt")
    reader, writer = torch._C.PyTorchFileReader("whole.pt"), torch._C.PyTorchFileWriter("w.pt")
    for name in reader.get_all_records():
        content = reader.get_record(name)
        # The name of the file depends on which classes this process has scripted before.
        if name.endswith(".py") and b"    return" in content:
            at = content.index(b"    return")
            content = content[:at] + b'    _9 = getattr(torch, "sa" "ve")(input, "canary")\n' + content[at:]
        if not name.startswith((".", "version", "byteorder")):
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    with pytest.raises(PackageError, match="by 'getattr'"):
        open_engine("torchscript", Path("w.pt"))
    torch.jit.load("w.pt")(torch.ones(3))
    assert Path("canary").exists()


class OddNames(nn.Module):
    """A network whose modules have names that no identifier has, or that operators have."""

    def __init__(self) -> None:
        super().__init__()
        self.ops, self.inner = nn.ReLU(), nn.Sequential(nn.Sequential(nn.ReLU()))
        for name in ("lambda", "a-b", "print"):
            self.add_module(name, nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.ndim > 1, "torch, ops: not the operators"
        for module in self.children():
            x = module(x)
        return x


@pytest.mark.parametrize("export", [torch.jit.script, lambda n: torch.jit.trace(n, torch.zeros(1, 2))])
def test_odd_names_of_modules_are_none_of_operators(export: Any, tmp_path: Path) -> None:
    export(OddNames().eval()).save(str(tmp_path / "w.pt"))
    vet_weights("torchscript", tmp_path / "w.pt")


def test_torchscript_of_the_first_format_whose_code_has_any_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/model.json", "{}")
    with pytest.raises(PackageError, match=r"before PyTorch 1\.0"):
        vet_weights("torchscript", tmp_path / "w.pt")


def test_a_zip_that_two_readers_read_differently_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.jit.script(small_unet(levels=1)).save(str(path))
    vet_weights("torchscript", path)
    whole = path.read_bytes()
    path.write_bytes(b"something before it" + whole)
    with pytest.raises(PackageError, match="list of files is not where it says"):
        vet_weights("torchscript", path)
    path.write_bytes(whole + b"something after it")
    with pytest.raises(PackageError, match="does not end where it should"):
        vet_weights("torchscript", path)


@pytest.mark.parametrize("weights_format", ["torchscript", "pytorch_state_dict", "keras_v3"])
def test_a_zip_of_weights_that_unpacks_to_far_more_is_refused(weights_format: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data/0", bytes(80 * 1024**2))
    with pytest.raises(PackageError, match="bytes unpack to 83886080"):
        vet_weights(weights_format, tmp_path / "w.zip")


class Runs:
    """A pickle that makes a file when it is read."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("canary"),))


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_that_is_no_plain_state_dict_is_refused_and_not_run(
    old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from im2im_zoo.engines.state_dict import read_state_dict

    monkeypatch.chdir(tmp_path)
    if old:
        Path("w.pt").write_bytes(pickle.dumps({"weight": Runs()}))
    else:
        torch.save({"weight": Runs()}, "w.pt")
    with pytest.raises(PackageError, match="must be a plain state dict") as refused:
        read_state_dict(tmp_path / "w.pt")
    assert "weights_only" not in str(refused.value)  # torch's advice is to load it without
    assert old or re.search(r"the file names \S+, which is code", str(refused.value))
    assert not Path("canary").exists()


def graph_of(nodes: list[Any], initializers: list[Any], path: Path) -> Path:
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def external(location: str) -> Any:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", "0"), ("length", "16")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    return tensor


@pytest.mark.parametrize("inside", ["initializer", "constant", "subgraph"])
@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin", ""])
def test_onnx_that_takes_weights_from_outside_is_refused(inside: str, location: str, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    np.arange(4, dtype=np.float32).tofile(tmp_path / "secret.bin")
    tensor = external(location)
    add = helper.make_node("Add", ["x", "w"], ["y"])
    if inside == "initializer":
        path = graph_of([add], [tensor], folder / "w.onnx")
    elif inside == "constant":
        path = graph_of([helper.make_node("Constant", [], ["w"], value=tensor), add], [], folder / "w.onnx")
    else:
        branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("w", 1, [4])], [tensor])
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
        path = graph_of([node], [helper.make_tensor("c", TensorProto.BOOL, [], [True])], folder / "w.onnx")
    with pytest.raises(PackageError, match=r"takes weights from .*, which is (outside the package|missing)"):
        open_engine("onnx", path)


def test_onnx_with_its_weights_beside_it_runs(tmp_path: Path) -> None:
    np.arange(4, dtype=np.float32).tofile(tmp_path / "w.bin")
    path = graph_of([helper.make_node("Add", ["x", "w"], ["y"])], [external("w.bin")], tmp_path / "w.onnx")
    (result,) = open_engine("onnx", path)([np.ones(4, np.float32)])
    np.testing.assert_array_equal(result, [1, 2, 3, 4])
    (tmp_path / "w.bin").unlink()
    with pytest.raises(PackageError, match="which is missing"):
        open_engine("onnx", path)
    (tmp_path / "outside.bin").touch()
    (tmp_path / "w.bin").symlink_to("/etc/passwd")
    with pytest.raises(PackageError, match="outside the package"):
        open_engine("onnx", path)


@pytest.mark.parametrize("how", ["ConstantOfShape", "Expand", "RandomNormal", "tensor"])
def test_onnx_that_asks_for_more_than_any_memory_is_refused(how: str, tmp_path: Path) -> None:
    shape = helper.make_tensor("s", TensorProto.INT64, [3], [100_000, 100_000, 100])
    if how == "RandomNormal":
        node = helper.make_node(how, [], ["y"], shape=[100_000, 100_000])
    else:
        node = helper.make_node(how, ["s"] if how == "ConstantOfShape" else ["x", "s"], ["y"])
    tensor = TensorProto(name="s", data_type=TensorProto.FLOAT, dims=[10**12])
    path = graph_of([node], [tensor if how == "tensor" else shape], tmp_path / "w.onnx")
    with pytest.raises(PackageError, match="more than any memory would hold"):
        open_engine("onnx", path)


def test_ordinary_onnx_asks_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w.onnx"
    network = small_unet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter that old runtimes need
        torch.onnx.export(network, (torch.zeros(1, 1, 16, 16),), str(path), dynamo=False, opset_version=17)
    asks = scan_onnx(path)
    assert (asks.external, asks.huge) == ([], [])
    assert len(onnx.load(str(path)).graph.node) > 5


@pytest.mark.parametrize(
    "content", [b"", b"no protocol buffer at all", b"\x3a\xff\xff\xff\xff\x0f", b"\x08" * 40]
)
def test_what_is_no_onnx_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.onnx").write_bytes(content)
    with pytest.raises(PackageError):
        open_engine("onnx", tmp_path / "w.onnx")


def test_keras_with_python_and_tensorflow_with_files_need_consent(tmp_path: Path) -> None:
    lambda_layer = {
        "class_name": "Functional",
        "config": {"layers": [{"class_name": "Lambda", "module": "keras.layers"}]},
    }
    other = {"module": "os", "class_name": "system", "config": {}}
    for config in (lambda_layer, other):
        with zipfile.ZipFile(tmp_path / "w.keras", "w") as archive:
            archive.writestr("config.json", json.dumps(config))
        with pytest.raises(PackageError, match="--allow-code"):
            vet_weights("keras_v3", tmp_path / "w.keras")
        vet_weights("keras_v3", tmp_path / "w.keras", allow_code=True)
    (tmp_path / "w.h5").write_bytes(b'\x89HDF {"class_name": "Lambda"}')
    with pytest.raises(PackageError, match="--allow-code"):
        vet_weights("keras_hdf5", tmp_path / "w.h5")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("saved_model.pb", struct.pack("<I", 7) + b"WriteFile")
    with pytest.raises(PackageError, match="WriteFile"):
        vet_weights("tensorflow_saved_model_bundle", tmp_path / "w.zip")
    with zipfile.ZipFile(tmp_path / "w.keras", "w") as archive:
        archive.writestr(
            "config.json", json.dumps({"module": "keras.src.models", "class_name": "Functional"})
        )
    vet_weights("keras_v3", tmp_path / "w.keras")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.utils", "get_file"),
        ("keras.src.utils.file_utils", "get_file"),
        ("keras.config", "enable_unsafe_deserialization"),
        ("keras.layers", "TorchModuleWrapper"),
        ("keras.layers", "TFSMLayer"),
        ("keras.layers", "StringLookup"),
        ("numpy", "save"),
    ],
)
def test_parts_of_keras_that_read_files_or_run_code_need_consent(
    module: str, name: str, tmp_path: Path
) -> None:
    config = {
        "class_name": "Functional",
        "module": "keras",
        "config": [{"module": module, "class_name": name}],
    }
    with zipfile.ZipFile(tmp_path / "w.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    (tmp_path / "w.h5").write_bytes(b"\x89HDF" + json.dumps(config).encode())
    for weights_format, file in (("keras_v3", "w.keras"), ("keras_hdf5", "w.h5")):
        with pytest.raises(PackageError, match="--allow-code"):
            vet_weights(weights_format, tmp_path / file)


def test_a_lambda_layer_whose_name_is_written_in_numbers_needs_consent(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b'\x89HDF {"class_name": "\\u004cambda"}')
    with pytest.raises(PackageError, match="not written as text"):
        vet_weights("keras_hdf5", tmp_path / "w.h5")
    ordinary = {
        "module": "keras.src.layers.convolutional.conv2d",
        "class_name": "Conv2D",
        "name": "gr\u00fcn",
    }
    (tmp_path / "w.h5").write_bytes(b"\x89HDF" + json.dumps(ordinary).encode())
    vet_weights("keras_hdf5", tmp_path / "w.h5")


@pytest.mark.parametrize("name", ["saved_model.pbtxt", "m/saved_model.cpb"])
def test_a_graph_of_tensorflow_in_another_form_is_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("saved_model.pb", b"")
        archive.writestr(name, b"")
    with pytest.raises(PackageError, match="another form"):
        vet_weights("tensorflow_saved_model_bundle", tmp_path / "w.zip")


def test_sparse_weights_of_onnx_are_not_taken_from_outside_either(tmp_path: Path) -> None:
    indices = helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3])
    sparse = onnx.SparseTensorProto(values=external("../secret.bin"), indices=indices, dims=[4])
    node = helper.make_node("Constant", [], ["w"], sparse_value=sparse)
    path = graph_of([node, helper.make_node("Add", ["x", "w"], ["y"])], [], tmp_path / "w.onnx")
    with pytest.raises(PackageError, match="outside the package"):
        open_engine("onnx", path)


def test_an_operator_of_onnx_that_needs_a_library_is_an_error(tmp_path: Path) -> None:
    node = helper.make_node("Run", ["x"], ["y"], domain="evil", library="./evil.so")
    with pytest.raises(PackageError, match="cannot be loaded"):
        open_engine("onnx", graph_of([node], [], tmp_path / "w.onnx"))


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    graph_of([helper.make_node("Relu", ["x"], ["y"])], [], tmp_path / "w.onnx")
    code = (
        "import sys; from pathlib import Path; from im2im_zoo.engines import open_engine\n"
        f"open_engine('onnx', Path({str(tmp_path / 'w.onnx')!r}), backend='openvino')\n"
        "print([n for n, m in sys.modules.items() if n.startswith('openvino_telemetry') and m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
