"""How far numbers may lie from each other, each with its reason; tests take them from here alone.

All are maximal absolute errors. "golden" are hidden states and means of the published code in fp32
on models with large random weights (hidden states up to 5.7), which amplify rounding.
"""

# The published fp32 code lies 0.4e-5 from float64; a tanh GELU shows as 1e-3 or more.
ESM2_GOLDEN_FP32 = 2e-5
# The published fp32 code lies up to 9e-5 from float64 on these models.
DNABERT_S_GOLDEN_FP32 = 1.5e-4
# Other orders of the same float64 sums, also 33 layers deep; measured 6e-14. fp32 anywhere would
# show as 1e-6.
FLOAT64 = 1e-10
# Another batch rounds matrix products differently. fp32: no more than the golden bounds;
# measured 0.2e-5 and 0.6e-5.
BATCH_FP32 = {"esm2": ESM2_GOLDEN_FP32, "dnabert_s": DNABERT_S_GOLDEN_FP32}
# bf16 keeps 8 bits: a product that rounds the other way moves by 2^-8 of itself. Means of
# the golden models move by 0.013 and 0.08, less than bf16 itself costs them (0.03 and 0.14).
BATCH_BF16 = {"esm2": 0.03, "dnabert_s": 0.15}
# Against fp32: hidden states of the golden models; measured 0.060, 0.0086, 0.41 and 0.053, the
# worst of all kernels, alone and in one batch. The bounds leave room for other CPUs.
GOLDEN_HALF = {
    ("esm2", "bf16"): 0.1,
    ("esm2", "fp16"): 0.015,
    ("dnabert_s", "bf16"): 0.6,
    ("dnabert_s", "fp16"): 0.08,
}
# One number that is rounded to bf16 at most twice, relative to itself.
ONE_BF16 = 2**-8
# fp8 keeps 4 bits, so a number moves by up to 2^-4 of itself. Hidden states of the golden ESM-2
# against fp32; measured 0.55. Its means in a batch against alone; measured 0.12.
GOLDEN_FP8 = 0.8
BATCH_FP8 = 0.25
# A mistake in a formula must show as more than this many tolerances, or those prove
# little. The least visible one, a tanh GELU in the two-layer DNABERT-S, shows as 6.6.
BROKEN = 5

# Phase at position 1024 against the loaded inv_freq: fp32 angles give 3e-8 rad, an inv_freq
# rounded to fp16 0.09 rad and to bf16 0.34 rad.
PHASE_RAD = 1e-3

# The head: one matrix product of 3328 terms in fp32, then a softmax; measured 1e-7.
HEAD_FP32 = 2e-6
# Its weights rounded to 11 bits, as saved in fp16: on 20 features; measured 2.4e-5.
HEAD_FP16_WEIGHTS = 1e-4
# Scores of frames in batches against one by one: both encoders' rounding through a small head;
# measured 1e-7.
FRAMES_FP32 = 1e-5

# transformers' and fair-esm's ESM-2 in fp32 on small random models: the same sums in another order.
# Measured 4e-6; a rotary position or a scale taken otherwise shows as 1e-3 or more.
ORACLE_FP32 = 1e-5
