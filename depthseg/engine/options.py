"""The options of a run: one dataclass per concern."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from ..choices import PoseNetworkName
from ..reading import (
    Allowed,
    BelongsTo,
    Count,
    NotNegative,
    Positive,
    PositiveCount,
    at_least,
    literal,
    no_problems,
    typed,
    write_yaml,
    written,
)
from .atomic import atomic_path
from .validation import find_problems

Task = Literal["segmentation", "depth", "flow", "inpainting", "classification"]
TASK_NAMES = get_args(Task)

TrackerName = Literal["tensorboard", "trackio", "wandb", "mlflow"]

FORMER_NAMES = {
    "data.crop_pixels": "data.random_crop",
    "pretext.align": "pretext.derotate",
    "pretext.intrinsics=per_picture": "pretext.intrinsics=per_image",
    "task=reconstruction": "task=inpainting",
    "run.tensorboard=true": "run.trackers=[tensorboard]",
    "run.tensorboard=false": "run.trackers=[]",
}
"""Former name of an option, or of one of its values -> the name now.

Users may write them for one version, with a warning. Records of finished runs have them for good.
"""

StepInterval = Annotated[int, at_least(0, "after the last step alone")]

_SIZE = Allowed("[height, width] in pixels, both at least 1", lambda size: len(size) == 2 and min(size) >= 1)
_CROP_SCALE = Allowed(
    "[smallest, largest] with 0 < smallest <= largest <= 1",
    lambda scale: len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1,
)
_SCALE_RANGE = Allowed(
    "[smallest, largest] with 0 < smallest <= largest",
    lambda scale: len(scale) == 2 and 0 < scale[0] <= scale[1],
)
_EDGES = Allowed("lengths in pixels, each at least 1, or [] for none", lambda edges: all(edge >= 1 for edge in edges))
_NEIGHBOURS = Allowed("neighbours such as [-1, 1], never 0", lambda frames: bool(frames) and 0 not in frames)
_HOLE_SHARE = Allowed(
    "[least, most] with 0 <= least <= most <= 1 and most above 0",
    lambda share: len(share) == 2 and 0 <= share[0] <= share[1] <= 1 and share[1] > 0,
)
_CLASS_WEIGHTS = Allowed(
    "none, balanced, or a list with one number a class",
    lambda weights: (
        weights in ("none", "balanced")
        or (isinstance(weights, list) and all(type(weight) in (int, float) for weight in weights))
    ),
)
_DECAY = Allowed("above 0 and at most 1 (1 = off)", lambda decay: 0 < decay <= 1)
_BETAS = Allowed("two numbers in [0, 1)", lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas))


@dataclass
class LoraOptions:
    """Low-rank adapters of the encoder, in place of training its weights; needs the extra `lora`.

    The head is trained as a whole, and norm statistics move as in any training.

    Attributes:
        rank: Rank of the adapters; 0 = none, the weights themselves are trained.
        alpha: The adapters are scaled by `alpha / rank`; null = twice the rank.
        dropout: Probability that an input of an adapter is set to 0 in training.
        targets: Ends of the names of the adapted linear and convolutional layers, such as `[query, value]`; null = all
            linear layers of the attention blocks.
        merge: Save the sum of weights and adapters, a model like any other; false = save adapters and head alone,
            which need the checkpoint that they were trained on.
    """

    rank: Annotated[int, at_least(0, "no adapters")] = 0
    alpha: Positive | None = None
    dropout: Annotated[float, Allowed("a number in [0, 1)", lambda share: 0 <= share < 1)] = 0.0
    targets: list[str] | None = None
    merge: bool = True


@dataclass
class ModelOptions:
    """Which network is trained, and its initialisation.

    Attributes:
        pretrained: Directory or Hub id of the checkpoint to initialise from, one of depthseg or a depth model of
            transformers (Depth Anything, DPT, ...), or a bare encoder of it (DINOv2, Swin, ...); null = random
            weights.
        revision: Commit, tag or branch of a Hub id.
        encoder: Encoder of a network with random weights, such as
            `{model_type: depthseg_resnet, depth: 18, width_factor: 0.5}`. A checkpoint has its own; of one with this
            `model_type`, `output_stride` still dilates the encoder, and of a bare encoder `out_indices` chooses the
            layers that the decoder reads.
        head_type: Decoder, such as `monodepth2`, `dpt` or `linear`; null = the one of the checkpoint, or the model's
            default. `mask_queries` and `mask2former` wait for a GPU in every training step, because their queries are
            matched with segments on the CPU (Hungarian algorithm).
        head_config: Options of the decoder; null = the one of the checkpoint, or the decoder's defaults.
        head_init: `pretrained` takes the decoder of the checkpoint where it fits, `random` initialises it randomly.
        freeze_encoder: Train the decoder alone; the encoder keeps its weights and its norm statistics.
        lora: Low-rank adapters, such as `model.lora.rank=8`.
        gradient_checkpointing: Keep fewer activations of the encoder and compute them again in the backward pass: less
            memory, more time, the same numbers.
        compile: Compile the blocks of the encoder and the decoder with `torch.compile`, each apart: a minute or more
            before the first step, and numbers that differ by rounding. Evaluation is not compiled.
        keep_depth: Keep the depth layer of a depth checkpoint beside the classifier.
        depth_weight: Segmentation with `keep_depth`: weight of the depth loss beside the label loss, for data that has
            both; 0 = labels alone, and the kept depth gets worse as the network moves.
        depth_type: Meaning of the depth output (`disparity`, `metric`, `relative`, `relative_inverse`); null = the
            model's.
        depth_loss: Loss for depth labels (`l1`, `silog`, `ssi`); null = the model's. A depth model of transformers has
            none: `ssi` where its depth is relative, `silog` where it is metric.
        segmentation_loss: Loss for class labels (`cross_entropy`, `focal`, `dice`, `cross_entropy_dice`); null = the
            model's.
        class_weights: Weights of the classes in cross-entropy and focal loss: `none`, `balanced` (inversely
            proportional to their pixels in the training labels), or a list with one number a class; null = the
            checkpoint's, if its classes stay, or none. What was taken is in `run.json`.
        label_smoothing: Share of the target of the cross-entropy, from 0 to 1, that is spread evenly over the classes;
            null = the model's.
        min_depth: Nearest depth in metres; null = the model's.
        max_depth: Farthest depth in metres; null = the model's.
    """

    pretrained: str | None = None
    revision: str | None = None
    encoder: Annotated[dict[str, Any] | None, BelongsTo("encoder.model_type")] = None
    head_type: str | None = None
    head_config: Annotated[dict[str, Any] | None, BelongsTo("head_type")] = None
    head_init: Literal["pretrained", "random"] = "pretrained"
    freeze_encoder: bool = False
    lora: LoraOptions = field(default_factory=LoraOptions)
    gradient_checkpointing: bool = False
    compile: bool = False
    keep_depth: bool = False
    depth_weight: NotNegative = 0.0
    depth_type: str | None = None
    depth_loss: str | None = None
    segmentation_loss: str | None = None
    class_weights: Annotated[Any, _CLASS_WEIGHTS] | None = None
    label_smoothing: float | None = None
    min_depth: float | None = None
    max_depth: float | None = None


@dataclass
class DataOptions:
    """What the network is trained and evaluated on.

    Attributes:
        name: A data set of `depthseg datasets list`; may stay null where Python passes its own data sets.
        root: Folder of the data.
        video: A video file or a folder of frames: short for `name=video` and `root`.
        check: Read every file first, as `depthseg datasets check` does, and do not start while something is wrong.
        train_split: Split to train on.
        val_split: Split to evaluate on.
        options: Options of the data set for both splits.
        train_options: Options for the training split alone, on top of `options`.
        val_options: Options for the evaluated split alone, on top of `options`.
        subset_size: Train on this many images (a few-shot subset); 0 = all.
        subset_seed: Seed of the subset; with one seed smaller subsets lie inside larger ones.
        size: `[height, width]` in pixels of what the network sees, in training and afterwards.
        hflip: Probability of mirroring a training image.
        crop_scale: Range of the side length of random crops, as a fraction of the image; `[1, 1]` = no cropping.
        random_crop: Crop a random patch of `size` from the image as it is, instead of resizing the image.
        scale_range: Range of the factor that images are resized by before `random_crop`, such as `[0.5, 2]`; images
            that become smaller than the patch are padded with ignored pixels.
        shortest_edges: Lengths in pixels such as `[448, 537, 627]`, one of which, drawn at random, the shorter side of
            an image gets before `random_crop`, in place of `scale_range`; `[]` = off.
        longest_edge: Where the longer side would become longer than this, it gets this length instead; 0 = any length.
        max_class_share: Largest share of one class in the labelled pixels of a crop, such as 0.75: crops with more are
            drawn again, up to ten times; 1 = any crop.
        colour_jitter: Brightness, contrast and saturation change by a factor within 1 -+ this; 0 = off.
        augmented_copies: Train on this many augmented copies of each image, which take turns from epoch to epoch and
            are the same for every `run.seed`; 0 = a new augmentation each time.
        label_stride: Compute the training loss at every so many pixels of the label and depth maps. The patch size,
            such as 14, with a `linear` head is the head's own resolution, where the loss takes much less time; 1 = all
            pixels. Evaluation always counts all pixels.
        cache: `auto` keeps images, label and depth maps in decoded form in files that are mapped into memory, so that
            each is decoded once for all runs and processes, and says so where they do not fit; a file that changes is
            decoded again. `off` decodes them whenever they are read. No number depends on it.
        cache_features: Compute the features of a frozen encoder once for each image and read them from files ever
            after; needs `model.freeze_encoder`. A mirrored image has features of its own, because encoders do not
            commute with mirroring or cropping: `hflip` alone doubles the files and changes no number, other
            augmentations need `augmented_copies`.
        cache_dir: Folder of the files of `cache` and `cache_features`, which runs share; null = `depthseg/decoded` and
            `depthseg/features` in `$XDG_CACHE_HOME` or `~/.cache`. It can be deleted whenever no run uses it.
        cache_limit: Most that each such folder may hold, in GiB. Decoded files that would not fit are not kept;
            a run whose features would not fit is refused.
        num_workers: Processes that read training images beside each training process.
        on_error: What a training sample that cannot be read does: `fail` = it stops the run; `skip` = another sample
            takes its place, always the same one, and `run.json` names it.
        max_unreadable: Stop where more samples than this cannot be read.
    """

    name: str | None = None
    root: str | None = None
    video: str | None = None
    check: bool = False
    train_split: str = "train"
    val_split: str = "val"
    options: Annotated[dict[str, Any], BelongsTo("name")] = field(default_factory=dict)
    train_options: Annotated[dict[str, Any], BelongsTo("name")] = field(default_factory=dict)
    val_options: Annotated[dict[str, Any], BelongsTo("name")] = field(default_factory=dict)
    subset_size: Annotated[int, at_least(0, "all images")] = 0
    subset_seed: Count = 0
    size: Annotated[list[int], _SIZE] = field(default_factory=lambda: [192, 640])
    hflip: Annotated[float, Allowed("a probability from 0 to 1", lambda share: 0 <= share <= 1)] = 0.5
    crop_scale: Annotated[list[float], _CROP_SCALE] = field(default_factory=lambda: [1.0, 1.0])
    random_crop: bool = False
    scale_range: Annotated[list[float], _SCALE_RANGE] = field(default_factory=lambda: [1.0, 1.0])
    shortest_edges: Annotated[list[int], _EDGES] = field(default_factory=list)
    longest_edge: Annotated[int, at_least(0, "any length")] = 0
    max_class_share: Annotated[float, Allowed("a number above 0, at most 1", lambda share: 0 < share <= 1)] = 1.0
    colour_jitter: Annotated[float, Allowed("a number in [0, 1)", lambda share: 0 <= share < 1)] = 0.0
    augmented_copies: Count = 0
    label_stride: PositiveCount = 1
    cache: Literal["auto", "off"] = "auto"
    cache_features: bool = False
    cache_dir: str | None = None
    cache_limit: Positive = 50.0
    num_workers: Count = 0
    on_error: Literal["fail", "skip"] = "fail"
    max_unreadable: PositiveCount = 10


@dataclass
class PretextOptions:
    """Supervision without labels; each task reads its own options.

    Attributes:
        supervision: Supervision of depth: `labels` (measured depth), `mono` (a video), `stereo` (rectified pairs), or
            `mono_stereo` (a video of a stereo rig).
        source_frames: Neighbours in time that a frame is compared with, such as -1 and 1; of optical flow the first.
        pose_network: `separate` (a ResNet on pairs), `shared` (on the depth encoder's maps), or `posecnn`.
        pose_encoder: Options of the ResNet of `separate`; null = like a `depthseg_resnet` encoder, else ResNet-18.
        intrinsics: `given` by the data, or a trained focal length: of `one_camera` for all images, or `per_image`.
        ssim_weight: Weight of SSIM in the photometric error, 0 to 1; the rest is that of the absolute difference.
        smoothness_weight: Weight of edge-aware smoothness, of disparity or of flow; null = 1e-3 for depth, 2/3 for
            flow.
        auto_mask: Leave out pixels that an unwarped source explains best: what moves with the camera, or stands still
            with it.
        scale_consistency_weight: Weight of the difference between depths of neighbouring frames; 0 = off.
        pyramid: Compare coarse scales of depth on coarse images, in place of all scales at full resolution: for
            cameras that rotate by many pixels a frame.
        derotate: Estimate the rotation of the camera by image alignment and remove it. For depth, the pose network
            sees the remaining motion, and rotation and speed are refined with the current depth: training converges
            several times as fast. For optical flow, the network is trained on the remaining motion.
        hole_share: Inpainting erases squares around this fraction of the pixels, drawn between two numbers.
        hole_size: Side of these squares in pixels.
        scale_weights: Inpainting: `fine` gives the finest scale the most weight, `reversed` the coarsest, as the
            code of Lao et al. does.
    """

    supervision: Literal["labels", "mono", "stereo", "mono_stereo"] = "labels"
    source_frames: Annotated[list[int], _NEIGHBOURS] = field(default_factory=lambda: [-1, 1])
    pose_network: PoseNetworkName = "separate"
    pose_encoder: Annotated[dict[str, Any] | None, BelongsTo("pose_network")] = None
    intrinsics: Literal["given", "one_camera", "per_image"] = "given"
    ssim_weight: Annotated[float, Allowed("a number in [0, 1]", lambda share: 0 <= share <= 1)] = 0.85
    smoothness_weight: NotNegative | None = None
    auto_mask: bool = True
    scale_consistency_weight: NotNegative = 0.0
    pyramid: bool = False
    derotate: bool = False
    hole_share: Annotated[list[float], _HOLE_SHARE] = field(default_factory=lambda: [0.001, 0.01])
    hole_size: PositiveCount = 7
    scale_weights: Literal["fine", "reversed"] = "fine"


@dataclass
class OptimOptions:
    """How weights are updated.

    Attributes:
        name: The optimiser.
        lr: Peak learning rate.
        encoder_lr_factor: The encoder learns at `lr` times this.
        layer_decay: Each layer of the encoder learns at this fraction of the rate of the layer above it, so that what
            is near the image changes least, as in BEiT and MAE; 1 = all at the same rate.
        weight_decay: For weight matrices and filters; biases and other vectors never decay, norms only with
            `norm_decay_factor`.
        norm_lr_factor: Norms learn at the rate of their part times this.
        norm_decay_factor: Norms decay at `weight_decay` times this; 0 = not at all.
        position_lr_factor: Learned positions learn at the rate of their part times this.
        position_decay_factor: Learned positions decay at `weight_decay` times this; 0 = not at all, as is usual.
        query_lr_factor: Queries and level embeddings of mask heads learn at the rate of the head times this.
        query_decay_factor: They decay at `weight_decay` times this; 0 = not at all, as is usual.
        betas: Averages of Adam and AdamW.
        momentum: Momentum of SGD.
        batch_size: Images per optimiser step, over all processes and accumulation steps together.
        accumulation_steps: Cut each batch into this many parts, for small memories.
        auto_batch_size: Where the memory of the device does not hold a batch, cut it into as many parts as it takes;
            `batch_size` stays. For one process; several take `accumulation_steps`.
        max_grad_norm: Clip the gradient to this length; 0 = never.
        max_bad_steps: Stop after this many steps in a row whose loss or gradient is not a finite number. Fewer are
            left out: weights stay as before the step, and its batch is kept in `bad_steps/` for `depthseg replay`.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Positive = 1e-4
    encoder_lr_factor: NotNegative = 1.0
    layer_decay: Annotated[float, _DECAY] = 1.0
    weight_decay: NotNegative = 0.01
    norm_lr_factor: NotNegative = 1.0
    norm_decay_factor: NotNegative = 0.0
    position_lr_factor: NotNegative = 1.0
    position_decay_factor: NotNegative = 1.0
    query_lr_factor: NotNegative = 1.0
    query_decay_factor: NotNegative = 1.0
    betas: Annotated[list[float], _BETAS] = field(default_factory=lambda: [0.9, 0.999])
    momentum: NotNegative = 0.9
    batch_size: PositiveCount = 8
    accumulation_steps: PositiveCount = 1
    auto_batch_size: bool = False
    max_grad_norm: NotNegative = 0.0
    max_bad_steps: PositiveCount = 5


@dataclass
class ScheduleOptions:
    """How long, and how the learning rate moves; everything counts optimiser steps.

    Attributes:
        name: How the learning rate decays after its rise; `constant` = not at all.
        steps: Optimiser steps of the whole run.
        warmup_steps: Linear rise from zero over the first steps.
        power: Power of `poly`.
    """

    name: Literal["cosine", "poly", "constant"] = "cosine"
    steps: PositiveCount = 1000
    warmup_steps: Count = 0
    power: Positive = 0.9


@dataclass
class RunOptions:
    """Where results go and how the run behaves.

    Attributes:
        output_dir: Run directory.
        seed: Seed of new weights, of the order of images and of their augmentation.
        precision: `no` (float32), `bf16` or `fp16` (GPU only) autocast in training; evaluation is always float32.
        pure_bf16: With `precision=bf16`: encoder and decoder compute in bf16 throughout, on a bf16 copy of the weights
            that is made anew each step, where autocast computes norms and sums of residual branches in float32. The
            weights themselves, their updates, last layers, losses and evaluation stay as they are. Not with weights
            that are shared out over processes (FSDP2).
        eval_every: Evaluate after every so many steps, and after the last one; 0 = after the last one alone.
        log_every: Steps between two lines of progress.
        checkpoint_every: Steps between two resumable checkpoints; 0 = after the last step alone.
        keep_last: Number of checkpoints that are kept. Two are safer than one, because damage to the newest costs the
            steps since the one before.
        select: `model/` holds the weights with the `best` evaluation, or the `last`.
        resume: Resume the run in `output_dir`, or start it where there is none.
        overwrite: Remove the run that `output_dir` holds.
        trackers: Where else the numbers go: `tensorboard` (event files in the run directory), `trackio`, `wandb`,
            `mlflow`, or `[]` for none. One that is not installed or not reached is a warning. Their project is
            `depthseg`, or that of `WANDB_PROJECT`, `TRACKIO_PROJECT`, `MLFLOW_EXPERIMENT_NAME`.
        score_before: Also evaluate the model before the first step, and a constant that sees no image; `report/` then
            compares them with the scores after training.
        report: Draw the curves and some predictions of a run when it ends.
        cpu: Stay on the CPU even where there is a GPU.
        timeout: Seconds that processes wait for one that does not answer; then the run ends and names it. It has to be
            longer than the evaluation and the report, which the first process does while others wait; null = as
            PyTorch has it, 10 minutes on GPUs and 30 on CPUs.
    """

    output_dir: Annotated[str, Allowed("the name of a directory", bool)] = "runs/default"
    seed: Count = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    pure_bf16: bool = False
    eval_every: StepInterval = 0
    log_every: PositiveCount = 10
    checkpoint_every: StepInterval = 0
    keep_last: PositiveCount = 2
    select: Literal["best", "last"] = "best"
    resume: bool = False
    overwrite: bool = False
    trackers: list[TrackerName] = field(default_factory=lambda: ["tensorboard"])
    score_before: bool = False
    report: bool = True
    cpu: bool = False
    timeout: Positive | None = None


@dataclass
class RunConfig:
    """All options of one training run.

    Attributes:
        task: What is trained: segmentation, or a pre-training task.
        model: The network.
        data: The data.
        pretext: Supervision without labels.
        optim: The optimiser.
        schedule: Length and learning rate.
        run: Everything else.
    """

    task: Task = "segmentation"
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    pretext: PretextOptions = field(default_factory=PretextOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    run: RunOptions = field(default_factory=RunOptions)

    def validate(self) -> None:
        """Check every value that can be checked without data, model or device.

        Raises:
            ValueError: One sentence per wrong option, all of them together; of a wrong type, these alone.
        """
        typed(written(self.to_dict()), RunConfig)
        no_problems(find_problems(self))

    def to_dict(self) -> dict[str, Any]:
        """The options as plain dictionaries, lists and numbers."""
        return dataclasses.asdict(self)

    def save(self, path: str | Path) -> None:
        """Write the options as one complete YAML file, which `load_config` reads back to the same values."""
        with atomic_path(path) as temporary:
            # What a program gave may be a path, a tuple or a number of NumPy.
            write_yaml(temporary, literal(typed(written(self.to_dict()), RunConfig)))
