/* A .safetensors file is either understood completely or refused in one clear line. */
#include "tensor/safetensors.h"

#include <criterion/criterion.h>
#include <endian.h>

#include "files.h"

TestSuite(safetensors, .init = make_folder, .fini = remove_folder, .timeout = 20);

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* Puts a file's bytes into out; returns their number. */
static size_t build(char *out, const char *header, size_t data_bytes)
{
    const size_t length = strlen(header);
    const uint64_t prefix = htole64(length);

    memcpy(out, &prefix, sizeof prefix);
    memcpy(out + sizeof prefix, header, length);
    memset(out + sizeof prefix + length, 0x5a, data_bytes);
    return sizeof prefix + length + data_bytes;
}

static const struct ls_file_tensor samples[] = {
    TENSOR("scalar", LS_F64, 0, {0}),
    TENSOR("q", LS_BF16, 4, {2, 3, 1, 5}),
    TENSOR("", LS_F16, 1, {3}),
    TENSOR("nothing", LS_F32, 3, {2, 0, 3}),
    TENSOR("a \"quoted\" \\ name", LS_F32, 2, {3, 1}),
    TENSOR("gr\xc3\xb6\xc3\x9f"
           "e",
           LS_F16, 1, {1}),
    TENSOR("empty at the end", LS_BF16, 1, {0}),
};

#define SAMPLES ((int)LENGTH(samples))

Test(safetensors, header_describes_what_is_read_back)
{
    struct ls_file_tensor tensors[SAMPLES];
    int64_t header_bytes, file_bytes, next;
    struct ls_tensor_file *file;
    char *header;

    for (int count = 0; count <= SAMPLES; count++) {
        const char *const path = in_folder("a.safetensors");

        memcpy(tensors, samples, sizeof tensors);
        cr_assert_eq(ls_safetensors_header(&header, &header_bytes, &file_bytes, tensors, count),
                     LS_OK);
        cr_expect_eq(header_bytes % 8, 0);
        put_file(path, header, (size_t)header_bytes);
        cr_assert_eq(truncate(path, file_bytes), 0);
        free(header);
        cr_assert_eq(ls_tensor_file_open(&file, path), LS_OK, "%s", ls_message());
        cr_assert_eq(ls_tensor_file_count(file), count);
        next = header_bytes;
        for (int i = 0; i < count; i++) {
            const struct ls_file_tensor *const found = ls_tensor_file_find(file, samples[i].name);
            int64_t bytes;

            cr_assert_not_null(found, "%s", samples[i].name);
            cr_expect(ls_extent_bytes(&bytes, found));
            cr_expect_eq(found->type, samples[i].type, "%s", found->name);
            cr_expect_eq(found->ndim, samples[i].ndim, "%s", found->name);
            cr_expect_arr_eq(found->dim, samples[i].dim, sizeof found->dim, "%s", found->name);
            cr_expect_eq(found->bytes, bytes, "%s", found->name);
            cr_expect_eq(found->offset, next, "%s: not behind the one before", found->name);
            cr_expect_eq(found->offset, tensors[i].offset, "%s", found->name);
            next += bytes;
        }
        cr_expect_eq(next, file_bytes);
        cr_expect_null(ls_tensor_file_find(file, "none of them"));
        ls_tensor_file_close(file);
    }
}

Test(safetensors, refuses_to_describe_what_nobody_could_read)
{
    static const struct {
        struct ls_file_tensor tensors[2];
        ls_status status;
        const char *word;
    } cases[] = {
        {{TENSOR("a", LS_F32, 1, {1}), TENSOR("a", LS_F32, 1, {2})}, LS_EVALUE, "twice"},
        {{TENSOR("a", LS_F32, 1, {1}), TENSOR("__metadata__", LS_F32, 1, {2})},
         LS_EVALUE,
         "reserved"},
        {{TENSOR("a", LS_F32, 1, {1}), TENSOR("\xff", LS_F32, 1, {2})}, LS_EVALUE, "UTF-8"},
        {{TENSOR("a", LS_F32, 1, {1}), TENSOR("b", LS_F32, 1, {-2})}, LS_ESHAPE, "f32 [-2]"},
        {{TENSOR("a", LS_F32, 1, {1}), TENSOR("b", LS_F32, 1, {1LL << 61})},
         LS_ESHAPE,
         "too large"},
        {{TENSOR("a", LS_F32, 1, {1LL << 60}), TENSOR("b", LS_F32, 1, {1LL << 60})},
         LS_ESHAPE,
         "large"},
        {{TENSOR("a", LS_BF16, 1, {(1LL << 62) - 1}), TENSOR("b", LS_BF16, 1, {0})},
         LS_ESHAPE,
         "large"},
    };

    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct ls_file_tensor tensors[2];
        int64_t header_bytes, file_bytes;
        char *header;

        memcpy(tensors, cases[i].tensors, sizeof tensors);
        cr_expect_eq(ls_safetensors_header(&header, &header_bytes, &file_bytes, tensors, 2),
                     cases[i].status, "case %zu: %s", i, ls_message());
        cr_expect_not_null(strstr(ls_message(), cases[i].word), "%s", ls_message());
    }
}

#define Q(shape, offsets)                                                                          \
    "\"q\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

Test(safetensors, takes_everything_the_format_allows)
{
    static const struct {
        const char *header;
        size_t data_bytes;
        int count;
    } cases[] = {
        {"{}", 0, 0},
        {"{}      \n ", 0, 0},
        {"{" Q("[2]", "[0,8]") "}", 8, 1},
        {"{\"__metadata__\":{\"format\":\"pt\"}," Q("[2]", "[0,8]") "}", 8, 1},
        {"{" Q("[2]", "[0,8]") ",\"__metadata__\":{}}", 8, 1},
        {"{" Q("[2]", "[0,8]") ",\"__metadata__\":null}", 8, 1},
        {"{\"__metadata__\":{\"step\":12,\"shape\":[1,{}]}," Q("[2]", "[0,8]") "}", 8, 1},
        {"{" Q("[2]",
               "[0,8]") ",\"a name of sixty-four bytes, as those of nested modules are, .weight"
                        "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
         12, 2},
        {"{ \"q\" : {\"data_offsets\" : [0, 8], \"shape\" : [ ], \"dtype\" : \"F64\"} }", 8, 1},
        {"{" Q("[1]", "[4,8]") ",\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}",
         8, 2},
        {"{" Q("[1]", "[0,4]") ",\"a\":{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[0,0]}}",
         4, 2},
    };

    for (size_t i = 0; i < LENGTH(cases); i++) {
        const char *const path = in_folder("a.safetensors");
        struct ls_tensor_file *file;
        char bytes[512], data[9];

        put_file(path, bytes, build(bytes, cases[i].header, cases[i].data_bytes));
        cr_assert_eq(ls_tensor_file_open(&file, path), LS_OK, "%s", ls_message());
        cr_expect_eq(ls_tensor_file_count(file), cases[i].count, "%s", cases[i].header);
        for (int j = 1; j < cases[i].count; j++)
            cr_expect_leq(ls_tensor_file_at(file, j - 1)->offset,
                          ls_tensor_file_at(file, j)->offset);
        if (cases[i].count > 0) {
            cr_expect_eq(ls_tensor_file_read(data, file, ls_tensor_file_find(file, "q"), 0, 1),
                         LS_OK);
            cr_expect_arr_eq(data, "ZZZZ", 4);
        }
        ls_tensor_file_close(file);
    }
}

#define X(type, shape, offsets)                                                                    \
    "\"x\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

Test(safetensors, what_cannot_be_read_is_in_nobodys_way)
{
    static const struct {
        const char *header;
        const char *word; /* of the line for who asks for x */
    } cases[] = {
        {"{" Q("[2]", "[0,8]") "," X("I64", "[1]", "[8,16]") "}", "elements of type I64"},
        {"{" X("BOOL", "[8]", "[0,8]") "," Q("[2]", "[8,16]") "}", "elements of type BOOL"},
        {"{" Q("[2]", "[0,8]") "," X("F8_E5M2", "[2,4]", "[8,16]") "}", "F16, BF16, I8 or F8_E4M3"},
        {"{" Q("[2]", "[0,8]") "," X("F4", "[16]", "[8,16]") "}", "elements of type F4"},
        {"{" Q("[2]", "[0,8]") "," X("I16", "[4]", "[8,16]") "}", "tensor \"x\""},
        {"{" Q("[2]", "[0,8]") "," X("I16", "\"?\"", "[8,16]") "}", "elements of type I16"},
        {"{" Q("[2]", "[0,8]") "," X("\\n\\u001b", "[2]", "[8,16]") "}", "of type ??;"},
        {"{" Q("[2]", "[0,8]") "," X("F32", "[1,1,1,1,1,2]", "[8,16]") "}", "6 dimensions; "},
        {"{" Q("[2]", "[0,8]") "," X("F64", "[1,1,1,1,1,1]", "[8,16]") "}", "at most 5 dimensions"},
    };
    char bytes[512], data[8];

    for (size_t i = 0; i < LENGTH(cases); i++) {
        const char *const path = in_folder("a.safetensors"), *const word = cases[i].word;
        const struct ls_file_tensor *q, *x;
        struct ls_tensor_file *file;

        put_file(path, bytes, build(bytes, cases[i].header, 16));
        cr_assert_eq(ls_tensor_file_open(&file, path), LS_OK, "%s: %s", word, ls_message());
        cr_expect_eq(ls_tensor_file_count(file), 2, "%s", word);
        q = ls_tensor_file_find(file, "q");
        cr_expect_eq(ls_tensor_file_check(file, q), LS_OK, "%s", word);
        cr_expect_eq(ls_tensor_file_read(data, file, q, 0, 2), LS_OK, "%s", word);
        cr_expect_arr_eq(data, "ZZZZZZZZ", 8, "%s", word);
        x = ls_tensor_file_find(file, "x");
        cr_expect_eq(ls_tensor_file_check(file, x), LS_ETYPE, "%s", word);
        cr_expect_not_null(strstr(ls_message(), path), "%s", ls_message());
        cr_expect_not_null(strstr(ls_message(), word), "no \"%s\" in: %s", word, ls_message());
        ls_tensor_file_close(file);
    }
}

/* Whole numbers are no elements, and are read as lists and tables. */
Test(safetensors, whole_numbers_are_read_by_themselves)
{
    static const char *const header =
        "{\"wide\":{\"dtype\":\"I64\",\"shape\":[2,1],\"data_offsets\":[0,16]},"
        "\"narrow\":{\"dtype\":\"I32\",\"shape\":[3],\"data_offsets\":[16,28]},"
        "\"short\":{\"dtype\":\"I64\",\"shape\":[3],\"data_offsets\":[28,44]},"
        "\"below 0\":{\"dtype\":\"I64\",\"shape\":[-2],\"data_offsets\":[44,60]},"
        "\"huge\":{\"dtype\":\"I64\",\"shape\":[4294967296,4294967296],\"data_offsets\":[60,60]},"
        "\"bytes\":{\"dtype\":\"I16\",\"shape\":[2],\"data_offsets\":[60,64]},"
        "\"numbers\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[64,68]},"
        "\"deep\":{\"dtype\":\"I32\",\"shape\":[1,1,1],\"data_offsets\":[68,72]}}";
    static const struct {
        const char *name;
        ls_status status;
    } cases[] = {{"wide", LS_OK},       {"narrow", LS_OK},    {"short", LS_ETYPE},
                 {"below 0", LS_ETYPE}, {"huge", LS_ETYPE},   {"bytes", LS_ETYPE},
                 {"numbers", LS_ETYPE}, {"deep", LS_EFORMAT}, {"none", LS_EVALUE}};
    const char *const path = in_folder("a.safetensors");
    struct ls_tensor_file *file;
    char bytes[1024];

    put_file(path, bytes, build(bytes, header, 72));
    cr_assert_eq(ls_tensor_file_open(&file, path), LS_OK, "%s", ls_message());
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct ls_integers got;

        cr_assert_eq(ls_tensor_file_integers(&got, file, cases[i].name), cases[i].status, "%s: %s",
                     cases[i].name, ls_message());
        if (cases[i].status != LS_OK) continue;
        cr_expect_eq(got.rows, i == 0 ? 2 : 1);
        cr_expect_eq(got.columns, i == 0 ? 1 : 3);
        for (int64_t j = 0; j < got.rows * got.columns; j++)
            cr_expect_eq(got.number[j], i == 0 ? 0x5a5a5a5a5a5a5a5a : 0x5a5a5a5a);
        free(got.number);
    }
    ls_tensor_file_close(file);
}

Test(safetensors, refuses_what_it_cannot_mean)
{
    static const struct {
        const char *what, *header;
        size_t data_bytes;
        ls_status status;
        const char *word;
    } cases[] = {
        {"past the end", "{" Q("[2]", "[0,8]") "}", 7, LS_EFORMAT, "[0, 8] reach past the 7 bytes"},
        {"far past the end", "{" Q("[2]", "[9223372036854775799,9223372036854775807]") "}", 8,
         LS_EFORMAT, "reach past"},
        {"over 2^63", "{" Q("[2]", "[0,9223372036854775808]") "}", 8, LS_EFORMAT, "too big"},
        {"negative begin", "{" Q("[2]", "[-8,0]") "}", 8, LS_EFORMAT, "out of order"},
        {"swapped", "{" Q("[2]", "[8,0]") "}", 8, LS_EFORMAT, "out of order"},
        {"fractions", "{" Q("[2]", "[0.0,8.0]") "}", 8, LS_EFORMAT, "two integers"},
        {"one offset", "{" Q("[2]", "[8]") "}", 8, LS_EFORMAT, "two integers"},
        {"three offsets", "{" Q("[2]", "[0,8,8]") "}", 8, LS_EFORMAT, "two integers"},
        {"no offsets", "{\"q\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, LS_EFORMAT, "data_offsets"},
        {"too little for the shape", "{" Q("[3]", "[0,8]") "}", 8, LS_EFORMAT,
         "f32 [3] needs 12 bytes, data_offsets [0, 8] give 8"},
        {"too much for the shape", "{" Q("[1]", "[0,8]") "}", 8, LS_EFORMAT, "needs 4 bytes"},
        {"trailing", "{" Q("[2]", "[0,8]") "}", 9, LS_EFORMAT, "1 trailing bytes"},
        {"data of nobody", "{}", 1, LS_EFORMAT, "trailing"},
        {"hole at the start", "{" Q("[1]", "[4,8]") "}", 8, LS_EFORMAT, "hole"},
        {"hole",
         "{" Q("[1]", "[0,4]") ",\"r\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
         12, LS_EFORMAT, "\"r\" begins at byte 8 of the data, after a hole from byte 4"},
        {"overlap",
         "{" Q("[2]", "[0,8]") ",\"r\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, LS_EFORMAT, "overlaps"},
        {"the same twice",
         "{" Q("[2]", "[0,8]") ",\"r\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         8, LS_EFORMAT, "overlaps"},
        {"empty inside another",
         "{" Q("[2]", "[0,8]") ",\"r\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]}}",
         8, LS_EFORMAT, "overlaps"},
        {"duplicate", "{" Q("[2]", "[0,8]") "," Q("[2]", "[8,16]") "}", 16, LS_EFORMAT,
         "duplicate"},
        {"duplicate inside", "{\"q\":{\"dtype\":\"F32\",\"dtype\":\"F16\"}}", 8, LS_EFORMAT,
         "duplicate"},
        {"I64 past the end", "{" X("I64", "[1]", "[0,8]") "}", 7, LS_EFORMAT,
         "\"x\": data_offsets [0, 8] reach past the 7 bytes"},
        {"I64 swapped", "{" X("I64", "[1]", "[8,0]") "}", 8, LS_EFORMAT, "out of order"},
        {"I64 over another", "{" Q("[2]", "[0,8]") "," X("I64", "[1]", "[4,12]") "}", 12,
         LS_EFORMAT, "overlaps"},
        {"I64 after a hole", "{" Q("[2]", "[0,8]") "," X("I64", "[1]", "[12,20]") "}", 20,
         LS_EFORMAT, "\"x\" begins at byte 12 of the data, after a hole"},
        {"I64 before trailing bytes", "{" X("I64", "[1]", "[0,8]") "}", 9, LS_EFORMAT,
         "1 trailing bytes"},
        {"I64 without offsets", "{\"x\":{\"dtype\":\"I64\",\"shape\":[1]}}", 8, LS_EFORMAT,
         "data_offsets"},
        {"type is a number", "{\"q\":{\"dtype\":4,\"shape\":[8],\"data_offsets\":[0,8]}}", 8,
         LS_EFORMAT, "no dtype"},
        {"2^62", "{" Q("[4611686018427387904]", "[0,8]") "}", 8, LS_EFORMAT, "4611686018427387904"},
        {"product 2^64", "{" Q("[4294967296,4294967296]", "[0,0]") "}", 0, LS_EFORMAT, "2^63"},
        {"huge but empty", "{" Q("[0,4611686018427387904,4]", "[0,0]") "}", 0, LS_EFORMAT, "2^63"},
        {"negative", "{" Q("[-2]", "[0,8]") "}", 8, LS_EFORMAT, "f32 [-2]"},
        {"two negatives", "{" Q("[-2,-1]", "[0,8]") "}", 8, LS_EFORMAT, "f32 [-2, -1]"},
        {"fraction", "{" Q("[2.0]", "[0,8]") "}", 8, LS_EFORMAT, "dimension 0"},
        {"shape is no array", "{" Q("2", "[0,8]") "}", 8, LS_EFORMAT, "no shape"},
        {"entry is no object", "{\"q\":[0,8]}", 8, LS_EFORMAT, "not an object"},
        {"long name", "{\"a23456789 123456789 123456789 123456789 123456789 123456789 1234\":{}}",
         0, LS_EFORMAT, "a23456789 123456789 123456789 123456789 123456789 123456789 ...\": "},
        {"not JSON", "{\"q\":}", 8, LS_EFORMAT, "byte 1"},
        {"cut JSON", "{\"q\":{\"dtype\"", 0, LS_EFORMAT, "end of file"},
        {"two objects", "{}{}", 0, LS_EFORMAT, "end of file"},
        {"not UTF-8", "{\"\xff\":{}}", 0, LS_EFORMAT, "decode byte 0xff"},
        {"a null byte in the name", "{\"a\\u0000b\":{}}", 0, LS_EFORMAT, "u0000"},
    };
    char bytes[1024];

    for (size_t i = 0; i < LENGTH(cases); i++) {
        const char *const path = in_folder("bad.safetensors");

        put_file(path, bytes, build(bytes, cases[i].header, cases[i].data_bytes));
        expect_refused(path, cases[i].status, cases[i].word, cases[i].what);
    }
}

Test(safetensors, refuses_a_header_longer_than_the_file)
{
    static const uint64_t lengths[] = {17,        1000,       1ULL << 32, 1ULL << 62,
                                       INT64_MAX, 1ULL << 63, UINT64_MAX};
    char bytes[64];

    for (size_t i = 0; i < LENGTH(lengths); i++) {
        const uint64_t prefix = htole64(lengths[i]);
        char word[64];

        const size_t n = build(bytes, "{              }", 0);
        memcpy(bytes, &prefix, sizeof prefix);
        put_file(in_folder("a.safetensors"), bytes, n);
        snprintf(word, sizeof word, "header of %llu bytes in a file of 24",
                 (unsigned long long)lengths[i]);
        expect_refused(in_folder("a.safetensors"), LS_EFORMAT, word, word);
    }
}

Test(safetensors, refuses_a_header_over_the_limit_of_the_format)
{
    const char *const path = in_folder("a.safetensors");
    char bytes[16];

    const size_t n = build(bytes, "{}", 0);
    const uint64_t prefix = htole64(100000001);
    memcpy(bytes, &prefix, sizeof prefix);
    put_file(path, bytes, n);
    cr_assert_eq(truncate(path, 200000000), 0);
    expect_refused(path, LS_EFORMAT, "100000000", "a sparse header");
}

Test(safetensors, survives_deep_nesting)
{
    static const char *const opening[] = {"[", "{\"a\":"};
    const size_t depth = 100000;

    for (size_t i = 0; i < LENGTH(opening); i++) {
        const size_t n = strlen(opening[i]);
        char *const header = malloc(depth * n + 16), *const bytes = malloc(depth * n + 32);
        char *at = header + sprintf(header, "{\"q\":");

        for (size_t j = 0; j < depth; j++, at += n) memcpy(at, opening[i], n);
        *at = '\0';
        put_file(in_folder("a.safetensors"), bytes, build(bytes, header, 0));
        expect_refused(in_folder("a.safetensors"), LS_EFORMAT, "depth", opening[i]);
        free(bytes);
        free(header);
    }
}

Test(safetensors, what_fuzzing_starts_from)
{
    expect_corpus("safetensors", find_harm);
}

Test(safetensors, length_matters_and_damage_is_harmless)
{
    const char *const path = in_folder("a.safetensors");
    char bytes[256];
    const size_t n = build(
        bytes,
        "{\"__metadata__\":{\"a\":\"b\"}," Q(
            "[2]", "[0,8]") ",\"r\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]}}",
        20);

    expect_length_matters(path, bytes, n);
    expect_mutants_harmless(path, bytes, n, n - 20);
}
