"""The arms of a comparison: where their rationales come from and how they are scored.

What needs the server, what stays on the client and which prompt gives the headline
accuracy is declared here once, before any result is seen.
"""

from typing import Final, Literal, get_args

Prompt = Literal["explain", "predict"]
PROMPTS: Final[tuple[str, ...]] = get_args(Prompt)
SPLITS: Final = ("test", "deep-test")

# Which prompts an arm's rationales answer; an arm that is absent needs no teacher.
SOURCES: Final = {
    "fedcot": "fedcot",
    "distil": "distil",
    "shuffled-rationale": "distil",
    "random-bank": "random-bank",
}
# Sources whose prompts the client sends; the public bank is drawn by the server.
ASKED_SOURCES: Final = ("fedcot", "distil")
RAW_SOURCE: Final = "distil"
# Where a rationale on the wire may come from; each becomes a file name on the client.
SENT_SOURCES: Final = (*ASKED_SOURCES, "random-bank")
UNTRAINED: Final = ("zero-shot",)
# Trained on labels alone, so asked for the answer alone.
PREDICT_ARMS: Final = ("standalone",)
# What federated averaging shares; the controls that need no server stay personal.
SHARED_ARMS: Final = ("fedcot", "distil", "random-bank")


def headline_prompt(arm: str) -> Prompt:
    """Return the prompt whose accuracy stands for the arm."""
    return "predict" if arm in PREDICT_ARMS else "explain"


def needs_raw_prompts(arm: str) -> bool:
    """Whether an arm works only if private questions are sent as they are."""
    return SOURCES.get(arm) == RAW_SOURCE


def shares_adapter(arm: str, aggregation: str) -> bool:
    """Whether the arm's adapter leaves the client."""
    return aggregation == "fedavg" and arm in SHARED_ARMS


def adapter_is_free(arm: str, pairing: str) -> bool:
    """Whether a shared adapter costs no privacy beyond the prompts.

    Training on (perturbed question, its rationale) pairs, filtered by public rules
    only, is post-processing of what was released. The other pairings read the
    original question and its label.
    """
    return arm == "random-bank" or (arm == "fedcot" and pairing == "perturbed")


def trains_privately(
    arm: str, *, aggregation: str, pairing: str, noise_multiplier: float
) -> bool:
    """Whether the arm's adapter is trained by DP-SGD.

    It is where the adapter leaves the client, has seen private labels or questions, and
    a noise multiplier is given. Arms that send questions as they are have nothing left
    to protect.
    """
    return (
        noise_multiplier > 0
        and shares_adapter(arm, aggregation)
        and not adapter_is_free(arm, pairing)
        and not needs_raw_prompts(arm)
    )


def exposes_by_adapter(
    arm: str, *, aggregation: str, pairing: str, noise_multiplier: float
) -> bool:
    """Whether the arm's adapter gives private records away with no finite epsilon."""
    return (
        shares_adapter(arm, aggregation)
        and not adapter_is_free(arm, pairing)
        and not trains_privately(
            arm,
            aggregation=aggregation,
            pairing=pairing,
            noise_multiplier=noise_multiplier,
        )
    )
