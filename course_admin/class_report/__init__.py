"""The instructor's report on one lab: which questions the class failed, and what needs a person.

`statistics` turns the records of the class into numbers, `plots` draws them, `page` writes one HTML file that needs no
network, `tables` the same numbers as CSV.
"""
