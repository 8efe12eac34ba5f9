"""The return around a policy: lines, planes and paths, evaluated as populations."""
