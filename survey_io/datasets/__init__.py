"""Real data that networks are trained on and measured with, one file per dataset."""
