"""From finished runs to the settings that they select.

In come a plan and stored runs; out go measures of each run (``scores.py``) and the stages, the last of which has runs
to do (``stages.py``). All functions are pure: a comparison is resumed by calling them again. Start in
``stages.stages``.
"""
