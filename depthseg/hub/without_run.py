"""Publishing weights that have no run directory: converted checkpoints, adapters and exported files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCardData

from ..engine.atomic import atomic_folder
from ..engine.fingerprint import hashes_of
from ..engine.records import write_json
from .adapters import adapter_folder, read_adapters
from .bundle import MANIFEST, check_free, checked_licence, write_lineage
from .card import rendered
from .converted import is_converted, read_converted
from .exports import exported_file, read_export

if TYPE_CHECKING:
    from .facts import Facts
    from .forms import Form


def has_no_run(source: str | Path) -> bool:
    """Whether a path is published without a run: `depthseg convert` or `export` wrote it, or it holds adapters."""
    source = Path(source)
    return is_converted(source) or adapter_folder(source) is not None or exported_file(source) is not None


def prepare_without_run(source: str | Path, repo_id: str, facts: Facts, folder: str | Path) -> None:
    """Write all files of the publication of weights without a run to a folder, and verify that they load.

    Args:
        source: The folder that `depthseg convert` wrote; a folder of adapters, or the directory of their run; the file
            that `depthseg export` wrote, or a folder with one.
        repo_id: Its repository on the Hub.
        facts: Facts stated by its author; `test`, `dtype` and `hub_datasets` are of evaluated runs.
        folder: The folder; the result of an earlier call is replaced.

    Raises:
        FileExistsError: The folder contains other files.
        FileNotFoundError: A checkpoint that the weights come from does not exist.
        ValueError: A bare encoder, adapters of a local base, a file that `depthseg export` did not write, facts of
            runs, no licence or one that the licence of data or weights forbids, or weights that do not load.
        ImportError: A package that the weights need is missing.
    """
    source, folder = Path(source), Path(folder)
    form = _read(source, folder.name)
    if of_runs := [name for name in ("test", "dtype", "hub_datasets") if getattr(facts, name)]:
        raise ValueError(f"The facts {', '.join(of_runs)} are of evaluated runs, and {source} is {form.what}.")
    licence, sources = checked_licence(form, facts, form.licence_note)
    check_free(folder)
    with atomic_folder(folder) as partial:
        partial.mkdir()
        parameters = form.write(partial)
        (partial / "training").mkdir()
        write_lineage(partial, form.lineage, licence, sources, parameters)
        metadata = ModelCardData(
            license=licence.id,
            license_name=licence.name or None,
            license_link=licence.link or None,
            library_name=form.library,
            pipeline_tag=form.task.pipeline,
            tags=["depthseg", *form.tags, *form.task.tags],
            base_model=form.base_model,
            base_model_relation="adapter" if form.name == "adapters" else None,
        )
        values = {
            "form": form.name,
            "title": facts.title or form.title or repo_id.rpartition("/")[2],
            "summary": facts.summary or form.summary,
            "repo_id": repo_id,
            "example": form.task.example,
            "intended_use": facts.intended_use or "The author has not stated an intended use.",
            "limits": facts.limits,
            "parameters": f"{parameters / 1e6:.1f}",
            "licence": licence.label,
            "sources": [f"{each.name} ({each.licence.label})" for each in sources],
            "licence_note": form.licence_note,
        }
        text = rendered("without_run.md.jinja", metadata, values | form.values)
        (partial / "README.md").write_text(text, encoding="utf-8")
        write_json(partial / MANIFEST, hashes_of(partial))


def _read(source: Path, published: str) -> Form:
    if is_converted(source):
        return read_converted(source, published)
    if adapters := adapter_folder(source):
        return read_adapters(adapters)
    return read_export(exported_file(source))
