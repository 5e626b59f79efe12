from collections.abc import Callable
from math import isfinite

import torch
from conftest import Result
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SMALL = ["trainer.max_epochs=2", "trainer.limit_train_batches=5", "model.hidden=[16]", "callbacks=[default,histograms]"]


def test_each_parameter_has_one_of_its_weights_and_of_its_gradient_per_epoch(cli: Callable[..., Result]) -> None:
    events = EventAccumulator(str(cli(*SMALL).run_dir), size_guidance={"histograms": 0}).Reload()
    names = ["hidden_0.weight", "hidden_0.bias", "output.weight", "output.bias"]
    tags = {f"{kind}/{name}" for kind in ("weights", "gradients") for name in names}
    assert set(events.Tags()["histograms"]) == tags
    for tag in tags:
        assert [event.step for event in events.Histograms(tag)] == [4, 9]
    counts = {tag: events.Histograms(tag)[0].histogram_value.num for tag in tags}
    assert counts["weights/hidden_0.weight"] == counts["gradients/hidden_0.weight"] == 64 * 16


def test_weights_that_are_not_finite_are_left_out(cli: Callable[..., Result]) -> None:
    run_dir = cli(*SMALL, "on_nonfinite=ignore", "optimizer.lr=1e18").run_dir
    weight = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]["model.output.weight"]
    events = EventAccumulator(str(run_dir), size_guidance={"histograms": 0}).Reload()
    histograms = [event.histogram_value for tag in events.Tags()["histograms"] for event in events.Histograms(tag)]
    assert not weight.isfinite().all()
    assert all(isfinite(number) for each in histograms for number in (each.num, each.min, each.max, each.sum))
