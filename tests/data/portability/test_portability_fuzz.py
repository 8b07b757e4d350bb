"""Exports that were changed at random never crash an import."""

import copy
import json
import random

import pytest

from fedcot.data.portability import Limits, import_traces
from fedcot.errors import ConfigError
from tests.data.portability import portability_exports as made

_VALUES = (
    None,
    True,
    0,
    -1,
    1e308,
    10**30,
    float("nan"),
    "",
    "\ud800",
    "<think>",
    "</think>COT",
    "{",
    [],
    {},
    [None],
    [[]],
    {"a": []},
    {"$date": None},
    "x" * 300,
)


def _places(value, found):
    """Collect every container and key of a JSON value."""
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            found.append((value, key))
            _places(value[key], found)
    return found


def _changed_values(content, draw):
    """Put other values, or values from elsewhere, into a JSON text."""
    value = json.loads(content)
    for _ in range(draw.randint(1, 4)):
        places = _places(value, [])
        if not places:
            break
        container, key = draw.choice(places)
        action = draw.randrange(4)
        if action == 0:
            container[key] = copy.deepcopy(draw.choice(_VALUES))
        elif action == 1:
            other, name = draw.choice(places)
            container[key] = copy.deepcopy(other[name])
        elif action == 2 and isinstance(container, dict):
            del container[key]
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(draw.choice(_VALUES)))
    return json.dumps(value).encode()


def _changed_bytes(content, draw):
    data = bytearray(content)
    for _ in range(draw.randint(1, 5)):
        place = draw.randrange(len(data) + 1)
        action = draw.randrange(4)
        if action == 0:
            data[place : place + draw.randrange(20)] = b""
        elif action == 1:
            data[place:place] = draw.randbytes(draw.randrange(5))
        elif action == 2:
            data[place : place + 1] = bytes([draw.choice(b'{}[]",:\\0n')])
        else:
            other = draw.randrange(len(data) + 1)
            data[place:place] = data[other : other + 40]
    return bytes(data)


def _run(tmp_path, count, seed):
    """Import so many changed exports and return how many gave a trace."""
    draw = random.Random(seed)
    exports = list(made.exports().items())
    limits = Limits(conversation_bytes=20_000, text_characters=200)
    given = 0
    for number in range(count):
        name, (file, content) = exports[number % len(exports)]
        is_json = name != "copilot"
        change = _changed_values if is_json and draw.random() < 0.6 else _changed_bytes
        path = tmp_path / file
        path.write_bytes(change(content, draw))
        format = name if draw.random() < 0.5 else "auto"
        try:
            traces, report = import_traces(path, format=format, limits=limits)
            found = list(traces)
        except ConfigError:
            continue
        given += bool(found)
        assert report.traces == len(found)
        json.dumps(report.as_dict())
        for trace in found:
            assert trace.answer
            assert trace.question
            # What was not one text before must not leak into the answer.
            assert "<think>" not in trace.answer or trace.provider
            # No half of a surrogate pair.
            "".join((trace.question, trace.reasoning, trace.answer)).encode()
    return given


def test_500_changed_exports_do_no_harm(tmp_path):
    assert _run(tmp_path, 500, seed=1) > 250


@pytest.mark.slow
def test_10_000_changed_exports_do_no_harm(tmp_path):
    assert _run(tmp_path, 10_000, seed=2) > 5_000
