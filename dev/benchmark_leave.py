"""Ends a process once it has trained a step, to see when that is."""

import os
from typing import Any

from lightning import Callback


class Leave(Callback):
    def on_train_batch_end(self, *args: Any) -> None:
        os._exit(0)
