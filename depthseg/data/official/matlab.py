"""Files of MATLAB 5, in which small parts of several data sets come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_matlab5(path: str | Path, advice: str) -> dict[str, Any]:
    """The variables of a file.

    Args:
        path: The file.
        advice: What to do about a file that cannot be used, a sentence.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or of MATLAB 7.3.
    """
    import scipy.io

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. {advice}")
    with path.open("rb") as file:
        if _HDF5 in file.read(1024):
            raise ValueError(f"{path} is an HDF5 file (MATLAB 7.3), but the official one is of MATLAB 5. {advice}")
    try:
        return scipy.io.loadmat(path)
    except Exception as error:  # scipy's reader raises whatever its parts raise on damaged files
        raise ValueError(f"{path} is damaged or no file of MATLAB 5: {error}. {advice}") from error
