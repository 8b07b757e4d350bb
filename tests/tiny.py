"""A random student small enough to train in a second."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fedcot.models.loading import LoadedModel
from fedcot.models.tokenizer import build_tokenizer


def tiny_base(seed: int = 0) -> LoadedModel:
    """Return a two-layer model with the world's tokenizer."""
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        # With tied embeddings of the usual size, logits are too flat to learn with.
        model.get_input_embeddings().weight.mul_(20)
    model.requires_grad_(False)
    return LoadedModel("tiny", model, tokenizer)
