/* The file is: length n of the header (8 bytes, little-endian), n bytes of JSON, the data. JSON:
 * {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...}, offsets counted
 * from the start of the data; an entry "__metadata__" is for readers of its own.
 * Source: github.com/huggingface/safetensors, README (Format). */
#include "tensor/safetensors.h"

#include <endian.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/transfer.h"

#define METADATA "__metadata__"
#define MAX_HEADER 100000000 /* the format's own limit */

static const char *const type_names[] = {
    [LS_F32] = "F32", [LS_BF16] = "BF16", [LS_F16] = "F16",
    [LS_F64] = "F64", [LS_I8] = "I8",     [LS_E4M3] = "F8_E4M3"};

#define TYPES ((int)(sizeof type_names / sizeof *type_names))

/* One tensor's bytes in the data. */
struct range {
    int64_t begin, end;
};

/* An entry of the header while it is checked: where messages place it, and the data's bytes. */
struct entry {
    const char *path;
    char name[LS_QUOTE_LENGTH]; /* fit to be printed */
    const json_t *json;
    int64_t data_bytes;
};

/* Of types that are whole numbers, 0 of others. */
static int integer_bytes(const char *type)
{
    static const struct {
        const char *name;
        int bytes;
    } types[] = {{"I64", 8}, {"I32", 4}, {"U8", 1}, {"BOOL", 1}};

    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(type, types[i].name) == 0) return types[i].bytes;
    return 0;
}

static ls_status parse_type(struct ls_file_tensor *out, const struct entry *entry)
{
    const char *const name = json_string_value(json_object_get(entry->json, "dtype"));
    char quote[LS_QUOTE_LENGTH];

    if (name == NULL)
        return ls_fail(LS_EFORMAT, "%s: tensor \"%s\" has no dtype", entry->path, entry->name);
    for (int i = 0; i < TYPES; i++) {
        if (strcmp(name, type_names[i]) != 0) continue;
        out->type = (ls_dtype)i;
        return LS_OK;
    }
    snprintf(out->foreign, sizeof out->foreign, "elements of type %s",
             ls_quote(quote, name, strlen(name)));
    out->integer = integer_bytes(name);
    out->truth = strcmp(name, "BOOL") == 0;
    return LS_OK;
}

static ls_status parse_shape(struct ls_file_tensor *out, const struct entry *entry)
{
    const json_t *const shape = json_object_get(entry->json, "shape");
    const size_t n = json_array_size(shape);

    if (!json_is_array(shape))
        return ls_fail(LS_EFORMAT, "%s: tensor \"%s\" has no shape", entry->path, entry->name);
    if (n > LS_FILE_DIMS) {
        snprintf(out->foreign, sizeof out->foreign, "%zu dimensions", n);
        return LS_OK;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *const dim = json_array_get(shape, i);

        if (!json_is_integer(dim))
            return ls_fail(LS_EFORMAT, "%s: tensor \"%s\": dimension %zu is not an integer",
                           entry->path, entry->name, i);
        out->dim[i] = json_integer_value(dim);
    }
    out->ndim = (int)n;
    return LS_OK;
}

static ls_status parse_range(struct range *out, const struct entry *entry)
{
    const json_t *const offsets = json_object_get(entry->json, "data_offsets");
    const json_t *const begin = json_array_get(offsets, 0), *const end = json_array_get(offsets, 1);

    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return ls_fail(LS_EFORMAT, "%s: tensor \"%s\": data_offsets are not two integers",
                       entry->path, entry->name);
    *out = (struct range){json_integer_value(begin), json_integer_value(end)};
    if (out->begin < 0 || out->end < out->begin)
        return ls_fail(LS_EFORMAT, "%s: tensor \"%s\": data_offsets [%lld, %lld] are out of order",
                       entry->path, entry->name, (long long)out->begin, (long long)out->end);
    if (out->end > entry->data_bytes)
        return ls_fail(LS_EFORMAT,
                       "%s: tensor \"%s\": data_offsets [%lld, %lld] reach past the %lld bytes of "
                       "data: the file is truncated, or its header wrong",
                       entry->path, entry->name, (long long)out->begin, (long long)out->end,
                       (long long)entry->data_bytes);
    return LS_OK;
}

static ls_status check_extent(const struct ls_file_tensor *tensor, const struct range *range,
                              const struct entry *entry)
{
    char extent[LS_EXTENT_TEXT];
    int64_t needed;

    ls_extent_text(extent, tensor);
    if (!ls_extent_bytes(&needed, tensor))
        return ls_fail(LS_EFORMAT,
                       "%s: tensor \"%s\": %s is no possible shape (negative or over 2^63 bytes)",
                       entry->path, entry->name, extent);
    if (needed != range->end - range->begin)
        return ls_fail(
            LS_EFORMAT,
            "%s: tensor \"%s\": %s needs %lld bytes, data_offsets [%lld, %lld] give %lld",
            entry->path, entry->name, extent, (long long)needed, (long long)range->begin,
            (long long)range->end, (long long)(range->end - range->begin));
    return LS_OK;
}

/* Whole numbers that do not fill their bytes are foreign altogether. */
static void check_integers(struct ls_file_tensor *tensor)
{
    int64_t needed;

    if (tensor->integer > 0 && (!ls_extent_bytes(&needed, tensor) || needed != tensor->bytes))
        tensor->integer = 0;
}

/* Leaves the offset relative to the data. */
static ls_status parse_tensor(struct ls_file_tensor *out, const struct entry *entry)
{
    struct range range = {0, 0};

    LS_TRY(parse_range(&range, entry));
    out->offset = range.begin;
    out->bytes = range.end - range.begin;
    LS_TRY(parse_type(out, entry));
    if (out->foreign[0] == '\0' || out->integer > 0) LS_TRY(parse_shape(out, entry));
    check_integers(out);
    return out->foreign[0] == '\0' ? check_extent(out, &range, entry) : LS_OK;
}

static void take_name(char out[LS_NAME_LENGTH], const char *name)
{
    const size_t length = strlen(name);

    if (length < LS_NAME_LENGTH)
        memcpy(out, name, length + 1);
    else
        ls_quote(out, name, length);
}

static ls_status parse_entries(struct ls_file_tensor *tensors, int *count, const char *path,
                               const json_t *header, int64_t data_bytes)
{
    const char *name;
    json_t *json;
    int n = 0;

    json_object_foreach((json_t *)header, name, json)
    {
        struct ls_file_tensor *const tensor = &tensors[n];
        struct entry entry = {.path = path, .json = json, .data_bytes = data_bytes};

        if (strcmp(name, METADATA) == 0) continue;
        ls_quote(entry.name, name, strlen(name));
        if (!json_is_object(json))
            return ls_fail(LS_EFORMAT, "%s: entry \"%s\" is not an object", path, entry.name);
        take_name(tensor->name, name);
        LS_TRY(parse_tensor(tensor, &entry));
        n++;
    }
    *count = n;
    return LS_OK;
}

/* By offset; of equal ones the empty tensor comes first. */
static int compare_ranges(const void *a, const void *b)
{
    const struct ls_file_tensor *const x = a, *const y = b;

    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The tensors, sorted, must cover the data without hole or overlap; places them in the file. */
static ls_status place_tensors(struct ls_file_tensor *tensors, int count, const char *path,
                               int64_t data_at, int64_t data_bytes)
{
    char quote[LS_QUOTE_LENGTH];
    int64_t next = 0;

    for (int i = 0; i < count; i++) {
        struct ls_file_tensor *const tensor = &tensors[i];

        if (tensor->offset != next)
            return ls_fail(LS_EFORMAT, "%s: tensor \"%s\" begins at byte %lld of the data, %s %lld",
                           path, ls_quote(quote, tensor->name, strlen(tensor->name)),
                           (long long)tensor->offset,
                           tensor->offset < next ? "which overlaps the one that ends at"
                                                 : "after a hole from byte",
                           (long long)next);
        next += tensor->bytes;
        tensor->offset += data_at;
    }
    if (next != data_bytes)
        return ls_fail(LS_EFORMAT,
                       "%s: %lld trailing bytes after the last tensor, which ends at %lld", path,
                       (long long)(data_bytes - next), (long long)(data_at + next));
    return LS_OK;
}

static ls_status parse_json(json_t **out, const char *text, size_t length, const char *path)
{
    char quote[LS_QUOTE_LENGTH];
    json_error_t error;

    *out = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (*out == NULL)
        return ls_fail(LS_EFORMAT, "%s: header, byte %d: %s", path,
                       LS_SAFETENSORS_PREFIX + error.position,
                       ls_quote(quote, error.text, strlen(error.text)));
    if (json_is_object(*out)) return LS_OK;
    json_decref(*out);
    return ls_fail(LS_EFORMAT, "%s: header is not a JSON object", path);
}

/* Bytes of the JSON, which are known to lie inside the file. */
static ls_status read_length(int64_t *out, const struct ls_source *source)
{
    uint64_t field;

    LS_TRY(ls_read_at(&field, source->fd, source->path, sizeof field, 0));
    const uint64_t length = le64toh(field);
    if (length > (uint64_t)(source->bytes - LS_SAFETENSORS_PREFIX))
        return ls_fail(LS_EFORMAT,
                       "%s: header of %llu bytes in a file of %lld: truncated, or damaged",
                       source->path, (unsigned long long)length, (long long)source->bytes);
    if (length > MAX_HEADER)
        return ls_fail(LS_EFORMAT, "%s: header of %llu bytes, the format allows %d", source->path,
                       (unsigned long long)length, MAX_HEADER);
    *out = (int64_t)length;
    return LS_OK;
}

static ls_status read_header(json_t **out, const struct ls_source *source, int64_t length)
{
    char *const text = malloc((size_t)length + 1);
    ls_status status;

    if (text == NULL)
        return ls_fail(LS_ENOMEM, "%s: no memory for a header of %lld bytes", source->path,
                       (long long)length);
    status = ls_read_at(text, source->fd, source->path, length, LS_SAFETENSORS_PREFIX);
    if (status == LS_OK) status = parse_json(out, text, (size_t)length, source->path);
    free(text);
    return status;
}

ls_status ls_safetensors_parse(struct ls_file_tensor **out, int *count,
                               const struct ls_source *source)
{
    struct ls_file_tensor *tensors;
    int64_t length = 0;
    json_t *header;
    ls_status status;
    int n = 0;

    LS_TRY(read_length(&length, source));
    LS_TRY(read_header(&header, source, length));
    const int64_t data_at = LS_SAFETENSORS_PREFIX + length, data_bytes = source->bytes - data_at;
    tensors = calloc(json_object_size(header) + 1, sizeof *tensors);
    if (tensors == NULL) {
        status = ls_fail(LS_ENOMEM, "%s: no memory for %zu entries", source->path,
                         json_object_size(header));
        goto free_header;
    }
    LS_TRY_GOTO(status, parse_entries(tensors, &n, source->path, header, data_bytes), free_tensors);
    qsort(tensors, (size_t)n, sizeof *tensors, compare_ranges);
    LS_TRY_GOTO(status, place_tensors(tensors, n, source->path, data_at, data_bytes), free_tensors);
    *out = tensors;
    *count = n;
    json_decref(header);
    return LS_OK;
free_tensors:
    free(tensors);
free_header:
    json_decref(header);
    return status;
}

static json_t *describe_tensor(const struct ls_file_tensor *tensor, const struct range *range)
{
    json_t *const shape = json_array();

    for (int i = 0; i < tensor->ndim; i++)
        json_array_append_new(shape, json_integer(tensor->dim[i]));
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", type_names[tensor->type], "shape", shape,
                     "data_offsets", (json_int_t)range->begin, (json_int_t)range->end);
}

/* Adds every tensor to header; offsets and *data_bytes are counted from the start of the data. */
static ls_status describe_tensors(json_t *header, int64_t *data_bytes,
                                  struct ls_file_tensor *tensors, int count)
{
    struct range range = {0, 0};

    for (int i = 0; i < count; i++) {
        struct ls_file_tensor *const tensor = &tensors[i];
        char extent[LS_EXTENT_TEXT];

        if (!ls_extent_bytes(&tensor->bytes, tensor) ||
            __builtin_add_overflow(range.end, tensor->bytes, &range.end))
            return ls_fail(LS_ESHAPE, "tensor \"%s\": %s is negative or too large for a file",
                           tensor->name, ls_extent_text(extent, tensor));
        if (strcmp(tensor->name, METADATA) == 0 || json_object_get(header, tensor->name) != NULL)
            return ls_fail(LS_EVALUE, "tensor %d: the name \"%s\" is reserved or used twice", i,
                           tensor->name);
        if (json_object_set_new(header, tensor->name, describe_tensor(tensor, &range)) != 0)
            return ls_fail(LS_EVALUE, "tensor %d: its name is not UTF-8", i);
        tensor->offset = range.begin;
        range.begin = range.end;
    }
    *data_bytes = range.end;
    return LS_OK;
}

/* The length, the JSON, and spaces up to a multiple of 8. */
static ls_status encode_header(char **out, int64_t *bytes, const json_t *header)
{
    const size_t length = json_dumpb(header, NULL, 0, JSON_COMPACT);
    const size_t padded = (length + 7) / 8 * 8;
    const uint64_t prefix = htole64(padded);
    char *const text = malloc(LS_SAFETENSORS_PREFIX + padded);

    if (text == NULL) return ls_fail(LS_ENOMEM, "no memory for a header of %zu bytes", padded);
    memcpy(text, &prefix, sizeof prefix);
    memset(text + LS_SAFETENSORS_PREFIX, ' ', padded);
    json_dumpb(header, text + LS_SAFETENSORS_PREFIX, length, JSON_COMPACT);
    *out = text;
    *bytes = (int64_t)(LS_SAFETENSORS_PREFIX + padded);
    return LS_OK;
}

ls_status ls_safetensors_header(char **out, int64_t *header_bytes, int64_t *file_bytes,
                                struct ls_file_tensor *tensors, int count)
{
    json_t *const header = json_object();
    int64_t data_bytes = 0;
    ls_status status;

    if (header == NULL) return ls_fail(LS_ENOMEM, "no memory for a header");
    LS_TRY_GOTO(status, describe_tensors(header, &data_bytes, tensors, count), done);
    LS_TRY_GOTO(status, encode_header(out, header_bytes, header), done);
    if (__builtin_add_overflow(*header_bytes, data_bytes, file_bytes)) {
        free(*out);
        status = ls_fail(LS_ESHAPE, "%d tensors are too large for one file", count);
        goto done;
    }
    for (int i = 0; i < count; i++) tensors[i].offset += *header_bytes;
done:
    json_decref(header);
    return status;
}
