"""The service's own log: every handler writes what is clean."""

from __future__ import annotations

import logging
from collections.abc import Callable

from deployer.core import log_context
from deployer.redaction.redactor import Clean, Redactor


class _CleanRecords(logging.Filter):
    """Has a handler write cleaned records. A filter, since a handler formats under its lock, which others wait for."""

    def __init__(self, clean: Clean) -> None:
        super().__init__()
        self._clean = clean

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean message, arguments, traceback and stack of the record, once for all handlers. Lets all pass."""
        if getattr(record, "cleaned", False):
            return True
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError) as error:  # a wrong call to the log must not end what logged
            message = f"{record.msg!r} (cannot be formatted: {error})"
        record.msg, record.args = self._clean(message), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        # The text alone, so that no handler formats the exception again.
        record.exc_info = None
        record.exc_text = record.exc_text and self._clean(record.exc_text)
        record.stack_info = record.stack_info and self._clean(record.stack_info)
        record.ids = {name: self._clean(id) for name, id in log_context.ids().items() if id}
        record.cleaned = True
        return True


def guard_logging(redactor: Redactor) -> Callable[[], None]:
    """Have every handler of this process's log write what is clean; returns the function that undoes it."""
    root = logging.getLogger()
    loggers = [root, *(found for found in root.manager.loggerDict.values() if isinstance(found, logging.Logger))]
    cleaning = _CleanRecords(redactor.clean_log)
    guarded = list(dict.fromkeys(handler for logger in loggers for handler in logger.handlers))
    for handler in guarded:
        handler.addFilter(cleaning)

    def undo() -> None:
        for handler in guarded:
            handler.removeFilter(cleaning)

    return undo
