#!/usr/bin/env bash
# Everything that only a GPU can show, in nine minutes, for a card that is borrowed: from the checkout alone, nothing is
# downloaded or installed. Each part has a limit of its own, so that one that hangs does not eat the others' time.
#
#   bash benchmarks/gpu_suite.sh [--out FOLDER] [--limit SECONDS] [--only PART,PART] [--dry-run]
#
# The folder (benchmarks/results/gpu_NAME of the card, unless --out says another) has the machine, a log for each part,
# the tables' rows and the summary that is printed last. Exit status: 0, 1 where a part failed or there is no GPU.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=${PYTHON:-python3}
out='' limit=530 only='' dry=''
grace=15 # seconds that a part has to end when it is interrupted
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=${2:?--out needs a folder} && shift ;;
    --limit) limit=${2:?--limit needs seconds} && shift ;;
    --only) only=${2:?--only needs names of parts} && shift ;;
    --dry-run) dry=yes ;;
    *) echo "gpu_suite.sh: unknown argument $1; see the head of $0" >&2 && exit 2 ;;
    esac
    shift
done
export PYTHONPATH=$root:$root/kernels${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 # what else a machine has for pytest warns, and warnings are errors here

has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" 2>/dev/null; }

others() { # the operations but for attention, which has a table of its own, and the decoder's step, which is the CPU's
    "$python" -c 'from minilm_kernels.bench.workload import workloads
print(*(name for name in workloads() if name not in ("attention", "decoder_step")))'
}

# name | seconds at most | what it needs | command, in which $out is the folder
lab='"$python" -m minilm_kernels.bench'
workers=''
cores=$(nproc)
[ "$cores" -gt 3 ] && has xdist && workers="-p xdist -n $((cores > 14 ? 12 : cores - 2))" # a test's time is a compiler's
# Of CuPy's two ways to sum up, tests take the one that compiles in a tenth of the time; all other parts take the other.
pytest="CUPY_ACCELERATORS= \"\$python\" -m pytest -m gpu -q -rfE --continue-on-collection-errors -W default::DeprecationWarning -p no:cacheprovider $workers"
parts=(
    "tests|100|pytest hypothesis|$pytest --ignore=tests/kernels tests"
    "kernel_tests|120|pytest hypothesis|$pytest tests/kernels"
    "attention|110||$lab attention --device cuda --implementations cuda,cuda_sm90 --causal false,true --rounds 7 --seconds 0.5 --csv \"\$out/attention.csv\""
    "training|150||\"\$python\" benchmarks/train_step.py --device cuda --rounds 5 --patience 80 --save \"\$out/training.jsonl\""
    "decoding|60||\"\$python\" benchmarks/decode.py random --device cuda --rounds 3 --peers transformers --save \"\$out/decoding.jsonl\""
    "kernels|75||$lab \$(others) --device cuda --dtype float32,bfloat16 --rounds 5 --seconds 0.2 --csv \"\$out/kernels.csv\""
    "losses|60||\"\$python\" benchmarks/train_step.py --device cuda --precision fp32 --shapes char-cpu --losses 100 --against cpu --save \"\$out/losses.jsonl\""
    "numba_cuda|30|numba_cuda|$lab attention --device cuda --dtype float32 --shapes 4,8,1024,64 --implementations numba_cuda,reference --peers none --rounds 5 --seconds 0.5 --csv \"\$out/numba_cuda.csv\""
)
chosen=()
for part in "${parts[@]}"; do
    [ -z "$only" ] || [[ ",$only," == *",${part%%|*},"* ]] && chosen+=("$part")
done
[ ${#chosen[@]} -gt 0 ] || { echo "gpu_suite.sh: no part is named in --only $only" >&2 && exit 2; }

if [ -n "$dry" ]; then
    echo "would run in $root, in $limit s at most, leaving what comes of it in ${out:-benchmarks/results/gpu_NAME}:"
    for part in "${chosen[@]}"; do
        IFS='|' read -r name seconds needs command <<<"$part"
        echo "  $name, $seconds s at most: ${command}"
    done
fi

missing=''
for module in numpy numba ml_dtypes safetensors; do has $module || missing+=" $module"; done
for module in torch pytest hypothesis numba_cuda transformers; do
    has $module || echo "not installed: $module; what needs it is left out"
done
if [ -n "$missing" ]; then
    problem="$python lacks$missing"
else
    problem=$(timeout 90 "$python" -c 'from minilm.backend import cuda_problem; print(cuda_problem() or "")' 2>&1 | tail -1) ||
        problem=${problem:-it gave no answer}
fi
if [ -n "$problem" ]; then
    echo "no GPU can be used here: $problem" >&2
    [ -n "$dry" ] && exit 0
    exit 1
fi
[ -n "$dry" ] && exit 0

card=$("$python" -c '
import re, cupy
name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode().lower()
print(re.sub("[^a-z0-9]+", "_", name).strip("_").removeprefix("nvidia_"))')
out=${out:-benchmarks/results/gpu_$card}
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# A toolkit from wheels has libnvvm where numba-cuda does not look for it.
nvvm=$(ls /usr/local/cuda/lib/libnvvm.so.* 2>/dev/null | head -1)
if [ -z "${CUDA_HOME:-}" ] && [ -n "$nvvm" ] && [ ! -e /usr/local/cuda/nvvm/lib64 ]; then
    mkdir -p "$scratch/cuda/nvvm/lib64"
    ln -s "$nvvm" "$scratch/cuda/nvvm/lib64/libnvvm.so"
    ln -s /usr/local/cuda/nvvm/libdevice "$scratch/cuda/nvvm/libdevice"
    nvvm_home=$scratch/cuda
fi
{
    date -u +%FT%TZ
    echo "commit $(git rev-parse HEAD 2>/dev/null || echo unknown)$(git diff --quiet 2>/dev/null || echo ', changed')"
    timeout 60 "$python" -c 'from minilm_kernels.bench.cuda import Cuda; print(Cuda().describe())'
    timeout 15 nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader 2>/dev/null
    timeout 30 "$python" -m pip list --format=freeze 2>/dev/null |
        grep -iE '^(numpy|numba|numba-cuda|cupy.*|torch|triton|transformers|nvidia-.*|cuda-.*|pytest|hypothesis)=='
} >"$out/machine.txt"
cat "$out/machine.txt"

failed=0
: >"$out/parts.txt"
for part in "${chosen[@]}"; do
    IFS='|' read -r name seconds needs command <<<"$part"
    lacking=''
    for module in $needs; do has "$module" || lacking+=" $module"; done
    left=$((limit - SECONDS - grace))
    if [ -n "$lacking" ]; then
        echo "$name|left out|0|not installed:$lacking" >>"$out/parts.txt"
        continue
    elif [ $left -lt 3 ]; then
        echo "$name|left out|0|no time was left" >>"$out/parts.txt"
        failed=1
        continue
    fi
    [ "$seconds" -lt $left ] || seconds=$left
    echo "== $name ($seconds s at most)"
    started=$SECONDS
    # An interrupt lets pytest and the lab say how far they came; what ignores it is killed. Pytest can take longer than
    # that to end its processes, so it tells of failures as they come.
    (
        [ "$name" = numba_cuda ] || [ "$name" = kernel_tests ] && [ -n "${nvvm_home:-}" ] && export CUDA_HOME=$nvvm_home
        eval "exec timeout --signal=INT --kill-after=$grace $seconds env MINILM_FAILURES=\"\$out/$name.failures.txt\" $command"
    ) >"$out/$name.log" 2>&1
    status=$?
    tail -n 3 "$out/$name.log" | cut -c1-300
    took=$((SECONDS - started))
    case $status in
    0) echo "$name|ran|$took|" ;;
    124 | 130 | 137) echo "$name|stopped|$took|after $seconds s" ;;
    *) echo "$name|failed|$took|exit status $status" ;;
    esac >>"$out/parts.txt"
    [ $status -eq 0 ] || failed=1
done
echo
"$python" benchmarks/gpu_summary.py "$out" | tee "$out/summary.txt"
exit $failed
