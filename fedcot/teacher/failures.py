"""How a request to an endpoint fails: for now, or for good.

No text here quotes what was asked, what the server said about it, or the key.
"""


class PassingFailure(Exception):
    """A request that failed in a way which may pass.

    Parameters
    ----------
    reason : str
        What was found.
    remedy : str
        What to look at if it does not pass.
    status : int
        Of the reply; 0 where there was none.
    pause : float
        Seconds that the server asks to wait; 0 where it asks for nothing.
    """

    def __init__(
        self, reason: str, remedy: str, *, status: int = 0, pause: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.status = status
        self.pause = pause


class Refusal(Exception):
    """The server would refuse the same request again.

    Parameters
    ----------
    message : str
    status : int
        Of the reply.
    parameter : str
        The one that the server does not know; empty if it is something else.
    """

    def __init__(self, message: str, *, status: int, parameter: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.parameter = parameter


def malformed(reason: str) -> PassingFailure:
    """Return the failure of a reply that is not what the interface promises."""
    return PassingFailure(
        reason,
        "see that `teacher` is the base URL of an OpenAI-compatible server (most end "
        "in /v1)",
        status=200,
    )
