/* The activations of a transformer's MLP, y = act(z). */
#ifndef LONGSPAN_ACTIVATION_H
#define LONGSPAN_ACTIVATION_H

typedef enum {
    LS_ACTIVATION_GELU_TANH, /* z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) */
    LS_ACTIVATION_GELU_ERF,  /* z/2 (1 + erf(z / sqrt 2)) */
    LS_ACTIVATION_RELU,      /* the larger of z and 0 */
    LS_ACTIVATION_SWIGLU,    /* z [2f], gates before values: y [f] = gate / (1 + e^-gate) x value */
} ls_activation;

#endif
