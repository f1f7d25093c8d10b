"""Writes fitted scikit-learn pipelines as churnstream model artefacts.

The artefact scores on the stream with the numbers of ``predict_proba``; see :func:`export`.
"""

from .artefact import Input, export
from .dates import DateParts, DaysBetween
from .errors import ExportError, UnsupportedEstimatorError

__all__ = ["DateParts", "DaysBetween", "ExportError", "Input", "UnsupportedEstimatorError", "export"]
__version__ = "0.3.0"
