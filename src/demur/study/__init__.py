"""Studies: what is compared, the evidence of each arm, and one file a table or figure."""
