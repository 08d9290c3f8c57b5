"""A Qwen2-VL small enough to train on a laptop, from random weights, in the official format."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)
from transformers.utils import logging

from mmeb.demo import demo_folder
from mmeb.demo.folder import made_once
from mmeb.tasks import PLACEHOLDER

VERSION = 1  # another one is another model

_SEED = 0
_VOCABULARY = 2048
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")
_IMAGE, _VIDEO = "<|image_pad|>", "<|video_pad|>"
_SIDE = 112  # pixels: 64 patches, merged to 16 tokens
_WIDTH = 128
_INITIAL = 0.06  # standard deviation; from the usual 0.02 so small a network takes thousands of steps to set out


def demo_vlm_folder() -> Path:
    """The model's files, in the demo's cache; they are made on the first call. Raises MmebError as `demo_folder`."""
    return made_once(f"demo-vlm-v{VERSION}", write_demo_vlm)


def write_demo_vlm(folder: Path) -> None:
    """Write configuration, random weights, image processor, and a tokenizer learned from the demo's training rows."""
    tokenizer = _tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (*_SPECIAL, _IMAGE, _VIDEO)}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": _WIDTH,
            "intermediate_size": 4 * _WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 6, 6]},
            "initializer_range": _INITIAL,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
        },
        vision_config={
            "depth": 3,
            "embed_dim": _WIDTH,
            "hidden_size": _WIDTH,
            "num_heads": 4,
            "mlp_ratio": 4,
            "initializer_range": _INITIAL,
        },
        image_token_id=ids[_IMAGE],
        video_token_id=ids[_VIDEO],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = Qwen2VLForConditionalGeneration(config)
    logging.disable_progress_bar()  # of a single small file
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    tokenizer.save_pretrained(folder)
    area = _SIDE**2
    Qwen2VLImageProcessorPil(size={"shortest_edge": area, "longest_edge": area}).save_pretrained(folder)


def _tokenizer() -> PreTrainedTokenizerFast:
    """Byte pairs of the demo's training rows: no rows of the benchmark itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in (*_SPECIAL, _IMAGE, _VIDEO)]
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


def _texts() -> Iterator[str]:
    for path in sorted((demo_folder() / "MMEB-train").glob("*/original-*.parquet")):
        for column in pq.read_table(path, columns=["qry", "pos_text", "neg_text"]).columns:
            yield from (text.replace(PLACEHOLDER, "") for text in column.to_pylist() if text)
