"""Random models of many architectures, with the world's tokenizer."""

from collections.abc import Callable

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BloomConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)

from fedcot.models.loading import LoadedModel
from fedcot.models.tokenizer import build_tokenizer

_TOKENIZER = build_tokenizer()
_COMMON = {
    "vocab_size": len(_TOKENIZER),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
}
_LLAMA_LIKE = {
    **_COMMON,
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_LLAMA_LIKE),
    "qwen2": lambda: Qwen2Config(**_LLAMA_LIKE),
    "qwen3": lambda: Qwen3Config(**_LLAMA_LIKE, head_dim=8),
    "gemma": lambda: GemmaConfig(**_LLAMA_LIKE, head_dim=8),
    "phi": lambda: PhiConfig(**_LLAMA_LIKE),
    "gpt2": lambda: GPT2Config(**_COMMON, n_positions=256),
    "opt": lambda: OPTConfig(
        **_COMMON, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=256
    ),
    "bloom": lambda: BloomConfig(**_COMMON),
    "mistral": lambda: MistralConfig(**_LLAMA_LIKE, sliding_window=6),
    "gemma2": lambda: Gemma2Config(**_LLAMA_LIKE, head_dim=8, sliding_window=6),
    "t5": lambda: T5Config(
        **{**_COMMON, "tie_word_embeddings": True},
        d_kv=8,
        d_ff=48,
        num_decoder_layers=2,
        decoder_start_token_id=0,
    ),
    "bart": lambda: BartConfig(
        vocab_size=len(_TOKENIZER),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
    ),
}
# Their keys and values belong to one token each.
CACHED = ("llama", "qwen2", "qwen3", "gemma", "phi", "gpt2", "opt", "bloom")
WINDOWED = ("mistral", "gemma2")
ENCODER_DECODER = ("t5", "bart")


def tiny_kind(kind: str, *, seed: int = 0, scale: float = 0.3) -> LoadedModel:
    """Return a model with weights so large that no two tokens come near a tie.

    Parameters
    ----------
    scale : float
        Standard deviation of the matrices.
    """
    config = CONFIGS[kind]()
    apart = bool(config.is_encoder_decoder)
    auto = AutoModelForSeq2SeqLM if apart else AutoModelForCausalLM
    torch.manual_seed(seed)
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=scale)
    model.requires_grad_(False)
    return LoadedModel(kind, model, _TOKENIZER, is_encoder_decoder=apart)


def one_by_one(
    loaded: LoadedModel, ids: list[int], steps: int
) -> tuple[list[int], float]:
    """Decode greedily without cache, padding or batching.

    Returns
    -------
    ids, gap
        What was written, the end token included; the smallest distance in nats between
        a token that was taken and the next likely one.
    """
    written: list[int] = []
    gap = float("inf")
    start = loaded.model.generation_config.decoder_start_token_id
    with torch.inference_mode():
        for _ in range(steps):
            if loaded.is_encoder_decoder:
                inputs = {
                    "input_ids": torch.tensor([ids]),
                    "decoder_input_ids": torch.tensor([[start, *written]]),
                }
            else:
                inputs = {"input_ids": torch.tensor([ids + written])}
            logits = loaded.model(**inputs, use_cache=False).logits[0, -1]
            best = logits.topk(2)
            gap = min(gap, float(best.values[0] - best.values[1]))
            written.append(int(best.indices[0]))
            if written[-1] == loaded.tokenizer.eos_token_id:
                break
    return written, gap
