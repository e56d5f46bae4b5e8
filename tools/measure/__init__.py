"""What tools/bench is made of: machines that run, what the plugin counts in them, figures with bars, tables."""
