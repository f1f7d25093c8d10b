"""What can be wrong with a pipeline or its reference rows."""

from __future__ import annotations


class ExportError(ValueError):
    """The artefact cannot be written; the message names the cause and, where there is one, the remedy."""


class UnsupportedEstimatorError(ExportError):
    """A step of the pipeline has no equal in churnstream.

    ``class_name`` is the full name of its class.
    """

    def __init__(self, estimator: object, reason: str = "") -> None:
        kind = type(estimator)
        self.class_name = f"{kind.__module__}.{kind.__qualname__}"
        text = f"{kind.__name__} ({self.class_name}) is not supported"
        super().__init__(f"{text}: {reason}" if reason else text)
