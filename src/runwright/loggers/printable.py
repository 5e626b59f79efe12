"""The format of log lines, on a terminal and in train.log."""

import logging

from runwright.config.errors import printable


class Formatter(logging.Formatter):
    """The standard library's, with control characters escaped: names and metrics come from untrusted files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
