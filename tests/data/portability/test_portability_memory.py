"""A large export needs little memory."""

import json
import subprocess
import sys

import pytest

from fedcot.data.portability import Limits

_READ = """
import json, re, sys
from pathlib import Path
from fedcot.data.portability import import_traces
traces, report = import_traces(sys.argv[1])
count = sum(1 for _ in traces)
# `resource` would count what the parent had when it forked.
status = Path("/proc/self/status").read_text()
peak = int(re.search(r"VmHWM:\\s+([0-9]+) kB", status).group(1))
print(json.dumps({"traces": count, "peak": peak * 1024, **report.as_dict()}))
"""


def write_chatgpt(path, size):
    """Write conversations until the file has so many bytes; return how many."""
    text = 'He said "hello"\nand a word ' * 60
    nodes = {}
    for number in range(40):
        role = "assistant" if number % 2 else "user"
        message = {
            "author": {"role": role},
            "content": {"content_type": "text", "parts": [text]},
            "create_time": 1_767_225_600.5,
        }
        parent = str(number - 1) if number else None
        nodes[str(number)] = {"parent": parent, "message": message}
    row = json.dumps({"current_node": "39", "mapping": nodes}).encode()
    count = 0
    with path.open("wb") as file:
        file.write(b"[")
        while file.tell() < size:
            file.write(b"," * bool(count) + row)
            count += 1
        file.write(b"]")
    return count


def peak_of(path):
    """Import a file in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", _READ, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def test_ten_times_the_export_needs_no_more_memory(tmp_path):
    peaks = []
    for size in (2 * 2**20, 20 * 2**20):
        count = write_chatgpt(tmp_path / "conversations.json", size)
        found = peak_of(tmp_path / "conversations.json")
        assert found["traces"] == 20 * count
        peaks.append(found["peak"])
    assert peaks[1] - peaks[0] < 10 * 2**20


@pytest.mark.slow
def test_an_export_of_300_megabytes_is_read_in_250(tmp_path):
    path = tmp_path / "conversations.json"
    count = write_chatgpt(path, 300 * 10**6)
    found = peak_of(path)
    path.unlink()
    assert found["traces"] == 20 * count
    assert found["skipped"] == {}
    assert found["peak"] < 250 * 10**6


@pytest.mark.slow
@pytest.mark.parametrize("inner", ["[],", '{"":{}},', '"\U0001f600",'])
def test_the_worst_conversation_within_the_limit_is_read_in_500(tmp_path, inner):
    path = tmp_path / "conversations.json"
    limit = Limits().conversation_bytes - 200
    filler = inner * (limit // len(inner.encode()))
    path.write_text(f'[{{"mapping": {{}}, "filler": [{filler}0]}}]')
    found = peak_of(path)
    path.unlink()
    assert found["conversations"] == 1
    assert found["peak"] < 500 * 10**6
