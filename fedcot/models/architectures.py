"""Sizes of the built-in models, all Llama-type."""

from transformers import LlamaConfig


def _config(
    vocabulary_size: int, *, hidden: int, layers: int, heads: int, inner: int, end: int
) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=end,
    )


def teacher_config(vocabulary_size: int) -> LlamaConfig:
    """Return the teacher's configuration: 1.8 million parameters."""
    return _config(vocabulary_size, hidden=192, layers=4, heads=6, inner=512, end=1)


def student_config(vocabulary_size: int) -> LlamaConfig:
    """Return the student base's configuration: 0.7 million parameters.

    Its initial weights are wider than the usual 0.02: tied to so narrow an embedding,
    logits stay flat for long.
    """
    config = _config(vocabulary_size, hidden=128, layers=4, heads=4, inner=256, end=1)
    config.initializer_range = 0.07
    return config


def public_lm_config(vocabulary_size: int) -> LlamaConfig:
    """Return the public language model's configuration: 0.1 million parameters."""
    return _config(vocabulary_size, hidden=64, layers=2, heads=4, inner=160, end=0)
