from .api import diagnose
from .critic import critic_quality
from .curvature import directional_derivatives, hessian_product
from .estimator_comparison import compare_estimators
from .evidence import curvature_by_differences
from .health import unit_health
from .noise import noise_scale, update_snr
from .post_update import post_update_returns, update_parts
from .results import Diagnosis, Quantity
from .settings import Settings

__all__ = [
    "Diagnosis",
    "Quantity",
    "Settings",
    "compare_estimators",
    "critic_quality",
    "curvature_by_differences",
    "diagnose",
    "directional_derivatives",
    "hessian_product",
    "noise_scale",
    "post_update_returns",
    "unit_health",
    "update_parts",
    "update_snr",
]
