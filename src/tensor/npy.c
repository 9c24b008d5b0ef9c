/* After the magic come the version (two bytes), the length of the header (little-endian, two bytes
 * in version 1, four later) and the header, a Python dictionary such as
 * {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
 * Source: NumPy Enhancement Proposal 1, and numpy.lib.format. */
#include "tensor/npy.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/transfer.h"

/* A plain array's header takes under 200 bytes; what is longer describes records. */
#define MAX_HEADER 65535

enum { VERSION_AT = LS_NPY_MAGIC_LENGTH, LENGTH_AT = VERSION_AT + 2, LONGEST_PREFIX = 12 };

struct cursor {
    const char *at, *end;
};

struct dictionary {
    char descr[16];
    unsigned seen; /* bit i: the i-th of `entries` */
    bool fortran_order;
    int ndim;
    int64_t dim[LS_FILE_DIMS];
};

static void skip_space(struct cursor *text)
{
    while (text->at < text->end && isspace((unsigned char)*text->at)) text->at++;
}

static bool take(struct cursor *text, const char *token)
{
    const size_t length = strlen(token);

    skip_space(text);
    if ((size_t)(text->end - text->at) < length || memcmp(text->at, token, length) != 0)
        return false;
    text->at += length;
    return true;
}

/* A quoted string without escapes; false if it is none or does not fit. */
static bool take_string(char *out, size_t room, struct cursor *text)
{
    skip_space(text);
    const char *const quote = text->at;

    if (quote == text->end || (*quote != '\'' && *quote != '"')) return false;
    const char *const first = quote + 1;
    const char *const close = memchr(first, *quote, (size_t)(text->end - first));
    if (close == NULL || (size_t)(close - first) >= room) return false;
    memcpy(out, first, (size_t)(close - first));
    out[close - first] = '\0';
    text->at = close + 1;
    return true;
}

/* The text ends in '\0', so that strtoll stays inside it. */
static bool take_integer(int64_t *out, struct cursor *text)
{
    char *end;

    skip_space(text);
    errno = 0;
    *out = strtoll(text->at, &end, 10);
    if (end == text->at || errno != 0) return false;
    text->at = end;
    return true;
}

/* (), (5,), (2, 3): NULL, or what was expected. */
static const char *take_shape(struct dictionary *out, struct cursor *text)
{
    int n = 0;

    if (!take(text, "(")) return "a shape in parentheses";
    while (!take(text, ")")) {
        if (n == LS_FILE_DIMS) return "at most 5 dimensions";
        if (!take_integer(&out->dim[n++], text)) return "a dimension under 2^63";
        if (!take(text, ",") && (text->at == text->end || *text->at != ')')) return "',' or ')'";
    }
    out->ndim = n;
    return NULL;
}

static const char *take_descr(struct dictionary *out, struct cursor *text)
{
    skip_space(text);
    if (text->at < text->end && *text->at == '[') return "one number type, not records";
    return take_string(out->descr, sizeof out->descr, text) ? NULL : "a number type such as '<f4'";
}

static const char *take_order(struct dictionary *out, struct cursor *text)
{
    out->fortran_order = take(text, "True");
    return out->fortran_order || take(text, "False") ? NULL : "True or False";
}

static const struct {
    const char *key;
    const char *(*take_value)(struct dictionary *, struct cursor *);
} entries[] = {
    {"descr", take_descr},
    {"fortran_order", take_order},
    {"shape", take_shape},
};

#define ENTRIES (sizeof entries / sizeof *entries)

static const char *take_entry(struct dictionary *out, struct cursor *text)
{
    char key[16];
    size_t i = 0;

    if (!take_string(key, sizeof key, text)) return "a quoted key";
    if (!take(text, ":")) return "':'";
    while (i < ENTRIES && strcmp(key, entries[i].key) != 0) i++;
    if (i == ENTRIES) return "no key but descr, fortran_order and shape";
    if (out->seen & 1u << i) return "each key once";
    out->seen |= 1u << i;
    return entries[i].take_value(out, text);
}

static const char *take_dictionary(struct dictionary *out, struct cursor *text)
{
    if (!take(text, "{")) return "'{'";
    while (!take(text, "}")) {
        const char *const expected = take_entry(out, text);

        if (expected != NULL) return expected;
        if (!take(text, ",") && (text->at == text->end || *text->at != '}')) return "',' or '}'";
    }
    if (out->seen != (1u << ENTRIES) - 1) return "all of descr, fortran_order and shape";
    skip_space(text);
    return text->at == text->end ? NULL : "nothing after '}'";
}

/* Whole numbers are foreign among tensors; whether these are some. */
static bool find_integers(struct ls_file_tensor *out, const char *descr)
{
    static const struct {
        const char *descr;
        int bytes;
    } types[] = {{"<i8", 8}, {"<i4", 4}, {"|u1", 1}, {"|b1", 1}};

    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(descr, types[i].descr) == 0) out->integer = types[i].bytes;
    if (out->integer == 0) return false;
    out->truth = strcmp(descr, "|b1") == 0;
    snprintf(out->foreign, sizeof out->foreign, "elements of type '%s'", descr);
    return true;
}

static ls_status find_type(struct ls_file_tensor *out, const char *descr, const char *path)
{
    /* numpy knows no bf16: ml_dtypes writes it as two bytes of no meaning, which nothing else is */
    static const struct {
        const char *descr;
        ls_dtype type;
    } types[] = {{"<f2", LS_F16},  {"<f4", LS_F32},  {"<f8", LS_F64},
                 {"<V2", LS_BF16}, {"|V2", LS_BF16}, {"|i1", LS_I8}};
    char quote[LS_QUOTE_LENGTH];

    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(descr, types[i].descr) != 0) continue;
        out->type = types[i].type;
        return LS_OK;
    }
    if (find_integers(out, descr)) return LS_OK;
    ls_quote(quote, descr, strlen(descr));
    if (descr[0] == '>')
        return ls_fail(LS_ETYPE, "%s: big-endian elements ('%s'): save a.astype('<%s') instead",
                       path, quote, quote + 1);
    if (strchr(descr, 'O') != NULL)
        return ls_fail(LS_ETYPE,
                       "%s: pickled Python objects ('%s'), which are never loaded: save an array "
                       "of numbers",
                       path, quote);
    if (strcmp(descr + 1, "V1") == 0 || strcmp(descr + 1, "f1") == 0)
        return ls_fail(
            LS_ETYPE,
            "%s: elements are '%s', as ml_dtypes writes numbers of 8 bits without saying "
            "which: save a .safetensors file, whose F8_E4M3 says it, or a.astype('<f2')",
            path, quote);
    return ls_fail(
        LS_ETYPE,
        "%s: elements are '%s'; a .npy file may hold '<f2', '<f4' or '<f8', or bf16 as "
        "'<V2', which ml_dtypes writes, and whole numbers as '<i8', '<i4', '|i1', '|u1' or '|b1'",
        path, quote);
}

/* Where the header lies, and so where the elements begin. */
static ls_status parse_prefix(int64_t *header_at, int64_t *data_at, const struct ls_source *source)
{
    unsigned char prefix[LONGEST_PREFIX] = {0};
    const int64_t present = source->bytes < LONGEST_PREFIX ? source->bytes : LONGEST_PREFIX;

    LS_TRY(ls_read_at(prefix, source->fd, source->path, present, 0));
    const int major = prefix[VERSION_AT], minor = prefix[VERSION_AT + 1];
    const unsigned char *const field = prefix + LENGTH_AT;
    int64_t length = field[0] | field[1] << 8;

    if (present >= LENGTH_AT && (major < 1 || major > 3 || minor != 0))
        return ls_fail(LS_EFORMAT, "%s: .npy version %d.%d; 1.0, 2.0 and 3.0 can be read",
                       source->path, major, minor);
    *header_at = LENGTH_AT + (major == 1 ? 2 : 4);
    if (major > 1) length |= (int64_t)field[2] << 16 | (int64_t)field[3] << 24;
    if (*header_at > source->bytes || length > source->bytes - *header_at)
        return ls_fail(LS_EFORMAT, "%s: truncated: the .npy header does not fit in %lld bytes",
                       source->path, (long long)source->bytes);
    if (length > MAX_HEADER)
        return ls_fail(LS_EFORMAT, "%s: .npy header of %lld bytes; a plain array needs under %d",
                       source->path, (long long)length, MAX_HEADER);
    *data_at = *header_at + length;
    return LS_OK;
}

static ls_status parse_header(struct dictionary *out, const struct ls_source *source,
                              int64_t header_at, int64_t length)
{
    char *const header = malloc((size_t)length + 1);
    char quote[LS_QUOTE_LENGTH];
    ls_status status;

    if (header == NULL)
        return ls_fail(LS_ENOMEM, "%s: no memory for a header of %lld bytes", source->path,
                       (long long)length);
    LS_TRY_GOTO(status, ls_read_at(header, source->fd, source->path, length, header_at), done);
    header[length] = '\0';
    struct cursor text = {.at = header, .end = header + length};
    const char *const expected = take_dictionary(out, &text);
    if (expected != NULL)
        status = ls_fail(LS_EFORMAT, "%s: .npy header at byte %lld: expected %s, found \"%s\"",
                         source->path, (long long)(header_at + (text.at - header)), expected,
                         ls_quote(quote, text.at, (size_t)(text.end - text.at)));
done:
    free(header);
    return status;
}

static ls_status check_length(const struct ls_file_tensor *tensor, const struct ls_source *source)
{
    const int64_t present = source->bytes - tensor->offset;
    char extent[LS_EXTENT_TEXT];
    int64_t needed;

    ls_extent_text(extent, tensor);
    if (!ls_extent_bytes(&needed, tensor))
        return ls_fail(LS_EFORMAT, "%s: %s is no possible shape (negative or over 2^63 bytes)",
                       source->path, extent);
    if (present < needed)
        return ls_fail(LS_EFORMAT, "%s: truncated: %s needs %lld bytes, %lld are there",
                       source->path, extent, (long long)needed, (long long)present);
    if (present > needed)
        return ls_fail(LS_EFORMAT,
                       "%s: %lld trailing bytes after the %lld of %s: save one array a file",
                       source->path, (long long)(present - needed), (long long)needed, extent);
    return LS_OK;
}

static ls_status check_contiguous(const struct dictionary *header, const char *path)
{
    if (!header->fortran_order || header->ndim < 2) return LS_OK;
    return ls_fail(LS_EFORMAT,
                   "%s: Fortran order: save np.ascontiguousarray(a), whose last axis is fastest",
                   path);
}

ls_status ls_npy_parse(struct ls_file_tensor *out, const struct ls_source *source)
{
    struct dictionary header = {.ndim = 0};
    struct ls_file_tensor tensor = {.name = ""};
    int64_t header_at = 0;

    LS_TRY(parse_prefix(&header_at, &tensor.offset, source));
    LS_TRY(parse_header(&header, source, header_at, tensor.offset - header_at));
    LS_TRY(find_type(&tensor, header.descr, source->path));
    LS_TRY(check_contiguous(&header, source->path));
    tensor.ndim = header.ndim;
    memcpy(tensor.dim, header.dim, sizeof tensor.dim);
    LS_TRY(check_length(&tensor, source));
    tensor.bytes = source->bytes - tensor.offset;
    *out = tensor;
    return LS_OK;
}
