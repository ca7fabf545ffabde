"""What the papers report: by benchmark and score, the numbers of each model.

Sources: Janus (arXiv 2410.13848), the report of Janus-Pro, JanusFlow (arXiv 2411.07975). Numbers of other models are as those
papers print them.
"""

from collections.abc import Mapping

_UNDERSTANDING: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("pope", "F1"): {
        "Janus-1.3B": 87.0,
        "JanusFlow-1.3B": 88.0,
        "Janus-Pro-1B": 86.2,
        "Janus-Pro-7B": 87.4,
        "LLaVA-v1.5-7B": 85.9,
    },
    ("mme", "perception"): {
        "Janus-1.3B": 1338.0,
        "JanusFlow-1.3B": 1333.1,
        "Janus-Pro-1B": 1444.0,
        "Janus-Pro-7B": 1567.1,
        "LLaVA-v1.5-7B": 1510.7,
    },
    ("mmbench", "overall"): {
        "Janus-1.3B": 69.4,
        "JanusFlow-1.3B": 74.9,
        "Janus-Pro-1B": 75.5,
        "Janus-Pro-7B": 79.2,
        "LLaVA-v1.5-7B": 64.3,
    },
    ("seed", "accuracy"): {
        "Janus-1.3B": 63.7,
        "JanusFlow-1.3B": 70.5,
        "Janus-Pro-1B": 68.3,
        "Janus-Pro-7B": 72.1,
        "LLaVA-v1.5-7B": 58.6,
    },
    ("gqa", "accuracy"): {
        "Janus-1.3B": 59.1,
        "JanusFlow-1.3B": 60.3,
        "Janus-Pro-1B": 59.3,
        "Janus-Pro-7B": 62.0,
        "LLaVA-v1.5-7B": 62.0,
    },
    ("mmmu", "accuracy"): {
        "Janus-1.3B": 30.5,
        "JanusFlow-1.3B": 29.3,
        "Janus-Pro-1B": 36.3,
        "Janus-Pro-7B": 41.0,
        "LLaVA-v1.5-7B": 35.4,
    },
    ("mmvet", "total"): {
        "Janus-1.3B": 34.3,
        "JanusFlow-1.3B": 30.9,
        "Janus-Pro-1B": 39.8,
        "Janus-Pro-7B": 50.0,
        "LLaVA-v1.5-7B": 31.1,
    },
    ("vqav2", "accuracy"): {"Janus-1.3B": 77.3, "JanusFlow-1.3B": 79.8, "LLaVA-v1.5-7B": 78.5},
    ("textvqa", "accuracy"): {"JanusFlow-1.3B": 55.5, "LLaVA-v1.5-7B": 58.2},
    ("chartqa", "accuracy"): {"JanusFlow-1.3B": 64.6},
}
_GENEVAL = {
    "Janus-1.3B": (0.97, 0.68, 0.30, 0.84, 0.46, 0.42, 0.61),
    "JanusFlow-1.3B": (0.97, 0.59, 0.45, 0.83, 0.53, 0.42, 0.63),
    "Janus-Pro-1B": (0.98, 0.82, 0.51, 0.89, 0.65, 0.56, 0.73),
    "Janus-Pro-7B": (0.99, 0.89, 0.59, 0.90, 0.79, 0.66, 0.80),
    "SDXL": (0.98, 0.74, 0.39, 0.85, 0.15, 0.23, 0.55),
    "DALL-E 3": (0.96, 0.87, 0.47, 0.83, 0.43, 0.45, 0.67),
    "SD3-Medium": (0.99, 0.94, 0.72, 0.89, 0.33, 0.60, 0.74),
}
_GENEVAL_TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr", "overall")
_DPG = {
    "Janus-1.3B": (82.33, 87.38, 87.70, 85.46, 86.41, 79.68),
    "JanusFlow-1.3B": (87.03, 87.31, 87.39, 89.79, 88.10, 80.09),
    "Janus-Pro-1B": (87.58, 88.63, 88.17, 88.98, 88.30, 82.63),
    "Janus-Pro-7B": (86.90, 88.90, 89.40, 89.32, 89.48, 84.19),
}
_DPG_PARTS = ("global", "entity", "attribute", "relation", "other", "overall")
_FID: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("coco30k", "FID"): {"Janus-1.3B": 8.53, "Show-o": 9.24, "SDv1.5": 9.62, "PixArt-alpha": 7.32},
    ("mjhq30k", "FID"): {"Janus-1.3B": 10.10, "JanusFlow-1.3B": 9.51, "Show-o": 15.18, "VILA-U 384": 7.69},
}


def published(benchmark: str, score: str) -> dict[str, float]:
    """The papers' numbers for a score, by model, the Janus family first; {} where they print none."""
    if benchmark == "geneval" and score in _GENEVAL_TASKS:
        place = _GENEVAL_TASKS.index(score)
        return {model: numbers[place] for model, numbers in _GENEVAL.items()}
    if benchmark == "dpg" and score in _DPG_PARTS:
        place = _DPG_PARTS.index(score)
        return {model: numbers[place] for model, numbers in _DPG.items()}
    return dict(_UNDERSTANDING.get((benchmark, score)) or _FID.get((benchmark, score)) or {})
