"""Lines of the log, for eyes or as JSON: those of the service, of uvicorn and of the libraries."""

import logging
from typing import Any, Literal

import structlog

Form = Literal["text", "json"]


def formatter(form: Form) -> logging.Formatter:
    """Return what makes one line of a record, of whoever's it is."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_color,
    ]
    last: list[structlog.typing.Processor] = [structlog.dev.ConsoleRenderer(colors=False)]
    if form == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def config(form: Form) -> dict[str, Any]:
    """Return the configuration of logging, for each process of the server: to standard error."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "serving.logs.formatter", "form": form}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
    }


def _without_color(
    _: Any, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    event.pop("color_message", None)  # uvicorn's own, the same text with escapes
    return event
