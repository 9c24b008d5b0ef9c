#include "cli/format.h"

#include <criterion/criterion.h>

Test(cli_format, counts_have_commas)
{
    static const struct {
        int64_t n;
        const char *text;
    } cases[] = {
        {0, "0"},
        {999, "999"},
        {1000, "1,000"},
        {65536, "65,536"},
        {1234567, "1,234,567"},
        {-999, "-999"},
        {-1000, "-1,000"},
        {INT64_MAX, "9,223,372,036,854,775,807"},
        {INT64_MIN, "-9,223,372,036,854,775,808"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_expect_str_eq(cli_count(cases[i].n).s, cases[i].text);
    cr_expect_str_eq(cli_counted(1, "query", "queries").s, "1 query");
    cr_expect_str_eq(cli_counted(4096, "query", "queries").s, "4,096 queries");
    cr_expect_str_eq(cli_workers(1, 12).s, "1 rank x 12 threads");
}

Test(cli_format, a_number_keeps_three_digits_in_the_unit_that_fits)
{
    static const struct {
        struct cli_text (*format)(double);
        double value;
        const char *text;
    } cases[] = {
        {cli_bytes, 0, "0 B"},
        {cli_bytes, 1023, "1023 B"},
        {cli_bytes, 1024, "1.00 KiB"},
        {cli_bytes, 12.34 * 1024 * 1024, "12.3 MiB"},
        {cli_bytes, 1023.0 * 1024, "1023 KiB"},
        {cli_bytes, 0x1p80, "1073741824 PiB"},
        {cli_seconds, 0, "0 s"},
        {cli_seconds, 1e-12, "0 s"},
        {cli_seconds, 2.5e-6, "2.50 us"},
        {cli_seconds, 0.0123, "12.3 ms"},
        {cli_seconds, 1.5, "1.50 s"},
        {cli_seconds, 12345, "12345 s"},
        {cli_flops, 4.398e12, "4.40 TF"},
        {cli_number, 0, "0"},
        {cli_number, 0.000123456, "0.000123"},
        {cli_number, 9.87654, "9.88"},
        {cli_number, 12.3456, "12.3"},
        {cli_number, 50.04, "50.0"},
        {cli_number, 1287.66, "1287.7"},
        {cli_number, 41234.56, "41234.6"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_expect_str_eq(cases[i].format(cases[i].value).s, cases[i].text);
}

Test(cli_format, dimensions_of_any_size_fit)
{
    const int64_t most[4] = {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};

    cr_expect_str_eq(cli_dims((const int64_t[]){1, 4096, 8, 64}, 4).s, "1,4096,8,64");
    cr_expect_str_eq(cli_dims(most, 0).s, "");
    cr_expect_eq(strlen(cli_dims(most, 4).s), 4 * 19 + 3);
}
