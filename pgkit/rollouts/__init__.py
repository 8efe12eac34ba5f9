"""Acting in environments: rollouts, episodes, statistics, evaluation."""
