#!/bin/sh
# shellcheck disable=SC2154,SC2317 # variables of the harness; functions that `holds` calls
# `longspan plan model`: the paper's bytes for a layer of GPT-3, parts that add up, and refusals.
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
    "plan model --config $work/none.json|No such file"; do
    # shellcheck disable=SC2086 # several words
    longspan ${case%|*}
    holds "${case%|*}" refused "${case##*|}"
done
exit "$failed"
