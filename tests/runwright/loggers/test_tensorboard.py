"""What TensorBoard shows of a run beside its curves, read back from the event files."""

from collections.abc import Callable
from pathlib import Path

from conftest import Result
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from runwright.rundir.read import read_provenance

SMALL = ["trainer.max_epochs=2", "trainer.limit_train_batches=5", "model.hidden=[16]"]


def events(run_dir: Path) -> EventAccumulator:
    return EventAccumulator(str(run_dir), size_guidance={"tensors": 0, "histograms": 0}).Reload()


def texts(run_dir: Path) -> list[str]:
    return [event.tensor_proto.string_val[0].decode() for event in events(run_dir).Tensors("run/text_summary")]


def charts(run_dir: Path) -> list[dict[str, list[str]]]:
    """The charts of each layout that was written."""
    layouts = []
    for event in events(run_dir).Tensors("custom_scalars__config__"):
        layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
        layouts.append({chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart})
    return layouts


def test_losses_of_training_and_validation_are_in_one_chart(cli: Callable[..., Result]) -> None:
    assert charts(cli(*SMALL).run_dir) == [
        {
            "loss": ["^train_loss$", "^val_loss$"],
            "acc": ["^val_acc$"],
            "learning rate": ["^lr/"],
            "norms of the weights": ["^norm/"],
        }
    ]


def test_the_card_says_the_command_and_what_differs_from_the_defaults(cli: Callable[..., Result]) -> None:
    result = cli(*SMALL, "optimizer=adam", "optimizer.lr=0.01")
    (card,) = texts(result.run_dir)
    command = "    python scripts/train.py trainer.max_epochs=2 trainer.limit_train_batches=5"
    assert card.startswith(f"{command} 'model.hidden=[16]' optimizer=adam optimizer.lr=0.01\n")
    assert "| optimizer | sgd_momentum | adam |" in card
    assert "| optimizer.lr | 0.001 | 0.01 |" in card
    if (git := read_provenance(result.run_dir)[-1]["git"]) is not None:
        assert git["commit"] in card


def test_nothing_is_there_twice_after_a_resume(cli: Callable[..., Result]) -> None:
    run_dir = cli(*SMALL, "callbacks=[default,histograms]").run_dir
    assert cli(f"resume={run_dir}", "trainer.max_epochs=3").status == 0
    assert (len(charts(run_dir)), len(texts(run_dir))) == (1, 1)
    assert [event.step for event in events(run_dir).Histograms("weights/output.weight")] == [4, 9, 14]


def test_the_hparams_of_a_sweep_are_those_that_it_varies(cli: Callable[..., Result]) -> None:
    result = cli("-m", *SMALL, "optimizer=sgd,adam", "optimizer.lr=0.01,0.1")
    assert len(result.run_dirs) == 4
    for run_dir, optimizer in zip(result.run_dirs, ["sgd", "sgd", "adam", "adam"], strict=True):
        content = events(run_dir).PluginTagToContent("hparams")
        experiment = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
        start = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info
        assert [info.name for info in experiment.hparam_infos] == ["optimizer", "optimizer.lr"]
        assert experiment.metric_infos[0].name.tag == "val_loss"  # which colours the plots
        assert start.hparams["optimizer"].string_value == optimizer
        assert start.hparams["model.hidden"].string_value == "[16]"


def test_the_graph_is_there_where_it_is_asked_for(cli: Callable[..., Result]) -> None:
    assert not events(cli(*SMALL).run_dir).Tags()["graph"]
    asked = cli(*SMALL, "logger.tensorboard.log_graph=true")
    assert (asked.status, asked.err) == (0, "")
    nodes = {node.op for node in events(asked.run_dir).Graph().node}
    assert "aten::linear" in nodes
