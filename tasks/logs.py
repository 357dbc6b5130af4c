"""Logs: one line per change of state, with the fields `event`, `job_id`, `chunk`, `attempt`."""

import logging
import sys

import structlog
from structlog.typing import Processor


def start_logging(level: str = "INFO") -> None:
    """Log to stderr: for people on a terminal, as JSON elsewhere. Never a URL's query, a secret or a text."""
    people = sys.stderr.isatty()
    stamps = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        stamps,
    ]
    renderers: list[Processor] = [structlog.dev.ConsoleRenderer()]
    if not people:
        renderers = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Celery's own INFO lines repeat ours, with the arguments of every message.
    logging.getLogger("celery").setLevel(logging.WARNING)
    logging.getLogger("kombu").setLevel(logging.WARNING)
