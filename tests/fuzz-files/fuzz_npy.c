/* A target of libFuzzer: any bytes as a .npy file, of a tensor and of whole numbers. */
#include "target.h"

enum { LENGTH_AT = 8 }; /* behind magic and version */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const char *(*const readers[])(const char *) = {find_harm, find_harm_in_integers};

    for (int i = 0; i < 2; i++) {
        try_reader(readers[i], bytes, n);
        try_with_length(readers[i], bytes, n, LENGTH_AT, n > 6 && bytes[6] > 1 ? 4 : 2);
    }
    return 0;
}
