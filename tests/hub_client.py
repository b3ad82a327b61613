"""Programs that talk to the stand-in for the Hub, each in a process of its own, with depthseg or without."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from hub_server import ROOT, LoopbackHub

WITHOUT_DEPTHSEG = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "depthseg":
            raise ImportError("depthseg is not installed in this process")
sys.meta_path.insert(0, Absent())
"""


def run_client(hub: LoopbackHub, home: Path, code: str, *, depthseg: bool = False, **arguments: Any) -> Any:
    """Run Python in a process whose Hub is the stand-in and that cannot import depthseg unless told so.

    Args:
        hub: The stand-in.
        home: Folder of the caches and of the working directory.
        code: The program; it finds the arguments in the dict `arg` and leaves its answer in the dict `result`.
        depthseg: Whether the process may import depthseg from this working tree.
        **arguments: JSON values.

    Returns:
        The `result` of the program.
    """
    home.mkdir(parents=True, exist_ok=True)
    parts = [
        f"import sys; sys.path.insert(0, {str(ROOT)!r})" if depthseg else WITHOUT_DEPTHSEG,
        "import json; arg, result = json.loads(sys.argv[1]), {}",
        textwrap.dedent(code),
        "" if depthseg else "assert not [name for name in sys.modules if name.partition('.')[0] == 'depthseg']",
        "open('result.json', 'w').write(json.dumps(result))",
    ]
    command = [sys.executable, "-I", "-c", "\n".join(parts), json.dumps(arguments)]
    done = subprocess.run(command, cwd=home, env=hub.client_env(home), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads((home / "result.json").read_text())
