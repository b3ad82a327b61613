"""ZoeDepth: DPT's neck, and a metric head with depth bins that uses several of its maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoders_base_depthseg import EncoderFeatures
from .heads_dpt_depthseg import NUM_MAPS, DPTHead, DPTHeadConfig

BIN_KEYS = ("n_bins", "min_depth", "max_depth")
# The domain classifier of transformers supports only these; other values cannot be loaded there either.
NUM_DOMAINS = 2
ROUTER_WIDTH = 128
ROUTER_LAYERS = 4
EPSILON = 1e-7
MIN_PROBABILITY = 1e-4


@dataclass(frozen=True)
class ZoeDepthHeadConfig(DPTHeadConfig):
    """Options of [`ZoeDepthHead`]: those of the DPT head, and the metric head's.

    Args:
        bin_configurations (`tuple[dict, ...]`, *optional*): One domain (`n_bins`, `min_depth`, `max_depth` in
            metres), or two, each also with a `name`; by default 64 bins from 1 mm to 10 m.
        bin_embedding_dim (`int`, *optional*, defaults to `128`): Channels of the bin embeddings.
        bin_centers_type (`str`, *optional*, defaults to `"softplus"`): `"softplus"` (unbounded) or `"normed"`.
        num_attractors (`tuple[int, ...]`, *optional*, defaults to `(16, 8, 4, 1)`): Attractors, coarse to fine.
        attractor_kind (`str`, *optional*, defaults to `"mean"`): `"mean"` or `"sum"` over the attractors.
        min_temp, max_temp (`float`, *optional*, default to `0.0212` and `50.0`): Range of the bins' temperature.
        patch_transformer_intermediate_size (`int`, *optional*, defaults to `1024`), patch_transformer_num_heads
            (`int`, *optional*, defaults to `4`): Of the domain classifier, with two domains.
    """

    upsampling: str = "double"
    bin_configurations: tuple[dict[str, Any], ...] = ({"n_bins": 64, "min_depth": 0.001, "max_depth": 10.0},)
    bin_embedding_dim: int = 128
    bin_centers_type: str = "softplus"
    num_attractors: tuple[int, ...] = (16, 8, 4, 1)
    attractor_kind: str = "mean"
    min_temp: float = 0.0212
    max_temp: float = 50.0
    patch_transformer_intermediate_size: int = 1024
    patch_transformer_num_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("bin_centers_type", ("softplus", "normed")), ("attractor_kind", ("mean", "sum"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"head_config.{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}.")
        if len(self.num_attractors) != NUM_MAPS:
            raise ValueError(
                f"head_config.num_attractors is {self.num_attractors}; ZoeDepth requires exactly {NUM_MAPS} entries."
            )
        keys = BIN_KEYS if len(self.bin_configurations) == 1 else (*BIN_KEYS, "name")
        if not 1 <= len(self.bin_configurations) <= NUM_DOMAINS or any(
            key not in bins for bins in self.bin_configurations for key in keys
        ):
            raise ValueError(
                f"head_config.bin_configurations is {list(self.bin_configurations)}; ZoeDepth requires one entry with "
                f"{', '.join(BIN_KEYS)}, or {NUM_DOMAINS} that also have a name."
            )

    @property
    def max_depth(self) -> float:
        """The largest depth of any domain, in metres: the unit of predicted depth."""
        return float(max(bins["max_depth"] for bins in self.bin_configurations))


class ZoeDepthHead(DPTHead):
    """DPT's neck and relative head, followed by the metric head as depth predictor.

    For depth the decoder maps are: the input of the relative head's last layer, the four fused maps from fine to
    coarse, and the deepest map before fusion. A segmenter uses the first or the second of them, and without depth the
    others are not returned.

    Source: Bhat et al. 2023, https://huggingface.co/papers/2302.12288.
    """

    activates_depth = True
    config: ZoeDepthHeadConfig

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: ZoeDepthHeadConfig
    ):
        # Indices of the neck's maps, shallow to deep, for `serve`.
        strides = strides[-NUM_MAPS:]
        factors = config.reassemble_factors if len(set(strides)) == 1 else (1,) * NUM_MAPS
        self.neck_strides = tuple(stride / factor for stride, factor in zip(strides, factors, strict=True))
        self.made: list[ZoeDepthPredictor] = []
        super().__init__(channels, strides, num_prefix_tokens, config)

    def serve(self, depth: bool, labels: bool) -> None:
        """See [`DepthSegHead.serve`]; depth uses all maps."""
        super().serve(depth, labels)
        self.hands_on_all = depth
        if depth:
            self.classifier_map = 1 if self.hands_on_fused else 0
            fused = self.config.fusion_hidden_size
            self.channels = [self.config.head_hidden_size] + [fused] * (NUM_MAPS + 1)
            self.strides = (self.fused_stride / 2, self.fused_stride, *self.neck_strides)

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]; the class describes the maps."""
        if not self.hands_on_all:
            return super().forward(features)
        maps, fused = self.fuse(features)
        return [self.refine(fused[-1], features), *reversed(fused), maps[-1]]

    def make_depth_predictor(self) -> nn.ModuleList:
        """The last layer of the relative head, and the metric head."""
        self.made = [ZoeDepthPredictor(self.config)]
        return nn.ModuleList(self.made)

    def predict_depth(self, predictors: nn.ModuleList, maps: list[Tensor]) -> list[Tensor]:
        """Depth as a fraction of the largest depth of any domain, at one scale, `(B, 1, h, w)`."""
        return [predictors[0](maps) / self.config.max_depth]

    def unused_parameters(self) -> list[nn.Parameter]:
        """Parameters that DPT's head does not use, and those of the metric head that cannot be trained."""
        return super().unused_parameters() + [p for predictor in self.made for p in predictor.untrained_parameters()]


class ZoeDepthPredictor(nn.Module):
    """From the decoder maps of [`ZoeDepthHead`] to depth in metres.

    Depth is a weighted mean of bin centres. The centres are initialised from the deepest map and refined at each finer
    one; their weights are predicted per pixel. With two domains (for example indoor and street) a classifier selects
    one for each image, so the depth of an image does not depend on the other images of its batch. In transformers one
    domain is selected jointly for the whole batch. The layers of the other domain have weight 0, so that distributed
    training finds a gradient for every parameter. The classifier itself is not trained: the selection has no gradient,
    and depth labels do not contain the domain.
    """

    def __init__(self, config: ZoeDepthHeadConfig):
        super().__init__()
        from transformers import ZoeDepthConfig
        from transformers.models.zoedepth.modeling_zoedepth import (
            ZoeDepthMetricDepthEstimationHead,
            ZoeDepthMultipleMetricDepthEstimationHeads,
        )

        self.bins = [dict(bins) for bins in config.bin_configurations]
        self.routes = len(self.bins) > 1
        self.normed = config.bin_centers_type == "normed"
        theirs = ZoeDepthConfig(
            num_relative_features=config.head_hidden_size,
            fusion_hidden_size=config.fusion_hidden_size,
            bottleneck_features=config.fusion_hidden_size,
            num_patch_transformer_layers=ROUTER_LAYERS,
            patch_transformer_hidden_size=ROUTER_WIDTH,
            patch_transformer_intermediate_size=config.patch_transformer_intermediate_size,
            patch_transformer_num_attention_heads=config.patch_transformer_num_heads,
            bin_configurations=self.bins,
            bin_embedding_dim=config.bin_embedding_dim,
            bin_centers_type=config.bin_centers_type,
            num_attractors=list(config.num_attractors),
            attractor_kind=config.attractor_kind,
            min_temp=float(config.min_temp),
            max_temp=float(config.max_temp),
        )
        self.conv3 = nn.Conv2d(config.head_hidden_size, 1, 1)
        heads = ZoeDepthMultipleMetricDepthEstimationHeads if self.routes else ZoeDepthMetricDepthEstimationHead
        self.metric_head = heads(theirs)
        for number, bins in enumerate(self.bins):
            self.layers_of(number)[2].log_binomial_transform = LogBinomialSoftmax(bins["n_bins"])

    def layers_of(self, number: int) -> tuple[nn.Module, nn.ModuleList, nn.Module]:
        """Return a domain's regressor of initial bin centres, its attractors and its bin weighting."""
        head = self.metric_head
        if not self.routes:
            return head.seed_bin_regressor, head.attractors, head.conditional_log_binomial
        name = self.bins[number]["name"]
        return head.seed_bin_regressors[name], head.attractors[name], head.conditional_log_binomial[name]

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Predict depth in metres, `(B, 1, h, w)` of the size of map 0."""
        refined, *fused, deepest = maps
        deepest = self.metric_head.conv2(deepest)
        if not self.routes:
            # With one domain the relative depth is used as well; with two, transformers does not use it.
            refined = torch.cat([refined, F.relu(self.conv3(refined))], dim=1)
            return self.predict_domain(0, refined, fused, deepest)
        chosen = self.choose_domain(deepest)[:, None, None, None]
        first, second = (self.predict_domain(number, refined, fused, deepest) for number in range(NUM_DOMAINS))
        return torch.where(chosen == 0, first, second)

    @torch.no_grad()
    def choose_domain(self, deepest: Tensor) -> Tensor:
        """Return for each image the number of its domain, `(B,)`."""
        token = self.metric_head.patch_transformer(deepest)[:, 0]
        return self.metric_head.mlp_classifier(token).argmax(dim=1)

    def predict_domain(self, number: int, refined: Tensor, fused: list[Tensor], deepest: Tensor) -> Tensor:
        """Predict depth in metres, `(B, 1, h, w)`, with one domain's layers; `fused` is from fine to coarse."""
        regressor, attractors, weighting = self.layers_of(number)
        bins = regressor(deepest)[1]
        if self.normed:
            nearest, farthest = self.bins[number]["min_depth"], self.bins[number]["max_depth"]
            bins = (bins - nearest) / (farthest - nearest)
        embedding = self.metric_head.seed_projector(deepest)
        for projector, attractor, level in zip(self.metric_head.projectors, attractors, reversed(fused), strict=True):
            projected = projector(level)
            bins, centers = attractor(projected, bins, embedding)
            embedding = projected
        size = refined.shape[-2:]
        embedding = F.interpolate(embedding, size=size, mode="bilinear", align_corners=True)
        centers = F.interpolate(centers, size=size, mode="bilinear", align_corners=True)
        return (weighting(refined, embedding) * centers).sum(dim=1, keepdim=True)

    def untrained_parameters(self) -> list[nn.Parameter]:
        """With two domains: the domain classifier, and the relative head's last layer, which is not used."""
        if not self.routes:
            return []
        modules = (self.conv3, self.metric_head.patch_transformer, self.metric_head.mlp_classifier)
        return [parameter for module in modules for parameter in module.parameters()]

    def train(self, mode: bool = True) -> ZoeDepthPredictor:
        """Set training mode; the classifier is not trained and stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.routes:
            self.metric_head.patch_transformer.train(False)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> ZoeDepthPredictor:
        """Set whether the predictor is trained; parameters that cannot be trained stay frozen."""
        super().requires_grad_(requires_grad)
        for parameter in self.untrained_parameters():
            parameter.requires_grad_(False)
        return self


class LogBinomialSoftmax(nn.Module):
    """Softmax over bins of the log of a binomial distribution, with Stirling's approximation.

    Equal to the class of this name in transformers, which keeps bin indices in buffers that are not saved and would be
    uninitialised after loading.
    """

    def __init__(self, n_bins: int):
        super().__init__()
        self.n_bins = n_bins

    def forward(self, probability: Tensor, temperature: Tensor) -> Tensor:
        """Map probability `(B, h, w)` and temperature `(B, 1, h, w)` to weights of the bins, `(B, n_bins, h, w)`."""
        probability = probability[:, None]
        bins = torch.arange(self.n_bins, device=probability.device)[:, None, None]
        last = self.n_bins - 1
        n, k = last + EPSILON, bins + EPSILON
        log_choices = n * torch.log(torch.full_like(k, n)) - k * torch.log(k) - (n - k) * torch.log(n - k + EPSILON)
        log_hit = probability.clamp(min=MIN_PROBABILITY).log()
        log_miss = (1 - probability).clamp(min=MIN_PROBABILITY).log()
        return torch.softmax((log_choices + bins * log_hit + (last - bins) * log_miss) / temperature, dim=1)
