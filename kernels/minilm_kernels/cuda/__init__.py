"""CUDA C++ at run time: sources of this package compiled by NVRTC, kept on disk, loaded and launched through CuPy.

    from minilm_kernels.cuda import Program

    program = Program(__file__, "forward.cu", {"SCALAR": "bf16", "HEAD_SIZE": 64})
    program.kernel("attention_forward")((blocks, heads), 128, (q, k, v, out, np.int32(T)), shared_bytes=65536)

Neither a toolkit nor a build step is needed: NVRTC comes as a wheel, and the sources include nothing but each other.
`compile_source` needs no GPU, which is how registers and spills are held to `budgets.toml` wherever the tests run.
"""

from .compiler import Compiled, CompileError, Resources, compile_source
from .nvrtc import NvrtcMissing
from .program import Kernel, Program, device_properties, scalar_name

__all__ = [
    "CompileError",
    "Compiled",
    "Kernel",
    "NvrtcMissing",
    "Program",
    "Resources",
    "compile_source",
    "device_properties",
    "scalar_name",
]
