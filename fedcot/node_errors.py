"""What a client says to the server when it cannot answer.

An exception's text may quote a private question, so it stays on the node: the server
gets a code, a sentence that is fixed here, and the name of the exception's class. That
a client failed, in which phase and with which class may depend on its records; no
epsilon covers it.
"""

import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fedcot.errors import (
    CodeMismatchError,
    ConfigError,
    LedgerError,
    PrivacyBudgetExhausted,
    WireError,
)
from fedcot.node_state import private_files
from fedcot.out_of_memory import explain_out_of_memory, is_out_of_memory

# Flower's own codes end well below 100.
CODE_MISMATCH: Final = 101
NODE_CONFIG: Final = 102
OUT_OF_MEMORY: Final = 107
UNEXPECTED: Final = 199
OTHER_CODE: Final = (
    "the client runs other code or other artefacts than the server; install the same "
    "version on both, or restart the SuperLink that keeps an old folder"
)
REFUSED: Final = (
    "the client's node config or data does not allow what the run asks for; see "
    "errors.log in its state folder"
)
_SENTENCES: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (CodeMismatchError, CODE_MISMATCH, OTHER_CODE),
    (WireError, 103, "the client got a message that the wire does not allow"),
    (ConfigError, NODE_CONFIG, REFUSED),
    (LedgerError, 104, "the client's ledger cannot promise what it has to"),
    (PrivacyBudgetExhausted, 105, "the client's privacy budget is exhausted"),
    (TimeoutError, 106, "the client passed its time limit"),
)
ERROR_LOG: Final = "errors.log"


def describe(error: Exception) -> tuple[int, str]:
    """Return code and sentence for an exception, without any of its text."""
    name = type(error).__name__
    if is_out_of_memory(error):
        return OUT_OF_MEMORY, f"{explain_out_of_memory('client')} ({name})"
    for kind, code, sentence in _SENTENCES:
        if isinstance(error, kind):
            return code, f"{sentence} ({name})"
    return UNEXPECTED, f"the client failed; see errors.log in its state folder ({name})"


@private_files()
def keep_traceback(error: Exception, folder: Path) -> None:
    """Append the whole traceback to a file that stays on the node."""
    text = "".join(traceback.format_exception(error))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ERROR_LOG).open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat()}\n{text}\n")
