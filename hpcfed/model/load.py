"""The base model: a local folder or a hub name, through transformers' Auto classes, from safetensors only.

    native = model_kind(config)                    what the folder says it is
    processor = load_processor(config, kind)       the tokenizer, or what the model wants of its images
    model = load_model(config, kind, labels)       eval mode, no gradients

Formula  a classifier head the checkpoint does not have is 0.02 z (biases 0), z the gaussian direction of noise spec v1
         that belongs to the parameter's name
Promise  every rank, machine and run that loads the same files gets the same weights, also those of a new head
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import ModelConfig
from ..errors import ConfigError, first_line
from ..noise import fill_
from ..noise.layout import Piece
from ..seeds import derive

SHIPPED = {"digits-vit": "digits"}  # model name -> folder in recipes/
HEAD_STD = 0.02

_AUTO = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
}
_ENDINGS = {
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForMaskedLM": "masked-lm",
    "ForSequenceClassification": "sequence-classification",
    "ForImageClassification": "image-classification",
}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
#: Families that count positions from the padding id on, so that the first ones are never used.
_OFFSET = ("roberta", "camembert", "xmod", "longformer", "mpnet", "data2vec-text", "ibert", "luke", "esm")


def model_path(name: str) -> str:
    """What transformers is given for model.name: a shipped model's folder, a local folder, or the hub name itself."""
    if name in SHIPPED and not Path(name).is_dir():
        return str(resources.files("hpcfed") / "recipes" / SHIPPED[name])
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"model.name={name!r}: the folder has no config.json, so it is no transformers model")
        return str(path)
    if path.exists():
        raise ConfigError(f"model.name={name!r} is a file; give its folder, with config.json and model.safetensors")
    if name[:1] in ("", ".", "/", "~") or name.count("/") > 1:
        raise ConfigError(f"model.name={name!r}: there is no such folder (a hub name looks like facebook/opt-125m)")
    return name


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and warnings of transformers: what matters is raised as an error."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _unreadable(config: ModelConfig, what: str, e: BaseException) -> ConfigError:
    if Path(model_path(config.name)).is_dir():
        return ConfigError(f"model.name={config.name!r}: its {what} cannot be loaded: {first_line(e)}")
    return ConfigError(
        f"model.name={config.name!r} is no local folder and its {what} cannot be loaded from the hub "
        f"({first_line(e)}); without network give a folder: --set model.name=PATH"
    )


def load_config(config: ModelConfig) -> Any:
    from transformers import AutoConfig

    path = model_path(config.name)
    try:
        with quiet():
            return AutoConfig.from_pretrained(path, revision=config.revision or "main")
    except Exception as e:  # whatever a malformed config.json makes the library raise
        raise _unreadable(config, "configuration", e) from None


def model_kind(config: ModelConfig) -> str:
    """What the model is by its own configuration: causal-lm, masked-lm, sequence- or image-classification."""
    from transformers.models.auto import modeling_auto as auto

    hf_config = load_config(config)
    for architecture in hf_config.architectures or ():
        for ending, kind in _ENDINGS.items():
            if architecture.endswith(ending):
                return kind
    tables = {
        "image-classification": auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        "masked-lm": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "causal-lm": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "sequence-classification": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    }
    for kind, table in tables.items():
        if hf_config.model_type in table:
            return kind
    raise ConfigError(
        f"model.name={config.name!r}: a {hf_config.model_type} model is no language model and no classifier"
    )


def load_processor(config: ModelConfig, kind: str) -> Any:
    """The tokenizer of a text model (pad token set, model_max_length within the model's positions), or for an image
    classifier {"height", "width", "channels", "mean", "std", "resample", "shortest"} (tasks/images.py).

    A causal tokenizer's model_input_names has "position_ids" if the model takes them.  Raises ConfigError.
    """
    hf_config = load_config(config)
    if kind == "image-classification":
        return image_processor(config, hf_config)
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(model_path(config.name), revision=config.revision or "main")
    except Exception as e:
        raise _unreadable(config, "tokenizer", e) from None
    _set_pad_token(config, tokenizer)
    if kind == "masked-lm" and (tokenizer.mask_token_id is None or not tokenizer.is_fast):
        raise ConfigError(f"model.name={config.name!r}: a masked model needs a fast tokenizer with a mask token")
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions(hf_config) or tokenizer.model_max_length)
    if takes_positions(config, hf_config, kind):
        tokenizer.model_input_names = [*tokenizer.model_input_names, "position_ids"]
    return tokenizer


def positions(hf_config: Any) -> int | None:
    """Longest sequence that the model has positions for, if its configuration says so."""
    longest: int | None = getattr(hf_config, "max_position_embeddings", None) or getattr(
        hf_config, "max_seq_len", None
    )  # MPT
    if longest and any(family in hf_config.model_type for family in _OFFSET):
        longest -= (hf_config.pad_token_id or 0) + 1
    return longest or None


def takes_positions(config: ModelConfig, hf_config: Any, kind: str) -> bool:
    """Whether position_ids are among the model's inputs."""
    forward = _model_class(config, hf_config, kind).forward
    return kind == "causal-lm" and "position_ids" in inspect.signature(forward).parameters


def _set_pad_token(config: ModelConfig, tokenizer: Any) -> None:
    if config.pad_token is not None:
        if config.pad_token not in tokenizer.get_vocab():
            raise ConfigError(f"model.pad_token={config.pad_token!r} is no token of {config.name}")
        tokenizer.pad_token = config.pad_token
    if tokenizer.pad_token_id is None:
        usual = tokenizer.eos_token or tokenizer.unk_token or "TOKEN"
        raise ConfigError(
            f"model.name={config.name!r}: the tokenizer has no pad token; name one of its tokens to pad with, "
            f"e.g. --set model.pad_token='{usual}' (padding is masked, so which one does not matter)"
        )


def image_processor(config: ModelConfig, hf_config: Any) -> dict[str, Any]:
    """From preprocessor_config.json where the model has one; else the model's own size and mean = std = 0.5."""
    from transformers.utils import cached_file

    revision, name = config.revision or "main", "preprocessor_config.json"
    try:
        file = cached_file(
            model_path(config.name), name, revision=revision, _raise_exceptions_for_missing_entries=False
        )
        raw = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError) as e:
        raise _unreadable(config, name, e) from None
    height, width, shortest = _image_size(raw, getattr(hf_config, "image_size", None) or 224)
    channels, scaled = int(getattr(hf_config, "num_channels", 3)), raw.get("do_normalize", True)
    if channels not in (1, 3):
        raise ConfigError(f"model.name={config.name!r}: images of {channels} channels are not supported, only 1 or 3")
    values = {}
    for key, plain in (("mean", 0.0), ("std", 1.0)):
        value = raw.get(f"image_{key}", 0.5) if scaled else plain
        values[key] = [float(v) for v in value] if isinstance(value, list) else [float(value)] * channels
        if len(values[key]) != channels:
            raise ConfigError(
                f"model.name={config.name!r}: image_{key} in {name} is for {len(values[key])} channels, not {channels}"
            )
    sizes = {"height": height, "width": width, "shortest": shortest, "channels": channels}
    return {**sizes, **values, "resample": int(raw.get("resample", 2))}


def _image_size(raw: dict[str, Any], native: Any) -> tuple[int, int, int | None]:
    """(height, width, length of the shorter edge before a crop or None) from a preprocessor_config.json."""

    def sides(size: Any) -> tuple[int, int]:
        if isinstance(size, dict):
            return int(size["height"]), int(size["width"])
        return (int(size[0]), int(size[1])) if isinstance(size, list | tuple) else (int(size), int(size))

    size, crop = raw.get("size", native), raw.get("crop_size")
    shortest = size.get("shortest_edge") if isinstance(size, dict) else None
    if shortest is None:
        return *sides(size), None
    height, width = sides(crop if raw.get("do_center_crop") and crop is not None else shortest)
    if raw.get("crop_pct") and shortest < 384:  # ConvNeXt's way: crop out of a larger image, up to 384 pixels
        shortest = int(shortest / raw["crop_pct"])
    return height, width, int(shortest)


def _model_class(config: ModelConfig, hf_config: Any, kind: str) -> Any:
    table = auto_class(kind)._model_mapping
    if type(hf_config) not in table:
        raise ConfigError(f"model.name={config.name!r}: {hf_config.model_type} models have no {kind} form")
    entry = table[type(hf_config)]
    return entry[0] if isinstance(entry, tuple) else entry


def auto_class(kind: str) -> Any:
    """transformers' class that makes models of this kind."""
    import transformers

    return getattr(transformers, _AUTO[kind])


def label_options(config: ModelConfig, hf_config: Any, kind: str, labels: Sequence[str]) -> dict[str, Any]:
    """What of a classifier's configuration follows from the task."""
    options: dict[str, Any] = {}
    if kind.endswith("classification"):
        if len(labels) != hf_config.num_labels:
            options = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        if kind == "sequence-classification" and hf_config.pad_token_id is None:
            options["pad_token_id"] = load_processor(config, kind).pad_token_id
    return options


def load_model(config: ModelConfig, kind: str, labels: Sequence[str] = ()) -> nn.Module:
    """The model of `kind` in config.dtype, in eval mode, requires_grad False everywhere, on the CPU.

    labels: class names of a classifier; a checkpoint's head for another number of classes is replaced by a new one.
    Raises ConfigError if the folder or hub name has no such model in safetensors.
    """
    path, hf_config = model_path(config.name), checked_config(config, kind)
    options = label_options(config, hf_config, kind, labels)
    try:
        # New weights come from torch's global generator at first; it is restored, and they are overwritten below.
        with quiet(), torch.random.fork_rng(devices=[]):
            model, info = auto_class(kind).from_pretrained(
                path,
                revision=config.revision or "main",
                dtype=getattr(torch, config.dtype),
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **options,
            )
    except Exception as e:  # OSError, SafetensorError, KeyError ...: the library has no common base
        raise _unreadable(config, "weights", e) from None
    new_head(config, model, {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}, kind)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    assert isinstance(model, nn.Module)
    return model.eval().requires_grad_(False)


def checked_config(config: ModelConfig, kind: str) -> Any:
    """transformers' config of a model that has a form of this kind and weights to load; ConfigError if not."""
    hf_config = load_config(config)
    _model_class(config, hf_config, kind)
    _check_weights(config, Path(model_path(config.name)))
    return hf_config


def _check_weights(config: ModelConfig, folder: Path) -> None:
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        cure = f"only {', '.join(pickles)}: load it once with transformers and write it with save_pretrained()"
    else:
        cure = "and no other weights"
    raise ConfigError(f"model.name={config.name!r}: no model.safetensors in the folder, {cure}")


def new_head(config: ModelConfig, model: Any, new: set[str], kind: str) -> None:
    """Give the parameters that the checkpoint lacks their values; only a classifier's head may be lacking."""
    trunk, classifier = model.base_model_prefix + ".", kind.endswith("classification")
    lost = sorted(name for name in new if not classifier or (name.startswith(trunk) and ".pooler." not in name))
    if lost:
        some = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        raise ConfigError(
            f"model.name={config.name!r}: the weights are not those of a whole {kind} model: {some} "
            "missing or of another shape than config.json says"
        )
    for name, parameter in model.named_parameters():
        if name not in new:
            continue
        if parameter.dim() < 2:
            norm = "norm" in name.lower() and name.endswith("weight")
            parameter.data = torch.full_like(parameter, float(norm))
            continue
        z = torch.empty(parameter.numel())
        fill_(z, derive(0, "head"), Piece.whole(name, parameter.numel()), "gaussian")
        parameter.data = (HEAD_STD * z).view(parameter.shape).to(parameter.dtype)


def save_model(model: nn.Module, base: str, out: Path) -> None:
    """Write a folder that from_pretrained loads: weights, configuration, the base model's tokenizer or image files."""
    folder = Path(model_path(base))
    try:
        with quiet():
            model.save_pretrained(out)  # type: ignore[operator]
        for pattern in ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "preprocessor_config.json"):
            for file in folder.glob(pattern):
                shutil.copy(file, out / file.name)
    except OSError as e:
        raise ConfigError(f"--out {out}: cannot write the model: {e.strerror or e}") from None
    if not folder.is_dir() and (out / "config.json").is_file() and "Image" not in type(model).__name__:
        load_processor(ModelConfig(name=base), "causal-lm").save_pretrained(out)
