"""The command line: exit codes, one line per error, nothing written on bad input."""

import json
import os
import re
import subprocess
import sys

import pytest

from fedcot.cli import main


def call(capsys, *arguments):
    """Run a command in this process; return exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def run_process(folder, *arguments):
    """Run a command as a user does, in a folder of its own."""
    return subprocess.run(
        [sys.executable, "-m", "fedcot.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


BAD_RUNS = [
    (["-c", "token-epsilon=0"], "token-epsilon"),
    (["-c", "token-epsilon=-1.5"], "token-epsilon"),
    (["-c", "token-epsilon=nan"], "token-epsilon"),
    (["-c", "token-epsilon=inf"], "token-epsilon"),
    (["-c", "mechanism=santext"], "mechanism"),
    (["-c", "delta=0"], "delta"),
    (["-c", "delta=1"], "delta"),
    (["-c", "teacher=no-such-folder"], "no such model folder"),
    (["-c", "student=./no/such/folder"], "no such model folder"),
    (["-c", "num-records=128", "--num-supernodes", "129"], "num-partitions"),
    (["-c", "num-partitions=3", "--num-supernodes", "2"], "num-partitions"),
    (["-c", "prompt-epsilon=5"], "prompt-epsilon"),
    (["--run-dir", "a-file"], "a-file"),
    (["--run-dir", "a-file/below"], "a-file"),
    (["-c", "seed"], "key=value"),
    (["-c", "test-tape=1"], "test-tape"),
    (["-c", "learning-rate=fast"], "learning-rate"),
    (["-c", "tokn-epsilon=8"], "token-epsilon"),
    (["--config", "none.toml"], "--config"),
    (["--num-supernodes", "0"], "--num-supernodes"),
    (["--num-supernodes", "five"], "--num-supernodes"),
    (["--unknown"], "--unknown"),
    (["extra"], "extra"),
]


@pytest.mark.parametrize(("arguments", "named"), BAD_RUNS)
def test_bad_input_is_one_line_exit_2_and_nothing_is_written(
    arguments, named, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").write_text("kept")

    code, out, err = call(capsys, "run", *arguments)

    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert named in err
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]
    assert (tmp_path / "a-file").read_text() == "kept"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-c", "token-epsilon=0"],
        ["run", "--run-dir", "a-file"],
        ["run", "-c", "nonsense"],
        ["report", "none"],
        ["nonsense"],
        ["privacy", "verify"],
    ],
)
def test_a_real_process_says_one_line_and_no_traceback(tmp_path, arguments):
    (tmp_path / "a-file").touch()
    done = run_process(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


def test_an_earlier_run_is_never_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "summary.json").write_text("{}")
    code, _, err = call(capsys, "run", "--run-dir", "old")
    assert code == 2
    assert "earlier run" in err


def test_help_names_every_setting_and_loads_no_heavy_library(tmp_path):
    code = (
        "import sys\nfrom fedcot.cli import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit as end:\n"
        "    heavy = {'torch', 'flwr', 'transformers'} & set(sys.modules)\n"
        "    sys.exit(f'loaded {heavy}' if heavy else end.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for key in ("token-epsilon", "lora-r", "num-server-rounds", "run-dir"):
        assert key in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "import",
        "convert",
        "traces add",
        "resume",
        "report",
        "community",
        "export merged",
        "privacy ledger",
    ],
)
def test_help_says_what_an_argument_is_and_which_is_needed(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "\\[" not in shown
    arguments = shown.split("Arguments:\n")[1].split("\n\n")[0]
    for line in arguments.splitlines():
        assert re.fullmatch(r"  \S+  .{10,}\[required\]", line), line


def test_version(capsys):
    from fedcot import __version__

    code, out, _ = call(capsys, "--version")
    assert (code, out.strip()) == (0, __version__)


@pytest.mark.parametrize("mechanism", ["rank", "exponential", "adaptive"])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0, 8.0])
def test_verify_enumerates_what_was_asked_for(mechanism, epsilon, capsys):
    code, out, _ = call(
        capsys,
        "privacy",
        "verify",
        "--mechanism",
        mechanism,
        "--token-epsilon",
        str(epsilon),
        "--json",
    )
    found = json.loads(out)
    assert code == 0
    assert epsilon - 0.02 <= found["exact_epsilon"] <= epsilon
    assert found["unit"] == "nats, one token"


def test_verify_asks_selection_for_the_epsilon_of_a_prompt(capsys):
    arguments = ["privacy", "verify", "--mechanism", "selection"]
    code, out, _ = call(capsys, *arguments, "--prompt-epsilon", "4", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["unit"] == "nats, one whole prompt"
    assert 3.98 <= found["exact_epsilon"] <= 4.0
    code, _, err = call(capsys, *arguments, "--token-epsilon", "4")
    assert code == 2
    assert "`--prompt-epsilon` must be given" in err


@pytest.mark.parametrize("mechanism", ["none", "rantext", "custext"])
def test_verify_fails_for_a_mechanism_without_a_finite_bound(mechanism, capsys):
    code, out, _ = call(
        capsys, "privacy", "verify", "--mechanism", mechanism, "--token-epsilon", "8"
    )
    assert code == 3
    assert "inf (nats, one token)" in out
    assert "does NOT hold" in out
    assert ("inside one of" in out) == (mechanism == "custext")


def test_a_vocabulary_file_is_built_and_verified(tmp_path, capsys):
    text = tmp_path / "public.txt"
    words = [chr(97 + n // 10) + chr(97 + n % 10) for n in range(80)]
    lines = [" ".join(words[n:] + words[:n]) for n in range(len(words))]
    text.write_text("\n".join(lines), encoding="utf-8")
    built = tmp_path / "words.safetensors"
    given = ["--text", str(text), "--output", str(built), "--slots", "6"]
    code, out, err = call(capsys, "privacy", "vocabulary", *given, "--json")
    if code == 2:
        pytest.fail(err)
    assert json.loads(out)["slots"] == 6
    for mechanism in ("rank", "exponential", "adaptive"):
        code, out, _ = call(
            capsys,
            "privacy",
            "verify",
            *("--mechanism", mechanism, "--token-epsilon", "2", "--json"),
            *("--vocabulary", str(built), "--public-text", str(text)),
        )
        found = json.loads(out)
        assert code == 0
        assert found["slots"] == 6
        assert 1.98 <= found["exact_epsilon"] <= 2.0


def test_plan_states_every_unit(capsys):
    code, out, _ = call(capsys, "privacy", "plan", "--token-epsilon", "6", "--json")
    planned = json.loads(out)
    assert code == 0
    assert planned["prompt_epsilon"] == pytest.approx(6.0 * planned["slots"])
    assert planned["record_epsilon"] >= planned["record_epsilon_at_delta"] > 0
    assert planned["neighboring_relation"] == "REPLACE_SPECIAL"


def test_plan_takes_another_length(capsys):
    _, out, _ = call(
        capsys, "privacy", "plan", "--token-epsilon", "2", "--slots", "30", "--json"
    )
    # Thirty tokens at 2 nats each are 60 for the prompt.
    assert json.loads(out)["prompt_epsilon"] == pytest.approx(60.0)


def test_doctor_reports_what_a_run_would_use(capsys):
    code, out, _ = call(capsys, "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code in (0, 3)
    assert {"python", "torch", "flower-superlink", "code"} <= checks.keys()
    assert (code == 0) == all(check["ok"] for check in checks.values())


def test_pretrain_refuses_a_file(tmp_path, capsys):
    (tmp_path / "file").touch()
    code, _, err = call(capsys, "pretrain", "--output", str(tmp_path / "file"))
    assert code == 2
    assert len(err.strip().splitlines()) == 1


def planned(tmp_path, capsys, text: str, *arguments: str) -> tuple[dict, str]:
    """Return a configuration's plan as JSON and as text."""
    config = tmp_path / "plan.toml"
    config.write_text(text)
    command = ("privacy", "plan", "--config", str(config), *arguments)
    _, out, _ = call(capsys, *command, "--json")
    _, shown, _ = call(capsys, *command)
    return json.loads(out), shown


def test_a_plan_under_a_tape_guarantees_nothing(tmp_path, capsys):
    content, shown = planned(tmp_path, capsys, "test-tape = true\n")
    assert content["token_epsilon"] == content["record_epsilon"] == "inf"
    assert "seeded" in content["guarantee"]
    assert "token epsilon   inf nats" in shown


def test_a_plan_without_a_mechanism_has_the_limit_that_the_run_has(tmp_path, capsys):
    content, shown = planned(tmp_path, capsys, 'mechanism = "none"\n')
    assert content["record_limit"] == "inf"
    assert content["within_limit"] is True
    assert "OVER" not in shown


def test_a_plan_names_every_arm_and_the_worst(tmp_path, capsys):
    content, shown = planned(tmp_path, capsys, "")
    arms = content["per_arm"]
    assert list(arms) == ["zero-shot", "standalone", "distil", "fedcot"]
    assert arms["distil"]["record_epsilon"] == "inf"
    assert arms["fedcot"]["record_epsilon"] == content["record_epsilon"]
    assert content["worst_arm"] == "distil"
    assert "worst arm       distil: inf nats" in shown
    content, _ = planned(tmp_path, capsys, 'arms = "standalone,fedcot"\n')
    assert content["worst_arm"] == "fedcot"
    text = 'arms = "fedcot"\naggregation = "fedavg"\npairing = "original"\n'
    content, _ = planned(tmp_path, capsys, text)
    assert content["per_arm"]["fedcot"]["record_epsilon"] == "inf"


def test_doctor_plans_as_the_run_does_and_names_the_worst_arm(capsys):
    _, out, _ = call(capsys, "doctor", "-c", "mechanism=none", "--json")
    checks = json.loads(out)["checks"]
    limit = [check for check in checks if check["name"] == "record limit"]
    assert [check["ok"] for check in limit] == [True]
    shown = " ".join(check["found"] for check in checks if check["name"] == "privacy")
    assert "worst arm distil: inf nats" in shown


def test_doctor_fetches_nothing(monkeypatch, capsys):
    import huggingface_hub

    asked = []

    def download(source, **options):
        asked.append((source, options["local_files_only"]))
        raise OSError("not here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    code, out, _ = call(capsys, "doctor", "-c", "teacher=nobody/model", "--json")
    assert set(asked) == {("nobody/model", True)}
    assert code == 3
    assert "nobody/model" in out


def test_the_prompt_limit_holds_under_a_tape_as_well(tmp_path, monkeypatch):
    from fedcot.budget import check_prompt_epsilon, plan_run, world_channel
    from fedcot.config import RunConfig
    from fedcot.errors import ConfigError

    for tape in (False, True):
        fits = RunConfig(token_epsilon=8.0, prompt_epsilon=1000.0, test_tape=tape)
        check_prompt_epsilon(fits, plan_run(fits, world_channel(fits)))
        over = RunConfig(token_epsilon=8.0, prompt_epsilon=5.0, test_tape=tape)
        with pytest.raises(ConfigError, match="`prompt-epsilon`"):
            check_prompt_epsilon(over, plan_run(over, world_channel(over)))


def test_verify_rounds_up_and_says_for_what(capsys):
    arguments = ["privacy", "verify", "--mechanism", "rank", "--token-epsilon", "2.0"]
    _, out, _ = call(capsys, *arguments, "--json")
    _, shown, _ = call(capsys, *arguments)
    exact = json.loads(out)["exact_epsilon"]
    printed = float(shown.split("words: ")[1].split(" (nats, one token)")[0])
    assert exact <= printed <= exact + 1e-4
    assert "neighbours REPLACE_SPECIAL" in shown
