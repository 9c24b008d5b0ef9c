#include "plan/pieces.h"

#include <stdio.h>
#include <string.h>

#include "base/nearest.h"

static const struct {
    const char *name;
    unsigned pieces;
} piece_names[] = {
    {"none", 0},
    {"selective", LS_PIECE_SOFTMAX},
    {"core", LS_PIECE_CORE},
    {"norm", LS_PIECE_NORM},
    {"activation", LS_PIECE_ACTIVATION},
    {"mlp", LS_PIECE_MLP},
    {"qkv", LS_PIECE_QKV},
    {"dropout", LS_PIECE_DROPOUT},
    {"full", LS_PIECE_LAYER},
};

enum { PIECE_NAMES = sizeof piece_names / sizeof *piece_names };

static const char automatic[] = "auto";

static ls_status unknown_piece(const char *text, bool or_auto)
{
    const char *names[PIECE_NAMES + 1];

    for (int i = 0; i < PIECE_NAMES; i++) names[i] = piece_names[i].name;
    names[PIECE_NAMES] = automatic;
    const char *near = ls_nearest(text, names, PIECE_NAMES + or_auto);
    return ls_fail(LS_EVALUE,
                   "no piece \"%s\"%s%s%s: none, selective, full, %sor of core, norm, activation, "
                   "mlp, qkv, dropout some, with commas",
                   text, near ? " (" : "", near ? near : "", near ? "?)" : "",
                   or_auto ? "auto, " : "");
}

static ls_status add_piece(unsigned *pieces, const char *name, bool or_auto)
{
    for (int i = 0; i < PIECE_NAMES; i++) {
        if (strcmp(name, piece_names[i].name) != 0) continue;
        *pieces |= piece_names[i].pieces;
        return LS_OK;
    }
    return unknown_piece(name, or_auto);
}

static ls_status parse(unsigned *out, const char *text, bool or_auto)
{
    unsigned pieces = 0;
    char name[32];

    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        const size_t length = strcspn(at, ",");

        snprintf(name, sizeof name, "%.*s", (int)length, at);
        LS_TRY(length < sizeof name ? add_piece(&pieces, name, or_auto)
                                    : unknown_piece(text, or_auto));
    }
    *out = pieces;
    return LS_OK;
}

ls_status ls_pieces_parse(unsigned *out, const char *text)
{
    return parse(out, text, false);
}

ls_status ls_pieces_parse_or_auto(bool *chooses, unsigned *out, const char *text)
{
    const bool is_auto = strcmp(text, automatic) == 0;
    unsigned pieces = 0;

    if (!is_auto) LS_TRY(parse(&pieces, text, !strchr(text, ',')));
    *chooses = is_auto;
    *out = pieces;
    return LS_OK;
}

struct ls_pieces_text ls_pieces_name(unsigned pieces)
{
    struct ls_pieces_text text = {"none"};
    size_t used = 0;

    for (int i = 1; i < PIECE_NAMES; i++)
        if (pieces & piece_names[i].pieces)
            used += (size_t)snprintf(text.s + used, sizeof text.s - used, "%s%s", used ? "," : "",
                                     piece_names[i].name);
    return text;
}
