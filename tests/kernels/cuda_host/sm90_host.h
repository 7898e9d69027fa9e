// The functions of sm90.cuh as g++ understands them, by the PTX ISA's description: barriers and the copy engine here,
// wgmma in wgmma_host.h.
//
// What the hardware does in the background happens here as late as it may: a box arrives when somebody waits for it, and
// until then its place holds NaN; a product's results come at the wait for them, and until then its registers hold NaN.
// Errors, each named: a product that was not fenced, or on whose operands the four warps disagree; a box that is copied
// onto shared memory which a product in flight still reads; a barrier that is not initialised, or whose bytes do not add
// up; a box copied out that not all threads of its warpgroup have made visible.
#pragma once
#include "wgmma_host.h"

struct TensorMap;

namespace emulator {

// ---- Barriers: 8 bytes in shared memory.

struct Mbarrier {
    int bytes;  // announced and still to come
    unsigned short arrivals, pending : 15, phase : 1;

    void complete() {
        if (pending == 0 && bytes == 0) pending = arrivals, phase ^= 1;
    }
};

inline Mbarrier& mbarrier(unsigned address) {
    if (address % 8) fail("an mbarrier is not aligned to 8 bytes");
    Mbarrier& barrier = *reinterpret_cast<Mbarrier*>(shared_pointer(address));
    if (barrier.arrivals == 0xffff) fail("an mbarrier that was not initialised");
    return barrier;
}

// ---- Tensor maps, as harness.py writes them (`host_tensor_map`) where the driver would write its own.

struct HostMap {
    unsigned magic;
    unsigned element;     // bytes
    unsigned char* data;
    unsigned sizes[4], box[4];
    unsigned long long strides[4];  // bytes
};

inline HostMap host_map(const TensorMap* map) {
    HostMap host;
    memcpy(&host, map, sizeof host);
    if (host.magic != 0x90a90a) fail("a tensor map that nobody has encoded");
    return host;
}

struct Box {
    HostMap map;
    unsigned shared, barrier;
    int at[4];
};

// Calls visit(address in shared memory, address in the tensor or null outside of it) for each element of a box.
template <class Visit>
void each_element(const Box& box, Visit visit) {
    const HostMap& map = box.map;
    for (unsigned row = 0; row < map.box[1]; ++row)
        for (unsigned column = 0; column < map.box[0]; ++column) {
            long long at[4] = {box.at[0] + (long long)column, box.at[1] + (long long)row, box.at[2], box.at[3]};
            unsigned char* element = map.data;
            for (int i = 0; i < 4 && element; ++i)
                element = at[i] < 0 || at[i] >= map.sizes[i] ? nullptr : element + at[i] * (long long)map.strides[i];
            unsigned address = box.shared + row * map.box[0] * map.element + column * map.element;
            visit(shared_pointer(swizzle_128(address)), element, map.element);
        }
}

// ---- The copy engine.

struct BoxThread {  // a thread's
    std::vector<Box> boxes_out;
    bool boxes_committed = false, proxy_fenced = false;
};

struct BoxState {
    bool barriers_unfenced = false;
    std::deque<Box> boxes_in;
    std::vector<BoxThread> threads{MAX_THREADS};
};

inline BoxState& boxes() { return of_block<BoxState>(); }
inline BoxThread& my_boxes() { return boxes().threads[current->number]; }

// Those boxes arrive that a barrier counts: when somebody waits for it, and no others.
inline void copy_boxes(unsigned address) {
    std::deque<Box>& boxes = emulator::boxes().boxes_in;
    for (size_t i = 0; i < boxes.size();) {
        if (boxes[i].barrier != address) {
            ++i;
            continue;
        }
        each_element(boxes[i], [](unsigned char* shared, const unsigned char* global, unsigned bytes) {
            if (global)
                memcpy(shared, global, bytes);
            else
                memset(shared, 0, bytes);
        });
        Mbarrier& barrier = mbarrier(address);
        barrier.bytes -= int(boxes[i].map.box[0] * boxes[i].map.box[1] * boxes[i].map.element);
        barrier.complete();
        boxes.erase(boxes.begin() + i);
    }
}

}  // namespace emulator

inline unsigned shared_offset(const void* pointer) {
    return unsigned(static_cast<const unsigned char*>(pointer) - emulator::shared_begin) + emulator::SHARED_START;
}

inline void barrier_init(unsigned barrier, unsigned arrivals) {
    *reinterpret_cast<emulator::Mbarrier*>(emulator::shared_pointer(barrier)) = {
        0, (unsigned short)arrivals, (unsigned short)(arrivals & 0x7fff), 0};
    emulator::boxes().barriers_unfenced = true;
}

inline void barrier_init_fence() { emulator::boxes().barriers_unfenced = false; }

inline void barrier_arrive_expect(unsigned barrier, unsigned bytes) {
    if (emulator::boxes().barriers_unfenced) emulator::fail("an mbarrier is used before barrier_init_fence");
    emulator::Mbarrier& state = emulator::mbarrier(barrier);
    if (state.pending == 0) emulator::fail("more arrivals at an mbarrier than it counts");
    state.bytes += int(bytes);
    --state.pending;
    state.complete();
}

inline void barrier_arrive(unsigned barrier) { barrier_arrive_expect(barrier, 0); }

inline bool barrier_try_wait(unsigned barrier, unsigned parity) {
    emulator::mbarrier(barrier);
    emulator::wait_until("an mbarrier", [=] {
        if (emulator::mbarrier(barrier).phase == parity) emulator::copy_boxes(barrier);
        return emulator::mbarrier(barrier).phase != parity;
    });
    return true;
}

inline void named_barrier_sync(int id, int threads) { emulator::barrier(id, threads); }
inline void named_barrier_arrive(int id, int threads) { emulator::arrive(id, threads); }

inline void tensor_map_prefetch(const TensorMap*) {}

inline void copy_box_in(
    unsigned to, const TensorMap* map, unsigned barrier, int column, int row, int head, int batch) {
    emulator::Box box{emulator::host_map(map), to, barrier, {column, row, head, batch}};
    unsigned bytes = box.map.box[0] * box.map.box[1] * box.map.element;
    if (to % 128) emulator::fail("a box goes to shared memory that is not aligned to 128 bytes");
    emulator::refuse_if_read(to, to + bytes);
    memset(emulator::shared_pointer(to), 0xff, bytes);  // until somebody waits for it
    emulator::boxes().boxes_in.push_back(box);
}

inline void copy_box_out(const TensorMap* map, unsigned from, int column, int row, int head, int batch) {
    unsigned begin = emulator::current->number / emulator::GROUP * emulator::GROUP;
    for (unsigned i = begin; i < begin + emulator::GROUP; ++i)
        if (!emulator::boxes().threads[i].proxy_fenced)
            emulator::fail("a box is copied out before all threads of the warpgroup have called async_proxy_fence");
    emulator::my_boxes().boxes_out.push_back({emulator::host_map(map), from, 0, {column, row, head, batch}});
    emulator::my_boxes().boxes_committed = false;
}

inline void copies_out_commit() {
    unsigned begin = emulator::current->number / emulator::GROUP * emulator::GROUP;
    for (unsigned i = begin; i < begin + emulator::GROUP; ++i) emulator::boxes().threads[i].proxy_fenced = false;
    emulator::my_boxes().boxes_committed = true;
}

inline void copies_out_wait_read() {
    emulator::BoxThread& thread = emulator::my_boxes();
    if (!thread.boxes_committed) emulator::fail("copies out are waited for that were not committed");
    emulator::yield_to_others();
    for (const emulator::Box& box : thread.boxes_out)
        emulator::each_element(box, [](const unsigned char* shared, unsigned char* global, unsigned bytes) {
            if (global) memcpy(global, shared, bytes);
        });
    thread.boxes_out.clear();
}

inline void async_proxy_fence() { emulator::my_boxes().proxy_fenced = true; }

template <int COUNT>
void registers_decrease() {}
template <int COUNT>
void registers_increase() {}
