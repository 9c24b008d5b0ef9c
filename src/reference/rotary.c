#include "reference/rotary.h"

#include <math.h>

void ls_reference_rotate(double *head, const struct ls_rotary *rotary, int64_t position, bool back)
{
    const int64_t pairs = rotary->dims / 2;

    for (int64_t i = 0; i < pairs; i++) {
        /* the product is exact: an angle of millions has many digits before the point */
        const long double angle = (long double)position * (long double)rotary->frequency[i];
        const double c = (double)cosl(angle), s = (double)sinl(back ? -angle : angle);
        const double a = head[i], b = head[i + pairs];

        head[i] = a * c - b * s;
        head[i + pairs] = b * c + a * s;
    }
}
