#include "tensor/header.h"

#include <stdio.h>

int ls_element_bytes(const struct ls_file_tensor *tensor)
{
    return tensor->integer > 0 ? tensor->integer : ls_dtype_size(tensor->type);
}

bool ls_extent_bytes(int64_t *out, const struct ls_file_tensor *tensor)
{
    int64_t bound = ls_element_bytes(tensor);
    bool empty = false;

    for (int i = 0; i < tensor->ndim; i++) {
        const int64_t n = tensor->dim[i];

        if (n < 0) return false;
        if (n == 0) empty = true;
        if (__builtin_mul_overflow(bound, n > 0 ? n : 1, &bound)) return false;
    }
    *out = empty ? 0 : bound;
    return true;
}

bool ls_extent_holds(const struct ls_file_tensor *tensor, int64_t first, int64_t n)
{
    int64_t bytes = 0;

    return ls_extent_bytes(&bytes, tensor) && first >= 0 && n >= 0 &&
           first <= bytes / ls_element_bytes(tensor) - n;
}

static const char *type_name(const struct ls_file_tensor *tensor)
{
    if (tensor->integer == 0) return ls_dtype_name(tensor->type);
    if (tensor->integer == 1) return tensor->truth ? "bool" : "uint8";
    return tensor->integer == 4 ? "int32" : "int64";
}

const char *ls_extent_text(char out[LS_EXTENT_TEXT], const struct ls_file_tensor *tensor)
{
    if (tensor->foreign[0] != '\0' && tensor->integer == 0) {
        snprintf(out, LS_EXTENT_TEXT, "%s", tensor->foreign);
        return out;
    }
    int used = snprintf(out, LS_EXTENT_TEXT, "%s [", type_name(tensor));

    for (int i = 0; i < tensor->ndim; i++)
        used += snprintf(out + used, LS_EXTENT_TEXT - (size_t)used, "%s%lld", i > 0 ? ", " : "",
                         (long long)tensor->dim[i]);
    snprintf(out + used, LS_EXTENT_TEXT - (size_t)used, "]");
    return out;
}

const char *ls_quote(char out[LS_QUOTE_LENGTH], const char *text, size_t length)
{
    static const char cut[] = "...";
    const size_t room = LS_QUOTE_LENGTH - sizeof cut;
    const size_t kept = length > room ? room : length;

    for (size_t i = 0; i < kept; i++) {
        const unsigned char byte = (unsigned char)text[i];

        out[i] = byte < ' ' || byte == 0x7f ? '?' : text[i];
    }
    snprintf(out + kept, LS_QUOTE_LENGTH - kept, "%s", length > room ? cut : "");
    return out;
}
