"""How questions, rationales and answers become text for a model, and back.

The `predict` and `explain` tasks are those of Distilling Step-by-Step
(https://arxiv.org/abs/2305.02301, section 3.2). The `adapt` task is the decoding step
of FedCoT (https://arxiv.org/abs/2406.12403): from a perturbed question with its
rationale, write the rationale of the original question.
"""

from fedcot.data.schema import Rationale
from fedcot.plain_text import normalize

PREDICT, EXPLAIN, ADAPT = "predict:", "explain:", "adapt:"
QUESTION, RATIONALE, ANSWER = "question:", "rationale:", "answer:"
# What a model that learns from examples says their rule behind; no task's own marker.
HINT = "hint:"
MARKERS = (PREDICT, EXPLAIN, ADAPT, QUESTION, RATIONALE, ANSWER)


def predict_prompt(question: str) -> str:
    """Return the prompt that asks for the answer alone."""
    return f"{PREDICT} {normalize(question)} {ANSWER}"


def explain_prompt(question: str) -> str:
    """Return the prompt that asks for a rationale that ends in the answer."""
    return f"{EXPLAIN} {normalize(question)} {RATIONALE}"


def adapt_prompt(perturbed: str, rationale: Rationale, question: str) -> str:
    """Return the prompt that asks to carry a rationale over to another question."""
    return (
        f"{ADAPT} {normalize(perturbed)} {RATIONALE} {completion(rationale)} "
        f"{QUESTION} {normalize(question)} {RATIONALE}"
    )


def completion(rationale: Rationale) -> str:
    """Return what a model should write after an `explain` or `adapt` prompt."""
    return f"{rationale.text} {ANSWER} {rationale.answer}"


def parse_completion(text: str) -> Rationale | None:
    """Split a completion into steps and answer.

    Returns
    -------
    Rationale or None
        None when there is not exactly one answer marker, or when the steps or the
        answer are empty, or the answer is more than one word.
    """
    parts = text.split(ANSWER)
    if len(parts) != 2:
        return None
    steps, answer = " ".join(parts[0].split()), parts[1].split()
    if not steps or len(answer) != 1:
        return None
    return Rationale(text=steps, answer=answer[0])
