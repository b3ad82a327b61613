"""What heads that predict masks have in common.

Shape letters: B batch, Q queries, K classes, h and w mask size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .encoders_base_depthseg import EncoderFeatures
from .heads_base_depthseg import DepthSegHead
from .heads_blocks_depthseg import check_counts
from .losses_masks_depthseg import MaskLossWeights, MaskPrediction, mask_loss


@dataclass(frozen=True)
class MaskHeadConfig:
    """Options of every mask head.

    Args:
        num_queries (`int`, *optional*, defaults to `100`): Number of masks that are predicted for an image; at least
            the largest number of classes in one image.
        class_weight, mask_weight, dice_weight (`float`, *optional*, default to `2.0`, `5.0` and `5.0`): Weights of the
            cross-entropy of classes, the cross-entropy of masks and their Dice loss, in matching and loss.
        no_object_weight (`float`, *optional*, defaults to `0.1`): Weight of queries without segment in the
            cross-entropy of classes.
        num_points (`int`, *optional*, defaults to `12544`): Number of pixels of an image at which masks are compared.
    """

    num_queries: int = 100
    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object_weight: float = 0.1
    num_points: int = 12544

    def __post_init__(self) -> None:
        check_counts(num_queries=self.num_queries, num_points=self.num_points)
        for name in ("class_weight", "mask_weight", "dice_weight", "no_object_weight"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < float("inf"):
                raise ValueError(f"head_config.{name} is {value!r}; it must be a number of at least 0.")


class QueryClassifier(nn.Linear):
    """From a query `(..., C)` to the scores of the classes and of "no object", `(..., K + 1)`.

    One class has its background as a class of its own, so its K is 2.
    """

    def __init__(self, width: int, num_labels: int):
        super().__init__(width, max(num_labels, 2) + 1)
        self.one_class = num_labels == 1


class MaskHead(DepthSegHead):
    """A head whose queries each predict a mask and its class; they serve segmentation only.

    The decoder maps are, for each of n decoder layers, the mask scores `(B, Q, h, w)`, the last layer first, and after
    all of them the queries `(B, Q, C)` of the layers in the same order. The classifier reads a query.

    The logits are the logarithms of semantic scores, see [`MaskPrediction.class_scores`]; the logit of one class
    against a background is the difference of the two. They are resized like those of other heads, after the logarithm.

    Args:
        width (`int`): Channels C of a query.
        stride (`float`): Input pixels per cell of a mask.
        config ([`MaskHeadConfig`]): The options.
    """

    def __init__(self, width: int, stride: float, config: MaskHeadConfig):
        super().__init__()
        self.width = width
        self.channels = [config.num_queries]
        self.strides = (stride,)
        self.loss_weights = MaskLossWeights(
            config.class_weight, config.mask_weight, config.dice_weight, config.no_object_weight, config.num_points
        )

    def make_classifier(self, num_labels: int) -> nn.Module:
        """One linear layer from a query to the classes and "no object"."""
        return QueryClassifier(self.width, num_labels)

    def make_predictor(self, channels: int) -> nn.ModuleList:
        """Refuse: a mask head has no map from which other tasks could be predicted."""
        raise ValueError(
            "This head_type predicts masks and their classes, so it does segmentation only, without keep_depth; for "
            "depth and other tasks choose a head_type that predicts each pixel, such as 'dpt'."
        )

    def serve(self, depth: bool, labels: bool) -> None:
        """See [`DepthSegHead.serve`]; depth is refused."""
        if depth:
            self.make_predictor(1)

    def predict_labels(
        self, classifier: nn.Module, maps: list[Tensor], are_compared: bool = False
    ) -> tuple[Tensor, list[MaskPrediction]]:
        """See [`DepthSegHead.predict_labels`]; the masks are those of all layers, the last one first."""
        half = len(maps) // 2
        pairs = zip(maps[:half], maps[half:], strict=True)
        layers = [MaskPrediction(classifier(queries), masks) for masks, queries in pairs]
        # Of all classes at all pixels: what the gradient would keep of them is far larger than the masks.
        scores = (layers[0].detach() if are_compared else layers[0]).class_scores()
        return scores[:, 1:] - scores[:, :1] if classifier.one_class else scores, layers

    def compute_mask_loss(
        self,
        features: EncoderFeatures,
        layers: list[MaskPrediction],
        labels: Tensor,
        ignore_index: int,
        num_valid: Tensor | int | None,
    ) -> Tensor:
        """See [`DepthSegHead.compute_mask_loss`] and [`mask_loss`]."""
        (height, width), (padded_height, padded_width) = features.input_size, features.padded_size
        extent = height / padded_height, width / padded_width
        return mask_loss(layers, labels, self.loss_weights, extent, ignore_index, num_valid)
