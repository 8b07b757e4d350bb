"""Errors that a user can act on, each with the exit code of the command line."""


class FedcotError(Exception):
    """Base of every error that fedcot raises on purpose; the run failed."""

    exit_code = 3


class ConfigError(FedcotError, ValueError):
    """A setting breaks a rule.

    The message is one line that names the parameter, the rule, the value found and
    the remedy. It is raised before anything is written.
    """

    exit_code = 2


class WireError(FedcotError, ValueError):
    """A message is not what `fedcot.records` allows on the wire."""


class CodeMismatchError(FedcotError):
    """Client and server run different code or different artefacts."""


class LedgerError(FedcotError):
    """The ledger cannot promise what it has to, so nothing may be sent."""


class TeacherError(FedcotError):
    """The teacher cannot be reached or does not answer as it should."""


class PrivacyBudgetExhausted(FedcotError):
    """The next release would overspend a budget; the work was not finished."""

    exit_code = 4
