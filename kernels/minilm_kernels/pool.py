"""One pool of threads for NumPy's matrix products and for these kernels.

A training step goes back and forth between the two. With a pool each, the idle one's threads spin for a while in case
work comes, on the cores that the other one needs; sent to sleep at once instead, they have to be woken for each of a
hundred short products. OpenBLAS can hand its jobs to threads that are not its own
(`openblas_set_threads_callback_function`), so here it is given Numba's, which are OpenMP's.

All that Numba launches in parallel passes through here too, on as many threads as `set_limit` allows: with one, and
for work in one part, it is a plain call. A forked child has that limit of one. GNU OpenMP's threads don't survive a
fork, and Numba ends a process that asks for them after one.

Changes no result: the jobs are OpenBLAS's own, and kernels cut their work into parts whatever the number of threads.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np

from .cores import available_cores, requested

__all__ = ["SIZE", "get_limit", "install", "is_forked", "set_limit", "shares_with_blas"]

_PREFIX, _SUFFIX = "scipy_openblas_", "64_"  # of the names in the OpenBLAS that NumPy's wheels bring


def _bundled_openblas() -> ctypes.CDLL | None:
    """The OpenBLAS that NumPy has loaded, if it is the one of its wheels and can take a callback."""
    for path in Path(np.__file__).parent.parent.glob("numpy.libs/libscipy_openblas64_*.so*"):
        library = ctypes.CDLL(str(path))
        if hasattr(library, f"{_PREFIX}set_threads_callback_function{_SUFFIX}"):
            return library
    return None


_blas = _bundled_openblas()

# How long OpenMP's threads spin before they sleep: tenths of a millisecond, enough for the Python between two
# operations; not at all beside another BLAS, whose threads they would take the cores from. docs/design.md has the
# measurement. Read when OpenMP is loaded, at the first parallel launch; a value set outside is kept.
os.environ.setdefault("GOMP_SPINCOUNT", "20000" if _blas is not None else "0")

SIZE: int = numba.config.NUMBA_NUM_THREADS

# {pool}, {get} and {set} stand for the addresses of functions of Numba's threading layer. `pool` calls
# kernel(args, dims, steps, data) for parts 0 ... dims[0] - 1, with steps[i] added to args[i] from part to part: with
# steps of one byte from address zero, the argument of a part is its number.
_IR = """
@limit = global i64 1

define internal i64 @threads_for(i64 %asked) {{
    %limit = load i64, ptr @limit
    %is_less = icmp slt i64 %limit, %asked
    %threads = select i1 %is_less, i64 %limit, i64 %asked
    ret i64 %threads
}}

define void @parallel_for(ptr %kernel, ptr %args, ptr %dims, ptr %steps, ptr %data, i64 %k, i64 %n_args, i64 %asked) {{
    %threads = call i64 @threads_for(i64 %asked)
    %parts = load i64, ptr %dims
    %few_threads = icmp slt i64 %threads, 2
    %few_parts = icmp slt i64 %parts, 2
    %is_serial = or i1 %few_threads, %few_parts
    br i1 %is_serial, label %serial, label %launch
serial:
    call void %kernel(ptr %args, ptr %dims, ptr %steps, ptr %data)
    ret void
launch:
    call void inttoptr (i64 {pool} to ptr)(ptr %kernel, ptr %args, ptr %dims, ptr %steps, ptr %data,
                                           i64 %k, i64 %n_args, i64 %threads)
    ret void
}}

; body(&first, &count, _, data) works off parts first ... first + count - 1. Each thread begins with a range of its own,
; and takes from the others' when that is done: the cores of a busy machine are never equally fast.
%work = type {{ ptr, ptr, ptr, i64, i64 }}

define void @share(ptr %body, i64 %parts, ptr %data, i64 %asked) {{
    %threads = call i64 @threads_for(i64 %asked)
    %first = alloca ptr
    store ptr null, ptr %first
    %count = alloca i64
    store i64 %parts, ptr %count
    %step = alloca i64
    store i64 1, ptr %step
    %few_threads = icmp slt i64 %threads, 2
    %few_parts = icmp slt i64 %parts, 2
    %is_serial = or i1 %few_threads, %few_parts
    br i1 %is_serial, label %serial, label %prepare
serial:
    call void %body(ptr %first, ptr %count, ptr %step, ptr %data)
    ret void
prepare:
    store i64 %threads, ptr %count
    %lines = mul i64 %threads, 8  ; a cache line for each counter
    %next = alloca i64, i64 %lines
    br label %fill
fill:
    %r = phi i64 [0, %prepare], [%r.1, %fill]
    %taken = mul i64 %r, %parts
    %start = sdiv i64 %taken, %threads
    %line = mul i64 %r, 8
    %slot = getelementptr i64, ptr %next, i64 %line
    store i64 %start, ptr %slot
    %r.1 = add i64 %r, 1
    %more = icmp slt i64 %r.1, %threads
    br i1 %more, label %fill, label %launch
launch:
    %work.0 = insertvalue %work undef, ptr %body, 0
    %work.1 = insertvalue %work %work.0, ptr %data, 1
    %work.2 = insertvalue %work %work.1, ptr %next, 2
    %work.3 = insertvalue %work %work.2, i64 %parts, 3
    %work.4 = insertvalue %work %work.3, i64 %threads, 4
    %work = alloca %work
    store %work %work.4, ptr %work
    call void inttoptr (i64 {pool} to ptr)(ptr @share_one, ptr %first, ptr %count, ptr %step, ptr %work,
                                           i64 1, i64 1, i64 %threads)
    ret void
}}

define void @share_one(ptr %args, ptr %dims, ptr %steps, ptr %data) {{
    %work = load %work, ptr %data
    %body = extractvalue %work %work, 0
    %body_data = extractvalue %work %work, 1
    %next = extractvalue %work %work, 2
    %parts = extractvalue %work %work, 3
    %threads = extractvalue %work %work, 4
    %me = load i64, ptr %args
    %part = alloca i64
    %one = alloca i64
    store i64 1, ptr %one
    br label %range
range:
    %k = phi i64 [0, %0], [%k.1, %next_range]
    %sum = add i64 %me, %k
    %r = srem i64 %sum, %threads
    %r.1 = add i64 %r, 1
    %taken = mul i64 %r.1, %parts
    %stop = sdiv i64 %taken, %threads
    %line = mul i64 %r, 8
    %slot = getelementptr i64, ptr %next, i64 %line
    br label %take
take:
    %number = atomicrmw add ptr %slot, i64 1 monotonic
    %is_left = icmp slt i64 %number, %stop
    br i1 %is_left, label %run, label %next_range
run:
    store i64 %number, ptr %part
    call void %body(ptr %part, ptr %one, ptr %one, ptr %body_data)
    br label %take
next_range:
    %k.1 = add i64 %k, 1
    %more = icmp slt i64 %k.1, %threads
    br i1 %more, label %range, label %done
done:
    ret void
}}

%jobs = type {{ ptr, i64, ptr, i32 }}
@products = global [64 x i8] zeroinitializer, align 64  ; a pthread_mutex_t, which Linux initialises to zeros

define void @run_jobs(i32 %sync, ptr %job, i32 %count, i64 %size, ptr %data, i32 %extra) {{
    %jobs.0 = insertvalue %jobs undef, ptr %job, 0
    %jobs.1 = insertvalue %jobs %jobs.0, i64 %size, 1
    %jobs.2 = insertvalue %jobs %jobs.1, ptr %data, 2
    %jobs.3 = insertvalue %jobs %jobs.2, i32 %extra, 3
    %jobs = alloca %jobs
    store %jobs %jobs.3, ptr %jobs
    %first = alloca ptr
    store ptr null, ptr %first
    %step = alloca i64
    store i64 1, ptr %step
    %parts = alloca i64
    %count.64 = zext i32 %count to i64
    store i64 %count.64, ptr %parts
    ; The jobs wait for one another, so each needs a thread of its own, whatever the limit. Numba takes the number of
    ; threads of a launch for the calling thread's setting from then on. One product at a time: the i-th jobs of any
    ; two have one buffer, which OpenBLAS guards by a lock where the threads are its own, and does not here.
    %locked = call i32 inttoptr (i64 {lock} to ptr)(ptr @products)
    %setting = call i32 inttoptr (i64 {get} to ptr)()
    call void inttoptr (i64 {pool} to ptr)(ptr @run_job, ptr %first, ptr %parts, ptr %step, ptr %jobs,
                                           i64 1, i64 1, i64 %count.64)
    call void inttoptr (i64 {set} to ptr)(i32 %setting)
    %unlocked = call i32 inttoptr (i64 {unlock} to ptr)(ptr @products)
    ret void
}}

define void @run_job(ptr %args, ptr %dims, ptr %steps, ptr %data) {{
    %jobs = load %jobs, ptr %data
    %job = extractvalue %jobs %jobs, 0
    %size = extractvalue %jobs %jobs, 1
    %first = extractvalue %jobs %jobs, 2
    %extra = extractvalue %jobs %jobs, 3
    %i = load i64, ptr %args
    %offset = mul i64 %i, %size
    %item = getelementptr i8, ptr %first, i64 %offset
    %number = trunc i64 %i to i32
    call void %job(i32 %number, ptr %item, i32 %extra)
    ret void
}}
"""

_engine = None  # owns the machine code of the above
_limit: ctypes.c_int64 | None = None
_shares_with_blas = _is_forked = False


def install() -> None:
    """Starts Numba's threads and puts what is above between them and whoever launches work; once is enough."""
    global _engine, _limit, _shares_with_blas
    if _engine is not None:
        return
    numba.get_num_threads()  # loads the threading layer
    layer = {"tbb": "tbbpool", "omp": "omppool"}.get(numba.threading_layer(), "workqueue")
    library = importlib.import_module(f"numba.np.ufunc.{layer}")
    text = _IR.format(
        pool=library.parallel_for,
        get=library.get_num_threads,
        set=library.set_num_threads,
        lock=_address("pthread_mutex_lock"),
        unlock=_address("pthread_mutex_unlock"),
    )
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(text)
    machine = llvm.Target.from_default_triple().create_target_machine(opt=1)
    _engine = llvm.create_mcjit_compiler(module, machine)
    _engine.finalize_object()
    llvm.add_symbol("numba_parallel_for", _engine.get_function_address("parallel_for"))
    llvm.add_symbol("minilm_share", _engine.get_function_address("share"))
    _limit = ctypes.c_int64.from_address(_engine.get_global_value_address("limit"))
    _limit.value = min(requested() or available_cores(), SIZE)
    if _blas is not None:
        if _blas_function("get_num_threads")() > _limit.value:
            _blas_function("set_num_threads")(_limit.value)
        _shares_with_blas = numba.threading_layer() == "omp" and not _may_get_fewer_threads()
    if _shares_with_blas:
        _set_callback(_engine.get_function_address("run_jobs"))
    os.register_at_fork(after_in_child=_after_fork)


def get_limit() -> int:
    """How many threads a launch may take."""
    install()
    return _limit.value


def set_limit(n: int) -> None:
    """Sets that number, of the kernels and of NumPy's OpenBLAS."""
    install()
    _limit.value = n
    numba.set_num_threads(n)  # so that kernels which ask make no more parts than that
    if _blas is not None:
        _blas_function("set_num_threads")(n)


def is_forked() -> bool:
    """Whether the pool was lost in a fork."""
    return _is_forked


def shares_with_blas() -> bool:
    """Whether matrix products run on this pool: with the OpenBLAS of NumPy's wheels, and Numba's layer "omp"."""
    install()
    return _shares_with_blas


def _after_fork() -> None:
    global _is_forked, _shares_with_blas
    _is_forked = True
    _limit.value = 1
    if _shares_with_blas:  # OpenBLAS's own threads are started anew in a child
        _shares_with_blas = False
        _set_callback(None)


def _may_get_fewer_threads() -> bool:
    """Whether OpenMP is free to start fewer threads than jobs, which would wait for ever for the missing ones."""
    return "OMP_THREAD_LIMIT" in os.environ or os.environ.get("OMP_DYNAMIC", "").lower() in ("true", "1")


def _address(name: str) -> int:
    """Where a function of the C library lies; zero where there is none, and no OpenBLAS that would call it."""
    function = getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
    return 0 if function is None else ctypes.cast(function, ctypes.c_void_p).value


def _blas_function(name: str):
    return getattr(_blas, f"{_PREFIX}{name}{_SUFFIX}")


def _set_callback(address: int | None) -> None:
    function = _blas_function("set_threads_callback_function")
    function.argtypes, function.restype = [ctypes.c_void_p], None
    function(address)
