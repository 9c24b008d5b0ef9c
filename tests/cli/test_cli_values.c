#include "cli/values.h"

#include <criterion/criterion.h>
#include <string.h>

Test(cli_values, a_whole_number_is_all_of_the_text_and_in_range)
{
    static const struct {
        const char *text;
        bool good;
    } cases[] = {
        {"1", true},   {"10", true},
        {"007", true}, {"0", false},
        {"11", false}, {"", false},
        {" 1", false}, {"+1", false},
        {"1 ", false}, {"1.0", false},
        {"x7", false}, {"7x", false},
        {"-1", false}, {"99999999999999999999", false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t value = -5;
        const ls_status status = cli_value_integer(&value, "--n", cases[i].text, 1, 10);

        cr_expect_eq(status == LS_OK, cases[i].good, "'%s'", cases[i].text);
        if (cases[i].good)
            cr_expect_eq(value, atoi(cases[i].text), "'%s'", cases[i].text);
        else
            cr_expect(strstr(ls_message(), "--n"), "'%s': %s", cases[i].text, ls_message());
    }
}

Test(cli_values, bytes_may_have_a_unit)
{
    static const struct {
        const char *text;
        int64_t bytes; /* -1: an error */
    } cases[] = {
        {"8", 8},          {"64K", 65536},      {"3M", 3 << 20},  {"1G", 1 << 30},
        {"2G", -1},        {"7", -1},           {"", -1},         {"K", -1},
        {"-1K", -1},       {"1k", -1},          {"1T", -1},       {"1KB", 1000},
        {"3MiB", 3 << 20}, {"1GB", 1000000000}, {"2MB", 2000000}, {"1Ki", -1},
        {"1KBB", -1},      {"1kB", -1},         {"1TB", -1},      {"9B", 9},
        {"1iB", -1},       {"1 K", -1},         {"1.5M", -1},     {"9223372036854775807G", -1},
        {"0K", -1},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t value = -1;
        const ls_status status = cli_value_bytes(&value, "--n", cases[i].text, 8, 1 << 30);

        cr_expect_eq(status == LS_OK, cases[i].bytes >= 0, "'%s'", cases[i].text);
        if (cases[i].bytes >= 0)
            cr_expect_eq(value, cases[i].bytes, "'%s'", cases[i].text);
        else
            cr_expect(strstr(ls_message(), "--n"), "'%s': %s", cases[i].text, ls_message());
    }
}

Test(cli_values, a_float_is_finite)
{
    static const char *const bad[] = {"", "x", "1x", "nan", "inf", "-inf", "1e300", "0.5 "};
    float value;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(cli_value_float(&value, "--x", bad[i]), LS_EVALUE, "'%s'", bad[i]);
    cr_assert_eq(cli_value_float(&value, "--x", "-2.5e-1"), LS_OK);
    cr_expect_eq(value, -0.25F);
    cr_expect_eq(cli_value_float(&value, "--x", "0"), LS_OK, "zero is a number");
}

Test(cli_values, a_list_has_as_many_numbers_as_asked_for)
{
    static const struct {
        const char *text;
        int count; /* 0: an error */
    } cases[] = {
        {"1,2", 2},  {"1,2,3", 3}, {"1", 0},    {"1,2,3,4", 0}, {"", 0},
        {"1,,2", 0}, {"1,2,", 0},  {",1,2", 0}, {"1;2", 0},     {"1,101", 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t values[4] = {-1, -1, -1, -1};
        int count = 0;
        const ls_status status = cli_value_list(values, &count, "--l", cases[i].text, 2, 3, 0, 100);

        cr_expect_eq(status == LS_OK, cases[i].count > 0, "'%s'", cases[i].text);
        cr_expect_eq(count, cases[i].count, "'%s'", cases[i].text);
        cr_expect_eq(values[3], -1, "'%s': written past its room", cases[i].text);
    }
}

Test(cli_values, a_wrong_name_is_answered_with_the_nearest_or_with_all)
{
    static const char *const names[] = {"contiguous", "zigzag", "striped"};
    int i = -1;
    ls_dtype type;

    cr_assert_eq(cli_value_name(&i, "--layout", "zigzag", names, 3), LS_OK);
    cr_expect_eq(i, 1);
    cr_assert_eq(cli_value_name(&i, "--layout", "zigzug", names, 3), LS_EVALUE);
    cr_expect(strstr(ls_message(), "'zigzag'"), "%s", ls_message());
    cr_assert_eq(cli_value_name(&i, "--layout", "round", names, 3), LS_EVALUE);
    cr_expect(strstr(ls_message(), "contiguous, zigzag, striped"), "%s", ls_message());
    cr_assert_eq(cli_value_dtype(&type, "--dtype", "f16"), LS_OK);
    cr_expect_eq(type, LS_F16);
    cr_expect_eq(cli_value_dtype(&type, "--dtype", "f64"), LS_EVALUE, "f64 is for files only");
}

Test(cli_values, a_method_is_one_of_the_table_or_chosen)
{
    static const struct {
        const char *wrong, *near;
    } cases[] = {{"atuo", "'auto'"}, {"rign", "'ring'"}, {"other", "auto, local"}};
    const char *method = "none";

    cr_assert_eq(cli_value_method(&method, "--method", "tree"), LS_OK);
    cr_expect_str_eq(method, "tree");
    cr_assert_eq(cli_value_method(&method, "--method", "auto"), LS_OK);
    cr_expect_null(method);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_eq(cli_value_method(&method, "--method", cases[i].wrong), LS_EVALUE);
        cr_expect(strstr(ls_message(), cases[i].near), "%s", ls_message());
    }
}
