#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that `holds` calls
# `longspan plan model`: the paper's bytes for a layer of GPT-3, parts that add up, pieces and grids
# that fit, and refusals.
# shellcheck source=/dev/null
. "${srcdir-.}/tests/cli/harness.sh"

# number NAME: its value in the JSON object that the last run printed
number() { sed -nE "s/.*\"$1\": *(-?[0-9.e+-]+).*/\1/p" "$work/stdout" | head -n 1; }

is() { [ "$status" -eq 0 ] && [ "$(number "$1")" = "$2" ]; }

# refused WORDS
refused() { [ "$status" -eq 2 ] && [ ! -s "$work/stdout" ] && grep -qF -- "$1" "$work/stderr"; }

sum_is_whole()
{
    sum=0
    for part in parameter gradient optimizer activation end recompute; do
        sum=$((sum + $(number "${part}_bytes")))
    done
    is bytes_per_rank "$sum"
}

sbh=$((2048 * 12288))
gpt3="plan model --preset gpt-175b --core materialized --json -"
# shellcheck disable=SC2086 # several words
{
    longspan $gpt3
    holds "10 + 24/t + 5as/(ht)" is layer_paper_bytes $((sbh * (10 + 24 / 8 + 80 / 8)))
    holds "8 x 8 ranks" is ranks 64
    holds "the parts are all" sum_is_whole
    longspan $gpt3 --sp --recompute selective
    holds "34/t" is layer_paper_bytes $((sbh * 34 / 8))
    longspan $gpt3 --sp --recompute full --pp 1
    holds "2/t" is layer_paper_bytes $((sbh * 2 / 8))
    holds "8 ranks, whose layers are not in parts" is ranks 8
    longspan $gpt3 --tp 1 --pp 1 --dropout 0 --core fused
    holds "no masks" is layer_paper_bytes $((sbh * 32))
}

# fits BYTES: what was chosen stays below, and is all of the rank
fits() { [ "$status" -eq 0 ] && [ "$(number bytes_per_rank)" -le "$1" ] && sum_is_whole; }

# least NAME FIELD: of the objects in the array NAME, the first value of FIELD
least() { sed -n "/\"$1\"/,\$p" "$work/stdout" | sed -nE "s/.*\"$2\": *([0-9.e+-]+).*/\1/p" | head -n 1; }

chosen_layers() { sed -n '/"sets"/,/\]/p' "$work/stdout" | sed -nE 's/.*"layers": *([0-9]+).*/\1/p' | awk '{ n += $1 } /./ { print n }' | sed -n "$1p"; }

# missed OPTIONS...: with a byte less than the least of the frontier nothing fits; with that it does
missed()
{
    longspan "$@" --memory 80GiB --json -
    bytes=$(least frontier bytes_per_rank)
    longspan "$@" --memory "$bytes" --json -
    is bytes_per_rank "$bytes" && sum_is_whole || return 1
    longspan "$@" --memory "$((bytes - 1))"
    refused "least that fits is $bytes bytes a rank, 1 more than $((bytes - 1))"
}

says() { [ "$status" -eq 0 ] && grep -qE -- "$1" "$work/stdout"; }

# first_grid FIELD VALUE
first_grid() { [ "$status" -eq 0 ] && [ "$(least grids "$1")" = "$2" ]; }

rates="--rate 150 --bandwidth 1700 --link 200"
auto="plan model --preset gpt-175b --sp --interleave 1 --recompute auto $rates"
# shellcheck disable=SC2086 # several words
{
    longspan $auto --memory 52GB --json -
    holds "what is chosen fits" fits 52000000000
    holds "rates are as stated" is memory_bytes_per_second 1.7e12
    holds "the least that fits, and a byte less" missed $auto
    longspan $auto --memory 80GiB
    holds "nothing again where all fits" says 'chosen +12 none$'
    holds "a fused core has nothing that selective frees" says '^selective +102 MiB +- +- +- +- +- +-$'
    holds "what a piece frees and costs" \
        says '^mlp +54.1 MiB +48.0 MiB +48.0 MiB +309 GF +294 MiB +42.0 MiB +2.46 ms$'
    longspan plan model --preset gpt-22b
    holds "no time without rates" says 'freed +again +products +memory +exchanged *$'
    longspan plan model --preset gpt-22b --measure
    holds "measured" says 'measured here'
    longspan plan model --preset gpt-22b --search --recompute auto --memory 80GiB $rates --json -
    holds "as many ranks as the preset has" first_grid copies 1
    holds "time for a token" first_grid pp 4
    longspan plan model --preset gpt-22b --search --recompute full --memory 80GiB $rates --ranks 32
    holds "pieces that are given, in a table of ten" says '^ +1 +1 +8 +1 +no +4 +57.3 GiB .* 6 full$'
}

cat >"$work/config.json" <<'END'
{"model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
 "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152,
 "max_position_embeddings": 8192, "tie_word_embeddings": true}
END
longspan plan model --config "$work/config.json" --json -
holds "a model of a folder" is parameters 134515008
holds "as long as it was made for" is seq 8192

for case in "plan model|a model is needed" \
    "plan model --preset gpt-22b --config $work/config.json|one of --preset" \
    "plan model --preset gpt-23b|(gpt-22b?)" \
    "plan model --preset gpt-22b --recompute ful|(full?)" \
    "plan model --preset gpt-22b --tp 7|shared evenly by 7" \
    "plan model --preset gpt-22b --cp 9|8 of them" \
    "plan model --preset gpt-22b --seq 1099511627776|beyond 2^63" \
    "plan model --preset gpt-22b --dropout 1|must be 0 to below 1" \
    "plan model --preset gpt-22b --rate 0|must be more than 0" \
    "plan model --preset gpt-22b --recompute auto --rate 1|needs --memory" \
    "plan model --preset gpt-22b --search --rate 1|needs --memory" \
    "plan model --preset gpt-22b --memory 80GiB|add one of them" \
    "plan model --preset gpt-22b --recompute auto --memory 80Gib|such as 8, 64K" \
    "plan model --preset gpt-22b --recompute auto --memory 9223372036854775807|is not a number" \
    "plan model --preset gpt-22b --recompute atuo --memory 1G|(auto?)" \
    "plan model --preset gpt-22b --recompute atuo,norm --memory 1G|none, selective, full, or of" \
    "plan model --preset gpt-22b --ranks 8|--search" \
    "plan model --preset gpt-22b --measure --rate 1|leave out one" \
    "plan model --preset gpt-22b --bandwidth 1|goes with --rate" \
    "plan model --preset gpt-22b --link 1|goes with --rate" \
    "plan model --preset gpt-1t --search --memory 20GB --ranks 8 --rate 1|bytes a rank, " \
    "plan model --preset gpt-22b --batch 9999999 --seq 1099511627776 --recompute auto --memory 1G --rate 1|2^63" \
    "plan model --config $work/none.json|No such file"; do
    # shellcheck disable=SC2086 # several words
    longspan ${case%|*}
    holds "${case%|*}" refused "${case##*|}"
done
exit "$failed"
