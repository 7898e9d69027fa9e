"""Arrays and what they live on: NumPy on the CPU, CuPy on an NVIDIA GPU. The only room that imports cupy."""

from minilm_kernels.portable import unchecked_ranges
from minilm_kernels.products import is_tf32, matmul, tf32

from .arrays import (
    DTYPES,
    array_module,
    as_array,
    bfloat16,
    check_together,
    cuda_problem,
    default_device,
    device_of,
    has_cuda_array,
    resolve_dtype,
    synchronize,
    to_device,
    to_numpy,
)
from .gpu import Gpu, GpuMemory, OutOfMemoryError, gpu_memory, gpus, guard_memory, release_memory
from .graph import CaptureError, Graph
from .memory import keep_objects, peak_memory, reuse_memory
from .random import Draws, Generator, Seeds, default_generator, manual_seed
from .room import free_memory, memory_in_use
from .transfer import Uploader

__all__ = [
    "DTYPES",
    "CaptureError",
    "Draws",
    "Generator",
    "Gpu",
    "GpuMemory",
    "Graph",
    "OutOfMemoryError",
    "Seeds",
    "Uploader",
    "array_module",
    "as_array",
    "bfloat16",
    "check_together",
    "cuda_problem",
    "default_device",
    "default_generator",
    "device_of",
    "free_memory",
    "gpu_memory",
    "gpus",
    "guard_memory",
    "has_cuda_array",
    "is_tf32",
    "keep_objects",
    "manual_seed",
    "matmul",
    "memory_in_use",
    "peak_memory",
    "release_memory",
    "resolve_dtype",
    "reuse_memory",
    "synchronize",
    "tf32",
    "to_device",
    "to_numpy",
    "unchecked_ranges",
]
