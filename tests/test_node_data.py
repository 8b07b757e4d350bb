"""A deployed node's data is its owner's to say: no setting of a run changes it."""

import dataclasses
import json

import pytest

from fedcot import provenance
from fedcot.config import RunConfig
from fedcot.errors import CodeMismatchError, ConfigError
from fedcot.mechanism import vocabulary_hash
from fedcot.models.sources import artefact_hash
from fedcot.node import Node
from fedcot.node_state import Owner
from fedcot.records import IdentifyRequest
from fedcot.tasks.registry import task_of

MAPPING = """
name = "{name}"
[source]
train = "{train}"
test-share = 0.2
[fields]
question = "q"
answer = "a"
[answer]
kind = "numeric"
[slots]
question = 8
[templates]
question = "{template}"
"""


def write(folder, name="sums", train="rows.jsonl", template="{{ question }}"):
    path = folder / f"{name}.toml"
    path.write_text(MAPPING.format(name=name, train=train, template=template))
    return path


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [{"q": f"What is {n} and {n % 3}?", "a": n + n % 3} for n in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def node_config(tmp_path, **more):
    return {
        "partition-id": 0,
        "num-partitions": 2,
        "state-dir": str(tmp_path / "state"),
        "max-record-epsilon": 1.0,
        **more,
    }


def identify(config, owner, dataset):
    node = Node(config, owner)
    request = IdentifyRequest(
        code_hash=provenance.code_hash(),
        student_hash=artefact_hash("builtin", "student"),
        vocabulary_hash=vocabulary_hash(config),
        dataset_hash=task_of(str(dataset)).hash,
    )
    return node.identify(request)


def run_config(mapping, **more):
    return RunConfig(
        token_epsilon=1.0,
        dataset=str(mapping),
        data_dir="/nowhere",
        arms="standalone",
        **more,
    )


def test_what_a_run_asks_for_does_not_change_what_a_node_states(tmp_path, data):
    """A threshold of the public share would tell whether one question is held."""
    mapping = write(data)
    settings = node_config(tmp_path, **{"dataset": str(mapping), "data-dir": str(data)})
    owner = Owner.from_node_config(settings)
    stated = {
        identify(run_config(mapping, **asked), owner, mapping).num_records
        for asked in (
            {},
            {"public_share": 0.3},
            {"public_share": 0.7},
            {"partitioner": "label"},
            {"partitioner": "dirichlet", "seed": 5},
            {"num_records": 3, "records_per_round": 2},
            {"seed": 9, "partitioner": "iid"},
        )
    }
    assert len(stated) == 1
    assert 20 < stated.pop() < 40
    held = Node(run_config(mapping), owner).partition
    questions = {record.question for record in held.train}
    assert not questions & {record.question for record in held.test}


def test_an_owner_names_dataset_and_folder(tmp_path, data):
    mapping = write(data)
    for given in ({}, {"dataset": str(mapping)}, {"data-dir": str(data)}):
        owner = Owner.from_node_config(node_config(tmp_path, **given))
        with pytest.raises(ConfigError, match="`dataset` and `data-dir` must be given"):
            Node(run_config(mapping), owner)


def test_a_mapping_of_the_server_is_not_read(tmp_path, data):
    own, theirs = write(data), write(tmp_path, template="Say: {{ question }}")
    settings = node_config(tmp_path, **{"dataset": str(own), "data-dir": str(data)})
    owner = Owner.from_node_config(settings)
    with pytest.raises(CodeMismatchError):
        identify(run_config(theirs), owner, theirs)
    assert Node(run_config(theirs), owner).config.dataset == str(own)


@pytest.mark.parametrize("key", ["bank", "vocabulary"])
def test_nothing_public_is_made_of_private_records(tmp_path, data, key):
    mapping = write(data)
    settings = node_config(tmp_path, **{"dataset": str(mapping), "data-dir": str(data)})
    config = run_config(mapping, public_share=0.3, **{key: "dataset"})
    with pytest.raises(ConfigError, match="must be files on a deployed node"):
        Node(config, Owner.from_node_config(settings))


@pytest.mark.parametrize(
    "train", ["../rows.jsonl", "/etc/passwd", "a/../../rows.jsonl"]
)
def test_paths_stay_inside_the_data_folder(tmp_path, data, train):
    mapping = write(data, train=train)
    settings = node_config(tmp_path, **{"dataset": str(mapping), "data-dir": str(data)})
    node = Node(run_config(mapping), Owner.from_node_config(settings))
    with pytest.raises(ConfigError, match="must stay inside the data folder"):
        node.partition  # noqa: B018


def test_another_template_does_not_make_new_records(tmp_path, data):
    """Else a record would be drawn and charged once more."""
    names = set()
    for number, template in enumerate(
        ("{{ question }}", "Question: {{ question }}", "{{ question | upper }}")
    ):
        mapping = write(data, name=f"sums{number}", template=template)
        more = {"dataset": str(mapping), "data-dir": str(data)}
        owner = Owner.from_node_config(node_config(tmp_path, **more))
        train = Node(run_config(mapping), owner).partition.train
        names.add(tuple(record.identity for record in train))
    assert len(names) == 1
    assert len(set(names.pop())) == len(train)


def test_identity_does_not_depend_on_the_order_of_the_parts():
    from fedcot.data.schema import Record

    first = Record("x", "1", "", ("What is it?", "red", ""))
    second = dataclasses.replace(first, question="y", fields=("red", "what is it", ""))
    assert first.identity == second.identity
    assert first.identity != Record("x", "1", "", ("What is it?", "blue")).identity
    assert Record("What is it?", "1", "").identity == "What is it?"
