"""The predictions of one arm on one split, as a file that stays on the node.

Questions, answers and texts are private, so the file is readable by its owner only.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fedcot.data.schema import Record
from fedcot.evaluation.evaluate import Score
from fedcot.evaluation.extraction import INVALID


def write_predictions(path: Path, records: Sequence[Record], score: Score) -> None:
    r"""Replace a file with one JSON object a line for each record, in order.

    Each holds ``index``, ``prediction`` and ``flexible`` (``[invalid]`` where nothing
    could be read), ``gold``, ``right`` and ``text``, what was written. All is ASCII:
    what UTF-8 cannot hold, a lone surrogate, is escaped as ``\ud800`` like the rest.

    Parameters
    ----------
    path : Path
        Its folder is made if it is not there; file and folder are for the owner alone.
    records : sequence of Record
        The records that were scored.
    score : Score

    Raises
    ------
    ValueError
        If the score is over another number of records.
    """
    rows = [
        {
            "index": index,
            "prediction": INVALID if made.answer is None else made.answer,
            "flexible": INVALID if made.flexible is None else made.flexible,
            "gold": record.answer,
            "right": made.right,
            "text": made.text,
        }
        for index, (record, made) in enumerate(
            zip(records, score.predictions, strict=True)
        )
    ]
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A file of `mkstemp` is for its owner alone from the start.
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
