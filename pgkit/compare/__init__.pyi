from .api import build_pooled_report, build_report, compare, load_analysis, load_pooled_analysis
from .plan.plan import Plan, read_plan
from .report import figures
from .reproduction.api import report_study, reproduce
from .tables import Analysis

__all__ = [
    "Analysis",
    "Plan",
    "build_pooled_report",
    "build_report",
    "compare",
    "figures",
    "load_analysis",
    "load_pooled_analysis",
    "read_plan",
    "report_study",
    "reproduce",
]
