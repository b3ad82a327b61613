"""A folder of low-rank adapters as it is published: without the weights of its base, which the card names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..engine.config import load_config
from ..engine.lora import CONFIG_FILE, WEIGHTS_FILE, is_adapter, load_adapted, loader_of_base
from ..engine.records import write_json
from ..engine.tasks import TASKS
from ..models import DepthSegImageProcessor
from .forms import Form
from .record import check_finished, count_parameters, published_lineage, trace
from .verify import adapted_model, check_loads_elsewhere


def adapter_folder(path: Path) -> Path | None:
    """The folder of adapters that a path is, or that a run directory contains; None if there is none."""
    return next((folder for folder in (path, path / "model") if is_adapter(folder)), None)


def read_adapters(model_dir: Path) -> Form:
    """Read a folder of adapters.

    Args:
        model_dir: The folder.

    Raises:
        FileNotFoundError: The base, or a checkpoint that it comes from, does not exist.
        ValueError: The base is a folder of this machine, or the run of the adapters is not finished.
    """
    about = json.loads((model_dir / CONFIG_FILE).read_text())
    stored = json.loads((model_dir / "config.json").read_text())
    base = about["base_model_name_or_path"]
    if Path(base).is_dir() or base.count("/") != 1:
        raise ValueError(
            f"{model_dir} holds adapters of {base}, a folder of this machine, and others need its weights. Publish "
            "that base, and train with model.pretrained=OWNER/NAME; or train with model.lora.merge=true, which gives "
            "a model that needs no base."
        )
    # The commit that the base was loaded from, or what the adapters name; None if neither is known.
    loaded = [each["revision"] for each in stored.get("weight_lineage") or [] if each["source"] == base]
    revision = (loaded[-1] if loaded else None) or about.get("revision")
    run_dir = model_dir.parent
    if (run_dir / "config.yaml").is_file():
        config = load_config(run_dir / "config.yaml", is_record=True)
        check_finished(config, run_dir)
        lineage = trace(config, run_dir)
    else:
        lineage = published_lineage(base, revision)
    architecture = stored["architectures"][0]
    task = next(task for task in TASKS.values() if task.model_class.__name__ == architecture)
    loading = adapted_model(architecture, base, revision, *loader_of_base(base, revision, stored["encoder_config"]))

    def write(folder: Path) -> int:
        # The code of the model and its place in config.json are written with whole models alone.
        load_adapted(task.model_class, model_dir).save_pretrained(folder)
        for path in folder.glob("model*.safetensors*"):
            path.unlink()
        shutil.copyfile(model_dir / WEIGHTS_FILE, folder / WEIGHTS_FILE)
        DepthSegImageProcessor.from_pretrained(model_dir).save_pretrained(folder)
        write_json(folder / CONFIG_FILE, about | {"revision": revision})
        check_loads_elsewhere(folder, loading)
        return count_parameters(folder)

    return Form(
        name="adapters",
        what="a folder of adapters",
        task=task,
        lineage=lineage,
        write=write,
        library="peft",
        summary=f"Low-rank adapters and head for {base}.",
        tags=("lora",),
        base_model=base,
        values={
            "base": base,
            "revision": revision,
            "loading": loading,
            "rank": about["r"],
            "encoder": stored["encoder_config"]["model_type"],
            "stages": lineage.stages,
        },
    )
