"""From a study's tables to its figures, report and paper."""
