"""Configuration of every depthseg model.

Annotations are not postponed in this file: `@strict` checks types, and skips those that are strings.
"""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import logging

from .encoders_depthseg import encoder_entry
from .heads_depthseg import HEADS, complete_head_config

logger = logging.get_logger(__name__)
DEFAULT_ENCODER = {"model_type": "depthseg_resnet", "depth": 18}
# What transformers itself writes into a config.json or passes along beside the declared fields.
PASSING_NAMES = frozenset(
    {
        "num_labels",
        "torch_dtype",
        "auto_map",
        "model_type",
        "output_attentions",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "_experts_implementation",
        "_name_or_path",
        "name_or_path",
        "_commit_hash",
        "transformers_version",
        "use_return_dict",
        # Written by transformers' Trainer.
        "use_cache",
    }
)

# Backbones of transformers take these beside their declared fields, and so does our plain ViT.
BACKBONE_NAMES = frozenset({"out_indices", "out_features", "_out_indices", "_out_features", "stage_names"})


@strict
class DepthSegConfig(PreTrainedConfig):
    """Everything that changes the network: an encoder, a head, the classes, and what its depth means.

    Args:
        encoder_config (`dict` or `PreTrainedConfig`, *optional*): The encoder; `model_type` is a key of `ENCODERS`.
            Defaults to a full-width ResNet-18.
        head_type (`str`, *optional*, defaults to `"monodepth2"`): A key of `HEADS`.
        head_config (`dict`, *optional*): The head's options; those left out get the head's defaults.
        num_labels (`int`, *optional*), id2label, label2id (`dict`, *optional*): The classes, as everywhere in
            transformers; `label2id` follows from `id2label`. With two or more, the logits go through a softmax, and a
            background is a class like any other. One class means one logit and a sigmoid: id 1 is the class, id 0 the
            background, which `id2label` then names as well.
        one_class (`bool`, *optional*, defaults to `False`): Whether there is one class against a background;
            `num_labels=1` or an `id2label` of one entry sets it.
        semantic_loss_ignore_index (`int`, *optional*, defaults to `255`): Label id of pixels that do not count.
        depth_type (`str`, *optional*, defaults to `"disparity"`): What the depth predictor's numbers mean:
            `"metric"` (sigmoid times `max_depth`, metres), `"disparity"` (sigmoid between `1/max_depth` and
            `1/min_depth`, `predicted_depth` in metres or up to scale), `"relative"` or `"relative_inverse"` (ReLU;
            depth, or inverse depth, known up to scale and shift).
        depth_loss (`str`, *optional*, defaults to `"l1"`): Loss on depth labels: `"l1"`, `"silog"` or `"ssi"`.
        segmentation_loss (`str`, *optional*, defaults to `"cross_entropy"`): Loss on class labels:
            `"cross_entropy"`, `"focal"`, `"dice"` or `"cross_entropy_dice"`, their sum.
        class_weights (`list[float]`, *optional*): A factor of each class in cross-entropy and focal loss, for one
            class those of background and class. The divisor stays the number of pixels.
        label_smoothing (`float`, *optional*, defaults to `0.0`): Share of the target of the cross-entropy, from 0 to
            1, that is spread evenly over the classes.
        min_depth, max_depth (`float`, *optional*, default to `0.1` and `100.0`): Range of depth in metres.
        input_mean, input_std (`list[float]`, *optional*): Per-channel scaling of `[0, 1]` images *inside* the model,
            for weights trained that way. Leave unset where the image processor normalises, never set both.
        keep_depth (`bool`, *optional*, defaults to `False`): Whether a segmenter keeps the depth predictor, so that
            one forward gives labels and depth.
        flow_range (`float`, *optional*, defaults to `0.2`): The largest optical flow that can be predicted, in shares
            of the width to the side and of the height up and down.
        weight_lineage (`list[dict]`, *optional*): Where the weights came from, oldest first; written by transfer.

    Raises:
        huggingface_hub.errors.StrictDataclassError: For a wrong type or value.
        ValueError: For an unknown name, encoder, head or head option, or for `num_labels` at odds with `id2label`.
    """

    model_type = "depthseg"
    # Lets transformers pass attention and dtype settings on to the encoder.
    sub_configs = {"encoder_config": AutoConfig}
    # What transformers' Trainer does not gather as predictions: maps of coarser scales, and a loss.
    keys_to_ignore_at_inference = ["raw_maps", "flow_maps", "reconstruction_maps", "depth_loss"]

    if TYPE_CHECKING:  # a field of the base class
        id2label: dict[int, str] | None

    # `@strict` checks the keys of a `dict[str, Any]`, too; those are checked against the options of encoder and head.
    encoder_config: dict | PreTrainedConfig | None = None  # type: ignore[type-arg]
    head_type: str = "monodepth2"
    head_config: dict | None = None  # type: ignore[type-arg]
    one_class: bool = False
    semantic_loss_ignore_index: int = 255
    depth_type: Literal["metric", "disparity", "relative", "relative_inverse"] = "disparity"
    depth_loss: Literal["l1", "silog", "ssi"] = "l1"
    segmentation_loss: Literal["cross_entropy", "focal", "dice", "cross_entropy_dice"] = "cross_entropy"
    class_weights: list[float | int] | tuple[float | int, ...] | None = None
    label_smoothing: float | int = 0.0
    min_depth: float | int = 0.1
    max_depth: float | int = 100.0
    input_mean: list[float | int] | tuple[float | int, ...] | None = None
    input_std: list[float | int] | tuple[float | int, ...] | None = None
    keep_depth: bool = False
    flow_range: float | int = 0.2
    weight_lineage: list[dict[str, Any]] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self._refuse_unknown_names(kwargs)
        self.encoder_config = build_encoder_config(self.encoder_config)
        self.head_config = complete_head_config(self.head_type, self.head_config)
        num_labels = kwargs.get("num_labels")
        if self.one_class is True or num_labels == 1 or (num_labels is None and len(self.id2label or ()) == 1):
            kwargs.pop("num_labels", None)
            self._name_one_class(num_labels)
        elif self.id2label is not None:
            if num_labels is not None and num_labels != len(self.id2label):
                raise ValueError(
                    f"num_labels is {num_labels} but id2label names {len(self.id2label)} classes; give one of them, "
                    "or both with the same count."
                )
            ids = sorted(int(index) for index in self.id2label)
            if ids != list(range(len(ids))):
                raise ValueError(f"id2label has the ids {ids}; they must be 0 to {len(ids) - 1}, without gaps.")
            self.label2id = {name: int(index) for index, name in self.id2label.items()}
        super().__post_init__(**kwargs)

    def _name_one_class(self, num_labels: int | None = 1) -> None:
        """Name the background, id 0, beside the one class, id 1."""
        names = [name for _, name in sorted((int(index), name) for index, name in (self.id2label or {}).items())]
        if num_labels not in (None, 1) or len(names) > 2:
            raise ValueError(
                f"num_labels is {num_labels} and id2label is {self.id2label}, but one_class=True is for one class "
                "against a background; give num_labels=1 and one name, or leave one_class out."
            )
        self.one_class = True
        self.id2label = {0: names[0] if len(names) == 2 else "background", 1: names[-1] if names else "LABEL_1"}
        if self.id2label[0] == self.id2label[1]:
            raise ValueError(
                f"The one class and what surrounds it are both called {self.id2label[1]!r}; name the class that is to "
                "be found, or give num_labels=2 and two names."
            )
        self.label2id = {name: index for index, name in self.id2label.items()}

    @property
    def num_labels(self) -> int | None:
        """Number of logits; 1 for one class against a background, `None` before the classes are known."""
        if self.id2label is None:
            return None
        return 1 if self.one_class else len(self.id2label)

    @num_labels.setter
    def num_labels(self, num_labels: int) -> None:
        """Number of classes; another number than before gives new names to all of them."""
        if num_labels == self.num_labels:
            return
        self.one_class, self.id2label = False, None
        if num_labels == 1:
            self._name_one_class()
        else:
            PreTrainedConfig.num_labels.fset(self, num_labels)

    def _refuse_unknown_names(self, kwargs: dict[str, Any]) -> None:
        unknown = sorted(set(kwargs) - PASSING_NAMES)
        if not unknown:
            return
        message = f"DepthSegConfig has no option {', '.join(unknown)}; its own options are {', '.join(OWN_OPTIONS)}."
        if self.transformers_version is None:
            raise ValueError(message)
        # A file saved by a newer transformers may hold fields of the base class that this one does not know.
        logger.warning("%s The file's entries are ignored.", message)

    def validate_architecture(self) -> None:
        """Check the values; called by `@strict` when the configuration is made and when it is saved."""
        if not 0 < self.min_depth < self.max_depth:
            raise ValueError(
                f"min_depth is {self.min_depth} and max_depth is {self.max_depth}; they must satisfy "
                "0 < min_depth < max_depth, in metres."
            )
        if not 0 < self.flow_range <= 1:
            raise ValueError(f"flow_range is {self.flow_range}; it must lie above 0 and not above 1.")
        self._check_segmentation_loss()
        if (self.input_mean is None) != (self.input_std is None):
            raise ValueError("input_mean and input_std go together; set both or neither.")
        mean, std = self.input_mean, self.input_std
        if mean is not None and std is not None and (len(mean) != 3 or len(std) != 3):
            raise ValueError(
                f"input_mean is {self.input_mean} and input_std is {self.input_std}; each needs 3 numbers, one for "
                "each channel."
            )
        if self.input_std is not None and min(self.input_std) <= 0:
            raise ValueError(f"input_std is {self.input_std}; each must be above 0.")

    def _check_segmentation_loss(self) -> None:
        kind, weights = self.segmentation_loss, self.class_weights
        if HEADS[self.head_type].kind == "masks" and (kind != "cross_entropy" or self.label_smoothing or weights):
            raise ValueError(
                f"head_type {self.head_type!r} compares masks by a loss of its own, whose weights are in head_config; "
                "leave segmentation_loss, class_weights and label_smoothing out."
            )
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must be from 0 to 1.")
        if self.label_smoothing and kind not in ("cross_entropy", "cross_entropy_dice"):
            raise ValueError(
                f"label_smoothing is {self.label_smoothing} but segmentation_loss is {kind!r}, which has none; set "
                "label_smoothing=0, or segmentation_loss to 'cross_entropy' or 'cross_entropy_dice'."
            )
        if weights is None:
            return
        if kind == "dice":
            raise ValueError(
                "class_weights weigh pixels, and segmentation_loss='dice' compares areas; leave class_weights out, or "
                "take another segmentation_loss."
            )
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise ValueError(f"class_weights is {list(weights)}; weights must be at least 0, finite, and not all 0.")
        if self.id2label is not None and len(weights) != len(self.id2label):
            raise ValueError(
                f"class_weights has {len(weights)} entries but there are {len(self.id2label)} classes; give one "
                f"weight for each of {', '.join(map(str, self.id2label.values()))}."
            )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build from a dictionary, with overrides.

        Another `head_type` drops the stored `head_config`, which belongs to the old head, and a mask head the stored
        loss of pixels; `num_labels` and `id2label` replace the stored classes and drop their `class_weights`, unless
        the names are the same.
        """
        config_dict = dict(config_dict)
        own_names = ("segmentation_loss", "class_weights", "label_smoothing")
        head_type = kwargs.get("head_type", config_dict.get("head_type"))
        if head_type != config_dict.get("head_type"):
            config_dict["head_config"] = None
            if head_type in HEADS and HEADS[head_type].kind == "masks":
                config_dict = {name: value for name, value in config_dict.items() if name not in own_names}
        if "num_labels" in kwargs or "id2label" in kwargs:
            stays = _class_names(kwargs) is not None and _class_names(kwargs) == _class_names(config_dict)
            config_dict["id2label"] = config_dict["label2id"] = None
            config_dict["one_class"] = kwargs.get("one_class", False)
            if not stays:
                config_dict["class_weights"] = None
        for name in own_names + ("encoder_config", "head_type", "head_config", "num_labels", "id2label", "label2id"):
            if name in kwargs:
                config_dict[name] = kwargs.pop(name)
        return super().from_dict(config_dict, **kwargs)


def _class_names(options: dict[str, Any]) -> list[str] | None:
    """The names of the classes by id; `None` where they are not given. Keys are texts in JSON."""
    names = options.get("id2label")
    return None if names is None else [name for _, name in sorted((int(key), name) for key, name in names.items())]


OWN_OPTIONS = tuple(
    sorted(field.name for field in fields(DepthSegConfig) if field.name in DepthSegConfig.__annotations__)
)


def build_encoder_config(encoder_config: dict[str, Any] | PreTrainedConfig | None) -> PreTrainedConfig:
    """Return the encoder's configuration object.

    Args:
        encoder_config (`dict` or `PreTrainedConfig`, *optional*): A dictionary with `model_type`, or the object.

    Raises:
        ValueError: If `model_type` is missing or not an encoder of ours, or an option is unknown.
    """
    if encoder_config is None:
        encoder_config = DEFAULT_ENCODER
    if isinstance(encoder_config, PreTrainedConfig):
        encoder_entry(encoder_config.model_type).cls.complete_config(encoder_config)
        return encoder_config
    options = dict(encoder_config)
    entry = encoder_entry(options.pop("model_type", None))
    unknown = sorted(set(options) - set(entry.config_class().to_dict()) - PASSING_NAMES - BACKBONE_NAMES)
    if unknown:
        raise ValueError(
            f"encoder_config has no option {', '.join(unknown)}; {entry.config_class.__name__} knows "
            f"{', '.join(sorted(entry.config_class.__annotations__))}."
        )
    config = entry.config_class(**options)
    named = any(options.get(name) is not None for name in ("out_indices", "out_features"))
    chosen = config.out_indices if named else None
    entry.cls.complete_config(config)
    if chosen is not None:
        config.out_indices = chosen
    return config
