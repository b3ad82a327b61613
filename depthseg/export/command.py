"""`depthseg export`: trace a model, write it as one file, and keep the file only if it computes the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .. import __version__
from ..choices import did_you_mean
from ..engine.atomic import atomic_path
from ..engine.predict import label_space_of, load_model
from ..engine.wrapping import WRAPPED, wrapped_by
from .check import check_sizes, compare, milliseconds, random_input, trace_size
from .formats import FORMATS, Format, Run, check_packages, described, trace
from .network import LARGEST_UINT8, ExportedNetwork

LAYOUTS = {"images": ["batch", "height", "width", 3], "pixel_values": ["batch", 3, "height", "width"]}
INPUT_VALUES = {
    "images": "RGB levels from 0 to 255; the file scales and normalises them as `scaling` says",
    "pixel_values": "RGB, already scaled and normalised as `scaling` says",
}
# Height and width of the image that is timed if the image processor resizes to no size.
TIMED_SIZE = (480, 640)
SIZED_HEADS = ("mask2former",)
"""Heads whose trace holds for one image size."""

UNITS = {
    "metric": "metres",
    "disparity": "metres, up to scale if the model was trained without one",
    "relative": "depth up to scale and shift",
    "relative_inverse": "inverse depth up to scale and shift",
}


@dataclass(frozen=True)
class Exported:
    """What `export` did.

    Attributes:
        path: The file.
        metadata: What the file says about itself.
        differences: Batch, height and width -> output -> largest difference from the model, relative to its largest
            value. Labels come with the logits that they were chosen by, which the file itself need not return.
        times: What was timed -> milliseconds per image; empty if nothing was.
        timed_size: Height and width of the image that was timed.
    """

    path: Path
    metadata: dict[str, Any]
    differences: dict[tuple[int, int, int], dict[str, float]]
    times: dict[str, float]
    timed_size: tuple[int, int]

    @property
    def worst(self) -> dict[str, float]:
        """Output -> largest difference over all sizes."""
        found = list(self.differences.values())
        return {name: max(each[name] for each in found) for name in found[0]}

    def summary(self) -> str:
        """Say in lines what the file takes and returns, how exact it is, and how fast."""
        layout = ", ".join(map(str, self.metadata["input_layout"]))
        sizes = ", ".join(f"{batch} x {height}x{width}" for batch, height, width in self.differences)
        worst = ", ".join(f"{value:.1e} in {name}" for name, value in self.worst.items())
        lines = [
            f"{self.path} takes {self.metadata['input']} {self.metadata['input_dtype']} ({layout}) and returns "
            f"{', '.join(self.metadata['returns'])} at the size of the image.",
            f"It differs from the model by at most {worst}, relative to the largest value, at batches of {sizes} "
            "pixels (height x width).",
            f"Images need at least {self.metadata['smallest_side']} pixels on each side."
            if self.metadata["image_size"] is None
            else "Images of other sizes are refused.",
        ]
        height, width = self.timed_size
        lines += [f"{time:9.1f} ms per image of {height}x{width}: {name}" for name, time in self.times.items()]
        return "\n".join(lines)


def export(
    model_path: str | Path,
    output: str | Path,
    *,
    format: str = "onnx",
    returns: list[str] | None = None,
    takes: str = "images",
    revision: str | None = None,
    overwrite: bool = False,
    time: str | None = None,
    size: tuple[int, int] | None = None,
) -> Exported:
    """Write a model as one file, in float32, for any batch, height and width, or for one height and width.

    Args:
        model_path: Checkpoint directory or Hub id of a segmenter or depth model.
        output: The file.
        format: `"onnx"` or `"torch-export"`.
        returns: Some of `"labels"`, `"logits"` and `"depth"`; by default labels, of depth models depth.
        takes: `"images"` for RGB levels, uint8 `(B, H, W, 3)`, or `"pixel_values"` for what the image processor makes,
            float32 `(B, 3, H, W)`.
        revision: Revision of a Hub model.
        overwrite: Whether an existing file is replaced.
        time: `"eager"` times model and file, `"compiled"` also the model with `torch.compile`.
        size: Height and width of all images, for encoders that have one image size and for faster files; by default
            the file takes any.

    Returns:
        What was written and how far it is from the model.

    Raises:
        ImportError: A package of the format is missing.
        FileExistsError: The file exists and `overwrite` is False.
        ValueError: The model cannot be exported so, or the file would differ from it; no file is written then.
    """
    output = Path(output)
    check_output(output, format, overwrite)
    model, processor = load_model(model_path, revision, device="cpu")
    model = model.to(memory_format=torch.contiguous_format)
    chosen = tuple(returns or (["labels"] if hasattr(model, "classifier") else ["depth"]))
    network = ExportedNetwork(model, processor, chosen, takes).eval()
    check_size(network, size)
    metadata = describe(network, processor, size) | made_from(model_path, revision)
    kind = FORMATS[format]
    with atomic_path(output) as partial:
        differences = write_checked(network, processor, kind, partial, metadata)
    resized = metadata["image_size"] or metadata["trained_size"]
    timed_size = (resized["height"], resized["width"]) if resized else TIMED_SIZE
    times = {} if time is None else measure(network, kind.load(output), kind.runtime, timed_size, time == "compiled")
    return Exported(output, metadata, differences, times, timed_size)


def check_output(output: Path, format: str, overwrite: bool) -> None:
    """Raise a sentence unless a file of the format can be written there."""
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}; allowed are {', '.join(FORMATS)}.{did_you_mean(format, FORMATS)}")
    check_packages(format)
    suffix = FORMATS[format].suffix
    if output.is_dir():
        raise ValueError(f"{output} is a directory; name a file in it, such as {output / f'model{suffix}'}.")
    if output.suffix != suffix:
        others = [f" or pass --format {name}" for name, kind in FORMATS.items() if kind.suffix == output.suffix]
        raise ValueError(
            f"{output} does not end in {suffix}, as files of the format {format} do; name it "
            f"{output.with_suffix(suffix).name}{''.join(others)}."
        )
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists; pass --overwrite to replace it, or name another file.")


def write_checked(
    network: ExportedNetwork, processor: Any, kind: Format, path: Path, metadata: dict[str, Any]
) -> dict[tuple[int, int, int], dict[str, float]]:
    """Write a file and compare it with the model; see [`Exported.differences`].

    Labels alone would hide what changes no pixel at the sizes of the check, so the same network is first written with
    its logits as a last output too.
    """
    model, takes, returns = network.model, network.takes, network.returns
    if "labels" in returns and "logits" not in returns:
        network = ExportedNetwork(model, processor, (*returns, "logits"), takes).eval()
    fixed = metadata["image_size"] and (metadata["image_size"]["height"], metadata["image_size"]["width"])
    sizes = [(batch, *fixed) for batch in (1, 2, 3)] if fixed else check_sizes(model.encoder)
    image = torch.from_numpy(random_input(takes, 2, *(fixed or trace_size(model.encoder))))
    write = kind.convert(
        trace(network, image, metadata["input_layout"]), metadata | {"returns": list(network.returns)}
    )
    differences: dict[tuple[int, int, int], dict[str, float]] = {}
    for outputs in dict.fromkeys((network.returns, returns)):  # the last one stays
        write(path, list(outputs))
        for size, found in compare(kind.load(path), model, processor, takes, outputs, sizes).items():
            differences[size] = differences.get(size, {}) | found
    return differences


def check_size(network: ExportedNetwork, size: tuple[int, int] | None) -> None:
    """Raise a sentence for a network that no file for images of this size, or of any, can hold."""
    if size is not None and min(size) < 1:
        raise ValueError(f"size is {size[0]}x{size[1]}; height and width are at least 1 pixel.")
    fixed = network.model.encoder.fixed_size
    if fixed is not None and size != fixed:
        raise ValueError(
            f"{described(network)} cannot be exported for images of {'any size' if size is None else 'this size'}: "
            f"the encoder supports only images of {fixed[0]}x{fixed[1]} pixels, and resizes all others with an "
            "antialiasing filter that ONNX does not have. Export a file for this size alone with --size "
            f"{fixed[0]}x{fixed[1]}."
        )
    if network.model.config.head_type in SIZED_HEADS and size is None:
        raise ValueError(
            f"{described(network)} cannot be exported for images of any size: position embeddings and reference "
            "points of its decoders keep the size of the image that is traced. Take the head mask_queries, which has "
            "none."
        )


def describe(network: ExportedNetwork, processor: Any, size: tuple[int, int] | None) -> dict[str, Any]:
    """Return what a file says about itself: input, outputs, classes, colours, scaling, and where weights came from."""
    config = network.model.config
    has_labels = network.returns != ("depth",)
    resizes = processor.do_resize and processor.size is not None
    image_size = None if size is None else {"height": size[0], "width": size[1]}
    metadata = {
        "made_by": f"depthseg {__version__}",
        "input": network.takes,
        "input_dtype": "uint8" if network.takes == "images" else "float32",
        "input_layout": [(image_size or {}).get(axis, axis) for axis in LAYOUTS[network.takes]],
        "input_values": INPUT_VALUES[network.takes],
        "scaling": {
            "rescale_factor": network.factor,
            "mean": list(processor.image_mean) if processor.do_normalize else None,
            "std": list(processor.image_std) if processor.do_normalize else None,
            "value_range": processor.value_range,
        },
        "image_size": image_size,
        "trained_size": processor.size if resizes else None,
        "resample": Image.Resampling(processor.resample).name.lower() if resizes else None,
        "smallest_side": network.model.encoder.steady_side,
        "returns": list(network.returns),
        "weight_lineage": config.weight_lineage,
    }
    if has_labels:
        names = [name for _, name in sorted(config.id2label.items())]
        metadata["classes"] = names
        metadata["one_class"] = config.one_class
        # Palettes are of label maps, which have 8 bits.
        metadata["palette"] = label_space_of(config).palette if len(names) <= LARGEST_UINT8 else None
    if "depth" in network.returns:
        metadata["depth_type"] = config.depth_type
        metadata["depth_unit"] = UNITS[config.depth_type]
    return metadata


def made_from(model_path: str | Path, revision: str | None) -> dict[str, Any]:
    """The exported checkpoint, if it is one of the Hub; the path of a folder is of one machine alone.

    With `wrapped` if a folder holds weights that were trained with known faults, see `depthseg.engine.wrapping`.
    """
    if not Path(model_path).is_dir():
        return {"made_from": str(model_path), "revision": revision}
    faults = wrapped_by(Path(model_path).resolve().parent)
    return {"made_from": None, "revision": None} | ({WRAPPED: faults} if faults else {})


def measure(
    network: ExportedNetwork, run: Run, runtime: str, size: tuple[int, int], compiled: bool
) -> dict[str, float]:
    """Milliseconds per image, one image at a time, of a network and of its file on this machine."""
    images = random_input(network.takes, 1, *size)
    tensor = torch.from_numpy(images)
    with torch.inference_mode():
        times = {"eager": milliseconds(lambda: network(tensor))}
        if compiled:
            fast = torch.compile(network)
            times["compiled"] = milliseconds(lambda: fast(tensor))
    times[runtime] = milliseconds(lambda: run(images))
    return times
