"""The recipes that have a name: settings, what they need, and where their numbers come from.

Nobody has measured memory and time at full size here: they are estimates, by the rules in docs/training.md.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mmeb.errors import MmebError
from mmeb.training.recipe import LoraSettings, Recipe


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe with its `name`, which is its adapter's for the default one.

    `memory` and `time` say what it needs; `sources` say where settings come from, by setting.
    """

    name: str
    recipe: Recipe
    memory: str = "not estimated"
    time: str = "not estimated"
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """What stands above the settings where the recipe is shown."""
        return f"Recipe {self.name}\nMemory: {self.memory}\nTime: {self.time}"


_PAPER = "VLM2Vec paper (arXiv 2410.05160) and README of TIGER-AI-Lab/VLM2Vec, branch v1"
_LORA = (
    "Alpha, dropout and DoRA: src/arguments.py and src/model.py of VLM2Vec, branch v1. Rank 8: the names of the\n"
    "published runs; the README's examples say 16. Targets: those of the reference's list that match a module here."
)
_BATCH = f"{_PAPER}. Any number of processes share it."
_SUB_BATCH = "Ours: moves memory and speed, not the result (but for where dropout falls)."
_VLM_SOURCES = {
    "lora": _LORA,
    "gradient_checkpointing": _SUB_BATCH,
    "limit": "The paper's cap for Phi-3.5-V is 50,000 rows a subset, the later models' 100,000; a seeded sample.",
    "batch_size": _BATCH,
    "sub_batch_tokens": _SUB_BATCH,
    "temperature": f"{_PAPER}.",
    "mask_equal_targets": "Ours: the reference counts copies of the positive as negatives.",
    "steps": f"{_PAPER}, with the learning rate, its warm-up and its schedule.",
    "seed": "The default of the library's trainer, as in the reference.",
}
_SMALL_SOURCES = {
    **_VLM_SOURCES,
    "batch_size": "Ours: a quarter of the paper's, for a run of days instead of weeks.",
}
_PAIR_SOURCES = {
    "options": "Ours: MMEB's instructions in front of the text, and unit vectors added.",
    "batch_size": f"That of the VLMs ({_PAPER}): the paper names none for its fine-tuned CLIP.",
    "temperature": f"{_PAPER}.",
    "sub_batch_size": _SUB_BATCH,
    "steps": "Those of the VLMs, with learning rate and warm-up: the paper names none for its fine-tuned CLIP.",
    "weight_decay": "Ours.",
}

_TOWER = ("q_proj", "k_proj", "v_proj", "out_proj")  # what the reference's list matches in a CLIP tower
_PHI35V = Recipe(
    adapter="phi35v",
    model="microsoft/Phi-3.5-vision-instruct",
    options={"num_crops": "4", "max_length": "256"},
    lora=LoraSettings(("qkv_proj", "o_proj", "gate_up_proj", "down_proj", *_TOWER)),
    gradient_checkpointing=True,
    limit=50_000,
    sub_batch_tokens=16_384,
)
_LLAVA_NEXT = Recipe(
    adapter="llava-next",
    model="llava-hf/llava-v1.6-mistral-7b-hf",
    options={"image_resolution": "high"},
    lora=LoraSettings((*_TOWER, "o_proj", "down_proj")),
    gradient_checkpointing=True,
    limit=100_000,
    sub_batch_tokens=16_384,
)
_QWEN2_VL = Recipe(
    adapter="qwen2-vl",
    model="Qwen/Qwen2-VL-2B-Instruct",
    options={"image_resolution": "high", "max_length": "4096"},
    lora=LoraSettings(("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")),
    gradient_checkpointing=True,
    limit=100_000,
    sub_batch_tokens=16_384,
)
_CLIP = Recipe(
    adapter="clip",
    model="clip-vit-l14",
    options={"text": "instruction"},
    limit=100_000,
    sub_batch_size=32,
    weight_decay=0.01,
)

_DEMO = Recipe(
    adapter="demo",
    negatives=0,
    batch_size=32,
    temperature=0.07,
    steps=3000,
    learning_rate=1e-3,
    warmup_steps=100,
    schedule="cosine",
    weight_decay=0.01,
    seed=0,
)

_TABLE = (
    NamedRecipe(
        "phi35v",
        _PHI35V,
        "estimate 20 GiB: weights 7.7 in bfloat16, adapter and optimizer 0.3, activations of a sub-batch 12",
        "estimate 57 hours on one H100, 7 on eight",
        {**_VLM_SOURCES, "options": f"{_PAPER}: 4 crops, text cut at 256 tokens."},
    ),
    NamedRecipe(
        "phi35v-24gb",
        replace(_PHI35V, batch_size=256, sub_batch_tokens=4_096),
        "estimate 12 GiB: weights 7.7 in bfloat16, adapter and optimizer 0.3, activations of a sub-batch 4",
        "estimate 4 days on one GPU of 60 TFLOP/s",
        {**_SMALL_SOURCES, "options": f"{_PAPER}: 4 crops, text cut at 256 tokens."},
    ),
    NamedRecipe(
        "phi35v-full",
        replace(_PHI35V, lora=None, batch_size=2048),
        "estimate 80 GiB: weights, gradients and optimizer 62 in float32, bfloat16 copies 8, activations of a\n"
        "sub-batch 10; on smaller GPUs shared out by --fsdp",
        "estimate 140 hours on one H100, 18 on eight",
        {**_VLM_SOURCES, "batch_size": "README of VLM2Vec, branch v1; the paper's table says 1024."},
    ),
    NamedRecipe(
        "llava-next",
        _LLAVA_NEXT,
        "estimate 28 GiB: weights 14 in bfloat16, adapter and optimizer 0.4, activations of a sub-batch 13",
        "estimate 310 hours on one H100, 39 on eight",
        {
            **_VLM_SOURCES,
            "options": f"{_PAPER}: images stretched to 1344 x 1344.",
            "batch_size": f"{_PAPER}; the model card says 2048.",
        },
    ),
    NamedRecipe(
        "llava-next-24gb",
        replace(
            _LLAVA_NEXT,
            options={"image_resolution": "low"},
            freeze_tower=True,
            lora=LoraSettings(("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")),
            batch_size=256,
            sub_batch_tokens=4_096,
            steps=1000,
        ),
        "estimate 18 GiB: weights 14 in bfloat16, adapter and optimizer 0.4, activations of a sub-batch 4",
        "estimate 4.5 days on one GPU of 60 TFLOP/s",
        {
            **_SMALL_SOURCES,
            "options": "Ours: images at 128 x 128 are 1176 tokens, at 1344 x 1344 they are 2928.",
            "freeze_tower": "Ours: no activations of the tower are kept.",
            "steps": "Ours: half the paper's.",
        },
    ),
    NamedRecipe(
        "qwen2-vl",
        _QWEN2_VL,
        "estimate 11 GiB: weights 4.1 in bfloat16, adapter and optimizer 0.2, activations of a sub-batch 7; of the\n"
        "7B model (--base Qwen/Qwen2-VL-7B-Instruct) 27 GiB",
        "estimate 140 hours on one H100, 18 on eight",
        {**_VLM_SOURCES, "options": f"{_PAPER}: images stretched to 1344 x 1344, 4096 tokens."},
    ),
    NamedRecipe(
        "qwen2-vl-24gb",
        replace(
            _QWEN2_VL,
            options={"image_resolution": "mid", "max_length": "4096"},
            batch_size=256,
            sub_batch_tokens=4_096,
        ),
        "estimate 7 GiB: weights 4.1 in bfloat16, adapter and optimizer 0.2, activations of a sub-batch 2; of the\n"
        "7B model (--base Qwen/Qwen2-VL-7B-Instruct) 19 GiB",
        "estimate 44 hours on one GPU of 60 TFLOP/s",
        {**_SMALL_SOURCES, "options": "Ours: images stretched to 672 x 672, a quarter of the tokens."},
    ),
    NamedRecipe(
        "qwen2.5-vl",
        replace(
            _QWEN2_VL,
            adapter="qwen2.5-vl",
            model="Qwen/Qwen2.5-VL-3B-Instruct",
            options={"image_resolution": "dynamic", "max_pixels": str(1280 * 28**2)},
            lora=LoraSettings(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")),
            freeze_tower=True,
        ),
        "estimate 16 GiB: weights 7 in bfloat16, adapter and optimizer 0.4, activations of a sub-batch 8",
        "estimate 50 hours on one H100, 6 on eight, with images of 800 tokens on average",
        {
            **_VLM_SOURCES,
            "options": "Ours: no VLM2Vec was published on it. Images at their own size, up to 1280 tokens.",
            "lora": "As for qwen2-vl, with the gates that the reference's later branch adds.",
            "freeze_tower": "Ours: as in qwen2-vl, whose tower the reference's targets do not match.",
        },
    ),
    NamedRecipe(
        "e5v",
        replace(_LLAVA_NEXT, adapter="e5v", model="e5-v", options={"text": "instruction"}),
        "as llava-next",
        "as llava-next",
        {**_VLM_SOURCES, "options": "Ours: MMEB's instructions, which E5-V itself was trained without."},
    ),
    NamedRecipe(
        "clip",
        _CLIP,
        "estimate 21 GiB: weights, gradients and optimizer 6.4 in float32, activations of a sub-batch 14",
        "estimate 5 hours on one H100",
        _PAIR_SOURCES,
    ),
    NamedRecipe(
        "open_clip",
        replace(_CLIP, adapter="open_clip", model="open-clip-vit-h14", sub_batch_size=64, gradient_checkpointing=True),
        "estimate 20 GiB: weights, gradients and optimizer 14.7 in float32, activations of a sub-batch 5",
        "estimate 12 hours on one H100",
        _PAIR_SOURCES,
    ),
    NamedRecipe(
        "siglip",
        replace(_CLIP, adapter="siglip", model="siglip-base-patch16-224", sub_batch_size=64),
        "estimate 12 GiB: weights, gradients and optimizer 3 in float32, activations of a sub-batch 8",
        "estimate 2 hours on one H100",
        _PAIR_SOURCES,
    ),
    NamedRecipe(
        "blip",
        replace(_CLIP, adapter="blip", model="blip-itm-base-coco"),
        "estimate 16 GiB: weights, gradients and optimizer 3.3 in float32, activations of a sub-batch 12",
        "estimate 4 hours on one H100",
        _PAIR_SOURCES,
    ),
    NamedRecipe(
        "blip2",
        replace(_CLIP, adapter="blip2", model="blip2-itm-vit-g", sub_batch_size=16, gradient_checkpointing=True),
        "estimate 22 GiB: weights, gradients and optimizer 17.4 in float32, activations of a sub-batch 5",
        "estimate 39 hours on one H100",
        _PAIR_SOURCES,
    ),
    NamedRecipe(
        "demo",
        _DEMO,
        "1.4 GiB, the libraries among it",
        "10 minutes on two cores",
        {
            "model": "None: random weights, by the seed.",
            "negatives": "Ours: without hard ones so small a network learns more in so few steps.",
            "batch_size": "Ours, as all of this recipe.",
        },
    ),
    NamedRecipe(
        "demo-vlm",
        replace(_DEMO, adapter="qwen2-vl", model="demo-vlm", options={"image_resolution": "low"}, steps=900),
        "1.5 GiB, the libraries among it",
        "10 minutes on two cores",
        {"model": "A small Qwen2-VL from random weights.", "batch_size": "Ours, as all of this recipe."},
    ),
)
RECIPES = {named.name: named for named in _TABLE}


def find_recipe(name: str | None = None, adapter: str | None = None) -> NamedRecipe:
    """The recipe of a name, or an adapter's default one.

    An adapter without a recipe of its own trains all weights by the defaults of `Recipe`. Raises MmebError for an
    unknown name, and for a recipe of another adapter.
    """
    if name is None:
        if adapter is None:
            raise MmebError("Name what to train with --adapter, such as phi35v, or give a recipe with --config.")
        return RECIPES.get(adapter) or NamedRecipe(adapter, Recipe(adapter=adapter))
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(RECIPES)}."
        raise MmebError(f"There is no recipe {name!r}: {hint}")
    if adapter is not None and RECIPES[name].recipe.adapter != adapter:
        raise MmebError(f"The recipe {name} is for the adapter {RECIPES[name].recipe.adapter}, not {adapter}.")
    return RECIPES[name]
