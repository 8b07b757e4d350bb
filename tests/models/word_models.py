"""Small models with tokenizers trained on the spot, one for each way to split words."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from fedcot.models.sentencepiece_bpe import fast_tokenizer
from tests.models.llama2c_files import train_pieces

TEXTS = (
    "Once upon a time there was a girl. She played with a big red ball in the park.",
    "Tom saw a dog and a small cat. They played all day and went home happy.",
    "The believable story of 12 birds: all were able to fly over the sea, unhappy.",
)


def byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>"
    )


def word_piece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator([text.lower() for text in TEXTS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def word_model(folder: Path, kind: str) -> Path:
    """Save a random model with its tokenizer and return the folder."""
    folder.mkdir()
    torch.manual_seed(0)
    if kind == "byte-level":
        tokenizer = byte_level()
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer),
                n_embd=16,
                n_layer=1,
                n_head=2,
                n_positions=64,
            )
        )
    elif kind == "wordpiece":
        tokenizer = word_piece()
        model = BertModel(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=16,
            )
        )
    else:
        tokenizer = fast_tokenizer(train_pieces(folder))
        if kind == "t5":
            model = T5ForConditionalGeneration(
                T5Config(
                    vocab_size=len(tokenizer), d_model=16, d_kv=4, d_ff=16, num_layers=1
                )
            )
        else:
            model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=16,
                    intermediate_size=16,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    tie_word_embeddings=True,
                )
            )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
