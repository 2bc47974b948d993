"""The lab: measuring the leak."""
