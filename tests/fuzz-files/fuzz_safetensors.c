/* A target of libFuzzer: any bytes as a .safetensors file. */
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    try_reader(find_harm, bytes, n);
    try_with_length(find_harm, bytes, n, 0, 8);
    return 0;
}
