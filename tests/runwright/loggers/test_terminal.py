"""What a run says of itself, on a terminal and elsewhere."""

import json
import re
from collections.abc import Callable

import pytest
from conftest import Result

SMALL = ["trainer.max_epochs=1", "trainer.limit_train_batches=5"]
ESCAPE = "\x1b"


def test_what_differs_from_the_defaults_is_said_first(cli: Callable[..., Result]) -> None:
    said = cli("experiment=weight_decay", *SMALL, "trainer.log_every_n_steps=1").out
    head = said[: said.index("group ")].splitlines()
    assert head[0] == "differs from the defaults:"
    assert set(head[1:]) >= {
        *("  experiment: null -> weight_decay", "  data: digits -> linear", "  task: classification -> regression"),
        *("  model.hidden: [200,200] -> []", "  trainer.max_epochs: 20 -> 1", "  callbacks: default -> no_validation"),
    }
    assert not any("name:" in line or "seed" in line for line in head)


def test_a_default_that_follows_another_value_does_not_differ(cli: Callable[..., Result]) -> None:
    differences = cli(*SMALL, "seed=3", "monitor=val_acc", "mode=max").metrics["differences"]
    assert differences.keys() == {"seed", "monitor", "trainer.max_epochs", "trainer.limit_train_batches"}


def test_callbacks_that_are_added_or_left_out_differ(cli: Callable[..., Result]) -> None:
    added = cli(*SMALL, "callbacks=[default,max_norm]", "~callbacks.speed", "~logger").metrics["differences"]
    assert added["callbacks.max_norm"] == ["-", "MaxNorm"]
    assert added["callbacks.speed"] == ["Speed", "-"]
    assert added["logger"][1] == "-"


@pytest.mark.parametrize(("choice", "said"), [("none", ""), ("full", "optimizer:\n  _target_: torch.optim.SGD\n")])
def test_the_configuration_is_said_in_full_or_not_at_all(cli: Callable[..., Result], choice: str, said: str) -> None:
    out = cli(*SMALL, f"print_config={choice}").out
    assert said in out
    assert "differs" not in out


def test_a_sweep_does_not_say_it_of_each_job_and_a_resumed_run_not_again(cli: Callable[..., Result]) -> None:
    assert "differs" not in cli("-m", *SMALL, "seed=1,2").out
    run_dir = cli(*SMALL).run_dir
    assert "differs" not in cli(f"resume={run_dir}", "trainer.max_epochs=2").out


def test_another_choice_is_refused(cli: Callable[..., Result]) -> None:
    result = cli("print_config=all")
    assert (result.status, result.err) == (2, "print_config=all: must be changes, full or none\n")


def test_a_run_that_repeats_another_or_goes_on_differs_from_the_defaults_as_that_one_did(
    cli: Callable[..., Result],
) -> None:
    first = cli(*SMALL, "optimizer.lr=0.03", "scheduler=step")
    known = first.metrics["differences"]
    repeated = cli(f"from={first.run_dir}", "seed=4").metrics["differences"]
    assert repeated["optimizer.lr"] == known["optimizer.lr"] == ["0.05", "0.03"]
    assert repeated["scheduler.factory._target_"][1].endswith("StepLR")  # of the choice only the values are recorded
    assert repeated["seed"] == ["0", "4"]
    assert not {key for key in repeated if key.startswith(("data", "model", "callbacks", "logger"))}
    cli(f"resume={first.run_dir}", "trainer.max_epochs=2")
    longer = json.loads((first.run_dir / "metrics.json").read_text())["differences"]
    assert longer == known | {"trainer.max_epochs": ["20", "2"]}


def test_validation_metrics_older_than_the_last_epoch_are_called_so(cli: Callable[..., Result]) -> None:
    result = cli("trainer.max_steps=45", "trainer.max_epochs=5")  # an epoch has 41
    assert result.metrics["epochs"] == 2
    first, second = re.findall(r"^epoch .*", result.out, re.MULTILINE)
    assert "val_loss" in first
    assert "val_loss" not in second
    said = r"last epoch\n  train_loss .*\nlast validation, after step 41\n  val_acc .*\n  val_loss"
    assert re.search(said, result.out)
    resumed = cli(f"resume={result.run_dir}", "trainer.max_steps=50")
    assert re.search(said, resumed.out)


def test_validation_metrics_are_the_last_epochs_whichever_was_tested(
    cli: Callable[..., Result],
) -> None:
    result = cli("trainer.max_epochs=4", "optimizer.lr=1")  # so high that an earlier epoch is the best
    assert result.metrics["best_epoch"] < 3
    assert re.search(r"last epoch\n  train_loss .*\n  val_acc .*\n  val_loss", result.out)
    assert "last validation" not in result.out


def test_a_terminal_gets_a_tree_a_bar_and_a_table_and_the_log_plain_text(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    result = cli(*SMALL, "optimizer=adam")
    assert "├── optimizer: sgd_momentum -> adam" in re.sub(r"\x1b\[[0-9;]*m", "", result.out)
    assert "run directory: " in result.out
    assert "epoch 1/1" in result.out
    assert ESCAPE in result.out
    log = (result.run_dir / "train.log").read_text()
    assert "  optimizer: sgd_momentum -> adam\n" in log
    assert ESCAPE not in log
