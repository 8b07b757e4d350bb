"""What is refused before a run starts, and by a dry run in the same words."""

import json
import shutil

import pytest

from fedcot.config import RunConfig, load_config
from fedcot.dry_run import dry_run
from fedcot.errors import ConfigError
from fedcot.mechanism import configured_channel
from fedcot.models.sources import check_weights, model_folder
from fedcot.preflight import check_model_settings
from tests.test_node_data import MAPPING


@pytest.fixture
def sums(tmp_path):
    rows = [{"q": f"What is {n} and {n % 3}?", "a": n + n % 3} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    path = tmp_path / "sums.toml"
    path.write_text(
        MAPPING.format(name="sums", train="rows.jsonl", template="{{ question }}")
    )
    return path


def config(sums, *more):
    given = [f"dataset={sums}", f"data-dir={sums.parent}", "partitioner=iid"]
    return load_config(None, [*given, "arms=standalone", *more])


def test_a_recorded_teacher_needs_rationales(sums):
    asked = config(sums, "teacher=recorded")
    with pytest.raises(ConfigError, match="carries no rationales"):
        check_model_settings(asked)
    found = dry_run(asked, num_supernodes=2)
    assert any("carries no rationales" in problem for problem in found["problems"])


def test_arms_that_send_nothing_need_no_vocabulary_of_the_dataset(sums):
    asked = config(sums, "arms=zero-shot,standalone")
    assert configured_channel(asked).slots == 8
    assert dry_run(asked, num_supernodes=2)["problems"] == []


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@127.0.0.1:9/v1",
        "http://127.0.0.1:9/v1?api_key=secret",
        "https://127.0.0.1:9/v1#secret",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match="host and path alone") as caught:
        RunConfig(token_epsilon=8.0, teacher=url, arms="fedcot")
    assert "secret" not in str(caught.value)


def test_bits_need_their_library(sums, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for role in ("student", "teacher"):
        with pytest.raises(ConfigError, match=f"`{role}-quantization` must be `none`"):
            check_model_settings(config(sums, f"{role}-quantization=4bit"))


def test_weights_must_be_there_and_whole(tmp_path):
    folder = tmp_path / "student"
    shutil.copytree(model_folder("builtin", "student"), folder)
    check_weights(folder, "student")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for broken in (whole[:-1], whole[:100], b""):
        weights.write_bytes(broken)
        with pytest.raises(ConfigError, match=r"`model\.safetensors` broken"):
            check_weights(folder, "student")
    weights.unlink()
    with pytest.raises(ConfigError, match="with weights, found no"):
        check_weights(folder, "student")


def test_a_recorded_teacher_knows_no_perturbed_question():
    settings = {
        "token_epsilon": 8.0,
        "prompt_epsilon": 8.0,
        "dataset": "gsm8k",
        "teacher": "recorded",
        "vocabulary": "dataset",
        "bank": "dataset",
        "public_share": 0.3,
    }
    RunConfig(**settings, mechanism="selection")
    with pytest.raises(ConfigError, match="`mechanism` must be selection"):
        RunConfig(**settings, mechanism="rank")
    RunConfig(**settings, mechanism="rank", arms="distil")


@pytest.mark.parametrize(
    "user",
    [
        "",
        "static",
        "{{ question['__class__'] }}",
        "{{ question | replace('a') }}",
        "{{ question.nothing }}",
    ],
)
def test_a_template_that_cannot_work_is_one_problem(sums, user):
    text = sums.read_text()
    sums.write_text(f'{text}user = "{user}"\n')
    found = dry_run(config(sums), num_supernodes=2)
    assert any("[templates]" in problem for problem in found["problems"])
    assert all("\n" not in problem for problem in found["problems"])


def test_a_first_line_of_data_is_not_shown(sums, tmp_path):
    (tmp_path / "rows.csv").write_text(
        '"48","Zorbina has 10 anvils and finds 38 more."\n"2","One and one?"\n'
    )
    sums.write_text(sums.read_text().replace("rows.jsonl", "rows.csv"))
    (problem, *_) = dry_run(config(sums), num_supernodes=1)["problems"]
    assert "Zorbina" not in problem
    assert "48" not in problem
    assert "among its 2 columns" in problem
