"""The configuration of a study as typed, validated objects: the only reader of ``config/``.

A study is one YAML file; its stem is the study's name. ``reading`` turns the file into mappings,
``shards`` cuts them to what the command line asks for, and ``model`` holds every key, its type, its
range and its default.
"""

from workflow.study.model import (
    FLOOR,
    TRAINING_SET_WORDS,
    Comparison,
    Data,
    Dataset,
    Loss,
    Network,
    RunSettings,
    Splits,
    Study,
    StudyError,
    Training,
    Tuning,
    json_schema,
)
from workflow.study.reading import load, typed

__all__ = [
    "FLOOR",
    "TRAINING_SET_WORDS",
    "Comparison",
    "Data",
    "Dataset",
    "Loss",
    "Network",
    "RunSettings",
    "Splits",
    "Study",
    "StudyError",
    "Training",
    "Tuning",
    "json_schema",
    "load",
    "typed",
]
