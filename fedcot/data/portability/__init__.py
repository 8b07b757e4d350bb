"""Take reasoning traces out of the exports of providers, and hand them on.

One exchange is one trace: what the person asked last, what the model answered, and the
reasoning apart from the answer.
"""

from fedcot.data.portability.exporting import (
    EXPORT_FORMATS,
    MANIFEST,
    export_traces,
    read_traces,
    write_traces,
)
from fedcot.data.portability.formats import AUTO, FORMATS
from fedcot.data.portability.import_report import ImportReport
from fedcot.data.portability.importing import import_traces
from fedcot.data.portability.legal import DATA_CLASSES, LEGAL_NOTE
from fedcot.data.portability.limits import Limits

__all__ = [
    "AUTO",
    "DATA_CLASSES",
    "EXPORT_FORMATS",
    "FORMATS",
    "LEGAL_NOTE",
    "MANIFEST",
    "ImportReport",
    "Limits",
    "export_traces",
    "import_traces",
    "read_traces",
    "write_traces",
]
