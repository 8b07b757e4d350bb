"""The public control gets exactly as much as the client asks."""

import pytest

from fedcot.data.schema import Record
from fedcot.node_pairs import used_indices
from strategies.questions import bank_prompts
from tests.fakes import tiny_config


@pytest.mark.parametrize(
    ("num_records", "per_round"), [(3, 8), (8, 8), (10, 4), (5, 4), (100, 4)]
)
def test_the_bank_gives_as_many_questions_as_the_client_asks(
    tmp_path, num_records, per_round
):
    rounds = 4
    config = tiny_config(
        tmp_path,
        num_records=200,
        records_per_round=per_round,
        num_server_rounds=rounds,
    )
    bank = [Record(f"question {i}", "1", "public") for i in range(rounds * per_round)]
    seen: set[str] = set()
    for server_round in range(1, rounds + 1):
        prompts = bank_prompts(
            bank,
            config,
            partition_id=1,
            num_records=num_records,
            server_round=server_round,
        )
        used = used_indices(config, 1, server_round, num_records)
        assert len({key for _, key, _ in prompts}) == len(prompts) == len(used[-1])
        seen |= {key for _, key, _ in prompts}
        assert len(seen) == len({index for indices in used for index in indices})
