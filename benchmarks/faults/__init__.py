"""The fault table: what each fault costs a run, tried on a real local cluster."""
