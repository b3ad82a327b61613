"""Where the tables of a data set are: on the Hub, in a folder of `save_to_disk`, in files of Parquet or WebDataset."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import datasets
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RevisionNotFoundError,
)

from ...choices import did_you_mean
from ..folder_labels import read_classes
from .arrow import ArrowRows
from .open_files import is_remote
from .parquet import ParquetRows, open_parquet
from .rows import Rows
from .tar import TarRows

_SAVED = ("dataset_dict.json", "state.json")
_SPLIT = re.compile(r"(?P<name>[\w.-]+)(\[(?P<first>-?\d+%?)?:(?P<last>-?\d+%?)?\])?")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Split -> words of file names that stand for it; the first one of each is its usual name.
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
_LAYOUTS = {".parquet": "parquet", ".tar": "webdataset"}
_CLASS_FILES = ("id2label.json", "classes.txt")


@dataclass(frozen=True)
class Source:
    """A data set whose splits are known and whose rows are not read yet.

    Attributes:
        root: As given.
        hub_id: Whether `root` is the id of a data set on the Hub.
        files: Split -> its files, on disk or on the Hub; empty for a folder of `save_to_disk`.
        by_name: Whether the words of file names say which split a file is of, in place of the rules of `datasets`.
        layout: Name of the module of `datasets` that reads the files, such as `parquet`; `saved` = `save_to_disk`.
        splits: Names of the splits.
        revision: Commit, tag or branch on the Hub.
        config: Configuration of the data set.
    """

    root: str
    hub_id: bool
    files: Mapping[str, Sequence[str]]
    by_name: bool
    layout: str
    splits: Sequence[str]
    revision: str | None
    config: str | None

    def split_named(self, split: str) -> tuple[str, str | None, str | None]:
        """Take `NAME` or `NAME[first:last]` apart, with `val` and `validation` for each other.

        Raises:
            ValueError: There is no such split; the message lists them.
        """
        found = _SPLIT.fullmatch(split)
        name = found["name"] if found else split
        alike = next((words for words in _SPLIT_WORDS.values() if name in words), ())
        name = next((known for known in (name, *alike) if known in self.splits), name)
        if found is None or name not in self.splits:
            part = f"{self.splits[0]}[:80%]" if self.splits else "train[:80%]"
            raise ValueError(
                f"{self.root} has no split {split!r}.{did_you_mean(name, self.splits)} Its splits are "
                f"{', '.join(self.splits) or 'none'}; a part of one is written like {part}."
            )
        return name, found["first"], found["last"]

    def rows(self, split: str, streaming: bool, rows_in_memory: int) -> Rows:
        """Open the rows of a split.

        Args:
            split: One of `splits`.
            streaming: Whether they are read where they are, instead of being downloaded or copied to the cache.
            rows_in_memory: As in `ParquetRows`.

        Raises:
            ValueError: Streaming a data set that is neither Parquet nor WebDataset, or damaged files.
        """
        if self.layout == "saved":
            found = datasets.load_from_disk(self.root)
            return ArrowRows(found[split] if isinstance(found, datasets.DatasetDict) else found, self.root, split)
        if self.layout == "webdataset":
            files = self.files[split]
            return TarRows(files if streaming else [_local(file) for file in files], self.root)
        if streaming and self.layout == "parquet":
            return ParquetRows(self.files[split], self.root, split, rows_in_memory)
        if streaming:
            raise ValueError(
                f"{self.root} consists of {self.layout} files, which cannot be streamed; Parquet and WebDataset "
                "(.tar) can. Leave streaming out, or give revision=refs/convert/parquet where the Hub has made it."
            )
        if self.layout == "parquet":
            self._check_footers(split)
        with sentences(self.root, self.revision):
            return ArrowRows(self._loaded(split), self.root, split)

    def _check_footers(self, split: str) -> None:
        """Name a truncated file, which `datasets` does not."""
        for path in self.files[split]:
            if not is_remote(path):
                open_parquet(path).close()

    def _loaded(self, split: str) -> datasets.Dataset:
        if self.by_name:
            return datasets.load_dataset(self.layout, data_files={split: list(self.files[split])}, split=split)
        return datasets.load_dataset(self.root, self.config, revision=self.revision, split=split)

    def class_names(self) -> tuple[str, ...] | None:
        """Class names of `id2label.json` or `classes.txt` beside the data; None if there are none."""
        if not self.hub_id:
            folder = Path(self.root)
            return read_classes(folder if folder.is_dir() else folder.parent)
        folders = [path.parent for name in _CLASS_FILES if (path := self._downloaded(name))]
        return read_classes(folders[0]) if folders else None

    def _downloaded(self, name: str) -> Path | None:
        try:
            return Path(hf_hub_download(self.root, name, repo_type="dataset", revision=self.revision))
        except EntryNotFoundError:
            return None


def find_source(root: str | Path, config: str | None = None, revision: str | None = None) -> Source:
    """Find a data set.

    Args:
        root: Hub id; folder of `save_to_disk`, of Parquet files or of archives; or a pattern of such files.
        config: Configuration, where there are several.
        revision: Commit, tag or branch on the Hub.

    Raises:
        ValueError: A configuration that is not known or a data set that needs a script.
        FileNotFoundError: There is no such folder, file or data set.
        PermissionError: A gated data set.
        ConnectionError: The Hub does not answer.
    """
    root = str(root)
    path = Path(root)
    if any((path / name).is_file() for name in _SAVED):
        return Source(root, False, {}, False, "saved", _saved_splits(path), None, None)
    if path.is_file() or (not path.is_dir() and set(root) & set("*?[")):
        files = _by_split(root, glob.glob(root, recursive=True))
        return Source(root, False, files, True, _layout_of(root, files), list(files), None, None)
    if path.is_dir():
        return _library_source(root, False, config, revision)
    if not _HUB_ID.fullmatch(root) or root.startswith("."):
        raise FileNotFoundError(
            f"There is no folder or file {root}, and no data set on the Hub has such an id, which looks like "
            "owner/name. Check data.root."
        )
    return _library_source(root, True, config, revision)


def _library_source(root: str, hub_id: bool, config: str | None, revision: str | None) -> Source:
    with sentences(root, revision):
        builder = datasets.load_dataset_builder(root, config, revision=revision if hub_id else None)
    files = {str(split): list(map(str, paths)) for split, paths in (builder.config.data_files or {}).items()}
    layout = type(builder).__module__.rpartition(".")[2]
    # `datasets` takes class names for data where they are as many as the archives.
    by_name = any(PurePosixPath(path).name in _CLASS_FILES for paths in files.values() for path in paths)
    if by_name:
        paths = _repository_files(root, revision) if hub_id else map(str, Path(root).rglob("*"))
        files = _by_split(root, [path for path in paths if PurePosixPath(path).suffix.lower() in _LAYOUTS])
        layout = _layout_of(root, files)
    splits = list(files or builder.info.splits or ())
    return Source(root, hub_id, files, by_name, layout, splits, revision if hub_id else None, config)


def _repository_files(name: str, revision: str | None) -> list[str]:
    """Addresses of all files of a data set on the Hub, at one commit."""
    info = HfApi().dataset_info(name, revision=revision)
    return [f"hf://datasets/{name}@{info.sha}/{file.rfilename}" for file in info.siblings]


def _saved_splits(folder: Path) -> list[str]:
    found = datasets.load_from_disk(str(folder))
    return list(found) if isinstance(found, datasets.DatasetDict) else [str(found.split or "train")]


def _by_split(root: str, paths: Iterable[str]) -> dict[str, list[str]]:
    """Files by split, which their names say; one is `train` where its name says nothing."""
    found: dict[str, list[str]] = {}
    for path in sorted(paths):
        words = re.split(r"[^a-z]+", PurePosixPath(path).name.lower())
        named = (split for split, known in _SPLIT_WORDS.items() if set(known) & set(words))
        found.setdefault(next(named, "train"), []).append(path)
    if not found:
        raise FileNotFoundError(f"No file matches {root}. Check data.root.")
    return found


def _layout_of(root: str, files: Mapping[str, Sequence[str]]) -> str:
    endings = {PurePosixPath(path).suffix.lower() for paths in files.values() for path in paths}
    if len(endings) != 1 or not endings <= _LAYOUTS.keys():
        raise ValueError(
            f"{root} names files that end in {', '.join(sorted(endings))}; a pattern names either Parquet files "
            "(*.parquet) or archives of WebDataset (*.tar), which are not compressed."
        )
    return _LAYOUTS[endings.pop()]


def _local(path: str) -> str:
    """The copy of a file of the Hub in the cache, downloaded if it is not there."""
    if not is_remote(path):
        return path
    found = re.fullmatch(r"hf://datasets/(?P<id>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<name>.+)", path)
    assert found is not None, "a remote file is one of the Hub"
    return hf_hub_download(found["id"], found["name"], repo_type="dataset", revision=found["revision"])


@contextmanager
def sentences(root: str, revision: str | None) -> Iterator[None]:
    """Tell in sentences what the Hub and `datasets` refuse."""
    try:
        yield
    except DatasetNotFoundError as error:
        raise _not_found(root, revision, error) from error
    except (datasets.data_files.EmptyDatasetError, datasets.exceptions.DataFilesNotFoundError) as error:
        raise FileNotFoundError(
            f"{root} holds no data that can be read: give a folder of save_to_disk, of *.parquet or of *.tar files, "
            "or a Hub id."
        ) from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise ValueError(
            f"{root} needs a loading script, which `datasets` runs no more. Give revision=refs/convert/parquet, where "
            "the Hub keeps a copy in Parquet of most such data sets, or a local copy of the data."
        ) from error
    except ConnectionError as error:
        raise ConnectionError(
            f"{root} is not in the cache, and {constants.ENDPOINT} does not answer or HF_HUB_OFFLINE is set. Check "
            "the connection, or give a local copy."
        ) from error
    except HfHubHTTPError as error:
        raise ConnectionError(f"{constants.ENDPOINT} does not give out {root}: {error}") from error
    except DatasetGenerationError as error:
        raise ValueError(
            f"{root} cannot be read: {error.__cause__ or error}. A file may be truncated; download it again."
        ) from error
    except ValueError as error:
        if "onfig" not in str(error):
            raise
        raise ValueError(f"{root} has another configuration: {error} Give the option config.") from error


def _not_found(root: str, revision: str | None, error: DatasetNotFoundError) -> OSError:
    where = f"data set {root} on {constants.ENDPOINT}"
    causes = (error.__cause__, error.__context__)
    if "gated" in str(error) or any(isinstance(cause, GatedRepoError) for cause in causes):
        return PermissionError(
            f"The {where} is gated: ask for access on its page, then `hf auth login`, or set HF_TOKEN."
        )
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes) or "Revision" in str(error):
        return FileNotFoundError(f"The {where} has no revision {revision!r}: give a commit, tag or branch.")
    return FileNotFoundError(
        f"There is no {where}, and no folder of this name. If it is private, `hf auth login` or set HF_TOKEN; "
        "otherwise check the spelling."
    )
