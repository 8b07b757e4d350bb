"""Messages survive the trip, and nothing that is not as declared gets through."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedcot.data.schema import Record
from fedcot.errors import WireError
from fedcot.privacy.ledger import Release
from fedcot.records import (
    ARRAYS,
    CONFIG,
    MOST_RECORDS,
    DistillReply,
    DistillRequest,
    EvaluateReply,
    EvaluateRequest,
    IdentifyReply,
    IdentifyRequest,
    PerturbReply,
    PerturbRequest,
    serialise,
)
from fedcot.rows import (
    ArmScore,
    ArmTraining,
    PerturbedPrompt,
    RawPrompt,
    SentRationale,
)
from tests.grid import as_deployed

KEY = "0f" * 32
OTHER = "1e" * 32
RUN = "0123456789abcdef"


def release(key: str = KEY, ids: tuple[int, ...] = (0, 3, 2), fresh: bool = True):
    return Release(key, ids, "c" * 64, 24.0, fresh)


def adapter(value: float = 0.5) -> dict[str, np.ndarray]:
    return {"a.lora_A": np.full((2, 3), value, np.float32), "b": np.ones(1, np.float32)}


def perturb_reply(**changes) -> PerturbReply:
    reply = PerturbReply(
        partition_id=1,
        slots=3,
        vocabulary_size=5,
        channel_hash="c" * 64,
        prompt_epsilon=24.0,
        spent_record_epsilon=24.0,
        spent_record_delta=1e-6,
        num_fresh=1,
        num_refused=2,
        prompts=(
            PerturbedPrompt(release(), record_key=KEY, fresh=True),
            PerturbedPrompt(release(), record_key=OTHER, fresh=False),
        ),
        raw_prompts=(RawPrompt(KEY, "5 books ü"),),
    )
    return replace(reply, **changes)


TRAINING = ArmTraining(
    num_truncated=0,
    arm="fedcot",
    num_examples=7,
    num_pairs=4,
    num_unparsable=1,
    num_invalid_step=0,
    num_label_mismatch=0,
    num_kept=3,
    label_loss=(1.5, 0.5),
    rationale_loss=(),
    seconds=0.25,
)
SCORE = ArmScore(
    arm="fedcot",
    prompt="explain",
    split="test",
    exact_match=1,
    parsed=3,
    valid_rationales=2,
    num_records=4,
    correct="0100",
)
MESSAGES = [
    IdentifyRequest(
        code_hash="a", student_hash="b", vocabulary_hash="c", dataset_hash="d"
    ),
    IdentifyReply(
        code_hash="a",
        student_hash="b",
        vocabulary_hash="c",
        dataset_hash="d",
        partition_id=1,
        num_partitions=2,
        num_records=9,
        simulated=True,
        raw_prompts_allowed=False,
    ),
    PerturbRequest(
        server_round=1,
        sources=("fedcot", "distil"),
        mechanism="none",
        token_epsilon=float("inf"),  # mechanism `none` states it
        prompt_epsilon=0.0,
        bank=(),
        record_epsilon=250.0,
        channel_hash="c",
        run_key=RUN,
        run_dir="",
    ),
    perturb_reply(),
    perturb_reply(prompts=(), raw_prompts=(), num_fresh=0),
    DistillRequest(
        server_round=2,
        arms=("fedcot",),
        run_key=RUN,
        run_dir="/runs/a",
        rationales=(
            SentRationale(
                source="fedcot", key=KEY, parsed=True, text="1 + 1 = 2", answer="2"
            ),
            SentRationale(source="distil", key=KEY, parsed=False, text="", answer=""),
        ),
        adapters={"fedcot": adapter()},
    ),
    DistillReply(partition_id=0, withheld=False, training=(TRAINING,)),
    DistillReply(partition_id=0, withheld=True, adapters={"fedcot": adapter()}),
    EvaluateRequest(server_round=1, arms=(), final=True, run_key=RUN, run_dir=""),
    EvaluateReply(partition_id=0, withheld=False, scores=(SCORE, SCORE)),
]


def same(left, right) -> bool:
    """Compare two messages; adapters by value."""
    for name in left.__dataclass_fields__:
        mine, theirs = getattr(left, name), getattr(right, name)
        if name != "adapters":
            if mine != theirs:
                return False
            continue
        if mine.keys() != theirs.keys():
            return False
        for arm, tensors in mine.items():
            for key, tensor in tensors.items():
                if not np.array_equal(tensor, theirs[arm][key]):
                    return False
    return True


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_every_message_survives_being_serialised(message):
    received = type(message).decode(as_deployed(message.encode()))
    assert same(message, received)
    # A second encoding gives the same bytes, so sizes are comparable.
    assert serialise(message.encode()) == serialise(received.encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"parsed": 5},  # more than there are
        {"valid_rationales": -1},  # less than none
        {"correct": "010"},  # one record missing
        {"correct": "0a00"},  # something else than a digit
        {"exact_match": 2},  # another count than the digits'
    ],
)
def test_a_score_that_does_not_add_up_is_rejected(changes):
    with pytest.raises(WireError):
        replace(SCORE, **changes)


def test_each_encoding_is_fresh():
    # Flower puts one object into several messages; changing one would change all.
    message = MESSAGES[0]
    assert message.encode()[CONFIG] is not message.encode()[CONFIG]


def with_config(message, **changes) -> RecordDict:
    content = message.encode()
    config = dict(content[CONFIG])
    for key, value in changes.items():
        if value is None:
            del config[key.replace("_", "-").replace("--", ".")]
        else:
            config[key.replace("_", "-").replace("--", ".")] = value
    content[CONFIG] = ConfigRecord(config)
    return content


def with_record(message, name, record) -> RecordDict:
    content = message.encode()
    content[name] = record
    return content


REPLY = MESSAGES[3]
BAD = [
    (with_config(REPLY, slots=None), "lacks the keys slots"),  # missing key
    (with_config(REPLY, extra=1), "1 keys that it must not"),  # surplus key
    (with_config(REPLY, schema="DistillReply/1"), "another schema"),  # other message
    (with_config(REPLY, schema="PerturbReply/2"), "another schema"),  # other version
    (with_config(REPLY, slots="3"), "must be int, found str"),  # text for a number
    (with_config(REPLY, slots=True), "must be int, found bool"),  # bool for a number
    (
        with_config(REPLY, prompt_epsilon=24),
        "must be float, found int",
    ),  # int for float
    (with_config(REPLY, prompt_epsilon=float("nan")), "found nan"),  # NaN
    (with_config(REPLY, prompt_epsilon=-1.0), "must be >= 0"),  # negative epsilon
    (with_config(REPLY, num_refused=-1), "must be >= 0"),  # negative count
    (with_config(REPLY, spent_record_delta=-1e-9), "must be >= 0"),  # negative delta
    (with_config(REPLY, spent_record_delta=float("inf")), "found inf"),  # no delta
    (with_config(REPLY, num_fresh=2), "must count the fresh"),  # wrong count
    (with_config(REPLY, slots=4), "exactly 4 ids"),  # other length than public
    (with_config(REPLY, vocabulary_size=3), "outside the vocabulary"),  # id too large
    (with_config(REPLY, prompts__ids=[0, 3, -2, 0, 3, 2]), "outside"),  # negative id
    (with_config(REPLY, prompts__ids=[0.0] * 6), "must be int"),  # floats for ids
    (with_config(REPLY, prompts__ids="abc"), "must be a list"),  # text for ids
    (with_config(REPLY, prompts__ids=[0, 3, 2]), "must add up to 3"),  # ids missing
    (
        with_config(REPLY, prompts__fresh=[True]),
        "columns of one length",
    ),  # short column
    (
        with_config(REPLY, prompts__record_key=["the private question", OTHER]),
        "hex digest",  # text where a key belongs
    ),
    (
        with_config(REPLY, prompts__record_key=[KEY, KEY]),
        "stands twice",
    ),  # repeated key
    (with_record(REPLY, "more", ConfigRecord({})), "one ConfigRecord"),  # second record
    (with_record(REPLY, "more", MetricRecord({"a": 1})), "one ConfigRecord"),  # metrics
    (
        with_record(REPLY, "arrays.x", ArrayRecord({"a": Array(np.ones(1))})),
        "must not carry arrays",  # arrays in a message without adapters
    ),
    (RecordDict(), "one ConfigRecord"),  # empty
]


@pytest.mark.parametrize(("content", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_reply_is_rejected(content, reason):
    with pytest.raises(WireError, match=reason):
        PerturbReply.decode(content)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (np.ones(2, np.float64), "float32"),  # double precision
        (np.ones(2, np.float16), "float32"),  # would be averaged in fp16
        (np.array([1, np.nan], np.float32), "finite"),  # NaN poisons a mean
        (np.array([1, np.inf], np.float32), "finite"),  # so does infinity
    ],
)
def test_a_bad_adapter_is_rejected_in_both_directions(tensor, reason):
    reply = DistillReply(
        partition_id=0, withheld=True, adapters={"fedcot": {"a": tensor}}
    )
    with pytest.raises(WireError, match=reason):
        reply.encode()
    content = DistillReply(partition_id=0, withheld=True).encode()
    content[ARRAYS + "fedcot"] = ArrayRecord({"a": Array(tensor)})
    with pytest.raises(WireError, match=reason):
        DistillReply.decode(content)


def test_only_a_release_becomes_a_perturbed_prompt():
    # Failure would mean that a raw record can be put on the wire by mistake.
    for raw in ("5 books", Record("5 books", "5", "library"), (KEY, (1, 2)), None):
        with pytest.raises(WireError, match="built from a ledger's Release"):
            PerturbedPrompt(raw, record_key=KEY, fresh=True)


@pytest.mark.parametrize(
    "prompt", [RawPrompt(KEY, "5 books"), "5 books", release(), (1, 2)]
)
def test_nothing_else_stands_among_the_perturbed_prompts(prompt):
    with pytest.raises(WireError, match="PerturbedPrompt only"):
        perturb_reply(prompts=(prompt,), num_fresh=1)


def test_a_prompt_cannot_be_changed_into_another():
    with pytest.raises(TypeError):
        replace(
            PerturbedPrompt(release(), record_key=KEY, fresh=True),
            record_key="the private question",
        )


def test_a_prompt_goes_by_a_pseudonym_only():
    # The ledger's key is the same in every run; a pseudonym is not.
    prompt = PerturbedPrompt(release(KEY, fresh=False), record_key=OTHER, fresh=True)
    assert (prompt.record_key, prompt.fresh) == (OTHER, True)
    with pytest.raises(WireError, match="hex digest"):
        PerturbedPrompt(release(), record_key="the private question", fresh=True)


def test_a_raw_prompt_does_not_go_where_another_type_is_declared():
    reply = perturb_reply()
    object.__setattr__(reply, "prompts", (RawPrompt(KEY, "5 books"),))
    with pytest.raises(WireError, match="may hold PerturbedPrompt only"):
        reply.encode()


def test_text_that_cannot_be_serialised_is_rejected_at_once():
    # A lone surrogate passes in a simulation and fails on a deployed node only.
    request = replace(
        MESSAGES[5],
        rationales=(
            SentRationale(
                source="fedcot", key=KEY, parsed=True, text="\ud800", answer="2"
            ),
        ),
    )
    with pytest.raises(WireError, match="valid Unicode"):
        request.encode()


def test_a_run_key_that_is_a_path_is_rejected():
    for key in ("../../etc", "", "0123456789ABCDEF", "0123456789abcdef/"):
        with pytest.raises(WireError, match="16 hex digits"):
            replace(MESSAGES[5], run_key=key)


def test_a_node_says_a_partition_of_those_and_a_number_of_records_that_can_be():
    identity = MESSAGES[1]
    for good in (1, MOST_RECORDS):
        assert replace(identity, num_records=good).num_records == good
    for bad in (0, MOST_RECORDS + 1, 2**62):
        with pytest.raises(WireError, match=r"from 1 to 10000000 records"):
            replace(identity, num_records=bad)
    for bad in (-1, 2):
        with pytest.raises(WireError, match="`partition-id` must be"):
            replace(identity, partition_id=bad)


def test_a_number_beyond_64_bits_is_rejected():
    with pytest.raises(WireError, match="64 bits"):
        replace(MESSAGES[6], partition_id=2**63).encode()


def test_bytes_are_counted_as_utf_8_and_grow_with_the_content():
    # Flower's own counter counts characters and fails on empty text.
    plain = len(serialise(perturb_reply(raw_prompts=(RawPrompt(KEY, "u"),)).encode()))
    accent = len(serialise(perturb_reply(raw_prompts=(RawPrompt(KEY, "ü"),)).encode()))
    empty = len(serialise(perturb_reply(raw_prompts=(RawPrompt(KEY, ""),)).encode()))
    assert accent == plain + 1
    assert empty == plain - 1
    heavy = DistillReply(
        partition_id=0,
        withheld=True,
        adapters={"fedcot": {"a": np.zeros(1000, np.float32)}},
    )
    assert len(serialise(heavy.encode())) > 4000


@pytest.mark.parametrize(
    "changes",
    [
        {"arms": ("x/../fedcot",)},  # becomes a folder name on the client
        {"arms": ("../../escaped", "fedcot")},
        {"arms": ("teacher",)},
        {"arms": ("fedcot", "fedcot")},  # would be trained twice
        {"adapters": {"../fedcot": {}}},
        {"server_round": 0},
    ],
)
@pytest.mark.parametrize("message", [MESSAGES[5], MESSAGES[8]])
def test_arms_that_are_not_known_are_rejected(message, changes):
    with pytest.raises(WireError, match=r"`(arms|adapters|server-round)` "):
        replace(message, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": ("../fedcot",)},
        {"sources": ("random-bank",)},  # no client sends it
        {"sources": ("fedcot", "fedcot")},
        {"server_round": -1},
    ],
)
def test_sources_that_are_not_known_are_rejected(changes):
    with pytest.raises(WireError, match=r"`(sources|server-round)` "):
        replace(MESSAGES[2], **changes)


@pytest.mark.parametrize("source", ["../../escaped", "self-rationale", ""])
def test_a_rationale_of_an_unknown_source_is_rejected(source):
    with pytest.raises(WireError, match="`source` "):
        SentRationale(source=source, key=KEY, parsed=True, text="", answer="")


def test_rows_of_an_unknown_arm_are_rejected():
    for row in (TRAINING, SCORE):
        with pytest.raises(WireError, match="`arm` "):
            replace(row, arm="../escaped")
    for changes in ({"prompt": "a question"}, {"split": "a question"}):
        with pytest.raises(WireError, match="`prompt` or `split`"):
            replace(SCORE, **changes)


@pytest.mark.parametrize(
    "array",
    [
        Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=b"junk"),
        Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=b""),
        Array(dtype="float32", shape=(2,), stype="another", data=b"junk"),
        Array(
            dtype="float32",
            shape=(2,),
            stype="numpy.ndarray",
            data=b"\x93NUMPY\x01\x00\x08\x00{'a': (\n",
        ),
    ],
)
def test_an_array_that_is_junk_is_rejected(array):
    content = DistillReply(partition_id=0, withheld=True).encode()
    content[ARRAYS + "fedcot"] = ArrayRecord({"a": array})
    with pytest.raises(WireError, match="could not be read"):
        DistillReply.decode(content)


def test_a_rationale_of_any_length_is_not_taken() -> None:
    given = {"source": "fedcot", "key": KEY, "parsed": True, "answer": "7"}
    SentRationale(**given, text="3 + 4 = 7")
    with pytest.raises(WireError, match="at most 4000 signs"):
        SentRationale(**given, text="1 " * 2001)
