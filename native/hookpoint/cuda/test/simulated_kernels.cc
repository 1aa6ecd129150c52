// The kernels, compiled as C++ over simulation.h.
#include "../src/kernels.cu"
