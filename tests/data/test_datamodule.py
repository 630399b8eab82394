import copy
import gc
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper

from im2im_zoo.core.errors import ComponentError, DataError
from im2im_zoo.data.cache.stored import RegionReader
from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.data.patches.dataset import EpochSampler
from im2im_zoo.data.patches.placement import sample_patch
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import Component

Make = Callable[..., Recipe]
Write = Callable[..., Path]
Batches = list[dict[str, torch.Tensor]]

OF_IMAGE = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"]}}]
FLIP = Component(callable="monai.transforms.RandFlipd", kwargs={"prob": 0.5, "spatial_axis": 1})
pytestmark = [
    # Said of every loader by Lightning, which does not know that a patch takes 0.1 ms.
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    # Lightning 2.6 with torch 2.13.
    pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\)"),
]


@pytest.fixture
def folder(tmp_path: Path, write_pairs: Write) -> Path:
    return write_pairs(tmp_path / "set", "abcde")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


@pytest.fixture
def data_of(recipe_for: Make, tmp_path: Path) -> Iterator[Callable[..., ImagePairs]]:
    """Data modules that are set up, with a cache."""

    def build(path: Path, **options: Any) -> ImagePairs:
        options.setdefault("patches_per_image", 3)
        options.setdefault("batch_size", 4)
        data = ImagePairs(recipe_for(path, **options), cache=tmp_path / "cache")
        data.setup()
        return data

    yield build
    gc.collect()  # ends worker processes


def epochs(data: ImagePairs, count: int) -> list[Batches]:
    loader = data.train_dataloader()
    found = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        found.append(list(loader))
    return found


def joined(batches: Batches) -> torch.Tensor:
    return torch.cat([torch.stack([b["input"], b["target"]]) for b in batches], dim=1)


def test_batches_have_the_shape_of_the_network(folder: Path, data_of: Callable[..., ImagePairs]) -> None:
    data = data_of(folder)
    [batches] = epochs(data, 1)
    assert [len(b["input"]) for b in batches] == [4, 4, 4]
    for batch in (*batches, *data.val_dataloader()):
        assert set(batch) == {"input", "target"}
        for tensor in batch.values():
            assert tensor.shape[1:] == (1, 32, 48)
            assert tensor.dtype == torch.float32


def test_volumes_give_batches_of_volumes(
    tmp_path: Path,
    nuclei_3d: tuple[np.ndarray, np.ndarray],
    write_ome_zarr: Write,
    data_of: Callable[..., ImagePairs],
) -> None:
    for name in "ab":
        write_ome_zarr(tmp_path / "set" / f"{name}.zarr", np.stack(nuclei_3d), "czyx")
    options = {"axes": "zyx", "pairing": "channels", "input_channels": [0], "target_channels": [1]}
    data = data_of(tmp_path / "set", **options)
    [[batch]] = epochs(data, 1)
    assert batch["input"].shape == (3, 1, 8, 16, 24)
    covered = sum(len(b["input"]) for b in data.val_dataloader())
    assert covered == 4 * 4 * 3  # 31, 61, 57 voxels in patches of 8, 16, 24


def test_patches_are_cut_from_images_normalised_as_a_whole(
    folder: Path, data_of: Callable[..., ImagePairs], tiles: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    data = data_of(folder, preprocessing=OF_IMAGE)
    dataset = data.train_dataloader().dataset
    own_means = []
    for index in range(len(dataset)):
        name = data.pairs.train[index // 3].name
        image = tiles["abcde".index(name)][0].astype(np.float64)
        normalised = (image - image.mean()) / (image.std() + 1e-6)
        y, x = sample_patch((96, 112), (32, 48), 0, 5, index).corner
        patch = dataset[5, index]["input"][0].numpy()
        np.testing.assert_allclose(patch, normalised[y : y + 32, x : x + 48], atol=1e-5)
        own_means.append(abs(patch.mean()))
    assert max(own_means) > 0.1  # which a patch normalised by itself would not have


def test_input_and_target_are_cut_and_moved_alike(folder: Path, data_of: Callable[..., ImagePairs]) -> None:
    for file in (folder / "images").iterdir():
        shutil.copy(file, folder / "targets")
    data = data_of(folder, augmentations=[FLIP.model_dump()])
    for batch in epochs(data, 1)[0]:
        assert torch.equal(batch["input"], batch["target"])
        assert batch["input"].std() > 0


def test_patches_do_not_depend_on_workers(folder: Path, data_of: Callable[..., ImagePairs]) -> None:
    options = {"augmentations": [FLIP.model_dump()], "preprocessing": OF_IMAGE}
    alone = epochs(data_of(folder, **options), 2)
    several = epochs(data_of(folder, **options, workers=2), 2)
    for ours, theirs in zip(alone, several, strict=True):
        assert torch.equal(joined(ours), joined(theirs))
    assert not torch.equal(joined(alone[0]), joined(alone[1]))


def test_patches_follow_the_seed(folder: Path, data_of: Callable[..., ImagePairs]) -> None:
    rows = [f"images/{n}.tif,targets/{n}.tif,{'val' if n == 'a' else 'train'}" for n in "abcde"]
    (folder / "pairs.csv").write_text("\n".join(["input,target,split", *rows]))
    fields = {"pairing": "csv", "split": "column"}
    one, same, other = (data_of(folder / "pairs.csv", seed=seed, **fields) for seed in (0, 0, 1))
    first, again, different = (joined(epochs(d, 1)[0]) for d in (one, same, other))
    assert torch.equal(first, again)
    assert not torch.equal(first, different)


def test_validation_covers_each_image_in_the_same_order(
    folder: Path, data_of: Callable[..., ImagePairs], tiles: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    data = data_of(folder)
    loader = data.val_dataloader()
    first, second = joined(list(loader)), joined(list(loader))
    assert torch.equal(first, second)
    image = tiles["abcde".index(data.pairs.validation[0].name)][0].astype(np.float32)
    assert first.shape[1] == 3 * 3
    np.testing.assert_array_equal(first[0, 0, 0], image[:32, :48])
    np.testing.assert_array_equal(first[0, -1, 0], image[-32:, -48:])


class Recorder(pl.LightningModule):
    """Trains one number, and records the sums of the patches of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen: list[tuple[int, tuple[float, ...]]] = []

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, tuple(batch["input"].sum((1, 2, 3)).tolist())))
        return (batch["input"] * self.scale).mean()

    def validation_step(self, batch: dict[str, torch.Tensor], _: int) -> None:
        self.log("val_loss", batch["target"].mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(data: ImagePairs, folder: Path, max_epochs: int, ckpt_path: Path | None = None) -> Recorder:
    module = Recorder()
    trainer = pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    trainer.save_checkpoint(folder / f"{max_epochs}.ckpt")
    return module


def test_a_resumed_training_sees_the_same_patches(
    folder: Path, tmp_path: Path, data_of: Callable[..., ImagePairs]
) -> None:
    options = {"augmentations": [FLIP.model_dump()]}
    unbroken = fit(data_of(folder, **options), tmp_path, 4).seen
    before = fit(data_of(folder, **options), tmp_path, 2).seen
    after = fit(data_of(folder, **options), tmp_path, 4, tmp_path / "2.ckpt").seen
    assert [*before, *after] == unbroken
    assert len({sums for _, sums in unbroken}) == 4 * 3


def test_several_devices_share_the_patches_of_an_epoch() -> None:
    samplers = []
    for rank in range(2):
        sampler = DistributedSamplerWrapper(
            EpochSampler(10, seed=0), num_replicas=2, rank=rank, shuffle=False
        )
        sampler.set_epoch(3)
        samplers.append(list(sampler))
    expected = EpochSampler(10, seed=0)
    expected.set_epoch(3)
    assert sorted([*samplers[0], *samplers[1]]) == sorted(expected)
    assert {epoch for epoch, _ in samplers[0]} == {3}
    assert not set(samplers[0]) & set(samplers[1])


def test_a_pickled_data_module_and_dataset_carry_no_voxels(
    folder: Path, data_of: Callable[..., ImagePairs]
) -> None:
    data = data_of(folder)
    dataset = data.train_dataloader().dataset
    first = dataset[0, 0]
    stored = pickle.dumps(dataset)
    assert len(stored) < 10_000
    assert torch.equal(pickle.loads(stored)[0, 0]["input"], first["input"])
    with pytest.raises(IndexError):
        dataset[0, len(dataset)]


def test_the_temporary_folder_is_removed(folder: Path, temporary: Path, recipe_for: Make) -> None:
    data = ImagePairs(recipe_for(folder))
    data.prepare_data()
    assert list(temporary.iterdir()) == []
    data.setup()
    data.setup("fit")
    assert len(list(temporary.iterdir())) == 1
    twin = copy.deepcopy(data)
    del twin
    gc.collect()
    assert len(list(temporary.iterdir())) == 1
    data.teardown("fit")
    data.teardown("fit")
    assert list(temporary.iterdir()) == []
    with pytest.raises(DataError, match=r"call setup\(\)"):
        data.train_dataloader()
    data.setup()
    assert len(list(data.val_dataloader())) == 2
    del data
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_cache_is_kept_and_filled_once(folder: Path, tmp_path: Path, recipe_for: Make) -> None:
    calls: list[tuple[int, int, str]] = []
    cache = tmp_path / "cache"
    data = ImagePairs(recipe_for(folder), cache=cache, progress=lambda *now: calls.append(now))
    data.prepare_data()
    data.setup("fit")
    data.teardown("fit")
    assert len(calls) == 5
    assert len(list(cache.glob("*.npy"))) == 10


def test_more_images_than_may_be_open_at_once_are_served(
    folder: Path, data_of: Callable[..., ImagePairs]
) -> None:
    data = data_of(folder)
    expected = joined(epochs(data, 1)[0])
    loader = data.train_dataloader()
    loader.dataset._reader = pickle.loads(pickle.dumps(RegionReader(open_maps=2)))
    assert torch.equal(joined(list(loader)), expected)
    assert len(loader.dataset._reader._maps) == 2


def test_wrong_augmentations_are_refused_before_the_images_are_prepared(
    folder: Path, tmp_path: Path, recipe_for: Make
) -> None:
    wrong = {"callable": "monai.transforms.RandFlip"}
    data = ImagePairs(recipe_for(folder, augmentations=[wrong]), cache=tmp_path / "cache")
    with pytest.raises(ComponentError, match=r"data\.augmentations\.0"):
        data.setup()
    assert not (tmp_path / "cache").exists()


def test_importing_the_data_loads_neither_torch_nor_lightning_nor_monai() -> None:
    code = "import sys, im2im_zoo.data as d; d.find_pairs; print({'torch', 'monai', 'pytorch_lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
