// The functions of ptx.cuh as g++ understands them, by the PTX ISA's description.
#pragma once

inline unsigned short f16_bits(float x) { return minilm_bits<unsigned short>((_Float16)x); }
inline float f16_value(unsigned short bits) { return float(minilm_bits<_Float16>(bits)); }

inline unsigned short bf16_bits(float x) {
    if (x != x) return 0x7fff;
    unsigned bits = __float_as_uint(x);
    return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);  // to nearest, ties to even
}
inline float bf16_value(unsigned short bits) { return __uint_as_float((unsigned)bits << 16); }

inline unsigned f16x2_bits(float low, float high) { return f16_bits(low) | (unsigned)f16_bits(high) << 16; }
inline unsigned bf16x2_bits(float low, float high) { return bf16_bits(low) | (unsigned)bf16_bits(high) << 16; }

inline float exp2_approx(float x) { return exp2f(x); }

// Blocks run one after the other: what one waits for has happened, or never will.
inline void fence_gpu() {}
inline int load_relaxed(const int* from) { return *from; }
inline void add_relaxed(int* to, int value) { *to += value; }
inline void wait_for(const int* at, int value) {
    char text[120];
    snprintf(text, sizeof text, "waits for a number to become %d that is %d, and no other block is running", value, *at);
    if (*at != value) emulator::fail(text);
}
inline void load_l2(float (&to)[4], const float* from) {
    if (uintptr_t(from) % 16) emulator::fail("load_l2 of an address that is not aligned to 16 bytes");
    memcpy(to, from, sizeof to);
}
inline void store_l2(float* to, const float (&from)[4]) {
    if (uintptr_t(to) % 16) emulator::fail("store_l2 to an address that is not aligned to 16 bytes");
    memcpy(to, from, sizeof from);
}

#include "mma_host.h"
