"""The web page of `depthseg demo`; needs gradio."""

# Without postponed annotations: gradio reads the type of a selection from the function that gets it.

import html
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.decoding import VideoFrames, import_av
from .command import USER_ERRORS
from .demo import (
    KEPT_MINUTES,
    Checkpoint,
    Limits,
    ShownPrediction,
    example_images,
    hex_colours,
    load_checkpoints,
    predict_film,
    predict_to_show,
    read_upload,
)

# Read when gradio is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

try:
    import gradio as gr
except ImportError as error:
    raise ImportError("The web page needs gradio: pip install 'depthseg[demo]'") from error

LIMITS = Limits()
_PREFIX = "depthseg-demo-"
# Installed fonts alone: the default ones are asked of another site.
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
# Long names of models break; what is wide stays inside its box.
_CSS = """
.gradio-container {overflow-wrap: anywhere}
.gradio-container img {max-width: 100%}
#examples .grid-wrap {min-height: 0}
#examples .grid-container {grid-template: none / repeat(3, minmax(0, 1fr))}
#examples .thumbnail-item {aspect-ratio: 2}
.depth .image-container > button, .depth .image-frame {width: 100%; height: 100%}
.depth img {width: 100% !important; height: auto !important; object-fit: contain !important}
"""
_OPACITY = 0.75


@dataclass(frozen=True)
class Shown:
    """The components of one checkpoint."""

    annotated: gr.AnnotatedImage
    shares: gr.Label
    depth: gr.Image
    film: gr.Video

    def all(self) -> list[Any]:
        """In the order of the page."""
        return [self.annotated, self.shares, self.depth, self.film]


def build_page(checkpoints: Sequence[Checkpoint], folder: Path | None = None, limits: Limits = LIMITS) -> gr.Blocks:
    """Build the page.

    Args:
        checkpoints: One or two.
        folder: For uploads and results; what is in it is removed after use. None = a new one, which outlives the page.
        limits: What an upload may be.
    """
    served, making = _folders(folder)
    examples = example_images()
    with gr.Blocks(title="depthseg", analytics_enabled=False, delete_cache=(60, 60 * KEPT_MINUTES)) as page:
        gr.Markdown(_heading(checkpoints))
        taken = gr.State()
        upload = gr.File(label="Image or short film", file_types=["image", "video"], height=160)
        gr.Markdown(f"{limits} A file is removed as soon as it was read, its results after {KEPT_MINUTES} minutes.")
        gr.Markdown("Or one of these, from the procedural world:")
        gallery = gr.Gallery(
            examples,
            **{"columns": len(examples), "height": "auto", "allow_preview": False, "interactive": False},
            **{"object_fit": "cover", "show_label": False, "buttons": [], "elem_id": "examples"},
        )
        slider = gr.ImageSlider(
            label="Left: first model; right: second",
            visible=False,
            interactive=False,
            buttons=["fullscreen"],
            elem_id="slider",
        )
        with gr.Row():
            shown = [_components(checkpoint) for checkpoint in checkpoints]
        outputs = [slider, *(component for each in shown for component in each.all())]

        def show_image(image: np.ndarray) -> dict[Any, Any]:
            """Updates of the components: the prediction of each checkpoint, and the slider between two."""
            predictions = [predict_to_show(checkpoint, image) for checkpoint in checkpoints]
            two = len(predictions) == 2
            overlays = tuple(each.overlay() for each in predictions)
            found = {slider: gr.update(visible=two, value=overlays if two else None)}
            for each, prediction in zip(shown, predictions, strict=True):
                found |= _updates_of(each, prediction)
            return found

        def show_film(film: VideoFrames, work: Path) -> dict[Any, Any]:
            """Updates of the components: the predicted film of each checkpoint, made in a folder."""
            found = _hidden(outputs)
            for number, (each, checkpoint) in enumerate(zip(shown, checkpoints, strict=True)):
                path = predict_film(checkpoint, film, work / str(number))
                found[each.film] = gr.update(visible=True, value=str(path))
            return found

        def take(path: str) -> tuple[str, None]:
            """The place for files is emptied at once, so that the next one can be dropped whatever comes of this."""
            return str(path), None

        def show_upload(path: str) -> Iterator[dict[Any, Any]]:
            with tempfile.TemporaryDirectory(dir=making) as work:
                try:
                    media = read_upload(Path(path), limits)
                    found = show_film(media, Path(work)) if isinstance(media, VideoFrames) else show_image(media)
                except USER_ERRORS as error:
                    # An error of gradio would cover every component as well.
                    sentence = html.escape(str(error).replace(path, Path(path).name), quote=False)
                    gr.Warning(sentence, title="This file cannot be used", duration=None)
                    found = _hidden(outputs)
                finally:
                    Path(path).unlink(missing_ok=True)
                    # gradio makes an empty file for each upload, and forgets it.
                    for stray in served.glob("tmp*"):
                        stray.unlink()
                # gradio copies a film when it gets it, and comes back for more afterwards.
                yield found

        def show_example(event: gr.SelectData) -> dict[Any, Any]:
            return show_image(examples[event.index])

        options = {
            "outputs": outputs,
            "concurrency_id": "network",
            "concurrency_limit": 1,
            "api_visibility": "private",
        }
        upload.upload(take, upload, [taken, upload], api_visibility="private").success(show_upload, taken, **options)
        gallery.select(show_example, None, **options)
    return page.queue(max_size=20)


def launch(
    page: gr.Blocks, host: str | None = None, port: int | None = None, limits: Limits = LIMITS, **options: Any
) -> Any:
    """Serve the page until the process ends.

    Args:
        page: Of `build_page`.
        host: Name or address to listen at; None = as the environment of a Space says.
        port: Port to listen at; None = likewise, or a free one from 7860.
        limits: What an upload may be.
        options: More options of gradio's `launch`.

    Raises:
        ValueError: The port is taken, or the address is not one of this machine.
    """
    try:
        return page.launch(
            server_name=host,
            server_port=port,
            max_file_size=limits.megabytes * 2**20,
            theme=gr.themes.Default(**_FONTS),
            css=_CSS,
            footer_links=[],
            share=False,
            ssr_mode=False,
            **options,
        )
    except OSError as error:
        raise ValueError(
            f"The page cannot listen at {host}, port {port}; another program may. Give another --port or --host."
        ) from error


def serve(models: Sequence[str], host: str | None = None, port: int | None = None) -> None:
    """Load models, build their page, and serve it until the process is interrupted.

    Args:
        models: Directories or Hub ids, one or two.
        host: As for `launch`.
        port: As for `launch`.
    """
    import_av()  # said before anybody drops a film
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        launch(build_page(load_checkpoints(models), Path(folder)), host, port)


def _folders(folder: Path | None) -> tuple[Path, Path]:
    """Where gradio keeps uploads and results, and where films are made.

    Apart: what is made in the folder that is served is taken for served already, and not kept after its making.
    """
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX)) if folder is None else folder
    served, making = folder / "served", folder / "making"
    for each in (served, making):
        each.mkdir()
    os.environ["GRADIO_TEMP_DIR"] = str(served)
    return served, making


def _heading(checkpoints: Sequence[Checkpoint]) -> str:
    names = " and ".join(f"`{checkpoint.name}`" for checkpoint in checkpoints)
    return f"# depthseg\nClasses and depth of an image or a short film, by {names}."


def _components(checkpoint: Checkpoint) -> Shown:
    name, space = checkpoint.name, checkpoint.space
    with gr.Column(min_width=320):
        return Shown(
            gr.AnnotatedImage(label=f"Classes: {name}", color_map=hex_colours(space), visible=checkpoint.has_labels),
            gr.Label(label=f"Share of the pixels: {name}", show_heading=False, visible=False),
            gr.Image(
                label=f"Depth (near is bright): {name}",
                visible=False,
                interactive=False,
                buttons=["fullscreen"],
                elem_classes="depth",
            ),
            gr.Video(label=f"Overlay: {name}", visible=False, interactive=False, autoplay=True, loop=True),
        )


def _hidden(components: Sequence[Any]) -> dict[Any, Any]:
    return {component: gr.update(visible=False, value=None) for component in components}


def _updates_of(shown: Shown, prediction: ShownPrediction) -> dict[Any, Any]:
    labelled = prediction.labels is not None
    parts = [(_OPACITY * area, name) for area, name in prediction.parts()]
    return {
        shown.annotated: gr.update(visible=labelled, value=(prediction.image, parts) if labelled else None),
        shown.shares: gr.update(visible=labelled, value=prediction.shares if labelled else None),
        shown.depth: gr.update(visible=prediction.depth is not None, value=prediction.depth),
        shown.film: gr.update(visible=False, value=None),
    }
