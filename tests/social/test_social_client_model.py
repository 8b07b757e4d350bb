"""Which model a setting names, and what every model refuses."""

from pathlib import Path

import pytest

from fedcot.errors import ConfigError
from fedcot.social.client_model import (
    EndpointSettings,
    Sampled,
    check_pairs,
    check_sampling,
    configured_client_model,
)
from fedcot.social.endpoint_model import EndpointModel
from fedcot.social.local_model import LocalModel
from tests.tiny_architectures import save_architecture

SECRET = "what-only-one-patient-asks"


def test_a_folder_is_a_model_in_this_process(tmp_path: Path) -> None:
    folder = save_architecture("gpt2", tmp_path)
    model = configured_client_model(folder, role="student", batch_size=2)
    assert isinstance(model, LocalModel)
    assert model.name == folder
    described = model.describe()
    assert described["model"] == folder
    assert described["dtype"] == "float32"
    other = save_architecture("gpt2", tmp_path / "other", seed=1)
    assert (
        described["artefact"] != configured_client_model(other).describe()["artefact"]
    )


def test_a_url_is_an_endpoint() -> None:
    settings = EndpointSettings(model="tiny", api="completions")
    model = configured_client_model("http://localhost:8000/v1/", endpoint=settings)
    assert isinstance(model, EndpointModel)
    assert model.name == "http://localhost:8000/v1"
    assert model.describe() == {
        "client_model": "endpoint",
        "base_url": "http://localhost:8000/v1",
        "model": "tiny",
        "api": "completions",
    }


@pytest.mark.parametrize(
    ("source", "role", "found"),
    [
        (
            "builtin",
            "teacher",
            "`teacher` must be a model that learns from examples",
        ),
        ("builtin", "student", "in-context-teacher, in-context-student"),
        ("no/such/folder", "student", "`student`"),
        ("http://me:secret@host/v1", "teacher", "credentials"),
    ],
)
def test_what_is_no_model_is_refused(source: str, role: str, found: str) -> None:
    with pytest.raises(ConfigError, match=found) as caught:
        configured_client_model(source, role=role)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_batch_holds_a_text() -> None:
    with pytest.raises(ConfigError, match="`batch_size` must be at least 1"):
        LocalModel("anything", batch_size=0)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"temperature": -0.1}, "`temperature`"),
        ({"temperature": float("nan")}, "`temperature`"),
        ({"temperature": float("inf")}, "`temperature`"),
        ({"max_new_tokens": 0}, "`max-new-tokens`"),
        ({"seeds": [1]}, "1 for 2 prompts"),
        ({"prompts": [SECRET, ""]}, "1 of 2 empty"),
    ],
)
def test_sampling_refuses_what_makes_no_sense(changed: dict, found: str) -> None:
    given = {
        "prompts": [SECRET, "b"],
        "temperature": 0.0,
        "max_new_tokens": 1,
        "seeds": [1, 2],
    }
    check_sampling(given.pop("prompts"), **given)
    given = {"prompts": [SECRET, "b"], **given, **changed}
    with pytest.raises(ConfigError, match=found) as caught:
        check_sampling(given.pop("prompts"), **given)
    assert SECRET not in str(caught.value)


def test_scoring_refuses_empty_texts() -> None:
    check_pairs([("a", "b")])
    for pair in (("", SECRET), (SECRET, "")):
        with pytest.raises(ConfigError, match="1 of 2 with an empty text") as caught:
            check_pairs([("a", "b"), pair])
        assert SECRET not in str(caught.value)


def test_what_was_sampled_is_not_shown() -> None:
    assert SECRET not in repr(Sampled(SECRET, -1.0, 3))
