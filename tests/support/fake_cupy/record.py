"""Writes `api.json`: what the installed CuPy offers, so that the stand-in offers no more where CuPy is not installed.

`python tests/support/fake_cupy/record.py` after a new version; `recorded()` is compared with the file by a test.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy

API = Path(__file__).with_name("api.json")


def recorded() -> dict:
    """What CuPy takes from NumPy as it is; its functions' signatures; its ufuncs' loops in the order of their trial."""
    import cupy
    from cupy._sorting.search import _where_ufunc
    from cupyx.scipy.special import erf

    numpys, functions, ufuncs = [], {}, {"_where": _where_ufunc.types, "erf": erf.types}
    for name in sorted(n for n in dir(cupy) if not n.startswith("_")):
        value = getattr(cupy, name)
        if isinstance(value, cupy.ufunc):
            ufuncs[name] = value.types
        elif hasattr(numpy, name) and value is getattr(numpy, name):
            numpys.append(name)
        elif inspect.isfunction(value):
            functions[name] = _spelled(inspect.signature(value))
    return {"version": cupy.__version__, "numpy": " ".join(numpys), "functions": functions, "ufuncs": ufuncs}


def _spelled(signature: inspect.Signature) -> str:
    """A signature as a `lambda` takes it, every default None."""
    bare = [
        p.replace(annotation=p.empty, default=p.default if p.default is p.empty else None)
        for p in signature.parameters.values()
    ]
    return str(inspect.Signature(bare))[1:-1]


if __name__ == "__main__":
    found = recorded()
    lines = [f'"{part}": {json.dumps(found[part])}' for part in ("version", "numpy")]
    for part in ("functions", "ufuncs"):
        entries = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in found[part].items())
        lines.append(f'"{part}": {{\n{entries}\n}}')
    API.write_text("{\n" + ",\n".join(lines) + "\n}\n")
