"""Random models of many architectures, each in a folder with a tokenizer of its own.

Two layers of 32 numbers, and a tokenizer that is trained on the spot the way the real
ones are: byte-level BPE, BPE with word marks, or unigrams; with and without a token to
begin a text, to pad it, or a chat template.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = (
    "predict: tom has 3 marbles and finds 4 more how many has tom now answer: 7",
    "explain: ann had 9 books and 2 are lent how many books are left rationale:",
    "9 - 2 = 7 answer: 7",
    "how many cats do the two sisters have in all? 5 + 6 = 11 so the answer is 11.",
    "The user asks, the assistant answers: question, choices, reason, yes or no.",
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# As Mistral's and Gemma's: no system role, and turns have to alternate.
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


def byte_level(special: list[str], *, first: str = "", last: str = "") -> Tokenizer:
    """Return BPE over bytes, as GPT-2, Llama 3 and Qwen have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return framed(tokenizer, first, last)


def with_word_marks(special: list[str], *, first: str = "") -> Tokenizer:
    """Return BPE that puts a mark in front of the text, as Llama 2 and Mistral have."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Metaspace(prepend_scheme="first"), decoders.ByteFallback()]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*special, *bytes_], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return framed(tokenizer, first, "")


def unigrams() -> Tokenizer:
    """Return the unigrams that SentencePiece finds, as T5 has them."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=written,
        vocab_size=70,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    scored = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return framed(tokenizer, "", "</s>")


def framed(tokenizer: Tokenizer, first: str, last: str) -> Tokenizer:
    """Put a token in front of every text or behind it."""
    used = [token for token in (first, last) if token]
    if used:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(part for part in (first, "$A", last) if part),
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in used],
        )
    return tokenizer


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}


@dataclass(frozen=True)
class Architecture:
    """A model and a tokenizer that are usual together.

    Attributes
    ----------
    config, model : str
        Names of the classes in transformers.
    tokenizer : callable
        Makes the tokenizer.
    tokens : dict
        Special tokens and chat template of the tokenizer.
    sizes : dict
        Of the configuration.
    """

    config: str
    model: str
    tokenizer: Callable[[], Tokenizer]
    tokens: dict[str, str]
    sizes: dict[str, Any] = field(default_factory=lambda: dict(SIZES))


def _gpt2() -> Tokenizer:
    return byte_level(["<|endoftext|>"])


def _qwen() -> Tokenizer:
    return byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


def _gemma() -> Tokenizer:
    return byte_level(["<pad>", "<eos>", "<bos>", "<unk>"], first="<bos>")


GEMMA = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
QWEN = {
    "pad_token": "<|endoftext|>",
    "eos_token": "<|im_end|>",
    "chat_template": CHATML,
}
END = "<|endoftext|>"
T5 = {
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": 0,
}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}

ARCHITECTURES = {
    # No padding token, as Meta published it.
    "llama": Architecture(
        "LlamaConfig",
        "LlamaForCausalLM",
        lambda: with_word_marks(["<unk>", "<s>", "</s>"], first="<s>"),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
    "qwen2": Architecture(
        "Qwen2Config",
        "Qwen2ForCausalLM",
        _qwen,
        QWEN,
        {**SIZES, "tie_word_embeddings": True},
    ),
    "qwen3": Architecture(
        "Qwen3Config", "Qwen3ForCausalLM", _qwen, QWEN, {**SIZES, "head_dim": 16}
    ),
    "mistral": Architecture(
        "MistralConfig",
        "MistralForCausalLM",
        lambda: with_word_marks(["<unk>", "<s>", "</s>"], first="<s>"),
        {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "chat_template": INSTRUCT,
        },
    ),
    "gemma": Architecture(
        "GemmaConfig", "GemmaForCausalLM", _gemma, GEMMA, {**SIZES, "head_dim": 16}
    ),
    "gemma2": Architecture(
        "Gemma2Config", "Gemma2ForCausalLM", _gemma, GEMMA, {**SIZES, "head_dim": 16}
    ),
    "gemma3": Architecture(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        _gemma,
        {**GEMMA, "chat_template": INSTRUCT},
        {**SIZES, "head_dim": 16, "sliding_window": 16},
    ),
    "gpt2": Architecture(
        "GPT2Config",
        "GPT2LMHeadModel",
        _gpt2,
        {"bos_token": END, "eos_token": END, "unk_token": END},
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
    ),
    "opt": Architecture(
        "OPTConfig",
        "OPTForCausalLM",
        lambda: byte_level(["<s>", "<pad>", "</s>"], first="</s>"),
        {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"},
        {
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 128,
            "word_embed_proj_dim": 32,
        },
    ),
    "phi": Architecture(
        "PhiConfig",
        "PhiForCausalLM",
        _gpt2,
        {"bos_token": END, "eos_token": END},
        {**SIZES, "num_key_value_heads": 2, "embd_pdrop": 0.1, "resid_pdrop": 0.1},
    ),
    "t5": Architecture(
        "T5Config",
        "T5ForConditionalGeneration",
        unigrams,
        {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        T5,
    ),
    "bart": Architecture(
        "BartConfig",
        "BartForConditionalGeneration",
        lambda: byte_level(["<s>", "<pad>", "</s>", "<unk>"], first="<s>", last="</s>"),
        {
            "bos_token": "<s>",
            "cls_token": "<s>",
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "sep_token": "</s>",
        },
        BART,
    ),
}


def save_architecture(name: str, folder: Path, *, seed: int = 0, **changes: Any) -> str:
    """Write a random model and its tokenizer, and return the folder's name.

    Parameters
    ----------
    changes
        Of the configuration.
    """
    made = ARCHITECTURES[name]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made.tokenizer(), **made.tokens
    )
    config = getattr(transformers, made.config)(
        **{
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **made.sizes,
            **changes,
        }
    )
    torch.manual_seed(seed)
    model = getattr(transformers, made.model)(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
