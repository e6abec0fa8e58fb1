"""Building the ConceptIndex of an SAE over a data set: its images, the pass over them, its pictures."""
