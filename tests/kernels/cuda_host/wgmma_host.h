// wgmma as g++ understands it, by the PTX ISA's description: matrices in shared memory by their descriptors, products of
// 128 threads together, results that are there at the wait and not before.
#pragma once
#include <deque>
#include <map>
#include <vector>

namespace emulator {

constexpr unsigned GROUP = 128, SHARED_START = 1024;  // the first 1024 bytes are the system's, as on the card

inline unsigned char* shared_pointer(unsigned address) { return shared_begin + (address - SHARED_START); }

inline unsigned swizzle_128(unsigned address) { return address ^ (address >> 3 & 0x70); }

// A state that begins anew with each block.
template <class State>
State& of_block() {
    static State* state = new State;
    static unsigned block = 0;
    if (block != block_count) *state = State(), block = block_count;
    return *state;
}

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

struct Multiplier {  // a thread's
    bool fenced = false;
    unsigned given = 0, waited = 0;  // products
    std::deque<unsigned> commits;    // `given` at each commit not yet waited for
    struct Sums {
        std::vector<float> values;
        unsigned last;  // the product that they are complete after
    };
    std::map<float*, Sums> sums;
};

struct Products {
    std::vector<Group> groups{MAX_THREADS / GROUP};
    std::vector<Multiplier> threads{MAX_THREADS};
};

inline Multiplier& my_products() { return of_block<Products>().threads[current->number]; }
inline Group& my_group() { return of_block<Products>().groups[current->number / GROUP]; }

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
    Multiplier& thread = my_products();
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
    Multiplier& thread = my_products();
    Group& group = my_group();
    yield_to_others();  // others come first: what is released too early is overwritten now
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
    for (unsigned i = begin; i < begin + GROUP; ++i) all = min(all, of_block<Products>().threads[i].waited);
    for (; group.first < all; ++group.first) group.products.pop_front();
}

inline void refuse_if_read(unsigned begin, unsigned end) {
    for (const Group& group : of_block<Products>().groups)
        for (const Product& product : group.products) {
            bool a = !product.from_registers && Descriptor(product.a).overlaps(begin, end, 64, false);
            if (a || Descriptor(product.b).overlaps(begin, end, product.n, product.from_registers))
                fail("a box is copied onto shared memory that a wgmma in flight reads");
        }
}

}  // namespace emulator

inline void wgmma_fence() { emulator::my_products().fenced = true; }

inline void wgmma_commit() {
    emulator::my_products().fenced = false;
    emulator::my_products().commits.push_back(emulator::my_products().given);
}

template <int PENDING>
void wgmma_wait() {
    std::deque<unsigned>& commits = emulator::my_products().commits;
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
