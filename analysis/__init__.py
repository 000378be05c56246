"""From predictions to answers: shot groups, per-class accuracy, tables, figures."""
