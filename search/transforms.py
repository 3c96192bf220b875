"""What happens to raw pixels before the network, fitted on training images only."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from search.records import TrialFailed
from spaces.config import TrialConfig

Array = NDArray[np.float32]
FOREST_TREES = 100
FOREST_SEED = 42


@dataclass(frozen=True, slots=True)
class Transform:
    """Fitted figures. Applied in this order: factor, unit length, affine map, projection.

    Attributes:
        factor: all pixels are multiplied by it.
        unit_axes: axes of (n, h, w, c) over which the result gets unit length; () for none.
        slope, offset: float32 (h, w, c), each pixel's affine map; None for none.
        projection, shift: float32 (h * w * c, k) and (k,): the features that the network sees in
            place of the flattened pixels; None for none.
    """

    factor: float = 1.0
    unit_axes: tuple[int, ...] = ()
    slope: Array | None = None
    offset: Array | None = None
    projection: Array | None = None
    shift: Array | None = None

    @property
    def graph_key(self) -> Hashable:
        """What graphs depend on; the arrays are weights, and may differ."""
        features = None if self.projection is None else self.projection.shape[1]
        return self.factor, self.unit_axes, self.slope is not None, features


def fit_transform(
    config: TrialConfig, images: NDArray[np.uint8] | Array, labels: NDArray[np.int32]
) -> Transform:
    """Fits what the configuration asks for.

    Args:
        config: `scale` and the reductions are read.
        images: uint8 or float32 (n, h, w, c), of the training split only.
        labels: int32 (n,).

    Raises:
        TrialFailed: there are fewer pixels, or images, than components or pixels to keep.
    """
    factor, slope, offset = 1.0, None, None
    unit_axes: tuple[int, ...] = ()
    flat = images.reshape(len(images), -1)
    if config.scale == "255":
        factor = 1.0 / 255.0
    elif config.scale == "max":
        largest = float(flat.max())
        factor = 1.0 / largest if largest > 0 else 1.0
    elif config.scale == "l2":
        unit_axes = (1, 2, 3) if config.l2_axis == "image" else (config.l2_axis,)
    elif config.scale == "min-max":
        scaler = MinMaxScaler().fit(flat)
        slope, offset = scaler.scale_, scaler.min_
    elif config.scale == "standardize":
        scaler = StandardScaler().fit(flat)
        slope, offset = 1.0 / scaler.scale_, -scaler.mean_ / scaler.scale_
    if slope is not None and offset is not None:
        slope, offset = (x.reshape(images.shape[1:]).astype(np.float32) for x in (slope, offset))
    scaled = Transform(factor, unit_axes, slope, offset)
    projection, shift = _fit_projection(config, scaled, images, labels)
    return Transform(factor, unit_axes, slope, offset, projection, shift)


def _fit_projection(
    config: TrialConfig,
    scaled: Transform,
    images: NDArray[np.uint8] | Array,
    labels: NDArray[np.int32],
) -> tuple[Array | None, Array | None]:
    wanted = next((x for x in config.reduction if x is not None), None)
    if wanted is None:
        return None, None
    pixels = apply_scale(scaled, images).reshape(len(images), -1)
    most = pixels.shape[1] if config.forest_pixels is not None else min(pixels.shape)
    if wanted > most:
        raise TrialFailed(
            f"{wanted} features cannot be made of {len(pixels):,} training images of "
            f"{pixels.shape[1]} pixels: at most {most}."
        )
    if config.forest_pixels is not None:
        chosen = important_pixels(pixels, labels, config.forest_pixels)
        projection = np.zeros((pixels.shape[1], len(chosen)), np.float32)
        projection[chosen, np.arange(len(chosen))] = 1.0
        return projection, np.zeros(len(chosen), np.float32)
    # Stated, because both "auto" and the solvers that sample depend on the shape of the data.
    solver = "covariance_eigh" if len(pixels) > pixels.shape[1] else "full"
    pca = PCA(wanted, svd_solver=solver)
    # In single precision, components of real images are off by several percent. Images that are
    # all alike make the fractions of variance 0 / 0.
    with np.errstate(invalid="ignore"):
        pca.fit(pixels.astype(np.float64))
    return pca.components_.T.astype(np.float32), -(pca.components_ @ pca.mean_).astype(np.float32)


def important_pixels(
    pixels: NDArray[np.float32], labels: NDArray[np.int32], count: int
) -> NDArray[np.intp]:
    """Positions of the pixels most important to a random forest of 100 trees, ascending.

    Importance is the mean decrease in impurity (Breiman 2001), as in scikit-learn.

    Args:
        pixels: float32 (n, pixels).
        labels: int32 (n,).
        count: how many to name.
    """
    forest = RandomForestClassifier(FOREST_TREES, random_state=FOREST_SEED).fit(pixels, labels)
    order = np.argsort(-forest.feature_importances_, kind="stable")
    return np.sort(order[:count])


def apply_scale(transform: Transform, images: NDArray[np.uint8] | Array) -> Array:
    """The images as the projection sees them: float32 (n, h, w, c)."""
    values = images.astype(np.float32) * np.float32(transform.factor)
    if transform.unit_axes:
        norm = np.sqrt((values**2).sum(axis=transform.unit_axes, keepdims=True))
        values = values / np.where(norm == 0, np.float32(1), norm)
    if transform.slope is not None and transform.offset is not None:
        values = values * transform.slope + transform.offset
    return values
