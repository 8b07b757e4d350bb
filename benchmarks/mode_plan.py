"""What `mode_runs.py` runs on one split, and which students it compares."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedcot.rules import Scalar
from fedcot.world.families import CLIENT_NAMES

CLIENTS: Final = len(CLIENT_NAMES)
FEDCOT, COMMUNITY, SOCIAL = "fedcot", "community", "social"
# The same questions, canaries and training in every mode; each run adds its own.
COMMON: Final[Mapping[str, Scalar]] = {
    "num-partitions": CLIENTS,
    "partitioner": "domain",
    "num-records": 1280,
    "test-records": 100,
    "canaries": 20,
    "canary-insertion": "one",
    "student": "builtin",
    # Answers, and reasoning with its answer, in equal parts as in mode fedcot.
    "label-share": 0.5,
    "local-epochs": 8,
    "hold-out": 100,
}
_TWO_ROUNDS: Final[Mapping[str, Scalar]] = {
    "num-server-rounds": 2,
    "teacher": "builtin",
}
# Shows in minutes that everything runs, not what comes out.
QUICK: Final[Mapping[str, Scalar]] = {
    "num-records": 80,
    "test-records": 6,
    "canaries": 5,
    "local-epochs": 1,
    "hold-out": 10,
}
QUICK_OF: Final[Mapping[str, Mapping[str, Scalar]]] = {
    FEDCOT: {"records-per-round": 16},
    COMMUNITY: {"records-per-round": 16},
    SOCIAL: {
        "example-counts": "0,1",
        "examples-per-prompt": 2,
        "generation-prompts": 2,
        "samples-per-prompt": 2,
        "examples-kept": 2,
    },
}


@dataclass(frozen=True, slots=True)
class Part:
    """One run of a seed.

    Attributes
    ----------
    mode : str
    config : Path
        The settings file that it starts from.
    settings : mapping of str to value
        Laid over it and over `COMMON`.
    """

    mode: str
    config: Path
    settings: Mapping[str, Scalar]


def _fedcot(arms: str) -> Part:
    return Part(FEDCOT, Path("conf/main-job.toml"), {**_TWO_ROUNDS, "arms": arms})


# Arms that send something have a run each, so that its bytes are theirs.
PARTS: Final[Mapping[str, Part]] = {
    "local": _fedcot("zero-shot,standalone"),
    "distil": _fedcot("distil"),
    "fedcot": _fedcot("fedcot"),
    COMMUNITY: Part(
        COMMUNITY,
        Path("conf/community-world.toml"),
        {
            **_TWO_ROUNDS,
            "communities": ",".join(CLIENT_NAMES),
            "community-diversity": 1.0,
            "coalitions": "grand",
            "sharing": "pooled,federated",
            "controls": "none",
        },
    ),
    SOCIAL: Part(
        SOCIAL,
        Path("conf/social-world.toml"),
        {
            "client-model": "builtin",
            # It knows the general families only, as the base that the others train.
            "prompted-student": "builtin-small",
            "aggregators": "random",
            "teaching": "examples",
            "distil-examples": True,
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One student of the comparison.

    Attributes
    ----------
    part : str
        The run that it comes from.
    name : str
        As in that run's summary; in mode social the kind, whose longest prompt counts.
    holder : str
        Who has the student in the end.
    teacher : str
        Whose model wrote what it learnt from, and who could read the questions.
    """

    part: str
    name: str
    holder: str
    teacher: str

    @property
    def mode(self) -> str:
        """The mode of its run."""
        return PARTS[self.part].mode

    @property
    def label(self) -> str:
        """How it is called in results."""
        return f"{self.mode}/{self.name}"


_OWN: Final = "its client alone"
_ALL: Final = "the server and all clients"
_SERVER: Final = "the server's teacher"
_PROVIDER: Final = "a provider that each member asks directly"
_CLIENT: Final = "the client's own model"
ARMS: Final = (
    Arm("local", "zero-shot", "everybody", "none"),
    Arm("local", "standalone", _OWN, "none: own answers"),
    Arm("distil", "distil", _OWN, f"{_SERVER}, on raw questions"),
    Arm("fedcot", "fedcot", _OWN, f"{_SERVER}, on perturbed questions"),
    Arm(COMMUNITY, "pooled", _ALL, f"{_PROVIDER}, on raw questions"),
    Arm(COMMUNITY, "federated", _ALL, f"{_PROVIDER}, on raw questions"),
    Arm(SOCIAL, "zero-shot", "everybody", "none"),
    Arm(SOCIAL, "original", _OWN, f"{_CLIENT}, on raw questions"),
    Arm(SOCIAL, "random", _ALL, f"{_CLIENT}, on raw questions"),
    Arm(SOCIAL, "distilled", _ALL, f"{_CLIENT}, on raw questions"),
)
