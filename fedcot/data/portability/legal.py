"""What an export says of its legal standing, and what it does not say."""

from typing import Final

DATA_CLASSES: Final = {
    "provided": ["question"],
    "observed": ["created", "provider", "model"],
    "derived": ["reasoning", "answer"],
}

LEGAL_NOTE: Final = (
    "This note is not legal advice. Parts of a trace fall into different classes of "
    "data: the person provided the question; the service observed the time and the "
    "model; the model derived the reasoning and the answer. That such reasoning is "
    "personal data which can be ported is an argument made by Libon et al. (arXiv "
    "2512.18174), not settled law. Article 20(1) GDPR speaks of data that a person "
    '"has provided to" a controller, and the portability provision of Quebec\'s Law 25 '
    'of information "collected from the applicant, and not created or inferred". Who '
    "may obtain, keep or share a trace depends on the place, the contract and the "
    "people whom it mentions; fedcot decides none of it."
)
