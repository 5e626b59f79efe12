"""What dev/benchmark.py compares with: the same network, optimizer and images, each as its users write it.

A peer is made once for a batch size and then called for each measurement: it trains one epoch over normalised images
(N, 1, 28, 28) float32 and returns the seconds that this took. What it imports is imported when it is made.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from litmlp.models.mlp import MLP

Epoch = Callable[[], float]
LR, MOMENTUM = 0.01, 0.9


def plain(x: Tensor, y: Tensor, batch_size: int, hidden: Sequence[int] = (200, 200), **options: Any) -> Epoch:
    """The loop of every tutorial, over tensors in memory; `options` of torch.optim.SGD."""

    def epoch() -> float:
        model = MLP((1, 28, 28), 10, hidden, activation="leaky_relu")
        optimizer, loss_of = torch.optim.SGD(model.parameters(), LR, MOMENTUM, **options), nn.CrossEntropyLoss()
        start = time.perf_counter()
        for batch in torch.randperm(len(y)).split(batch_size):
            optimizer.zero_grad()
            loss = loss_of(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
        return time.perf_counter() - start

    return epoch


def fused(x: Tensor, y: Tensor, batch_size: int) -> Epoch:
    return plain(x, y, batch_size, fused=True)


def usual(root: Path, batch_size: int, num_batches: int, folder: Path) -> Epoch:
    """Lightning as its templates use it: torchvision's data set and transforms, a DataLoader, losses by self.log.

    Trains on `num_batches` and scales the seconds to the epoch.
    """
    from lightning import LightningModule, Trainer
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
    from lightning.pytorch.loggers import TensorBoardLogger
    from torch.utils.data import DataLoader, random_split
    from torchmetrics import MeanMetric
    from torchmetrics.classification import MulticlassAccuracy
    from torchvision.datasets import MNIST
    from torchvision.transforms import Compose, Normalize, ToTensor

    class Usual(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss = MLP((1, 28, 28), 10, activation="leaky_relu"), nn.CrossEntropyLoss()
            self.train_loss, self.train_acc = MeanMetric(), MulticlassAccuracy(10, average="micro")

        def on_train_epoch_start(self) -> None:
            self.start = time.perf_counter()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            logits = self.model(x)
            loss: Tensor = self.loss(logits, y)
            self.train_loss(loss)
            self.train_acc(logits, y)
            self.log("train/loss", self.train_loss, on_step=True, on_epoch=True, prog_bar=True)
            self.log("train/acc", self.train_acc, on_step=True, on_epoch=True, prog_bar=True)
            return loss

        def on_train_epoch_end(self) -> None:
            self.seconds = time.perf_counter() - self.start

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), LR, MOMENTUM)

    images = MNIST(root, transform=Compose([ToTensor(), Normalize((0.1307,), (0.3081,))]))
    train, _ = random_split(images, [55_000, 5_000])

    def epoch() -> float:
        task = Usual()
        callbacks = [ModelCheckpoint(folder), EarlyStopping("train/loss_epoch")]
        options = {"max_epochs": 1, "limit_train_batches": num_batches, "accelerator": "cpu", "callbacks": callbacks}
        trainer = Trainer(logger=TensorBoardLogger(folder), enable_model_summary=False, **options)  # type: ignore[arg-type]
        trainer.fit(task, DataLoader(train, batch_size, shuffle=True))
        return task.seconds * len(train) / (num_batches * batch_size)

    return epoch


def keras(x: Tensor, y: Tensor, batch_size: int) -> Epoch:
    """Keras on its JAX backend, from arrays in memory; the first, compiling epoch is not measured."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import keras

    layers: list[Any] = []
    for _ in range(2):
        layers += [keras.layers.Dense(200), keras.layers.LeakyReLU(0.01)]
    model = keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(LR, MOMENTUM), loss)
    images, labels = x.flatten(1).numpy(), y.numpy()
    model.fit(images, labels, batch_size, verbose=0)

    def epoch() -> float:
        start = time.perf_counter()
        model.fit(images, labels, batch_size, verbose=0)
        return time.perf_counter() - start

    return epoch


def sklearn(x: Tensor, y: Tensor, batch_size: int) -> Epoch:
    """MLPClassifier, which has no LeakyReLU: ReLU."""
    from sklearn.neural_network import MLPClassifier

    options = {"solver": "sgd", "learning_rate_init": LR, "momentum": MOMENTUM, "nesterovs_momentum": False}
    model = MLPClassifier((200, 200), batch_size=batch_size, alpha=0, **options)
    images, labels = x.flatten(1).numpy(), y.numpy()

    def epoch() -> float:
        start = time.perf_counter()
        model.partial_fit(images, labels, classes=range(10))
        return time.perf_counter() - start

    return epoch


def jax_scan(x: Tensor, y: Tensor, batch_size: int) -> Epoch:
    """The practical limit: an epoch as one compiled program, nothing logged."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import jax.numpy as jnp

    images, labels = jnp.asarray(x.flatten(1).numpy()), jnp.asarray(y.numpy())
    sizes = [(784, 200), (200, 200), (200, 10)]
    keys = jax.random.split(jax.random.key(0), len(sizes))
    params = [(jax.random.normal(k, s) / s[0] ** 0.5, jnp.zeros(s[1])) for k, s in zip(keys, sizes, strict=True)]

    def loss_of(params: Any, x: Any, y: Any) -> Any:
        for weight, bias in params[:-1]:
            x = jax.nn.leaky_relu(x @ weight + bias)
        log_p = jax.nn.log_softmax(x @ params[-1][0] + params[-1][1])
        return -jnp.take_along_axis(log_p, y[:, None], 1).mean()

    def step(state: Any, index: Any) -> Any:
        params, velocity = state
        loss, gradient = jax.value_and_grad(loss_of)(params, images[index], labels[index])
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, gradient)
        return (jax.tree.map(lambda p, v: p - LR * v, params, velocity), velocity), loss

    scan = jax.jit(lambda state, order: jax.lax.scan(step, state, order))
    num_batches = len(labels) // batch_size  # the last, smaller batch is left out: a scan has one shape

    def run(state: Any) -> float:
        start = time.perf_counter()
        order = jax.random.permutation(jax.random.key(1), len(labels))[: num_batches * batch_size]
        jax.block_until_ready(scan(state, order.reshape(num_batches, batch_size)))
        return (time.perf_counter() - start) * len(labels) / (num_batches * batch_size)

    state = params, jax.tree.map(jnp.zeros_like, params)
    run(state)  # compiles
    return lambda: run(state)
