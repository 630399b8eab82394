"""Predictions into one output, started, killed, resumed and replaced in any order: never another result, never a dead end.

Every command is a process of its own, and a kill is a real one (see `crash_sweep`). A command that is refused names the option
that helps; with it, it ends right.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from commands import in_a_process


def run_machine(arguments: list[str]) -> None:
    """Run the state machine; it forks, and so runs in a process without threads."""
    from crash_sweep import run_once, state_of_image
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
    from sweep_variants import Assets, im2im_zoo_command

    from im2im_zoo.runtime.execute.run_lock import hold_output

    folder = Path(tempfile.mkdtemp())
    assets = Assets(folder)
    halos = {"narrow": 4, "wide": 8}

    def predict(place: Path, name: str, *options: str) -> None:
        im2im_zoo_command(
            "predict", assets.plain, assets.image, place / "out.ome.zarr", "--tile", "40", "--halo", halos[name],
            "--threads", "1", *options,
        )  # fmt: skip

    expected = {}
    for name in halos:
        place = folder / name
        place.mkdir()
        assert run_once(lambda place=place, name=name: predict(place, name), place).code == 0
        expected[name] = state_of_image(place / "out.ome.zarr")
    assert expected["narrow"] != expected["wide"]

    class Predictions(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.place = Path(tempfile.mkdtemp(dir=folder)) / "place"
            self.place.mkdir()
            self.output = self.place / "out.ome.zarr"
            self.work = self.place / "out.ome.zarr.incomplete"

        def start(self, name: str, *options: str, at: int = 0) -> tuple[int, str]:
            ended = run_once(lambda: predict(self.place, name, *options), self.place, at=at)
            assert "unexpected error" not in ended.text, ended.text
            return ended.code, ended.text

        @rule(
            name=st.sampled_from(sorted(halos)),
            options=st.sampled_from([(), ("--overwrite",), ("--restart",), ("--overwrite", "--restart")]),
            at=st.integers(1, 70),
        )
        def kill(self, name: str, options: tuple[str, ...], at: int) -> None:
            self.start(name, *options, at=at)

        @rule(name=st.sampled_from(sorted(halos)), options=st.sampled_from([(), ("--overwrite",)]))
        def finish(self, name: str, options: tuple[str, ...]) -> None:
            for _ in range(3):
                code, text = self.start(name, *options)
                if code == 0:
                    break
                helps = [o for o in ("--restart", "--overwrite") if o in text and o not in options]
                assert helps, text
                options = (*options, helps[0])
            assert code == 0, text
            assert state_of_image(self.output) == expected[name]
            # Partial results of the other command are kept for it.
            left = {p.name for p in self.place.iterdir()} - {self.output.name, self.work.name}
            assert not left

        @rule(
            name=st.sampled_from(sorted(halos)), options=st.sampled_from([(), ("--overwrite", "--restart")])
        )
        def second_start(self, name: str, options: tuple[str, ...]) -> None:
            before = state_of_image(self.output) if self.output.exists() else None
            with hold_output(self.work):
                code, text = self.start(name, *options)
            assert code == 1
            assert "another run" in text
            assert (state_of_image(self.output) if self.output.exists() else None) == before

        @rule(what=st.sampled_from(["output", "work", "partial", "chunk"]))
        def remove(self, what: str) -> None:
            path = {"output": self.output, "work": self.work}.get(what, self.work / self.output.name)
            if what == "chunk":
                chunk = path / "0" / "c" / "0" / "0"
                if chunk.is_file():
                    chunk.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)

        @invariant()
        def output_is_whole(self) -> None:
            assert not self.output.exists() or state_of_image(self.output) in expected.values()

        def teardown(self) -> None:
            shutil.rmtree(self.place.parent)

    examples, steps = map(int, arguments)
    few = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate],
    )  # fmt: skip
    run_state_machine_as_test(Predictions, settings=few)
    shutil.rmtree(folder)
    sys.stdout.write("done")


def test_predictions_into_one_output_end_right_in_any_order() -> None:
    done = in_a_process(run_machine, ["5", "6"])
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.endswith("done")
