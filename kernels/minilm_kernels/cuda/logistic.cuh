// The logistic function, which gates are opened by.
#pragma once

__device__ __forceinline__ float logistic(float x) { return 1 / (1 + expf(-x)); }
