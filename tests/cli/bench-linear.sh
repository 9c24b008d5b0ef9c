#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that `holds` calls
# `bench linear`: a rate for each operation that adds up, beside that of products; wrong sizes are
# named.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"
cd "$work" || exit 99

# adds_up: in l.json, four operations, whose two threads do half each, and whose ratio is that of a
# thread's rate to a product's
adds_up()
{
    awk 'function near(a, b) { return a > 0.999 * b && a < 1.001 * b }
        { gsub(/[",:]/, ""); value[$1] = $2 }
        $1 == "ratio" {
            n++
            good += value["gflops_per_thread"] > 0 &&
                near(value["gflops"], 2 * value["gflops_per_thread"]) &&
                near(value["ratio"], value["gflops_per_thread"] / value["gemm_gflops_per_thread"])
        }
        END { exit !(n == 4 && good == 4 && value["tokens"] == 300 && value["inputs"] == 70 &&
            value["outputs"] == 50 && value["threads"] == 2) }' l.json
}

longspan bench linear --tokens 300 --inputs 70 --outputs 50 --threads 2 --json l.json
holds "it measures" test "$status" -eq 0
holds "its rates add up" adds_up
holds "it says what of products they are" grep -q '% of products' stdout
longspan bench linear --tokens 300 --inputs 70 --outputs 50 --dtype f32 --threads 1
holds "it measures f32" grep -q 'f32 blocks' stdout
longspan bench linear --dtype f16
holds "no f16" test "$status" -eq 2
holds "no f16, said" grep -q 'f16' stderr
longspan bench linear --tokens 0
holds "no tokens" test "$status" -eq 2
holds "no tokens, said" grep -q -e '--tokens' stderr
longspan bench linear --inputs 1000000 --outputs 1000000
holds "more than there is memory" test "$status" -eq 3
exit "$failed"
