"""Speed as ratios: each measurement runs beside its baseline in the same process."""
