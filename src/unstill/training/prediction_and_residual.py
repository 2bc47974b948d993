"""
Training of a prediction without the image and of the residual that the image adds to it (CRP).

"Composition of residual and prediction", https://huggingface.co/papers/2610.11479, composes them for the history of a
video that is made in sections, and leaves the conditional image to future work. Here it is the image y. One network f
makes two predictions of the same noisy clip x_t with the same caption c:

    free = f(x_t, c)        without the image
    r = f(x_t, c, y)        the residual
    loss = |free - target|^2 + |sg[free] + r - target|^2        sg: no gradient
    prediction at inference: free + r

Since sg[free] is given, the image is only asked for what the noisy clip does not tell already: what it could be copied
for beyond that has no share in the loss. The paper predicts x0. The targets of all prediction types here are affine
in x0 at a given x_t, o = a x_t + b x0, so that free + r composes x0 as well (r is b times the residual in x0), and the
loss differs from the paper's by the factor b^2 per noise level, as the losses of these types do anyway. The paper's
optional part, hidden states of the free pass in the other, is not implemented.

A network that was trained as usual predicts the clip with its image, too, where a residual is wanted here. From such
weights the loss therefore begins high, and part of the training is spent on that change.
"""

from torch import Tensor


def composed_errors(free: Tensor, residual: Tensor, target: Tensor) -> Tensor:
    """
    The loss of the two passes.

    Args:
        free: prediction without the image, `(B, C, F, h, w)`.
        residual: output of the pass with the image.
        target: of the prediction type, such as v.

    Returns:
        The sum of both mean squared errors, `(B,)`, float32.
    """
    free, residual = free.float(), residual.float()
    composed = free.detach() + residual
    return sum_of_squares(free - target) + sum_of_squares(composed - target)


def sum_of_squares(x: Tensor) -> Tensor:
    return x.square().flatten(1).mean(1)
