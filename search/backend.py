"""TensorFlow and Keras, with the environment that they read when they are imported."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow's own pool for oneDNN never gives back: 0.3 MB a trial while shapes change.
os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

import keras
import tensorflow as tf

__all__ = ["keras", "tf"]
