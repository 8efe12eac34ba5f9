from .learning import draw_each, draw_median, figure_of_runs, learning_curves
from .runs import RunCurves, read_curves
from .style import save

__all__ = ["RunCurves", "draw_each", "draw_median", "figure_of_runs", "learning_curves", "read_curves", "save"]
