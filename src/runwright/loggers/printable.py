"""How a line of the log is written, on a terminal and in train.log."""

import logging

from runwright.config.errors import printable


class Formatter(logging.Formatter):
    """The standard library's, of whose text nothing can give the terminal orders: names and metrics are from files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
