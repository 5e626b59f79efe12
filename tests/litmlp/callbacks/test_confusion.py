import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Result
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from litmlp.callbacks.confusion import Confusion
from litmlp.data.digits import Digits

SMALL = ["trainer.max_epochs=1", "trainer.limit_train_batches=20", "data.eval_batch_size=50"]


def results(run_dir: Path) -> dict:
    return json.loads((run_dir / "test_results.json").read_text())


def test_the_counts_are_of_the_whole_test_set_and_give_its_accuracy(cli: Callable[..., Result]) -> None:
    result = cli(*SMALL)
    confusion = torch.tensor(results(result.run_dir)["confusion"])
    data = Digits()
    data.setup()
    assert torch.equal(confusion.sum(1), torch.bincount(data.test.y))
    assert float(confusion.trace() / confusion.sum()) == pytest.approx(result.metrics["test"]["test_acc"])


def test_mistakes_are_the_most_confident_wrong_ones_as_the_model_was_given_them(cli: Callable[..., Result]) -> None:
    found = results(cli(*SMALL, "callbacks.confusion.num_mistakes=7").run_dir)["mistakes"]
    data = Digits()
    data.setup()
    assert len(found) == 7
    probabilities = [each["probability"] for each in found]
    assert probabilities == sorted(probabilities, reverse=True)
    for each in found:
        assert each["predicted"] != each["target"] == int(data.test.y[each["index"]])
        image = data.transform(data.test.x[each["index"]]).flatten().tolist()
        assert each["sample_shape"] == [8, 8]
        assert each["sample"] == pytest.approx(image, abs=1e-3)


def test_all_mistakes_are_there_where_they_are_few(cli: Callable[..., Result]) -> None:
    found = results(cli(*SMALL, "callbacks.confusion.num_mistakes=1000").run_dir)
    confusion = torch.tensor(found["confusion"])
    pairs = torch.tensor([(each["target"], each["predicted"]) for each in found["mistakes"]])
    counts = torch.zeros_like(confusion).index_put_(tuple(pairs.T), torch.tensor(1), accumulate=True)
    assert torch.equal(counts, confusion - confusion.diag().diag())


def test_classes_have_the_names_that_the_data_give_them(cli: Callable[..., Result], mnist_files: Path) -> None:
    plain = ["callbacks=no_validation", "monitor=train_loss", "trainer.max_epochs=1"]
    assert results(cli("data=iris", *plain).run_dir)["class_names"] == ["setosa", "versicolor", "virginica"]
    assert results(cli("data=mnist", *SMALL).run_dir)["class_names"] == [*"0123456789"]
    assert results(cli("data=fashion_mnist", *SMALL).run_dir)["class_names"][9] == "ankle boot"


def pictures(run_dir: Path) -> dict[str, list[int]]:
    events = EventAccumulator(str(run_dir)).Reload()
    return {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}


def test_tensorboard_has_a_picture_of_each_and_of_images_alone(cli: Callable[..., Result]) -> None:
    assert pictures(cli(*SMALL).run_dir) == {"test/confusion": [20], "test/mistakes": [20]}
    iris = cli("data=iris", "callbacks=no_validation", "monitor=train_loss", "trainer.max_epochs=1")
    assert pictures(iris.run_dir).keys() == {"test/confusion"}


def test_a_run_that_is_made_longer_has_the_pictures_of_its_last_test_alone(cli: Callable[..., Result]) -> None:
    run_dir = cli(*SMALL).run_dir
    before = results(run_dir)
    assert cli(f"resume={run_dir}", "trainer.max_epochs=2").status == 0
    assert pictures(run_dir) == {"test/confusion": [40], "test/mistakes": [40]}
    assert results(run_dir) != before


def test_a_regression_leaves_nothing(cli: Callable[..., Result]) -> None:
    plain = ["callbacks=no_validation", "monitor=train_loss", "trainer.max_epochs=1"]
    run_dir = cli("data=linear", "task=regression", *plain).run_dir
    assert not (run_dir / "test_results.json").exists()


def test_weights_that_are_not_finite_leave_a_readable_file(cli: Callable[..., Result]) -> None:
    run_dir = cli(*SMALL, "on_nonfinite=ignore", "optimizer.lr=1e18").run_dir
    assert sum(map(sum, results(run_dir)["confusion"])) == 359


def test_a_bad_count_is_named() -> None:
    with pytest.raises(ValueError, match=r"^num_mistakes must be"):
        Confusion(-1)
