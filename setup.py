"""One distribution, two packages: `minilm` (the library) and `minilm_kernels` (its kernels, useful alone)."""

from pathlib import Path

from setuptools import find_packages, setup

EXTRAS = {
    "cuda12": ["cupy-cuda12x>=13.0", "nvidia-cuda-nvrtc-cu12>=12.8", "numba-cuda[cu12]>=0.30"],
    "cuda13": ["cupy-cuda13x>=13.6", "nvidia-cuda-nvrtc>=13.0,<14", "numba-cuda[cu13]>=0.30"],
    "yaml": ["pyyaml>=6.0"],
    "chat": ["jinja2>=3.1.6"],
    "gguf": ["gguf>=0.17"],  # only for the K-quants
    "hub": ["huggingface_hub>=0.30"],
    "serve": ["starlette>=0.40", "uvicorn>=0.30", "jinja2>=3.1.6"],
    "sentencepiece": ["sentencepiece>=0.2.0"],
}
EXTRAS["test"] = [
    "pytest>=8.0",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "pyyaml>=6.0",
    "sentencepiece>=0.2.0",
    *EXTRAS["serve"],
]
EXTRAS["dev"] = [*EXTRAS["test"], "ruff>=0.6", "import-linter>=2.0", "gguf>=0.17"]
# Without a GPU CuPy imports, NVRTC and NVVM compile, and numba-cuda has a simulator: all are tested everywhere.
EXTRAS["dev"] += [f"{package}; sys_platform == 'linux'" for package in EXTRAS["cuda13"]]

setup(
    name="minilm",
    version="0.1.0",
    description="A transformer library from scratch: its own autograd, attention and training loop on NumPy or CuPy",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["minilm", "minilm.*"])
    + find_packages("kernels", include=["minilm_kernels", "minilm_kernels.*"]),
    package_dir={"minilm": "minilm", "minilm_kernels": "kernels/minilm_kernels"},
    package_data={"minilm_kernels": ["**/*.cu", "**/*.cuh", "**/budgets.toml"]},
    install_requires=[
        "numpy>=2.0",
        "numba>=0.61",
        "safetensors>=0.4.3",
        "tokenizers>=0.20",
        "ml_dtypes>=0.5",
        "rich>=13.0",
        "tyro>=0.9",
        "matplotlib>=3.8",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["minilm = minilm.cli.main:main"]},
)
