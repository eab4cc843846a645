"""The audit of an estimator: its mean gradient by enumeration, beside the exact gradients of objectives."""
