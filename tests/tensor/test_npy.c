/* A .npy file is either read exactly or refused in one clear line. */
#include <criterion/criterion.h>
#include <sys/stat.h>

#include "files.h"

TestSuite(npy, .init = make_folder, .fini = remove_folder, .timeout = 20);

/* Puts a .npy file's bytes into out; returns their number. */
static size_t build(char *out, int major, int minor, const char *header, const void *data,
                    size_t data_bytes)
{
    const size_t length = strlen(header), field = major == 1 ? 2 : 4;

    memcpy(out, "\x93NUMPY", 6);
    out[6] = (char)major;
    out[7] = (char)minor;
    for (size_t i = 0; i < field; i++) out[8 + i] = (char)(length >> (8 * i));
    memcpy(out + 8 + field, header, length);
    memcpy(out + 8 + field + length, data, data_bytes);
    return 8 + field + length + data_bytes;
}

static const struct {
    const char *descr;
    ls_dtype type;
} types[] = {{"<f2", LS_F16}, {"<f4", LS_F32}, {"<f8", LS_F64}, {"<V2", LS_BF16}, {"|V2", LS_BF16}};

static const struct {
    const char *text;
    int ndim;
    int64_t dim[LS_FILE_DIMS];
    int64_t n;
} shapes[] = {
    {"()", 0, {0}, 1},
    {"(5,)", 1, {5}, 5},
    {"(2, 3)", 2, {2, 3}, 6},
    {"(0, 3)", 2, {0, 3}, 0},
    {"(3,0,2)", 3, {3, 0, 2}, 0},
    {"(2, 1, 3, 2)", 4, {2, 1, 3, 2}, 12},
    {"(1, 2, 1, 3, 2)", 5, {1, 2, 1, 3, 2}, 12},
};

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static void expect_read_back(const char *path, size_t type, size_t shape, const char *data)
{
    struct ls_tensor_file *file;
    const int64_t n = shapes[shape].n, size = ls_dtype_size(types[type].type);
    char got[96 + 1];

    cr_assert_eq(ls_tensor_file_open(&file, path), LS_OK, "%s %s: %s", types[type].descr,
                 shapes[shape].text, ls_message());
    cr_expect_eq(ls_tensor_file_count(file), 1);
    cr_expect_str_eq(ls_tensor_file_path(file), path);
    const struct ls_file_tensor *const tensor = ls_tensor_file_find(file, "");
    cr_assert_eq(tensor, ls_tensor_file_at(file, 0));
    cr_expect_eq(tensor->type, types[type].type);
    cr_expect_eq(tensor->ndim, shapes[shape].ndim);
    cr_expect_arr_eq(tensor->dim, shapes[shape].dim, sizeof tensor->dim);
    cr_expect_eq(ls_tensor_file_read(got, file, tensor, 0, n), LS_OK);
    cr_expect_arr_eq(got, data, (size_t)(n * size), "%s %s", types[type].descr, shapes[shape].text);
    if (n > 2) {
        cr_expect_eq(ls_tensor_file_read(got, file, tensor, 1, n - 2), LS_OK);
        cr_expect_arr_eq(got, data + size, (size_t)((n - 2) * size), "the inner elements");
    }
    ls_tensor_file_close(file);
}

Test(npy, reads_every_version_type_and_shape)
{
    char data[96], header[128], bytes[512];

    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(37 * i + 1);
    for (int version = 1; version <= 3; version++)
        for (size_t t = 0; t < LENGTH(types); t++)
            for (size_t s = 0; s < LENGTH(shapes); s++) {
                const char *const path = in_folder("a.npy");
                const size_t data_bytes = (size_t)(shapes[s].n * ls_dtype_size(types[t].type));

                snprintf(header, sizeof header,
                         "{'descr': '%s', 'fortran_order': False, 'shape': %s, }   \n",
                         types[t].descr, shapes[s].text);
                put_file(path, bytes, build(bytes, version, 0, header, data, data_bytes));
                expect_read_back(path, t, s, data);
            }
}

Test(npy, takes_any_spelling_of_the_header)
{
    static const char *const headers[] = {
        "{'shape':(2,3),'fortran_order':False,'descr':'<f4'}",
        "{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (2, 3)}",
        " { 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 2 , 3 , ) , } \n",
        /* 123 bytes, so that the ninth byte of the file is '{' */
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
         "                                                               \n"),
    };
    char data[24] = "ABCDEFGHIJKLMNOPQRSTUVW", bytes[512];

    for (size_t i = 0; i < LENGTH(headers); i++) {
        const char *const path = in_folder("a.npy");

        put_file(path, bytes, build(bytes, 1, 0, headers[i], data, sizeof data));
        expect_read_back(path, 1, 2, data);
    }
}

#define HEADER(descr, order, shape)                                                                \
    "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }\n"

Test(npy, refuses_what_it_cannot_mean)
{
    static const struct {
        const char *what;
        int major, minor;
        const char *header;
        size_t data_bytes;
        ls_status status;
        const char *word;
    } cases[] = {
        {"big-endian", 1, 0, HEADER("'>f4'", "False", "(4,)"), 16, LS_ETYPE, "astype('<f4')"},
        {"objects", 1, 0, HEADER("'|O'", "False", "(2,)"), 16, LS_ETYPE, "pickled"},
        {"small integers", 1, 0, HEADER("'<i2'", "False", "(8,)"), 16, LS_ETYPE, "'<i2'"},
        {"void", 1, 0, HEADER("'|V4'", "False", "(4,)"), 16, LS_ETYPE, "'|V4'"},
        {"one byte", 1, 0, HEADER("'<V1'", "False", "(16,)"), 16, LS_ETYPE, "8 bits"},
        {"E5M2", 1, 0, HEADER("'<f1'", "False", "(16,)"), 16, LS_ETYPE, "8 bits"},
        {"another order", 1, 0, HEADER("'>V2'", "False", "(8,)"), 16, LS_ETYPE, "big-endian"},
        {"no type", 1, 0, HEADER("''", "False", "(4,)"), 16, LS_ETYPE, "''"},
        {"control bytes", 1, 0, HEADER("'\n\x1b'", "False", "(4,)"), 16, LS_ETYPE, "'?"},
        {"records", 1, 0, HEADER("[('a', '<f4')]", "False", "(4,)"), 16, LS_EFORMAT, "records"},
        {"Fortran order", 1, 0, HEADER("'<f4'", "True", "(2, 2)"), 16, LS_EFORMAT,
         "ascontiguousarray"},
        {"order is no flag", 1, 0, HEADER("'<f4'", "0", "(4,)"), 16, LS_EFORMAT, "True or False"},
        {"short data", 2, 0, HEADER("'<f4'", "False", "(5,)"), 16, LS_EFORMAT,
         "f32 [5] needs 20 bytes, 16 are there"},
        {"long data", 3, 0, HEADER("'<f4'", "False", "(3,)"), 16, LS_EFORMAT, "4 trailing bytes"},
        {"data of an empty array", 1, 0, HEADER("'<f4'", "False", "(0,)"), 1, LS_EFORMAT,
         "trailing"},
        {"negative", 1, 0, HEADER("'<f4'", "False", "(-4,)"), 16, LS_EFORMAT, "f32 [-4]"},
        {"2^62", 1, 0, HEADER("'<f4'", "False", "(4611686018427387904,)"), 16, LS_EFORMAT,
         "4611686018427387904"},
        {"product 2^64", 1, 0, HEADER("'<f8'", "False", "(2147483648, 1073741824)"), 16, LS_EFORMAT,
         "2^63"},
        {"huge but empty", 1, 0, HEADER("'<f4'", "False", "(0, 4611686018427387904, 4)"), 0,
         LS_EFORMAT, "2^63"},
        {"over 2^63", 1, 0, HEADER("'<f4'", "False", "(99999999999999999999,)"), 16, LS_EFORMAT,
         "under 2^63"},
        {"6 dimensions", 1, 0, HEADER("'<f4'", "False", "(1, 1, 2, 2, 1, 1)"), 16, LS_EFORMAT,
         "at most 5"},
        {"no shape", 1, 0, "{'descr': '<f4', 'fortran_order': False}", 16, LS_EFORMAT, "all of"},
        {"shape twice", 1, 0,
         "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'shape': (4,)}", 16, LS_EFORMAT,
         "once"},
        {"unknown key", 1, 0, "{'descr': '<f4', 'order': False, 'shape': (4,)}", 16, LS_EFORMAT,
         "no key but"},
        {"no separator", 1, 0, "{'descr': '<f4' 'fortran_order': False, 'shape': (4,)}", 16,
         LS_EFORMAT, "',' or '}'"},
        {"words for numbers", 1, 0, HEADER("'<f4'", "False", "(four,)"), 16, LS_EFORMAT, "four"},
        {"open string", 1, 0, "{'descr", 16, LS_EFORMAT, "quoted key"},
        {"text behind", 1, 0, HEADER("'<f4'", "False", "(4,)") "x", 16, LS_EFORMAT,
         "nothing after"},
        {"empty header", 1, 0, "", 16, LS_EFORMAT, "'{'"},
        {"version 0", 0, 0, HEADER("'<f4'", "False", "(4,)"), 16, LS_EFORMAT, "0.0"},
        {"version 1.1", 1, 1, HEADER("'<f4'", "False", "(4,)"), 16, LS_EFORMAT, "1.1"},
        {"version 4", 4, 0, HEADER("'<f4'", "False", "(4,)"), 16, LS_EFORMAT, "4.0"},
    };
    static const char data[16];
    char bytes[512];

    for (size_t i = 0; i < LENGTH(cases); i++) {
        const char *const path = in_folder("bad.npy");

        put_file(path, bytes,
                 build(bytes, cases[i].major, cases[i].minor, cases[i].header, data,
                       cases[i].data_bytes));
        expect_refused(path, cases[i].status, cases[i].word, cases[i].what);
    }
}

Test(npy, refuses_a_huge_header)
{
    char *const header = malloc(100001), *const bytes = malloc(100100);

    memset(header, ' ', 100000);
    header[100000] = '\0';
    put_file(in_folder("a.npy"), bytes, build(bytes, 2, 0, header, "", 0));
    expect_refused(in_folder("a.npy"), LS_EFORMAT, "100000", "header of 100000 spaces");
    free(bytes);
    free(header);
}

Test(npy, length_matters_and_damage_is_harmless)
{
    const char *const header = HEADER("'<f4'", "False", "(2, 3)");
    static const char data[24];
    char bytes[512];

    for (int version = 1; version <= 3; version++) {
        const char *const path = in_folder("a.npy");
        const size_t n = build(bytes, version, 0, header, data, sizeof data);

        expect_length_matters(path, bytes, n);
        expect_mutants_harmless(path, bytes, n, n - sizeof data);
    }
}

Test(npy, refuses_what_is_no_file_of_tensors)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *word;
    } cases[] = {
        {"PK\003\004 and more of it", 18, ".npz"},
        {"\x80\x04\x95 a pickle", 12, "pickle"},
        {"GGUF\003\0\0\0 a model", 16, "GGUF"},
        {"\x93NUMPX\001\0v\0{'descr'", 18, "unknown format"},
        {"# a text of some length", 23, "neither .npy nor .safetensors"},
    };

    for (size_t i = 0; i < LENGTH(cases); i++) {
        put_file(in_folder("a.npy"), cases[i].bytes, cases[i].n);
        expect_refused(in_folder("a.npy"), LS_EFORMAT, cases[i].word, cases[i].word);
    }
    expect_refused(in_folder("missing.npy"), LS_EFILE, "No such file", "missing");
    expect_refused(folder, LS_EFILE, "folder", "a folder");
    expect_refused("/dev/null", LS_EFILE, "device", "a device");
    cr_assert_eq(mkfifo(in_folder("pipe"), 0600), 0);
    expect_refused(in_folder("pipe"), LS_EFILE, "pipe", "a pipe without a writer");
}

Test(npy, reads_behind_4_gib)
{
    const char *const path = in_folder("sparse.npy"), *const header = HEADER("'<f8'", "False",
                                                                             "(3, 300000000)");
    const int64_t n = 900000000;
    struct ls_tensor_file *file;
    const double last = 1.25;
    double got[2] = {1, 1};
    char bytes[512];
    const size_t start = build(bytes, 1, 0, header, "", 0);

    put_file(path, bytes, start);
    const int fd = open(path, O_WRONLY);
    cr_assert_eq(pwrite(fd, &last, sizeof last, (off_t)start + 8 * (n - 1)), sizeof last);
    close(fd);
    cr_assert_eq(ls_tensor_file_open(&file, path), LS_OK, "%s", ls_message());
    cr_expect_eq(ls_tensor_file_read(got, file, ls_tensor_file_at(file, 0), n - 2, 2), LS_OK);
    cr_expect(got[0] == 0 && got[1] == last);
    ls_tensor_file_close(file);
}

/* Behind a page, and where no float stands in memory. */
Test(npy, is_mapped_where_its_elements_may_lie)
{
    static char bytes[20000];
    static const double data[] = {1, -2, 0.5, 3, 7};
    bool was_mapped = false, was_not = false;

    for (int spaces = 5000; spaces < 5000 + 8; spaces++) {
        const char *const path = in_folder("a.npy");
        struct ls_tensor_file *file;
        struct ls_mapping mapping = {.data = NULL};
        char header[6000];

        snprintf(header, sizeof header,
                 "{'descr': '<f8', 'fortran_order': False, 'shape': (5,)%*s}", spaces, "");
        put_file(path, bytes, build(bytes, 1, 0, header, data, sizeof data));
        cr_assert_eq(ls_tensor_file_open(&file, path), LS_OK, "%s", ls_message());
        const struct ls_file_tensor *tensor = ls_tensor_file_at(file, 0);
        const bool mapped = ls_tensor_file_map(&mapping, file, tensor);

        cr_expect_eq(mapped, tensor->offset % 8 == 0, "offset %ld", (long)tensor->offset);
        ls_tensor_file_close(file); /* which a mapping outlives */
        if (mapped) cr_expect_arr_eq(mapping.data, data, sizeof data);
        ls_mapping_end(&mapping);
        was_mapped |= mapped;
        was_not |= !mapped;
    }
    cr_expect(was_mapped && was_not);
}

Test(npy, a_file_that_shrinks_is_an_error)
{
    const char *const path = in_folder("a.npy");
    static const char data[16];
    struct ls_tensor_file *file;
    char bytes[512], got[16];
    const size_t n = build(bytes, 1, 0, HEADER("'<f4'", "False", "(4,)"), data, sizeof data);

    put_file(path, bytes, n);
    cr_assert_eq(ls_tensor_file_open(&file, path), LS_OK);
    cr_assert_eq(truncate(path, (off_t)n - 1), 0);
    cr_expect_eq(ls_tensor_file_read(got, file, ls_tensor_file_at(file, 0), 0, 4), LS_EIO);
    cr_expect_not_null(strstr(ls_message(), path), "%s", ls_message());
    ls_tensor_file_close(file);
}

static void check_integers(const char *descr, const char *shape, const void *data, size_t bytes,
                           int64_t rows, int64_t columns)
{
    static const int64_t wanted[] = {0, -1, INT32_MAX, 7};
    const char *const path = in_folder("a.npy");
    struct ls_integers got;
    char header[128], file[512];

    snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n",
             descr, shape);
    put_file(path, file, build(file, 1, 0, header, data, bytes));
    cr_assert_eq(ls_integers_load(&got, path), LS_OK, "%s", ls_message());
    cr_assert_eq(got.rows, rows, "%s", shape);
    cr_assert_eq(got.columns, columns, "%s", shape);
    cr_expect_arr_eq(got.number, wanted, (size_t)(rows * columns) * sizeof *wanted);
    free(got.number);
}

Test(npy, whole_numbers_are_read_as_they_are)
{
    static const int64_t wide[] = {0, -1, INT32_MAX, 7};
    static const int32_t narrow[] = {0, -1, INT32_MAX, 7};

    check_integers("<i8", "(3,)", wide, 24, 1, 3);
    check_integers("<i8", "(2, 2)", wide, 32, 2, 2);
    check_integers("<i4", "(4,)", narrow, 16, 1, 4);
    check_integers("<i4", "(1, 3)", narrow, 12, 1, 3);
    check_integers("<i8", "(0,)", wide, 0, 1, 0);
    check_integers("<i8", "(0, 5)", wide, 0, 0, 5);
}

Test(npy, what_is_no_list_of_whole_numbers_is_refused)
{
    static const struct {
        const char *header, *says;
        size_t bytes;
        ls_status status;
    } bad[] = {
        {HEADER("'<i2'", "False", "(3,)"), "'<i2'", 6, LS_ETYPE},
        {HEADER("'<u4'", "False", "(3,)"), "'<u4'", 12, LS_ETYPE},
        {HEADER("'<f8'", "False", "(3,)"), "f64 [3]", 24, LS_ETYPE},
        {HEADER("'|b1'", "False", "(3,)"), "bool [3]", 3, LS_ETYPE},
        {HEADER("'|u1'", "False", "(3,)"), "uint8 [3]", 3, LS_ETYPE},
        {HEADER("'>i8'", "False", "(3,)"), "'>i8'", 24, LS_ETYPE},
        {HEADER("'<i8'", "False", "(3, 1, 1)"), "int64 [3, 1, 1]", 24, LS_EFORMAT},
        {HEADER("'<i8'", "False", "()"), "int64 []", 8, LS_EFORMAT},
        {HEADER("'<i8'", "False", "(3,)"), "int64 [3] needs 24", 23, LS_EFORMAT},
        {HEADER("'<i8'", "False", "(3,)"), "24 of int64 [3]", 32, LS_EFORMAT},
        {HEADER("'<i4'", "False", "(3,)"), "12 of int32 [3]", 24, LS_EFORMAT},
        {HEADER("'<i8'", "False", "(2, 2)"), "int64 [2, 2] needs 32", 24, LS_EFORMAT},
        {HEADER("'<i8'", "False", "(0, 2)"), "0 of int64 [0, 2]", 16, LS_EFORMAT},
        {HEADER("'<i8'", "False", "(-3,)"), "int64 [-3] is no", 24, LS_EFORMAT},
        {HEADER("'<i8'", "False", "(2305843009213693955,)"), "230584300", 24, LS_EFORMAT},
        {HEADER("'<i8'", "False", "(4294967296, 4294967296)"), "429496", 24, LS_EFORMAT},
        {HEADER("'<i8'", "True", "(2, 2)"), "Fortran", 32, LS_EFORMAT},
    };
    static const char data[32];
    const char *const path = in_folder("a.npy");
    struct ls_integers got;
    char bytes[512];

    for (size_t i = 0; i < LENGTH(bad); i++) {
        put_file(path, bytes, build(bytes, 1, 0, bad[i].header, data, bad[i].bytes));
        cr_expect_eq(ls_integers_load(&got, path), bad[i].status, "%s", bad[i].header);
        cr_expect_not_null(strstr(ls_message(), bad[i].says), "%s", ls_message());
    }
    put_file(path, "\x93NUM", 4);
    cr_expect_eq(ls_integers_load(&got, path), LS_EFORMAT);
}

/* They are known for what they are, and foreign where a tensor is asked for. */
Test(npy, whole_numbers_are_no_tensor)
{
    static const char data[16];
    static const struct {
        const char *header, *text;
        int bytes;
        bool truth;
    } cases[] = {
        {HEADER("'<i8'", "False", "(2, 1)"), "int64 [2, 1]", 8, false},
        {HEADER("'<i4'", "False", "(4,)"), "int32 [4]", 4, false},
        {HEADER("'|u1'", "False", "(2, 8)"), "uint8 [2, 8]", 1, false},
        {HEADER("'|b1'", "False", "(16,)"), "bool [16]", 1, true},
    };
    const char *const path = in_folder("a.npy");
    char bytes[512], text[LS_EXTENT_TEXT];

    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct ls_tensor_file *file;

        put_file(path, bytes, build(bytes, 1, 0, cases[i].header, data, 16));
        cr_assert_eq(ls_tensor_file_open(&file, path), LS_OK, "%s", ls_message());
        const struct ls_file_tensor *t = ls_tensor_file_at(file, 0);
        cr_expect_eq(t->integer, cases[i].bytes);
        cr_expect_eq(t->truth, cases[i].truth);
        cr_expect_str_eq(ls_extent_text(text, t), cases[i].text);
        cr_expect_eq(ls_tensor_file_check(file, t), LS_ETYPE);
        cr_expect_not_null(strstr(ls_message(), "elements of type '"), "%s", ls_message());
        ls_tensor_file_close(file);
    }
}

Test(npy, what_fuzzing_starts_from)
{
    expect_corpus("npy", find_harm);
    expect_corpus("npy", find_harm_in_integers);
}
