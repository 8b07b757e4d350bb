"""Gemini in Google Takeout: a log of activity, one event for each exchange.

Request and response stand in `details` or in `userInteractions`; newer exports have the
question in `title` and the response as HTML. None has reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, Final

from fedcot.data.portability import import_report as reasons
from fedcot.data.portability.import_report import ImportReport
from fedcot.data.portability.reading import (
    list_of,
    loads,
    mapping_of,
    name_of,
    text_of,
    time_of,
)
from fedcot.data.portability.turns import ASSISTANT, USER, Turn, traces_of
from fedcot.data.traces import Trace

PROVIDER: Final = "gemini"
_PRODUCT: Final = re.compile(r"\b(?:gemini|bard)\b", re.IGNORECASE)
_PLACES: Final = ("details", "userInteractions", "safeHtmlItem")
_ASKED: Final = re.compile(r"(?:Prompted|Asked|Said)\s+(.+)", re.DOTALL)
_TEXT_KEYS: Final = ("text", "content", "parts", "value", "prompt", "message", "data")
_BLOCKS: Final = frozenset(
    {"p", "div", "br", "li", "tr", "pre", "table", "ul", "ol"}
    | {f"h{level}" for level in range(1, 7)}
)
_DEEPEST: Final = 20


def is_conversation(item: dict[str, Any]) -> bool:
    """Say whether an object looks like an event of Gemini in Takeout."""
    products = [name_of(one) for one in list_of(item.get("products"))]
    named = (name_of(item.get("header")), *products)
    is_event = "titleUrl" in item or any(place in item for place in _PLACES)
    return is_event and any(_PRODUCT.search(name) for name in named)


def traces(item: dict[str, Any], report: ImportReport) -> Iterator[Trace]:
    """Yield the trace of an event."""
    turns: list[Turn] = []
    for one in list_of(item.get("details")):
        detail = mapping_of(one)
        role = {"request": USER, "response": ASSISTANT}.get(
            text_of(detail.get("name")).strip().lower()
        )
        if role:
            turns.append(Turn(role=role, text=text_of(detail.get("value"))))
    for one in list_of(item.get("userInteractions")):
        # Some exports leave out the inner object.
        outer = mapping_of(one)
        inner = mapping_of(outer.get("userInteraction")) or outer
        for key, role in (("request", USER), ("response", ASSISTANT)):
            turns.append(Turn(role=role, text=_unpacked(inner.get(key))))
    asked = _ASKED.fullmatch(text_of(item.get("title")).strip())
    if not turns and asked:
        pages = [mapping_of(one) for one in list_of(item.get("safeHtmlItem"))]
        answer = "\n\n".join(_plain(text_of(page.get("html"))) for page in pages)
        turns = [Turn(role=USER, text=asked[1]), Turn(role=ASSISTANT, text=answer)]
    if not turns:
        report.skip(reasons.NO_QUESTION)
    for trace in traces_of(
        turns, report, provider=PROVIDER, created=time_of(item.get("time"))
    ):
        report.note(reasons.TRUNCATED, trace.answer.endswith(("...", "\u2026")))
        yield trace


def _unpacked(value: Any) -> str:
    """Return the text in what is a text, or JSON within a text."""
    if not isinstance(value, str):
        return _found(value, 0)
    if value.lstrip()[:1] in ("[", "{"):
        try:
            return _found(loads(value), 0) or value
        except ValueError:
            return value
    return value


def _found(value: Any, depth: int) -> str:
    """Return the texts that stand under the names that exports use."""
    if isinstance(value, str):
        return value
    if depth > _DEEPEST or not isinstance(value, list | dict):
        return ""
    if isinstance(value, list):
        texts = [_found(one, depth + 1) for one in value]
        return "\n".join(text for text in texts if text.strip())
    if value.get("thought") is True or value.get("isThought") is True:
        return ""  # reasoning, should an export ever have it, is no answer
    for key in _TEXT_KEYS:
        text = _found(value.get(key), depth + 1)
        if text.strip():
            return text
    return ""


class _Page(HTMLParser):
    """Collects the text of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in ("script", "style")
        if tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in ("script", "style")))
        if tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.pieces.append(data)


def _plain(html: str) -> str:
    page = _Page()
    try:
        page.feed(html)
        page.close()
    except (AssertionError, ValueError):  # what the parser does with broken markup
        return ""
    return re.sub(r"\n{3,}", "\n\n", "".join(page.pieces)).strip()
