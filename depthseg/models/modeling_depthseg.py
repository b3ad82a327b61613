"""The depthseg models: an encoder, a head, and one last layer a task.

Shape letters: B batch, H and W image size, K classes, h and w logits size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import DepthEstimatorOutput, SemanticSegmenterOutput
from transformers.models.auto import modeling_auto
from transformers.utils import can_return_tuple, logging

from .configuration_depthseg import DepthSegConfig
from .encoders_base_depthseg import EncoderFeatures
from .encoders_depthseg import encoder_entry
from .heads_base_depthseg import DepthSegHead
from .heads_depthseg import build_head_on
from .loading_depthseg import TASK_CLASSES, TransferMixin, task_class
from .loading_foreign_depthseg import ForeignMixin
from .losses_depthseg import depth_loss, segmentation_loss, valid_depth

logger = logging.get_logger(__name__)


@dataclass
class DepthSegDepthOutput(DepthEstimatorOutput):
    """Output of [`DepthSegForDepthEstimation`].

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): Where labels were given.
        predicted_depth (`torch.Tensor` of shape `(B, H, W)`):
            Metres for `depth_type` `"metric"` and `"disparity"` (the latter up to scale, if it was trained without
            one); depth or inverse depth up to scale and shift for `"relative"` and `"relative_inverse"`.
        raw_maps (`tuple[torch.Tensor, ...]`): Activated predictor maps `(B, 1, h, w)`, finest first: sigmoid
            disparity, sigmoid depth or inverse depth. They cover the padded image.
    """

    raw_maps: tuple[Tensor, ...] | None = None


@dataclass
class DepthSegSegmenterOutput(SemanticSegmenterOutput):
    """Output of [`DepthSegForSemanticSegmentation`].

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): Where labels were given.
        logits (`torch.Tensor` of shape `(B, K, h, w)`): At the head's resolution.
        predicted_depth (`torch.Tensor` of shape `(B, H, W)`, *optional*): Where `config.keep_depth` holds; in the
            unit of [`DepthSegDepthOutput`].
        depth_loss (`torch.Tensor` of shape `()`, *optional*): Where depth labels were given; not part of `loss`.
    """

    predicted_depth: Tensor | None = None
    depth_loss: Tensor | None = None


class DepthSegPreTrainedModel(TransferMixin, ForeignMixin, PreTrainedModel):
    """The encoder, under the same name in every task, so that pre-training and fine-tuning are one load apart.

    Depth and labels share the name `head` of their decoder, too; other pre-trainings call theirs `pretext_head`.

    Attributes:
        auto_class (`str`): Name of the Auto class that loads a class from a repository with code.
        pipeline_table (`str`): transformers' table of the models that the pipeline of the task knows; empty = none.
    """

    auto_class = ""
    pipeline_table = ""
    config: DepthSegConfig
    config_class = DepthSegConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    # The forward of a segmenter or depth network takes no count of items from transformers' Trainer, which would count
    # pixels that are ignored and then not average over accumulation steps.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # The transfer report says what is left over, and why.
    _keys_to_ignore_on_load_unexpected = [r"^head\.", r"^depth_predictor\.", r"^classifier\.", r"^pretext_head\."]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "auto_class" in vars(cls):
            TASK_CLASSES[cls.__name__] = cls
            # Registration with the Auto classes does not reach these tables, and a pipeline reports a model that is
            # not in them as not supported before it runs it.
            getattr(modeling_auto, cls.pipeline_table, {}).setdefault("depthseg", cls.__name__)

    def __init__(self, config: DepthSegConfig):
        super().__init__(config)
        encoder_config: Any = config.encoder_config
        self.encoder = encoder_entry(encoder_config.model_type).cls(encoder_config)
        self.transfer_report = None

    @property
    def body(self) -> DepthSegHead:
        """The decoder body that reads the encoder's maps."""
        return self.head

    def finish_init(self) -> None:
        """Initialise weights and fix the parameters that no output depends on; every subclass ends with it."""
        self.post_init()
        self.freeze_unused_parameters()

    def freeze_unused_parameters(self) -> None:
        """Take parameters without gradient out of training; distributed training would wait for them for ever."""
        for parameter in [*self.encoder.unused_parameters(self.body.maps_read), *self.body.unused_parameters()]:
            parameter.requires_grad_(False)

    @classmethod
    def is_custom_code(cls) -> bool:
        """Let transformers run `_init_weights` on every module, as it does for its own models."""
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialisation for the head and last layers; encoders bring theirs."""
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def freeze_encoder(self) -> None:
        """Fix the encoder's parameters and norm statistics, whatever `.train()` says later."""
        self.encoder.freeze()

    def encode(self, pixel_values: Tensor | EncoderFeatures) -> EncoderFeatures:
        """Scale and encode an image `(B, 3, H, W)` as the image processor makes it; features are returned as given.

        So every forward takes the features of a frozen encoder, computed once, in place of `pixel_values`.
        """
        if isinstance(pixel_values, EncoderFeatures):
            return pixel_values
        if pixel_values.dim() != 4 or pixel_values.shape[1] != 3:
            shape = tuple(pixel_values.shape)
            raise ValueError(f"pixel_values has shape {shape}; expected (batch, 3, height, width).")
        if self.config.input_mean is not None:
            mean = pixel_values.new_tensor(self.config.input_mean)[:, None, None]
            std = pixel_values.new_tensor(self.config.input_std)[:, None, None]
            pixel_values = (pixel_values - mean) / std
        # Weights in half precision take the processor's float32 images.
        return self.encoder(pixel_values.to(self.dtype))

    def read_depth(self, raw: Tensor) -> Tensor:
        """Turn an activated map, `(B, 1, h, w)` or any shape, into depth in the units of `config.depth_type`."""
        if self.config.depth_type == "disparity":
            nearest, farthest = 1 / self.config.min_depth, 1 / self.config.max_depth
            return 1 / (farthest + (nearest - farthest) * raw)
        return raw * self.config.max_depth if self.config.depth_type == "metric" else raw

    def predict_raw_depth(self, maps: list[Tensor]) -> tuple[Tensor, ...]:
        """Read the decoder maps and activate: one `(B, 1, h, w)` per trained scale, finest first."""
        predicted = self.head.predict_depth(self.depth_predictor, maps)
        if self.head.activates_depth:
            return tuple(predicted)
        relative = self.config.depth_type in ("relative", "relative_inverse")
        return tuple(F.relu(scale) if relative else scale.sigmoid() for scale in predicted)

    def compute_depth_loss(
        self, features: EncoderFeatures, raw_maps: tuple[Tensor, ...], labels: Tensor, num_valid: Tensor | int | None
    ) -> Tensor:
        """Average `config.depth_loss` over the trained scales, each resized to the labels.

        Args:
            features ([`EncoderFeatures`]): Of the images; give the size that the maps cover.
            raw_maps (`tuple[torch.Tensor, ...]`): Activated predictor maps `(B, 1, h, w)`, finest first.
            labels (`torch.Tensor` of shape `(B, H, W)`): Depth in metres, 0 or NaN = unknown.
            num_valid (`torch.Tensor` of shape `()` or `int`, *optional*): Known pixels of the optimiser step.

        Returns:
            `torch.Tensor` of shape `()`: the loss.
        """
        losses = []
        for raw in raw_maps:
            raw = F.interpolate(features.to_input(raw), size=labels.shape[-2:], mode="bilinear", align_corners=False)
            kind, depth_type = self.config.depth_loss, self.config.depth_type
            losses.append(depth_loss(kind, self.read_depth(raw)[:, 0], labels, depth_type, num_valid))
        return torch.stack(losses).mean()

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save weights, configuration and the code that both need, so that the folder loads without depthseg.

        Every task class is named in `auto_map`: a depth folder loads as a segmenter too, and the other way round.
        """
        self.config.auto_map = auto_map()
        # transformers writes the model's dtype only; what it hands down on loading must already be in the file.
        encoder_config: Any = self.config.encoder_config
        encoder_config.dtype = self.dtype
        super().save_pretrained(save_directory, **kwargs)


def auto_map() -> dict[str, str]:
    """Return Auto class -> file and class of every task."""
    task_class("")  # the classes of all files are defined
    files = {"AutoConfig": DepthSegConfig} | {cls.auto_class: cls for cls in TASK_CLASSES.values()}
    return {name: f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}" for name, cls in sorted(files.items())}


class DepthSegForDepthEstimation(DepthSegPreTrainedModel):
    """A depth network: encoder, head and one predictor per trained scale.

    Args:
        config ([`DepthSegConfig`]): The architecture.

    Source: Godard et al. 2019, https://huggingface.co/papers/1806.01260, with the Monodepth2 head; Ranftl et al. 2021,
    https://huggingface.co/papers/2103.13413, with the DPT head.
    """

    auto_class = "AutoModelForDepthEstimation"
    pipeline_table = "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES"
    parts = ("encoder", "head", "depth_predictor")

    def __init__(self, config: DepthSegConfig):
        super().__init__(config)
        self.head = build_head_on(self.encoder, config)
        self.head.serve(depth=True, labels=False)
        self.depth_predictor = self.head.make_depth_predictor()
        self.finish_init()

    def count_valid(self, labels: Tensor) -> Tensor:
        """Return the number of pixels `(B, H, W)` whose depth is known, an int64 tensor of shape `()`."""
        return valid_depth(labels).sum()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        num_valid: Tensor | int | None = None,
        output_hidden_states: bool | None = None,
    ) -> DepthSegDepthOutput:
        """Predict depth.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): Images as the image processor makes them.
            labels (`torch.Tensor` of shape `(B, H', W')`, *optional*): Depth in metres at any resolution; 0, NaN or
                infinite = unknown.
            num_valid (`torch.Tensor` or `int`, *optional*): Divisor of the loss; defaults to the known pixels of this
                batch.
            output_hidden_states (`bool`, *optional*): Whether to return the encoder's maps.

        Returns:
            [`DepthSegDepthOutput`]: `predicted_depth` has the size of the image.
        """
        features = self.encode(pixel_values)
        maps = self.head(features)
        raw_maps = self.predict_raw_depth(maps)
        loss = None if labels is None else self.compute_depth_loss(features, raw_maps, labels, num_valid)
        return DepthSegDepthOutput(
            loss=loss,
            predicted_depth=self.read_depth(features.to_input(raw_maps[0]))[:, 0],
            hidden_states=tuple(features.maps) if output_hidden_states else None,
            raw_maps=raw_maps,
        )


class DepthSegForSemanticSegmentation(DepthSegPreTrainedModel):
    """A segmentation network: encoder, head and a classifier, optionally with the depth predictor beside it.

    `from_pretrained` takes a depth checkpoint: encoder and head come over, the classifier is new. That is the best
    practice of Lao et al. 2024, https://huggingface.co/papers/2203.13987.

    Args:
        config ([`DepthSegConfig`]): The architecture; `keep_depth` keeps the depth predictor.
    """

    auto_class = "AutoModelForSemanticSegmentation"
    pipeline_table = "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES"
    parts = ("encoder", "head", "classifier")

    @classmethod
    def parts_of(cls, config: DepthSegConfig) -> tuple[str, ...]:
        """Return the parts of a model with a configuration."""
        return (*cls.parts, "depth_predictor") if config.keep_depth else cls.parts

    def __init__(self, config: DepthSegConfig):
        super().__init__(config)
        self.head = build_head_on(self.encoder, config)
        self.head.serve(depth=config.keep_depth, labels=True)
        assert config.num_labels is not None, "a configuration has classes, two by default"
        self.classifier = self.head.make_classifier(config.num_labels)
        if config.keep_depth:
            self.depth_predictor = self.head.make_depth_predictor()
        self.finish_init()

    def freeze_unused_parameters(self) -> None:
        """Also fix the kept depth predictor, which the segmentation loss does not reach.

        Its input does change in fine-tuning, so its depth gets worse unless both are trained together.
        """
        super().freeze_unused_parameters()
        if self.config.keep_depth:
            self.depth_predictor.requires_grad_(False)

    def train_depth_predictor(self) -> None:
        """Let the finest kept depth predictor learn, for training on labels and depth together."""
        self.depth_predictor[0].requires_grad_(True)

    def count_valid(self, labels: Tensor) -> Tensor:
        """Return the number of pixels `(B, H, W)` that are not ignored, an int64 tensor of shape `()`."""
        return (labels != self.config.semantic_loss_ignore_index).sum()

    @staticmethod
    def _renamed_target(renamed: dict[str, Any], depth_target: Tensor | None) -> Tensor | None:
        """Take `depth_target` under its name of version 0.1 as well.

        transformers' Trainer expects every argument with "label" in its name in each batch.
        """
        if "depth_labels" in renamed:
            logger.warning_once("depth_labels is called depth_target now; the old name goes with the next version.")
            depth_target = renamed.pop("depth_labels")
        if renamed:
            raise TypeError(f"DepthSegForSemanticSegmentation.forward() has no argument {', '.join(renamed)}.")
        return depth_target

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        num_valid: Tensor | int | None = None,
        depth_target: Tensor | None = None,
        num_valid_depth: Tensor | int | None = None,
        output_hidden_states: bool | None = None,
        **renamed: Any,
    ) -> DepthSegSegmenterOutput:
        """Predict class scores.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): Images as the image processor makes them.
            labels (`torch.LongTensor` of shape `(B, H', W')`, *optional*): Class ids at any resolution;
                `config.semantic_loss_ignore_index` = ignored. With one class, 1 is the class and 0 the background.
            num_valid (`torch.Tensor` or `int`, *optional*): Divisor of the loss; defaults to the pixels of this batch
                that are not ignored.
            depth_target (`torch.Tensor` of shape `(B, H', W')`, *optional*): Depth in metres for the kept depth
                predictor; 0, NaN or infinite = unknown. Needs `config.keep_depth`.
            num_valid_depth (`torch.Tensor` or `int`, *optional*): Divisor of the depth loss; defaults to the known
                pixels of this batch.
            output_hidden_states (`bool`, *optional*): Whether to return the encoder's maps.
            renamed: `depth_target` under its old name, `depth_labels`.

        Returns:
            [`DepthSegSegmenterOutput`]: `logits` at the head's resolution, or at the image's if it had to be padded.
                Beside the loss of a head that predicts masks they have no gradient.
        """
        depth_target = self._renamed_target(renamed, depth_target)
        features = self.encode(pixel_values)
        maps = self.head(features)
        logits, masks = self.head.predict_labels(self.classifier, maps, are_compared=labels is not None)
        if features.may_be_padded:
            logits = features.to_input(logits)
        loss = None
        config, ignore_index = self.config, self.config.semantic_loss_ignore_index
        if labels is not None and masks is not None:
            loss = self.head.compute_mask_loss(features, masks, labels, ignore_index, num_valid)
        elif labels is not None:
            kind, options = config.segmentation_loss, (config.class_weights, config.label_smoothing)
            loss = segmentation_loss(logits, labels, ignore_index, num_valid, kind, *options)
        predicted_depth = measured_depth_loss = None
        if self.config.keep_depth:
            raw = self.predict_raw_depth(maps)[0]
            predicted_depth = self.read_depth(features.to_input(raw))[:, 0]
        if depth_target is not None:
            if not self.config.keep_depth:
                raise ValueError("depth_target was given but the model has no depth predictor; set keep_depth=True.")
            measured_depth_loss = self.compute_depth_loss(features, (raw,), depth_target, num_valid_depth)
        return DepthSegSegmenterOutput(
            loss=loss,
            logits=logits,
            hidden_states=tuple(features.maps) if output_hidden_states else None,
            predicted_depth=predicted_depth,
            depth_loss=measured_depth_loss,
        )
