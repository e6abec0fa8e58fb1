"""Measures of SAEs, one a file. They know arrays and the SAE; they load no data."""
