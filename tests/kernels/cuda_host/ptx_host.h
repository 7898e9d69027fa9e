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

#include "mma_host.h"
