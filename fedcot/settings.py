"""The settings of a run, by what they decide: names, types, ranges and defaults.

`fedcot.config.RunConfig` joins the groups and checks them together.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Final

from fedcot import rules
from fedcot.rules import at_least, list_of, one_of, setting

ARMS: Final = (
    "zero-shot",
    "standalone",
    "self-rationale",
    "shuffled-rationale",
    "random-bank",
    "distil",
    "fedcot",
)
MECHANISMS: Final = (
    "exponential",
    "rank",
    "adaptive",
    "saliency",
    "selection",
    "rantext",
    "custext",
    "none",
)
# No finite epsilon holds for these: they are for comparison, and need the permission of
# a node's owner like a question that is sent as it is.
UNBOUNDED_MECHANISMS: Final = ("rantext", "custext", "none")
PAIRINGS: Final = ("perturbed", "original", "adapted")
AGGREGATIONS: Final = ("none", "fedavg")
LORA: Final = "lora"
FULL: Final = "full"
TUNINGS: Final = (LORA, FULL)
WORLD_PARTITIONERS: Final = ("domain", "iid")
PARTITIONERS: Final = (
    *WORLD_PARTITIONERS,
    "dirichlet",
    "label",
    "natural-id",
    "size",
)
FEDCOT: Final = "fedcot"
COMMUNITY: Final = "community"
SOCIAL: Final = "social"
MODES: Final = (FEDCOT, COMMUNITY, SOCIAL)
WORLD: Final = "world"
# Where a vocabulary or a bank is made of the dataset's public share.
DATASET: Final = "dataset"
RECORDED: Final = "recorded"
DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS: Final = ("none", "8bit", "4bit")
CHAT_TEMPLATES: Final = ("auto", "none")
TEACHER_APIS: Final = ("chat", "completions")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is compared, on which data, split how."""

    mode: str = setting(
        FEDCOT,
        one_of(*MODES),
        "way of sharing reasoning: rationales of perturbed prompts, the traces of "
        "communities, or what teacher clients say in natural language",
    )
    dataset: str = setting(
        WORLD,
        rules.TEXT,
        "where the questions come from: `world`, a shipped mapping (`fedcot data "
        "list`), or a mapping file of your own",
    )
    data_dir: str = setting(
        "",
        rules.ANY,
        "folder that the files of a mapping lie in; empty: $FEDCOT_DATA. The owner of "
        "a deployed node sets its own in the node config",
    )
    public_share: float = setting(
        0.0,
        rules.PART,
        "share of a dataset's training rows that counts as public: no client holds "
        "them, `bank=dataset` and `vocabulary=dataset` are made of them",
    )
    name: str = setting("main-job", rules.SLUG, "names the run and its directory")
    arms: str = setting(
        "zero-shot,standalone,distil,fedcot",
        list_of(*ARMS),
        "what is compared on the same split; the teacher is always measured",
    )
    num_server_rounds: int = setting(2, at_least(1), "rounds")
    num_partitions: int = setting(
        0, at_least(0), "clients the data is split for; 0: the nodes that are connected"
    )
    fraction_train: float = setting(
        1.0, rules.SHARE, "share of the clients that take part in a round"
    )
    num_records: int = setting(
        1280, at_least(1), "private training questions of all clients together"
    )
    records_per_round: int = setting(
        128, at_least(1), "questions one client may ask per round, at most num-records"
    )
    test_records: int = setting(100, at_least(1), "test questions of one client")
    partitioner: str = setting(
        "domain",
        one_of(*PARTITIONERS),
        "how training records are split: one domain per client, all mixed, shares of "
        "labels drawn from a Dirichlet distribution, one label per client, by the "
        "mapping's natural id, or in Dirichlet sizes (mode social only)",
    )
    dirichlet_alpha: float = setting(
        0.5,
        rules.POSITIVE,
        "how even the shares of `partitioner=dirichlet` are; small: uneven",
    )


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which student, and how models are loaded."""

    student: str = setting(
        "builtin",
        rules.TEXT,
        "`builtin`, a local folder or a Hugging Face id (owner/name or "
        "owner/name@revision)",
    )

    device: str = setting(
        "auto",
        rules.DEVICE,
        "where models run: auto takes a GPU where there is one; cpu, cuda, cuda:1, mps",
    )
    student_dtype: str = setting(
        "float32", one_of(*DTYPES), "number format of the student's base"
    )
    student_quantization: str = setting(
        "none",
        one_of(*QUANTIZATIONS),
        "base in 8 or 4 bits (QLoRA); needs the extra `fedcot[quantized]`",
    )
    gradient_checkpointing: bool = setting(
        False,
        rules.ANY,
        "compute activations twice to need less memory in training; refused with "
        "DP-SGD, which takes records one by one and never does so",
    )
    max_sequence_tokens: int = setting(
        512,
        at_least(8),
        "longest prompt with target that a student reads; longer ones are cut and "
        "counted",
    )
    chat_template: str = setting(
        "auto",
        one_of(*CHAT_TEMPLATES),
        "auto: use a model's chat template where its tokenizer has one",
    )


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """Which teacher, and how it is asked."""

    teacher: str = setting(
        "builtin",
        rules.TEXT,
        "`builtin`, a local folder, a Hugging Face id, the URL of an "
        "OpenAI-compatible endpoint (its key is read from $OPENAI_API_KEY), or "
        "`recorded`: the rationales that the dataset carries",
    )
    teacher_dtype: str = setting(
        "float32", one_of(*DTYPES), "number format of a teacher in this process"
    )
    teacher_quantization: str = setting(
        "none", one_of(*QUANTIZATIONS), "as student-quantization, for the teacher"
    )
    teacher_model: str = setting(
        "",
        rules.ANY,
        "model that an endpoint is asked for; empty: the only one it lists",
    )
    teacher_api: str = setting(
        "chat", one_of(*TEACHER_APIS), "which call of an endpoint is used"
    )
    teacher_batch_size: int = setting(
        64, at_least(1), "prompts the teacher answers together"
    )
    max_new_tokens: int = setting(
        80, at_least(1), "length limit of one rationale, in tokens"
    )

    raw_to_endpoint: bool = setting(
        False,
        rules.ANY,
        "let the arms that send raw questions send them to an endpoint, a third party",
    )
    teacher_temperature: float = setting(
        0.0, rules.NOT_NEGATIVE, "0: greedy; else sampled, with the run's seed"
    )
    teacher_top_p: float = setting(
        1.0, rules.SHARE, "probability mass that sampling keeps"
    )
    teacher_concurrency: int = setting(
        8, at_least(1), "requests to an endpoint at a time"
    )
    teacher_retries: int = setting(
        8, at_least(0), "how often a failed request is sent again, with growing pauses"
    )
    teacher_timeout: float = setting(
        120.0,
        rules.POSITIVE,
        "seconds until an endpoint's reply begins, and again until it ends",
    )
    teacher_requests_per_minute: float = setting(
        0.0, rules.NOT_NEGATIVE, "rate limit of an endpoint; 0: none"
    )
    teacher_input_price: float = setting(
        0.0, rules.NOT_NEGATIVE, "price of a million prompt tokens, for the summary"
    )
    teacher_output_price: float = setting(
        0.0, rules.NOT_NEGATIVE, "price of a million written tokens, for the summary"
    )
    teacher_cache: str = setting(
        "",
        rules.ANY,
        "file that keeps what an endpoint answered, so that nothing is paid for twice; "
        "empty: teacher-cache.sqlite beside the runs. A model in this process uses one "
        "only if it is named",
    )


@dataclass(frozen=True, kw_only=True)
class PrivacySettings:
    """What may leave a client, and at what price."""

    mechanism: str = setting(
        "rank", one_of(*MECHANISMS), "how a private question is perturbed"
    )
    token_epsilon: float = setting(
        MISSING,
        rules.POSITIVE,
        "privacy loss of one token, in nats; no default in the library",
        example=8.0,
    )
    prompt_epsilon: float = setting(
        0.0,
        rules.NOT_NEGATIVE,
        "what one whole prompt may cost, in nats: the budget of `adaptive`, "
        "`saliency` and `selection`, a limit for the others; 0: slots x token-epsilon",
    )
    record_epsilon: float = setting(
        250.0,
        rules.POSITIVE,
        "limit for one record over all rounds, in nats; kept by the client's ledger",
    )
    delta: float = setting(
        1e-6, rules.OPEN_UNIT, "delta at which composed budgets are also stated"
    )
    vocabulary: str = setting(
        "world",
        rules.TEXT,
        "public words that a question is perturbed over: `world`, a file of "
        "`fedcot privacy vocabulary`, or `dataset`: built from the dataset's public "
        "share",
    )
    bank: str = setting(
        "world",
        rules.TEXT,
        "public prompts for `selection`, public texts for `adaptive`: `world`, a "
        "file with one question a line, or `dataset`: the dataset's public share",
    )
    bank_size: int = setting(
        4500, at_least(2), "public prompts that `selection` chooses from, at most"
    )
    bank_variations: bool = setting(
        False,
        rules.ANY,
        "from the second round on, `selection` also chooses from variations of what "
        "a client has released",
    )
    noise_multiplier: float = setting(
        0.0,
        rules.NOISE,
        "DP-SGD noise of adapters that leave a client, in units of max-grad-norm; 0: "
        "no DP-SGD",
    )
    max_grad_norm: float = setting(
        1.0, rules.NORM, "largest norm of one record's gradient under DP-SGD"
    )
    freeze_lora_a: bool = setting(
        False, rules.ANY, "train only the B half of the adapter (FFA-LoRA)"
    )
    server_noise_multiplier: float = setting(
        0.0,
        rules.NOISE,
        "noise of the mean of adapters, in units of server-clipping-norm; 0: none",
    )
    server_clipping_norm: float = setting(
        1.0, rules.NORM, "largest norm of one client's update in the mean"
    )


@dataclass(frozen=True, kw_only=True)
class LearningSettings:
    """How a student learns, and where the run goes."""

    pairing: str = setting(
        "perturbed",
        one_of(*PAIRINGS),
        "question a rationale is paired with in training",
    )
    rationale_weight: float = setting(
        1.0, rules.NOT_NEGATIVE, "weight of the rationale loss beside the label loss"
    )
    aggregation: str = setting(
        "none",
        one_of(*AGGREGATIONS),
        "personal adapters that stay with the client, or their mean",
    )
    local_epochs: int = setting(8, at_least(1), "passes over the pairs per round")
    batch_size: int = setting(16, at_least(1), "examples per training step")
    evaluation_batch_size: int = setting(
        128, at_least(1), "test questions that a student answers together"
    )
    tuning: str = setting(
        LORA,
        one_of(*TUNINGS),
        "what of the student is trained: an adapter, or all weights, in float32, each "
        "student a whole model; `full` needs a lower learning-rate, as 1e-3 for the "
        "built-in student",
    )
    learning_rate: float = setting(
        5e-3, rules.POSITIVE, "peak learning rate; the default is for adapters"
    )
    lora_r: int = setting(16, at_least(1), "rank of the LoRA matrices")
    lora_alpha: int = setting(32, at_least(1), "LoRA scale; lora-alpha / lora-r")
    lora_dropout: float = setting(
        0.0, rules.DROPOUT, "dropout before the LoRA matrices"
    )
    target_modules: str = setting(
        "all-linear,embeddings",
        rules.TEXT,
        "modules that get an adapter, by name; all-linear: as in PEFT, embeddings: the "
        "input embedding, auto: PEFT's choice for the architecture",
    )
    seed: int = setting(
        0, at_least(0), "seed of data, sampling and training; never of the mechanism"
    )
    run_dir: str = setting("", rules.ANY, "run directory; empty: runs/<time>-<name>")
    resume: bool = setting(
        False,
        rules.ANY,
        "go on with the run that run-dir holds; `fedcot resume` sets it",
    )
    phase_timeout: float = setting(
        3600.0, rules.POSITIVE, "time limit of one phase, in seconds"
    )
    test_tape: bool = setting(
        False, rules.ANY, "seeded draws for tests; such a run has no guarantee"
    )
