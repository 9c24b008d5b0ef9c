/* Pieces of a layer whose outputs are not kept for backward but computed again. */
#ifndef LS_PLAN_PIECES_H
#define LS_PLAN_PIECES_H

#include <stdbool.h>

#include "base/status.h"

enum {
    LS_PIECE_SOFTMAX = 1 << 0,    /* softmax and what dropout does to it: the paper's selective */
    LS_PIECE_CORE = 1 << 1,       /* all between the projections: its output and LSE as well */
    LS_PIECE_NORM = 1 << 2,       /* outputs of norms */
    LS_PIECE_ACTIVATION = 1 << 3, /* output of GELU or SwiGLU */
    LS_PIECE_MLP = 1 << 4,        /* the same and its input */
    LS_PIECE_QKV = 1 << 5,        /* q, k and v */
    LS_PIECE_DROPOUT = 1 << 6,    /* masks behind the blocks, drawn again by index */
    LS_PIECE_LAYER = 1 << 7,      /* all but the layer's input: the paper's full */
};

/* "selective", or "core,norm". Errors: LS_EVALUE, with the nearest name. */
ls_status ls_pieces_parse(unsigned *out, const char *text);

/* The same where "auto" may stand as well, alone: then *chooses, and *out is 0. */
ls_status ls_pieces_parse_or_auto(bool *chooses, unsigned *out, const char *text);

/* The same backwards. */
struct ls_pieces_text {
    char s[96];
};
struct ls_pieces_text ls_pieces_name(unsigned pieces);

#endif
