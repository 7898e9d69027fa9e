// The functions of sm90.cuh as g++ understands them, by the PTX ISA's description: barriers, the copy engine, wgmma.
//
// What the hardware does in the background happens here as late as it may: a box arrives when somebody waits for it, and
// until then its place holds NaN; a product's results come at the wait for them, and until then its registers hold NaN.
// Errors, each named: a product that was not fenced, or on whose operands the four warps disagree; a box that is copied
// onto shared memory which a product in flight still reads; a barrier that is not initialised, or whose bytes do not add
// up; a box copied out that not all threads of its warpgroup have made visible.
#pragma once
#include <deque>
#include <map>
#include <set>
#include <vector>

struct TensorMap;

namespace emulator {

constexpr unsigned GROUP = 128, SHARED_START = 1024;  // the first 1024 bytes are the system's, as on the card

inline unsigned char* shared_pointer(unsigned address) { return shared_begin + (address - SHARED_START); }

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

inline unsigned swizzle_128(unsigned address) { return address ^ (address >> 3 & 0x70); }

// Calls visit(address in shared memory, address in the tensor or null outside of it) for each element of a box.
template <class Visit>
void each_element(const Box& box, Visit visit) {
    const HostMap& map = box.map;
    for (unsigned row = 0; row < map.box[1]; ++row)
        for (unsigned column = 0; column < map.box[0]; ++column) {
            long long at[4] = {box.at[0] + (long long)column, box.at[1] + (long long)row, box.at[2], box.at[3]};
            unsigned char* element = map.data;
            for (int i = 0; i < 4; ++i) {
                if (element == nullptr || at[i] < 0 || at[i] >= map.sizes[i]) { element = nullptr; break; }
                element += at[i] * (long long)map.strides[i];
            }
            unsigned address = box.shared + row * map.box[0] * map.element + column * map.element;
            visit(shared_pointer(swizzle_128(address)), element, map.element);
        }
}

// ---- Products.

struct Product {
    unsigned long long a, b;
    bool from_registers;
    unsigned n, accumulate, given;  // by how many of the 128 threads
    unsigned registers[GROUP][4];
    std::vector<float>* sums[GROUP];
};

struct Group {  // four warps
    std::deque<Product> products;  // those that not all threads have waited for
    unsigned first = 0;            // the number of the oldest of them
};

struct Asynchronous {  // a thread's
    bool fenced = false;
    unsigned given = 0, waited = 0;  // products
    std::deque<unsigned> commits;    // `given` at each commit not yet waited for
    struct Sums {
        std::vector<float> values;
        unsigned last;  // the product that they are complete after
    };
    std::map<float*, Sums> sums;
    std::vector<Box> boxes_out;
    bool boxes_committed = false, proxy_fenced = false;
};

struct Hopper {
    unsigned block = 0;
    bool barriers_unfenced = false;
    std::deque<Box> boxes_in;
    std::vector<Group> groups{MAX_THREADS / GROUP};
    std::vector<Asynchronous> threads{MAX_THREADS};
};

inline Hopper& hopper() {
    static Hopper* state = new Hopper;
    if (state->block != block_count) *state = Hopper(), state->block = block_count;
    return *state;
}

inline Asynchronous& mine() { return hopper().threads[current->number]; }
inline Group& my_group() { return hopper().groups[current->number / GROUP]; }

struct Descriptor {
    unsigned start, leading, stride;

    explicit Descriptor(unsigned long long bits)
        : start(unsigned(bits & 0x3fff) << 4), leading(unsigned(bits >> 16 & 0x3fff) << 4),
          stride(unsigned(bits >> 32 & 0x3fff) << 4) {
        if (bits >> 62 != 1) fail("only the 128-byte swizzle is emulated");
        if (bits >> 49 & 7) fail("a matrix descriptor with a base offset");
    }

    // The row is one of A's or, of B, a column; `k` counts along what is summed over.
    unsigned address(unsigned row, unsigned k, bool transposed) const {
        if (transposed) return swizzle_128(start + row / 64 * leading + k / 8 * stride + k % 8 * 128 + row % 64 * 2);
        return swizzle_128(start + row / 8 * stride + row % 8 * 128 + k * 2);
    }

    // Whether it has whole rows of 128 bytes in common with shared memory from `begin` to `stop`.
    bool overlaps(unsigned begin, unsigned stop, unsigned rows, bool transposed) const {
        unsigned first = start / 128 * 128;
        unsigned bytes = transposed ? (rows - 1) / 64 * leading + 2 * stride : rows / 8 * stride;
        return first < stop && begin < first + bytes;
    }
};

template <class T>
float half_at(unsigned address) {
    T half;
    memcpy(&half, shared_pointer(address), 2);
    return to_float(half);
}

// By the thread that gave last: d += a b for all 128.
template <class T>
void multiply(const Product& product) {
    static float a[64][16], b[256][16];
    Descriptor b_matrix(product.b);
    for (unsigned k = 0; k < 16; ++k) {
        for (unsigned i = 0; i < 64; ++i)
            if (!product.from_registers) {
                a[i][k] = half_at<T>(Descriptor(product.a).address(i, k, false));
            } else {  // lane r % 8 * 4 + k % 8 / 2, register (r >= 8) + 2 (k >= 8), half k % 2
                unsigned thread = i / 16 * 32 + i % 8 * 4 + k % 8 / 2;
                unsigned bits = product.registers[thread][i % 16 / 8 + k / 8 * 2] >> k % 2 * 16;
                T half;
                memcpy(&half, &bits, 2);
                a[i][k] = to_float(half);
            }
        for (unsigned j = 0; j < product.n; ++j) b[j][k] = half_at<T>(b_matrix.address(j, k, product.from_registers));
    }
    for (unsigned thread = 0; thread < GROUP; ++thread)
        for (unsigned i = 0; i < product.n / 2; ++i) {
            unsigned row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
            unsigned column = i / 4 * 8 + thread % 4 * 2 + i % 2;
            float& sum = (*product.sums[thread])[i];
            float added = 0;
            for (unsigned k = 0; k < 16; ++k) added += a[row][k] * b[column][k];
            sum = product.accumulate ? sum + added : added;
        }
}

template <class T>
void give(float* d, unsigned count, unsigned long long a, const unsigned* registers, unsigned long long b,
          unsigned accumulate) {
    Asynchronous& thread = mine();
    Group& group = my_group();
    if (!thread.fenced) fail("wgmma without wgmma.fence before it");
    unsigned at = thread.given++ - group.first;
    if (at == group.products.size()) {
        Product fresh = {};
        fresh.a = a, fresh.b = b, fresh.n = 2 * count, fresh.accumulate = accumulate, fresh.from_registers = registers;
        group.products.push_back(fresh);
    }
    Product& product = group.products[at];
    bool same = product.b == b && product.n == 2 * count && !product.accumulate == !accumulate && product.a == a &&
                product.from_registers == (registers != nullptr);
    if (!same) fail("the threads of a warpgroup give different operands to one wgmma");
    auto found = thread.sums.try_emplace(d);
    if (found.second) {
        found.first->second.values.assign(d, d + count);
        for (unsigned i = 0; i < count; ++i) d[i] = __builtin_nanf("");  // nobody's to read before the wait
    }
    found.first->second.last = thread.given;
    product.sums[current->number % GROUP] = &found.first->second.values;
    if (registers) memcpy(product.registers[current->number % GROUP], registers, 16);
    if (++product.given == GROUP) multiply<T>(product);
}

// Results up to product `until` reach the thread's registers.
inline void take(unsigned until) {
    Asynchronous& thread = mine();
    Group& group = my_group();
    yield();  // others come first: what is released too early is overwritten now
    wait_until("wgmma.wait_group, for the other threads of the warpgroup", [&] {
        return until <= group.first || group.products[until - group.first - 1].given == GROUP;
    });
    for (auto sum = thread.sums.begin(); sum != thread.sums.end();)
        if (sum->second.last <= until) {
            memcpy(sum->first, sum->second.values.data(), sum->second.values.size() * sizeof(float));
            sum = thread.sums.erase(sum);
        } else {
            ++sum;
        }
    thread.waited = until;
    gather("wgmma.wait_group", 0xffffffff, char(0));  // the instruction is one of the whole warp
    unsigned begin = current->number / GROUP * GROUP, all = until;
    for (unsigned i = begin; i < begin + GROUP; ++i) all = min(all, hopper().threads[i].waited);
    for (; group.first < all; ++group.first) group.products.pop_front();
}

inline void refuse_if_read(unsigned begin, unsigned end) {
    for (const Group& group : hopper().groups)
        for (const Product& product : group.products) {
            bool a = !product.from_registers && Descriptor(product.a).overlaps(begin, end, 64, false);
            if (a || Descriptor(product.b).overlaps(begin, end, product.n, product.from_registers))
                fail("a box is copied onto shared memory that a wgmma in flight reads");
        }
}

inline void copy_next_box() {
    Box box = hopper().boxes_in.front();
    hopper().boxes_in.pop_front();
    each_element(box, [](unsigned char* shared, const unsigned char* global, unsigned bytes) {
        if (global)
            memcpy(shared, global, bytes);
        else
            memset(shared, 0, bytes);
    });
    Mbarrier& barrier = mbarrier(box.barrier);
    barrier.bytes -= int(box.map.box[0] * box.map.box[1] * box.map.element);
    barrier.complete();
}

}  // namespace emulator

inline unsigned shared_offset(const void* pointer) {
    return unsigned(static_cast<const unsigned char*>(pointer) - emulator::shared_begin) + emulator::SHARED_START;
}

inline void barrier_init(unsigned barrier, unsigned arrivals) {
    *reinterpret_cast<emulator::Mbarrier*>(emulator::shared_pointer(barrier)) = {
        0, (unsigned short)arrivals, (unsigned short)(arrivals & 0x7fff), 0};
    emulator::hopper().barriers_unfenced = true;
}

inline void barrier_init_fence() { emulator::hopper().barriers_unfenced = false; }

inline void barrier_arrive_expect(unsigned barrier, unsigned bytes) {
    if (emulator::hopper().barriers_unfenced) emulator::fail("an mbarrier is used before barrier_init_fence");
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
        auto over = [=] { return emulator::mbarrier(barrier).phase != parity; };
        while (!over() && !emulator::hopper().boxes_in.empty()) emulator::copy_next_box();
        return over();
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
    emulator::hopper().boxes_in.push_back(box);
}

inline void copy_box_out(const TensorMap* map, unsigned from, int column, int row, int head, int batch) {
    unsigned begin = emulator::current->number / emulator::GROUP * emulator::GROUP;
    for (unsigned i = begin; i < begin + emulator::GROUP; ++i)
        if (!emulator::hopper().threads[i].proxy_fenced)
            emulator::fail("a box is copied out before all threads of the warpgroup have called async_proxy_fence");
    emulator::mine().boxes_out.push_back({emulator::host_map(map), from, 0, {column, row, head, batch}});
    emulator::mine().boxes_committed = false;
}

inline void copies_out_commit() {
    unsigned begin = emulator::current->number / emulator::GROUP * emulator::GROUP;
    for (unsigned i = begin; i < begin + emulator::GROUP; ++i) emulator::hopper().threads[i].proxy_fenced = false;
    emulator::mine().boxes_committed = true;
}

inline void copies_out_wait_read() {
    emulator::Asynchronous& thread = emulator::mine();
    if (!thread.boxes_committed) emulator::fail("copies out are waited for that were not committed");
    emulator::yield();
    for (const emulator::Box& box : thread.boxes_out)
        emulator::each_element(box, [](const unsigned char* shared, unsigned char* global, unsigned bytes) {
            if (global) memcpy(global, shared, bytes);
        });
    thread.boxes_out.clear();
}

inline void async_proxy_fence() { emulator::mine().proxy_fenced = true; }

template <int COUNT>
void registers_decrease() {}
template <int COUNT>
void registers_increase() {}

inline void wgmma_fence() { emulator::mine().fenced = true; }

inline void wgmma_commit() {
    emulator::mine().fenced = false;
    emulator::mine().commits.push_back(emulator::mine().given);
}

template <int PENDING>
void wgmma_wait() {
    std::deque<unsigned>& commits = emulator::mine().commits;
    if (commits.size() <= PENDING) return;
    unsigned until = commits[commits.size() - PENDING - 1];
    commits.erase(commits.begin(), commits.end() - PENDING);
    emulator::take(until);
}

template <class T, int COUNT>
void wgmma_keep(T (&)[COUNT]) {}

template <class T, int COUNT>
void wgmma(T, float (&d)[COUNT], unsigned long long a, unsigned long long b, unsigned accumulate) {
    emulator::give<T>(d, COUNT, a, nullptr, b, accumulate);
}

template <class T, int COUNT>
void wgmma_transposed(
    T, float (&d)[COUNT], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned long long b) {
    unsigned registers[4] = {a0, a1, a2, a3};
    emulator::give<T>(d, COUNT, 0, registers, b, 1);
}
