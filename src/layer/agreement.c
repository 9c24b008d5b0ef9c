/* Whether all ranks ask for the same layer. */
#include <string.h>

#include "attention/agreement.h"
#include "layer/plan.h"

static double digest_of(const char *text)
{
    return text ? ls_digest(text, strlen(text)) : 0;
}

ls_status ls_layer_agree(struct ls_comm *comm, ls_status status, const struct ls_layer_shape *s,
                         const struct ls_layer_options *o, unsigned pieces)
{
    const struct ls_topic topics[] = {
        {"batch", (double)s->b, true},
        {"length of sequences", (double)s->s, true},
        {"width", (double)s->e, true},
        {"heads", (double)s->h, true},
        {"key/value heads", (double)s->h_kv, true},
        {"head dim", (double)s->d, true},
        {"width of the MLP", (double)s->f, true},
        {"type", (double)s->type, false},
        {"norm", (double)o->norm, false},
        {"activation", (double)o->activation, false},
        {"place of norms (before the blocks or behind)", o->post_norm, false},
        {"blocks (parallel or not)", o->parallel, false},
        {"biases of linears (some or none)", o->no_bias, false},
        {"mask (causal or none)", o->causal, false},
        {"epsilon", (double)o->epsilon, true},
        {"base of rotary positions", (double)o->rope_theta, true},
        {"dropout", (double)o->dropout, true},
        {"tensor-parallel ranks", o->tp, true},
        {"context-parallel ranks", o->cp, true},
        {"sequence parallelism (on or off)", o->sp, false},
        {"core (fused or materialized)", (double)o->core, false},
        {"method of attention", digest_of(o->method), false},
        {"layout", (double)o->layout, false},
        {"mode (strict or fast)", o->strict, false},
        {"pieces to recompute", pieces, false},
    };

    return ls_agree_about(comm, status, topics, sizeof topics / sizeof *topics);
}
