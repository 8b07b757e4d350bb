"""Settings: every bad value is one line that says what is wrong and what is right."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcot.config import RunConfig, load_config, parse_overrides
from fedcot.errors import ConfigError

BAD_VALUES = [
    ("token_epsilon", 0.0),
    ("token_epsilon", -1.0),
    ("token_epsilon", math.nan),
    ("token_epsilon", math.inf),
    ("token_epsilon", 10**400),
    ("token_epsilon", True),
    ("token_epsilon", "8"),
    ("prompt_epsilon", -0.5),
    ("prompt_epsilon", math.inf),
    ("record_epsilon", 0.0),
    ("record_epsilon", math.nan),
    ("delta", 0.0),
    ("delta", 1.0),
    ("delta", -1e-9),
    ("delta", math.nan),
    ("mechanism", "santext"),
    ("mechanism", "Rank"),
    ("mode", "central"),
    ("dataset", ""),
    ("arms", ""),
    ("arms", "fedcot,fedcot"),
    ("arms", "fedcot,unknown"),
    ("arms", "teacher"),
    ("pairing", "both"),
    ("aggregation", "median"),
    ("partitioner", "shuffle"),
    ("device", "gpu"),
    ("student_dtype", "fp8"),
    ("public_share", 1.0),
    ("dirichlet_alpha", 0.0),
    ("name", "a b"),
    ("name", "../x"),
    ("teacher", " "),
    ("student", "a\nb"),
    ("num_server_rounds", 0),
    ("num_server_rounds", 2.0),
    ("num_server_rounds", True),
    ("num_partitions", -1),
    ("num_records", 0),
    ("records_per_round", 0),
    ("test_records", 0),
    ("fraction_train", 0.0),
    ("fraction_train", 1.5),
    ("teacher_batch_size", 0),
    ("max_new_tokens", 0),
    ("local_epochs", 0),
    ("batch_size", 0),
    ("learning_rate", 0.0),
    ("lora_r", 0),
    ("lora_alpha", "32"),
    ("lora_dropout", 1.0),
    ("rationale_weight", -1.0),
    ("seed", -1),
    ("seed", 2**63),
    ("phase_timeout", 0.0),
    ("test_tape", 1),
    ("test_tape", "true"),
    ("run_dir", 3),
]


def key(name: str) -> str:
    return name.replace("_", "-")


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_a_bad_value_is_one_line_with_parameter_rule_value_and_remedy(name, value):
    with pytest.raises(ConfigError) as caught:
        RunConfig(**{"token_epsilon": 8.0, name: value})

    message = str(caught.value)
    assert "\n" not in message
    assert f"`{key(name)}` must be" in message
    assert "found " in message
    assert f"-c {key(name)}=" in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_the_value_that_the_remedy_names_is_allowed(name, value):
    with pytest.raises(ConfigError) as caught:
        RunConfig(**{"token_epsilon": 8.0, name: value})

    remedy = str(caught.value).split("pass for example `-c ")[1].removesuffix("`.")
    load_config(None, [remedy])


def test_token_epsilon_has_no_default():
    with pytest.raises(TypeError):
        RunConfig()  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="`token-epsilon` must be given"):
        RunConfig.from_run_config({})


def test_more_questions_per_round_than_questions_is_refused():
    with pytest.raises(ConfigError, match=r"at most `num-records` \(100\), found 101"):
        RunConfig(token_epsilon=8.0, num_records=100, records_per_round=101)


def test_an_unknown_key_names_the_nearest_one():
    with pytest.raises(ConfigError, match="did you mean `token-epsilon`"):
        RunConfig.from_run_config({"token-epsilon": 8.0, "tokn-epsilon": 1.0})
    with pytest.raises(ConfigError, match="did you mean `token-epsilon`"):
        RunConfig.from_run_config({"token_epsilon": 8.0})
    with pytest.raises(ConfigError, match="`zzz` must be a run-config key"):
        parse_overrides(["zzz=1"])


def test_the_run_config_goes_there_and_back():
    config = RunConfig(token_epsilon=6.5, arms="distil,fedcot", test_tape=True)
    assert RunConfig.from_run_config(config.to_run_config()) == config
    assert config.arm_names == ("distil", "fedcot")


def test_integers_widen_to_floats_and_nothing_else_is_converted():
    assert parse_overrides(["token-epsilon=8"]) == {"token-epsilon": 8.0}
    assert type(parse_overrides(["token-epsilon=8"])["token-epsilon"]) is float
    for pair in ("seed=1.0", "seed=true", "test-tape=1", "test-tape=True", "delta=x"):
        with pytest.raises(ConfigError):
            parse_overrides([pair])


@pytest.mark.parametrize(
    "pair",
    [
        "token-epsilon",
        "",
        "token-epsilon=nan",
        "token-epsilon=inf",
        "token-epsilon=-inf",
        "token-epsilon=",
        "token-epsilon=eight",
        "token-epsilon='8'",
        "seed=[1]",
        "seed={a=1}",
        "seed=2020-01-01",
        "seed=1\nname='x'",
        "seed=" + "[" * 5000,
        "seed=" + "9" * 5000,
        "=3",
    ],
)
def test_a_bad_override_is_one_line(pair):
    with pytest.raises(ConfigError) as caught:
        parse_overrides([pair])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_text_may_be_bare_or_quoted_and_the_last_of_a_key_holds():
    pairs = ["name=first", 'teacher="Qwen/Qwen2.5-7B-Instruct"', "name=second"]
    assert parse_overrides([*pairs, "run-dir=runs/a=b"]) == {
        "name": "second",
        "teacher": "Qwen/Qwen2.5-7B-Instruct",
        "run-dir": "runs/a=b",
    }


@given(st.text(max_size=30))
def test_any_text_parses_or_is_refused_in_one_line(text):
    try:
        said = str(parse_overrides([text]))
    except ConfigError as error:
        said = str(error)
    assert "\n" not in said


@given(st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1))
def test_whole_numbers_come_back_as_they_were(value):
    assert parse_overrides([f"seed={value}"]) == {"seed": value}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back_as_they_were(value):
    assert parse_overrides([f"learning-rate={value!r}"]) == {"learning-rate": value}


@given(st.text(min_size=1, max_size=30).filter(str.isprintable))
def test_bare_text_comes_back_without_the_blanks_around_it(text):
    stripped = text.strip()
    if not stripped.startswith(('"', "'")):
        assert parse_overrides([f"run-dir={text}"]) == {"run-dir": stripped}


def test_overrides_lie_over_the_file_and_the_file_over_what_is_shipped(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("seed = 3\ntoken-epsilon = 4.0\n")
    config = load_config(file, ["seed=5"])
    assert (config.seed, config.token_epsilon) == (5, 4.0)
    assert load_config(None).token_epsilon == 8.0


@pytest.mark.parametrize(
    "text", ["seed = ", "[table]\nseed = 1", "seed = [1]", "x = 1"]
)
def test_a_bad_file_is_one_line(tmp_path, text):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="`--config` must be a readable TOML file"):
        load_config(tmp_path / "none.toml")


def test_every_shipped_configuration_loads(repository: Path):
    files = sorted((repository / "conf").glob("*.toml"))
    assert files
    for file in files:
        load_config(file)


@pytest.mark.parametrize(
    "setting",
    [
        {"noise_multiplier": 1.0},
        {"server_noise_multiplier": 1.0},
        {"freeze_lora_a": True},
    ],
)
def test_noise_for_adapters_that_never_leave_is_refused(setting) -> None:
    with pytest.raises(ConfigError, match="pass `-c aggregation=fedavg`"):
        RunConfig(token_epsilon=8.0, **setting)
    RunConfig(token_epsilon=8.0, aggregation="fedavg", **setting)


@pytest.mark.parametrize(
    ("settings", "key_named"),
    [
        ({"teacher": "recorded"}, "teacher"),
        ({"vocabulary": "dataset"}, "vocabulary"),
        ({"bank": "dataset"}, "bank"),
        ({"partitioner": "dirichlet"}, "partitioner"),
        ({"public_share": 0.5}, "public-share"),
        ({"dataset": "gsm8k"}, "vocabulary"),
        ({"dataset": "gsm8k", "vocabulary": "dataset"}, "public-share"),
        (
            {
                "dataset": "gsm8k",
                "vocabulary": "w.safetensors",
                "mechanism": "selection",
            },
            "bank",
        ),
        ({"dataset": "gsm8k", "arms": "random-bank"}, "public-share"),
    ],
)
def test_world_and_datasets_do_not_mix(settings, key_named):
    with pytest.raises(ConfigError, match=f"^`{key_named}` must") as caught:
        RunConfig(token_epsilon=8.0, **settings)
    assert "\n" not in str(caught.value)
    assert "-c " in str(caught.value)


def test_a_dataset_without_a_mechanism_needs_no_public_text():
    config = RunConfig(token_epsilon=8.0, dataset="gsm8k", arms="zero-shot,distil")
    assert config.vocabulary == "world"


def test_raw_questions_go_to_an_endpoint_only_if_that_was_said():
    settings = {"token_epsilon": 8.0, "teacher": "HTTPS://api.example.org/v1"}
    with pytest.raises(ConfigError, match="`arms` must hold none that sends raw"):
        RunConfig(**settings)
    RunConfig(**settings, arms="standalone,fedcot")
    RunConfig(**settings, raw_to_endpoint=True)
