"""From predictions to results: shot groups, per-class accuracy, tables, figures."""
