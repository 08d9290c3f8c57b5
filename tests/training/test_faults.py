"""What goes wrong in the middle of a run: said in one plain sentence, with the last good checkpoint kept."""

import json
import multiprocessing
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.tiny_training import RECIPE, demo_model, losses, run

from mmeb.data.train.dataset import open_train
from mmeb.errors import MmebError
from mmeb.runtime.signals import StoppedError
from mmeb.training import checkpoint
from mmeb.training.loop import train
from mmeb.training.recipe import RunSettings

TEN = replace(RECIPE, steps=10)


def after(step: int, action: Callable[[], object]) -> dict[str, Any]:
    """The settings of a run in which something happens once `step` is done."""

    def evaluate(reached: int) -> Mapping[str, float]:
        if reached == step:
            action()
        return {}

    return {"evaluate": evaluate, "eval_every": 1}


def request_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def last_checkpoint(output: Path) -> str:
    return checkpoint.checkpoints(output)[-1].name


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: the system then refuses to write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_request_to_stop_lets_the_step_end_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match=r"Stopped at step 5 of 10.*--resume goes on from .*checkpoint-5") as stopped:
        run(tmp_path / "broken", TEN, **after(4, request_stop))
    assert stopped.value.exit_code == 143
    assert last_checkpoint(tmp_path / "broken") == "checkpoint-5"
    assert run(tmp_path / "broken", TEN, resume=True).resumed == 5
    run(tmp_path / "full", TEN)
    assert losses(tmp_path / "broken") == losses(tmp_path / "full")


def test_a_request_to_the_whole_group_leaves_the_workers_to_their_parent(tmp_path: Path) -> None:
    def request_all() -> None:
        workers = [str(child.pid) for child in multiprocessing.active_children()]
        subprocess.run(["kill", "-TERM", *workers], check=True)
        request_stop()

    with pytest.raises(StoppedError, match="Stopped at step 4"):
        run(tmp_path, TEN, workers=2, **after(3, request_all))
    assert not multiprocessing.active_children()


def test_a_loss_that_is_no_longer_finite_stops_the_run_before_the_weights_take_harm(tmp_path: Path) -> None:
    model = demo_model()

    def spoil() -> None:
        with torch.no_grad():
            next(model.module.parameters()).fill_(float("nan"))

    message = (
        r"The loss of step 6 is no longer finite, in a batch of 4 rows .* (WebQA|VOC2007), row \d+; .*checkpoint-4"
    )
    with pytest.raises(MmebError, match=message):
        run(tmp_path, TEN, model, save_every=2, keep=9, **after(5, spoil))
    assert last_checkpoint(tmp_path) == "checkpoint-4"
    assert not model.module.training


def test_a_gradient_that_is_no_longer_finite_stops_the_run(tmp_path: Path) -> None:
    model = demo_model()
    weight = next(model.module.parameters())

    def spoil() -> None:
        weight.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[no-untyped-call]

    with pytest.raises(MmebError, match=r"The gradient of step 3 is no longer finite.*there is no checkpoint yet"):
        run(tmp_path, model=model, **after(2, spoil))
    assert weight.isfinite().all()


def test_no_space_at_a_checkpoint_keeps_the_one_before(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    full = after(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard)))
    message = r"checkpoint-4 can't be written: .*(the file would be larger|File too large)"
    with files_limited_to(hard), pytest.raises(MmebError, match=message):
        run(tmp_path, save_every=2, **full)
    assert last_checkpoint(tmp_path) == "checkpoint-2"
    assert not list(tmp_path.glob(".*"))
    assert run(tmp_path, save_every=2, resume=True).resumed == 2


def test_no_space_at_the_end_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    model = demo_model()

    def save(folder: Path, state: object = None) -> None:
        if folder.parent == tmp_path and "checkpoint" not in folder.name:
            with files_limited_to(10_000):
                model.save(folder)
        model.save(folder)

    subsets = open_train("demo", ("WebQA",), limit=16)
    settings = RunSettings(tmp_path, save_every=4, workers=0, progress=False)
    with pytest.raises(MmebError, match="can't be written"):
        train(model, subsets, RECIPE, settings, save)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-4", "log.jsonl", "training.json"}


def test_a_worker_that_is_killed_is_said_plainly(tmp_path: Path) -> None:
    def kill_one() -> None:
        worker = multiprocessing.active_children()[0]
        worker.kill()
        os.waitid(os.P_PID, worker.pid or 0, os.WEXITED | os.WNOWAIT)  # dead, and left for the library to find

    with pytest.raises(MmebError, match=r"was killed.* fewer --workers take less\. The last checkpoint is kept"):
        run(tmp_path, TEN, workers=2, save_every=2, **after(3, kill_one))
    # The step that its siblings had ready may still be taken.
    assert last_checkpoint(tmp_path) in ("checkpoint-2", "checkpoint-4")


def own_data(folder: Path, broken: int) -> Path:
    """Eight rows of a user's own, each with an image; that of row `broken` is none."""
    rows = []
    for number in range(8):
        name = f"{number}.png"
        if number == broken:
            (folder / name).write_bytes(b"no image")
        else:
            Image.new("RGB", (8, 8), (30 * number, 0, 0)).save(folder / name)
        rows.append({"qry": f"<|image_1|>\nfind {number}", "qry_image_path": name, "pos_text": f"number {number}"})
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "mine.jsonl"


def train_on(data: Path, output: Path, **settings: Any) -> Any:
    model = demo_model()
    run_settings = RunSettings(output, log_every=1, workers=0, save_every=None, progress=False, **settings)
    return train(model, open_train(data), replace(RECIPE, batch_size=8), run_settings, model.save)


@pytest.mark.parametrize("trouble", ["broken", "missing"])
def test_an_image_that_cannot_be_read_is_named_by_subset_row_and_file(trouble: str, tmp_path: Path) -> None:
    data = own_data(tmp_path, broken=5)
    if trouble == "missing":
        (tmp_path / "5.png").unlink()
    with pytest.raises(MmebError, match=r"mine, row 5: .*5\.png.*--skip-bad-rows"):
        train_on(data, tmp_path / "run")


@pytest.mark.parametrize("trouble", ["broken", "missing"])
def test_rows_with_such_an_image_are_left_out_counted_and_named_once_on_request(
    trouble: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = own_data(tmp_path, broken=5)
    if trouble == "missing":
        (tmp_path / "5.png").unlink()
    outcome = train_on(data, tmp_path / "run", skip_bad_rows=True)
    assert outcome.skipped_rows == 4  # one in each step
    assert all(line["skipped_rows"] == 1 for line in outcome.log)
    assert capfd.readouterr().err.count("Skipped: mine, row 5: ") == 1
