"""The checkpoints that have a name of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ModelEntry:
    """A registered model.

    `source` is a hub id or a folder, `revision` a commit, branch or tag (None: that of DEFAULT_REVISIONS, else the
    branch `main`, resolved to a commit when the model is loaded). Files that come with a package, or that it makes, lie
    where `folder()` says; `source` is then what results call them. A LoRA names its base model in `base`. `options` are
    the adapter's defaults, under those that a user gives; `note` says why. `adapter` is a short name, or
    `module:Class`.
    """

    name: str
    adapter: str
    source: str
    size_b: float | None = None  # parameters in 10^9
    note: str = ""
    revision: str | None = None
    base: str | None = None
    base_revision: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    folder: Callable[[], Path] | None = None

    @property
    def url(self) -> str | None:
        """The model's page on the hub; None for a folder."""
        local = self.folder is not None or Path(self.source).is_absolute()
        return None if local else f"https://huggingface.co/{self.source}"


# The commits that the published numbers and file listings refer to, two of them known by their first digits only.
DEFAULT_REVISIONS = {
    "TIGER-Lab/VLM2Vec-Full": "fac2a265b7991f1141b13f88b59cb7156b5b51fd",
    "TIGER-Lab/VLM2Vec-LoRA": "9230f3791efe26197369f799c56da514217a120f",
    "TIGER-Lab/VLM2Vec-LLaVa-Next": "90f63c12a3740c338822c6ff34f86d3842dd0daa",
    "TIGER-Lab/VLM2Vec-Qwen2VL-2B": "7717dee",
    "TIGER-Lab/VLM2Vec-Qwen2VL-7B": "954d961",
}

BUNDLED = Path(__file__).parents[1] / "demo" / "checkpoints"
_PHI35V = "microsoft/Phi-3.5-vision-instruct"
_QWEN2VL = "Qwen/Qwen2-VL-{}-Instruct"
_V1 = "prompts and positions as it was trained and scored"
_V2_OPTIONS = {
    "image_resolution": "dynamic",
    "min_pixels": str(4 * 28**2),
    "max_pixels": str(1280 * 28**2),
    "bare_placeholder": "drop",
}
_V2 = "images at their own size up to 1280 tokens, and no placeholder without an image, as its authors score it"
_CAPTIONS = "takes the text without its instruction: it was trained on captions alone"
_BLIP2 = f"{_CAPTIONS}; an image is the mean of its query tokens"


def _contrastive(name: str, adapter: str, source: str, size_b: float, note: str = _CAPTIONS) -> ModelEntry:
    """A pair of towers trained on captions, which never saw an instruction.

    With the instruction, an image-only query would get the same text vector added in every row of a task, and the
    ranks would follow that constant instead of the image.
    """
    return ModelEntry(name, adapter, source, size_b, note, options={"text": "plain"})


def _demo_vlm() -> Path:
    from mmeb.demo.vlm import demo_vlm_folder

    return demo_vlm_folder()


ENTRIES: tuple[ModelEntry, ...] = (
    ModelEntry(
        "demo",
        "demo",
        "bundled: demo",
        note="bundled, for the demo data alone",
        folder=lambda: BUNDLED / "demo",
    ),
    ModelEntry(
        "demo-vlm",
        "qwen2-vl",
        "random weights: demo-vlm",
        0.002,
        "untrained, for the demo data alone",
        options={"image_resolution": "low"},
        folder=_demo_vlm,
    ),
    _contrastive("clip-vit-b32", "clip", "openai/clip-vit-base-patch32", 0.151),
    _contrastive("clip-vit-b16", "clip", "openai/clip-vit-base-patch16", 0.150),
    _contrastive("clip-vit-l14", "clip", "openai/clip-vit-large-patch14", 0.428),
    _contrastive("clip-vit-l14-336", "clip", "openai/clip-vit-large-patch14-336", 0.428),
    _contrastive("open-clip-vit-b16", "open_clip", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", 0.150),
    _contrastive("open-clip-vit-h14", "open_clip", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", 0.986),
    _contrastive("siglip-base-patch16-224", "siglip", "google/siglip-base-patch16-224", 0.203),
    _contrastive("siglip-large-patch16-384", "siglip", "google/siglip-large-patch16-384", 0.652),
    _contrastive("siglip-so400m-patch14-384", "siglip", "google/siglip-so400m-patch14-384", 0.878),
    _contrastive("siglip2-base-patch16-224", "siglip", "google/siglip2-base-patch16-224", 0.375),
    _contrastive("siglip2-large-patch16-384", "siglip", "google/siglip2-large-patch16-384", 0.882),
    _contrastive("siglip2-so400m-patch14-384", "siglip", "google/siglip2-so400m-patch14-384", 1.136),
    _contrastive("siglip2-so400m-patch16-naflex", "siglip", "google/siglip2-so400m-patch16-naflex", 1.136),
    _contrastive("blip-itm-base-coco", "blip", "Salesforce/blip-itm-base-coco", 0.224),
    _contrastive("blip-itm-large-coco", "blip", "Salesforce/blip-itm-large-coco", 0.446),
    _contrastive("blip-itm-base-flickr", "blip", "Salesforce/blip-itm-base-flickr", 0.224),
    _contrastive("blip-itm-large-flickr", "blip", "Salesforce/blip-itm-large-flickr", 0.446),
    _contrastive("blip2-itm-vit-g", "blip2", "Salesforce/blip2-itm-vit-g", 1.17, _BLIP2),
    _contrastive("blip2-itm-vit-g-coco", "blip2", "Salesforce/blip2-itm-vit-g-coco", 1.17, _BLIP2),
    ModelEntry("e5-v", "e5v", "royokong/e5-v", 8.36, _CAPTIONS, options={"text": "plain"}),
    ModelEntry("vlm2vec-phi35v", "phi35v", "TIGER-Lab/VLM2Vec-Full", 4.15, _V1),
    ModelEntry("vlm2vec-phi35v-lora", "phi35v", "TIGER-Lab/VLM2Vec-LoRA", 4.15, _V1, base=_PHI35V),
    ModelEntry("vlm2vec-llava-next", "llava-next", "TIGER-Lab/VLM2Vec-LLaVa-Next", 7.57, _V1),
    ModelEntry("vlm2vec-qwen2vl-2b", "qwen2-vl", "TIGER-Lab/VLM2Vec-Qwen2VL-2B", 2.21, _V1, base=_QWEN2VL.format("2B")),
    ModelEntry("vlm2vec-qwen2vl-7b", "qwen2-vl", "TIGER-Lab/VLM2Vec-Qwen2VL-7B", 8.29, _V1, base=_QWEN2VL.format("7B")),
    ModelEntry("vlm2vec-v2.0", "qwen2-vl", "VLM2Vec/VLM2Vec-V2.0", 2.21, _V2, options=_V2_OPTIONS),
)
