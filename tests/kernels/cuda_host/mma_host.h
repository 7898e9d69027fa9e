// cp.async, ldmatrix and mma.sync of ptx.cuh, by the PTX ISA's description.
#pragma once

namespace emulator {

// Copies wait until they are waited for: until then NaN stands where they go, so that what reads too early is wrong.
struct Copy {
    void* to;
    const void* from;
    int bytes;
    unsigned group;
};
struct Copies {
    Copy waiting[256];
    unsigned count, group, block;
};
inline Copies copies[MAX_THREADS];

inline Copies& my_copies() {
    Copies& mine = copies[current->number];
    if (mine.block != block_count || mine.count > 256) mine.count = mine.group = 0, mine.block = block_count;
    return mine;
}

// Which number of which lane's registers is where in the 16 x 16, 16 x 8 and 16 x 8 matrices of mma.m16n8k16: row
// (g or g + 8) and columns 2 c and the next (and those 8 on) for lane 4 g + c.
struct Fragments {
    float a[8], b[4];
};

template <class Value>
void mma(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Value value) {
    Fragments mine;
    for (int i = 0; i < 8; ++i) mine.a[i] = value((unsigned short)(a[i / 2] >> 16 * (i % 2)));
    for (int i = 0; i < 4; ++i) mine.b[i] = value((unsigned short)((i < 2 ? b0 : b1) >> 16 * (i % 2)));
    const Fragments* all = gather("mma", 0xffffffffu, mine);
    const int g = int(lane()) / 4, c = int(lane()) % 4;
    for (int i = 0; i < 4; ++i) {
        const int below = i / 2, column = 2 * c + i % 2;  // of the sums
        double sum = sums[i];
        for (int k = 0; k < 16; ++k) {
            const float left = all[4 * g + k % 8 / 2].a[2 * (2 * (k / 8) + below) + k % 2];
            sum += double(left) * all[4 * column + k % 8 / 2].b[2 * (k / 8) + k % 2];
        }
        sums[i] = float(sum);
    }
}

inline const void* const* matrix_rows(const void* row) {
    if ((uintptr_t)row % 16) fail("ldmatrix: an address that is not a multiple of 16");
    return gather("ldmatrix", 0xffffffffu, row);
}

}  // namespace emulator

inline void cp_async_16(void* shared, const void* global, int bytes) {
    auto& mine = emulator::my_copies();
    if ((uintptr_t)shared % 16 || (bytes && (uintptr_t)global % 16))
        emulator::fail("cp.async: an address that is not a multiple of 16");
    if (bytes < 0 || bytes > 16) emulator::fail("cp.async: copies 0 to 16 bytes");
    if (mine.count == 256) emulator::fail("cp.async: the emulator keeps 256 copies of a thread");
    memset(shared, 0xff, 16);
    mine.waiting[mine.count++] = {shared, global, bytes, mine.group};
}
inline void cp_async_commit() { ++emulator::my_copies().group; }
template <int N>
void cp_async_wait() {
    auto& mine = emulator::my_copies();
    unsigned left = 0;
    for (unsigned i = 0; i < mine.count; ++i) {
        const emulator::Copy copy = mine.waiting[i];
        if (copy.group + N >= mine.group) {
            mine.waiting[left++] = copy;
            continue;
        }
        if (copy.bytes) memcpy(copy.to, copy.from, copy.bytes);
        memset((char*)copy.to + copy.bytes, 0, 16 - copy.bytes);
    }
    mine.count = left;
}

inline void ldmatrix_x4(unsigned (&to)[4], const void* row) {
    const void* const* rows = emulator::matrix_rows(row);
    const int lane = int(emulator::lane());
    for (int i = 0; i < 4; ++i) memcpy(&to[i], (const char*)rows[8 * i + lane / 4] + lane % 4 * 4, 4);
}
inline void ldmatrix_x4_trans(unsigned (&to)[4], const void* row) {
    const void* const* rows = emulator::matrix_rows(row);
    const int lane = int(emulator::lane());
    for (int i = 0; i < 4; ++i) {
        const auto *above = (const unsigned short*)rows[8 * i + lane % 4 * 2],
                   *below = (const unsigned short*)rows[8 * i + lane % 4 * 2 + 1];
        to[i] = above[lane / 4] | (unsigned)below[lane / 4] << 16;
    }
}

inline void mma_m16n8k16_f16(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulator::mma(sums, a, b0, b1, f16_value);
}
inline void mma_m16n8k16_bf16(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulator::mma(sums, a, b0, b1, bf16_value);
}
