"""Public test tools: a whole cluster in memory, on one simulated clock, for txraft itself and for your own machines."""
