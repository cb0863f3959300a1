"""What every measured quantity is compared with, and why.

No threshold is an absolute size of a gradient: that depends on the units of the loss, on the batch
and on the number of parameters, and 1e-7 may be healthy. Compared are a layer with the layers of
the same run, an update with the weight that it changes, and a step with the steps before it.
"""

from __future__ import annotations

DECADES_PROBLEM = 3.0
"""Across the depth: with one learning rate, the slow end then moves a thousand times less than the
fast one, so that what one epoch teaches the one takes a thousand for the other (glorot2010)."""
DECADES_WARNING = 2.0
NORMALIZED = 2.0
"""The decades above count double in a network with normalization layers: they undo what weights
of any size do to the signal, and public networks that train well reach 3.8 on tiny images."""
LONG_CHAIN = 16
"""Normalizations in a row at each of which the gradient grows: at 1.21 each, three decades take 36.
Public networks with skip connections show up to 20, and 1.5 decades on them."""
HALVED = 0.55
"""Factor per recorded layer: a ReLU that halves the variance gives 0.71, and 0.64 if the weights
are as PyTorch draws them, with a third of the variance: 1/sqrt(6) for a layer and its ReLU. A
tutorial's convolutional autoencoder, whose transposed convolutions have strides, shows 0.57 to 0.60
and learns. A loss this slow, of less than three decades in all, is a note."""
CHANCE = 2.5
"""Units off on all inputs over units on for all: an excess of so many standard deviations, in one
layer. Among m layers the largest of m excesses counts, so there it is more: sqrt(CHANCE^2 +
2 log m). A layer that is off altogether counts by itself."""
PRIOR = 0.2
"""Root mean square of a sigmoid at the output, below which it says "no" to nearly everything, as
detectors do at first: they are begun at 0.01 on purpose, where next to all is background."""
IDLE_SHARE = 0.1
"""Of the weight matrices. Fewer that never run are kept for a variant of the network; in a network
of one's own, a layer that was forgotten is more."""
INPUTS_WARNING = 30.0
"""Root mean square of the first layer's output. Standardized inputs and weights drawn for them
give about 1; pixels from 0 to 255 give a hundred."""
INPUTS_SMALL = 1e-3
"""Root mean square of all that goes in. At one rate, the first layer then moves a thousand times
slower than for inputs of size 1, and a variance of 1e-6 is below the epsilon of a normalization."""
FEATURES_APART = 100.0
"""One input feature over the median of the others, in root mean square. The curvature then differs
by 1e4. Rare categories as zeros and ones reach 30 on a batch of a thousand."""
RESCALED = 0.6
"""Decades by which one layer's factors differ from the usual layer's: four times. Of 300 sound
networks of random widths, depths, activations and rules, none has a layer that would be named at
three times."""
RESCALED_OUTRIGHT = 1.3
"""Decades by which a layer may multiply both the signal and its gradient, whatever the others do:
twenty times. Of 156 public networks with random weights, one reaches 1.1, the others 0.9."""
RESCALED_FED = 1.0
"""Decades by which a gradient may be larger than the layer before explains, against the usual."""
RESCALED_OUTPUT = 5.0
"""Root mean square of a model's output above which a last layer that multiplies the signal so is
told by the signal alone: where a mean over positions lies before it, the gradient is divided by
their number."""
RESCALED_SPREADS = 4.0
"""And so many standard deviations of all layers' factors."""
RESCALED_APART = 0.4
"""Decades by which the forward and the backward factor may differ, and the norm of the matrix must
stand out: a sum or a mean over positions between two layers moves the factors, not the matrix."""
GAIN_ALL, GAIN_ONE = 5.0, 30.0
"""Gain of the usual matrix, and of a single one. Of 130 public networks with random weights, the
usual matrix reaches 2.8, and a single one 11; a standard deviation of 1 gives the root of how many
inputs are summed up, 24 for a 3 x 3 convolution of 64 channels."""
LEAST_PEERS = 2
"""Matrices of the same role besides the one that stands out."""
PEERS_ALIKE = 0.15
"""Decades within which the norms of those lie: they were drawn by one rule, for one shape. The norm
of n normal entries varies by 1/sqrt(2n) of itself, under a percent; a factor of 1.4 is left for
training and for rules that grow smaller with the depth."""
HORIZON_PROBLEM, HORIZON_WARNING = 4.0, 6.0
"""Steps back in time over which the gradient falls by three decades. Recurrent layers as the
frameworks initialize them reach 7 to 15; below 4, each step divides by six and more."""
GROWTH_WARNING, GROWTH_LEAST = 0.02, 0.2
"""Decades per step back, and in all, by which a gradient that grows is told even on a short sample:
two decades in a hundred steps. Layers as the frameworks initialize them stay below 0.001."""
RECURRENT_GAIN = 1.5
"""Root mean square of the singular values of a plain cell's recurrent matrix. The frameworks draw
it at 0.58 and at 1; above 1 a wide tanh cell is chaotic without input (sompolinsky1988)."""
GATED_GAIN_NOTE, GATED_GAIN_WARNING = 1.25, 3.0
"""The same for each gate's part of an LSTM's or GRU's matrix, which the frameworks draw at 0.5 to
0.58. Over 40 steps, three times that makes no gradient grow, and ten times three decades."""
SPIKE = 100.0
"""A step's global norm over the median of the steps before: ten times is common noise at small
batches, a hundred times is one step that outweighs all the others (pascanu2013)."""
DEAD_PROBLEM, DEAD_WARNING = 0.5, 0.25
"""Of a layer's units. Half of a ReLU layer's *values* are 0 when all is well; a *unit* that is off
on everything is lost. In a deep healthy network up to a quarter may be off on one small batch."""
SATURATED_PROBLEM, SATURATED_WARNING = 0.5, 0.25
"""Of a layer's values, at slopes below a tenth of the largest: half of them flat halves the squared
gradient at least, in every such layer."""
ATTENTION_PROBLEM, ATTENTION_WARNING = 0.75, 0.5
"""Of an attention's rows, with nearly all weight on one position. A trained head may do so, and
the first row of a causal mask always does; three quarters of a layer's rows are no choice."""
GATE_PROBLEM, GATE_WARNING = 0.75, 0.5
"""Of a recurrent gate's units that hold still; or, of a state and what is written to it, of the
values, over a sample of units, inputs and steps. An embedding much wider than the layer flattens a
third of them, in networks that learn; of a gate that has learned, more than half may be flat."""
HUGE = 1e15
"""Norm of a weight. Below it, no sum of its products with inputs of ordinary size overflows."""
UPDATE_PROBLEM, UPDATE_WARNING = 0.3, 0.2
"""Update over weight in one step: at 0.3 three steps replace the weights. 1e-3 is usual; the first
steps of Adam on weights drawn small on purpose reach 0.1, and do no harm."""
UPDATE_FROM_ZERO = 3.0
"""A first step three times as large as the weight: it was drawn as good as 0."""
DRAWN_FAIRLY = 0.5
"""Gain below which a matrix was drawn small. Its updates then count against what a matrix of this
gain would be, as much as they can do: of 130 public networks with random weights, in all but the
narrow transformers the usual matrix has 0.5 to 2.8."""
UPDATE_LOST = 6e-8
"""Half a unit in the last place of float32: a smaller relative update is rounded away."""
UPDATE_STILL = 1e-6
"""A million steps to change a weight by its own size."""
UPDATE_FASTEST = 2e-5
"""Of the matrix that moves most: fifty thousand steps to change it by its own size. In 76 sound
networks the fastest is above 2e-4 in the first steps, under Adam at 1e-3 and under SGD at 0.01, but
for one with a vanishing gradient; at rates ten thousand times smaller it is below 4e-5."""
STILL_BRANCH = 1e-2
"""Of what is usual where weights move: the gradient at the output of what stands still, below which
it lies on a branch (a block scaled by 1e-6 on purpose, attention that is still even); or else its
update over its gradient, above which it is the gradient that is small, and not the rate."""
STILL_SHARE = 0.1
"""Of the weight matrices. One layer in a large network may have next to no gradient on a small
batch, as attention over four positions has; a rate too small, or a vanishing gradient, holds more
of them up."""
ROUNDED_PROBLEM, ROUNDED_WARNING = 0.9, 0.5
"""Of a 16-bit matrix's entries that have a gradient: never moved in the whole trial. What is left
learns, as a network with most of its weights frozen does."""
MOMENTUM = 10.0
"""So many times as large momentum of 0.9 makes the updates of equal gradients, in the long run."""
RISING = 3.0
"""The last update over the first, and the last gradient over the first: behind a branch or a gain
that begins at 0, what stands still at first is on its way."""
DECAY_WARNING = 0.01
"""Share of their size that all matrices lose in a step alike: gone by half in 69 steps. Usual rules
(rate times decay) take 1e-5 to 1e-4."""
DECAY_ALIKE = 0.25
"""And how much that may differ between them: what learns changes some matrices more than others."""
DROPPED_WARNING = 0.9
"""Share of the values that dropout drops: one in ten is left, ten times as large."""
FIRST_LOSS = 100.0
"""The first loss over what equal answers for all classes give. Of 36 public networks with random
weights, one reaches 11 on four images. Another, a temporal convolution of two stacks, reaches 45:
under Adam it is as exact after each of eight epochs as with a last layer 40 times smaller."""
ANGLE_WARNING = 30.0
"""Degrees by which clipping turns the gradient: above it, over 13 % of the length is lost to
directions that are not the gradient's (1 - cos 30)."""
SHRINK_WARNING = 100.0
"""Global norm over threshold: clipping, not the learning rate, then sets the size of the step."""


def graded(value: float, problem: float, warning: float) -> str | None:
    """Return "problem", "warning" or None, by the first threshold that `value` reaches."""
    if not value >= warning:
        return None
    return "problem" if value >= problem else "warning"
