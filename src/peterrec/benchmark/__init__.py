"""The transfer benchmark: built from a public data set, entered by files of scores, judged alike for everybody."""
