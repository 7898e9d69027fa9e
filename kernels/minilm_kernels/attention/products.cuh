// The two products that attention is made of, for the macro SCALAR.
#pragma once
#include "products_float.cuh"
