"""The stages of the papers as values: Janus (Table 1), Janus-Pro (Table 2), JanusFlow (Table 1 of its later version).

What is frozen: Janus, section 3.3; Janus-Pro, section 2.2; JanusFlow, section 3.3 and Figure 3. Ratios are samples of a step. The
embedding of codes trains with its adaptor in every stage: the papers count it with neither side (training_spec 1.1). Where the
papers give no precision, bfloat16 arithmetic over float32 weights; a batch counts samples, which fits Janus' own sums (1.5).
"""

from dataclasses import replace

from openjanus.train.stage import Stage

# Parts by the names of their parameters (docs/training.md has the list).
LANGUAGE = ("language",)
TOWER = ("understanding.encoder",)
VQ = ("generation.tokenizer",)
VAE = ("generation.vae",)
# What nobody trained before the papers did: it begins with random weights.
FRESH = ("understanding.adaptor", "generation.adaptor", "generation.embed", "generation.head")
FRESH_FLOW = (
    "understanding.adaptor",
    "understanding.begin",
    "generation.encoder",
    "generation.encoder_adaptor",
    "generation.decoder_norm",
    "generation.decoder_adaptor",
    "generation.decoder",
)

_COMMON = Stage("common", steps=1, batch=256, rate=1e-3, precision="bfloat16", checkpointing=True)

# Janus 1.3B. Stage 1 is the only cosine in the family. The first 120,000 steps of stage 2 paint ImageNet alone, by class names.
_JANUS_2 = replace(_COMMON, rate=1e-4, batch=512, mix={"understanding": 2, "text": 3, "generation": 5}, frozen=(*TOWER, *VQ))
JANUS = (
    replace(
        _COMMON,
        name="adapt",
        schedule="cosine",
        warmup=300,
        steps=10_000,
        mix={"understanding": 1, "text": 0, "generation": 1},
        frozen=(*LANGUAGE, *TOWER, *VQ),
    ),
    replace(_JANUS_2, name="names", warmup=5_000, steps=120_000),
    replace(_JANUS_2, name="pretrain", steps=60_000, continues=True),
    replace(
        _COMMON,
        name="tune",
        rate=2e-5,
        weight_decay=0.1,
        steps=24_000,
        mix={"understanding": 7, "text": 3, "generation": 10},
        frozen=VQ,
    ),
)

# Janus-Pro. ImageNet moves into a longer stage 1; stage 2 was stopped at 270,000 of 360,000 steps (section 3.1).
JANUS_PRO_1B = (
    replace(
        _COMMON,
        name="adapt",
        warmup=600,
        steps=20_000,
        mix={"understanding": 1, "text": 0, "generation": 3},
        frozen=(*LANGUAGE, *TOWER, *VQ),
    ),
    replace(
        _COMMON,
        name="pretrain",
        rate=1e-4,
        batch=512,
        warmup=5_000,
        steps=270_000,
        mix={"understanding": 2, "text": 3, "generation": 5},
        frozen=(*TOWER, *VQ),
    ),
    replace(
        _COMMON,
        name="tune",
        rate=4e-5,
        batch=128,
        steps=80_000,
        mix={"understanding": 5, "text": 1, "generation": 4},
        frozen=VQ,
    ),
)
JANUS_PRO_7B = (*JANUS_PRO_1B[:2], replace(JANUS_PRO_1B[2], steps=40_000))

# JanusFlow 1.3B; its table lists understanding : generation : text. The released weights are the moving average after stage 3.
_FLOW = replace(_COMMON, rate=1e-4, batch=512, ema=0.99)
JANUSFLOW = (
    replace(
        _FLOW,
        name="adapt",
        warmup=2_000,
        steps=10_000,
        mix={"understanding": 50, "text": 0, "generation": 50},
        frozen=(*LANGUAGE, *TOWER, *VAE),
    ),
    replace(
        _FLOW,
        name="prologue",
        warmup=2_000,
        steps=10_000,
        mix={"understanding": 30, "text": 20, "generation": 50},
        frozen=(*TOWER, *VAE),
    ),
    replace(
        _FLOW,
        name="pretrain",
        steps=380_000,
        mix={"understanding": 14, "text": 6, "generation": 80},
        frozen=(*TOWER, *VAE),
        continues=True,
    ),
    replace(
        _FLOW,
        name="tune",
        rate=2e-5,
        batch=256,
        warmup=1_000,
        steps=26_000,
        mix={"understanding": 21, "text": 9, "generation": 70},
        frozen=VAE,
    ),
)
