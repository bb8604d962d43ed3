"""The parameters of estimators, in groups; each is documented and checked where it is declared."""
