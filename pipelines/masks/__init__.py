"""Full supervision through the same contract: the upper bound that retention is measured against."""
