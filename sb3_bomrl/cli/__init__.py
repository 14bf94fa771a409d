"""The command line ``bomrl``."""
