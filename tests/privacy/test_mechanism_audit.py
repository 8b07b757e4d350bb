"""`fedcot privacy audit`: what it says, and its exit code when a claim is broken."""

import json

import numpy as np
import pytest

import fedcot.cli.audit  # noqa: F401
from fedcot import mechanism_audit
from fedcot.cli import main
from fedcot.config import load_config
from fedcot.mechanism_audit import audit_mechanism, reduced_channel
from fedcot.privacy.audit import HOLDS, NO_CLAIM, VIOLATED
from fedcot.privacy.end_to_end import reduced_vocabulary
from fedcot.privacy.rank import RankChannel
from fedcot.privacy.sampler import TapeRandomSource
from fedcot.privacy.vocabulary import world_vocabulary


def audit(capsys, *arguments):
    """Run the command in this process; return exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as caught:
        main(["privacy", "audit", *arguments, "--draws", "20000"])
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_a_right_mechanism_passes_with_every_number_and_its_unit(capsys):
    code, out, _ = audit(
        capsys, "--mechanism", "rank", "--token-epsilon", "4", "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert found["violated"] is False
    assert 3.99 < found["exact"]["epsilon"] <= found["exact"]["claimed"] <= 4
    assert found["end_to_end"]["verdict"] == HOLDS
    assert found["drawn"]["lower_bound"] <= found["drawn"]["claimed"]
    assert found["attack"]["bayes_success"] <= found["attack"]["bayes_bound"]
    assert found["sampler_p_value"] > 1e-9
    units = [found[part]["unit"] for part in ("exact", "end_to_end", "drawn", "attack")]
    assert all(units)
    assert "zero-out" in found["adjacency"]


def test_a_person_reads_a_verdict(capsys):
    code, out, _ = audit(capsys, "--mechanism", "none", "--token-epsilon", "4")
    assert code == 0
    assert "not violated" in out
    assert NO_CLAIM in out
    assert "inf nats, one token" in out


@pytest.fixture
def larger_exponent(monkeypatch):
    """Every channel claims epsilon 4 and has the weights of 4.8."""

    def claims_less(channel):
        honest = RankChannel(world_vocabulary(), 4.0)
        channel.token_epsilon = honest.token_epsilon
        return channel

    monkeypatch.setattr(
        mechanism_audit,
        "configured_channel",
        lambda config: claims_less(RankChannel(world_vocabulary(), 4.8)),
    )
    monkeypatch.setattr(
        mechanism_audit,
        "build_channel",
        lambda name, vocabulary, *_, **__: claims_less(RankChannel(vocabulary, 4.8)),
    )


@pytest.mark.usefixtures("larger_exponent")
def test_a_broken_claim_is_found_in_every_way_and_ends_with_3(capsys):
    code, out, _ = audit(
        capsys, "--mechanism", "rank", "--token-epsilon", "4", "--json"
    )
    found = json.loads(out)
    assert code == 3
    assert found["violated"] is True
    assert found["exact"]["verdict"] == VIOLATED
    assert found["end_to_end"]["verdict"] == VIOLATED
    assert found["end_to_end"]["violations"]
    assert found["drawn"]["verdict"] == VIOLATED
    assert found["attack"]["bayes_success"] > found["attack"]["bayes_bound"]


@pytest.mark.usefixtures("larger_exponent")
def test_a_person_reads_which_texts_break_the_claim(capsys):
    code, out, _ = audit(capsys, "--mechanism", "rank", "--token-epsilon", "4")
    assert code == 3
    assert "VIOLATED 1 of 2 tokens replaced, '" in out
    assert out.splitlines()[-1].endswith("VIOLATED")


def test_a_sampler_that_leaves_its_weights_is_found(tmp_path, monkeypatch):
    class Biased(RankChannel):
        def sample(self, ids, source):
            drawn = super().sample(ids, source)
            return np.where(source.below(np.full(ids.shape, 20)) == 0, 0, drawn)

    monkeypatch.setattr(
        mechanism_audit,
        "configured_channel",
        lambda config: Biased(world_vocabulary(), 4.0),
    )
    config = load_config(None, {"mechanism": "rank", "token-epsilon": 4.0})
    found = audit_mechanism(config, tmp_path, draws=20_000, source=TapeRandomSource(0))
    assert found.sampler_p_value < 1e-9
    assert found.is_violated
    assert found.exact.verdict == HOLDS


def test_a_total_for_the_prompt_is_scaled_to_the_slots():
    config = load_config(
        None, {"mechanism": "adaptive", "token-epsilon": 4.0, "prompt-epsilon": 42.0}
    )
    vocabulary = reduced_vocabulary(world_vocabulary())
    assert reduced_channel(config, vocabulary).prompt_epsilon == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--mechanism", "santext", "--token-epsilon", "4"], "mechanism"),
        (["--mechanism", "rank", "--token-epsilon", "0"], "token-epsilon"),
        (["--mechanism", "rank"], "--token-epsilon"),
    ],
)
def test_wrong_usage_is_one_line_and_2(capsys, arguments, named):
    code, out, err = audit(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert named in err
    assert "Traceback" not in err
