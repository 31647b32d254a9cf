"""Fill the tables of the README and of the documentation from the files that commands wrote.

    python docs/tables.py            writes every table anew
    python docs/tables.py --check    names pages that their files give otherwise, and exits with 1

`benchmarks/pages.py` says how each table is made.
"""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    importlib.import_module("pages").main()
