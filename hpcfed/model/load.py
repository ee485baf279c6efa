"""The base model: a local folder or a hub name, through transformers' Auto classes, from safetensors only.

    native = model_kind(config)                    what the folder says it is
    processor = load_processor(config, kind)       the tokenizer, or what the model wants of its images
    model = load_model(config, kind, labels)       eval mode, no gradients

Promise  every rank, machine and run that loads the same files gets the same weights, also those of a new head
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import ModelConfig
from ..errors import ConfigError, first_line
from .complete import check_left_over, new_head
from .folder import ADAPTER, brings_tokenizer, check_files, check_tokenizer, check_weights, refuse_code
from .images import ImageProcessor, two_steps

SHIPPED = {"digits-vit": "digits"}  # model name -> folder in recipes/
UNLIMITED = 2**31 - 1  # tokens
PROCESSORS = ("preprocessor_config.json", "processor_config.json")  # files that describe an image processor

_AUTO = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
}
#: How a class of transformers' is called that is of a kind.
ENDINGS = {
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForMaskedLM": "masked-lm",
    "ForSequenceClassification": "sequence-classification",
    "ForImageClassification": "image-classification",
}
#: Families that count positions from the padding id on, so that the first ones are never used.
_OFFSET = ("roberta", "camembert", "xmod", "longformer", "mpnet", "data2vec-text", "ibert", "luke", "esm")


def model_path(name: str) -> str:
    """What transformers is given for model.name: a shipped model's folder, a local folder, or the hub name itself."""
    if name in SHIPPED and not Path(name).is_dir():
        return str(resources.files("hpcfed") / "recipes" / SHIPPED[name])
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            if (path / ADAPTER).is_file():
                raise ConfigError(
                    f"model.name={name!r}: the folder holds an adapter ({ADAPTER}), no model; merge it into its base "
                    "with peft's merge_and_unload() and save_pretrained()"
                )
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
    if "trust_remote_code" in str(e) or (what == "tokenizer" and brings_tokenizer(Path(model_path(config.name)))):
        return refuse_code(config.name, what)
    if Path(model_path(config.name)).is_dir():
        return ConfigError(f"model.name={config.name!r}: its {what} cannot be loaded: {first_line(e)}")
    return ConfigError(
        f"model.name={config.name!r} is no local folder and its {what} cannot be loaded from the hub "
        f"({first_line(e)}); without network give a folder: --set model.name=PATH, or --base PATH of export and orbit"
    )


def load_config(config: ModelConfig) -> Any:
    from transformers import AutoConfig

    path = model_path(config.name)
    check_files(config.name, Path(path), "config.json")
    try:
        with quiet():
            return AutoConfig.from_pretrained(path, revision=config.revision or "main", trust_remote_code=False)
    except Exception as e:  # whatever a malformed config.json makes the library raise
        raise _unreadable(config, "configuration", e) from None


def model_kind(config: ModelConfig) -> str:
    """What the model is by its own configuration: causal-lm, masked-lm, sequence- or image-classification."""
    from transformers.models.auto import modeling_auto as auto

    hf_config = load_config(config)
    for architecture in hf_config.architectures or ():
        for ending, kind in ENDINGS.items():
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
    classifier an ImageProcessor.

    A causal tokenizer's model_input_names has "position_ids" if the model takes them.  Raises ConfigError.
    """
    hf_config = load_config(config)
    if kind == "image-classification":
        return image_processor(config, hf_config)
    from transformers import AutoTokenizer

    check_tokenizer(config.name, Path(model_path(config.name)))
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                model_path(config.name), revision=config.revision or "main", trust_remote_code=False
            )
    except Exception as e:
        raise _unreadable(config, "tokenizer", e) from None
    _set_pad_token(config, tokenizer)
    if kind == "masked-lm" and (tokenizer.mask_token_id is None or not tokenizer.is_fast):
        raise ConfigError(f"model.name={config.name!r}: a masked model needs a fast tokenizer with a mask token")
    limits = [n for n in (tokenizer.model_max_length, positions(hf_config)) if n is not None and n > 0]
    tokenizer.model_max_length = min(limits, default=UNLIMITED)
    if takes_positions(config, hf_config, kind):
        tokenizer.model_input_names = [*tokenizer.model_input_names, "position_ids"]
    return tokenizer


def positions(hf_config: Any) -> int | None:
    """Longest sequence that the model has positions for, if its configuration says so (XLNet's says -1: no limit)."""
    said = hf_config.get_text_config()
    longest = getattr(said, "max_position_embeddings", None) or getattr(said, "max_seq_len", None)  # MPT's name
    if not isinstance(longest, int) or longest <= 0:
        return None
    if any(family in hf_config.model_type for family in _OFFSET):
        longest -= (getattr(hf_config, "pad_token_id", None) or 0) + 1
    return longest


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


def image_processor(config: ModelConfig, hf_config: Any) -> ImageProcessor:
    """From preprocessor_config.json where the model has one; else the model's own size and mean = std = 0.5."""
    import transformers

    channels = int(getattr(hf_config, "num_channels", None) or 3)
    if channels not in (1, 3):
        raise ConfigError(f"model.name={config.name!r}: images of {channels} channels are not supported, only 1 or 3")
    path, revision = model_path(config.name), config.revision or "main"
    file = PROCESSORS[0]
    # Pillow's, which is the same on every machine; what it is called depends on the version.
    pillow = {"backend": "pil"} if hasattr(transformers, "ViTImageProcessorPil") else {"use_fast": False}
    try:
        with quiet():
            file = next((name for name in PROCESSORS if _has(path, name, revision)), "config.json")
            if file in PROCESSORS:
                auto = transformers.AutoImageProcessor
                own = auto.from_pretrained(path, revision=revision, trust_remote_code=False, **pillow)
            else:
                plain = getattr(transformers, "ViTImageProcessorPil", transformers.ViTImageProcessor)
                side = getattr(hf_config, "image_size", None) or 224
                height, width = side if isinstance(side, list | tuple) else (side, side)
                size, half = {"height": int(height), "width": int(width)}, [0.5] * channels
                own = plain(size=size, image_mean=half, image_std=half, resample=2)
    except Exception as e:  # whatever a malformed file makes the library raise
        raise _unreadable(config, file, e) from None
    return two_steps(own, channels, f"model.name={config.name!r}", file)


def _has(path: str, name: str, revision: str) -> bool:
    from transformers.utils import cached_file

    return bool(cached_file(path, name, revision=revision, _raise_exceptions_for_missing_entries=False))


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
    """What of a classifier's configuration follows from the task: output i is called labels[i], new head or not."""
    options: dict[str, Any] = {}
    if kind.endswith("classification"):
        if labels:
            options = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        if kind == "sequence-classification":
            options |= pad_options(config, hf_config)
    return options


def pad_options(config: ModelConfig, hf_config: Any) -> dict[str, Any]:
    """A pad token for a classifier whose configuration names none: the tokenizer's."""
    if getattr(hf_config, "pad_token_id", 0) is not None:  # there, or nothing that this family knows
        return {}
    pad, rows = load_processor(config, "sequence-classification").pad_token_id, getattr(hf_config, "vocab_size", None)
    return {} if isinstance(rows, int) and pad >= rows else {"pad_token_id": pad}  # train/trial.py names such a token


def agree_on_padding(config: ModelConfig, model: Any, kind: str) -> None:
    """Where a classifier finds the last token by the pad token that its configuration names, name the tokenizer's.

    Decoders with a classifier's head read the class off the last token that is not that one; if the tokenizer pads with
    another, that would be a token of padding.
    """
    if kind != "sequence-classification" or "pad_token_id" not in inspect.getsource(type(model).forward):
        return
    try:
        pad = load_processor(config, kind).pad_token_id
    except ConfigError:  # a base without a tokenizer, or none that pads: then nobody pads with it
        return
    named = model.config.get_text_config()
    if getattr(named, "pad_token_id", None) != pad:
        named.pad_token_id = pad


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
                trust_remote_code=False,
                **options,
            )
    except Exception as e:  # OSError, SafetensorError, KeyError ...: the library has no common base
        raise _unreadable(config, "weights", e) from None
    check_left_over(config.name, model, info["unexpected_keys"])
    reshaped = [key for key, *_ in info["mismatched_keys"]]
    new_head(config.name, model, info["missing_keys"], reshaped, own_classes(hf_config, kind))
    agree_on_padding(config, model, kind)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    assert isinstance(model, nn.Module)
    return model.eval().requires_grad_(False)


def own_classes(hf_config: Any, kind: str) -> int | None:
    """Outputs of the classifier's head that the checkpoint has; None if its config.json does not speak of one."""
    classifiers = [name for name in hf_config.architectures or () if name.endswith("Classification")]
    kinds = [of for name in classifiers for ending, of in ENDINGS.items() if name.endswith(ending)]
    return int(hf_config.num_labels) if kind in kinds else None


def checked_config(config: ModelConfig, kind: str) -> Any:
    """transformers' config of a model that has a form of this kind and weights to load; ConfigError if not."""
    hf_config = load_config(config)
    _model_class(config, hf_config, kind)
    if quantised := getattr(hf_config, "quantization_config", None):
        how = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise ConfigError(
            f"model.name={config.name!r}: its weights are quantised ({how or 'quantization_config'}), and a step of a "
            "run is smaller than theirs; take the model's weights in float32, bfloat16 or float16"
        )
    check_weights(config.name, Path(model_path(config.name)))
    return hf_config
